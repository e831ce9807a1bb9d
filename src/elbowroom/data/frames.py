"""Columns of data frames as NumPy arrays, and back in the caller's library and dtype."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data.door import Refused
from elbowroom.errors import DataError

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


YEAR = 365.2425 * 86_400  # seconds


class Series(NamedTuple):
    """A column: float64 with NaN for a hole, or objects with None.

    `sort` is what it holds: "number", "flag", "text" or "time" (in seconds since 1970, UTC where it has a time zone);
    `dtype` is the library's own name; `categories` are those of a categorical column, `ordered` if they have an order.
    """

    values: np.ndarray
    sort: str
    dtype: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False

    @property
    def shown(self) -> np.ndarray:
        """The values as people read them in a picture: times as years, with a fraction."""
        return 1970 + self.values / YEAR if self.sort == "time" else self.values


def series_of(frame: Any) -> dict[str, Series]:
    """The columns of a data frame.

    Raises
    ------
    DataError
        If a column holds something else than numbers, truth values, text or dates, or several of them.
    """
    return {name: _series(name, column) for name, column in columns_of(frame).items()}


def columns_of(frame: Any) -> dict[str, nw.Series[Any]]:
    """The columns of a data frame by name, as narwhals has them."""
    found = nw.from_native(frame, eager_only=True)
    return {str(name): found.get_column(name) for name in found.columns}


def dtypes_of(frame: Any) -> dict[str, str]:
    """The dtypes of a data frame, by its library's own names; of objects, with what they are."""
    return {name: _series(name, column).dtype for name, column in columns_of(frame).items()}


def series_of_array(x: np.ndarray, names: Sequence[str]) -> dict[str, Series]:
    """The columns of an array of numbers (n, D)."""
    return {name: Series(_canonical(x[:, i]), "number", str(x.dtype)) for i, name in enumerate(names)}


def of_value(name: str, value: Any) -> Series:
    """A column of one value."""
    objects = np.empty(1, dtype=object)
    objects[0] = _plain(value)
    return _of_objects(name, objects, "object")


def _canonical(values: np.ndarray) -> np.ndarray:
    """Float64 in which every NaN has the same bits, on which the noise of a row's score depends."""
    values = np.array(values, dtype=np.float64)
    values[np.isnan(values)] = np.nan
    return values


def _series(name: str, column: nw.Series[Any]) -> Series:
    native, dtype = _native_dtype(column), column.dtype
    if dtype.is_numeric():
        values = _canonical(column.cast(nw.Float64).to_numpy())
        _refuse_infinite(name, values)
        return Series(values, "number", native)
    if dtype == nw.Boolean:
        return Series(_canonical(column.cast(nw.Float64).to_numpy()), "flag", native)
    if dtype in (nw.Datetime, nw.Date):
        moments = column.cast(nw.Datetime("us")) if dtype == nw.Date else column
        return Series(_seconds(moments), "time", native)
    holes = np.array(column.is_null().to_list(), dtype=bool)
    objects = np.array([None, *column.to_list()], dtype=object)[1:]  # so that no length is taken for a shape
    objects[holes] = None
    if dtype in (nw.Categorical, nw.Enum):
        return _categorical(name, column, objects, native)
    if dtype in (nw.String, nw.Object, nw.Unknown):
        return _of_objects(name, objects, native)
    kind = re.sub(r"[\[(].*", "", str(dtype)).lower()
    do = "Drop the column, or turn it into numbers, such as seconds."
    raise DataError("a column must hold numbers, truth values, text or dates", f"{name!r} holds {kind}", do)


def _native_dtype(column: nw.Series[Any]) -> str:
    native = column.to_native()
    return str(native.type if hasattr(native, "type") else native.dtype)


def _seconds(column: nw.Series[Any]) -> np.ndarray:
    stamps = column.dt.timestamp("us").to_list()
    return _canonical(np.array([math.nan if s is None else s / 1e6 for s in stamps], dtype=float))


def _categorical(name: str, column: nw.Series[Any], objects: np.ndarray, native: str) -> Series:
    """A categorical column: its categories where they are declared, for those that are not used may have an order."""
    series = column.to_native()
    categories: tuple[Any, ...] | None = None
    ordered = False
    if hasattr(series, "cat") and hasattr(series.cat, "ordered"):  # of pandas
        categories, ordered = tuple(_plain(c) for c in series.cat.categories), bool(series.cat.ordered)
    elif column.dtype == nw.Enum:
        categories, ordered = tuple(column.cat.get_categories().to_list()), True
    _of_objects(name, objects.copy(), native)  # which refuses several kinds
    native += ":ordered" if native == "category" and ordered else ""
    return Series(objects, "text", native, categories, ordered)


def _of_objects(name: str, objects: np.ndarray, native: str) -> Series:
    """A column of Python objects, by what they are."""
    sorts = {sort: value for value in objects if value is not None for sort in (_sort(value),)}
    if len(sorts) > 1 or "" in sorts:
        row, value = next((i, v) for i, v in enumerate(objects) if v is not None and _sort(v) == list(sorts)[-1])
        first = type(next(iter(sorts.values()))).__name__
        others = f", others are {first}" if len(sorts) > 1 else ""
        raise Refused(
            "a column must hold numbers, truth values, text or dates, all of one kind",
            f"Row {row}, column {name!r} holds {str(value)[:40]!r}{others}",
            "Turn all of its values into one kind, for example by .astype(str).",
        )
    sort = next(iter(sorts), "text")
    if sort == "text":
        objects[:] = [None if value is None else str(value) for value in objects]
        return Series(objects, "text", native)
    convert = _moment if sort == "time" else float
    values = _canonical(np.array([math.nan if v is None else convert(v) for v in objects], dtype=float))
    _refuse_infinite(name, values)
    return Series(values, sort, native + _suffix(objects, sort))


def _suffix(objects: np.ndarray, sort: str) -> str:
    """What a dtype of objects leaves open: dates without a time, and whole numbers."""
    first = next((value for value in objects if value is not None), None)
    if sort == "time":
        return ":time" if isinstance(first, datetime.datetime) else ":date"
    whole = sort == "number" and all(v is None or float(v).is_integer() for v in objects)
    return f":{'whole' if whole else sort}"


def _sort(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "flag"
    if isinstance(value, Real | Decimal | np.number):
        return "number"
    if isinstance(value, str):
        return "text"
    return "time" if isinstance(value, datetime.date) else ""


def _moment(value: datetime.date) -> float:
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _refuse_infinite(name: str, values: np.ndarray) -> None:
    broken = np.isinf(values)
    if broken.any():
        place = f"row {int(np.argmax(broken))}, column {name!r}"
        got = f"the input contains infinity ({place}{f', and {broken.sum() - 1} more' if broken.sum() > 1 else ''})"
        raise DataError("every number must be finite", got, "Correct it, or leave the cell empty.")


def _plain(value: Any) -> Any:
    """A category as JSON knows it."""
    return value.item() if isinstance(value, np.generic) else value


# ---- back ------------------------------------------------------------------------------------------------------------


def frame_of(columns: Mapping[str, Any], library: str, like: Any = None) -> Any:
    """A frame of native columns; one of pandas has the labels of `like` if that is one of pandas too."""
    if library == "pandas":
        import pandas as pd

        index = getattr(like, "index", None)
        frame = pd.DataFrame({name: column.array for name, column in columns.items()}, index=index)
        return frame if index is None else frame.set_axis(like.columns, axis=1)
    if library == "polars":
        import polars as pl

        return pl.DataFrame(dict(columns))
    import pyarrow as pa

    return pa.table(dict(columns))


def native(values: np.ndarray, sort: str, dtype: str, library: str, categories: Sequence[Any] | None = None) -> Any:
    """A column of a library, of a dtype by the library's own name where that can hold the values."""
    base, _, suffix = dtype.partition(":") if dtype.startswith(("object", "category")) else (dtype, "", "")
    objects = _objects(values, sort, base, suffix)
    if library == "pandas":
        return _of_pandas(objects, base, categories, suffix == "ordered")
    return (_of_polars if library == "polars" else _of_pyarrow)(objects, base, categories)


def _objects(values: np.ndarray, sort: str, dtype: str, suffix: str) -> list[Any]:
    """The values as Python has them, None for a hole."""
    if values.dtype == object:
        return values.tolist()
    if sort == "time":
        found = [None if math.isnan(v) else EPOCH + datetime.timedelta(microseconds=round(v * 1e6)) for v in values]
        aware = re.search(r"datetime64\[\w+, |time_zone='|tz=", dtype)
        found = found if aware else [v and v.replace(tzinfo=None) for v in found]
        day = suffix == "date" or dtype in ("Date", "date32[day]", "date64[ms]")
        return [v and v.date() for v in found] if day else found
    if sort == "flag" or suffix == "flag":
        return [None if math.isnan(v) else bool(v) for v in values]
    whole = suffix == "whole" or re.match(r"u?int\d", dtype.lower()) is not None
    return [None if math.isnan(v) else int(v) if whole else v for v in values.tolist()]


def _of_pandas(objects: list[Any], dtype: str, categories: Sequence[Any] | None, ordered: bool) -> Any:
    import pandas as pd

    if dtype == "category":
        known = list(categories or dict.fromkeys(v for v in objects if v is not None))
        return pd.Series(pd.Categorical(objects, categories=known, ordered=ordered))
    if dtype in ("object", "str") or (None in objects and re.fullmatch(r"u?int\d+|bool", dtype)):
        found = pd.Series(objects, dtype=object)
        return found if dtype == "object" else found.astype("str" if dtype == "str" else "float64")
    try:
        return pd.Series(objects, dtype=dtype)
    except (TypeError, ValueError):  # a dtype of another library
        return pd.Series(objects)


def _of_polars(objects: list[Any], dtype: str, categories: Sequence[Any] | None) -> Any:
    import polars as pl

    stamp = re.fullmatch(r"Datetime\(time_unit='(ms|us|ns)', time_zone=(?:None|'([\w/+-]+)')\)", dtype)
    if stamp:
        return pl.Series(objects).cast(pl.Datetime(stamp[1], stamp[2]))  # type: ignore[arg-type]
    if dtype.startswith("Enum") and categories:
        return pl.Series(objects, dtype=pl.Enum([str(c) for c in categories]))
    simple = re.fullmatch(r"U?Int\d+|Float\d+|Boolean|String|Categorical|Date", dtype)
    return pl.Series(objects, dtype=getattr(pl, dtype)) if simple else pl.Series(objects)


def _of_pyarrow(objects: list[Any], dtype: str, categories: Sequence[Any] | None) -> Any:
    import pyarrow as pa

    coded = re.fullmatch(r"dictionary<values=((?:large_)?string), indices=(u?int\d+), ordered=([01])>", dtype)
    if coded:
        known = list(categories or dict.fromkeys(v for v in objects if v is not None))
        codes = pa.array([None if v is None else known.index(v) for v in objects], pa.type_for_alias(coded[2]))
        array = pa.DictionaryArray.from_arrays(codes, pa.array(known, coded[1]), ordered=coded[3] == "1")
        return pa.chunked_array([array])
    return pa.chunked_array([pa.array(objects, _type_of_pyarrow(dtype))])


def _type_of_pyarrow(dtype: str) -> Any:
    """The type with this name, or None to have it inferred."""
    import pyarrow as pa

    stamp = re.fullmatch(r"timestamp\[(s|ms|us|ns)(?:, tz=([\w/+:-]+))?\]", dtype)
    if stamp:
        return pa.timestamp(stamp[1], stamp[2])
    named = {"double": "float64", "float": "float32", "date32[day]": "date32", "date64[ms]": "date64"}
    simple = re.fullmatch(r"u?int\d+|double|float|bool|(large_)?string|date32\[day\]|date64\[ms\]", dtype)
    return pa.type_for_alias(named.get(dtype, dtype)) if simple else None
