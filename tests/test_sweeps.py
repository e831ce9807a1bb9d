"""Sweeps: one dedicated model for each beta, which can be killed at any moment and trained side by side."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import DIGITS, NAMES, WINE, images, table
from torch import nn
from windows import posix

import elbowroom
from elbowroom import Sweep, TableVAE, sweep
from elbowroom.errors import ArtefactError, DataError, ElbowroomError, ElbowroomWarning, ParameterError
from elbowroom.estimators.sweep import middle
from elbowroom.training import trainer
from elbowroom.utils import matmul
from elbowroom.utils.files import held
from elbowroom.utils.signals import stopping

BETAS = [4, 0.1, 1]
SMALL = DIGITS[:200]


def weights(estimator):
    return {name: tensor.clone() for name, tensor in estimator.model_.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_sweeps(a, b):
    return a.betas == b.betas and all(same(weights(a.at(beta)), weights(b.at(beta))) for beta in a.betas)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep in a folder that nothing stopped."""
    folder = tmp_path_factory.mktemp("swept") / "sweep"
    return folder, sweep(images(), SMALL, BETAS, folder)


@pytest.fixture
def started(monkeypatch):
    """What every training starts from, in the order of the trainings."""
    found = []

    def fit(self, model, rows, beta, *more, train=trainer.Trainer.fit):
        found.append((beta.value, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        return train(self, model, rows, beta, *more)

    monkeypatch.setattr(trainer.Trainer, "fit", fit)
    return found


# ---- what is trained -------------------------------------------------------------------------------------------------


def test_without_a_warm_start_it_is_fit_at_every_beta():
    settings = table(beta="warmup:end=1", epochs=3)
    found = sweep(settings, WINE, BETAS, warm_start=False)
    assert found.betas == [0.1, 1, 4]
    for beta in BETAS:
        assert same(weights(found.at(beta)), weights(table(beta=beta, epochs=3).fit(WINE)))
        assert found.at(beta).beta == beta
    assert settings.beta == "warmup:end=1"
    assert not hasattr(settings, "model_")


@pytest.mark.parametrize("folder", [None, "sweep"])
def test_a_warm_start_is_from_the_weights_of_the_middle(started, tmp_path, folder):
    found = sweep(table(epochs=3), WINE, BETAS, folder and tmp_path / folder)
    assert [beta for beta, _ in started] == [1, 0.1, 4]
    assert same(weights(found.at(1)), weights(table(epochs=3).fit(WINE)))
    for _, start in started[1:3]:
        assert same(start, weights(found.at(1)))
    assert not same(weights(found.at(0.1)), weights(found.at(1)))
    assert not any("_start" in vars(found.at(beta)) for beta in BETAS)


def test_a_model_of_a_sweep_that_is_fitted_again_starts_anew():
    again = sweep(table(epochs=2), WINE, BETAS).at(4).fit(WINE)
    assert same(weights(again), weights(table(epochs=2, beta=4).fit(WINE)))


@pytest.mark.parametrize(
    ("betas", "found"), [([1, 4], 1), ([0.1, 1, 10], 1), ([0.01, 0.02, 1, 100], 1), ([1e-30, 1e30], 1e-30)]
)
def test_the_middle_is_that_of_the_logarithms(betas, found):
    assert middle(betas) == found
    assert middle(betas[::-1]) == found


def test_all_models_have_one_seed_also_without_one_of_their_own():
    found = sweep(table(random_state=None, epochs=2), WINE, BETAS)
    assert len({found.at(beta).seed_ for beta in BETAS}) == 1


@pytest.mark.parametrize("folder", [None, "sweep"])
def test_parallel_is_serial_bit_for_bit(swept, tmp_path, folder):
    _, serial = swept
    assert same_sweeps(sweep(images(), SMALL, BETAS, folder and tmp_path / folder, jobs=2), serial)


def test_a_folder_is_where_the_caller_is(tmp_path, monkeypatch):
    for name in ("first", "second"):  # processes are kept from sweep to sweep, with the current folder that they had
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert sweep(table(epochs=2), WINE, [1, 2, 4], "s", jobs=2).betas == [1, 2, 4]


def test_context_goes_to_every_model():
    labels = np.array(["a", "b"] * (len(WINE) // 2))
    found = sweep(table(epochs=2), WINE, BETAS, context=labels)
    assert found.curve(WINE, context=labels).rates.shape == (3, len(WINE))
    with pytest.raises(DataError, match="context"):
        found.curve(WINE)


def test_what_is_worth_a_look_names_its_beta(monkeypatch):
    monkeypatch.setattr(trainer.Run, "_add_notes", lambda run: run._note(f"of {run.beta}"))
    with pytest.warns(ElbowroomWarning) as caught:
        sweep(table(epochs=2), WINE, BETAS)
    assert [str(warning.message) for warning in caught] == ["beta 1: of 1", "beta 0.1: of 0.1", "beta 4: of 4"]


# ---- the curve and the choice ----------------------------------------------------------------------------------------


def test_the_curve_has_the_dedicated_numbers(swept):
    _, found = swept
    curve = found.curve(SMALL)
    assert curve.betas.tolist() == [0.1, 1, 4]
    for beta, distortion, rate in zip(curve.betas, curve.distortions, curve.rates, strict=True):
        expected = found.at(beta).distortion_and_rate(SMALL, n_draws=4)
        np.testing.assert_array_equal((distortion, rate), expected)
    part = found.curve(SMALL, [4, 0.1])
    np.testing.assert_array_equal(part.rates, curve.rates[[0, 2]])


def test_the_curve_is_that_of_a_range(swept):
    _, found = swept
    ranged = images(beta="0.1..4").fit(SMALL).curve(SMALL, found.betas)
    assert type(ranged) is type(found.curve(SMALL))
    assert list(ranged.columns()) == list(found.curve(SMALL).columns())


def test_pick_is_a_beta_of_the_sweep(swept):
    _, found = swept
    scores = {beta: found.at(beta).score(SMALL) for beta in found.betas}
    assert found.pick(SMALL, "elbo") == max(scores, key=scores.get)
    assert found.pick(SMALL, lambda model, _: -model.beta) == 0.1
    assert found.pick(SMALL, lambda model, _: model.beta, [0.1, 1]) == 1
    assert found.pick(SMALL, "knee") in found.betas
    rates = found.curve(SMALL).rate
    assert rates[0] > rates[2]
    for i in (0, 2):
        assert found.pick(SMALL, f"rate:nats={rates[i]}") == found.betas[i]
    near = 0.02 * rates[0] + 0.98 * rates[2]
    assert found.pick(SMALL, f"rate:nats={near}", [0.1, 4]) == 4
    with pytest.raises(ParameterError, match="must be within those of the range"):
        found.pick(SMALL, f"rate:nats={2 * rates.max()}")
    with pytest.raises(ParameterError, match="Did you mean 'knee'"):
        found.pick(SMALL, "kne")


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_has_saved_models_and_can_be_loaded(swept):
    folder, found = swept
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "beta-0.1", "beta-1", "beta-4"}
    assert same_sweeps(Sweep.load(folder), found)
    assert same(weights(elbowroom.load(folder / "beta-4")), weights(found.at(4)))
    assert same_sweeps(found, sweep(images(), SMALL, BETAS))


def test_what_is_finished_is_not_trained_again(tmp_path, started):
    sweep(table(epochs=2), WINE, BETAS, tmp_path / "s")
    assert len(started) == 3
    (tmp_path / "s" / "beta-4").rename(tmp_path / "gone")
    (tmp_path / "s" / "beta-1.run").mkdir()  # as a kill between saving and sweeping up leaves it
    (tmp_path / "s" / ".beta-4.half").mkdir()
    found = sweep(table(epochs=2, verbose=False, device="cpu"), WINE, BETAS[::-1], tmp_path / "s")
    assert [beta for beta, _ in started[3:]] == [4]
    assert same(weights(found.at(4)), weights(elbowroom.load(tmp_path / "gone")))
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"sweep.json", "beta-0.1", "beta-1", "beta-4"}


def test_a_sweep_without_a_seed_keeps_the_one_it_drew(tmp_path):
    first = sweep(table(random_state=None, epochs=2), WINE, BETAS, tmp_path / "s")
    (tmp_path / "s" / "beta-4").rename(tmp_path / "gone")
    assert same_sweeps(sweep(table(random_state=None, epochs=2), WINE, BETAS, tmp_path / "s"), first)


FRAME = pd.DataFrame(WINE, columns=NAMES)


@pytest.mark.parametrize(
    ("key", "estimator", "X", "betas", "more"),
    [
        ("epochs", table(epochs=3), FRAME, BETAS, {}),
        ("hidden", table(epochs=2, hidden=(8,)), FRAME, BETAS, {}),
        ("random_state", table(epochs=2, random_state=1), FRAME, BETAS, {}),
        ("estimator", images(), SMALL, BETAS, {}),
        ("betas", table(epochs=2), FRAME, [*BETAS, 7], {}),
        ("warm_start", table(epochs=2), FRAME, BETAS, {"warm_start": False}),
        ("data", table(epochs=2), FRAME + 1, BETAS, {}),
        ("data", table(epochs=2), FRAME, BETAS, {"context": np.arange(len(WINE)) % 2}),
        ("columns", table(epochs=2), FRAME.rename(columns={"alcohol": "spirit"}), BETAS, {}),
    ],
)
def test_another_sweep_is_refused(tmp_path, key, estimator, X, betas, more):
    sweep(table(epochs=2), FRAME, BETAS, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ArtefactError, match=f"its {key} is"):
        sweep(estimator, X, betas, tmp_path, **more)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_sweep_of_models_that_can_not_be_read_any_more_is_refused(tmp_path, monkeypatch):
    sweep(table(epochs=2), WINE, BETAS, tmp_path)
    monkeypatch.setattr(elbowroom.estimators.sweep_folder, "SCHEMA", elbowroom.persistence.artefact.SCHEMA + 1)
    with pytest.raises(ArtefactError, match=r"its model schema is .*, or another folder"):
        sweep(table(epochs=2), WINE, BETAS, tmp_path)


KILLED = """
import os, shutil, sys
import numpy as np
from small import DIGITS, images
from elbowroom import sweep
from elbowroom.persistence import artefact
from elbowroom.training import checkpoints, trainer

moment, folder = sys.argv[1], sys.argv[2]
trained = []

def die():
    os.kill(os.getpid(), 9)

def step(run, *batch, train=trainer.Run._train_step):
    train(run, *batch)
    if run.step == 1:
        trained.append(run)
    if moment == f"{{len(trained)}}.{{run.step}}":
        die()

def write(artefact, path, write=artefact.write):
    if moment == f"before saving {{path.name}}":
        die()
    write(artefact, path)
    if moment == f"after saving {{path.name}}":
        die()

trainer.Run._train_step = step
artefact.write = write
checkpoints.Checkpoints.__init__.__defaults__ = (0,)  # after every step
sweep(images(), DIGITS[:200], {betas}, folder)
"""
MOMENTS = ["1.1", "2.3", "before saving beta-1", "after saving beta-1", "after saving beta-4"]


@posix
@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_sweep_goes_on_and_ends_with_the_same_bits(swept, tmp_path, moment, started):
    folder = tmp_path / "killed"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", KILLED.format(betas=BETAS), moment, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = len(list(folder.glob("beta-*/config.json")))
    if finished < 3:
        with pytest.raises(ArtefactError, match="must have a model at every beta"):
            Sweep.load(folder)
    started.clear()
    assert same_sweeps(sweep(images(), SMALL, BETAS, folder), swept[1])
    assert len(started) == 3 - finished
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "beta-0.1", "beta-1", "beta-4"}


def test_a_disk_that_is_full_loses_no_model_of_a_sweep(swept, tmp_path, monkeypatch):
    real = elbowroom.persistence.artefact.write_atomically

    def full(path, content):
        if path.parent.name == "beta-0.1":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    monkeypatch.setattr(elbowroom.persistence.artefact, "write_atomically", full)
    with pytest.raises(ArtefactError, match=r"No space left on device.*The same call goes on; what was trained is"):
        sweep(images(), SMALL, BETAS, tmp_path / "s")
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"sweep.json", "beta-1", "beta-0.1.run"}
    assert list((tmp_path / "s" / "beta-0.1.run").glob("step-*"))
    assert same_sweeps(sweep(images(), SMALL, BETAS, tmp_path / "s"), swept[1])


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_sweep_and_keeps_what_was_trained(swept, tmp_path, monkeypatch, number):
    def step(run, *batch, train=trainer.Run._train_step):
        train(run, *batch)
        if run.step == 3 and run.beta.value == 0.1:  # in the second epoch of the second model
            os.kill(os.getpid(), number)

    monkeypatch.setattr(trainer.Run, "_train_step", step)
    with stopping(), pytest.raises(KeyboardInterrupt):
        sweep(images(), SMALL, BETAS, tmp_path / "s")
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"sweep.json", "beta-1", "beta-0.1.run"}
    assert same_sweeps(sweep(images(), SMALL, BETAS, tmp_path / "s"), swept[1])


def test_a_sweep_keeps_the_products_that_it_began_with(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(matmul, "onednn_is_exact", lambda: True)

    def train(run, shown, train=trainer.Run.train):
        asked.append(run.history.products)
        train(run, shown)

    monkeypatch.setattr(trainer.Run, "train", train)
    monkeypatch.setattr(matmul, "processor", lambda: matmul.Processor("GenuineIntel"))
    sweep(table(epochs=2), WINE, BETAS, tmp_path)
    (tmp_path / "beta-4").rename(tmp_path / ".gone")
    monkeypatch.setattr(matmul, "processor", lambda: matmul.Processor("AuthenticAMD"))
    sweep(table(epochs=2), WINE, BETAS, tmp_path)
    assert asked == ["default"] * 4


def test_two_processes_do_not_work_on_one_sweep(tmp_path):
    with held(tmp_path), pytest.raises(ArtefactError, match="is used by another"):
        sweep(table(), WINE, BETAS, tmp_path)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "betas",
    ["0.1,1", [1], [], 1, None, [1, 1.0], [0, 1], [-1, 1], [1, np.nan], [1, np.inf], [1, "many"], [[1, 2]], [1, 1e31]],
    ids=str,
)
def test_bad_betas(betas, tmp_path):
    with pytest.raises(ParameterError, match="two or more numbers above 0, each once"):
        sweep(table(), WINE, betas, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("estimator", "X", "more", "expected"),
    [
        (TableVAE, WINE, {}, "trains an estimator"),
        (nn.Linear(1, 1), WINE, {}, "trains an estimator"),
        (table(), WINE, {"jobs": 0}, "jobs must be a whole number"),
        (table(), WINE, {"jobs": 1.5}, "jobs must be a whole number"),
        (table(n_latents=0), WINE, {}, "n_latents"),
        (table(random_state=-1), WINE, {}, "random_state"),
        (table(), WINE[:, 0], {}, "got 1D array"),
        (table(), WINE * np.nan, {}, "NaN|finite|missing"),
        (table(likelihood="poisson"), WINE, {}, "poisson"),
        (table(likelihood="poison"), WINE, {}, "poisson"),
        (table(), WINE, {"context": [1, 2]}, "context"),
        (table(encoder=nn.Linear(13, 4)), WINE, {}, "encoder is of your own class Linear"),
    ],
)
def test_bad_input_leaves_no_folder(tmp_path, estimator, X, more, expected):
    with pytest.raises((ElbowroomError, ValueError), match=expected):
        sweep(estimator, X, BETAS, tmp_path / "s", **more)
    assert not (tmp_path / "s").exists()


def test_modules_of_ones_own_are_swept_without_a_folder():
    found = sweep(table(encoder=nn.Linear(13, 4), epochs=2), WINE, BETAS)
    assert found.curve(WINE).rates.shape == (3, len(WINE))


def test_places_that_can_not_hold_a_sweep(tmp_path, swept):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for place in ("file", "file/s", "none/s", "full"):
        with pytest.raises(ArtefactError, match="a sweep is written to a"):
            sweep(table(), WINE, BETAS, tmp_path / place)
    assert (tmp_path / "full" / "thesis.tex").exists()
    for place in ("file", "none", "full"):
        with pytest.raises(ArtefactError, match=r"has none|none is"):
            Sweep.load(tmp_path / place)


def sweep_json(tmp_path, **changes):
    facts = {"format": "elbowroom sweep", "products": "default", "betas": [1, 2], "parameters": {"random_state": 0}}
    (tmp_path / "sweep.json").write_text(json.dumps(facts | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"products": "fast"},
        {"betas": [1]},
        {"betas": "x"},
        {"betas": None},
        {"parameters": None},
        {"parameters": []},
        {"parameters": {"random_state": "x"}},
        {"parameters": {"random_state": None}},
    ],
    ids=str,
)
def test_broken_settings_are_refused(tmp_path, changes):
    sweep_json(tmp_path, **changes)
    for open_it in (lambda: Sweep.load(tmp_path), lambda: sweep(table(), WINE, BETAS, tmp_path)):
        with pytest.raises(ArtefactError, match="must hold the settings of a sweep"):
            open_it()
    assert (tmp_path / "sweep.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": "elbowroom sweep"}', "\ud800", "[" * 9999])
def test_settings_that_are_no_settings(tmp_path, text):
    (tmp_path / "sweep.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ArtefactError, match="must hold the settings of a sweep"):
        Sweep.load(tmp_path)


def test_a_beta_that_was_not_trained(swept):
    _, found = swept
    for wrong in (2, np.nan, "x", None, [0.1, 2], []):
        with pytest.raises(ParameterError, match=r"must be one of 0\.1, 1, 4"):
            found.at(wrong) if not isinstance(wrong, list) else found.curve(SMALL, wrong)
    assert found.at(0.1 + 1e-15) is found.at(0.1)
