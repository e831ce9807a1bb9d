"""Imputation: the missing cells of a table, most likely, on average, or drawn many times."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor

from elbowroom.data import frames
from elbowroom.data.frames import Series, columns_of
from elbowroom.data.schema import Schema, is_hole, read
from elbowroom.errors import ParameterError, unknown

HOWS = ("likely", "mean")
DRAWS = 256  # of a row's completion, behind a single value


def values_of(schema: Schema, drawn: Tensor) -> dict[str, np.ndarray]:
    """Columns of completed rows (draws, n, cells) as values (draws, n); none is missing."""
    rows = drawn.flatten(0, 1).numpy().copy()
    names = list(schema.cells)
    for name, column in schema.columns.items():
        if column.nulls:
            rows[:, names.index(f"{name} is missing")] = 0
    return {name: values.reshape(drawn.shape[:2]) for name, values in schema.decode(rows).items()}


def single(schema: Schema, drawn: Tensor, how: str) -> dict[str, np.ndarray]:
    """One value for each cell of completed rows (draws, n, cells), by column, (n,).

    Of numbers and times the mean or, if `how` is "likely", the median; of texts what was drawn most often.
    """
    return {name: _single(values, how) for name, values in values_of(schema, drawn).items()}


def _single(values: np.ndarray, how: str) -> np.ndarray:
    if values.dtype != object:
        return values.mean(0) if how == "mean" else np.quantile(values, 0.5, axis=0, method="inverted_cdf")
    return np.array([Counter(column).most_common(1)[0][0] for column in values.T.tolist()], dtype=values.dtype)


def check_how(how: Any) -> str:
    """Refuse another way to impute than those there are."""
    if how not in HOWS:
        raise unknown("how", how, HOWS)
    return str(how)


def filled(schema: Schema, X: Any, values: dict[str, np.ndarray]) -> Any:
    """X, an array or a frame, with its missing cells filled from columns of values; all others are as they were."""
    if isinstance(X, np.ndarray):
        return np.where(np.isnan(X), np.column_stack(list(values.values())), X).astype(X.dtype)
    return _filled_frame(schema, X, values)


def _filled_frame(schema: Schema, X: Any, values: dict[str, np.ndarray]) -> Any:
    import narwhals.stable.v2 as nw

    library = nw.from_native(X, eager_only=True).implementation.value
    out, series = {}, read(X)
    for name, column in columns_of(X).items():
        holes = is_hole(series[name].values)
        out[name] = column.to_native()
        if holes.any() and schema.cells and schema.at(name):
            fresh = _as_known(values[name], series[name])
            new = nw.from_native(schema.native(name, fresh, library, series[name].dtype), series_only=True)
            keep = nw.new_series("keep", (~holes).tolist(), nw.Boolean, backend=column.implementation)
            out[name] = _zipped(column, keep, new).to_native()
    return frames.frame_of(out, library, X)


def _zipped(column: Any, keep: Any, new: Any) -> Any:
    """The column where it is to be kept, else the new values; both have the same dtype and, in pandas, labels."""
    if column.implementation.is_pandas():
        index = column.to_native().index
        import narwhals.stable.v2 as nw

        keep, new = (nw.from_native(s.to_native().set_axis(index), series_only=True) for s in (keep, new))
    return column.zip_with(keep, new)


def _as_known(values: np.ndarray, series: Series) -> np.ndarray:
    """Means as the dtype can hold them: whole numbers and truth values are rounded."""
    dtype = series.dtype.lower().lstrip("u")
    whole = dtype.startswith("int") or dtype == "object:whole" or series.sort == "flag"
    return np.rint(values) if whole and values.dtype != object else values


def check_draws(n: Any) -> int:
    """Refuse a number of imputations that is none."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ParameterError("n must be None or a whole number of imputations", f"it is {n!r}", "Write n=5.")
    return int(n)
