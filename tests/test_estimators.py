"""What the estimators take and give: kinds of input, context, AnnData, likelihoods, odd values."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from small import COUNTS, DIGITS, NAMES, WINE, counts, images, table

import elbowroom
from elbowroom.errors import DataError, ElbowroomError, ElbowroomWarning
from elbowroom.estimators.reporting import summarise

# ---- kinds of input and output

FRAMES: dict[str, Callable[[np.ndarray], Any]] = {
    "pandas": lambda x: pd.DataFrame(x, columns=NAMES),
    "polars": lambda x: pl.DataFrame(x, schema=NAMES),
    "pyarrow": lambda x: pa.table({name: x[:, i] for i, name in enumerate(NAMES)}),
}
FRAME_TYPES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table}


@pytest.mark.parametrize("library", FRAMES)
@pytest.mark.parametrize("make", [table, counts])
def test_a_frame_in_is_a_frame_of_its_kind_out(make: Callable[..., Any], library: str) -> None:
    frame = FRAMES[library](WINE)
    model, plain = make(likelihood="gaussian").fit(frame), make(likelihood="gaussian").fit(WINE)
    assert model.feature_names_in_.tolist() == NAMES
    np.testing.assert_array_equal(model.score_samples(frame), plain.score_samples(WINE))
    for out, expected in (
        (model.reconstruct(frame), plain.reconstruct(WINE)),
        (model.inverse_transform(model.transform(frame)), plain.inverse_transform(plain.transform(WINE))),
        (model.sample(4, random_state=0), plain.sample(4, random_state=0)),
    ):
        assert isinstance(out, FRAME_TYPES[library])
        assert list(out.column_names if library == "pyarrow" else out.columns) == NAMES
        np.testing.assert_array_equal(out.to_pandas() if library != "pandas" else out, expected)


def test_a_pandas_frame_keeps_its_labels() -> None:
    named = pd.DataFrame(WINE, columns=NAMES, index=[f"bottle {i}" for i in range(len(WINE))])
    unnamed = pd.DataFrame(WINE)
    for frame in (named, unnamed):
        out = table().fit(frame).reconstruct(frame)
        assert out.index.equals(frame.index)
        assert out.columns.equals(frame.columns)


def test_the_kind_of_reconstructions_follows_the_data_not_the_fit() -> None:
    model = table().fit(pd.DataFrame(WINE, columns=NAMES))
    assert isinstance(model.reconstruct(pl.DataFrame(WINE, schema=NAMES)), pl.DataFrame)
    with pytest.warns(UserWarning, match="feature names"):
        assert isinstance(model.reconstruct(WINE), np.ndarray)


def test_frames_of_mixed_dtypes() -> None:
    frame = pd.DataFrame({"real": [0.5, 1.5, 2.5] * 10, "whole": [1, 2, 3] * 10, "yes": [True, False, True] * 10})
    model = table().fit(frame)
    assert model.likelihood_ == {"gaussian": [0, 1], "bernoulli": [2]}
    np.testing.assert_array_equal(model.transform(frame), table().fit_transform(frame.to_numpy(float)))


SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "read-only": lambda x: read_only(x.copy()),
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "list": lambda x: x.tolist(),
    "tensor": lambda x: torch.from_numpy(x.copy()),
    "object": lambda x: x.astype(object),
}


def read_only(x: np.ndarray) -> np.ndarray:
    x.setflags(write=False)
    return x


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize(("make", "x"), [(table, WINE), (counts, COUNTS), (images, DIGITS[:50])])
def test_the_layout_of_an_array_does_not_matter(make: Callable[..., Any], x: np.ndarray, kind: str) -> None:
    other = SAME[kind](x)
    model, again = make().fit(x), make().fit(other)
    assert again.likelihood_ == model.likelihood_
    np.testing.assert_array_equal(again.score_samples(other), model.score_samples(x))
    np.testing.assert_array_equal(again.transform(other), model.transform(x))


COUNT_DTYPES = [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float16, np.float32]


@pytest.mark.parametrize("dtype", COUNT_DTYPES)
def test_the_dtype_of_counts_does_not_matter(dtype: type) -> None:
    model = counts().fit(COUNTS)
    for x in (COUNTS.astype(dtype), sparse.csr_matrix(COUNTS.astype(np.float32 if dtype is np.float16 else dtype))):
        again = counts().fit(x)
        assert again.likelihood_ == model.likelihood_
        np.testing.assert_array_equal(again.score_samples(x), model.score_samples(COUNTS))


@pytest.mark.parametrize("make", [table, counts])
def test_booleans_are_zeros_and_ones(make: Callable[..., Any]) -> None:
    yes = WINE[:, :5] > WINE[:, :5].mean(0)
    model, again = make().fit(yes), make().fit(yes.astype(float))
    assert model.likelihood_ == again.likelihood_ == "bernoulli"
    np.testing.assert_array_equal(model.score_samples(yes), again.score_samples(yes.astype(float)))


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "coo_matrix", "lil_matrix", "csr_array"])
@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial", "multinomial", "auto"])
def test_sparse_and_dense_give_the_same_bits(kind: str, likelihood: str) -> None:
    x = getattr(sparse, kind)(COUNTS)
    model, dense = counts(likelihood=likelihood).fit(x), counts(likelihood=likelihood).fit(COUNTS)
    np.testing.assert_array_equal(model.score_samples(x), dense.score_samples(COUNTS))
    np.testing.assert_array_equal(model.transform(x), dense.transform(COUNTS))
    np.testing.assert_array_equal(model.reconstruct(x), dense.reconstruct(COUNTS))


def test_a_mapped_file_is_read_in_place(tmp_path: Path) -> None:
    written = np.memmap(tmp_path / "x.bin", dtype=np.float64, mode="w+", shape=WINE.shape)
    written[:] = WINE
    written.flush()
    mapped = np.memmap(tmp_path / "x.bin", dtype=np.float64, mode="r", shape=WINE.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = table().fit(mapped)
    rows, _ = model._open(mapped, None)
    assert rows.x.data_ptr() == mapped.ctypes.data
    np.testing.assert_array_equal(model.score_samples(mapped[::-1]), table().fit(WINE).score_samples(WINE[::-1]))


@pytest.mark.parametrize(("make", "x"), [(table, WINE), (counts, COUNTS), (images, DIGITS[:50])])
def test_the_data_is_never_written_to(make: Callable[..., Any], x: np.ndarray) -> None:
    mine = x.copy()
    model = make(binarize="sample") if make is images else make()
    model.fit(mine)
    model.transform(mine), model.reconstruct(mine), model.score(mine), model.log_likelihood(mine, n_draws=5)
    np.testing.assert_array_equal(mine, x)


# ---- context


def two_batches() -> tuple[np.ndarray, np.ndarray]:
    """Rows with one factor of interest, shifted strongly by the batch they were measured in."""
    rng = np.random.default_rng(0)
    batch = np.repeat(["first", "second"], 200)
    factor = rng.normal(size=(400, 1))
    shift = np.where(batch == "first", -2.0, 2.0)[:, None] * np.ones(6)
    return factor * [1, -1, 1, 1, -1, 1] + shift + 0.3 * rng.normal(size=(400, 6)), batch


def accuracy(latents: np.ndarray, batch: np.ndarray) -> float:
    return float(cross_val_score(LogisticRegression(), latents, batch, cv=5).mean())


def test_context_takes_the_batch_out_of_the_latents() -> None:
    X, batch = two_batches()
    settings = {"n_latents": 2, "hidden": (32,), "epochs": 150, "learning_rate": 5e-3}
    conditional = table(**settings).fit(X, context=batch)
    assert accuracy(table(**settings).fit_transform(X), batch) > 0.95
    assert accuracy(conditional.transform(X, context=batch), batch) < 0.65
    factor = X @ [1, -1, 1, 1, -1, 1]
    within = [np.corrcoef(conditional.transform(X, context=batch).T, factor)[:-1, -1]]
    assert abs(within[0]).max() > 0.8
    there, here = (conditional.inverse_transform(np.zeros((1, 2)), context=name) for name in ("second", "first"))
    np.testing.assert_allclose(there - here, 4.0, atol=1.0)


def test_context_in_every_task() -> None:
    X, batch = two_batches()
    for x in (X, X.astype(np.float32)):
        model = table(prior="vamp:components=5").fit(x, context=batch)
        assert model.context_categories_.tolist() == ["first", "second"]
        given = {"context": batch}
        assert model.transform(x, **given).dtype == x.dtype
        assert model.reconstruct(x, **given).shape == x.shape
        assert model.sample_posterior(x, 3, **given).shape == (3, 400, 2)
        assert model.log_likelihood(x, n_draws=20, **given).mean > model.score(x, **given) - 0.1
        assert model.diagnose(x, **given).beta == 1
        assert model.sample(2, context=["first", "second"]).shape == (2, 6)
        np.testing.assert_array_equal(
            model.transform(x, context="first"), model.transform(x, context=np.full(400, "first"))
        )


def test_context_labels_of_any_kind() -> None:
    labels = np.arange(len(WINE)) % 3
    reference = table().fit(WINE, context=labels).transform(WINE, context=labels)
    kinds = (labels.astype(str), pd.Series(labels, dtype="category"), pl.Series(labels), labels.astype(object))
    for kind in (*kinds, labels.tolist()):
        np.testing.assert_array_equal(table().fit_transform(WINE, context=kind), reference)


def test_unknown_and_missing_labels_are_refused() -> None:
    X, batch = two_batches()
    model = table().fit(X, context=batch)
    with pytest.raises(DataError, match=r"'third' \(row 2\) is not. Known are 'first', 'second'"):
        model.transform(X[:3], context=["first", "second", "third"])
    with pytest.raises(DataError, match="it was fitted with context"):
        model.sample(3)
    with pytest.raises(DataError, match="it was fitted without context"):
        table().fit(X).transform(X, context=batch)


# ---- AnnData


@pytest.fixture
def cells() -> Any:
    anndata = pytest.importorskip("anndata")
    rng = np.random.default_rng(0)
    batch = pd.Categorical(np.repeat(["run 1", "run 2"], 40))
    adata = anndata.AnnData(
        sparse.csr_matrix(rng.poisson(3.0, (80, 12)).astype(np.float32)),
        obs=pd.DataFrame({"batch": batch}, index=[f"cell {i}" for i in range(80)]),
        var=pd.DataFrame(index=[f"gene {i}" for i in range(12)]),
    )
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    return adata


def test_anndata_layer_batch_and_embedding(cells: Any) -> None:
    model = counts(layer="counts", batch_key="batch").fit(cells)
    assert model.context_categories_.tolist() == ["run 1", "run 2"]
    assert model.likelihood_ == "poisson:library=true"
    model.encode_to(cells, "X_mine")
    batch = cells.obs["batch"].to_numpy()
    by_hand = counts().fit(cells.layers["counts"], context=batch)
    np.testing.assert_array_equal(cells.obsm["X_mine"], by_hand.transform(cells.layers["counts"], context=batch))
    assert model.score(cells[:10]) == model.score(cells.layers["counts"][:10], context="run 1")
    assert model.reconstruct(cells).shape == (80, 12)
    model.encode_to(cells)
    assert cells.obsm["X_vae"].shape == (80, 2)


def test_anndata_members_that_are_not_there(cells: Any) -> None:
    with pytest.raises(DataError, match=r"layer must .* 'raw' is not there\. It has 'counts'"):
        counts(layer="raw").fit(cells)
    with pytest.raises(DataError, match=r"batch_key must .* 'donor' is not there\. It has 'batch'"):
        counts(layer="counts", batch_key="donor").fit(cells)
    with pytest.raises(DataError, match=r"\.X holds other numbers, and layer 'counts' holds counts.*layer='counts'"):
        counts().fit(cells)
    del cells.layers["counts"]
    with pytest.warns(ElbowroomWarning, match="likelihood gaussian: the values are not counts"):
        counts().fit(cells)


# ---- the likelihood that fits the data

RNG = np.random.default_rng(1)
AUTO = [
    (table, (WINE.mean(0) < WINE).astype(int), "bernoulli", "every value is 0 or 1"),
    (table, WINE, "gaussian", "the columns are real numbers"),
    (table, np.c_[WINE[:, :2], WINE[:, :1] > 13], {"gaussian": [0, 1], "bernoulli": [2]},
     "1 column holds only 0 and 1, the other 2 real numbers"),
    (table, np.c_[WINE[:, :1], WINE[:, :2] > WINE[:, :2].mean(0)], {"gaussian": [0], "bernoulli": [1, 2]},
     "2 columns hold only 0 and 1, the other holds real numbers"),
    (images, (DIGITS > 8).astype(np.uint8), "bernoulli", "every pixel is 0 or 1"),
    (images, DIGITS, "binomial:total=16", "pixels are whole numbers from 0 to 16"),
    (images, (DIGITS * 15).astype(np.uint8), "discretized_logistic", "pixels are 8-bit numbers (largest 240)"),
    (images, DIGITS / 16, "continuous_bernoulli", "pixels are intensities between 0 and 1"),
    (images, DIGITS - 8, "gaussian", "pixels are real numbers from -8 to 8"),
    (counts, RNG.poisson(4.0, (500, 4)), "poisson:library=true", "counts vary like a Poisson's"),
    (counts, RNG.negative_binomial(1, 0.2, (500, 4)), "negative_binomial", "counts vary more than a Poisson's"),
    (counts, (COUNTS > 2).astype(int), "bernoulli", "every value is 0 or 1"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "x", "likelihood", "why"), AUTO)
def test_auto_picks_a_likelihood_and_says_why(make: Any, x: np.ndarray, likelihood: Any, why: str) -> None:
    model = make(epochs=1).fit(x)
    assert model.likelihood_ == likelihood
    assert model.likelihood_reason_.startswith(why)


def test_a_choice_is_told_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    table(epochs=1, verbose=True).fit(WINE)
    assert "likelihood gaussian: the columns are real numbers" in capsys.readouterr().err


def test_where_logging_is_configured_lines_are_records(caplog: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO, "elbowroom"):
        table(epochs=2, verbose=True).fit(WINE)
    assert capsys.readouterr() == ("", "")
    found = [(record.name, record.levelname, record.getMessage()[:19]) for record in caplog.records]
    assert found == [
        ("elbowroom.estimators", "INFO", "likelihood gaussian"),
        ("elbowroom.training", "INFO", "epoch 1/2  distorti"),
        ("elbowroom.training", "INFO", "epoch 2/2  distorti"),
    ]


def test_records_of_epochs_are_of_level_debug_unless_verbose(caplog: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for level, count in ((logging.INFO, 1), (logging.DEBUG, 3)):
        caplog.clear()
        with caplog.at_level(level, "elbowroom"):
            table(epochs=2).fit(WINE)
        assert [record.levelno for record in caplog.records] == [logging.INFO, logging.DEBUG, logging.DEBUG][:count]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("handler", [logging.NullHandler(), logging.StreamHandler()])
def test_logging_of_warnings_only_hides_no_line(handler: logging.Handler, capsys: pytest.CaptureFixture[str]) -> None:
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("elbowroom")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        logger.propagate = False
        table(epochs=1, verbose=True).fit(WINE)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    lines = capsys.readouterr().err.splitlines()
    assert [line[:19] for line in lines] == ["likelihood gaussian", "epoch 1/1  distorti"]


def test_a_program_without_logging_sees_what_is_said() -> None:
    made = "import numpy as np; from elbowroom import TableVAE; X = np.random.default_rng(0).normal(size=(50, 3)); "
    fit = "TableVAE(epochs=1, hidden=(4,), n_latents=1, random_state=0, verbose=True).fit(X)"
    logging_to = "import logging, sys; logging.basicConfig(level='INFO', stream=sys.stdout); "
    plain, logged = (
        subprocess.run([sys.executable, "-c", begin + made + fit], capture_output=True, text=True, check=True)
        for begin in ("", logging_to)
    )
    assert plain.stdout == ""
    lines = plain.stderr.splitlines()
    assert [line.split()[0] for line in lines] == ["likelihood", "epoch"]
    assert logged.stderr == ""
    assert logged.stdout.splitlines() == [
        f"INFO:elbowroom.estimators:{lines[0]}", f"INFO:elbowroom.training:{lines[1]}"
    ]  # fmt: skip


def test_a_likelihood_that_does_not_fit_is_refused_with_the_place() -> None:
    frame = pd.DataFrame({"price": np.full(30, 2.0), "rooms": np.arange(30.0)})
    frame.loc[7, "price"] = 3.5
    with pytest.raises(DataError, match=r"'poisson' needs .*, but 1 value is not \(row 7, column 'price', 3.5\)"):
        table(likelihood="poisson").fit(frame)
    with pytest.raises(DataError, match=r"row 7, column 0, 3.5"):
        table(likelihood={"poisson": [0], "gaussian": [1]}).fit(frame.to_numpy())
    model = table(likelihood="poisson").fit(frame.drop(index=7))
    for method in (model.transform, model.score, model.reconstruct, model.log_likelihood, model.diagnose):
        with pytest.raises(DataError, match=r"row 7, column 'price', 3.5"):
            method(frame)
    later = np.zeros((5000, 2))
    later[4999, 1] = -1
    with pytest.raises(DataError, match=r"row 4999, column 1, -1"):
        table(likelihood="poisson", epochs=1).fit(later)


def test_likelihoods_of_groups_of_columns_by_name_and_by_position() -> None:
    frame = pd.DataFrame(np.c_[COUNTS[:, :2], WINE[:60, :2]], columns=["visits", "clicks", "alcohol", "acid"])
    named = table(likelihood={"gaussian": ["acid", "alcohol"], "negative_binomial": ["visits", "clicks"]}).fit(frame)
    placed = table(likelihood={"gaussian": [3, 2], "negative_binomial": [0, 1]}).fit(frame)
    assert named.likelihood_ == placed.likelihood_ == {"gaussian": [3, 2], "negative_binomial": [0, 1]}
    np.testing.assert_array_equal(named.score_samples(frame), placed.score_samples(frame))
    drawn = named.sample(20, random_state=0)
    assert (drawn["visits"] == drawn["visits"].round()).all()
    assert abs(drawn["alcohol"].mean() - 13) < 2


def test_columns_weigh_in_nats_only() -> None:
    """The bound does not depend on the order of columns and groups, but for what a trained network makes of it."""
    x = np.c_[COUNTS[:, :2], WINE[:60, :2]]
    y = x[:, [2, 3, 0, 1]]
    settings = {"epochs": 100, "learning_rate": 1e-2}
    model = table(likelihood={"poisson": [0, 1], "gaussian": [2, 3]}, **settings).fit(x)
    swapped = table(likelihood={"poisson": [2, 3], "gaussian": [0, 1]}, **settings).fit(y)
    assert model.score(x) == pytest.approx(swapped.score(y), abs=0.3)


# ---- odd shapes and sizes of data

NORMAL = np.random.default_rng(2).normal(size=(50, 3))
ODD: dict[str, np.ndarray] = {
    "one row": NORMAL[:1],
    "two rows": NORMAL[:2],
    "two equal rows": np.repeat(NORMAL[:1], 2, axis=0),
    "one column": NORMAL[:, :1],
    "one value": np.array([[3.0]]),
    "constant": np.full((30, 3), 5.5),
    "constant large": np.full((30, 3), 1e9),
    "zeros": np.zeros((30, 3)),
    "a constant column": np.c_[NORMAL, np.full(50, 7.0)],
    "large": NORMAL * 1e12,
    "small": NORMAL * 1e-12,
    "time stamps": 1.7e9 + NORMAL,
    "time stamps and fractions": np.c_[1.7e9 + NORMAL, NORMAL * 1e-6],
    "largest float32": (NORMAL * 1e37).astype(np.float32),
    "one outlier": np.r_[NORMAL, [[1e9, -1e9, 1e9]]],
    "more columns than rows": np.random.default_rng(3).normal(size=(5, 40)),
    "denormal": NORMAL * 1e-310,
}
CAN_NOT = {"largest": NORMAL * 1e300, "too large for squares": NORMAL * 1e200}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("likelihood", ["auto", "gaussian:scale=shared", "student_t"])
def test_odd_data_gives_finite_results(name: str, likelihood: str) -> None:
    x = ODD[name]
    model = table(likelihood=likelihood, epochs=20).fit(x)
    results = [model.score_samples(x), model.transform(x), model.reconstruct(x), model.sample(5, random_state=0)]
    results += [model.log_likelihood(x, n_draws=5).rows, model.diagnosis_.rate_per_latent, model.history_["loss"]]
    assert all(np.isfinite(result).all() for result in results)


@pytest.mark.parametrize("name", CAN_NOT)
def test_what_can_not_be_fitted_is_an_error_in_three_parts(name: str) -> None:
    with pytest.raises(ElbowroomError) as error, np.errstate(all="ignore"):
        table().fit(CAN_NOT[name])
    assert error.value.expected
    assert error.value.got
    assert error.value.do


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_units_of_the_data_do_not_matter(scale: float, shift: float) -> None:
    x = NORMAL @ np.array([[1.0, 0.5, 0], [0, 1, 0.5], [0, 0, 1]])
    model, other = table(epochs=30).fit(x), table(epochs=30).fit(scale * (x + shift))
    np.testing.assert_allclose(other.transform(scale * (x + shift)), model.transform(x), atol=1e-2)
    assert other.score(scale * (x + shift)) + 3 * np.log(scale) == pytest.approx(model.score(x), abs=0.05)


def test_time_stamps_keep_their_seconds() -> None:
    stamps = 1.7e9 + np.arange(200.0)[:, None] * [1, -1]
    model = table(n_latents=1, epochs=300, learning_rate=1e-2).fit(stamps)
    assert abs(model.reconstruct(stamps) - stamps).max() < 40
    assert model.sample(100, random_state=0).std(0).max() < 120


def test_a_frame_with_numbered_columns_gives_samples_with_numbered_columns() -> None:
    model = table(epochs=1).fit(pd.DataFrame(WINE))
    assert list(model.sample(3).columns) == list(range(WINE.shape[1]))


def test_labels_that_are_numbers_stay_numbers(tmp_path: Path) -> None:
    dose = np.where(np.arange(len(WINE)) % 2, 0.5, 2.0)
    model = table(epochs=1).fit(WINE, context=dose)
    model.save(tmp_path / "model")
    again = elbowroom.load(tmp_path / "model")
    assert again.context_categories_.tolist() == [0.5, 2.0]
    np.testing.assert_array_equal(again.transform(WINE, context=dose), model.transform(WINE, context=dose))


def test_what_is_computed_in_double_follows_the_weights() -> None:
    """The float64 copy of a model is kept, and made anew when weights have changed."""
    model = table(epochs=1).fit(WINE)
    before = model.transform(WINE)
    np.testing.assert_array_equal(model.transform(WINE), before)
    with torch.no_grad():
        model.model_.latent.head.bias += 1
    np.testing.assert_allclose(model.transform(WINE), before + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ((0, 16), (0, 16)),
        ((0, 200), (0, 255)),
        ((0.1, 0.9), (0, 1)),
        ((-0.9, 0.8), (-1, 1)),
        ((-3.0, 2.0), (-3, 2)),
        ((-5.0, -5.0), (-5, 0)),
    ],
)
def test_black_and_white_of_images(pixels: tuple[float, float], expected: tuple[float, float], tmp_path: Path) -> None:
    X = np.full((30, 4, 4), pixels[0])
    X[::2, :2] = pixels[1]
    model = images(epochs=1, likelihood="gaussian").fit(X)
    assert model.pixel_range_ == expected
    shown = summarise(model, X)
    assert shown.originals.min() == (pixels[0] - expected[0]) / (expected[1] - expected[0])
    assert shown.originals.max() == (pixels[1] - expected[0]) / (expected[1] - expected[0])
    model.save(tmp_path / "model")
    assert elbowroom.load(tmp_path / "model").pixel_range_ == expected
