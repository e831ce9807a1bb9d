"""Many betas on the command line: --beta, curve, pick and sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forging import file_of
from windows import posix

import elbowroom
from elbowroom import Sweep, TableVAE, sweep
from elbowroom.cli.app import run
from elbowroom.utils.files import held

QUICK = ["--epochs", "3", "--hidden", "8", "--n-latents", "2", "--random-state", "0", "--no-verbose"]
COLUMNS = ["beta", "rate", "rate_error", "distortion", "distortion_error", "elbo", "elbo_error", "active", "slope"]
SWEEP = ["sweep", "people.csv", "--beta", "1,0.1,4", *QUICK]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data, a model of a range, one of a single beta, and a sweep."""
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(60, 3)) @ random.normal(size=(3, 3)), columns=["age", "income", "height"])
    table.to_csv(folder / "people.csv", index=False)
    images = random.integers(0, 17, (60, 4, 4)).astype(np.uint8)
    np.save(folder / "digits.npy", images)
    people, digits = str(folder / "people.csv"), str(folder / "digits.npy")
    assert run(["fit", people, "--out", str(folder / "range"), "--beta", "0.1..10", *QUICK]) == 0
    assert run(["fit", people, "--out", str(folder / "single"), *QUICK]) == 0
    assert run(["fit", digits, "--out", str(folder / "pictures"), "--beta", "0.1..10", "--body", "mlp", *QUICK]) == 0
    assert run([*SWEEP[:1], people, *SWEEP[2:], "--out", str(folder / "swept")]) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch, capsys):
    """A fresh current folder in which what was made can be named."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def people():
    return pd.read_csv("people.csv", float_precision="round_trip")


def answer(capsys, *words):
    """Run a command that succeeds, and its JSON."""
    code = run([*words, "--json"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return json.loads(out)


def said(capsys, *words):
    """Run a command that succeeds, and its text."""
    code = run(list(words))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


# ---- --beta ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "beta"), [("range", "0.3"), ("swept", "4")])
def test_beta_is_the_model_at_that_beta(here, capsys, model, beta):
    expected = Sweep.load(model).at(4) if model == "swept" else elbowroom.load(model).at(0.3)
    answer(capsys, "encode", model, "people.csv", "--out", "z.npy", "--beta", beta)
    np.testing.assert_array_equal(np.load("z.npy"), expected.transform(people()))
    answer(capsys, "reconstruct", model, "people.csv", "--out", "x.npy", "--beta", beta)
    np.testing.assert_array_equal(np.load("x.npy"), expected.reconstruct(people()))
    answer(capsys, "sample", model, "-n", "5", "--out", "s.npy", "--beta", beta, "--random-state", "3")
    np.testing.assert_array_equal(np.load("s.npy"), expected.sample(5, random_state=3))
    found = answer(capsys, "score", model, "people.csv", "--draws", "0", "--beta", beta)
    assert found["elbo"] == pytest.approx(expected.score(people()))
    assert list(np.load("z.npy").shape) == [60, 2]


def test_without_beta_it_is_the_models_own(here, capsys):
    answer(capsys, "encode", "range", "people.csv", "--out", "z.npy")
    answer(capsys, "encode", "range", "people.csv", "--out", "one.npy", "--beta", "1")
    np.testing.assert_array_equal(np.load("z.npy"), np.load("one.npy"))


def test_a_report_at_a_beta(here, capsys):
    pytest.importorskip("matplotlib")
    answer(capsys, "report", "range", "people.csv", "--out", "low.html", "--beta", "0.1")
    answer(capsys, "report", "range", "people.csv", "--out", "high.html", "--beta", "10")
    assert Path("low.html").read_text() != Path("high.html").read_text()


# ---- curve -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["range", "swept"])
def test_the_curve_as_a_table(here, capsys, model):
    expected = (Sweep if model == "swept" else elbowroom).load(model).curve(people())
    text = said(capsys, "curve", model, "people.csv")
    assert text.startswith("60 rows, in nats per row")
    assert str(expected) in text
    facts = answer(capsys, "curve", model, "people.csv")
    assert facts["rows"] == 60
    assert [name for name in facts if name in COLUMNS] == COLUMNS
    assert facts["rate"] == expected.rate.tolist()
    assert facts["slope"][0] is None
    assert facts["beta"] == ([0.1, 1, 4] if model == "swept" else pytest.approx(np.geomspace(0.1, 10, 13).tolist()))


@pytest.mark.parametrize("model", ["range", "swept"])
def test_some_betas_of_a_curve(here, capsys, model):
    assert answer(capsys, "curve", model, "people.csv", "--betas", "4,0.1")["beta"] == [0.1, 4]
    assert answer(capsys, "curve", model, "people.csv", "--betas", "0.1", "--betas", "4,1")["beta"] == [0.1, 1, 4]


@pytest.mark.parametrize("out", ["c.csv", "c.tsv", "c.parquet", "c.npy", "c.npz", "c.json"])
def test_a_curve_in_a_file(here, capsys, out):
    expected = elbowroom.load("range").curve(people(), [0.1, 1, 10]).columns()
    facts = answer(capsys, "curve", "range", "people.csv", "--betas", "0.1,1,10", "--out", out)
    assert facts["out"] == out
    readers = {
        ".csv": lambda: pd.read_csv(out, float_precision="round_trip"),
        ".tsv": lambda: pd.read_csv(out, sep="\t", float_precision="round_trip"),
        ".parquet": lambda: pd.read_parquet(out),
        ".npy": lambda: pd.DataFrame(np.load(out), columns=COLUMNS),
        ".npz": lambda: pd.DataFrame(np.load(out)["curve"], columns=np.load(out)["columns"]),
        ".json": lambda: pd.DataFrame({name: json.loads(Path(out).read_text())[name] for name in COLUMNS}),
    }
    frame = readers[Path(out).suffix]()
    assert list(frame) == COLUMNS
    np.testing.assert_array_equal(frame.to_numpy(float), np.column_stack([*expected.values()]))


def test_curves_side_by_side(here, capsys):
    words = ["curve", "range", "people.csv", "--betas", "0.1,1", "--with", "swept", "--with", "range"]
    facts = answer(capsys, *words)
    assert facts["beta"] == [0.1, 1]
    assert facts["with"]["swept"]["beta"] == [0.1, 1, 4]
    text = said(capsys, *words, "--out", "c.csv")
    assert text.index("range\n") < text.index("swept\n")
    frame = pd.read_csv("c.csv")
    assert list(frame["row"]) == ["range"] * 2 + ["swept"] * 3
    assert list(frame)[1:] == COLUMNS


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_a_curve_as_a_picture(here, capsys, ending):
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        answer(capsys, "curve", "range", "people.csv", "--with", "swept", "--out", f"{name}{ending}")
    content = Path(f"a{ending}").read_bytes()
    assert content.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending])
    assert content == Path(f"b{ending}").read_bytes()
    answer(capsys, "curve", "range", "people.csv", "--out", f"c{ending}")
    assert content != Path(f"c{ending}").read_bytes()


def test_a_curve_of_images(here, capsys):
    assert len(answer(capsys, "curve", "pictures", "digits.npy")["beta"]) == 13


# ---- pick ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [None, "elbo", "knee", "distortion", "rate"])
@pytest.mark.parametrize("model", ["range", "swept"])
def test_pick(here, capsys, model, task):
    opened = (Sweep if model == "swept" else elbowroom).load(model)
    if task in ("rate", "distortion"):
        task = f"{task}:nats={getattr(opened.curve(people()), task)[0]}"  # of the smallest beta
    more = [] if task is None else ["--task", task]
    facts = answer(capsys, "pick", model, "people.csv", *more)
    assert facts["beta"] == opened.pick(people(), task or "log_likelihood")
    assert facts["task"] == (task or "log_likelihood")
    if model == "range" and facts["task"].startswith("rate"):
        assert facts["beta"] == pytest.approx(0.1)
    assert float(said(capsys, "pick", model, "people.csv", *more)) == facts["beta"]


@pytest.mark.parametrize("model", ["range", "swept"])
def test_the_picked_model_can_be_saved(here, capsys, model):
    facts = answer(capsys, "pick", model, "people.csv", "--betas", "0.1,4", "--task", "elbo", "--out", "picked/")
    assert facts["beta"] in (0.1, 4)
    answer(capsys, "encode", "picked", "people.csv", "--out", "a.npy")
    answer(capsys, "encode", model, "people.csv", "--out", "b.npy", "--beta", str(facts["beta"]))
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))
    assert run(["pick", model, "people.csv", "--out", "picked"]) == 2
    assert "Add --overwrite" in capsys.readouterr().err
    assert "saved the model at this beta to picked" in said(
        capsys, "pick", model, "people.csv", "--out", "picked", "--overwrite"
    )


# ---- sweep -----------------------------------------------------------------------------------------------------------


def test_sweep_is_sweep(here, capsys):
    facts = answer(capsys, *SWEEP, "--out", "s/")
    assert [model["beta"] for model in facts["models"]] == [0.1, 1, 4]
    expected = sweep(TableVAE(2, epochs=3, hidden=(8,), random_state=0), people(), [0.1, 1, 4])
    for beta in (0.1, 1, 4):
        found = elbowroom.load(f"s/beta-{beta}")
        np.testing.assert_array_equal(found.transform(people()), expected.at(beta).transform(people()))
        assert list(found.feature_names_in_) == ["age", "income", "height"]
    assert facts["models"][0]["rate"] == expected.at(0.1).history_.best["held_out_rate"]
    text = said(capsys, *SWEEP, "--out", "s")
    assert "held out" in text
    assert "saved to s; look at it: elbowroom curve s people.csv" in text
    cold = answer(capsys, *SWEEP, "--out", "cold", "--no-warm-start")
    assert cold["models"][1] == facts["models"][1] | {"model": "cold/beta-1"}
    assert cold["models"][0]["rate"] != facts["models"][0]["rate"]


def test_sweep_shows_its_progress(here, capsys):
    words = [word for word in SWEEP if word != "--no-verbose"]
    assert run([*words, "--out", "s"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("beta ")]
    assert lines == ["beta 1", "beta 0.1", "beta 4"]


def test_a_sweep_from_a_config_file(here, capsys):
    Path("run.toml").write_text("beta = [0.5, 2]\nepochs = 2\nhidden = [8]\njobs = 1\nwarm_start = false\n")
    facts = answer(capsys, "sweep", "people.csv", "--out", "s", "--config", "run.toml")
    assert [model["beta"] for model in facts["models"]] == [0.5, 2]
    assert json.loads(Path("s/sweep.json").read_text())["warm_start"] is False


def weights(model):
    return file_of(model, "model.safetensors").read_bytes()


def test_a_sweep_in_processes(here, capsys):
    answer(capsys, *SWEEP, "--out", "s", "--jobs", "2")
    for name in ("beta-0.1", "beta-1", "beta-4"):
        assert weights(here / "s" / name) == weights(here / "swept" / name)


STOPPED = """
import os, elbowroom.training.trainer as trainer, elbowroom.training.checkpoints as checkpoints
from elbowroom.cli import main

def step(run, *batch, train=trainer.Run._train_step):
    train(run, *batch)
    if run.step == 2 and run.beta.value == 4:
        os.kill(os.getpid(), {signal})

trainer.Run._train_step = step
checkpoints.Checkpoints.__init__.__defaults__ = (0,)
main()
"""


@posix
@pytest.mark.parametrize("number", [9, signal.SIGINT])  # SIGKILL by its number, which Windows has no name for
def test_the_same_command_goes_on_with_a_sweep_that_was_stopped(here, capsys, number):
    code = STOPPED.format(signal=int(number))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", code, *SWEEP, "--out", "s"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert "note: what was trained is kept; run the same command to continue" in done.stderr
        assert done.stderr.splitlines()[-1] == "error: interrupted"
    assert {path.name for path in Path("s").iterdir()} == {"sweep.json", "beta-0.1", "beta-1", "beta-4.run"}
    assert run(["curve", "s", "people.csv"]) == 1
    assert "lacks beta-4. Call sweep again" in capsys.readouterr().err
    answer(capsys, *SWEEP, "--out", "s")
    for name in ("beta-0.1", "beta-1", "beta-4"):
        assert weights(Path("s", name)) == weights(Path("swept", name))


def test_a_sweep_that_is_held(here, capsys):
    with held("swept"):
        assert run([*SWEEP, "--out", "swept"]) == 1
    assert "is used by another" in capsys.readouterr().err


def test_the_commands_of_the_guide(here, capsys):
    pytest.importorskip("matplotlib")
    guide = (Path(__file__).parent.parent / "docs" / "guide.md").read_text()
    lines = [line for line in guide.splitlines() if line.startswith("elbowroom ")]
    assert len(lines) >= 10
    for name in ("train.csv", "valid.csv"):
        Path(name).symlink_to("people.csv")
    for line in lines:
        words = line.split("#")[0].split()
        if "rate:nats=2" in words:  # a rate that the model of this test has
            words[words.index("rate:nats=2")] = f"rate:nats={elbowroom.load(words[2]).curve(people()).rate[6]}"
        said(capsys, *words[1:], *(QUICK if words[1] in ("fit", "sweep") else []))
    assert {path.name for path in here.iterdir()} >= {
        "model",
        "models",
        "small",
        "curve.csv",
        "curve.png",
        "z.csv",
        "both.png",
    }


# ---- what goes wrong -------------------------------------------------------------------------------------------------

BAD = [
    ("encode single people.csv --out z.npy --beta 1", 2, "this one was trained at one beta. Fit with --beta 0.01..10."),
    ("encode range people.csv --out z.npy --beta 100", 2, "beta must be in the range from 0.1 to 10"),
    ("encode range people.csv --out z.npy --beta nan", 2, "beta must be in the range from 0.1 to 10"),
    ("encode range people.csv --out z.npy --beta one", 2, "--beta"),
    (
        "encode swept people.csv --out z.npy",
        1,
        "swept is a sweep of models. Name a model in it, such as swept/beta-0.1",
    ),
    ("encode swept people.csv --out z.npy --beta 2", 2, "must be one of 0.1, 1, 4"),
    ("encode none people.csv --out z.npy --beta 2", 1, "none does not exist"),
    ("sample range --out x.npy --beta=-1", 2, "beta must be in the range"),
    ("score single people.csv --beta 0.5", 2, "trained at one beta"),
    ("reconstruct range people.csv --out x.png --beta 1", 2, "only images"),
    ("report range people.csv --out r.html --beta 0", 2, "beta must be in the range"),
    ("info swept", 1, "is a sweep of models"),
    ("resume swept", 1, "is none"),
    ("fit people.csv --out swept", 2, "swept is something else"),
    ("curve single people.csv", 2, "trained at one beta"),
    ("curve range none.csv", 1, "does not exist"),
    ("curve none people.csv", 1, "none does not exist"),
    ("curve range digits.npy", 1, ""),
    ("curve range people.csv --betas 1,x", 2, "'1,x' is not a list of numbers"),
    ("curve range people.csv --betas 0.01,1", 2, "betas must be numbers from 0.1 to 10"),
    ("curve swept people.csv --betas 2", 2, "must be one of 0.1, 1, 4"),
    ("curve range people.csv --with single", 2, "trained at one beta"),
    ("curve range people.csv --with none", 1, "none does not exist"),
    ("curve range people.csv --with pictures", 1, ""),
    ("curve range people.csv --out c.xyz", 2, "must end in .csv"),
    ("curve range people.csv --out c.h5ad", 2, "must end in .csv"),
    ("curve range people.csv --out c", 2, "must end in .csv"),
    ("curve range people.csv --out none/c.png", 2, "none does not exist. Create it."),
    ("curve range people.csv --out folder.png", 2, "is a folder"),
    ("curve range people.csv --out folder.csv", 2, "is a folder"),
    ("curve range people.csv --out people.csv", 2, "is the input"),
    ("pick single people.csv", 2, "trained at one beta"),
    ("pick range people.csv --task kne", 2, "Did you mean 'knee'?"),
    ("pick range people.csv --task rate", 2, "needs nats"),
    ("pick range people.csv --task rate:nats=1e9", 2, "must be within those of the range"),
    ("pick range people.csv --task rate:nats=many", 2, "must be within those of the range"),
    ("pick range people.csv --task rate:nats=none", 2, "must be within those of the range"),
    ("pick range people.csv --betas 100", 2, "betas must be numbers"),
    ("pick range people.csv --out single", 2, "Add --overwrite"),
    ("pick range people.csv --out range --overwrite", 2, "range is the model"),
    ("pick range people.csv --out people.csv", 2, "is something else"),
    ("sweep people.csv --out s", 2, "two or more numbers above 0"),
    ("sweep people.csv --out s --beta 1", 2, "two or more numbers above 0"),
    ("sweep people.csv --out s --beta 1,1", 2, "each once"),
    ("sweep people.csv --out s --beta 0,1", 2, "above 0"),
    ("sweep people.csv --out s --beta 0.1..10", 2, "'0.1..10' is not a list of numbers"),
    ("sweep people.csv --out s --beta 1,warmup", 2, "'1,warmup' is not a list of numbers"),
    ("sweep people.csv --out s --beta 1,2 --jobs 0", 2, "jobs must be a whole number"),
    ("sweep people.csv --out s --beta 1,2 --jobs 1.5", 2, "'1.5' is not a whole number"),
    ("sweep people.csv --out s --beta 1,2 --likelihood bernouli", 2, "Did you mean 'bernoulli'?"),
    ("sweep people.csv --out s --beta 1,2 --likelihood poisson", 1, "column 'age'"),
    ("sweep people.csv --out s --beta 1,2 --body mlp", 2, "--body is a parameter of image models"),
    ("sweep people.csv --out s --beta 1,2 --label nme", 1, "nme"),
    ("sweep none.csv --out s --beta 1,2", 1, "does not exist"),
    ("sweep people.csv --out none/s --beta 1,2", 2, "none does not exist"),
    ("sweep people.csv --out people.csv --beta 1,2", 1, "a sweep is written to a"),
    ("sweep people.csv --out single --beta 1,2", 1, "single is something else"),
    ("sweep people.csv --out swept --beta 1,2", 1, "its betas is [0.1, 1.0, 4.0], not [1.0, 2.0]"),
]


@pytest.mark.parametrize(("line", "code", "expected"), BAD, ids=[line for line, *_ in BAD])
def test_bad_command_lines(here, capsys, line, code, expected):
    Path("folder.png").mkdir()
    Path("folder.csv").mkdir()
    before = sorted(here.iterdir())
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    *progress, last = err.splitlines()
    assert last.startswith("error: ")
    assert expected in last
    assert not [line for line in progress if not line.startswith(("likelihood ", "beta "))]
    assert sorted(here.iterdir()) == before  # nothing is left behind
    assert run([*line.split(), "--json"]) == code
    problem = json.loads(capsys.readouterr().err)["error"]
    assert problem["kind"] in ("ParameterError", "ArtefactError", "DataError", "CoercionError", "Refused"), problem
    assert problem["do"]


def test_a_picture_without_matplotlib_is_refused_before_any_work(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("elbowroom.report.")]:
        if name.rpartition(".")[2] in ("model_figures", "style", "data_figures"):
            monkeypatch.delitem(sys.modules, name)
    assert run(["curve", "none", "people.csv", "--out", "c.png"]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err
