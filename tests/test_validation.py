"""What is accepted in another form is read as what it means: tensors, masked arrays, matrices, wide numbers, paths."""

from __future__ import annotations

import decimal
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from small import COUNTS, DIGITS, WINE, counts, images, table

from elbowroom import Schema
from elbowroom.cli.app import run
from elbowroom.data.io.readers import read
from elbowroom.data.validation import as_array, path_of, rows_at
from elbowroom.errors import ElbowroomError, MissingDependencyError, ParameterError, unknown

WITH_MISSING = np.where(WINE > 1200, np.nan, WINE)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (torch.tensor([[1.5, 2.0]], dtype=torch.bfloat16), np.array([[1.5, 2.0]], np.float32)),
        (torch.tensor([[1.5, 2.0]]).to(torch.float8_e4m3fn), np.array([[1.5, 2.0]], np.float32)),
        (torch.tensor([[1.0, 2.0]], dtype=torch.float64), np.array([[1.0, 2.0]])),
        (torch.tensor([[1 + 2j]]).conj().imag, np.array([[-2.0]], np.float32)),
        (torch.tensor([[True]]), np.array([[True]])),
        (np.ma.array([[1, 2]], mask=[[True, False]]), np.array([[np.nan, 2.0]])),
        (np.ma.array([[1.0, 2.0]], mask=[[0, 1]], dtype=np.float32), np.array([[1.0, np.nan]], np.float32)),
        (np.ma.array([[True, False]], mask=[[True, False]]), np.array([[np.nan, 0.0]])),
        (np.ma.array([[1, 2]]), np.array([[1, 2]])),
        ([np.ma.array([1.0, 2.0], mask=[True, False]), np.ma.array([3.0, 4.0])], np.array([[np.nan, 2.0], [3.0, 4.0]])),
        (np.matrix([[1, 2]]), np.array([[1, 2]])),
    ],
)
def test_arrays_of_other_kinds_are_what_they_mean(given: Any, meant: np.ndarray) -> None:
    found = as_array(given)
    assert type(found) is np.ndarray
    assert found.dtype == meant.dtype
    np.testing.assert_array_equal(found, meant)


def test_other_things_are_left_as_they_are() -> None:
    for x in (WINE, [[1.0, 2.0]], pl.DataFrame({"a": [1]}), None, "text"):
        assert as_array(x) is x


def test_rows_are_of_the_kind_that_they_were() -> None:
    at, numbers = np.array([2, 0]), {"a": [1.5, 2.5, 3.5], "b": [4, 5, 6]}
    x = np.column_stack(list(numbers.values()))
    np.testing.assert_array_equal(rows_at(x, at), x[at])
    assert rows_at(x.tolist(), at) == [x[2].tolist(), x[0].tolist()]
    assert torch.equal(rows_at(torch.tensor(x), at), torch.tensor(x)[[2, 0]])
    for kind in (sparse.csr_matrix, sparse.coo_array, sparse.csc_array):
        np.testing.assert_array_equal(rows_at(kind(x), at).toarray(), x[at])
    labelled = pd.DataFrame(numbers, index=["x", "y", "z"])
    pd.testing.assert_frame_equal(rows_at(labelled, at), labelled.loc[["z", "x"]])
    assert rows_at(pl.DataFrame(numbers), at).equals(pl.DataFrame(numbers)[[2, 0]])
    assert rows_at(pa.table(numbers), at).equals(pa.table(numbers).take([2, 0]))


def test_a_masked_cell_is_a_missing_value_everywhere() -> None:
    masked = np.ma.masked_invalid(WITH_MISSING)
    masked.data[masked.mask] = 5.0  # what is below the mask is nobody's business
    model = table(epochs=2).fit(masked)
    np.testing.assert_array_equal(model.transform(WINE), table(epochs=2).fit(WITH_MISSING).transform(WINE))
    np.testing.assert_array_equal(model.score_samples(masked), model.score_samples(WITH_MISSING))
    np.testing.assert_array_equal(model.impute(masked), model.impute(WITH_MISSING))
    assert Schema.infer(masked) == Schema.infer(WITH_MISSING)


@pytest.mark.parametrize(("make", "x"), [(table, WINE), (counts, COUNTS), (images, DIGITS[:20])])
def test_a_masked_array_without_masked_cells_is_an_array(make: Any, x: np.ndarray) -> None:
    model = make(epochs=1).fit(np.ma.array(x))
    np.testing.assert_array_equal(model.transform(np.ma.array(x)), make(epochs=1).fit(x).transform(x))


def test_bfloat16_has_the_latents_of_its_values() -> None:
    model = table(epochs=1).fit(WINE)
    half = torch.tensor(WINE).bfloat16()
    np.testing.assert_array_equal(model.transform(half), model.transform(half.float().numpy()))
    np.testing.assert_array_equal(model.inverse_transform(half[:, :2]), model.inverse_transform(half[:, :2].float()))


@pytest.mark.parametrize("dtype", [pl.Int128, pl.Decimal(20, 0)])
def test_wide_numbers_are_numbers(dtype: Any) -> None:
    frame = pl.DataFrame({"a": pl.Series(range(40)).cast(dtype), "b": pl.Series(range(40)) % 7})
    plain = frame.cast(pl.Float64)
    model = table(epochs=1, likelihood="gaussian").fit(frame)
    np.testing.assert_array_equal(model.transform(frame), model.transform(plain))


def test_a_list_with_none_or_decimals_is_an_array_of_numbers() -> None:
    rows = [[None, 1.0], [2.0, decimal.Decimal("3.5")], [1.0, 2.0]]
    found = table(epochs=1).fit(rows)
    np.testing.assert_array_equal(found.transform(rows), found.transform(np.array([[np.nan, 1], [2, 3.5], [1, 2]])))


def test_negative_zero_is_zero() -> None:
    x = COUNTS.astype(float)
    model = counts(epochs=1).fit(x)
    np.testing.assert_array_equal(model.score_samples(np.where(x == 0, -0.0, x)), model.score_samples(x))


@pytest.mark.parametrize("path", ["a", "a/b.csv", "~", Path("x"), "\udcff", "x" * 255, "ä" * 127])
def test_a_path_is_a_path(path: Any) -> None:
    assert path_of(path, "path") == Path(path).expanduser()


@pytest.mark.parametrize("path", [None, 3, "", b"a", "a\0", "\ud800", "x" * 256, "ä" * 128, "a/" * 2048, ["a"], np.nan])
def test_anything_else_is_none(path: Any) -> None:
    with pytest.raises(ParameterError, match=r"^place must be a path, but it is "):
        path_of(path, "place")


def test_text_needs_a_library_of_frames(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Without the extras numbers are read all the same."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("pandas", "polars", "pyarrow") else find(name)
    )
    (tmp_path / "text.csv").write_text("a,country\n1,DE\n2,\n")
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n2,3\n")
    np.testing.assert_array_equal(read(os.fspath(tmp_path / "numbers.csv")).x, [[1, 2], [2, 3]])
    with pytest.raises(MissingDependencyError, match=r"column 'country' is of text\. Run: pip install pandas"):
        read(os.fspath(tmp_path / "text.csv"))
    assert run(["fit", os.fspath(tmp_path / "text.csv"), "--out", os.fspath(tmp_path / "m")]) == 1
    assert "needs the package 'pandas' or 'polars'" in capsys.readouterr().err


def test_a_point_is_said_once() -> None:
    assert str(ElbowroomError("a", "it fails: no file.", "Do it.")) == "a, but it fails: no file. Do it."
    assert str(ElbowroomError("a", "they are 1, 2, ...", "Do it.")) == "a, but they are 1, 2, .... Do it."


def test_names_of_any_kind_are_listed() -> None:
    assert str(unknown("the column", "b", [1, ("a", "b")])).startswith("the column must be one of ('a', 'b'), 1, but")
    assert "(there are none)" in str(unknown("the column", "b", []))
    assert str(unknown("a name", "b", map(str, range(30)))).count(",") == 22
