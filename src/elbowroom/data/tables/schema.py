"""The schema of a table: the kind of each column, and how its values are encoded as numbers and decoded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Self

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data import frames
from elbowroom.data.frames import Series
from elbowroom.data.tables.infer import infer
from elbowroom.data.tables.kinds import (
    EXACT,
    Binary,
    Category,
    Empty,
    Kind,
    Ordinal,
    Real,
    kind_form,
    kind_from,
    plain,
    same,
)
from elbowroom.data.validation import as_array, opened
from elbowroom.data.values import held, is_missing, long_enough, scalar, shown_time, sort_of, stamp_of
from elbowroom.errors import DataError, ParameterError, unknown, warn

EARLIEST, LATEST = -62_135_596_800, 253_402_300_799  # seconds since 1970 of the years 1 to 9999
SDV = {"numerical": None, "categorical": "category", "boolean": "binary", "datetime": "datetime"}


@dataclass(frozen=True)
class Column:
    """A column: its kind, its dtype and categories in its library, and whether it has missing values."""

    kind: Kind | None = None
    dtype: str = ""
    nulls: bool | None = None

    def learn(self, name: str, series: Series) -> Column:
        """The column with its kind and dtype learned from its values."""
        missing = missing_mask(series.values)
        values = series.values[~missing]
        kind = self.kind or infer(values, series.sort, series.ordered, series.categories)
        nulls = bool(missing.any()) if self.nulls is None else self.nulls
        known = kind.learn(_as(kind, values, name), name) if len(values) else infer(values, series.sort)
        return Column(known, series.dtype, nulls and bool(len(values)))

    def cells(self, name: str) -> dict[str, str]:
        """Names and likelihoods of the cells: whether the value is missing, if some are, then those of the kind."""
        missing = {f"{name} is missing": "bernoulli"} if self.nulls else {}
        return missing | self.known.cells(name)

    @property
    def known(self) -> Kind:
        """The kind, which is set in a learned schema."""
        assert self.kind is not None
        return self.kind

    def encode(self, name: str, series: Series) -> np.ndarray:
        """The cells (n, k) of a column."""
        missing = missing_mask(series.values)
        if not missing.all():
            self._check_times(name, series)
        cells = self.known.encode(_as(self.known, series.values, name), name)
        return np.column_stack([missing, cells]) if self.nulls else cells

    def _check_times(self, name: str, series: Series) -> None:
        """Raise if a column holds times and did not in training, or vice versa, or gained or lost a time zone."""
        if isinstance(self.known, Empty):
            message = f"column {name!r} was empty in all training rows: its values are not read"
            warn(message, 2)
            return
        then, now = stamp_of(self.dtype), stamp_of(series.dtype)
        if self.dtype and (then is None) != (now is None):
            wanted, got = ("times" if stamp else "no times" for stamp in (then, now))
            do = "Pass the column as it was in training, or fit again."
            raise DataError(f"column {name!r} must hold {wanted}, as in training", f"it holds {got}", do)
        if then and now and (then.zone is None) != (now.zone is None):
            wanted, got = ("a time zone" if stamp.zone else "no time zone" for stamp in (then, now))
            do = "Use .dt.tz_localize on it."
            raise DataError(f"the times of column {name!r} must have {wanted}, as in training", f"they have {got}", do)

    def check(self, name: str) -> None:
        """Raise if a column is not fully learned, or could not have been learned from any values.

        Raises
        ------
        ParameterError
            With its name.
        """
        kind = self.kind
        whole = isinstance(self.nulls, bool) and kind is not None
        if isinstance(kind, Category):
            whole = whole and bool(kind.categories)
        elif isinstance(kind, Real):
            numbers = (
                kind.low,
                kind.high,
                kind.step,
                *(kind.point_masses if kind.point_masses is not None else (None,)),
            )
            whole = whole and all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
            if whole:
                low, high = kind.ends
                whole = low <= high and (kind.step or 0) >= 0
                whole = whole and (kind.sort != "time" or (low >= EARLIEST and high <= LATEST))
        if not whole:
            expected = f"column {name!r:.60} of a schema must be fully specified"
            raise ParameterError(expected, f"it is {self!r:.200}", "Use the schema of a fitted model.")

    def decode(self, cells: np.ndarray) -> np.ndarray:
        """Values (n,) of cells (n, k)."""
        values = self.known.decode(cells[:, int(bool(self.nulls)) :])
        if self.nulls:
            values[cells[:, 0] == 1] = None if values.dtype == object else np.nan
        return values

    def given(self, name: str, value: Any, library: str | None) -> tuple[np.ndarray, Any]:
        """The cells (1, k) of one value, and the value with the column's dtype, None if missing.

        Raises
        ------
        DataError, ParameterError
            If the column cannot have this value, or it is not a single value.
        """
        value = scalar(name, value)
        if is_missing(value):
            if not (self.nulls or isinstance(self.known, Empty)):
                raise DataError(f"column {name!r} is never missing", f"it is given as {value}", "Leave it out.")
            return self.encode(name, _one(None, self.dtype)), None
        exact = self._held(name, value, library)
        read = self._read(exact)
        return self.encode(name, _one(read if isinstance(read, str | int) else float(read), self.dtype)), exact

    def _held(self, name: str, value: Any, library: str | None) -> Any:
        """A value with the column's dtype; arrays are float64."""
        kind, sort = self.known, sort_of(self.dtype)
        if isinstance(kind, Empty) or (isinstance(kind, Category) and sort in ("", "text")):
            value = value.item() if isinstance(value, np.generic) else value
            kind.check(value, name)
            return next(c for c in getattr(kind, "categories", ()) if same(c, value))
        if isinstance(kind, Binary) and sort == "number" and isinstance(value, bool | np.bool_):
            value = int(value)
        exact = held(name, value, "float64" if library is None and sort == "number" else self.dtype)
        kind.check(self._read(exact), name, self._shown)
        return exact

    def _read(self, exact: Any) -> Any:
        """A value as the kind encodes it: times in seconds, booleans as 0 and 1."""
        if stamp_of(self.dtype):
            seconds = Fraction(exact, 10**9)
            return plain(float(seconds)) if isinstance(self.known, Category) else seconds
        return float(exact) if isinstance(exact, Decimal) else int(exact) if isinstance(exact, bool) else exact

    def _shown(self, read: Any) -> str:
        """Format a value that `_read` returned."""
        stamp = stamp_of(self.dtype)
        return shown_time(int(read * 10**9), stamp.zone) if stamp else f"{plain(read)!r}"

    def beside(self, name: str, series: Series | None) -> tuple[str, tuple[Any, ...] | None]:
        """The dtype and categories of the model's values when they are written into a caller's column.

        The dtype is that of the column if it can hold all values of the model. Numbers that are too short are widened
        to 64 bits, categories are extended by those of the model, and an empty column gets its dtype of training.
        """
        kind = self.known
        known = kind.categories if isinstance(kind, Category) else None
        if series is None:
            return self.dtype, known
        if series.categories is not None and known is not None:
            return self._with_categories(name, series, known)
        sort = sort_of(series.dtype)
        if missing_mask(series.values).all() and not (sort and sort == sort_of(self.dtype)):
            return self.dtype, known
        if sort == "flag" and isinstance(kind, Real):
            return self.dtype, known
        ends = [kind.low, kind.high] if isinstance(kind, Real) else [c for c in known or () if not isinstance(c, str)]
        if sort != "number" or not ends:
            return series.dtype, known
        own = series.values[~missing_mask(series.values)].tolist()
        longer = long_enough(series.dtype, min([*ends, *own]), max([*ends, *own]))
        if longer is None:
            got = f"column {name!r} may have {min([*ends, *own])} and {max([*ends, *own])}"
            raise DataError("whole numbers must fit into 64 bits", got, "Turn the column into floats.")
        return longer, known

    def _with_categories(self, name: str, series: Series, known: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        """The categories of a caller's column and of the model: in a common order, or the column's first."""
        own = series.categories or ()
        more = tuple(category for category in known if not any(same(category, one) for one in own))
        if more and series.ordered and isinstance(self.known, Ordinal):
            return series.dtype, merged(name, own, known)
        dtype = re.sub("ordered=1", "ordered=0", series.dtype).removesuffix(":ordered") if more else series.dtype
        return dtype, own + more


def _one(value: Any, dtype: str) -> Series:
    """A column with a single value."""
    values = np.empty(1, dtype=object)
    values[0] = value
    return Series(values, "", dtype)


def merged(name: str, own: tuple[Any, ...], known: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merge two ordered lists of categories into one order.

    >>> merged("size", ("s", "l", "xl"), ("s", "m", "l"))
    ('s', 'm', 'l', 'xl')
    """
    union = list(known)
    for place, category in enumerate(own):
        if category not in union:
            union.insert(union.index(own[place - 1]) + 1 if place else 0, category)
    if [category for category in union if category in own] != list(own):
        got = f"that of X is {', '.join(map(repr, own))}"
        order = ", ".join(map(repr, known))
        raise DataError(f"the order of column {name!r} must go with that of training ({order})", got, "Reorder it.")
    return tuple(union)


def missing_mask(values: np.ndarray) -> np.ndarray:
    """Whether each value is missing."""
    if values.dtype == object:
        return np.array([value is None for value in values.tolist()], dtype=bool)
    return np.isnan(values)


def _as(kind: Kind, values: np.ndarray, name: str) -> np.ndarray:
    """Values for a kind: anything for categories, else floats, or Python ints."""
    if isinstance(kind, Category) or values.dtype != object or kind.sort == "any":
        return values
    if all(value is None or isinstance(value, int) for value in values.tolist()):
        return values
    try:
        return np.array([np.nan if value is None else float(value) for value in values], dtype=float)
    except ValueError as error:
        do = f"Choose another kind: schema[{name!r}] = Category()."
        raise DataError(f"column {name!r} must hold numbers", f"it holds text ({error})", do) from error


class Schema(Mapping[str, Kind | None]):
    """The kinds of a table's columns, in order; a mapping whose items can be set.

    Parameters
    ----------
    columns : mapping
        Column names to kinds, names of kinds ("count"), their JSON form, or None to infer them.

    Examples
    --------
    >>> import pandas as pd
    >>> from elbowroom import Count, Schema
    >>> schema = Schema.infer(pd.DataFrame({"age": [31.5, 40.0, 22.0], "country": ["de", "fr", "de"]}))
    >>> schema["country"].categories
    ('de', 'fr')
    >>> schema["age"] = Count()
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = {name: _column(name, value) for name, value in columns.items()}

    @classmethod
    def infer(cls, X: Any) -> Self:
        """The schema of a pandas, polars or pyarrow frame, or of an array with NaN."""
        series = read(X)
        return cls(dict.fromkeys(series)).learn(series)

    @classmethod
    def of(cls, value: Any) -> Self:
        """A schema from its JSON form (mapping or text), from kinds by column, or from SDV's metadata.

        Raises
        ------
        ParameterError
            If it is none of these.
        """
        if isinstance(value, cls):
            return cls(value.columns)
        if isinstance(value, str):
            value = _json(value)
        if not isinstance(value, Mapping) or hasattr(value, "shape"):  # scipy's dictionary of keys is a mapping too
            raise ParameterError("a schema maps columns to kinds", f"it is {value!r:.60}", "Write {'age': 'count'}.")
        if isinstance(value.get("tables"), Mapping) or isinstance(value.get("columns"), Mapping):
            return cls(_from_sdv(value))
        return cls(_from_form(value) if value.get("format") == "elbowroom schema" else value)

    def learn(self, series: Mapping[str, Series]) -> Self:
        """The schema with everything that is None learned from the columns of a table."""
        for name in self.columns:
            if name not in series:
                raise unknown("a column of the schema", name, series)
        missing = [name for name in series if name not in self.columns]
        columns = self.columns | dict.fromkeys(missing, Column())
        return type(self)({name: columns[name].learn(name, series[name]) for name in series})

    def checked(self) -> Self:
        """The schema itself; raises unless it was learned.

        Raises
        ------
        ParameterError
            If a column is not fully learned, or could not have been learned from any table.
        """
        for name, column in self._items():
            column.check(name)
        return self

    def form(self) -> dict[str, Any]:
        """The JSON form, which `Schema.of` reads."""
        return {"format": "elbowroom schema", "columns": [_form(name, c) for name, c in self.columns.items()]}

    # ---- a mapping of kinds ----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Kind | None:
        """The kind of a column; None where it is still to be learned."""
        if name not in self.columns:
            raise KeyError(str(unknown("a column", name, self.columns)))
        return self.columns[name].kind

    def __setitem__(self, name: str, kind: Any) -> None:
        """Set the kind of a column; its parameters that are None are learned in `fit`."""
        if name not in self.columns:
            raise unknown("a column of the schema", name, self.columns)
        self.columns[name] = replace(self.columns[name], kind=kind_from(kind))

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and list(self.columns.items()) == list(other.columns.items())

    def __repr__(self) -> str:
        listed = "".join(
            f"\n  {name!r}: {c.kind or 'inferred'}{', nulls' * bool(c.nulls)}" for name, c in self._items()
        )
        return f"Schema({listed})"

    def lines(self, most: int = 30) -> list[str]:
        """A line for each column with its kind."""
        width = min(max(map(len, self.columns), default=0), most)
        lines = [
            f"{name:<{width}}  {type(c.known).__name__:<9} {c.known.detail:.80}" + ", some missing" * bool(c.nulls)
            for name, c in self._items()
        ]
        lines = [line.rstrip() for line in lines]
        return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most:,} more columns"]

    def _items(self) -> Iterable[tuple[str, Column]]:
        return self.columns.items()

    # ---- encoding and decoding ------------------------------------------------------------------------------------

    @property
    def cells(self) -> dict[str, str]:
        """Names and likelihoods of all cells of a row, in order; duplicate names get primes."""
        cells: dict[str, str] = {}
        for name, column in self._items():
            for cell, form in column.cells(name).items():
                while cell in cells or (cell in self.columns and cell != name):
                    cell += "'"
                cells[cell] = form
        return cells

    @property
    def owners(self) -> list[str]:
        """The column of each cell."""
        return [name for name, c in self._items() for _ in c.cells(name)]

    def at(self, name: str) -> list[int]:
        """The indices of a column's cells in a row."""
        return [i for i, owner in enumerate(self.owners) if owner == name]

    def encode(self, series: Mapping[str, Series]) -> np.ndarray:
        """Rows (n, cells) of a table's columns, float64; missing values are NaN.

        Raises
        ------
        DataError
            At the first value that a column's kind does not allow.
        """
        return np.column_stack([c.encode(name, series[name]) for name, c in self._items()])

    def given(self, given: Mapping[str, Any], library: str | None) -> tuple[np.ndarray, dict[str, Any]]:
        """One row (1, cells) in which only the given columns are known, and their values from `Column.given`.

        Raises
        ------
        DataError, ParameterError
            At the first value that its column cannot have.
        """
        if not isinstance(given, Mapping):
            got = f"it is {given!r:.60}"
            raise ParameterError("given must map columns to values", got, "Write given={'country': 'DE'}.")
        row, exact = np.full((1, len(self.cells)), np.nan), {}
        for name, value in given.items():
            if name not in self.columns:
                raise unknown("a column that is given", name, self.columns)
            row[:, self.at(name)], exact[name] = self.columns[name].given(name, value, library)
        return row, exact

    def decode(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of rows (n, cells), as values."""
        return {name: c.decode(rows[:, self.at(name)]) for name, c in self._items()}

    def native(self, name: str, values: np.ndarray, library: str, beside: Series | None = None) -> Any:
        """A column of a library with the dtype it had in training, or one that suits the column `beside`."""
        dtype, categories = self.columns[name].beside(name, beside)
        try:
            return frames.native(values, dtype, library, categories)
        except DataError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            got = f"its dtype is {dtype!r:.60} ({error!s:.100})"
            raise DataError(f"column {name!r:.60} must be one that {library} can hold", got, "Fit again.") from error

    def frame(self, rows: np.ndarray, library: str, like: Any = None, exact: Mapping[str, Any] | None = None) -> Any:
        """A frame of a library from rows (n, cells), with the dtypes of the frame `like` if there is one.

        The columns in `exact` have the same value in all rows, as `given` returned it.
        """
        beside, values = {} if like is None else read(like), self.decode(rows)
        for name, value in (exact or {}).items():
            values[name] = np.full(len(rows), value, dtype=object)
        columns = {name: self.native(name, v, library, beside.get(name)) for name, v in values.items()}
        return frames.frame_of(columns, library, like)


def read(X: Any, what: str = "X") -> dict[str, Series]:
    """The columns of a data frame, or of an array of numbers (n, D), whose names are then x0, x1, ...

    Raises
    ------
    DataError
        If X, called `what`, is neither, or a column cannot be read.
    """
    X = as_array(X)
    if isinstance(opened(X), nw.DataFrame):
        return frames.series_of(X)
    if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind not in "biuf":
        shape = f" of the shape {X.shape} and {X.dtype}" if isinstance(X, np.ndarray) else f" {X!r:.60}"
        do = "Pass a pandas, polars or pyarrow frame; from a file, for example by pd.read_csv."
        got = f"it is the {type(X).__name__}{shape}"
        raise DataError(f"{what} must be a data frame, or an array of numbers (n, D)", got, do)
    if X.dtype.kind in "iu" and X.size and max(abs(int(X.min())), abs(int(X.max()))) >= EXACT:
        got = f"one of them is {max(int(X.min()), int(X.max()), key=abs)}"
        do = "Pass a data frame, whose columns keep all digits."
        raise DataError("whole numbers of an array must be below 2**53 to have kinds", got, do)
    return frames.series_of_array(X, [f"x{i}" for i in range(X.shape[1])])


def _column(name: Any, value: Any) -> Column:
    if not isinstance(name, str):
        raise ParameterError("a schema names columns by text", f"{name!r} is none", "Write {'age': 'count'}.")
    if isinstance(value, Column):
        return value
    if not isinstance(value, Mapping):
        return Column(None if value is None else kind_from(value))
    options = dict(value)
    dtype, nulls = options.pop("dtype", ""), options.pop("nulls", None)
    if not isinstance(dtype, str) or len(dtype) > 500 or not (nulls is None or isinstance(nulls, bool)):
        raise ParameterError(
            f"column {name!r} must have a dtype and nulls", f"they are {dtype!r:.60} and {nulls!r}", "Correct them."
        )
    return Column(kind_from(options) if options else None, dtype, nulls)


def _form(name: str, column: Column) -> dict[str, Any]:
    kind = {} if column.kind is None else kind_form(column.kind)
    return {"name": name, **kind, "dtype": column.dtype, "nulls": column.nulls}


def _from_form(form: Mapping[str, Any]) -> dict[str, Any]:
    columns = form.get("columns")
    if not isinstance(columns, list) or not all(
        isinstance(c, Mapping) and isinstance(c.get("name"), str) for c in columns
    ):
        raise ParameterError("a schema has a list of columns with names", f"it has {columns!r:.60}", "Save it again.")
    kinds = {column["name"]: {key: v for key, v in column.items() if key != "name"} for column in columns}
    if len(kinds) < len(columns):
        raise ParameterError("the columns of a schema must have different names", "two have the same", "Rename one.")
    return kinds


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            "a schema as text is JSON", f"it is not ({error})", """Write '{"age": "count"}'."""
        ) from error


def _from_sdv(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Kinds from the metadata of the Synthetic Data Vault, for one table."""
    tables: Any = metadata.get("tables")
    if isinstance(tables, Mapping):
        if len(tables) != 1:
            got = f"it has {len(tables)}: {', '.join(map(str, tables))}"
            raise ParameterError("metadata must be of one table", got, "Pass metadata['tables'][name].")
        metadata = next(iter(tables.values()))
    columns: Any = metadata.get("columns")
    kinds = {}
    for name, column in columns.items():
        sdtype = column.get("sdtype") if isinstance(column, Mapping) else column
        if sdtype not in SDV:
            raise ParameterError(
                f"a column's sdtype must be one of {', '.join(SDV)}",
                f"that of {name!r} is {sdtype!r}",
                "Drop the column from data and metadata: names of rows and people are not modelled.",
            )
        kinds[name] = SDV[sdtype]
    return kinds
