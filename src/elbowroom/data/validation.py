"""Validation of a caller's X, once, with errors that say where the problem is and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AnySet
from numbers import Integral
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from narwhals.exceptions import DuplicateError
from scipy import sparse
from sklearn.utils.validation import validate_data

from elbowroom.data.values import is_missing
from elbowroom.errors import DataError, ParameterError, counted
from elbowroom.utils.constraints import Interval, InvalidParameterError, validate_parameter_constraints

AS_NUMBERS = (
    "Turn the column into numbers or drop it; TableVAE with likelihood='auto' takes data frames (pandas, polars) with "
    "text, categories and dates."
)

FEW_LABELS = 20  # labels that are always allowed: real ones, and a different one in each row

IMPUTE = "Drop those rows or fill them in, for example with VAEImputer; TableVAE with likelihood='auto' takes them."
CORRECT = "Correct those values, or drop those rows."

MOST = 2**31 - 1  # of any count
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of a file's name and of a path


class InvalidParameter(ParameterError, InvalidParameterError):
    """A constructor parameter that violates its constraints, with scikit-learn's message and what to do."""

    def __str__(self) -> str:
        return f"{self.expected}. {self.got}. {self.do}"


class Refused(DataError, TypeError):
    """Data that scikit-learn does not accept, with its message and what to do."""

    _keep = "\n"  # scikit-learn lists names line by line

    def __str__(self) -> str:
        return f"{self.got}{'' if self.got.endswith(chr(10)) else '. '}{self.do}"


def check_parameters(estimator: Any) -> None:
    """Check an object's parameters as scikit-learn does, with errors in three parts; booleans are not numbers."""
    kind, do = type(estimator).__name__, f"See help({type(estimator).__name__})."
    values = {name: getattr(estimator, name) for name in estimator._parameter_constraints}
    try:
        validate_parameter_constraints(estimator._parameter_constraints, values, kind)
    except InvalidParameterError as error:
        expected, _, got = str(error).partition(" Got ")
        raise InvalidParameter(expected.rstrip("."), f"Got {got.rstrip('.')}", do) from None
    for name, value in values.items():
        allowed = estimator._parameter_constraints[name]
        if isinstance(value, bool | np.bool_) and any(isinstance(one, Interval) for one in allowed):
            raise InvalidParameter(f"The {name!r} parameter of {kind} must be a number", f"Got {value!r} instead", do)


def positive(name: str, value: Any) -> int:
    """Return a value as int; raise unless it is a whole number of at least 1."""
    number = 0 if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
    if not 1 <= number <= MOST:
        expected = f"{name} must be a whole number, at least 1" + f" and at most {MOST:,}" * (number > MOST)
        raise ParameterError(expected, f"it is {value!r:.60}", f"Write {name}=100.")
    return number


def flag(name: str, value: Any) -> bool:
    """Return a value as bool; raise unless it is one: a string such as "no", or an array, is not converted."""
    if not isinstance(value, bool | np.bool_):
        raise ParameterError(f"{name} must be True or False", f"it is {value!r:.60}", f"Write {name}=True.")
    return bool(value)


def path_of(value: Any, name: str) -> Path:
    """The path of a file or folder, with ~ expanded; raises if the value cannot be a path."""
    try:
        path = os.path.expanduser(os.fspath(value))
        parts = os.fsencode(path).split(b"/")
        fits = max(map(len, parts)) <= LONGEST_NAME and sum(map(len, parts)) + len(parts) <= LONGEST_PATH
        good = isinstance(path, str) and path != "" and "\0" not in path and fits
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ParameterError(f"{name} must be a path", f"it is {value!r:.60}", "Write it as text: 'folder/name'.")
    return Path(path)


def as_array(x: Any) -> Any:
    """Tensors, masked arrays and matrices as NumPy arrays, masked cells as NaN; anything else unchanged."""
    if isinstance(x, torch.Tensor):
        return _of_tensor(x)
    if isinstance(x, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in x):
        x = np.ma.array(x)
    if isinstance(x, np.ma.MaskedArray):
        return _of_masked(x)
    return np.asarray(x) if isinstance(x, np.matrix) else x


def _of_tensor(x: torch.Tensor) -> np.ndarray:
    if x.requires_grad:
        raise Refused("X must be data", "X is a tensor that requires a gradient", "Pass X.detach().")
    if x.dtype.is_floating_point and x.dtype not in (torch.float16, torch.float32, torch.float64):
        kept = x.float  # bfloat16 and the like, which NumPy lacks; float32 holds all of their values
    else:
        kept = x.resolve_conj
    try:
        return kept().cpu().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:
        raise Refused(
            "X must be a dense tensor of numbers",
            f"X is a tensor of {x.dtype} on {x.device}: {_first_sentence(str(error)):.120}",
            "Pass a dense one with values, X.to_dense() or X.dequantize(), or an array.",
        ) from error


def _of_masked(x: Any) -> np.ndarray:
    if not np.ma.is_masked(x):
        return np.asarray(x.data)
    held = {"f": x.dtype, "c": x.dtype} | dict.fromkeys("biu", np.float64)
    return x.astype(held.get(x.dtype.kind, object)).filled(np.nan)


def validated(estimator: Any, x: Any, reset: bool, missing: bool = False, **options: Any) -> Any:
    """scikit-learn's `validate_data`, with errors in three parts; those for NaN and infinity say where.

    With `missing`, NaN is allowed.
    """
    if is_anndata(x):
        raise DataError(
            f"{type(estimator).__name__} reads arrays and data frames",
            "X is an AnnData",
            "Pass X.to_df(), or use CountVAE.",
        )
    x = numeric_frame(as_array(x))
    check_sparse(x)
    try:
        checked = validate_data(estimator, x, reset=reset, dtype="numeric", ensure_all_finite=False, **options)
    except MemoryError:
        raise
    except Exception as error:  # any exception of another library's X
        raise _refused(x, str(error)) from error
    if checked.dtype.kind == "O":  # a list with None, which is a missing value as in an array of objects
        checked = _floats(checked)
    if checked.dtype.kind not in "biuf":
        raise _no_numbers(x)
    names = getattr(estimator, "_names", getattr(estimator, "feature_names_in_", None))
    refuse_non_finite(checked, names, missing=missing)
    return checked


def check_sparse(matrix: Any, name: str = "X") -> None:
    """Raise if indices of a scipy matrix are out of bounds, which compiled code does not check.

    Called on every matrix of a caller before anything else; does nothing if it is not sparse.
    """
    if not sparse.issparse(matrix) or matrix.ndim != 2:
        return
    if matrix.format not in ("csr", "csc", "bsr", "coo"):
        matrix = matrix.tocsr()
    rows, columns = matrix.shape
    if matrix.format == "coo":
        parts = {"row": (matrix.row, rows), "column": (matrix.col, columns)}
        fits = matrix.row.shape == matrix.col.shape == matrix.data.shape
    else:
        if matrix.format == "bsr":  # whose indices count blocks
            rows, columns = rows // matrix.blocksize[0], columns // matrix.blocksize[1]
        parts = {"row": (matrix.indices, rows)} if matrix.format == "csc" else {"column": (matrix.indices, columns)}
        starts = matrix.indptr
        fits = starts.shape == ((columns if matrix.format == "csc" else rows) + 1,) and starts[0] == 0
        fits = fits and bool((np.diff(starts) >= 0).all()) and starts[-1] <= len(matrix.indices) <= len(matrix.data)
    fault = "" if fits else f"the row pointers, indices and values of {name} do not fit together"
    for what, (places, width) in parts.items():
        least, most = (places.min(), places.max()) if places.size else (0, -1)
        if least < 0 or most >= width:
            fault = f"{name} has a value in {what} {least if least < 0 else most} of {width:,}"
    if fault:
        do = "Build it anew, for example scipy.sparse.csr_matrix((values, (rows, columns)), shape)."
        raise DataError("the indices of a sparse matrix must lie within it", fault, do)


def check_columns(estimator: Any, x: Any, reset: bool) -> None:
    """Check the names and the number of a frame's columns as scikit-learn does, whatever their dtypes."""
    frame = opened(x)
    if 0 in frame.shape:
        raise DataError(TABLE, f"X has the shape {frame.shape}", "Pass at least one row and one column.")
    try:
        named = frame.head(1).to_pandas() if frame.implementation.is_pyarrow() else x
        validate_data(estimator, named, reset=reset, skip_check_array=True)
    except (ValueError, TypeError) as error:
        raise _refused(x, str(error)) from error
    if getattr(estimator, "feature_names_in_", None) is None:
        raise DataError("column names must all be text", f"they are {list(frame.columns)!r:.80}", NAME_COLUMNS)


def opened(x: Any) -> Any:
    """A data frame as a narwhals frame; anything else unchanged."""
    refuse_collections(x)
    try:
        frame = nw.from_native(x, pass_through=True)
    except DuplicateError as error:
        twice = re.findall(r"- (.*) \d+ times", str(error)) or ["one"]
        raise DataError("column names must be unique", f"{twice[0]} comes more than once", "Rename it.") from error
    if isinstance(frame, nw.LazyFrame):
        raise DataError("X must hold its rows", "it is a lazy frame", "Pass X.collect().")
    return frame


def rows_at(x: Any, at: np.ndarray) -> Any:
    """The rows of data at these places, in the caller's own kind."""
    frame = opened(x)
    if isinstance(frame, nw.DataFrame):
        return frame[at.tolist()].to_native()
    x = x.tocsr() if sparse.issparse(x) else x  # not all sparse kinds have rows
    return x[at] if hasattr(x, "shape") else [x[i] for i in at.tolist()]


def is_mixed(x: Any) -> bool:
    """Whether a data frame has text, categories, dates or missing values, which an array of numbers cannot hold."""
    frame = opened(x)
    if not isinstance(frame, nw.DataFrame):
        return False
    columns = (frame.get_column(name) for name in frame.columns)
    return any(not (c.dtype.is_numeric() or c.dtype == nw.Boolean) or _has_missing(c) for c in columns)


def _has_missing(column: Any) -> bool:
    return column.is_null().any() or (column.dtype.is_float() and column.is_nan().any())


def numeric_frame(x: Any) -> Any:
    """Raise if a column is not numeric; convert frames that scikit-learn cannot read."""
    frame = opened(x)
    if not isinstance(frame, nw.DataFrame):
        return x
    for name, dtype in frame.schema.items():
        if not (dtype.is_numeric() or dtype in (nw.Boolean, nw.Object, nw.Unknown)):
            kind = re.sub(r"[\[(].*", "", str(dtype)).lower()
            got = f"column {name!r} holds {kind}{_first_of(frame[name])}"
            raise DataError("every column must hold numbers", got, AS_NUMBERS)
    wide = [name for name, dtype in frame.schema.items() if dtype in (nw.Int128, nw.UInt128, nw.Decimal)]
    if wide:
        frame = frame.with_columns(nw.col(*wide).cast(nw.Float64))
        x = frame.to_native()
    return frame.to_pandas() if frame.implementation.is_pyarrow() else x


def _first_of(column: Any) -> str:
    """The first value of a column, in parentheses; empty if Python cannot represent it, as dates after 9999."""
    try:
        return f" (first: {str(next(value for value in column.to_list() if value is not None))[:40]!r})"
    except (StopIteration, ValueError, OverflowError):
        return ""


def _is_one(x: Any) -> bool:
    """Whether x is not a collection of rows, but a number, string, path, mapping or generator."""
    one = isinstance(x, str | bytes | os.PathLike | Mapping | AnySet | Iterator) or getattr(x, "shape", None) == ()
    return one or not (hasattr(x, "__len__") or hasattr(x, "__array__"))


def _floats(x: np.ndarray) -> np.ndarray:
    """Objects as float64 if all are numbers, else unchanged."""
    try:
        return x.astype(np.float64)
    except (TypeError, ValueError, ArithmeticError):
        return x


def _refused(x: Any, words: str) -> Refused:
    """The error for data that scikit-learn refused with this message."""
    words = "scalar array" if _is_one(x) else words
    for pattern, expected, got, do in REFUSALS:
        if re.search(pattern, words):
            return Refused(expected, got.format(x=x) or _first_sentence(words), do)
    reason = f" ({_first_sentence(words)})" if "argument must be" in words else ""
    return _no_numbers(x, reason)


def _first_sentence(words: str) -> str:
    return words if words.startswith("The feature names") else re.split(r":?\n|\. |\.$", words)[0]


def _no_numbers(x: Any, reason: str = "") -> Refused:
    """The error for an X with values that are not numbers, which says where the first one is."""
    names = list(x.columns) if hasattr(x, "columns") else None
    try:
        values = np.atleast_1d(np.asarray(x, dtype=object))
    except Exception as error:  # any exception of another library's X
        got = f"X cannot be read as an array ({type(error).__name__})"
        return Refused("every value must be a number", got, "Pass a NumPy array or a data frame.")
    for (row, *rest), value in np.ndenumerate(values):
        try:
            float(0 if value is None else value)
        except (TypeError, ValueError, ArithmeticError):
            column = "".join(f", column {i if names is None else names[i]!r}" for i in rest[:1])
            got = f"Row {row}{column} holds {str(value)[:40]!r}{reason}"
            return Refused("every value must be a number", got, AS_NUMBERS)
    first = "nothing" if not values.size else f"{type(values.flat[0]).__name__} (first: {str(values.flat[0])[:40]!r})"
    return Refused("every value must be a number", f"X holds {first}", "Pass X.astype(float).")


def refuse_non_finite(x: Any, names: Sequence[str] | None, do: str = IMPUTE, missing: bool = False) -> None:
    """Raise `DataError` at the first NaN or infinity; with `missing`, at the first infinity."""
    values = x.data if sparse.issparse(x) else x
    with np.errstate(all="ignore"):
        if values.dtype.kind != "f" or values.size == 0 or np.isfinite(values.sum(dtype=np.float64)):
            return
    broken = np.isinf(values) if missing else ~np.isfinite(values)
    if not broken.any():
        return
    count, place, value = first_of(x, broken, names)
    kind = "NaN" if np.isnan(value) else "infinity"
    do = CORRECT if do == IMPUTE and kind == "infinity" else do
    raise DataError(
        "every value must be a finite number",
        f"the input contains {kind} ({place}{f', and {count - 1} more' if count > 1 else ''})",
        do,
    )


def refuse_negative(x: Any, who: str, names: Sequence[str] | None) -> None:
    """Raise `DataError` at the first negative value."""
    values = x.data if sparse.issparse(x) else x
    if values.size and values.min() < 0:
        count, place, value = first_of(x, values < 0, names)
        raise Refused(
            "counts must not be negative",
            f"Negative values in data passed to {who}: {count} (first: {place}, {value:g})",
            "Pass raw counts: not centred, scaled or log-transformed values.",
        )


def first_of(x: Any, broken: np.ndarray, names: Sequence[str] | None = None) -> tuple[int, str, Any]:
    """The number of broken values (of the stored ones, if x is sparse), and the place and value of the first."""
    values = x.data if sparse.issparse(x) else x
    first = tuple(int(i) for i in np.argwhere(broken)[0])
    value = values[first]
    if sparse.issparse(x):
        x = x.tocoo()
        first = (int(x.row[first[0]]), int(x.col[first[0]]))
    return int(broken.sum()), _place(first, names), value


def _place(index: tuple[int, ...], names: Sequence[str] | None) -> str:
    """The index of a table's cell or an image's pixel in words."""
    row, *rest = index
    if len(rest) != 1:
        return f"row {row}" + f", pixel {tuple(rest)}" * bool(rest)
    return f"row {row}, column {rest[0] if names is None else repr(names[rest[0]])}"


def check_names(estimator: Any, given: Any) -> None:
    """Raise if feature names differ from those of a fitted estimator."""
    try:
        names = list(given)
    except TypeError:
        do = "Leave it out."
        raise ParameterError("input_features must be a list of names", f"it is {given!r:.60}", do) from None
    width, known = getattr(estimator, "n_features_in_", len(names)), getattr(estimator, "feature_names_in_", names)
    why = "input_features is not equal to feature_names_in_" if names != list(known) else ""
    if len(names) != width:
        why = f"input_features should have length equal to n_features_in_, {width}, and has {len(names)}"
    if why:
        raise ParameterError("input_features must be the names of the features", why, "Leave it out.")


def frame_kind(x: Any) -> str | None:
    """The library of a data frame ("pandas", "polars", "pyarrow"), or None for anything else."""
    frame = nw.from_native(x, eager_only=True, pass_through=True)
    return frame.implementation.value if isinstance(frame, nw.DataFrame) else None


def to_frame(values: np.ndarray, names: Sequence[str] | None, kind: Any, like: Any = None) -> Any:
    """A frame of the given library from an array (n, D), with the labels of the pandas frame `like`, if given."""
    known = [f"x{i}" for i in range(values.shape[1])] if names is None else names
    frame = nw.from_dict({name: values[:, i] for i, name in enumerate(known)}, backend=kind).to_native()
    if kind == "pandas" and like is not None:
        return frame.set_axis(like.index, axis=0).set_axis(like.columns, axis=1)
    return frame.set_axis(range(len(known)), axis=1) if kind == "pandas" and names is None else frame


def one_hot(labels: Any, n: int, categories: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """One-hot encode context labels (n,), or one for all rows: (n, c), and the categories. Raises if one is unknown."""
    labels = np.asarray(as_array(labels))
    if labels.ndim == 0 and labels.dtype.kind != "O":
        labels = np.broadcast_to(labels, (n,))
    if labels.shape != (n,):
        raise DataError(
            f"context must hold one label for each row ({counted(n, 'row')})",
            f"its shape is {labels.shape}",
            "Give a 1-D array, or one label for all rows.",
        )
    refuse_missing(labels)
    if labels.dtype.kind not in "iubUf":
        labels = labels.astype(str)
    if categories is None:
        categories = np.unique(labels)
        refuse_many(labels, categories)
    codes = labels[:, None] == categories[None, :]  # exact for integers of any dtype
    if (labels.dtype.kind == "b") != (categories.dtype.kind == "b"):
        codes = np.zeros_like(codes)
    unknown = ~codes.any(1)
    if unknown.any():
        raise DataError(
            f"context labels must be among the {len(categories)} that the model was fitted on",
            f"{labels[unknown].tolist()[0]!r} (row {int(np.argmax(unknown))}) is not",
            f"Known are {', '.join(map(repr, categories[:8].tolist()))}{', ...' if len(categories) > 8 else ''}.",
        )
    return codes.astype(np.float32), categories


def refuse_missing(labels: np.ndarray, expected: str = "every row must have a context label") -> None:
    """Raise `DataError` at the first missing label."""
    if labels.dtype.kind in "iubU":
        return
    missing = [is_missing(label) for label in labels]
    if any(missing):
        row = missing.index(True)
        got = f"row {row} has none ({labels[row]}){f', and {sum(missing) - 1:,} more' if sum(missing) > 1 else ''}"
        raise DataError(expected, got, "Drop the row, or name its label.")


def refuse_many(labels: np.ndarray, categories: np.ndarray, what: str = "context") -> None:
    """Raise `DataError` if labels (n,) are not categories, but measurements or a name for every row."""
    most = FEW_LABELS if labels.dtype.kind == "f" and (labels % 1 != 0).any() else max(FEW_LABELS, len(labels) // 2)
    if len(categories) > most:
        raise DataError(
            f"{what} must hold categories, each the label of several rows",
            f"its {len(labels):,} rows have {len(categories):,} different ones (first: {labels[0]!s:.40})",
            "Use a column such as the batch or the class, or bin the numbers with pandas.cut.",
        )


def is_anndata(x: Any) -> bool:
    """Whether x is an instance of AnnData, without importing the package."""
    return "AnnData" in _classes(x) and hasattr(x, "obsm")


def refuse_collections(x: Any) -> None:
    """Raise if X is a container of AnnData, or part of one: NumPy would read it row by row, endlessly."""
    do = next((COLLECTIONS[name] for name in _classes(x) if name in COLLECTIONS), None)
    if do is not None:
        raise DataError("X must be one matrix of rows", f"it is of type {type(x).__name__}", do)


def _classes(x: Any) -> list[str]:
    return [kind.__name__ for kind in type(x).__mro__]


COLLECTIONS = {  # what to pass instead
    "MuData": "Pass one of its modalities, such as mdata['rna'].",
    "AnnCollection": "Pass collection[:].to_adata().",
    "AnnCollectionView": "Pass view.to_adata().",
    "Raw": "Pass adata.raw.to_adata().",
    "SpatialData": "Pass one of its tables, such as sdata.tables['table'].",
}
COLUMNS = "X must have the columns that the model was fitted on"
TABLE = "X must be a table with rows and columns"
NAME_COLUMNS = "Write X.columns = X.columns.astype(str)."
RESHAPE = "Reshape your data: X.reshape(1, -1) makes it one row, X.reshape(-1, 1) one column."
REFUSALS = (  # a part of scikit-learn's message; what was expected; got, if it needs other words; what to do
    ("features as input", COLUMNS, "", "Pass the same columns, in the same order."),
    ("feature names should match", COLUMNS, "", "Pass X[list(model.feature_names_in_)]."),
    ("string names", "column names must all be text", "", NAME_COLUMNS),
    ("scalar array", TABLE, "X is {x!r:.60}", "Pass an array or a data frame."),
    ("Reshape your data|2-dimensional", TABLE, "", RESHAPE),
    ("with dim", TABLE, "", "Reshape your data to (rows, columns); for images use ImageVAE."),
    ("a minimum of", TABLE, "", "Pass at least one row and one column."),
    (
        "Sparse",
        "X must be a dense array",
        "",
        "Pass X.toarray(), or use CountVAE, which reads sparse counts as they are.",
    ),
    ("Complex", "every value must be a real number", "", "Pass X.real and X.imag as columns of their own."),
    ("inhomogeneous", "all rows must have the same length", "The rows of X have different lengths", "Fill them up."),
    ("requires grad", "X must be data", "X is a tensor that requires a gradient", "Pass X.detach()."),
)
