"""Validation of tables with any columns: when they get a schema, and the conversion of rows to cells and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from elbowroom.data import validation
from elbowroom.data.frames import Series, series_of
from elbowroom.data.tables.kinds import Binary, Category, Count, Measured, Positive, Real
from elbowroom.data.tables.schema import Schema, read
from elbowroom.data.values import decimals_of, sort_of
from elbowroom.data.words import MISSING
from elbowroom.errors import DataError, ParameterError, unknown, warn
from elbowroom.likelihoods.auto import table_likelihood
from elbowroom.likelihoods.mixed import Table
from elbowroom.tasks import conditional
from elbowroom.tasks import impute as task
from elbowroom.tasks.conditional import completions
from elbowroom.tasks.score import warn_non_finite
from elbowroom.utils.randomness import generator_at, resolve_seed
from elbowroom.utils.settings import standard_defaults

NUMBERS = (Real, Positive, Count)
FEW = 30  # different draws, below which conditional samples repeat themselves
TRUTHS = {"true": True, "false": False}
WHY = "every column has a kind (schema_)"


def read_rows(estimator: Any, X: Any, reset: bool) -> np.ndarray:
    """Rows of a table (n, D): numbers as they are, or the cells of its schema. In a fit the schema is decided."""
    if reset:
        estimator.schema_ = None
        _check_choice(estimator)
    opened = validation.opened(X)
    named = isinstance(opened, nw.DataFrame) and all(isinstance(name, str) for name in opened.columns)
    frame = named or validation.is_mixed(X)  # complete numbers without names are an array
    if not reset and estimator.schema_ is None:
        return validation.validated(estimator, X, reset)
    if not frame or (not reset and estimator._names is None):
        return _read_array(estimator, X, reset)
    if reset and not (wants_schema(estimator) or (allows_missing(estimator) and validation.is_mixed(X))):
        return validation.validated(estimator, X, reset)
    validation.check_columns(estimator, X, reset)
    return _encoded(estimator, series_of(X), reset)


def _check_choice(estimator: Any) -> None:
    if wants_schema(estimator) and not _automatic(estimator):
        got = f"schema={estimator.schema!r:.40} and likelihood={estimator.likelihood!r:.40}"
        raise ParameterError("a table has a schema or a likelihood", got, "Leave likelihood='auto'.")


def wants_schema(estimator: Any) -> bool:
    """Whether a schema was asked for."""
    return estimator.schema is not None and not (isinstance(estimator.schema, str) and estimator.schema == "auto")


def _automatic(estimator: Any) -> bool:
    return isinstance(estimator.likelihood, str) and estimator.likelihood == "auto"


def allows_missing(estimator: Any) -> bool:
    """Whether missing cells are normal input."""
    return estimator.schema is not None and _automatic(estimator)


def _read_array(estimator: Any, X: Any, reset: bool) -> np.ndarray:
    """Rows of an array: with NaN in it, or where a schema is asked for, through a schema."""
    if estimator._names is not None and not reset:
        names = ", ".join(estimator._names[:5])
        raise DataError(
            f"X must be a data frame with the columns that the model was fitted on ({names}, ...)",
            f"it is of type {type(X).__name__}",
            "Pass a pandas, polars or pyarrow frame.",
        )
    x = validation.validated(estimator, X, reset, missing=allows_missing(estimator))
    missing = x.dtype.kind == "f" and bool(np.isnan(x).any())
    if estimator.schema_ is None and not missing and not wants_schema(estimator):
        return x
    rows = _encoded(estimator, read(x), reset)
    return rows.astype(np.float32) if x.dtype == np.float32 else rows


def _encoded(estimator: Any, series: Mapping[str, Series], reset: bool) -> np.ndarray:
    if reset:
        estimator.schema_ = schema_for(estimator.schema, series)
    return estimator.schema_.encode(series)


def schema_for(wanted: Any, series: Mapping[str, Series]) -> Schema:
    """The schema of a table's columns, with what was wanted of it: "robust" makes all numbers measured ones.

    Raises
    ------
    DataError
        If no column has a value.
    """
    inferred = isinstance(wanted, str) and wanted in ("auto", "infer", "robust")
    schema = (Schema({}) if inferred else Schema.of(wanted)).learn(series)
    if inferred and wanted == "robust":
        schema = Schema({name: Measured() for name, kind in schema.items() if type(kind) in NUMBERS}).learn(series)
    if not schema.cells:
        raise DataError("a table must have values", "every cell is missing (NaN)", "Check where the data comes from.")
    return schema


def likelihood_of(schema: Schema) -> tuple[Table, dict[str, list[str]], str]:
    """The likelihood of a schema's cells, its text form, and why it was chosen."""
    likelihood, forms = table_likelihood(schema.cells)
    return likelihood, forms, WHY


# ---- what is missing -------------------------------------------------------------------------------------------------


def schema_of(estimator: Any, what: str) -> Schema:
    """The schema of a fitted estimator, or an error that says how to get one."""
    check_is_fitted(estimator)
    if estimator.schema_ is None:
        raise ParameterError(
            f"{what} needs a table whose columns have kinds",
            "the model was fitted on an array of numbers",
            "Fit with schema='infer'.",
        )
    return estimator.schema_


@standard_defaults()
def impute(estimator: Any, X: Any, n: int | None, how: str, context: Any, random_state: Any) -> Any:
    """X with its missing values filled in, once, or n times by draws."""
    schema, how = schema_of(estimator, "impute"), task.check_how(how)
    times = None if n is None else task.check_draws(n)
    rows, model = estimator._open(X, context, torch.float32)
    X = X if validation.frame_kind(X) else validation.validated(estimator, X, False, missing=True)
    seed, keep = resolve_seed(random_state), times or task.DRAWS
    # rows with a point mass are among them, since it leaves a missing cell too: harmless
    at = rows.dense(torch.arange(len(rows))).isnan().any(1).nonzero()[:, 0]
    drawn = completions(model, rows.take(at), keep, max(task.DRAWS, 2 * keep), seed) if len(at) else None
    if times is None:
        return X if drawn is None else task.filled(schema, X, _spread(task.single(schema, drawn, how), at, len(rows)))
    return [X if drawn is None else _filled(schema, X, drawn[i : i + 1], at, len(rows)) for i in range(times)]


def _filled(schema: Schema, X: Any, drawn: Tensor, at: Tensor, n: int) -> Any:
    values = {name: column[0] for name, column in task.values_of(schema, drawn).items()}
    return task.filled(schema, X, _spread(values, at, n))


def _spread(values: dict[str, np.ndarray], at: Tensor, n: int) -> dict[str, np.ndarray]:
    """Columns of some rows as columns of all n rows."""
    out = {}
    for name, column in values.items():
        out[name] = np.full(n, None if column.dtype == object else np.nan, dtype=column.dtype)
        out[name][at.numpy()] = column
    return out


@standard_defaults()
def sample_given(estimator: Any, n: int, mean: bool, given: Mapping[str, Any], context: Any, random_state: Any) -> Any:
    """Rows from the model given some of their cells."""
    schema, n = schema_of(estimator, "given"), validation.positive("n_samples", n)
    if validation.flag("mean", mean):
        raise ParameterError("samples with given are draws", "mean=True asks for means", "Leave mean out.")
    row, exact = schema.given(given, estimator.frame_kind_)
    codes = estimator._encode_context(context, n, reset=False)
    context = None if codes is None else torch.as_tensor(codes, dtype=torch.float32)
    generator = generator_at(resolve_seed(random_state), "given")
    rows, size = conditional.sample_given(estimator.model_, torch.from_numpy(row), context, n, generator)
    if size < FEW:
        message = f"rows with {dict(given)} are rare in the model: its samples rest on about {size:.1f} different draws"
        warn(message, 3)
    return write_rows(schema, rows.numpy(), estimator.frame_kind_, exact=exact)


def cells_of(schema: Schema, words: Sequence[str]) -> dict[str, Any]:
    """Cells from words such as country=DE, in the type of their columns.

    Raises
    ------
    ParameterError
        If a word names no column, or several, or one that is given already, or its value is of another type.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, value = _name_and_value(schema, word)
        if name in found:
            do = "Sample once for each of its values."
            raise ParameterError("--given names a column once", f"column {name!r} is given twice", do)
        found[name] = cell_of(schema, name, value)
    return found


def _name_and_value(schema: Schema, word: str) -> tuple[str, str]:
    """A column and what is said of it: both may have an = in them."""
    places = [place for place, letter in enumerate(word) if letter == "="]
    if not places:
        raise ParameterError("--given looks like COLUMN=VALUE", f"it is {word!r:.60}", "Write --given country=DE.")
    names = [word[:place] for place in places if word[:place] in schema]
    if not names:
        raise unknown("the column of --given", word[: places[0]], schema)
    if len(names) > 1:
        got = f"{word!r:.60} begins with {' and with '.join(map(repr, names))}"
        raise ParameterError("--given names one column", got, "Rename one, or use model.sample(given=...) in Python.")
    return names[0], word[len(names[0]) + 1 :]


def cell_of(schema: Schema, name: str, word: str) -> Any:
    """A value of a column from a word, as it is typed; None, a missing value, of what a .csv leaves empty."""
    kind, dtype = schema[name], schema.columns[name].dtype
    sort = sort_of(dtype)
    if isinstance(kind, Category) and sort != "time":
        for category in kind.categories or ():
            if str(category) == word:
                return bool(category) if sort == "flag" else category
    if word.strip().lower() in MISSING:
        return None
    if isinstance(kind, Binary) and word.strip().lower() in TRUTHS:
        truth = TRUTHS[word.strip().lower()]
        return truth if sort == "flag" else int(truth)
    if sort != "number":
        return word
    try:
        if "_" in word:
            raise ValueError(word)
        return Decimal(word) if decimals_of(dtype) else int(word) if word.lstrip("+-").isdigit() else float(word)
    except (ValueError, InvalidOperation) as error:
        got = f"it is {word!r:.60}"
        raise ParameterError(f"column {name!r} must be given a number", got, f"Write --given {name}=1.5.") from error


# ---- what is strange -------------------------------------------------------------------------------------------------


@standard_defaults()
def surprises(estimator: Any, X: Any, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) of every row (n,), and -log p(column | the rest of its row) of every cell (n, columns), in nats."""
    rows, model = estimator._open(X, None, torch.float64)
    whole, cells = conditional.surprises(model, rows, draws, 0)
    warn_non_finite(whole.numpy(), "score", 4)
    if estimator.schema_ is None:
        return whole.numpy(), cells.numpy()
    columns = [cells[:, estimator.schema_.at(name)].sum(1) for name in estimator.schema_]
    return whole.numpy(), torch.stack(columns, 1).numpy()


def beside(X: Any, values: np.ndarray) -> Any:
    """An array (n, columns) as a frame like X, or as it is if X is none."""
    kind = validation.frame_kind(X)
    if kind is None:
        return values
    return validation.to_frame(values, [str(name) for name in validation.opened(X).columns], kind, X)


# ---- rows out --------------------------------------------------------------------------------------------------------


def write_rows(
    schema: Schema, values: np.ndarray, library: str | None, like: Any = None, exact: Mapping[str, Any] | None = None
) -> Any:
    """Rows (n, cells) as a frame of a library, or as an array; the columns in `exact` have one value in all rows."""
    if library is not None:
        return schema.frame(values, library, like, exact)
    found = np.column_stack([np.asarray(column, dtype=float) for column in schema.decode(values).values()])
    for name, value in (exact or {}).items():
        found[:, list(schema).index(name)] = np.nan if value is None else float(value)
    return found
