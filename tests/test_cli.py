"""The command line, as people and programs run it."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import typing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forging import file_of
from scipy import sparse
from windows import posix

import elbowroom
from elbowroom import CountVAE, ImageVAE, InteractionVAE, TableVAE
from elbowroom.beta.policies import POLICIES
from elbowroom.cli import commands, demos, options
from elbowroom.cli.app import app, run
from elbowroom.cli.console import problem_of
from elbowroom.cli.runs import Run
from elbowroom.errors import ArtefactError, ParameterError
from elbowroom.latents.priors import PRIORS
from elbowroom.likelihoods.registry import LIKELIHOODS
from elbowroom.objectives.bounds import OBJECTIVES
from elbowroom.persistence import artefact
from elbowroom.training import trainer
from elbowroom.utils.constraints import StrOptions
from elbowroom.utils.files import held

anndata = pytest.importorskip("anndata")
FAMILIES = {"": TableVAE, "images": ImageVAE, "counts": CountVAE, "interactions": InteractionVAE}
SNAPSHOT = Path(__file__).with_name("cli_flags.txt")
QUICK = ["--epochs", "2", "--hidden", "8", "--n-latents", "2", "--random-state", "0", "--no-verbose"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data of all kinds and a model of each."""
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(60, 3)), columns=["age", "income", "height"])
    table["class"] = random.integers(0, 3, 60)
    table["name"] = [f"n{i}" for i in range(60)]
    table.to_csv(folder / "people.csv", index=False)
    images = random.integers(0, 17, (60, 4, 4)).astype(np.uint8)
    np.savez_compressed(folder / "digits.npz", images=images, digit=random.integers(0, 10, 60))
    np.save(folder / "digits.npy", images)
    counts = sparse.csr_matrix(random.poisson(1.0, (60, 5)).astype(np.float32))
    adata = anndata.AnnData(counts, obs=pd.DataFrame({"donor": list("ab") * 30}, index=[f"cell{i}" for i in range(60)]))
    adata.var_names = [f"gene{i}" for i in range(5)]
    adata.write_h5ad(folder / "cells.h5ad")
    sparse.save_npz(folder / "cells.npz", counts)
    fits = {
        "people": ["people.csv", "--label", "class", "--label", "name"],
        "digits": ["digits.npz"],
        "cells": ["cells.h5ad", "--batch-key", "donor"],
        "plain": ["cells.h5ad"],
    }
    for model, (file, *more) in fits.items():
        assert run(["fit", str(folder / file), "--out", str(folder / model), *more, *QUICK]) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A fresh current folder in which what was made can be named."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def people():
    return pd.read_csv("people.csv", float_precision="round_trip")


def answer(capsys, *words):
    """Run a command that succeeds, and its JSON."""
    code = run([*words, "--json"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1
    return json.loads(out)


# ---- flags ---------------------------------------------------------------------------------------------------------


def hints():
    return typing.get_type_hints(options.Parameters, include_extras=True)


def parameters(family):
    return {name: p.default for name, p in inspect.signature(family).parameters.items() if name not in NOT_FLAGS}


NOT_FLAGS = {"encoder", "decoder"}  # modules, which no command line can name


def in_words(value):
    words = {True: "yes", False: "no", None: ""}
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return words[value] if value is None or isinstance(value, bool) else str(value)


def test_flags_are_the_parameters_of_the_estimators():
    names = {name for family in FAMILIES.values() for name in parameters(family)}
    assert set(hints()) == names


@pytest.mark.parametrize("name", sorted(set(hints()) - {"verbose"}))
def test_help_tells_the_estimators_defaults(name):
    defaults = {kind: parameters(family)[name] for kind, family in FAMILIES.items() if name in parameters(family)}
    first, *others = defaults.items()
    text = in_words(first[1]) + "".join(f"; {k} {in_words(v)}" for k, v in others if v != first[1])
    assert (hints()[name].__metadata__[0].show_default or "") == text


def test_choices_are_the_estimators_choices():
    for name, hint in hints().items():
        constraints = next(f._parameter_constraints[name] for f in FAMILIES.values() if name in parameters(f))
        known = {option for c in constraints if isinstance(c, StrOptions) for option in c.options} - {"auto"}
        offered = {v for kind in typing.get_args(hint.__origin__) for v in typing.get_args(kind) if v is not ...}
        assert known == offered - {int}, name


@pytest.mark.parametrize(
    ("flag", "family"),
    [("likelihood", LIKELIHOODS), ("prior", PRIORS), ("objective", OBJECTIVES), ("beta", POLICIES)],
)
def test_help_names_all_members_of_a_family(flag, family):
    text = hints()[flag].__metadata__[0].help
    assert [name for name in family if name not in text and name not in ("mixed", "constant")] == []


def test_commands_and_flags_are_a_snapshot():
    """A flag that goes or changes its name breaks scripts: change tests/cli_flags.txt on purpose, and the changelog."""
    lines = []
    for command in sorted(name for name in app if not name.startswith("-")):
        names = {name for argument in app[command].assemble_argument_collection() for name in argument.names} - {"*"}
        lines.append(" ".join([command, *sorted(names)]))
    assert SNAPSHOT.read_text().splitlines() == lines


def test_help_is_light():
    code = (
        "import sys; from elbowroom.cli import run\n"
        "for words in ('', '--help', 'fit --help', '--version', 'fit', 'fot', 'fit x --epoch 3'):\n"
        "    assert run(words.split()) in (0, 2)\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'scipy', 'pandas', 'narwhals', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_what_is_an_extra_is_not_imported_with_the_estimators():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('matplotlib', 'polars', 'anndata', 'PIL')))\n"
        "import elbowroom; [getattr(elbowroom, name) for name in elbowroom.__all__]\n"
        "from elbowroom.cli import commands, demos, ranges, recommenders, table_commands"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["", *(name for name in app if not name.startswith("-"))])
def test_help_fits_a_terminal(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*filter(None, [command]), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: elbowroom {command or 'COMMAND'}")
    assert max(map(len, lines)) <= 80


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == elbowroom.__version__


# ---- the commands --------------------------------------------------------------------------------------------------


def test_fit_tells_what_it_did(here, capsys):
    facts = answer(capsys, "fit", "people.csv", "--out", "m", "--label", "class", "--label", "name", *QUICK)
    assert facts["columns"] == ["age", "income", "height"]
    assert (facts["estimator"], facts["rows"], facts["likelihood"]) == ("TableVAE", 60, "gaussian")
    assert (facts["epochs"], facts["complete"], facts["seed"], facts["n_latents"]) == (2, True, 0, 2)
    assert not Path("m.run").exists()
    assert answer(capsys, "info", "m")["verdict"] == facts["verdict"]


def test_fit_is_fit(here):
    table = people()[["age", "income", "height"]]
    model = TableVAE(2, epochs=2, hidden=(8,), random_state=0).fit(table)
    np.testing.assert_array_equal(elbowroom.load("people").transform(table), model.transform(table))


def test_fit_as_people_see_it(here, capsys):
    assert run(["fit", "digits.npz", "--out", "m", "--epochs", "2", "--channels", "4", "--hidden", "8"]) == 0
    out, err = capsys.readouterr()
    assert "ImageVAE" in out
    assert "60 rows, images of 4 x 4" in out
    assert "elbowroom report m digits.npz" in out
    assert "epoch 2/2" in err
    assert re.search(r"seed \d+", out)


@pytest.mark.parametrize(
    ("file", "kind", "estimator"),
    [
        ("people.csv", "auto", "TableVAE"),
        ("digits.npy", "auto", "ImageVAE"),
        ("digits.npz:images", "auto", "ImageVAE"),
        ("cells.h5ad", "auto", "CountVAE"),
        ("cells.npz", "auto", "CountVAE"),
        ("cells.h5ad", "table", "TableVAE"),
        ("people.csv", "count", "CountVAE"),
    ],
)
def test_kinds(here, capsys, file, kind, estimator):
    labels = ["--label", "class", "--label", "name"] if file == "people.csv" else []
    if (file, kind) == ("people.csv", "count"):
        Path("people.csv").unlink()
        pd.DataFrame({"a": [1, 2, 3] * 20, "class": 0, "name": "x"}).to_csv("people.csv", index=False)
    facts = answer(capsys, "fit", file, "--out", "m", "--kind", kind, *labels, *QUICK)
    assert facts["estimator"] == estimator
    assert answer(capsys, "score", "m", file, "--draws", "4")["rows"] == 60


def test_encode(here, capsys):
    assert answer(capsys, "encode", "people", "people.csv", "--out", "z.csv") == {"out": "z.csv", "shape": [60, 2]}
    frame = pd.read_csv("z.csv", float_precision="round_trip")
    assert list(frame) == ["class", "name", "latent0", "latent1"]
    pd.testing.assert_frame_equal(frame[["class", "name"]], people()[["class", "name"]])
    table = people()[["age", "income", "height"]]
    np.testing.assert_array_equal(frame[["latent0", "latent1"]], elbowroom.load("people").transform(table))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_tables_of_arrays_are_written_too(tmp_path, monkeypatch, capsys, ending):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[::5, 1] = np.nan
    np.savez("rows.npz", X=x, group=np.arange(60) % 3)
    answer(capsys, "fit", "rows.npz", "--out", "m", "--schema", "infer", *QUICK)
    read = {".csv": partial(pd.read_csv, float_precision="round_trip"), ".parquet": pd.read_parquet}[ending]
    answer(capsys, "impute", "m", "rows.npz", "--out", f"full{ending}")
    full = read(f"full{ending}")
    assert list(full) == ["group", "x0", "x1", "x2"]
    assert full["group"].tolist() == (np.arange(60) % 3).tolist()
    values = full[["x0", "x1", "x2"]].to_numpy()
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values[~np.isnan(x)], x[~np.isnan(x)])
    answer(capsys, "reconstruct", "m", "rows.npz", "--out", f"again{ending}")
    answer(capsys, "sample", "m", "-n", "7", "--out", f"new{ending}")
    assert (read(f"again{ending}").shape, read(f"new{ending}").shape) == ((60, 3), (7, 3))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_label_columns_stay_with_their_rows(tmp_path, monkeypatch, capsys, ending):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    table = pd.DataFrame({"id": [f"{i:03d}" for i in range(60)], "a": random.normal(size=60)})
    table["b"], table["note"] = random.choice(["x", "y"], 60), "of a person, perhaps"
    table.loc[::7, "a"] = np.nan
    table.to_parquet("rows.parquet")
    answer(capsys, "fit", "rows.parquet", "--out", "m", "--label", "id", "--label", "note", *QUICK)
    read = {".csv": pd.read_csv, ".tsv": partial(pd.read_csv, sep="\t"), ".parquet": None}[ending]
    for command in (["score", "--draws", "0"], ["detect"], ["encode"]):
        answer(capsys, command[0], "m", "rows.parquet", "--out", f"out{ending}", *command[1:])
        out = pd.read_parquet(f"out{ending}") if read is None else read(f"out{ending}", dtype={"id": str})
        assert list(out)[:2] == ["id", "note"]
        assert out["id"].tolist() == table["id"].tolist()
    answer(capsys, "impute", "m", "rows.parquet", "--out", f"full{ending}")
    full = pd.read_parquet(f"full{ending}") if read is None else read(f"full{ending}", dtype={"id": str})
    assert list(full) == ["id", "a", "b", "note"]
    assert full[["id", "b", "note"]].equals(table[["id", "b", "note"]])
    assert full["a"].notna().all()


def test_columns_are_matched_by_name(here, capsys):
    people()[["height", "name", "age", "income"]].to_parquet("other.parquet")
    first = answer(capsys, "score", "people", "people.csv", "--draws", "0")
    assert answer(capsys, "score", "people", "other.parquet", "--draws", "0") == first
    adata = anndata.read_h5ad("cells.h5ad")
    adata[:, ::-1].write_h5ad("turned.h5ad")
    first = answer(capsys, "score", "cells", "cells.h5ad", "--draws", "0")
    assert answer(capsys, "score", "cells", "turned.h5ad", "--draws", "0") == first


def test_encode_into_anndata(here, capsys):
    answer(capsys, "encode", "cells", "cells.h5ad", "--out", "z.h5ad")
    back = anndata.read_h5ad("z.h5ad")
    assert back.obsm["X_vae"].shape == (60, 2)
    assert list(back.obs["donor"][:2]) == ["a", "b"]


@pytest.mark.parametrize("out", ["x.npy", "x.npz", "x.csv", "x.parquet", "x.h5ad"])
@pytest.mark.parametrize("model", ["people", "cells"])
def test_reconstruct_and_sample(here, capsys, model, out):
    file = {"people": "people.csv", "cells": "cells.h5ad"}[model]
    answer(capsys, "reconstruct", model, file, "--out", out)
    label = ["--context", "a"] if model == "cells" else []
    assert answer(capsys, "sample", model, "-n", "7", "--out", f"s{out}", *label)["shape"] == [
        7,
        5 if model == "cells" else 3,
    ]
    if out == "x.csv":
        expected = [f"gene{i}" for i in range(5)] if model == "cells" else ["age", "income", "height"]
        assert [c for c in pd.read_csv(out) if c != "row"] == expected
        assert list(pd.read_csv(f"s{out}")) == expected


def test_samples_are_repeatable_and_pictures_have_the_right_white(here, capsys):
    pillow = pytest.importorskip("PIL.Image")
    for name in ("a.npy", "b.npy"):
        answer(capsys, "sample", "digits", "-n", "3", "--out", name, "--random-state", "1", "--mean")
    values = np.load("a.npy")
    np.testing.assert_array_equal(values, np.load("b.npy"))
    answer(capsys, "sample", "digits", "-n", "3", "--out", "p/", "--random-state", "1", "--mean")
    np.testing.assert_allclose(np.asarray(pillow.open("p/0.png")), values[0] / 16 * 255, atol=0.51)
    answer(capsys, "reconstruct", "digits", "digits.npz", "--out", "grid.png")
    assert pillow.open("grid.png").size == (8 * 34 + 2, 8 * 34 + 2)


def test_score(here, capsys):
    facts = answer(capsys, "score", "digits", "digits.npz", "--draws", "20", "--out", "s.csv")
    rows = pd.read_csv("s.csv")
    model, images = elbowroom.load("digits"), np.load("digits.npz")["images"]
    assert facts["elbo"] == pytest.approx(model.score(images))
    assert facts["elbo"] == pytest.approx(-facts["distortion"] - facts["rate"])
    assert facts["log_likelihood"] == pytest.approx(model.log_likelihood(images, n_draws=20).mean)
    assert rows["log_likelihood"].mean() == pytest.approx(facts["log_likelihood"])
    assert rows["elbo"].std() / 60**0.5 == pytest.approx(facts["elbo_standard_error"])
    assert "log_likelihood" not in answer(capsys, "score", "digits", "digits.npz", "--draws", "0")
    assert run(["score", "digits", "digits.npz", "--draws", "2"]) == 0
    words = "for 100% of the rows (median {} of 2 draws): read the log-likelihood as a lower bound, or take more draws"
    assert re.search(re.escape(words).replace(r"\{\}", r"\d\.\d"), said := capsys.readouterr().out)
    assert said.endswith("take more draws (--draws).\n")
    assert answer(capsys, "score", "digits", "digits.npz", "--draws", "2")["caution"].endswith("take more draws")
    assert answer(capsys, "score", "digits", "digits.npz", "--draws", "900")["caution"] == ""


def test_scores_name_their_rows(here, capsys):
    answer(capsys, "score", "cells", "cells.h5ad", "--draws", "0", "--out", "s.csv")
    assert pd.read_csv("s.csv")["row"][7] == "cell7"


@pytest.mark.parametrize(
    ("model", "file", "labels", "name"),
    [
        ("people", "people.csv", [], "class"),
        ("people", "people.csv", ["--labels", "age"], "age"),
        ("digits", "digits.npz", [], "digit"),
        ("digits", "digits.npz", ["--labels", "y.npy"], "y.npy"),
        ("plain", "cells.h5ad", ["--labels", "donor"], "donor"),
        ("plain", "cells.h5ad", [], None),
        ("cells", "cells.h5ad", [], None),
    ],
)
def test_report(here, capsys, model, file, labels, name):
    pytest.importorskip("matplotlib")
    np.save("y.npy", np.arange(60) % 4)
    assert answer(capsys, "report", model, file, "--out", "r.html", *labels)["labels"] == name
    page = Path("r.html").read_text()
    assert "</html>" in page
    assert name is None or name.removesuffix(".npy") in page


def test_info_in_words(here, capsys):
    assert run(["info", "people"]) == 0
    out = capsys.readouterr().out
    for word in ("TableVAE", "gaussian", "2 of 2", "held out", "elbowroom 0", "torch"):
        assert word in out


def test_demo(here, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(demos.DIGITS, "epochs", 2)
    for _ in range(2):  # a second time replaces the first
        facts = answer(capsys, "demo", "--out", "new/demo")
    assert facts["likelihood"] == "binomial:total=16"
    assert {p.name for p in Path("new/demo").iterdir()} == {"model", "report.html", "digits.npz"}
    assert run(["demo", "--out", "."]) == 2


def test_demo_of_recommendations(here, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(demos.CLICKS, "epochs", 3)
    facts = answer(capsys, "demo", "recommend", "--out", "new/demo")
    means = {name: dict(zip(found["metric"], found["mean"], strict=True)) for name, found in facts["metrics"].items()}
    assert means["InteractionVAE"]["ndcg@10"] > means["Popularity"]["ndcg@10"]
    assert {p.name for p in Path("new/demo").iterdir()} == {"model", "report.html", "clicks.csv"}


def test_config_file(here, capsys):
    Path("run.toml").write_text(
        'n_latents = 3\nhidden = [8, 4]\naverage = false\nepochs = 2\nbeta = "warmup:end=2"\n'
        'label = ["class", "name"]\nlearning-rate = 0.01\n'
        '[likelihood]\nstudent_t = ["age"]\ngaussian = ["income", "height"]\n'
    )
    facts = answer(capsys, "fit", "people.csv", "--out", "m", "--config", "run.toml", "--n-latents", "2")
    assert facts["n_latents"] == 2
    model = elbowroom.load("m")
    assert (model.hidden, model.average, model.learning_rate) == ([8, 4], False, 0.01)
    assert str(model.beta_) == "warmup:end=2,fraction=0.3,start=0"
    assert set(model.likelihood_) == {"student_t", "gaussian"} or len(model.likelihood_) == 2


def test_notes(here, capsys):
    np.savez("two.npz", a=np.ones((30, 3)), b=np.zeros((30, 3)))
    assert run(["fit", "two.npz", "--out", "m", *QUICK]) == 0
    assert "note: two.npz has several arrays: 'a' is read" in capsys.readouterr().err
    facts = answer(capsys, "score", "m", "two.npz", "--draws", "0")
    assert "several arrays" in facts["notes"][0]


def test_overwrite(here, capsys):
    assert run(["fit", "digits.npy", "--out", "m", *QUICK]) == 0
    assert run(["fit", "digits.npy", "--out", "m", *QUICK]) == 2
    assert run(["fit", "digits.npy", "--out", "m/", "--overwrite", *QUICK]) == 0
    assert "m is there" in capsys.readouterr().err


# ---- what goes wrong -----------------------------------------------------------------------------------------------

BAD = [
    ("fot", 2, 'Unknown command "fot". Did you mean "fit"?'),
    ("fit", 2, "FILE"),
    ("fit people.csv", 2, "--out"),
    ("fit people.csv --out m --epoch 3", 2, "Did you mean --epochs? Run: elbowroom fit --help"),
    ("fit people.csv --out m --seed=3", 2, "Unknown option: --seed. Did you mean --random-state? Run:"),
    ("fit people.csv --out m --lr 3", 2, "Unknown option: --lr. Did you mean --learning-rate? Run:"),
    ("fit people.csv --out m --latent-dim 3", 2, "Did you mean --n-latents? Run:"),
    ("curve m people.csv --seed 3", 2, "Unknown option: --seed. Run: elbowroom curve --help"),
    ("fit people.csv --out m --n-latents 1.5", 2, "'1.5' is not a whole number"),
    ("fit people.csv --out m --hidden 8,x", 2, "is not a list of whole numbers"),
    ("fit people.csv --out m --activation rellu", 2, 'Did you mean "relu"?'),
    ("fit people.csv --out m --kind images", 2, 'Did you mean "image"?'),
    ("fit people.csv other.csv --out m", 2, "other.csv"),
    ("fit people.csv --out m --config none.toml", 2, "none.toml does not exist"),
    ("fit people.csv --out m --config people.csv", 2, "is not a TOML file"),
    ("fit people.csv --out m --config wrong.toml", 2, "epohcs"),
    ("fit people.csv --out m --config json.toml", 2, "json in json.toml belongs on the command line"),
    ("fit people.csv --out none/m", 2, "none does not exist. Create it."),
    ("fit people.csv --out people", 2, "Add --overwrite"),
    ("fit people.csv --out people.csv --overwrite", 2, "people.csv is something else"),
    ("fit people.csv --out m --label class --label name --n-latents 0", 2, "--n-latents must be an int"),
    ("fit people.csv --out m --label class --label name --likelihood bernouli", 2, "Did you mean 'bernoulli'?"),
    ("fit people.csv --out m --label class --label name --beta=-1", 2, "beta"),
    ("fit people.csv --out m --label class --label name --beta warmpu", 2, "Did you mean 'warmup'?"),
    ("fit people.csv --out m --label class --label name --device cudo", 2, "device"),
    ("fit people.csv --out m --label class --label name --body mlp", 2, "--body is a parameter of image models"),
    ("fit people.csv --out m --label class --label name --likelihood {", 2, "JSON"),
    (
        "fit people.csv --out m --label class --label name --random-state=-1",
        2,
        "--random-state must be an int in the range [0, 4294967295]. Got -1",
    ),
    (
        "fit people.csv --out m",
        1,
        "'name' has 60 in 60 rows. Drop it if it names rows (on the command line: --label 'name')",
    ),
    ("fit people.csv --out m --label clas", 1, "Did you mean 'class'?"),
    ("fit people.csv --out m --label class --label name --likelihood poisson", 1, "column 'age'"),
    ("fit peple.csv --out m", 1, "Did you mean people.csv?"),
    ("fit x.pkl --out m", 1, "ends in .npy"),
    ("fit empty.csv --out m", 1, "is empty"),
    ("fit digits.npz:digts --out m", 1, "Did you mean digits.npz:digit?"),
    ("fit pictures --out m", 1, "must hold images"),
    ("fit cells.npz --out m --kind image", 1, ""),
    ("resume people", 1, "is none"),
    ("resume broken.run", 1, "it is broken"),
    ("resume moved", 1, "Move it to moved.run"),
    ("encode peple people.csv --out z.npy", 1, "Did you mean people?"),
    ("encode pictures people.csv --out z.npy", 1, "pictures"),
    ("encode people people.csv --out z.png", 2, "only images"),
    ("encode people people.csv --out z.xyz", 2, "must end in"),
    ("encode none none.csv --out z.xyz", 2, "must end in"),
    ("encode people people.csv --out people.csv", 2, "is the input"),
    ("encode people digits.npy --out z.npy", 1, ""),
    ("encode digits people.csv --out z.npy", 1, ""),
    ("reconstruct people people.csv --out x.png", 2, "only images"),
    ("sample people -n 0 --out x.npy", 2, "at least 1"),
    ("sample people -n many --out x.npy", 2, "'many' is not a whole number"),
    ("sample cells --out x.npy", 1, "context"),
    ("sample cells --out x.npy --context c", 1, "'c'"),
    ("sample people --out x.npy --context c", 1, "context"),
    ("score people people.csv --draws=-1", 2, "--draws"),
    ("score people digits.npz", 1, ""),
    ("report people people.csv --out report.pdf", 2, "must end in .html"),
    ("report people people.csv --out none/report.html", 2, "none does not exist. Create it."),
    ("report people people.csv --out r.html --labels clss", 1, "Did you mean 'class'?"),
    ("report people people.csv --out r.html --labels y.npy", 1, "does not exist"),
    ("info broken", 1, "broken"),
    ("info people --jsn", 2, "--json"),
]


@pytest.mark.parametrize(("line", "code", "expected"), BAD, ids=[line for line, *_ in BAD])
def test_bad_command_lines(here, capsys, line, code, expected):
    Path("empty.csv").touch()
    Path("json.toml").write_text("json = true\n")
    Path("x.pkl").write_bytes(b"x")
    Path("pictures").mkdir()
    Path("broken.run").mkdir()
    Path("broken.run/run.json").write_text('{"file": 3}')
    Path("moved").mkdir()
    Path("moved/run.json").write_text('{"file": "x.npy", "out": "/m", "kind": "auto", "labels": [], "parameters": {}}')
    Path("broken").mkdir()
    Path("broken/config.json").write_text("{}")
    Path("wrong.toml").write_text("epohcs = 3")
    before = sorted(here.iterdir())
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    *progress, last = err.splitlines()
    assert last.startswith("error: ")
    assert expected in last
    assert not [line for line in progress if not line.startswith("likelihood ")]
    assert "Traceback" not in err
    assert sorted(here.iterdir()) == before  # nothing is left behind
    assert run([*line.split(), "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    problem = json.loads(err)["error"]
    assert problem.keys() == {"kind", "expected", "got", "do", "message"}
    assert problem["do"]


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("Unable to allocate 7 TiB"), 1, "memory ran out (Unable to allocate 7 TiB)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ..."), 1, "memory ran out"),
        (OSError(28, "No space left on device", "x.npy"), 1, "x.npy: No space left on device"),
        (PermissionError(13, "Permission denied", "x.npy"), 1, "x.npy: Permission denied"),
        (ZeroDivisionError("division by zero"), 1, "it raised ZeroDivisionError: division by zero. Add --debug"),
        (AssertionError(), 1, "AssertionError"),
    ],
)
def test_unexpected_errors(here, capsys, monkeypatch, error, code, expected):
    def fail(*_):
        raise error

    monkeypatch.setattr(commands, "info", fail)
    assert run(["info", "people"]) == code
    err = capsys.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 1
    assert run(["info", "people", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err
    assert problem_of(error).code == code


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        ("Fit with beta='0.01..10'.", "Fit with --beta 0.01..10."),
        ("Write channels=(32, 64) and gated=False.", "Write --channels 32,64 and no --gated."),
        ("Set ratings=True.", "Set --ratings."),
        ("Set neighbour_weight=0.", "Set --neighbour-weight 0."),
        ("Name them with user=... and item=....", "Name them with --user ... and --item ...."),
        ("Try draws=8.", "Try draws=8."),
        ("Split with reading=Reading(ratings=True, ...).", "Split with reading=Reading(ratings=True, ...)."),
        ("See help(TableVAE).", "Run: elbowroom fit --help"),
        ("Reshape it; for images use ImageVAE.", "Reshape it; for images use --kind image."),
        ("Pass X.to_df(), or use CountVAE.", "Pass X.to_df(), or use --kind count."),
        ("Lower learning_rate, or look for extreme values.", "Lower --learning-rate, or look for extreme values."),
        ("Write n_draws=100.", "Write --draws 100."),
        ("Write N=100.", "Write --n-items 100."),
        ("Write task='log_likelihood'.", "Write --task log_likelihood."),
        ("Choose another likelihood, or likelihood='auto'.", "Choose another likelihood, or --likelihood auto."),
        ("Train longer: epochs='auto' aims at 4,000 steps.", "Train longer: --epochs auto aims at 4,000 steps."),
        ("Try beta=0.25 or beta='warmup:end=1'.", "Try --beta 0.25 or --beta warmup:end=1."),
        ("Leave it out.", "Leave it out."),
    ],
)
def test_advice_names_flags(advice: str, said: str) -> None:
    """The command line's user has no Python to write it in."""
    assert problem_of(ParameterError("a", "b", advice)).do == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("the 'n_latents' parameter of TableVAE must be an int", "--n-latents must be an int"),
        (
            "The 'beta' parameter of TableVAE must be a float, an instance of 'str' or an instance of 'a.Beta'",
            "--beta must be a float",
        ),
        ("The 'gated' parameter of ImageVAE must be a bool", "--gated must be a bool"),
        ("n_draws must be a whole number, at least 1", "--draws must be a whole number, at least 1"),
        ("likelihood='bernoulli' needs zeros and ones", "--likelihood bernoulli needs zeros and ones"),
        ("likelihood must be one of a, b", "--likelihood must be one of a, b"),
        ("hidden must be whole numbers", "--hidden must be whole numbers"),
        ("counts must not be negative", "counts must not be negative"),  # the data's
        ("ratings must have a column", "ratings must have a column"),
        ("values must be at most 1e30", "values must be at most 1e30"),
        ("column 'batch_size' holds text", "column 'batch_size' holds text"),
        ("/home/me/beta=1/random_state.csv is there", "/home/me/beta=1/random_state.csv is there"),
        ("run-beta=1.csv does not", "run-beta=1.csv does not"),
        ("'hidden=1' is none of them", "'hidden=1' is none of them"),
    ],
)
def test_all_parts_of_an_error_name_flags_and_leave_names_of_the_data(words: str, said: str) -> None:
    problem = problem_of(ParameterError(words, "it is 3", "Correct it."))
    assert problem.expected == said
    assert str(problem) == f"{said}, but it is 3. Correct it."


def test_verdicts_and_notes_name_flags(here, capsys):
    facts = answer(capsys, "fit", "digits.npz", "--out", "short", *QUICK)
    assert "--epochs auto aims at 4,000 steps" in facts["verdict"]
    assert answer(capsys, "info", "short")["verdict"] == facts["verdict"]


def test_a_reader_that_goes_away(here):
    for words in (["--help"], ["info", "people"]):
        line = f"{sys.executable} -m elbowroom.cli {' '.join(words)} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=ENVIRONMENT)
        assert done.stderr == ""
        assert done.stdout.strip() in ("0", "141")


def test_warnings_of_others_are_silent(here, capsys, monkeypatch):
    import warnings

    monkeypatch.setattr(commands, "info", lambda model: warnings.warn("noise", stacklevel=1))
    assert run(["info", "people"]) == 0
    assert capsys.readouterr().err == ""


# ---- runs that end early -------------------------------------------------------------------------------------------

RUN = ["--epochs", "6", "--hidden", "16", "--batch-size", "16", "--random-state", "0", "--n-latents", "2"]
START = """
import os, elbowroom.training.trainer as trainer, elbowroom.training.checkpoints as checkpoints
from elbowroom.cli import main

def step(run, *batch, train=trainer.Run._train_step):
    train(run, *batch)
    if run.step == {step}:  # an epoch has 29
        os.kill(os.getpid(), {signal})

trainer.product_backend = lambda: "default"
trainer.Run._train_step = step
checkpoints.Checkpoints.__init__.__defaults__ = (0.02,)
main()
"""


@pytest.fixture
def rows(here, monkeypatch):
    """Data, and the weights of a fit that nothing stopped."""
    monkeypatch.setattr(trainer, "product_backend", lambda: "default")
    np.save("rows.npy", np.random.default_rng(0).normal(size=(500, 6)))
    assert run(["fit", "rows.npy", "--out", "whole", *RUN, "--no-verbose"]) == 0
    return file_of(here / "whole", "model.safetensors").read_bytes()


def stopped(number, step=75):
    """Start a fit that gets a signal on its way."""
    command = [sys.executable, "-c", START.format(signal=int(number), step=step), "fit", "rows.npy", "--out", "m", *RUN]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    return done.returncode, done.stdout, done.stderr


@posix
def test_ctrl_c_keeps_the_model_so_far_and_resume_goes_on(rows, capsys):
    code, out, err = stopped(signal.SIGINT)
    assert code == 130, err
    assert "elbowroom resume m.run" in out
    assert "Traceback" not in err
    assert "interrupted" in out
    assert not answer(capsys, "info", "m")["complete"]
    assert answer(capsys, "resume", "m.run")["epochs"] == 6
    assert file_of(Path("m"), "model.safetensors").read_bytes() == rows
    assert not Path("m.run").exists()


@posix
def test_ctrl_c_in_the_first_epoch_keeps_the_run(rows, capsys):
    code, out, err = stopped(signal.SIGINT, step=5)
    assert (code, out) == (130, "")
    assert err.splitlines()[-2:] == [
        "note: what was trained is kept; go on: elbowroom resume m.run",
        "error: interrupted",
    ]
    assert answer(capsys, "resume", "m.run")["complete"]
    assert file_of(Path("m"), "model.safetensors").read_bytes() == rows


@posix
def test_kill_and_resume(rows, capsys):
    code, *_ = stopped(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not Path("m").exists()
    assert list(Path("m.run").glob("step-*"))
    assert run(["fit", "rows.npy", "--out", "m", *RUN]) == 2
    assert "Run: elbowroom resume m.run, or add --overwrite" in capsys.readouterr().err
    Path("m.run").rename("n.run")  # the model goes beside the run, wherever that is
    assert answer(capsys, "resume", "n.run/")["complete"]
    assert file_of(Path("n"), "model.safetensors").read_bytes() == rows
    assert not Path("n.run").exists()


@posix
def test_a_run_without_a_checkpoint_says_that_it_begins_again(rows, capsys):
    stopped(signal.SIGKILL)
    for path in Path("m.run").glob("step-*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert run(["resume", "m.run"]) == 0
    assert "no checkpoint was written yet, as is done every 30 s: training begins again" in capsys.readouterr().err
    assert file_of(Path("m"), "model.safetensors").read_bytes() == rows


@posix
def test_resume_with_other_data_or_in_two_processes(rows, capsys):
    stopped(signal.SIGKILL)
    with held("m.run/run.json"):
        assert run(["resume", "m.run"]) == 1
        assert "is used by another" in capsys.readouterr().err
    assert run(["fit", "none.npy", "--out", "m", "--overwrite"]) == 1
    assert list(Path("m.run").glob("step-*"))  # nothing is lost before the new run begins
    np.save("rows.npy", np.load("rows.npy") + 1)
    assert run(["resume", "m.run"]) == 1
    assert "data" in capsys.readouterr().err
    assert list(Path("m.run").glob("step-*"))  # what was trained is not lost
    assert run(["fit", "rows.npy", "--out", "m", "--overwrite", *RUN, "--no-verbose"]) == 0
    assert not Path("m.run").exists()


def test_of_two_processes_that_begin_a_run_one_does(tmp_path):
    run = Run("rows.npy", str(tmp_path / "m"), "auto", [], {})
    run.save()
    with pytest.raises(ArtefactError, match="used by another"):
        run.save()
    assert [path.name for path in tmp_path.iterdir()] == ["m.run"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_is_full_at_the_end_loses_nothing(here, capsys, monkeypatch, code):
    answer(capsys, "fit", "people.csv", "--label", "class", "--label", "name", "--out", "whole", *QUICK)
    real, stepped = artefact.write_atomically, trainer.Run._train_step

    def full(path, content):
        if Path(path).name.startswith("model."):
            raise OSError(code, os.strerror(code))
        real(path, content)

    monkeypatch.setattr(artefact, "write_atomically", full)
    assert run(["fit", "people.csv", "--label", "class", "--label", "name", "--out", "m", *QUICK]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: the model must be written to {here / 'm'}, but that failed ({os.strerror(code)})")
    assert said.endswith("What was trained is kept; go on: elbowroom resume m.run")
    assert not Path("m").exists()
    assert run(["resume", "m.run"]) == 1
    assert "elbowroom resume m.run" in capsys.readouterr().err
    monkeypatch.setattr(artefact, "write_atomically", real)
    monkeypatch.setattr(trainer.Run, "_train_step", lambda *_: pytest.fail("it trains again"))
    assert answer(capsys, "resume", "m.run")["complete"]
    m, whole = (file_of(Path(name), "model.safetensors").read_bytes() for name in ("m", "whole"))
    assert m == whole
    assert {path.name for path in here.iterdir() if path.name.startswith(("m", "."))} == {"m"}
    monkeypatch.setattr(trainer.Run, "_train_step", stepped)
    assert run(["fit", "people.csv", "--label", "class", "--label", "name", "--out", "m", "--overwrite", *QUICK]) == 0


def test_what_a_killed_save_left_is_no_model_and_in_nobodys_way(here, capsys):
    Path("m").mkdir()
    Path("m/model.0123456789abcdef.safetensors").write_bytes(b"whole, but not named by anything")
    Path("m/.config.json.0123456789abcdef.tmp").write_bytes(b"half")
    assert run(["info", "m"]) == 1
    assert "m/config.json can not be read" in capsys.readouterr().err
    assert run(["fit", "people.csv", "--label", "class", "--label", "name", "--out", "m", *QUICK]) == 0
    assert len(list(Path("m").iterdir())) == 4


@posix
def test_commands_that_train_keep_the_memory_of_a_step(rows, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("elbowroom.cli.runs.keep_all_memory", lambda: asked.append(True))
    assert run(["fit", "rows.npy", "--out", "other", *QUICK]) == 0
    assert asked == [True]
    stopped(signal.SIGKILL)
    assert run(["resume", "m.run"]) == 0
    assert asked == [True, True]
    assert run(["score", "other", "rows.npy", "--draws", "0"]) == 0
    assert asked == [True, True]


def test_one_row_and_one_column_are_said_so(here, capsys):
    np.save("column.npy", np.random.default_rng(0).normal(size=(1, 1)))
    assert run(["fit", "column.npy", "--out", "c", *QUICK]) == 0
    assert "1 row, 1 column\n" in capsys.readouterr().out
    assert run(["encode", "c", "column.npy", "--out", "z.npy"]) == 0
    assert "latents of 1 row of 2" in capsys.readouterr().out


def test_a_fit_that_fails_leaves_no_run(here, capsys):
    assert run(["fit", "people.csv", "--out", "m", "--label", "name", "--likelihood", "poisson", *QUICK]) == 1
    assert not Path("m.run").exists()
    assert not Path("m").exists()
