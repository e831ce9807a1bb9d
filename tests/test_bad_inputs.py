"""Bad input is answered in English: what was expected, what came (with its value or place), and what to do."""

from __future__ import annotations

import copy
import datetime
import decimal
import functools
import hashlib
import json
import os
import shlex
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from forging import forge
from scipy import sparse
from sklearn.exceptions import NotFittedError
from small import COUNTS, DIGITS, NAMES, WINE, counts, images, mixed, table
from torch import nn
from windows import pipe_at

import elbowroom
from elbowroom import (
    EASE,
    Fold,
    InteractionVAE,
    ItemKNN,
    Popularity,
    Reading,
    Schema,
    Split,
    Sweep,
    TableVAE,
    evaluate,
    load,
    quality,
    sweep,
)
from elbowroom.cli.app import run
from elbowroom.data.io.readers import read, read_labels
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
        batch=table(epochs=1).fit(WINE, context=BATCH),
        batch_table=table(epochs=1).fit(pd.DataFrame({"c": ["u", "v"] * 89, "x": WINE[:, 0]}), context=BATCH),
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
    "means in words": (lambda: fitted().table.sample(2, mean="no"), "'no'"),
    "samples in words": (lambda: fitted().table.sample("many"), "'many'"),
    "a negative number of posterior samples": (lambda: fitted().table.sample_posterior(WINE, -1), "-1"),
    "no draws": (
        lambda: fitted().table.log_likelihood(WINE, n_draws=0), "n_draws must be a whole number, at least 1"),
    "no draws of scores": (lambda: fitted().table.score_samples(WINE, n_draws=0), "n_draws"),
    "a seed in words": (lambda: fitted().table.sample(2, random_state="lucky"), "'lucky'"),
    "context not given": (lambda: fitted().batch.transform(WINE), "it was fitted with context"),
    "context not given to sample": (lambda: fitted().batch.sample(2), "it was fitted with context"),
    "context not given to decode": (
        lambda: fitted().batch.inverse_transform(np.zeros((1, 2))), "it was fitted with context"),
    "context not wanted": (lambda: fitted().table.score(WINE, context=BATCH), "it was fitted without context"),
    "context unknown": (lambda: fitted().batch.score(WINE[:2], context=["even", "ever"]), "'ever' (row 1)"),
    "context of another type": (lambda: fitted().batch.score(WINE[:2], context=[0, 1]), "0 (row 0)"),
    "context too short": (lambda: table().fit(WINE, context=BATCH[:5]), "(5,)"),
    "context 2-D": (lambda: table().fit(WINE, context=BATCH[:, None]), "(178, 1)"),
    "context with missing labels": (lambda: table().fit(WINE[:3], context=["a", None, "b"]), "row 1"),
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

TWO = [1, 2]
USERS = pd.to_datetime(["2026-01-31", "2026-02-01"])


def pairs(reading: Reading | None = None, **columns: Any) -> Any:
    """Interactions of a frame: of three items, if it says nothing else."""
    return (reading or Reading()).learn(pd.DataFrame(columns))


def latest(when: Any) -> Any:
    return Split.latest(pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "when": when}), "when")


IDS: dict[str, Case] = {
    "dates as ids": (lambda: pairs(Reading("a", "b"), a=USERS, b=TWO), "Timestamp('2026-01-31 00:00:00') (row 0)"),
    "dates that would become ids": (lambda: pairs(user=USERS, item=TWO), "'user', holds times (datetime"),
    "dates as text": (lambda: pairs(a=["2026-01-31"] * 2, b=TWO), "holds dates (first: '2026-01-31')"),
    "ids with fractions": (lambda: pairs(user=[1.0, 2.5], item=TWO), "numbers with fractions (first: 2.5)"),
    "ids with fractions, named": (lambda: pairs(Reading("a", "b"), a=[1.0, 2.5], b=TWO), "'a' has 2.5 (row 1)"),
    "ids that float64 rounds": (lambda: pairs(user=[1e19, 2e19], item=TWO), "column 'user' has 1e+19 (row 0)"),
    "ids of more than 64 bits": (lambda: pairs(user=[2**70, 1], item=TWO), "which 64 bits do not hold"),
    "ids of both signs, too far apart": (lambda: pairs(user=[-1, 2**63], item=TWO), "has 9223372036854775808 (row 1)"),
    "an id that is pd.NA": (lambda: pairs(user=pd.array([1, None], "Int64"), item=TWO), "missing value, <NA> (row 1)"),
    "an id that is NaN": (lambda: pairs(user=[1, np.nan], item=TWO), "column 'user' has a missing value, nan (row 1)"),
    "an id that is None": (
        lambda: pairs(user=pd.Series(["a", None], dtype=object), item=TWO), "has a missing value, None (row 1)"),
    "truth values as ids": (lambda: pairs(user=[True, False], item=TWO), "column 'user' has True (row 0)"),
    "bytes as ids": (lambda: pairs(user=[b"a", b"b"], item=TWO), "column 'user' has b'a' (row 0)"),
    "decimals with fractions as ids": (
        lambda: pairs(user=[decimal.Decimal("1.5"), decimal.Decimal(2)], item=TWO), "Decimal('1.5') (row 0)"),
    "ids of two kinds": (lambda: pairs(user=[1, "x"], item=TWO), "column 'user' has 'x' (row 1)"),
    "texts and dates as ids": (lambda: pairs(user=["x", USERS[0]], item=TWO), "Timestamp('2026-01-31 00:00:00')"),
    "lists as ids": (lambda: pairs(user=[[1], [2]], item=TWO), "column 'user' has [1] (row 0)"),
    "two columns of users": (
        lambda: pairs(user=TWO, customer_id=TWO, item=TWO), "'customer_id' are all candidates. Name it"),
    "two columns of items": (lambda: pairs(user=TWO, item_id=TWO, product=TWO), "'product' are all candidates"),
    "users and items from one column": (lambda: pairs(Reading("user", "user"), user=TWO, item=TWO), "both are 'user'"),
    "a log whose names say too little": (lambda: pairs(timestamp=TWO, who=TWO, what=TWO), "'timestamp', holds"),
    "times by their numbers": (
        lambda: pairs(a=[1_700_000_000, 1_700_000_999], b=TWO, c=TWO), "like times since 1970 (first: 1700000000)"),
    "numbers with a point among three": (lambda: pairs(a=[1.0, 2.0], b=TWO, c=TWO), "holds numbers with a point"),
    "ratings that would become items": (lambda: pairs(user=TWO, rating=TWO, what=TWO), "holds values, by its name"),
    "columns of one name": (
        lambda: Reading().learn(pd.DataFrame([[1, 2]], columns=["user", "user"])), "'user' comes more than once"),
    "values that are text": (
        lambda: pairs(Reading(value="v"), user=TWO, item=TWO, v=[1, "x"]), "column 'v' has others: 'x' (row 1)"),
    "values that are missing": (
        lambda: pairs(Reading(value="v"), user=TWO, item=TWO, v=pd.array([1, None], "Int64")), "'<NA>' (row 1)"),
    "times of two kinds": (lambda: latest(["2026-01-31", "1700000000", "1700000001"]), "another kind than the first"),
    "times with and without an offset": (
        lambda: latest(["2026-01-31T10:00", "2026-01-31T10:00+02:00", "2026-01-31"]), "(row 1)"),
    "a time that is missing": (lambda: latest(pd.to_datetime(["2026-01-31", None, "2026-02-01"])), "'NaT' (row 1)"),
    "times that are pairs": (
        lambda: Split.latest(pl.DataFrame({"user": [1, 1], "item": [1, 2], "when": [{"a": 1, "b": 1}] * 2}), "when"),
        "(row 0)",
    ),
    "a time that is a truth value": (lambda: latest([True, False, True]), "'True' (row 0)"),
}  # fmt: skip

# ---- images, AnnData, counts -----------------------------------------------------------------------------------------

RGB = np.random.default_rng(0).integers(0, 256, (24, 3, 6, 6)).astype(np.uint8)


@functools.cache
def pictured() -> SimpleNamespace:
    """Models of images that the bad input is given to."""
    return SimpleNamespace(
        colour=images(epochs=1, layout="channels_first").fit(RGB),
        grey=images(epochs=1).fit(RGB[:, 0]),
        drawn=images(epochs=1, binarize="sample").fit(RGB[:, 0]),
        intensities=images(epochs=1, likelihood="gaussian").fit(RGB[:, 0] / 255),
        binary=images(epochs=1).fit((RGB[:, 0] > 99) * np.uint8(255)),
    )


def adata(x: Any = COUNTS, **obs: Any) -> Any:
    """Cells whose counts are in .X, or are those of a layer beside other numbers in .X."""
    anndata = pytest.importorskip("anndata")
    rows = {"batch": np.where(np.arange(len(COUNTS)) % 2, "odd", "even"), **obs}
    index = [f"cell{i}" for i in range(len(COUNTS))]
    found = anndata.AnnData(np.asarray(x, np.float32), obs=pd.DataFrame(rows, index=index))
    found.var_names = [f"gene{i}" for i in range(5)]
    if x is not COUNTS:
        found.layers["counts"] = COUNTS
    return found


def without(layer: str, cells: Any) -> Any:
    del cells.layers[layer]
    return cells


def backed(folder: str) -> Any:
    anndata, cells = pytest.importorskip("anndata"), adata()
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(f"{folder}/cells.h5ad")
    return anndata.read_h5ad(f"{folder}/cells.h5ad", backed="r")


def same_name(cells: Any) -> Any:
    cells.var_names = ["a", "b", "c", "b", "e"]
    return cells


@functools.cache
def batches() -> Any:
    return counts(epochs=1, batch_key="batch").fit(adata())


class MuData:
    """Rows without an end, as those of several modalities look to NumPy."""

    obsm, shape = {}, (3, 4)  # type: ignore[var-annotated]

    def __len__(self) -> int:
        return 2**60

    def __getitem__(self, row: int) -> list[float]:
        return [1.0] * 4


def collection() -> Any:
    return pytest.importorskip("anndata.experimental").AnnCollection([adata(), adata()])


ARRAYS: dict[str, Case] = {
    "channels of a cube": (lambda: images().fit(RGB[:, :, :3, :3]), "layout='channels_first'"),
    "channels at both ends": (lambda: images().fit(np.zeros((9, 4, 4, 16))), "(9, 4, 4, 16)"),
    "channels at no end": (lambda: images().fit(np.zeros((9, 16, 20, 24))), "24 channels of 16 x 20 or 16 channels"),
    "a layout in words": (lambda: images(layout="first").fit(RGB), "'first'"),
    "channels last for channels first": (
        lambda: pictured().colour.score(RGB.transpose(0, 2, 3, 1)), "Write X.transpose(0, 3, 1, 2)."),
    "channels first for channels last": (
        lambda: images(epochs=1).fit(RGB.transpose(0, 2, 3, 1)).score(RGB), "Write X.transpose(0, 2, 3, 1)."),
    "an axis of one channel": (lambda: pictured().grey.score(RGB[:, :1]), "Write X[:, 0]."),
    "an axis of one channel at the end": (lambda: pictured().grey.transform(RGB[:, 0, ..., None]), "Write X[..., 0]."),
    "no axis of channels": (lambda: images(epochs=1).fit(RGB[:, :1]).score(RGB[:, 0]), "Write X[:, None]."),
    "a sparse tensor": (lambda: images().fit(torch.from_numpy(RGB).to_sparse()), "Pass X.to_dense()."),
    "intensities for 8 bits": (lambda: pictured().grey.score(RGB[:, 0] / 255), "Write X * 255."),
    "intensities for 8 bits, drawn": (lambda: pictured().drawn.score(np.float32(RGB[:, 0]) / 255), "row 0, pixel (0, "),
    "intensities below 0 for 8 bits": (lambda: pictured().drawn.score(RGB[:, 0] / 127.5 - 1), "from 0 to 255"),
    "truths for 8 bits": (lambda: pictured().drawn.score(RGB[:, 0] > 99), "is True"),
    "zeros and ones for 8 bits": (lambda: pictured().drawn.score((RGB[:, 0] > 99) * 1), "Write X * 255."),
    "16 bits for 8": (lambda: pictured().drawn.score(RGB[:, 0] * 257.0), "row 0, pixel (0, 0) is "),
    "8 bits for intensities": (lambda: pictured().intensities.score(RGB[:, 0]), "Write X / 255."),
    "centred pixels for intensities": (
        lambda: pictured().intensities.score(RGB[:, 0] / 127.5 - 1), "from 0 to 1, but row 0, pixel (0, 3) is -"),
    "greys for black and white": (lambda: pictured().binary.score(RGB[:, 0]), "Fit with binarize='threshold'"),
    "ones for 255": (lambda: pictured().binary.score((RGB[:, 0] > 99) * 1.0), "Write X * 255."),
    "a collection of AnnData": (lambda: counts().fit(collection()), "Pass collection[:].to_adata()."),
    "a view of a collection": (lambda: table().fit(collection()[:9]), "AnnCollectionView"),
    "the raw part of an AnnData": (lambda: counts().fit(raw(adata()).raw), "of type Raw. Pass adata.raw.to_adata()."),
    "modalities": (lambda: counts().fit(MuData()), "mdata['rna']"),
    "modalities of a table": (lambda: table().fit(MuData()), "mdata['rna']"),
    "modalities of images": (lambda: images().fit(MuData()), "mdata['rna']"),
    "modalities of a fitted model": (lambda: batches().transform(MuData()), "mdata['rna']"),
    "modalities of interactions": (lambda: InteractionVAE().fit(MuData()), "mdata['rna']"),
    "a measured batch": (
        lambda: counts(batch_key="depth").fit(adata(depth=np.linspace(0, 1, 60))), "60 different ones (first: 0.0)"),
    "a batch for every cell": (
        lambda: counts(batch_key="id").fit(adata(id=[f"c{i}" for i in range(60)])), "batch_key='id' must hold cat"),
    "a measured context": (lambda: table().fit(WINE, context=WINE[:, 0]), "(first: 14.23)"),
    "a cell of no batch": (
        lambda: counts(batch_key="run").fit(adata(run=pd.array(["a"] * 7 + [None] * 53, dtype="string"))),
        "batch_key='run' must hold a label for every cell, but row 7 has none (<NA>), and 52 more"),
    "a cell of no category": (
        lambda: counts(batch_key="run").fit(adata(run=pd.Categorical(["a", None] * 30))), "row 1 has none (nan)"),
    "a cell of no date": (
        lambda: counts(batch_key="run").fit(adata(run=pd.to_datetime(["2020-01-01", None] * 30))), "row 1 has none"),
    "context that is NA": (lambda: table().fit(WINE[:3], context=pd.array([1, 2, None], dtype="Int64")), "row 2"),
    "a batch twice": (lambda: counts(batch_key="batch").fit(adata(), context=["a"] * 60), "context=..."),
    "a batch of an array": (lambda: counts(batch_key="batch").fit(COUNTS), "batch_key='batch' are given with a ndarr"),
    "a layer of an array": (lambda: counts(layer="counts").fit(sparse.csr_matrix(COUNTS)), "layer='counts'"),
    "a context that the AnnData does not replace": (
        lambda: batches().score(adata(), context="none"), "'none' (row 0)"),
    "variables of one name": (lambda: counts().fit(same_name(adata())), "'b' comes more than once (columns 1 and 3)"),
    "variables of one name, later": (lambda: batches().score(same_name(adata())), "var_names_make_unique()"),
    "half a count": (
        lambda: counts().fit(without("counts", adata(broken(COUNTS * 1.0, 3, 1, 2.5)))), "row 3, column 'gene1', 2.5"),
    "half a count in an array": (
        lambda: counts().fit(sparse.csr_matrix(broken(COUNTS * 1.0, 3, 1, 2.5))), "(row 3, column 1, 2.5)"),
    "half a count beside a layer of counts": (
        lambda: counts().fit(adata(broken(COUNTS * 1.0, 3, 1, 2.5))), "Choose layer='counts'."),
    "half a count for a Poisson": (
        lambda: counts(likelihood="poisson").fit(adata(COUNTS / 2)), "Choose layer='counts'."),
    "centred values beside counts": (lambda: counts().fit(adata(COUNTS - COUNTS.mean(0))), "Choose layer='counts'."),
    "counts and a little": (
        lambda: counts().fit(COUNTS + 1e-6), "300 values are not (first: row 0, column 0, 2.000001)"),
    "counts of logarithms": (lambda: counts().fit(np.expm1(np.log1p(np.float32(COUNTS)))), "np.rint(X)"),
    "a layer of logarithms": (
        lambda: counts(layer="log").fit(logs(adata())), "layer 'log' holds other numbers, and .X holds counts"),
    "raw counts": (lambda: counts().fit(raw(adata())), "Pass adata.raw.to_adata()."),
    "an infinite layer": (
        lambda: counts(layer="counts").fit(infinite(adata(COUNTS * 0.5))), "infinity (row 2, column 'gene4')"),
    "an AnnData of no .X": (lambda: counts().fit(emptied(adata(COUNTS / 2))), "its layers are 'counts'"),
    "an option that is none": (
        lambda: counts(likelihood="negative_binomial:contexts=2").fit(COUNTS), "one of library"),
}  # fmt: skip


def logs(cells: Any) -> Any:
    cells.layers["log"] = np.log1p(cells.X)
    return cells


def raw(cells: Any) -> Any:
    cells.raw = cells.copy()
    cells.X = np.log1p(cells.X)
    return cells


def infinite(cells: Any) -> Any:
    cells.layers["counts"] = broken(COUNTS * 1.0, 2, 4, np.inf)
    return cells


def emptied(cells: Any) -> Any:
    cells.X = None
    return cells


def test_a_backed_anndata_is_refused_with_what_helps(tmp_path: Path) -> None:
    cells = backed(str(tmp_path))
    for bad in (lambda: counts().fit(cells), lambda: batches().transform(cells)):
        check_parts(answer(bad), "Pass adata.to_memory().")
    assert batches().score(cells.to_memory()) == batches().score(adata())


# ---- what is known of a row ------------------------------------------------------------------------------------------


@functools.cache
def conditioned() -> TableVAE:
    """A model of a table with a column of every kind."""
    return table(epochs=1).fit(mixed())


def drawn(**cells: Any) -> Any:
    return conditioned().sample(2, given=cells)


CONDITIONS: dict[str, Case] = {
    "a whole number beyond the range": (lambda: drawn(i=11), "from 0 to 10, but it is 11"),
    "a whole number between two": (lambda: drawn(i=2.5), "nearest are 2 and 3"),
    "a negative count": (lambda: drawn(i=-1), "'i' must be given whole numbers from 0, but it is -1"),
    "a large whole number beyond the range": (lambda: drawn(big=2**60 + 60), f"{2**60 + 59}, but it is {2**60 + 60}"),
    "a number off its grid": (lambda: drawn(tenth=0.35), "nearest are 0.3 and 0.4"),
    "nearly three tenths": (lambda: drawn(tenth=0.1 + 0.2), "0.30000000000000004. The nearest are 0.3 and 0.4"),
    "an income below 0": (lambda: drawn(income=-3), "numbers above 0, but it is -3"),
    "a whole number that floats leave out": (lambda: drawn(x=2**60 + 1), f"The nearest is {2**60}"),
    "a number that float32 does not hold": (lambda: drawn(short=1e300), "float32 holds, but it is 1e+300"),
    "a number out of reach": (lambda: drawn(x=1e300), "within reach"),
    "an infinite number": (lambda: drawn(x=np.inf), "finite number, but it is inf"),
    "too many decimals": (lambda: drawn(cents=0.125), "at most 2 decimals, but it is 0.125"),
    "text for a number": (lambda: drawn(x="1"), "a number, but it is '1'"),
    "a truth value for a number": (lambda: drawn(x=True), "a number, but it is True"),
    "a complex number": (lambda: drawn(x=1j), "a number, but it is 1j"),
    "a number for a truth value": (lambda: drawn(flag=1), "True or False, but it is 1"),
    "text for a truth value": (lambda: drawn(flag="yes"), "True or False, but it is 'yes'"),
    "two for a zero or one": (lambda: drawn(zero=2), "0 or 1, but it is 2"),
    "an unknown category": (lambda: drawn(churn="Maybe"), "'Maybe'. Known are 'No', 'Yes'"),
    "an unknown level": (lambda: drawn(size="xl"), "'xl'. Known are 's', 'm', 'l'"),
    "a number for text": (lambda: drawn(word=1), "one of 3 categories, but it is 1"),
    "a word that is no date": (lambda: drawn(born="soon"), "'soon'. Give one such as '2024-05-31'"),
    "a number for a date": (lambda: drawn(born=2020), "a date or time, but it is 2020"),
    "a time for a day": (lambda: drawn(born="2020-05-05 12:00"), "nearest are 2020-05-05 and 2020-05-06"),
    "a time for a date": (lambda: drawn(day=datetime.datetime(2020, 5, 5, 3)), "nearest are 2020-05-05 and 2020-05-06"),
    "a zone where there is none": (lambda: drawn(stamp="2024-05-05T12:00+02:00"), "without a time zone"),
    "a time that was skipped": (lambda: drawn(seen="2024-03-31 02:30"), "2024-03-31 02:30:00 occurs there never"),
    "a time that was twice": (lambda: drawn(seen="2024-10-27 02:30"), "2024-10-27 02:30:00 occurs there twice"),
    "a time finer than its dtype": (lambda: drawn(stamp=np.datetime64(1, "ps")), "nanoseconds or coarser"),
    "a year that is none": (lambda: drawn(stamp=np.datetime64("20000-01-01")), "years 1 to 9999"),
    "NaN for a column that has none": (lambda: drawn(x=np.nan), "'x' is never missing, but it is given as nan"),
    "pd.NA for a column that has none": (lambda: drawn(churn=pd.NA), "'churn' is never missing"),
    "NaT for a column that has none": (lambda: drawn(born=pd.NaT), "'born' is never missing"),
    "a value of an empty column": (lambda: drawn(empty="now"), "'empty' must have values in training"),
    "a list": (lambda: drawn(churn=["Yes", "No"]), "a single value for each column, here 'churn'"),
    "a set": (lambda: drawn(churn={"Yes"}), "a single value for each column"),
    "a range": (lambda: drawn(i=range(3)), "a single value for each column"),
    "a slice": (lambda: drawn(i=slice(1, 3)), "a single value for each column"),
    "an array": (lambda: drawn(i=np.arange(2)), "a single value for each column"),
    "a series": (lambda: drawn(i=pd.Series([1])), "a single value for each column"),
    "a mapping": (lambda: drawn(i={"low": 1}), "a single value for each column"),
    "an iterator": (lambda: drawn(i=iter([1])), "a single value for each column"),
    "an unknown column": (lambda: drawn(chrun="Yes"), "Did you mean 'churn'?"),
    "a column by its place": (lambda: conditioned().sample(2, given={0: 1}), "0 is none of them"),
    "no mapping": (lambda: conditioned().sample(2, given="churn=Yes"), "'churn=Yes'. Write given={"),
    "cells for means": (lambda: conditioned().sample(2, given={"i": 1}, mean=True), "mean=True"),
    "cells without a schema": (lambda: fitted().table.sample(2, given={"x0": 1.0}), "schema='infer'"),
    "cells in no context": (lambda: fitted().batch_table.sample(2, given={"c": "u"}), "it was fitted with context"),
    "cells in an unknown context": (
        lambda: fitted().batch_table.sample(2, given={"c": "u"}, context="ever"), "'ever' (row 0)"),
    "a truth value for a context of numbers": (
        lambda: table(epochs=1).fit(WINE, context=np.arange(178) % 2).score(WINE, context=True), "True (row 0)"),
    "a context that is NA": (lambda: fitted().batch.score(WINE[:2], context=["even", pd.NA]), "row 1"),
    "a context that is a set": (lambda: fitted().batch.score(WINE[:2], context={"even"}), "its shape is ()"),
    "quality of paths": (lambda: quality("real.csv", "made.csv"), "it is the str 'real.csv'"),
    "quality beside nothing": (lambda: quality(FRAME, None), "synthetic table must be a data frame"),
    "quality of a list": (lambda: quality([[1.0]], FRAME), "it is the list [[1.0]]"),
    "quality of pictures": (lambda: quality(DIGITS, DIGITS), "(1797, 8, 8)"),
    "quality of text in an array": (lambda: quality(WINE.astype(str), WINE), "<U32"),
    "quality of a sparse matrix": (lambda: quality(sparse.csr_matrix(WINE), WINE), "csr_matrix"),
    "quality of a lazy frame": (lambda: quality(pl.LazyFrame({"a": [1]}), FRAME), "lazy"),
    "quality without columns": (lambda: quality(FRAME[[]], FRAME[[]]), "must have columns"),
    "quality with infinity": (lambda: quality(WINE, broken(WINE, 3, 2, np.inf)), "row 3, column 'x2'"),
    "a schema of a path": (lambda: Schema.infer("people.csv"), "the str 'people.csv'"),
    "a number larger than floats": (lambda: drawn(x=10**400), "a finite number"),
    "quality with a test that is a path": (lambda: quality(FRAME, FRAME, "test.csv", "ash"), "'test.csv'"),
    "quality of a column twice": (lambda: quality(pd.DataFrame([[1, 2]], columns=["a", "a"]), FRAME), "'a' comes more"),
}  # fmt: skip

# ---- recommenders ----------------------------------------------------------------------------------------------------

CLICKS = (np.random.default_rng(0).random((40, 12)) < 0.3).astype(np.float32)
PLAYS = pd.DataFrame({"user": [1, 1, 2], "item": [5, 6, 5], "plays": [1, 3, 1]})
HALVES = Fold(CLICKS[:20], CLICKS[20:] * (CLICKS[:20] == 0))


@functools.cache
def recommender(**settings: Any) -> InteractionVAE:
    return InteractionVAE(n_latents=2, hidden=(4,), epochs=1, random_state=0, **settings).fit(CLICKS)


def ranking(*positions: Any) -> Any:
    """A recommender that ranks the same items for everybody."""
    return SimpleNamespace(rank=lambda histories, n: np.tile(np.array(positions), (histories.shape[0], 1)))


RECOMMENDERS: dict[str, Case] = {
    "lists as a matrix": (lambda: InteractionVAE().fit([[0, 1], [1, 0]]), "of type list"),
    "an array of another width": (
        lambda: recommender().recommend(np.eye(3)), "a matrix of histories and must have the 12 items"),
    "an array of three axes": (lambda: recommender().transform(np.zeros((2, 3, 12))), "shape (2, 3, 12)"),
    "no histories": (lambda: recommender().score([]), "there must be users"),
    "weights": (lambda: InteractionVAE().fit(3 * CLICKS), "(first: 3 in row 0"),
    "weights of a frame": (lambda: InteractionVAE(value="plays").fit(PLAYS), "(first: 3 in row 1 of column 'plays')"),
    "weights of histories": (lambda: recommender().recommend([{3: 1}, {4: 2}]), "(first: 2 in history 1)"),
    "negative weights": (lambda: InteractionVAE().fit(-CLICKS), "(first: -1 in row 0"),
    "negative counts of events": (lambda: InteractionVAE(counts=True).fit(-CLICKS), "counts must not be negative"),
    "weights that are NaN": (lambda: InteractionVAE().fit(np.where(CLICKS, np.nan, 0)), "finite"),
    "events that come twice": (
        lambda: EASE().fit(sparse.coo_matrix(([1, 1], ([0, 0], [1, 1])), (2, 3))), "(first: 2 in row 0, column 1)"),
    "weights of a baseline's histories": (lambda: Popularity().fit(CLICKS).rank(2 * CLICKS, 3), "(first: 2 in row 0"),
    "weights to split": (lambda: Split.strong(2 * CLICKS, held_out=5), "Set counts=True"),
    "counts and ratings": (lambda: Reading(counts=True, ratings=True), "both set"),
    "a threshold of zero": (lambda: Reading(threshold=0), "Got 0"),
    "a reading that is a dict": (lambda: EASE().fit(CLICKS, {"counts": True}), "{'counts': True}"),
    "a user that is true": (lambda: recommender().recommend([True, 2]), "has True"),
    "a user that is half": (lambda: recommender().recommend(1.5), "1.5"),
    "a set of users": (lambda: recommender().recommend({1, 2}), "{1, 2}"),
    "users as bytes": (lambda: recommender().recommend(b"12"), "b'12'"),
    "lists of lists of lists": (lambda: recommender().recommend([[[1, 2]]]), "history 0 has [1, 2]"),
    "a list too few to exclude": (lambda: recommender().recommend([1, 2], exclude=[[3]]), "it has 1 row"),
    "a list beside ids to exclude": (lambda: recommender().recommend([1, 2], exclude=[[3], 4]), "[[3], 4]"),
    "items for each user": (lambda: recommender().recommend([1, 2], items=[[3], [4]]), "[[3], [4]]"),
    "similar to what is not known": (lambda: recommender().similar_items(12), "not known ('12')"),
    "items that can be looked at only once": (
        lambda: recommender().recommend([1], items=iter([1, 2])),
        "list_iterator object",
    ),
    "similar to items of a generator": (lambda: recommender().similar_items(i for i in (1, 2)), "generator object"),
    "a text for a truth value": (lambda: recommender().recommend([1], filter_already_liked_items="no"), "'no'"),
    "truth values for one": (lambda: recommender().recommend([1, 2], thompson=np.ones(2, bool)), "array([ True"),
    "two histories to explain": (lambda: recommender().explain(CLICKS[:2], 3), "there are 2"),
    "an explanation of what is not known": (lambda: recommender().explain([1], "tea"), "not known ('tea')"),
    "a rank of nothing": (lambda: recommender().rank(CLICKS, 0), "n must be a whole number"),
    "new interactions without rows": (lambda: recommender().partial_fit(PLAYS[:0]), "has no rows"),
    "a ranker that repeats": (lambda: evaluate(ranking(0, 1, 1), HALVES, "hit@3"), "1 comes more than once"),
    "a ranker of what was seen": (lambda: evaluate(ranking(*range(12)), HALVES, "hit@12"), "in its user's history"),
    "a ranker out of range": (lambda: evaluate(ranking(-1, 12), HALVES, "hit@2"), "there is 12"),
    "a ranker of floats": (lambda: evaluate(ranking(-1.0, -1.0), HALVES, "hit@2"), "float64"),
    "a ranker of too few": (lambda: evaluate(ranking(-1, -1), HALVES, "hit@3"), "of shape (19, 3)"),
    "a ranker of nothing": (lambda: evaluate(SimpleNamespace(rank=lambda *_: None), HALVES, "hit@3"), "NoneType"),
    "a model that does not rank": (lambda: evaluate("EASE", HALVES), "must have rank"),
    "more places than items": (lambda: evaluate(ranking(), HALVES, ["precision@100"]), "Write precision@12"),
    "no metrics": (lambda: evaluate(ranking(), HALVES, []), "at least one"),
    "a metric of no place": (lambda: evaluate(ranking(), HALVES, "ndcg@0"), "'ndcg@0'"),
    "a metric of a place and a half": (lambda: evaluate(ranking(), HALVES, "ndcg@1.5"), "'ndcg@1.5'"),
    "a recall of another kind": (lambda: evaluate(ranking(), HALVES, "recall@2[max]"), "'recall[max]'"),
    "a scorer of nothing": (lambda: recommender(beta="0.1..1").pick(HALVES, lambda *_: None, [0.1]), "it gave None"),
    "a scorer of NaN": (lambda: recommender(beta="0.1..1").pick(HALVES, lambda *_: np.nan, [0.1]), "nan"),
    "a fold of lists": (lambda: Fold([[1, 0]], [[0, 1]]), "of type list"),
    "a fold of NaN": (lambda: Fold(CLICKS * np.nan, CLICKS), "finite"),
    "a fold of two shapes": (lambda: Fold(CLICKS, CLICKS[1:]), "(39, 12)"),
    "held out: NaN": (lambda: Split.strong(CLICKS, held_out=np.nan), "it is nan"),
    "held out: true": (lambda: Split.strong(CLICKS, held_out=True), "it is True"),
    "held out: more than all": (lambda: Split.strong(CLICKS, held_out=1.5), "it is 1.5"),
    "held out: nobody": (lambda: Split.strong(CLICKS, held_out=0), "held_out=0"),
    "held out: more users than there are": (lambda: Split.strong(CLICKS, held_out=50), "held_out=50"),
    "folded in: NaN": (lambda: Split.strong(CLICKS, fold_in=np.nan), "it is nan"),
    "times that do not differ": (lambda: Split.latest(PLAYS.assign(when=7), "when"), "column 'when' holds 7"),
    "a lambda that is NaN": (lambda: EASE(np.nan).fit(CLICKS), "Got nan"),
    "half a neighbour": (lambda: ItemKNN(2.5).fit(CLICKS), "Got 2.5"),
    "a baseline's N": (lambda: Popularity().fit(CLICKS).recommend(1, 0), "N must be a whole number"),
}  # fmt: skip

# ---- files that are broken or hostile --------------------------------------------------------------------------------

FRESH = tempfile.TemporaryDirectory()


def fresh_path(name: str = "") -> Path:
    """A path in a fresh folder."""
    return Path(tempfile.mkdtemp(dir=FRESH.name)) / name


def file_of(name: str, content: str | bytes) -> str:
    path = fresh_path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def npy_header(text: str, version: int = 1) -> bytes:
    """An .npy that begins so."""
    return b"\x93NUMPY" + bytes((version, 0)) + len(text).to_bytes(2 if version == 1 else 4, "little") + text.encode()


def npy_of(descr: str, shape: str) -> bytes:
    return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n")


def folder_of(path: str) -> str:
    return str(Path(path).parent)


def link_at(path: Path, target: str) -> str:
    path.symlink_to(target)
    return str(path)


def h5ad_of(change: Callable[[Any, Any], Any]) -> str:
    """An AnnData file that was changed so, with another file beside it."""
    h5py, anndata = pytest.importorskip("h5py"), pytest.importorskip("anndata")
    path = fresh_path("x.h5ad")
    anndata.AnnData(COUNTS.astype(np.float32)).write_h5ad(path)
    (path.parent / "secret").write_bytes(bytes(4 * COUNTS.size))
    with h5py.File(path, "r+") as opened:
        del opened["X"]
        change(opened, h5py)
    return str(path)


def virtual(opened: Any, h5py: Any) -> None:
    layout = h5py.VirtualLayout(COUNTS.shape, "f4")
    layout[...] = h5py.VirtualSource("other.h5", "X", shape=COUNTS.shape)
    opened.create_virtual_dataset("X", layout)


def filtered(opened: Any, h5py: Any) -> None:
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((5,))
    made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(opened.id, b"X", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((5,)), made)


def lengthened(compression: str | None) -> Callable[[Any, Any], None]:
    """One text of an array that says that it has 2 GiB."""

    def change(opened: Any, h5py: Any) -> None:
        options = {} if compression is None else {"chunks": (4,), "compression": compression, "shuffle": True}
        made = opened["uns"].create_dataset("t", data=["a", "b", "c", "d"], dtype=h5py.string_dtype(), **options)
        opened.flush()
        if compression is None:
            with open(opened.filename, "r+b") as file:
                file.seek(made.id.get_offset() + 3 * 16)
                file.write((2**31 - 1).to_bytes(4, "little"))
            return
        content = bytearray(zlib.decompress(made.id.read_direct_chunk((0,))[1]))
        content[3:15:4] = b"\xff\xff\xff"  # which the filter has shuffled: the first bytes of all come first
        content[15] = 0x7F
        made.id.write_direct_chunk((0,), zlib.compress(bytes(content)))

    return change


def astray(form: str, index: int = 10**6) -> Any:
    """A sparse matrix of which an index points outside."""
    matrix = sparse.csr_matrix(COUNTS * 1.0).asformat(form)
    (matrix.col if form == "coo" else matrix.indices)[3] = index
    return matrix


def layered() -> Any:
    adata = pytest.importorskip("anndata").AnnData(COUNTS.astype(np.float32))
    adata.layers["raw"] = astray("csr")
    return adata


def unordered() -> Any:
    matrix = sparse.csr_matrix(COUNTS * 1.0)
    matrix.indptr[4] = 10**9
    return matrix


def parquet_of(column: Any) -> str:
    path = fresh_path("x.parquet")
    pytest.importorskip("pyarrow.parquet").write_table(pytest.importorskip("pyarrow").table({"a": column}), path)
    return str(path)


EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
FILES: dict[str, Case] = {
    "a pipe": (lambda: read(pipe_at(fresh_path("x.npy"))), "x.npy is a pipe"),
    "a link to a device": (lambda: read(link_at(fresh_path("x.csv"), "/dev/zero")), "x.csv is a device"),
    "links in a circle": (lambda: read(link_at(fresh_path("x.npy"), "x.npy")), "Too many levels of symbolic links"),
    "a name that is too long": (lambda: read(f"{'x' * 300}.npy"), "File name too long"),
    "a name with a NUL": (lambda: read("a\0b.npy"), r"a\x00b.npy: embedded null byte"),
    "labels in a pipe": (
        lambda: read_labels(pipe_at(fresh_path("y.npy")), read(file_of("x.csv", "a,b\n1,2\n"))), "y.npy is a pipe"),
    "an .npy that announces too much": (
        lambda: read(file_of("x.npy", npy_of("'<f8'", f"({10**12}, 3)"))), "24,000,000,000,000 bytes"),
    "an .npy of a later version": (lambda: read(file_of("x.npy", npy_header("{}", 9))), "the version 9.0"),
    "an .npy of negative length": (lambda: read(file_of("x.npy", npy_of("'<f8'", "(-1, 3)"))), "its shape is (-1, 3)"),
    "an .npy with fields": (
        lambda: read(file_of("x.npy", npy_of("[('a', '<f8')]", "(1, 1)") + bytes(8))), "[('a', '<f8')]"),
    "an .npy whose header is code": (
        lambda: read(file_of("x.npy", npy_header("__import__('os')\n"))), "(malformed node"),
    "an IDX that announces too much": (
        lambda: read(file_of("x.idx", b"\0\0\x08\x03" + b"\xff" * 12)), "79,228,162,458,924,105,385,300,197,375 bytes"),
    "a CSV in Latin-1": (lambda: read(file_of("x.csv", "a,b\nné,2\n".encode("latin-1"))), "it has the byte 0xe9"),
    "a CSV in UTF-16": (lambda: read(file_of("x.csv", "a,b\n1,2\n".encode("utf-16"))), "it begins as UTF-16 does"),
    "a CSV with NUL bytes": (lambda: read(file_of("x.csv", "a,b\n1,\0\n")), "it has NUL bytes"),
    "a CSV of one line": (lambda: read(file_of("x.csv", "a,b\n" + "1," * 2**25 + "11")), "than 67,108,864 bytes"),
    "an AnnData with a link to a file": (
        lambda: read(h5ad_of(lambda f, h: f.__setitem__("X", h.ExternalLink("secret", "/X")))), "'X' in / is a link"),
    "an AnnData with a link to another name": (
        lambda: read(h5ad_of(lambda f, h: f.__setitem__("X", h.SoftLink("/obs")))), "'X' in / is a link"),
    "an AnnData within itself": (
        lambda: read(h5ad_of(lambda f, h: f["uns"].__setitem__("again", f["/"]))), "/uns/again is in it twice"),
    "an AnnData with values in a file": (
        lambda: read(h5ad_of(lambda f, h: f.create_dataset("X", COUNTS.shape, "f4", external="secret"))), "are in an"),
    "an AnnData with virtual values": (lambda: read(h5ad_of(virtual)), "of /X are in another file"),
    "an AnnData that needs a library": (lambda: read(h5ad_of(filtered)), "/X is packed by the filter 32015"),
    "an AnnData with a text of any length": (
        lambda: read(h5ad_of(lengthened(None))), "/uns/t announces 2,147,483,647 bytes"),
    "an AnnData with a packed text of any length": (
        lambda: read(h5ad_of(lengthened("gzip"))), "/uns/t announces 2,147,483,647 bytes"),
    "an AnnData that unpacks to much": (
        lambda: read(h5ad_of(lambda f, h: f.create_dataset("X", (10**6, 10**6), "f4", chunks=(9, 9)))), "to 4,000"),
    "a program by the name of an image": (
        lambda: read(folder_of(file_of("cat.png", EPS))), "cat.png must"),
    "a pipe among images": (lambda: read(folder_of(pipe_at(fresh_path("cat.png")))), "cat.png is a pipe"),
    "an encrypted Parquet file": (
        lambda: read(file_of("x.parquet", b"PARE" + bytes(40) + (40).to_bytes(4, "little") + b"PARE")), "encrypted"),
    "a column of lists": (lambda: table().fit(read(parquet_of([[1, 2], [3]])).x), "column 'a' holds '[1 2]'"),
    "a column of durations": (lambda: table().fit(read(parquet_of([datetime.timedelta(1)])).x), "'a' holds duration"),
    "a column beyond the matrix": (lambda: counts().fit(astray("csr")), "X has a value in column 1000000 of 5"),
    "a column before the matrix": (lambda: counts().fit(astray("csr", -3)), "X has a value in column -3 of 5"),
    "a row beyond the matrix": (lambda: counts().fit(astray("csc")), "X has a value in row 1000000 of 60"),
    "a place beyond the matrix": (lambda: counts().fit(astray("coo")), "X has a value in column 1000000 of 5"),
    "a block beyond the matrix": (lambda: counts().fit(astray("bsr")), "X has a value in column 1000000 of 5"),
    "rows that do not begin": (lambda: counts().fit(unordered()), "of X do not fit together"),
    "a layer beyond the matrix": (lambda: counts(layer="raw").fit(layered()), "column 1000000 of 5"),
    "interactions beyond the matrix": (lambda: InteractionVAE(epochs=1).fit(astray("csr")), "column 1000000 of 5"),
    "a fold beyond the matrix": (lambda: Fold(sparse.csr_matrix(COUNTS), astray("csr")), "column 1000000 of 5"),
    "a schema that is a matrix": (lambda: Schema.of(sparse.dok_matrix((3, 3))), "Dictionary Of Keys"),
    "a schema without an end": (lambda: Schema.of("[" * 10**5), "it is not (maximum recursion depth exceeded"),
}  # fmt: skip

# ---- saved models and runs -------------------------------------------------------------------------------------------


def forged(edit: Callable[[Any, Any], Any], kind: str = "table") -> Any:
    """A saved model whose files were changed, and whose checksums were then made right, as it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        return elbowroom.load(forge(getattr(fitted(), kind).save(f"{folder}/m"), edit))


def put(*path: Any, value: Any) -> Callable[[Any, Any], None]:
    """What puts a value into a configuration."""

    def edit(config: Any, _: Any) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return edit


def in_history(old: str, new: str) -> Callable[[Any, Any], None]:
    """What replaces a text of the history."""
    return lambda _, files: files.update({"history.json": files["history.json"].replace(old.encode(), new.encode())})


def saved_to(place: str, prepare: Callable[[Path], Any]) -> Any:
    """A model that is saved to a place in a new folder, where something was done before."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        return fitted().table.save(f"{folder}/{place}")


def changed(change: Callable[[Any], Any]) -> Any:
    """A fitted model that is saved after something in it was changed."""
    model = copy.deepcopy(fitted().table)
    change(model)
    with tempfile.TemporaryDirectory() as folder:
        return model.save(f"{folder}/m")


class Mine(TableVAE):
    """An estimator of the caller's own."""


def resumed(facts: Any) -> Any:
    """A run that is to go on from a checkpoint with a right checksum, which says something else."""
    text = facts if isinstance(facts, str) else json.dumps(facts)
    header = json.dumps({"__metadata__": {"facts": text}}).encode()
    content = len(header).to_bytes(8, "little") + header
    with tempfile.TemporaryDirectory() as folder:
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        (Path(folder) / f"step-000000000001-{digest}.safetensors").write_bytes(content)
        return table(epochs=1).fit(WINE, checkpoint=folder)


def swept(settings: Any) -> Any:
    """A sweep whose settings say this."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sweep.json").write_text(json.dumps(settings))
        return Sweep.load(folder)


LAYERS = {"class": "MLP", "inputs": 13, "hidden": [1] * 3_000_000, "activation": "silu"}
BLOCKS = {"class": "ImageEncoder", "shape": [1, 8, 8], "channels": [4], "blocks": 10**9, "width": 8}
NESTED = functools.reduce(lambda inner, _: [inner], range(700), 1)
FACTS = {
    "format": 1, "run": {"seed": 0}, "step": 1, "records": [], "complete": False, "seconds": 1.0, "backend": "default",
    "circumstances": {},
}  # fmt: skip

SAVED: dict[str, Case] = {
    "saved to nothing": (lambda: fitted().table.save(""), "path must be a path, but it is ''"),
    "saved to a number": (lambda: fitted().table.save(3), "it is 3"),
    "a null character": (lambda: elbowroom.load("a\0b"), "'a\\x00b'"),
    "saved into a model": (
        lambda: saved_to("m/inner", lambda here: fitted().table.save(here / "m")), "a path that is not in a model"),
    "saved over a file": (lambda: saved_to("f", lambda here: (here / "f").touch()), "is something else"),
    "saved over a pipe": (lambda: saved_to("m", lambda here: pipe_at(here / "m")), "is something else"),
    "saved to a folder of others": (
        lambda: saved_to("f", lambda here: ((here / "f").mkdir(), (here / "f" / "x").touch())), "is something else"),
    "saved below a file": (lambda: saved_to("f/m", lambda here: (here / "f").touch()), "into a folder that exists"),
    "saved to a name that is too long": (lambda: fitted().table.save("x" * 256), "path must be a path, but it is 'xxx"),
    "loaded from what is not there": (lambda: elbowroom.load("nowhere"), "nowhere does not exist"),
    "loaded from a file": (lambda: elbowroom.load(__file__), "test_bad_inputs.py is a file"),
    "a class of one's own": (
        lambda: Mine(n_latents=2, hidden=(4,), epochs=1, random_state=0).fit(WINE).save("m"), "test_bad_inputs.Mine"),
    "weights that are no numbers": (
        lambda: changed(lambda m: m.model_.latent.head.bias.data.fill_(np.nan)), "holds values that are not finite"),
    "another beta than that of fit": (
        lambda: changed(lambda m: m.set_params(beta=2)), "beta is 2, but it was fitted with 1"),
    "a width that is not the model's": (
        lambda: changed(lambda m: setattr(m, "n_features_in_", 12)), "the number of features is 13 and 12"),
    "an attribute that JSON does not know": (
        lambda: changed(lambda m: setattr(m, "likelihood_reason_", {1j})), "not JSON serializable"),
    "as many blocks as fill all memory": (
        lambda: forged(put("model", "encoder", value=BLOCKS)), "blocks of ImageEncoder is 1e+09"),
    "three million layers": (
        lambda: forged(put("model", "encoder", value=LAYERS)), "hidden of MLP is a list of 3,000,000"),
    "as many features as fill all memory": (
        lambda: forged(put("model", "likelihood", "features", value=10**15)), "features of Gaussian is 1e+15"),
    "lists in lists": (lambda: forged(put("parameters", "hidden", value=NESTED)), "hidden"),
    "truth for a number": (lambda: forged(put("model", "latent", "size", value=True)), "DiagonalLatent is True"),
    "a number for the truth": (lambda: forged(put("model", "encoder", "gated", value=0)), "gated of MLP is 0"),
    "NaN in a configuration": (
        lambda: forged(put("model", "encoder", "dropout", value=np.nan)), "dropout of MLP is nan"),
    "parts that do not go together": (
        lambda: forged(put("model", "prior", "size", value=3)), "its parts do not go together"),
    "another number of names": (
        lambda: forged(put("fitted", "feature_names_in_", value=["a"]), "frame"), "the number of names is 1 and 13"),
    "labels twice": (
        lambda: forged(put("fitted", "context_categories_", value=["odd", "odd"]), "batch"), "labels of the context"),
    "a label more": (
        lambda: forged(put("fitted", "context_categories_", value=["a", "b", "c"]), "batch"), "context is 2 and 3"),
    "an image of no size": (lambda: forged(put("fitted", "image_shape_", value=[8, 0]), "images"), "at least 1"),
    "an attribute that is missing": (
        lambda: forged(lambda config, _: config["fitted"].pop("schema_")), "schema_ is missing"),
    "text for a figure": (lambda: forged(put("diagnosis", "rate", value="3")), "'3' is not float or int"),
    "a schema that learned nothing": (
        lambda: forged(put("fitted", "schema_", value={"a": "count"})), "must be fully specified"),
    "a history that begins late": (lambda: forged(in_history('"epoch": 1', '"epoch": 2')), "record 1 of the history"),
    "a key twice": (lambda: forged(in_history('"beta"', '"rate"')), "it has 'rate' twice"),
    "data of no use": (
        lambda: forged(lambda _, files: files.update({"data.safetensors": files["model.safetensors"]})), "no use for"),
    "a checkpoint that says nothing": (lambda: resumed({}), "is not ('format')"),
    "a checkpoint that is no JSON": (lambda: resumed("("), "Expecting value"),
    "a checkpoint of a later version": (lambda: resumed({"format": 99}), "has format 99"),
    "a checkpoint of no step": (lambda: resumed(FACTS | {"step": "1"}), "its step is '1'"),
    "a checkpoint of other products": (lambda: resumed(FACTS | {"backend": "x"}), "its backend is 'x'"),
    "a checkpoint of no run": (lambda: resumed(FACTS), "its epochs is None, not 1"),
    "a sweep of no betas": (
        lambda: swept({"format": "elbowroom sweep", "products": "default"}), "it is broken ('betas')"),
    "a sweep that is a list": (lambda: swept([1]), "must hold the settings of a sweep"),
}  # fmt: skip

# ---- the rest --------------------------------------------------------------------------------------------------------


class Unreadable:
    """An array of another library that can not be read, such as one whose file is gone."""

    shape = (3, 2)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("the file is gone")


@functools.cache
def wide() -> Any:
    """A model of a range of beta."""
    return table(epochs=1, beta="0.1..10").fit(WINE)


MASKED = np.ma.masked_greater(WINE, 1500.0)
DECIMALS = pd.DataFrame({"a": [decimal.Decimal("sNaN"), decimal.Decimal(2)]})
FAR = pl.DataFrame({"day": pl.Series([6_585_000, 6_585_001], dtype=pl.Int32).cast(pl.Date)})

OTHERS: dict[str, Case] = {
    "a masked cell": (lambda: numbers().fit(MASKED), "row 10, column 12"),
    "masked rows in a list": (lambda: numbers().fit(list(MASKED)), "row 10, column 12"),
    "masked counts": (lambda: counts().fit(np.ma.masked_equal(COUNTS, 7)), "NaN (row 0, column 2"),
    "masked pixels": (lambda: images().fit(np.ma.masked_less(DIGITS, 1)), "row 0, pixel (0, 0)"),
    "masked latents": (
        lambda: fitted().table.inverse_transform(np.ma.array([[0.0, 1.0]], mask=[[True, False]])), "row 0, column 0"),
    "masked labels": (
        lambda: table().fit(WINE[:3], context=np.ma.array([1, 2, 3], mask=[0, 1, 0])), "row 1 has none"),
    "a tensor without values": (lambda: table().fit(torch.ones(5, 3, device="meta")), "on meta"),
    "a sparse tensor": (lambda: table().fit(torch.eye(4).to_sparse()), "X.to_dense()"),
    "a nested tensor": (
        lambda: table().fit(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])), "a tensor of torch.float32"),
    "complex tensors": (lambda: table().fit(torch.ones(5, 3, dtype=torch.complex64).conj()), "Complex data"),
    "a tensor of clicks with a gradient": (
        lambda: InteractionVAE().fit(torch.ones(5, 3, requires_grad=True)), "requires a gradient"),
    "a history with a gradient": (lambda: recommender().recommend(torch.ones(1, 3, requires_grad=True)), "a gradient"),
    "a history without values": (lambda: recommender().score(torch.ones(1, 3, device="meta")), "on meta"),
    "latents with a gradient": (
        lambda: fitted().table.inverse_transform(torch.ones(1, 2, requires_grad=True)), "requires a gradient"),
    "an array that can not be read": (lambda: table().fit(Unreadable()), "(RuntimeError)"),
    "clicks that can not be read": (lambda: InteractionVAE().fit(Unreadable()), "of type Unreadable"),
    "latents that can not be read": (lambda: fitted().table.inverse_transform(Unreadable()), "its shape is ()"),
    "images that are nothing": (lambda: images().fit(None), "X is None"),
    "images that are a number": (lambda: images().fit(3), "X is 3"),
    "images that are a generator": (lambda: images().fit(iter([1])), "iterator"),
    "a set": (lambda: table().fit({1, 2}), "X is {1, 2}"),
    "a path of pathlib": (lambda: images().fit(Path("a.png")), "a.png"),
    "numbers as text": (lambda: table().fit(np.array([["1", "2"]])), "holds str (first: '1')"),
    "a whole number of 128 bits as a count": (
        lambda: counts().fit(pl.DataFrame({"a": pl.Series([-(2**70), 2], dtype=pl.Int128)})), "column 'a', -1.18"),
    "a date of the year 20000": (lambda: numbers().fit(FAR), "column 'day' holds date. "),
    "a signalling NaN": (lambda: table().fit(DECIMALS), "'a' holds a signalling NaN"),
    "a schema of nothing": (lambda: Schema.infer(None), "the NoneType None"),
    "a schema of text": (lambda: Schema.infer("people.csv"), "the str 'people.csv'"),
    "a schema of a series": (lambda: Schema.infer(pd.Series([1.0])), "the Series"),
    "a schema of a lazy frame": (lambda: Schema.infer(pl.DataFrame({"a": [1]}).lazy()), "lazy"),
    "a schema of one dimension": (lambda: Schema.infer(np.arange(3.0)), "shape (3,)"),
    "a schema of objects": (lambda: Schema.infer(np.array([[object(), 1]])), "(1, 2) and object"),
    "clicks with names of two levels": (
        lambda: InteractionVAE().fit(pd.concat({"a": FRAME[["ash"]], "b": FRAME[["hue"]]}, axis=1)), "('a', 'ash')"),
    "clicks with columns of the same name": (
        lambda: InteractionVAE().fit(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])),
        "'a' comes more than once"),
    "a model at no path": (lambda: fitted().table.save(None), "path must be a path, but it is None"),
    "a model at an empty path": (lambda: fitted().table.save(""), "it is ''"),
    "a model at a path with NUL": (lambda: fitted().table.save("a\0b"), "'a\\x00b'"),
    "a model at a path that no file system has": (lambda: fitted().table.save("\ud800"), "'\\ud800'"),
    "a model at a path that is too long": (lambda: fitted().table.save("x" * 300), "'xxx"),
    "a model from a number": (lambda: load(3), "it is 3"),
    "a model from a path with NUL": (lambda: load("a\0b"), "'a\\x00b'"),
    "a report at a list": (lambda: fitted().table.report(WINE, ["r.html"]), "['r.html']"),
    "a report on nothing": (lambda: fitted().table.report(None), "X is None"),
    "a report on a number": (lambda: fitted().table.report(3), "X is 3"),
    "a checkpoint at a number": (lambda: table().fit(WINE, checkpoint=3), "checkpoint must be a path, but it is 3"),
    "a checkpoint at a path with NUL": (lambda: table().fit(WINE, checkpoint="a\0b"), "checkpoint"),
    "a sweep at a path with NUL": (lambda: sweep(table(), WINE, [0.1, 1], "a\0b"), "folder must be a path"),
    "a sweep from nothing": (lambda: Sweep.load(None), "folder must be a path"),
    "a scorer that returns nothing": (lambda: wide().pick(WINE, lambda m, X: None), "at beta=0.1 it gave None"),
    "a scorer that returns NaN": (lambda: wide().pick(WINE, lambda m, X: np.nan), "at beta=0.1 it gave nan"),
    "a scorer that returns text": (lambda: wide().pick(WINE, lambda m, X: "good"), "it gave 'good'"),
    "a scorer that returns True": (lambda: wide().pick(WINE, lambda m, X: True), "it gave True"),
    "a scorer that returns many": (lambda: wide().pick(WINE, lambda m, X: np.zeros(3)), "gave array([0."),
    "a scorer that is never finite": (lambda: wide().pick(WINE, lambda m, X: -np.inf), "the first gave -inf"),
    "more draws than there can be": (lambda: fitted().table.score_samples(WINE, n_draws=10**30), "at most 2,147"),
    "more samples than there can be": (lambda: fitted().table.sample(10**30), "at most 2,147,483,647"),
    "a way to impute that is an array": (
        lambda: table(epochs=1, schema="infer").fit(FRAME).impute(FRAME, how=np.zeros(2)), "array([0., 0.])"),
    "names that are a number": (lambda: fitted().table.get_feature_names_out(3), "it is 3"),
    "context not given, of these labels": (lambda: fitted().batch.score(WINE), "of 'even', 'odd'."),
    "likelihood that is a number of columns": (lambda: table(likelihood={0: [1]}).fit(WINE), "0"),
    "latents without end": (lambda: table(n_latents=10**23).fit(WINE), "Got 100000"),
    "a batch without end": (lambda: table(batch_size=10**23).fit(WINE), "Got 100000"),
    "a width without end": (lambda: table(hidden=(10**23,)).fit(WINE), "100000"),
}  # fmt: skip

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

FIT = "fit t.csv --kind interactions --epochs 1 --n-latents 2 --hidden 4 --out m"


def in_file(text: str) -> Callable[[Path], Any]:
    return lambda here: (here / "t.csv").write_text(text)


def with_model(text: str) -> Callable[[Path], Any]:
    """A model of users and items that are numbers, and a file."""

    def make(here: Path) -> None:
        (here / "t.csv").write_text("user,item\n1,7\n1,8\n2,7\n2,9\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            InteractionVAE(2, hidden=(4,), epochs=1).fit(pd.read_csv(here / "t.csv")).save(here / "m")
        (here / "new.csv").write_text(text)

    return make


IDS_COMMANDS: dict[str, Command] = {
    "an empty user": (in_file("user,item\na,x\n,y\n"), FIT, "column 'user' has an empty value (row 1)"),
    "an empty item in quotes": (in_file('user,item\na,""\nb,y\n'), FIT, "column 'item' has an empty value (row 0)"),
    "a log whose first column is none of users": (
        in_file("timestamp,who,what\n1,a,x\n2,b,y\n"), FIT, "Name it with --user"),
    "a file of dates, who and what": (
        in_file("d,who,what\n2026-01-31,a,x\n2026-02-01,b,y\n"), FIT, "'d', holds times (datetime"),
    "fractions that would become users": (in_file("a,b,c\n1.5,a,x\n2.5,b,y\n"), FIT, "fractions (first: 1.5)"),
    "two columns of users": (
        in_file("user_id,customer,item\na,b,x\nb,c,y\n"), FIT, "Name it with --user user_id"),
    "two columns of items by themselves": (
        in_file("user,item,product\na,b,x\nb,c,y\n"), FIT.replace("--kind interactions ", ""), "--item item"),
    "a column of users that is not there": (in_file("user,item\na,x\n"), f"{FIT} --user usr", "Did you mean 'user'?"),
    "one column for users and items": (
        in_file("user,item\na,x\n"), f"{FIT} --user item --item item", "both are 'item'. Name them with --user"),
    "values that are words": (
        in_file("user,item,stars\na,x,5\nb,y,many\n"), f"{FIT} --value stars --threshold 4", "'5' (row 0)"),
    "one column alone": (in_file("user\na\n"), FIT, "it has 1 column"),
    "interactions of unequal length": (in_file("user,item\na,x\nb\n"), FIT, "line 3 has 1 value, not 2"),
    "a user who is no number": (with_model(""), "recommend m --user 1_0", "'1_0' is none"),
    "a user with a leading zero": (with_model(""), "recommend m --user 01", "'01' is none"),
    "known users of another kind": (
        with_model("user,item\n1,8\nx,7\n"), "evaluate m new.csv --known", "users must be those"),
    "a file without known items": (with_model("user,item\n5,x\n6,y\n"), "evaluate m new.csv", "the file has none"),
}  # fmt: skip


def picture(path: Path, pixels: np.ndarray, *more: np.ndarray) -> None:
    """An image file, of several frames if more pixels are given."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(exist_ok=True)
    frames = [image.fromarray(frame) for frame in more]
    image.fromarray(pixels).save(path, **({"save_all": True, "append_images": frames} if frames else {}))


def pictures(*parts: tuple[str, Any]) -> Callable[[Path], Any]:
    return lambda here: [picture(here / "x" / name, *np.atleast_3d(pixels).T.swapaxes(1, 2)) for name, pixels in parts]


FRAMES = np.stack([RGB[i, 0] for i in range(3)], -1)
FEW = "--epochs 1 --hidden 4 --n-latents 2 --random-state 0"
ARRAYS_COMMANDS: dict[str, Command] = {
    "16 bits beside 8": (
        pictures(("a.png", RGB[0, 0]), ("b.png", RGB[0, 0].astype(np.uint16))), "fit x --out m",
        "x/a.png is of 8 bits a pixel, and b.png of 16 bits a pixel"),
    "real pixels beside 8 bits": (
        pictures(("a.png", RGB[0, 0]), ("b.tif", RGB[0, 0].astype(np.float32))), "fit x --out m", "b.tif of real num"),
    **{
        f"frames of a {kind}": (pictures((f"a.{kind}", FRAMES)), "fit x --out m", f"x/a.{kind} has 3 frames")
        for kind in ("gif", "tif", "png", "webp")
    },
    "channels of a cube in a file": (
        lambda here: np.save(here / "x.npy", RGB[:, :, :3, :3]), "fit x.npy --out m", "--layout channels_first"),
    "a batch of a matrix": (
        lambda here: sparse.save_npz(here / "x.npz", sparse.csr_matrix(COUNTS)),
        "fit x.npz --out m --batch-key donor", "--batch-key donor"),
    "a layer that is not there": (
        lambda here: adata().write_h5ad(here / "x.h5ad"), "fit x.h5ad --out m --layer raw", "'raw' is not there"),
    "logarithms beside counts": (
        lambda here: adata(np.log1p(COUNTS)).write_h5ad(here / "x.h5ad"), "fit x.h5ad --out m", "--layer counts"),
    "a measured batch in a file": (
        lambda here: adata(depth=np.linspace(0, 1, 60)).write_h5ad(here / "x.h5ad"),
        "fit x.h5ad --out m --batch-key depth", "60 different ones"),
    "a cell of no batch in a file": (
        lambda here: adata(run=pd.Categorical(["a", None] * 30)).write_h5ad(here / "x.h5ad"),
        "fit x.h5ad --out m --batch-key run", "row 1 has none"),
    "an array of another layout": (
        lambda here: (np.save(here / "a.npy", RGB), np.save(here / "b.npy", RGB.transpose(0, 2, 3, 1)),
                      run(shlex.split(f"fit a.npy --out m --channels 2 {FEW}"))),
        "score m b.npy", "Write X.transpose(0, 3, 1, 2)."),
}  # fmt: skip


def kinds(here: Path) -> None:
    conditioned().save(here / "m")


SAMPLE = "sample m --out s.csv --given "
CONDITIONS_COMMANDS: dict[str, Command] = {
    "--given an unknown category": (kinds, SAMPLE + "churn=Maybe", "Known are 'No', 'Yes'"),
    "--given beyond the range": (kinds, SAMPLE + "i=11", "from 0 to 10"),
    "--given between two": (kinds, SAMPLE + "i=2.5", "nearest are 2 and 3"),
    "--given a word for a number": (kinds, SAMPLE + "x=high", "column 'x' must be given a number, but it is 'high'"),
    "--given digits in groups": (kinds, SAMPLE + "x=1_000", "'1_000'"),
    "--given infinity": (kinds, SAMPLE + "x=inf", "finite"),
    "--given a word for a truth value": (kinds, SAMPLE + "flag=yes", "True or False, but it is 'yes'"),
    "--given a number for a truth value": (kinds, SAMPLE + "flag=1", "True or False"),
    "--given a word for a date": (kinds, SAMPLE + "born=soon", "'soon'"),
    "--given a time that was skipped": (kinds, SAMPLE + "'seen=2024-03-31 02:30'", "never"),
    "--given no column": (kinds, SAMPLE + "chrun=Yes", "Did you mean 'churn'?"),
    "--given no value": (kinds, SAMPLE + "churn", "--given looks like COLUMN=VALUE"),
    "--given an empty value": (kinds, SAMPLE + "churn=", "'churn' is never missing"),
    "--given an empty number": (kinds, SAMPLE + "x=", "'x' is never missing"),
    "--given a column twice": (kinds, SAMPLE + "i=1 --given i=2", "column 'i' is given twice"),
    "--given one column or another": (kinds, SAMPLE + "b=c=d=1", "begins with 'b=c' and with 'b=c=d'"),
    "--given for means": (kinds, SAMPLE + "i=1 --mean", "mean"),
    "--given and a context that is not there": (kinds, SAMPLE + "i=1 --context even", "fitted without context"),
    "a context that is not there": (kinds, "sample m --out s.csv --context even", "fitted without context"),
    "quality of a table that is not there": (kinds, "quality real.csv made.csv", "real.csv does not exist"),
    "quality of pictures": (lambda here: np.save(here / "d.npy", DIGITS), "quality d.npy d.npy", "(1797, 8, 8)"),
}  # fmt: skip


def clicks(here: Path) -> None:
    """Files of interactions, and a model of them."""
    row, column = np.nonzero(CLICKS)
    frame = pd.DataFrame({"user": row, "item": column, "stars": 1 + (row + column) % 5})
    frame.to_csv(here / "stars.csv", index=False)
    np.save(here / "weights.npy", 2 * CLICKS)
    np.save(here / "narrow.npy", CLICKS[:, :5])
    recommender().save(here / "shop")


RECOMMENDERS_COMMANDS: dict[str, Command] = {
    "values without a meaning": (
        clicks, "fit stars.csv --kind interactions --value stars --out m", "Set --counts to keep them, --ratings"),
    "a matrix with weights": (clicks, "fit weights.npy --kind interactions --out m", "(first: 2 in row 0"),
    "a threshold below zero": (
        clicks, "fit stars.csv --kind interactions --value stars --threshold -1 --out m", "Got -1.0"),
    "counts that are ratings": (
        clicks, "fit stars.csv --kind interactions --value stars --counts --ratings --out m", "both set"),
    "lists for a matrix with weights": (clicks, "recommend shop weights.npy", "(first: 2 in row 0"),
    "lists for a narrow matrix": (clicks, "recommend shop narrow.npy", "it has 5 columns"),
    "lists for half a user": (clicks, "recommend shop --user 1.5", "'1.5' is none"),
    "more places than the shop has items": (
        clicks, "evaluate shop stars.csv --metrics precision@100", "Write precision@12"),
    "errors of what is no rating": (clicks, "evaluate shop stars.csv --metrics rmse", "all held-out values are 1"),
}  # fmt: skip

NESTED = "[" * 10**5


def csv_at(here: Path, name: str = "x.csv", names: str = "a,b") -> None:
    (here / name).write_text(f"{names}\n" + "1,2\n3,5\n" * 9)


def files_at(*paths: str, **contents: str | bytes) -> Callable[[Path], None]:
    """A table x.csv, pipes of these names, and files: `a_json="..."` is a.json."""

    def make(here: Path) -> None:
        csv_at(here)
        for path in paths:
            (here / path).parent.mkdir(exist_ok=True)
            pipe_at(here / path)
        for name, content in contents.items():
            place = here / name.replace("__", "/").replace("_", ".")
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


FILES_COMMANDS: dict[str, Command] = {
    "data in a pipe": (files_at("y.csv"), "fit y.csv --out m", "y.csv is a pipe. Write it to a file first"),
    "settings in a pipe": (files_at("c.toml"), "fit x.csv --out m --config c.toml", "c.toml is a pipe"),
    "settings without an end": (
        files_at(c_toml=f"a = {NESTED}"), "fit x.csv --out m --config c.toml", "c.toml is not a TOML file"),
    "settings in Latin-1": (
        files_at(c_toml="a = 'é'".encode("latin-1")), "fit x.csv --out m --config c.toml", "has the byte 0xe9"),
    "a schema in a pipe": (files_at("s.json"), "fit x.csv --out m --schema s.json", "s.json is a pipe"),
    "a schema without an end": (
        files_at(s_json=NESTED), "fit x.csv --out m --schema s.json", "s.json can not be read (maximum recursion"),
    "a schema that is not there": (files_at(), "fit x.csv --out m --schema s.json", "s.json does not exist"),
    "a likelihood without an end": (
        files_at(), "fit x.csv --out m --likelihood '{\"a\":" + NESTED[:9000] + "'", "maximum recursion"),
    "a run in a pipe": (files_at("m.run/run.json"), "resume m.run", "run.json is a pipe"),
    "a run that is no text": (files_at(m_run__run_json=b"\xff\xfe{\0"), "resume m.run", "it begins as UTF-16 does"),
    "an output with too long a name": (files_at(), f"fit x.csv --out {'m' * 300}", "File name too long"),
    "a column that turns text around": (
        lambda here: csv_at(here, names="\u202egnp,b"), "fit x.csv --out m --label c", r"columns are: \u202egnp, b."),
    "a column that clears the screen": (
        lambda here: csv_at(here, names="\x1b[2J\x07,b"), "fit x.csv --out m --label c", r"are: \x1b[2J\x07, b."),
    "a column that fakes a line": (
        lambda here: csv_at(here, names='"a\nerror: b",b'), "fit x.csv --out m --label c", r"a\nerror: b, b."),
    "a file's name that colours": (
        lambda here: csv_at(here, "\x9b31mx.csv"), "fit 'x.csv' --out m", r"Did you mean \x9b31mx.csv?"),
    "a file's name that is no text": (
        lambda here: csv_at(here, os.fsdecode(b"\xffx.csv")), "fit 'x.csv' --out m", r"Did you mean \udcffx.csv?"),
}  # fmt: skip


def run_of(**settings: Any) -> Callable[[Path], None]:
    """What makes a run with these settings beside those that all have."""

    def make(here: Path) -> None:
        whole = {"file": "x.csv", "out": "m", "kind": "auto", "labels": [], "parameters": {}} | settings
        (here / "m.run").mkdir()
        (here / "m.run" / "run.json").write_text(json.dumps(whole))

    return make


def piped(here: Path) -> None:
    """A model and a run whose files are pipes, from which nothing comes."""
    for folder, name in (("m", "config.json"), ("m.run", "run.json")):
        (here / folder).mkdir()
        pipe_at(here / folder / name)
    (here / "x.csv").write_text("a\n1\n")


SAVED_COMMANDS: dict[str, Command] = {
    "a pipe for a model": (piped, "info m", "not a regular file"),
    "a pipe for a run": (piped, "resume m.run", "m.run/run.json"),
    "a model in the place of a pipe": (piped, "fit x.csv --out m", "m is something else"),
    "a run of no file": (run_of(file=3), "resume m.run", "of another kind"),
    "a run with labels that are none": (run_of(labels=[1]), "resume m.run", "its labels are no texts"),
    "a run of another kind": (run_of(kind="os.system"), "resume m.run", "its kind is 'os.system'"),
    "a run with a parameter that is none": (
        lambda here: (run_of(parameters={"epohcs": 1})(here), (here / "x.csv").write_text("a,b\n1,2\n")),
        "resume m.run", "--epohcs is a parameter of no models"),
    "a run in a folder of another name": (
        lambda here: (run_of()(here), (here / "m.run").rename(here / "r")), "resume r", "must be called MODEL.run"),
    "a folder with a configuration of others": (
        lambda here: ((here / "m").mkdir(), (here / "m" / "config.json").write_text('{"model_type": "bert"}')),
        "info m", "not a configuration of Elbowroom"),
}  # fmt: skip


def people(here: Path) -> None:
    (here / "people.csv").write_text("a,b\n" + "".join(f"{i},{i % 7}\n" for i in range(40)))


def pictures_file(here: Path) -> None:
    np.save(here / "i.npy", DIGITS[:30])


@functools.cache
def saved_models() -> Path:
    """Models that commands are run on."""
    place = Path(tempfile.mkdtemp())
    rows = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) % 7})
    table(epochs=1).fit(rows).save(place / "plain")
    table(epochs=1, schema="infer").fit(rows).save(place / "kinds")
    table(epochs=1).fit(rows, context=np.where(rows["b"] > 3, "high", "low")).save(place / "in-python")
    wide().save(place / "range")
    anndata = pytest.importorskip("anndata")
    donors = pd.DataFrame({"donor": ["d1", "d2"] * 30}, index=[f"c{i}" for i in range(60)])
    cells = anndata.AnnData(COUNTS.astype(np.float32), obs=donors)
    counts(epochs=1, batch_key="donor").fit(cells).save(place / "cells")
    return place


def models(here: Path) -> None:
    people(here)
    np.save(here / "c.npy", COUNTS)
    for model in saved_models().iterdir():
        (here / model.name).symlink_to(model)


def settings(here: Path) -> None:
    people(here)
    (here / "nul.toml").write_text('likelihood = "a\\u0000b"\n')
    (here / "kinds.toml").write_text("n_latents = [1, 2]\n")
    (here / "broken.toml").write_text("n_latents = [\n")


OTHERS_COMMANDS: dict[str, Command] = {
    "a file that is not there": (
        lambda here: (here / "rows.csv").write_text("a,b\n1,2\n"), "fit rwos.csv --out m", "Did you mean rows.csv?"),
    "an empty path": (people, "fit '' --out m", "its name is empty"),
    "an output with NUL": (people, "fit people.csv --out 'a\0b'", "embedded null byte"),
    "an input with NUL": (people, "fit 'a\0b' --out m", "embedded null byte"),
    "a model with NUL": (people, "score 'a\0b' people.csv", "a model"),
    "a flag of Python": (people, "fit people.csv --out m --n_latents 0", "--n-latents must be an int"),
    "latents below 1": (people, "fit people.csv --out m --n-latents 0", "--n-latents must be an int in the range"),
    "latents without end": (people, f"fit people.csv --out m --n-latents {10**23}", "--n-latents must be an int"),
    "a batch without end": (people, f"fit people.csv --out m --batch-size {10**23}", "--batch-size must be an int"),
    "widths without end": (people, f"fit people.csv --out m --hidden {10**23}", "--hidden"),
    "a flag of images": (people, "fit people.csv --out m --body conv", "the data is of the kind 'table'. Leave it out"),
    "a flag of tables": (
        pictures_file, "fit i.npy --out m --schema infer", "the data is of the kind 'image'. Leave it out"),
    "a likelihood for other data": (
        people, "fit people.csv --out m --likelihood bernoulli", "--likelihood bernoulli needs"),
    "a schema beside a likelihood": (
        people, "fit people.csv --out m --schema infer --likelihood gaussian", "Leave --likelihood auto"),
    "a table that is images": (people, "fit people.csv --out m --kind image", "for a table use --kind table"),
    "images that are a table": (pictures_file, "fit i.npy --out m --kind table", "for images use --kind image"),
    "a beta of a model of one": (models, "score plain people.csv --beta 2", "Fit with --beta 0.01..10."),
    "labels not given": (models, "sample cells --out x.npy", "d1, d2, but it is not given. Add --context d1"),
    "labels not known": (models, "sample cells --out x.npy --context d3", "d1, d2, but it is 'd3'. Add --context d1"),
    "labels not wanted": (models, "sample plain --out x.csv --context d1", "plain was fitted without context. Leave"),
    "labels of a model of Python": (models, "sample in-python --out x.csv", "high, low, but it is not given"),
    "cells without their labels": (models, "score cells c.npy", "fitted with --batch-key donor, but c.npy has no"),
    "rows without their labels": (models, "encode in-python people.csv --out z.npy", "with context in Python"),
    "counts imputed": (models, "impute cells people.csv --out x.csv", "cells is of the kind CountVAE"),
    "counts detected": (models, "detect cells c.npy", "detect needs a model of a table"),
    "counts that are given": (models, "sample cells --out x.csv --context d1 --given a=1", "--given needs a model of"),
    "a file with NUL beside an output that is there": (
        models, "encode plain 'a\0b' --out c.npy", "embedded null byte"),
    "a pick to a path with NUL": (models, "pick range people.csv --out 'a\0b'", "embedded null byte"),
    "a pick to a path of surrogates": (models, "pick range people.csv --out '\ud800'", "surrogates not allowed"),
    "a pick over its model": (models, "pick range people.csv --out range --overwrite", "range is the model"),
    "no samples": (models, "sample plain --out x.csv -n 0", "--n-samples must be a whole number, at least 1"),
    "half a sample": (models, "sample plain --out x.csv -n 2.5", "'2.5' is not a whole number"),
    "more imputations than there can be": (models, f"impute kinds people.csv --out x.csv --n {10**9}", "10,000"),
    "a task that is none": (models, "pick range people.csv --task likelihood", "task must be one of"),
    "a setting with NUL": (settings, "fit people.csv --out m --config nul.toml", "likelihood must be one of"),
    "settings of another kind": (settings, "fit people.csv --out m --config kinds.toml", "kinds.toml"),
    "settings that are broken": (settings, "fit people.csv --out m --config broken.toml", "is not a TOML file"),
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
    assert len(BAD) + len(COMMANDS) >= 220


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
