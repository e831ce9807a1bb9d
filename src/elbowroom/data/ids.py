"""Ids, values and times of interactions, as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from elbowroom.errors import DataError


def ids_of(values: np.ndarray, where: str) -> np.ndarray:
    """Ids as whole numbers or texts."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if not len(values):
        return values.astype(np.int64)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        return values.astype(np.int64)  # a column of whole numbers that had a hole, or came from CSV
    if values.dtype.kind in "OUT" and all(isinstance(value, str) for value in values):
        return values.astype(str)
    if values.dtype.kind == "O" and all(_is_whole(v) for v in values):
        return values.astype(np.int64)
    texts = any(isinstance(value, str) for value in values.tolist())
    place, first = next(
        (i, v) for i, v in enumerate(values.tolist()) if not (isinstance(v, str) if texts else _is_id(v))
    )
    raise DataError(
        "ids must be whole numbers or texts, all of one kind",
        f"{where} has {first!r} (row {place})",
        "Drop such rows, or turn all ids into texts.",
    )


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number of 64 bits."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63


def _is_id(value: Any) -> bool:
    """Whether a value may be an id in a column of numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 and value == int(value)


def values_of(column: Any, name: str) -> np.ndarray:
    """A column of finite numbers, float64."""
    values = column.to_numpy()
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise DataError(
            "values of interactions must be finite numbers", f"column {name!r} has others", "Drop such rows."
        )
    return values.astype(np.float64)


def times_of(column: Any, name: str) -> np.ndarray:
    """A column of numbers, dates or ISO texts as numbers that are later the greater they are."""
    values = column.to_numpy()
    try:
        if values.dtype.kind in "OUT":
            values = np.array([_time(value) for value in values.tolist()], np.float64)
        known = ~np.isnat(values) if values.dtype.kind == "M" else np.isfinite(values)
    except (TypeError, ValueError, OverflowError):
        known = np.zeros(len(values), bool)
    if not known.all():
        raise DataError(
            "times must be numbers, dates or ISO texts such as 2026-01-31",
            f"column {name!r} has others",
            "Drop such rows, or write them so.",
        )
    return values.astype("datetime64[us]").astype(np.int64) if values.dtype.kind == "M" else values


def _time(value: Any) -> float:
    """Seconds of a number, also as text, or of a date, which is in UTC where it does not say so."""
    try:
        return float(str(value))
    except ValueError:
        when = datetime.fromisoformat(str(value))
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def array_of(ids: Iterable[Any]) -> np.ndarray:
    """Ids as an array (n,), of objects where they are of several kinds: NumPy makes texts of numbers beside texts."""
    found = list(ids)
    texts = sum(isinstance(i, str) for i in found)
    if texts in (0, len(found)) and texts == sum(isinstance(i, Iterable) for i in found):
        return np.asarray(found)
    array = np.empty(len(found), object)
    array[:] = found
    return array
