"""Saved models: bit-equal round trips, and 200 broken or hostile folders that give a clear error and run nothing."""

import copy
import hashlib
import json
import os
import random
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits, load_wine
from small import WINE, table

import elbowroom
from elbowroom import CountVAE, ImageVAE, TableVAE, artefact
from elbowroom.errors import ArtefactError

QUICK = {"epochs": 1, "random_state": 0, "hidden": (8,), "n_latents": 3}
COUNTS = np.random.default_rng(0).negative_binomial(2, 0.3, (60, 7))
DIGITS = load_digits().images[:60]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved table model."""
    return TableVAE(**QUICK, prior="vamp:components=4").fit(WINE).save(tmp_path_factory.mktemp("models") / "wine")


@pytest.mark.parametrize(
    ("model", "X"),
    [
        (TableVAE(**QUICK), WINE),
        (TableVAE(**QUICK, covariance="full", likelihood="student_t", gated=True), WINE),
        (TableVAE(**QUICK, prior="mixture:components=5", objective="iwae:draws=2", beta="warmup:end=2"), WINE),
        (TableVAE(**QUICK, likelihood={"gaussian": [0, *range(2, 13)], "student_t": [1]}), WINE),
        (CountVAE(**QUICK), COUNTS),
        (CountVAE(**QUICK, likelihood="multinomial"), COUNTS),
        (CountVAE(**QUICK, likelihood="categorical"), COUNTS),
        (ImageVAE(**QUICK, channels=(4,)), DIGITS),
        (ImageVAE(**QUICK, channels=(4,), body="residual", likelihood="discretized_logistic:levels=17"), DIGITS),
        (ImageVAE(**QUICK, body="mlp", binarize="sample"), DIGITS.astype(np.uint8) * 15),
    ],
    ids=lambda value: type(value).__name__,
)
def test_load_gives_back_the_same_model(model, X, tmp_path):
    model = model.fit(X)
    again = elbowroom.load(model.save(tmp_path / "model"))
    assert type(again) is type(model)
    for a, b in zip(model.model_.state_dict().values(), again.model_.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(model.transform(X), again.transform(X))
    np.testing.assert_array_equal(model.score_samples(X), again.score_samples(X))
    np.testing.assert_array_equal(model.sample(4, random_state=1), again.sample(4, random_state=1))
    assert again.history_ == model.history_
    assert again.diagnosis_.verdict == model.diagnosis_.verdict
    assert again.likelihood_ == model.likelihood_


def test_names_frames_and_context_come_back(tmp_path):
    X = load_wine(as_frame=True).data
    context = np.where(np.arange(len(X)) % 2, "odd", "even")
    model = TableVAE(**QUICK).fit(X, context=context)
    again = elbowroom.load(model.save(tmp_path / "model"))
    assert list(again.feature_names_in_) == list(X.columns)
    assert again.reconstruct(X, context=context).equals(model.reconstruct(X, context=context))
    with pytest.raises(elbowroom.errors.DataError, match="'third'"):
        again.transform(X, context=["third"] * len(X))


def test_a_saved_model_is_replaced_and_anything_else_is_not(saved, tmp_path):
    target = shutil.copytree(saved, tmp_path / "model")
    elbowroom.load(saved).save(target)
    assert elbowroom.load(target).n_latents == 3
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    for path in (tmp_path / "other", tmp_path / "other" / "thesis.tex", tmp_path / "missing" / "model"):
        with pytest.raises(ArtefactError):
            elbowroom.load(saved).save(path)
    assert (tmp_path / "other" / "thesis.tex").read_text() == "years of work"


def test_a_failed_save_leaves_nothing_and_keeps_the_old_model(saved, tmp_path, monkeypatch):
    target = shutil.copytree(saved, tmp_path / "model")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtefactError, match="No space left"):
        elbowroom.load(saved).save(target)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    elbowroom.load(target)


def test_parts_of_the_callers_own_are_refused(tmp_path):
    class Encoder(torch.nn.Linear):
        width = 4

        def forward(self, x, context=None):
            return super().forward(x)

    model = TableVAE(**QUICK, encoder=Encoder(13, 4)).fit(WINE)
    with pytest.raises(ArtefactError, match="joblib"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


# ---- 200 broken folders ------------------------------------------------------------------------------------------


def sign(folder):
    """Make the checksums right again, as a hostile hand would."""
    names = (artefact.CONFIG, artefact.WEIGHTS, artefact.HISTORY, artefact.CARD)
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / artefact.CHECKSUMS).write_bytes(json.dumps(sums, indent=1, sort_keys=True).encode())


def refuses(folder):
    with pytest.raises(ArtefactError) as caught:
        elbowroom.load(folder)
    error = caught.value
    assert error.expected
    assert error.got
    assert error.do
    assert len(str(error)) < 600


FILES = [artefact.CONFIG, artefact.WEIGHTS, artefact.HISTORY, artefact.CARD, artefact.CHECKSUMS]


@pytest.mark.parametrize("case", range(60))
def test_a_flipped_bit_is_found(saved, tmp_path, case):
    folder = shutil.copytree(saved, tmp_path / "model")
    chance = random.Random(case)
    path = folder / FILES[case % len(FILES)]
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    refuses(folder)


@pytest.mark.parametrize("case", range(40))
def test_a_truncated_missing_or_swapped_file_is_found(saved, tmp_path, case):
    folder = shutil.copytree(saved, tmp_path / "model")
    chance = random.Random(case)
    path = folder / FILES[case % len(FILES)]
    content = path.read_bytes()
    if case < 20:
        path.write_bytes(content[: chance.randrange(len(content))])
    elif case < 25:
        path.unlink()
    elif case < 30:
        path.unlink()
        path.mkdir()
    elif case < 35:
        path.write_bytes(content + b"\x00")
    else:
        path.write_bytes((folder / FILES[(case + 1) % len(FILES)]).read_bytes())
    refuses(folder)


def edits():
    """Hostile configurations: (name, how to change the configuration)."""

    def put(*path, value):
        def edit(config):
            for key in path[:-1]:
                config = config[key]
            config[path[-1]] = value

        return edit

    def drop(*path):
        def edit(config):
            for key in path[:-1]:
                config = config[key]
            del config[path[-1]]

        return edit

    for value in (None, 1, [], {}, "other", True):
        yield put("format", value=value)
    for value in (None, "2", 2.5, [], artefact.SCHEMA - 1, artefact.SCHEMA + 1, 10**30):
        yield put("schema", value=value)
    for value in ("os.system", "__import__('os').system", "BaseVAE", "Pipeline", "../TableVAE", None, 3, [], {}):
        yield put("estimator", value=value)
    for value in ("os.system", "Sequential", "subprocess.Popen", "nn.Module", "MLP", None, 7, [], {}, "__class__"):
        yield put("model", "class", value=value)
        yield put("model", "encoder", "class", value=value if value != "MLP" else "VAE")
    for value in (None, "8", -1, 0, 10**18, 1.5, [], {"class": "VAE"}, float("nan")):
        yield put("model", "latent", "size", value=value)
    for value in (None, 3, "x", [10**15], [-1], [0], [[8]], ["8"], [8] * 100, {}):
        yield put("model", "encoder", "hidden", value=value)
    for value in (None, 3, "exp", "__builtins__", []):
        yield put("model", "encoder", "activation", value=value)
    for value in (None, -1, 10**12, "4", 2.5, []):
        yield put("model", "prior", "components", value=value)
    for value in (None, "none", 3, [], "feature; import os"):
        yield put("model", "likelihood", "scale", value=value)
    for key in ("estimator", "parameters", "fitted", "diagnosis", "model", "format", "schema"):
        yield drop(key)
    for key in ("class", "encoder", "latent", "prior", "decoder", "likelihood"):
        yield drop("model", key)
    for value in ("import os", -1, None, [], {}, "nan", 1e400):
        yield put("parameters", "beta", value=value)
    for value in (0, -3, "3", None, 4, 1e9):
        yield put("parameters", "n_latents", value=value)
    for key, value in (("hidden", "x"), ("covariance", "half"), ("verbose", []), ("epochs", -1), ("extra", 1)):
        yield put("parameters", key, value=value)
    for key, value in (("__class__", "x"), ("fit", "x"), ("model_", {}), ("n_features_in_", "13"), ("seed_", None)):
        yield put("fitted", key, value=value)
    for value in (None, [], "x", {"rate": "x"}):
        yield put("diagnosis", value=value)
    yield put("diagnosis", "active", value=[True] * 99)
    yield put("diagnosis", "rate_per_latent", value=[])
    yield put("fitted", "feature_names_in_", value=["one"])
    yield put("fitted", "frame_kind_", value="sqlite")
    yield put("model", "encoder", "extra", value=1)
    yield put("model", "prior", value={"class": "MixturePrior", "size": 3, "components": 10**12})


EDITS = list(edits())


@pytest.mark.parametrize("case", range(len(EDITS)))
def test_a_hostile_configuration_is_refused(saved, tmp_path, case):
    folder = shutil.copytree(saved, tmp_path / "model")
    config = json.loads((folder / artefact.CONFIG).read_bytes())
    before = copy.deepcopy(config)
    EDITS[case](config)
    assert config != before
    (folder / artefact.CONFIG).write_text(json.dumps(config))
    sign(folder)
    refuses(folder)


WEIGHTS = {
    "nothing": lambda w: {},
    "one more": lambda w: {**w, "extra": torch.zeros(2)},
    "one less": lambda w: dict(list(w.items())[1:]),
    "other shape": lambda w: {k: v.reshape(-1)[:1].clone() for k, v in w.items()},
    "other dtype": lambda w: {k: v.double() for k, v in w.items()},
    "integers": lambda w: {k: v.long() for k, v in w.items()},
    "not finite": lambda w: {k: torch.full_like(v, float("nan")) for k, v in w.items()},
}
RAW = {
    "empty": b"",
    "pickle": b"\x80\x04\x95.",
    "huge header": (2**62).to_bytes(8, "little") + b"{}",
    "header past the end": (1000).to_bytes(8, "little") + b"{}",
    "header is a list": (2).to_bytes(8, "little") + b"[]",
    "offsets past the end": (lambda h: len(h).to_bytes(8, "little") + h)(
        b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    ),
    "unknown dtype": (lambda h: len(h).to_bytes(8, "little") + h)(
        b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,1]}}'
    )
    + b"1",
}
TEXTS = {
    "empty": b"",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "not text": b"\xff\xfe\x00",
    "number": b"1e999",
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_foreign_weights_are_refused(saved, tmp_path, name):
    folder = shutil.copytree(saved, tmp_path / "model")
    weights = safetensors.torch.load((folder / artefact.WEIGHTS).read_bytes())
    (folder / artefact.WEIGHTS).write_bytes(safetensors.torch.save(WEIGHTS[name](weights)))
    sign(folder)
    refuses(folder)


@pytest.mark.parametrize("name", RAW)
def test_hostile_weight_files_are_refused(saved, tmp_path, name):
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / artefact.WEIGHTS).write_bytes(RAW[name])
    sign(folder)
    refuses(folder)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("file", [artefact.CONFIG, artefact.HISTORY])
def test_hostile_json_is_refused(saved, tmp_path, file, name):
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / file).write_bytes(TEXTS[name])
    sign(folder)
    refuses(folder)


def test_there_are_200_of_them():
    assert 60 + 40 + len(EDITS) + len(WEIGHTS) + len(RAW) + 2 * len(TEXTS) >= 200


@pytest.mark.parametrize("path", ["nowhere", ".", "file.txt"])
def test_what_is_no_folder_of_ours_is_refused(tmp_path, path):
    (tmp_path / "file.txt").write_text("x")
    refuses(tmp_path / path)


# ---- what is beside a model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["checksums.json"], ["config.json", "checksums.json"], ["config.json"]])
def test_a_folder_that_only_looks_like_a_model_is_not_replaced(names, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    (folder / "data.csv").write_text("precious")
    with pytest.raises(ArtefactError, match="something else"):
        table().fit(WINE).save(folder)
    assert (folder / "data.csv").read_text() == "precious"


def test_what_was_put_beside_a_model_is_not_lost(tmp_path):
    model = table(epochs=1).fit(WINE)
    model.save(tmp_path / "m")
    (tmp_path / "m" / "report.html").write_text("precious")
    with pytest.raises(ArtefactError, match=r"also holds 'report.html'"):
        model.save(tmp_path / "m")
    assert (tmp_path / "m" / "report.html").exists()


def test_a_link_stays_a_link_and_nothing_left_over_is_in_the_way(tmp_path):
    model = table(epochs=1).fit(WINE)
    model.save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / ".real.old" / "x").mkdir(parents=True)
    other = table(epochs=1, n_latents=1).fit(WINE)
    other.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert elbowroom.load(tmp_path / "real").n_latents == 1
    assert {p.name for p in tmp_path.iterdir()} == {"real", "link", ".real.old"}


def test_a_model_of_an_earlier_version_lacks_what_came_later(tmp_path):
    model = TableVAE(**QUICK).fit(WINE)
    folder = model.save(tmp_path / "model")
    config = json.loads((folder / artefact.CONFIG).read_text())
    assert config["parameters"].pop("precision") == "float32"
    (folder / artefact.CONFIG).write_text(json.dumps(config))
    sign(folder)
    again = elbowroom.load(folder)
    assert again.precision == "float32"
    np.testing.assert_array_equal(again.transform(WINE), model.transform(WINE))


def test_parameters_that_were_changed_after_fit_are_not_saved(tmp_path):
    model = table(epochs=1).fit(WINE).set_params(n_latents=5)
    assert len(model.get_feature_names_out()) == 2
    assert model.inverse_transform(model.transform(WINE)).shape == WINE.shape
    with pytest.raises(ArtefactError, match="fitted with 2"):
        model.save(tmp_path / "m")
