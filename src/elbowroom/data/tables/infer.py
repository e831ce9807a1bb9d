"""Infer the kind of a column from its values."""

from __future__ import annotations

from typing import Any

import numpy as np

from elbowroom.data.tables.kinds import (
    FEW,
    GRID,
    Binary,
    Category,
    Count,
    Datetime,
    Empty,
    Kind,
    Ordinal,
    Positive,
    Real,
    as_floats,
    step_of,
)


def infer(values: np.ndarray, sort: str, ordered: bool = False, categories: Any = None) -> Kind:
    """Infer the kind of a column from its non-missing values."""
    if not len(values):
        return Empty()
    if sort == "text":
        return (Ordinal if ordered else Category)(categories)
    if sort == "flag":
        return Binary()
    if sort == "time":
        return Datetime()
    return infer_number(values)


def infer_number(values: np.ndarray) -> Kind:
    """Infer the kind of numbers: Binary, Count over a short range, Positive if they vary by factors, or Real."""
    if values.dtype != object and np.isin(values, (0, 1)).all():
        return Binary()
    low, high = values.min(), values.max()
    if low >= 0 and step_of(values) == 1 and high - low <= GRID:
        return Count()
    values = as_floats(values)
    above = values[values > 0]
    if low >= 0 and len(np.unique(above)) > FEW and skewness(above) > max(1.0, 2 * abs(skewness(np.log(above)))):
        return Positive()
    return Real()


def skewness(values: np.ndarray) -> float:
    """The third standardised moment."""
    spread = values.std()
    return float((((values - values.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0
