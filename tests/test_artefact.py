"""Saved models: bit-equal round trips, and 200 broken or hostile folders that give a clear error and run nothing."""

import contextlib
import copy
import errno
import functools
import itertools
import os
import random
import re
import shutil
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from forging import file_of, forge, opened, sealed
from sklearn.datasets import load_digits, load_wine
from small import WINE, table

import elbowroom
from elbowroom import CountVAE, ImageVAE, TableVAE
from elbowroom.errors import ArtefactError
from elbowroom.persistence import artefact

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


NEW = {"config.json", "README.md", "history.json", "model.safetensors"}


def names(folder):
    """What is in the folder of a model, without the checksums in the names."""
    return {re.sub(r"\.[0-9a-f]{16}\.", ".", path.name) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def two():
    """Two models that are easy to distinguish."""
    return table(epochs=1).fit(WINE), table(epochs=1, n_latents=3).fit(WINE)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("replace", [False, True])
def test_a_save_that_fails_anywhere_leaves_what_was_there(two, tmp_path, monkeypatch, code, replace):
    old, new = two
    target = tmp_path / "model"
    if replace:
        old.save(target)
    for failing in itertools.count():
        calls = 0

        def fail(*arguments, real, failing=failing):
            nonlocal calls
            calls += 1
            if calls > failing:
                raise OSError(code, os.strerror(code))
            return real(*arguments)

        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name in ("fsync", "replace"):
                patch.setattr(os, name, functools.partial(fail, real=getattr(os, name)))
            try:
                new.save(target)
                break
            except ArtefactError as error:
                said = str(error)
        assert os.strerror(code) in said
        assert [path.name for path in tmp_path.iterdir()] == ["model"] * replace
        if replace:
            assert names(target) == NEW
            assert elbowroom.load(target).n_latents == old.n_latents
    assert (
        failing == 8
    )  # three files, whose content, name and folder are synced; what is after the index does not count
    assert "not its card" in str(caught[0].message)
    np.testing.assert_array_equal(new.transform(WINE), elbowroom.load(target).transform(WINE))


def test_ctrl_c_at_any_moment_of_a_save_leaves_a_good_model(two, tmp_path, monkeypatch):
    old, new = two
    target, came_to = old.save(tmp_path / "model"), []
    for failing in range(15):
        left = [failing]

        def interrupted(handle, sync=os.fsync, left=left):
            sync(handle)
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(os, "fsync", interrupted)
            new.save(target)
        came_to.append(elbowroom.load(target).n_latents)
    assert came_to == sorted(came_to)
    assert {*came_to} == {old.n_latents, new.n_latents}
    new.save(target)
    assert names(target) == NEW


def killed(at, save):
    """Whether a save came to its end in a process that is killed at its nth step."""
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def step(event, arguments):
            written = event == "open" and str(arguments[0]).endswith(".tmp")
            if (written or event.startswith(("os.", "shutil."))) and next(steps) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        try:
            save()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows can not fork")
@pytest.mark.parametrize("replace", [False, True])
def test_a_save_that_is_killed_anywhere_leaves_a_good_model(two, tmp_path, replace):
    old, new = two
    came_to = []
    for at in itertools.count():
        target = tmp_path / str(at)
        if replace:
            old.save(target)
        ended = killed(at, lambda target=target: new.save(target))
        came_to.append(elbowroom.load(target).n_latents if artefact.is_model(target) else 0)
        assert came_to[-1] or artefact.is_free(target)
        new.save(target)
        assert names(target) == NEW
        assert elbowroom.load(target).n_latents == new.n_latents
        if ended:
            break
    assert came_to == sorted(came_to)
    assert {*came_to} == {old.n_latents if replace else 0, new.n_latents}
    assert len(came_to) > 12
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_models_that_are_saved_and_loaded_at_once(two, tmp_path):
    target = two[0].save(tmp_path / "m")
    latents = {model.transform(WINE[:3]).tobytes() for model in two}
    found, failed, left = [], [], [*two]

    def attempt(action):
        try:
            action()
        except BaseException as error:
            failed.append(error)

    def saves(model):
        for _ in range(8):
            model.save(target)
        left.pop()

    def loads():
        while left and not failed:
            found.append(elbowroom.load(target).transform(WINE[:3]).tobytes())

    threads = [threading.Thread(target=attempt, args=(functools.partial(saves, model),)) for model in two]
    threads += [threading.Thread(target=attempt, args=(loads,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {*found} <= latents
    assert len(found) > 2
    assert names(target) == NEW


def test_a_file_that_may_not_grow(two, tmp_path):
    """The same by the system's own refusal, in the middle of a file."""
    resource = pytest.importorskip("resource")
    target = two[0].save(tmp_path / "m")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        for place in (target, tmp_path / "new"):
            with pytest.raises(ArtefactError, match="File too large"):
                two[1].save(place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert names(target) == NEW
    assert elbowroom.load(target).n_latents == 2


def test_a_model_of_an_earlier_schema_says_so_and_is_replaced(two, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "history.json", "README.md", "checksums.json"):
        (folder / name).write_text("{}")
    (folder / "config.json").write_text('{"format": "elbowroom", "schema": 3}')
    with pytest.raises(ArtefactError, match=r"has schema 3. Fit it again; its settings are in config.json"):
        elbowroom.load(folder)
    two[0].save(folder)
    assert names(folder) == NEW


@pytest.mark.parametrize("form", [str, Path, lambda path: f"{path}/", os.path.relpath, "~"])
def test_paths_of_every_kind(two, tmp_path, monkeypatch, form):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = "~/m" if form == "~" else form(tmp_path / "m")
    assert Path(two[0].save(path)).resolve() == (tmp_path / "m").resolve()
    assert elbowroom.load(path).n_latents == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_files_that_are_links_are_read(two, tmp_path):
    """As a cache of the Hugging Face hub has them."""
    folder = two[0].save(tmp_path / "m")
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(tmp_path / "blobs" / str(number))
        path.symlink_to(f"../blobs/{number}")
    np.testing.assert_array_equal(elbowroom.load(folder).transform(WINE), two[0].transform(WINE))


def test_a_link_to_a_file_of_others_is_refused_and_says_nothing_of_it(two, tmp_path):
    folder = two[0].save(tmp_path / "m")
    path = file_of(folder, artefact.HISTORY)
    (tmp_path / "secret").write_bytes(b"secret" + bytes(path.stat().st_size - 6))
    path.unlink()
    path.symlink_to("../secret")
    with pytest.raises(ArtefactError, match="its checksum differs") as caught:
        elbowroom.load(folder)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_the_default_of_torch_elsewhere_is_not_seen(two, tmp_path, dtype):
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    try:
        again = elbowroom.load(two[0].save(tmp_path / "m"))
        assert torch.get_default_dtype() is dtype
        assert torch.empty(1).device.type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for a, b in zip(two[0].model_.state_dict().values(), again.model_.state_dict().values(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype


def test_weights_that_a_device_kept_in_fewer_digits_are_saved(two, tmp_path):
    model = copy.deepcopy(two[0])
    assert model.model_.likelihood.unit_loc.dtype == torch.float64
    model.model_.float()  # as on Apple's GPUs
    again = elbowroom.load(model.save(tmp_path / "m"))
    assert again.model_.likelihood.unit_loc.dtype == torch.float64
    assert torch.equal(again.model_.likelihood.unit_loc.float(), model.model_.likelihood.unit_loc)


def test_large_counts_are_scored_alike_after_loading(tmp_path):
    X = np.random.default_rng(0).poisson(3e7, (40, 3))
    model = CountVAE(**QUICK, likelihood="poisson").fit(X)
    again = elbowroom.load(model.save(tmp_path / "m"))
    assert again.model_.likelihood.large
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))


def test_parameters_of_every_kind_of_sequence_are_saved(tmp_path):
    model = table(epochs=1, hidden=range(4, 6)).fit(WINE)
    assert list(elbowroom.load(model.save(tmp_path / "m")).hidden) == [4, 5]


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


def refuses(folder):
    with pytest.raises(ArtefactError) as caught:
        elbowroom.load(folder)
    error = caught.value
    assert error.expected
    assert error.got
    assert error.do
    assert len(str(error)) < 600


FILES = [artefact.CONFIG, artefact.WEIGHTS, artefact.HISTORY]


@pytest.mark.parametrize("case", range(60))
def test_a_flipped_bit_is_found(saved, tmp_path, case):
    folder = shutil.copytree(saved, tmp_path / "model")
    chance = random.Random(case)
    path = file_of(folder, FILES[case % len(FILES)])
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    refuses(folder)


@pytest.mark.parametrize("case", range(40))
def test_a_truncated_missing_or_swapped_file_is_found(saved, tmp_path, case):
    folder = shutil.copytree(saved, tmp_path / "model")
    chance = random.Random(case)
    path = file_of(folder, FILES[case % len(FILES)])
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
        path.write_bytes(file_of(folder, FILES[(case + 1) % len(FILES)]).read_bytes())
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
    config, files = opened(folder)
    before = copy.deepcopy(config)
    EDITS[case](config)
    assert config != before
    sealed(folder, config, files)
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
    config, files = opened(folder)
    weights = WEIGHTS[name](safetensors.torch.load(files[artefact.WEIGHTS]))
    sealed(folder, config, files | {artefact.WEIGHTS: safetensors.torch.save(weights)})
    refuses(folder)


@pytest.mark.parametrize("name", RAW)
def test_hostile_weight_files_are_refused(saved, tmp_path, name):
    folder = shutil.copytree(saved, tmp_path / "model")
    forge(folder, lambda _, files: files.update({artefact.WEIGHTS: RAW[name]}))
    refuses(folder)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("file", [artefact.CONFIG, artefact.HISTORY])
def test_hostile_json_is_refused(saved, tmp_path, file, name):
    folder = shutil.copytree(saved, tmp_path / "model")
    config, files = opened(folder)
    if file == artefact.CONFIG:
        sealed(folder, TEXTS[name], files)
    else:
        sealed(folder, config, files | {file: TEXTS[name]})
    refuses(folder)


def test_there_are_200_of_them():
    assert 60 + 40 + len(EDITS) + len(WEIGHTS) + len(RAW) + 2 * len(TEXTS) >= 200


@pytest.mark.parametrize("path", ["nowhere", ".", "file.txt"])
def test_what_is_no_folder_of_ours_is_refused(tmp_path, path):
    (tmp_path / "file.txt").write_text("x")
    refuses(tmp_path / path)


# ---- what is beside a model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [["checksums.json"], ["README.md", "config.json"], ["config.json", "checksums.json"], ["config.json"]]
)
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
    for name in ("report.html", "model.safetensors", ".gitattributes", ".config.json.swp", "history.json"):
        (tmp_path / "m" / name).write_text("precious")
    model.save(tmp_path / "m")
    others = {path.name for path in (tmp_path / "m").iterdir() if path.read_bytes() == b"precious"}
    assert others == {"report.html", "model.safetensors", ".gitattributes", ".config.json.swp", "history.json"}
    elbowroom.load(tmp_path / "m")


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
    forge(folder, lambda config, _: config["parameters"].pop("precision"))
    again = elbowroom.load(folder)
    assert again.precision == "float32"
    np.testing.assert_array_equal(again.transform(WINE), model.transform(WINE))


def test_parameters_that_were_changed_after_fit_are_not_saved(tmp_path):
    model = table(epochs=1).fit(WINE).set_params(n_latents=5)
    assert len(model.get_feature_names_out()) == 2
    assert model.inverse_transform(model.transform(WINE)).shape == WINE.shape
    with pytest.raises(ArtefactError, match="fitted with 2"):
        model.save(tmp_path / "m")
