"""Bad input is answered in English: what was expected, what came (with its value or place), and what to do."""

from __future__ import annotations

import datetime
import functools
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from small import COUNTS, DIGITS, NAMES, WINE, counts, images, table
from torch import nn

from elbowroom import TableVAE
from elbowroom.cli import run
from elbowroom.errors import ElbowroomError

FRAME = pd.DataFrame(WINE, columns=NAMES)


def numbers() -> TableVAE:
    """A model of numbers: with a likelihood that is given, there is no schema, and no cell may be missing."""
    return table(likelihood="gaussian")


BATCH = np.where(np.arange(len(WINE)) % 2, "odd", "even")


@functools.cache
def fitted() -> SimpleNamespace:
    """Models that the bad input is given to."""
    return SimpleNamespace(
        table=table(epochs=1).fit(WINE),
        frame=table(epochs=1).fit(FRAME),
        told=table(epochs=1).fit(WINE, context=BATCH),
        counts=counts(epochs=1).fit(COUNTS),
        images=images(epochs=1).fit(DIGITS[:40]),
    )


def broken(x: np.ndarray, row: int, column: int, value: Any) -> np.ndarray:
    x = x.copy() if isinstance(value, float) else x.astype(object)
    x[row, column] = value
    return x


def cells(**settings: Any) -> Any:
    anndata = pytest.importorskip("anndata")
    return counts(**settings).fit(anndata.AnnData(COUNTS.astype(np.float32)))


Case = tuple[Callable[[], Any], str]

DATA: dict[str, Case] = {
    "NaN": (lambda: numbers().fit(broken(WINE, 3, 2, np.nan)), "row 3, column 2"),
    "NaN in a named column": (lambda: numbers().fit(FRAME.mask(FRAME > 1500)), "row 10, column 'proline'"),
    "infinity": (
        lambda: fitted().table.transform(broken(WINE, 7, 12, np.inf)), "infinity (row 7, column 12)"),
    "both infinities": (
        lambda: fitted().table.score(broken(broken(WINE, 7, 1, np.inf), 8, 1, -np.inf)), "row 7, column 1"),
    "missing in polars": (lambda: numbers().fit(pl.DataFrame({"a": [1.0, None, 2.0]})), "row 1, column 'a'"),
    "missing in pandas": (
        lambda: numbers().fit(pd.DataFrame({"a": pd.Series([1, None], dtype="Int64")})), "row 1, column 'a'"),
    "NaN in sparse counts": (
        lambda: counts().fit(sparse.csr_matrix(broken(COUNTS * 1.0, 5, 1, np.nan))), "row 5, column 1"),
    "NaN in an image": (lambda: images().fit(broken(DIGITS, 2, 3, np.nan)), "row 2, pixel (3, 0)"),
    "text": (lambda: table().fit(broken(WINE, 4, 1, "red")), "Row 4, column 1 holds 'red'"),
    "an object": (lambda: table().fit(broken(WINE, 4, 1, {"a": 1})), "argument must be a string or a real number"),
    "text alone": (lambda: table().fit(np.array([["a", "b"], ["c", "d"]])), "Row 0, column 0 holds 'a'"),
    "a text column": (lambda: numbers().fit(FRAME.assign(colour="red")), "column 'colour' holds string (first: 'red')"),
    "a mixed column": (lambda: table().fit(pd.DataFrame({"a": [1, "x"]})), "Row 1, column 'a' holds 'x'"),
    "a category": (
        lambda: numbers().fit(pd.DataFrame({"c": pd.Categorical(["u", "v"])})), "column 'c' holds categorical"),
    "a date": (
        lambda: numbers().fit(pl.DataFrame({"d": [datetime.date(2020, 1, 2)]})), "'d' holds date (first: '2020"),
    "dates": (lambda: table().fit(np.array([["2020-01-01"]], dtype="M8[D]")), "Row 0, column 0 holds '2020-01-01'"),
    "complex": (lambda: table().fit(WINE * 1j), "Complex data not supported"),
    "a number too large": (lambda: table().fit([[1, 2], [10**400, 1]]), "Row 1, column 0 holds '1000"),
    "1-D": (lambda: table().fit(WINE[:, 0]), "got 1D array"),
    "3-D": (lambda: table().fit(DIGITS), "dim 3"),
    "one row, 1-D": (lambda: fitted().table.transform(WINE[0]), "Reshape your data"),
    "no rows": (lambda: table().fit(WINE[:0]), "(0, 13)"),
    "no columns": (lambda: table().fit(WINE[:, :0]), "(178, 0)"),
    "ragged": (lambda: table().fit([[1, 2], [3]]), "different lengths"),
    "nothing": (lambda: table().fit(None), "X is None"),
    "a path": (lambda: table().fit("wine.csv"), "'wine.csv'"),
    "a dict": (lambda: table().fit({"a": [1]}), "{'a': [1]}"),
    "a lazy frame": (lambda: table().fit(pl.DataFrame({"a": [1.0]}).lazy()), "lazy"),
    "sparse": (lambda: table().fit(sparse.csr_matrix(WINE)), "Sparse data was passed"),
    "a tensor with a gradient": (lambda: table().fit(torch.zeros(3, 2, requires_grad=True)), "requires a gradient"),
    "an AnnData for a table": (lambda: table().fit(pytest.importorskip("anndata").AnnData(WINE)), "X is an AnnData"),
    "columns of the same name": (lambda: table().fit(pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])), "'a' comes more"),
    "names of two types": (lambda: table().fit(pd.DataFrame({0: [1.0], "b": [2.0]})), "['int', 'str']"),
    "wrong width": (lambda: fitted().table.score(WINE[:, :5]), "X has 5 features, but TableVAE is expecting 13"),
    "names in another order": (lambda: fitted().frame.transform(FRAME[NAMES[::-1]]), "in the same order"),
    "a wrong name": (lambda: fitted().frame.reconstruct(FRAME.rename(columns={"ash": "dust"})), "- dust"),
    "a column too few": (lambda: fitted().frame.score(FRAME.drop(columns="hue")), "- hue"),
    "negative counts": (lambda: counts().fit(broken(COUNTS * 1.0, 6, 4, -2.0)), "row 6, column 4, -2"),
    "negative sparse counts": (lambda: counts().fit(sparse.csr_matrix(-COUNTS)), "(first: row 0, column 0, -"),
    "fractional counts": (
        lambda: counts(likelihood="poisson").fit(broken(COUNTS * 1.0, 6, 4, 2.5)), "row 6, column 4, 2.5"),
    "fractions later": (lambda: fitted().counts.score(COUNTS / 2), "column 2, 3.5"),
    "flat images": (lambda: images().fit(DIGITS.reshape(-1, 64)), "(1797, 64)"),
    "images in 5-D": (lambda: images().fit(np.zeros((2, 2, 2, 2, 2))), "(2, 2, 2, 2, 2)"),
    "images of no size": (lambda: images().fit(np.zeros((3, 0, 8))), "(3, 0, 8)"),
    "images of other size": (lambda: fitted().images.transform(np.zeros((2, 9, 8))), "(9, 8)"),
    "images of other scale": (lambda: fitted().images.score(DIGITS[:3] / 16), "0.3125"),
    "images that are text": (lambda: images().fit("picture.png"), "'picture.png'"),
    "pixels that can not be drawn": (lambda: images(binarize="sample").fit(DIGITS - 8), "from -8 to 8"),
}  # fmt: skip

ARGUMENTS: dict[str, Case] = {
    "latents 1-D": (lambda: fitted().table.inverse_transform(np.zeros(2)), "(2,)"),
    "latents too wide": (lambda: fitted().table.inverse_transform(np.zeros((2, 3))), "(2, 3)"),
    "latents of no rows": (lambda: fitted().table.inverse_transform(np.zeros((0, 2))), "(0, 2)"),
    "latents of text": (lambda: fitted().table.inverse_transform([["a", "b"]]), "<U1"),
    "latents with NaN": (lambda: fitted().table.inverse_transform([[0, 1], [np.nan, 2]]), "row 1, column 0"),
    "no samples": (lambda: fitted().table.sample(0), "n_samples must be a whole number, at least 1, but it is 0"),
    "half a sample": (lambda: fitted().table.sample(2.5), "2.5"),
    "samples in words": (lambda: fitted().table.sample("many"), "'many'"),
    "a negative number of posterior samples": (lambda: fitted().table.sample_posterior(WINE, -1), "-1"),
    "no draws": (
        lambda: fitted().table.log_likelihood(WINE, n_draws=0), "n_draws must be a whole number, at least 1"),
    "no draws of scores": (lambda: fitted().table.score_samples(WINE, n_draws=0), "n_draws"),
    "a seed in words": (lambda: fitted().table.sample(2, random_state="lucky"), "'lucky'"),
    "context not given": (lambda: fitted().told.transform(WINE), "it was fitted with context"),
    "context not given to sample": (lambda: fitted().told.sample(2), "it was fitted with context"),
    "context not given to decode": (
        lambda: fitted().told.inverse_transform(np.zeros((1, 2))), "it was fitted with context"),
    "context not wanted": (lambda: fitted().table.score(WINE, context=BATCH), "it was fitted without context"),
    "context unknown": (lambda: fitted().told.score(WINE[:2], context=["even", "ever"]), "'ever' (row 1)"),
    "context of another type": (lambda: fitted().told.score(WINE[:2], context=[0, 1]), "0 (row 0)"),
    "context too short": (lambda: table().fit(WINE, context=BATCH[:5]), "(5,)"),
    "context 2-D": (lambda: table().fit(WINE, context=BATCH[:, None]), "(178, 1)"),
    "context with holes": (lambda: table().fit(WINE[:3], context=["a", None, "b"]), "row 1"),
    "context with NaN": (lambda: table().fit(WINE[:3], context=[0.0, 1.0, np.nan]), "row 2"),
    "context of one thing": (lambda: table().fit(WINE, context={"a": 1}), "()"),
    "an AnnData without the layer": (lambda: cells(layer="counts"), "'counts' is not there. It has none."),
    "an AnnData without the batch": (lambda: cells(batch_key="donor"), "'donor' is not there"),
    "an embedding into an array": (lambda: fitted().counts.encode_to(COUNTS), "ndarray"),
    "other names of features": (lambda: fitted().frame.get_feature_names_out(["a"]), "13"),
}  # fmt: skip

PARAMETERS: dict[str, Case] = {
    "n_latents": (lambda: table(n_latents=0).fit(WINE), "Got 0"),
    "n_latents in words": (lambda: table(n_latents="few").fit(WINE), "'few'"),
    "beta below 0": (lambda: table(beta=-1.0).fit(WINE), "-1.0"),
    "beta infinite": (lambda: table(beta=np.inf).fit(WINE), "inf"),
    "beta NaN": (lambda: table(beta=np.nan).fit(WINE), "nan"),
    "beta as text below 0": (lambda: table(beta="-1").fit(WINE), "-1"),
    "beta unknown": (lambda: table(beta="warm-up").fit(WINE), "Did you mean 'warmup'?"),
    "beta option unknown": (lambda: table(beta="warmup:ends=1").fit(WINE), "Did you mean 'end'?"),
    "beta option without value": (lambda: table(beta="warmup:end").fit(WINE), "'end'"),
    "beta option wrong": (lambda: table(beta="warmup:fraction=2").fit(WINE), "2"),
    "beta option in words": (lambda: table(beta="cyclical:cycles=many").fit(WINE), "'many'"),
    "likelihood unknown": (lambda: table(likelihood="gausian").fit(WINE), "Did you mean 'gaussian'?"),
    "likelihood option unknown": (lambda: table(likelihood="gaussian:scal=shared").fit(WINE), "Did you mean 'scale'?"),
    "likelihood option wrong": (lambda: table(likelihood="gaussian:scale=all").fit(WINE), "'all'"),
    "likelihood option too small": (lambda: counts(likelihood="binomial:total=0").fit(COUNTS), "0"),
    "likelihood of another kind": (lambda: table(likelihood=3).fit(WINE), "Got 3"),
    "likelihood that does not fit": (lambda: table(likelihood="bernoulli").fit(WINE), "row 0, column 0, 14.23"),
    "likelihood of classes without end": (lambda: table(likelihood="categorical").fit(WINE * 1e9), "categorical"),
    "likelihood without a column": (
        lambda: table(likelihood={"gaussian": range(12)}).fit(WINE), "column 12 is in none"),
    "likelihood with a column twice": (
        lambda: table(likelihood={"gaussian": range(13), "student_t": [3]}).fit(WINE), "column 3 is in 2"),
    "likelihood with a column that is not there": (lambda: table(likelihood={"gaussian": range(14)}).fit(WINE), "13"),
    "likelihood with an unknown name": (lambda: table(likelihood={"gaussian": ["alcool"]}).fit(FRAME), "'alcohol'"),
    "likelihood with names for an array": (lambda: table(likelihood={"gaussian": ["ash"]}).fit(WINE), "'ash'"),
    "likelihood without a list": (lambda: table(likelihood={"gaussian": "ash"}).fit(FRAME), "'ash'"),
    "likelihood with half a column": (lambda: table(likelihood={"gaussian": [0.5]}).fit(WINE), "0.5"),
    "likelihood of another width": (lambda: table(likelihood=nn.Bilinear(1, 1, 1)).fit(WINE), "Bilinear"),
    "likelihood that is no distribution": (lambda: table(likelihood=nn.Identity()).fit(WINE), "'log_prob'"),
    "prior unknown": (lambda: table(prior="vamb").fit(WINE), "Did you mean 'vamp'?"),
    "prior without components": (lambda: table(prior="mixture:components=0").fit(WINE), "0"),
    "objective unknown": (lambda: table(objective="iwea").fit(WINE), "Did you mean 'iwae'?"),
    "objective without draws": (lambda: table(objective="iwae:draws=0").fit(WINE), "0"),
    "objective with negative free bits": (lambda: table(objective="elbo:free_bits=-1").fit(WINE), "-1"),
    "objective of another kind": (lambda: table(objective=print).fit(WINE), "print"),
    "covariance": (lambda: table(covariance="ful").fit(WINE), "'ful'"),
    "hidden of no width": (lambda: table(hidden=(16, 0)).fit(WINE), "(16, 0)"),
    "hidden of half a width": (lambda: table(hidden=(2.5,)).fit(WINE), "2.5"),
    "hidden as a number": (lambda: table(hidden=16).fit(WINE), "16"),
    "activation": (lambda: table(activation="sigmoid").fit(WINE), "'sigmoid'"),
    "encoder that is no module": (lambda: table(encoder=print).fit(WINE), "print"),
    "encoder of another width": (lambda: table(encoder=nn.Linear(3, 4)).fit(WINE), "rows of 13 values"),
    "decoder of another width": (lambda: table(decoder=nn.Linear(2, 5)).fit(WINE), "(2, 5)"),
    "encoder without context": (
        lambda: table(encoder=nn.Linear(13, 4)).fit(WINE, context=BATCH), "forward(rows, context)"),
    "epochs": (lambda: table(epochs=0).fit(WINE), "Got 0"),
    "epochs in words": (lambda: table(epochs="some").fit(WINE), "'some'"),
    "batch_size": (lambda: table(batch_size=2.5).fit(WINE), "2.5"),
    "learning_rate": (lambda: table(learning_rate=0.0).fit(WINE), "0.0"),
    "learning_rate infinite": (lambda: table(learning_rate=np.inf).fit(WINE), "inf"),
    "validation_fraction": (lambda: table(validation_fraction=1.0).fit(WINE), "1.0"),
    "patience": (lambda: table(patience=0).fit(WINE), "Got 0"),
    "device unknown": (lambda: table(device="tpu").fit(WINE), "'tpu'"),
    "precision": (lambda: table(precision="float16").fit(WINE), "'float16'"),
    "random_state": (lambda: table(random_state=-1).fit(WINE), "-1"),
    "body": (lambda: images(body="vit").fit(DIGITS), "'vit'"),
    "channels without a stage": (lambda: images(channels=()).fit(DIGITS), "channels=()"),
    "channels of no width": (lambda: images(channels=(0,)).fit(DIGITS), "(0,)"),
    "gates in convolutions": (lambda: images(gated=True).fit(DIGITS), "gated=True"),
    "binarize": (lambda: images(binarize="dither").fit(DIGITS), "'dither'"),
    "a learning rate that breaks training": (lambda: table(learning_rate=1e30, epochs=50).fit(WINE), "finite"),
    "values that break training": (lambda: table().fit(WINE * 1e200), "finite"),
}  # fmt: skip

if not torch.cuda.is_available():
    PARAMETERS["device that is not there"] = (lambda: table(device="cuda").fit(WINE), "'cuda'")

# ---- ids and text ----------------------------------------------------------------------------------------------------

IDS: dict[str, Case] = {}

# ---- images, AnnData, counts -----------------------------------------------------------------------------------------

ARRAYS: dict[str, Case] = {}

# ---- what is known of a row ------------------------------------------------------------------------------------------

CONDITIONS: dict[str, Case] = {}

# ---- recommenders ----------------------------------------------------------------------------------------------------

RECOMMENDERS: dict[str, Case] = {}

# ---- files that are broken or hostile --------------------------------------------------------------------------------

FILES: dict[str, Case] = {}

# ---- saved models and runs -------------------------------------------------------------------------------------------

SAVED: dict[str, Case] = {}

# ---- the rest --------------------------------------------------------------------------------------------------------

OTHERS: dict[str, Case] = {}

BAD = DATA | ARGUMENTS | PARAMETERS | IDS | ARRAYS | CONDITIONS | RECOMMENDERS | FILES | SAVED | OTHERS


def answer(bad: Callable[[], Any]) -> ElbowroomError:
    """The error that bad input ends in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ElbowroomError) as caught:
            bad()
    return caught.value


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered_in_three_parts(name: str) -> None:
    bad, place = BAD[name]
    check_parts(answer(bad), place)


def check_parts(error: Any, place: str) -> None:
    """Three parts, with the place of the fault, in one message that is short enough to be read."""
    message = str(error)
    assert place in message
    assert all(part.strip() for part in (error.expected, error.got, error.do))
    assert error.do.strip() in message
    assert len(message) < 500
    assert "None.None" not in message
    assert ".." not in message.replace("...", "")
    assert "\n\n" not in message


# A command line in a fresh folder: what makes its files there, its words, and what its error must say.
Command = tuple[Callable[[Path], Any], str, str]

IDS_COMMANDS: dict[str, Command] = {}

ARRAYS_COMMANDS: dict[str, Command] = {}

CONDITIONS_COMMANDS: dict[str, Command] = {}

RECOMMENDERS_COMMANDS: dict[str, Command] = {}

FILES_COMMANDS: dict[str, Command] = {}

SAVED_COMMANDS: dict[str, Command] = {}

OTHERS_COMMANDS: dict[str, Command] = {
    "a file that is not there": (
        lambda here: (here / "people.csv").write_text("a,b\n1,2\n"), "fit peple.csv --out m", "Did you mean people.csv?"),
}  # fmt: skip

COMMANDS = (
    IDS_COMMANDS
    | ARRAYS_COMMANDS
    | CONDITIONS_COMMANDS
    | RECOMMENDERS_COMMANDS
    | FILES_COMMANDS
    | SAVED_COMMANDS
    | OTHERS_COMMANDS
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_command_is_answered_in_one_line(name: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    make, words, place = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    code = run(shlex.split(words))
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code in (1, 2)
    assert len(said) == 1
    assert place in said[0]
    assert len(said[0]) < 600
    assert "Traceback" not in out + err
    assert "Add --debug" not in said[0]


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(BAD) + len(COMMANDS) >= 110


@pytest.mark.parametrize(
    "method", ["transform", "reconstruct", "score", "log_likelihood", "distortion_and_rate", "diagnose"]
)
@pytest.mark.parametrize(
    "bad", [WINE[0], WINE[:, :5], WINE[:0], WINE * np.nan, WINE.astype(str), sparse.csr_matrix(WINE)]
)
def test_every_method_checks_its_rows(method: str, bad: Any) -> None:
    error = answer(lambda: getattr(fitted().table, method)(bad))
    assert error.expected
    assert error.do


@pytest.mark.parametrize("method", ["transform", "sample", "score"])
def test_a_model_that_is_not_fitted_is_scikit_learns_error(method: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(TableVAE(), method)(WINE)


def test_a_refused_call_does_not_change_the_model() -> None:
    model = fitted().table
    before = model.score_samples(WINE)
    for bad in (WINE[:, :5], WINE * np.nan, "x"):
        answer(lambda bad=bad: model.score(bad))
    np.testing.assert_array_equal(model.score_samples(WINE), before)
    assert model.n_features_in_ == 13


@pytest.mark.parametrize(
    ("likelihood", "dtype"),
    [
        ("binomial:total=300", np.uint8),
        ("categorical:classes=300", np.int8),
        ("discretized_logistic:levels=65536", np.int16),
    ],
)
def test_a_bound_beyond_the_dtype_refuses_nothing(likelihood, dtype):
    X = np.random.default_rng(0).integers(0, 120, (40, 3)).astype(dtype)
    assert table(epochs=1, likelihood=likelihood).fit(X).likelihood_.startswith(likelihood.split(":")[0])


@pytest.mark.parametrize("name", ["n_latents", "epochs", "batch_size", "beta", "learning_rate"])
def test_true_is_no_number(name: str) -> None:
    with pytest.raises(ElbowroomError, match=f"'{name}' parameter of TableVAE must be a number. Got True"):
        table(**{name: True}).fit(WINE)


def test_a_column_of_zeros_beside_real_numbers_is_no_bernoulli():
    X = np.random.default_rng(0).normal(size=(60, 3))
    later = X.copy()
    X[:, 2] = 0
    assert np.isfinite(table(epochs=1).fit(X).score(later))
