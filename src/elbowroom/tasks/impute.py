"""Imputation of the missing cells of a table: by the median or mode, by the mean, or by several draws."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor

from elbowroom.data import frames
from elbowroom.data.frames import Series, columns_of
from elbowroom.data.tables.kinds import Category, Kind, Real
from elbowroom.data.tables.schema import Schema, missing_mask, read
from elbowroom.data.values import long_enough
from elbowroom.errors import ParameterError, unknown

HOWS = ("likely", "mean")
MOST = 10_000  # imputations per call
DRAWS = 256  # per row, for a single imputation


def values_of(schema: Schema, drawn: Tensor) -> dict[str, np.ndarray]:
    """Decode completed rows (draws, n, cells) to columns of values (draws, n), none of them missing."""
    rows = drawn.flatten(0, 1).numpy().copy()
    for name, column in schema.columns.items():
        if column.nulls:
            rows[:, schema.at(name)[0]] = 0
    return {name: values.reshape(drawn.shape[:2]) for name, values in schema.decode(rows).items()}


def single(schema: Schema, drawn: Tensor, how: str) -> dict[str, np.ndarray]:
    """Reduce completed rows (draws, n, cells) to one value per cell, (n,) by column.

    For numbers and times this is the mean or, if `how` is "likely", the median; for categories the most frequent draw.
    """
    return {name: _single(schema[name], values, how) for name, values in values_of(schema, drawn).items()}


def _single(kind: Kind | None, values: np.ndarray, how: str) -> np.ndarray:
    if isinstance(kind, Category) or (values.dtype == object and not isinstance(kind, Real)):
        return np.array([Counter(column).most_common(1)[0][0] for column in values.T.tolist()], dtype=values.dtype)
    if how == "mean":
        whole = values.dtype == object  # integers of any size, with an integer mean
        return (2 * values.sum(0) + len(values)) // (2 * len(values)) if whole else values.mean(0)
    return np.sort(values, axis=0)[(len(values) - 1) // 2]


def check_how(how: Any) -> str:
    """Return `how`; raise if it is unknown."""
    if not isinstance(how, str) or how not in HOWS:
        raise unknown("how", how, HOWS)
    return str(how)


def filled(schema: Schema, X: Any, values: dict[str, np.ndarray]) -> Any:
    """X, an array or a frame, with its missing cells filled from columns of values; all others are unchanged."""
    return _filled_array(schema, X, values) if isinstance(X, np.ndarray) else _filled_frame(schema, X, values)


def _filled_array(schema: Schema, X: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray:
    if X.dtype.kind != "f":
        return X
    ends = [float(end or 0) for kind in schema.values() if isinstance(kind, Real) for end in (kind.low, kind.high)]
    dtype = long_enough(str(X.dtype), min(ends, default=0), max(ends, default=0))
    fresh = np.column_stack([np.asarray(column, dtype=float) for column in values.values()])
    return np.where(np.isnan(X), fresh, X).astype(dtype)


def _filled_frame(schema: Schema, X: Any, values: dict[str, np.ndarray]) -> Any:
    import narwhals.stable.v2 as nw

    library = nw.from_native(X, eager_only=True).implementation.value
    out, series = {}, read(X)
    for name, column in columns_of(X).items():
        out[name] = column.to_native()
        if schema.at(name) and missing_mask(series[name].values).any():
            out[name] = _filled_column(schema, name, column, series[name], values[name], library)
    return frames.frame_of(out, library, X)


def _filled_column(schema: Schema, name: str, column: Any, series: Series, fresh: np.ndarray, library: str) -> Any:
    missing = missing_mask(series.values)
    dtype, categories = schema.columns[name].beside(name, series)
    coded = dtype.startswith(("dictionary", "Categorical", "string_view"))  # their chunks cannot be combined
    if dtype != series.dtype or coded or series.categories not in (None, categories):
        return frames.native(np.where(missing, fresh, series.values), dtype, library, categories)
    return _zipped(column, ~missing, frames.native(fresh, dtype, library, categories))


def _zipped(column: Any, keep: np.ndarray, fresh: Any) -> Any:
    """The column where `keep` is True, unchanged to the bit, else the new values, which have the same dtype."""
    import narwhals.stable.v2 as nw

    own = column.to_native()
    if column.implementation.is_pandas():
        return own.where(keep, fresh.astype(own.dtype).set_axis(own.index))
    fresh = fresh.cast(own.dtype) if column.implementation.is_polars() else fresh
    kept = nw.new_series("keep", keep.tolist(), nw.Boolean, backend=column.implementation)
    return column.zip_with(kept, nw.from_native(fresh, series_only=True)).to_native()


def check_draws(n: Any) -> int:
    """Return the number of imputations; raise if it is invalid."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MOST:
        expected = f"n must be None or a whole number of imputations, from 1 to {MOST:,}"
        raise ParameterError(expected, f"it is {n!r:.60}", "Write n=5.")
    return int(n)
