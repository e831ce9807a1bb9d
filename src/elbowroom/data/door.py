"""The door: what a caller's X must be, checked once, with errors that say where and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils.validation import validate_data

from elbowroom.errors import DataError


def validated(estimator: Any, x: Any, reset: bool, **options: Any) -> Any:
    """scikit-learn's `validate_data`, with its errors in three parts; NaN and infinities are refused with their place."""
    x = numeric_frame(x)
    try:
        checked = validate_data(estimator, x, reset=reset, dtype="numeric", ensure_all_finite=False, **options)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{type(estimator).__name__} needs rows of numbers, of the width and names that it was fitted on",
            " ".join(str(error).split()).rstrip("."),
            "Correct X.",
        ) from error
    refuse_non_finite(checked, getattr(estimator, "feature_names_in_", None))
    return checked


def numeric_frame(x: Any) -> Any:
    """Refuse columns that are not numbers; turn the frames that scikit-learn can not read into ones that it can."""
    frame = nw.from_native(x, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        return x
    for name, dtype in frame.schema.items():
        if not (dtype.is_numeric() or dtype == nw.Boolean or dtype == nw.Object):
            first = next((value for value in frame[name].to_list() if value is not None), None)
            raise DataError(
                "every column must hold numbers",
                f"column {name!r} holds {str(dtype).lower()} (first: {first!r})",
                "Drop the column, or turn it into numbers (one column of 0 and 1 a category).",
            )
    return frame.to_pandas() if frame.implementation.is_pyarrow() else x


def refuse_non_finite(x: Any, names: Sequence[str] | None) -> None:
    """Raise `DataError` at the first NaN or infinity."""
    values = x.data if sparse.issparse(x) else x
    if values.dtype.kind != "f" or values.size == 0 or np.isfinite(values.sum(dtype=np.float64)):
        return
    broken = ~np.isfinite(values)
    if not broken.any():
        return
    first = np.argwhere(broken)[0]
    value = values[tuple(first)]
    if sparse.issparse(x):
        x = x.tocoo()
        first = np.array([x.row[first[0]], x.col[first[0]]])
    where = f"row {first[0]}"
    if len(first) > 1:
        column = int(first[1])
        where += f", column {names[column]!r}" if names is not None else f", column {column}"
    kind = "NaN" if np.isnan(value) else "infinity"
    raise DataError(
        "every value must be a finite number",
        f"the input contains {kind}: {int(broken.sum())} such values (first: {where})",
        "Drop those rows or fill them in, for example with sklearn.impute.SimpleImputer.",
    )


def frame_kind(x: Any) -> str | None:
    """The library of a data frame ("pandas", "polars", "pyarrow"), or None for anything else."""
    frame = nw.from_native(x, eager_only=True, pass_through=True)
    return frame.implementation.value if isinstance(frame, nw.DataFrame) else None


def to_frame(values: np.ndarray, names: Sequence[str], kind: str) -> Any:
    """A frame of the given library from an array (n, D)."""
    return nw.from_dict({name: values[:, i] for i, name in enumerate(names)}, backend=kind).to_native()


def one_hot(labels: Any, n: int, categories: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Context labels (n,) as indicators (n, c), and their categories; unknown ones are refused."""
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise DataError(
            f"context must hold one label for each of the {n} rows", f"its shape is {labels.shape}", "Give a 1-D array."
        )
    if labels.dtype.kind not in "iub":
        labels = labels.astype(str)
    if categories is None:
        categories = np.unique(labels)
    unknown = ~np.isin(labels, categories)
    if unknown.any():
        raise DataError(
            f"context labels must be among the {len(categories)} that the model was fitted on",
            f"{labels[unknown][0]!r} (row {int(np.argmax(unknown))}) is not",
            f"Known are {', '.join(map(repr, categories[:8].tolist()))}.",
        )
    return (labels[:, None] == categories[None, :]).astype(np.float32), categories
