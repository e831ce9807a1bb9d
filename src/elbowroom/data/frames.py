"""Columns of data frames as NumPy arrays, and back in the caller's library and dtype."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data.tables.kinds import EXACT, LARGEST, as_floats
from elbowroom.data.validation import Refused, opened
from elbowroom.data.values import (
    DIGITS,
    EPOCH,
    TICKS,
    UTC,
    Stamp,
    decimal_of,
    decimals_of,
    integers_of,
    is_missing,
    name_of_zone,
    sort_of,
    stamp_of,
    zone_named,
)
from elbowroom.errors import DataError

YEAR = 365.2425 * 86_400  # seconds


class Series(NamedTuple):
    """A column: float64 with NaN for missing values, or objects with None: strings, and whole numbers beyond 2**53.

    `sort` is what it holds: "number", "flag", "text" or "time" (seconds since 1970, in UTC if it has a time zone);
    `dtype` is the library's name; `categories` are those of a categorical column, `ordered` whether they have an order.
    """

    values: np.ndarray
    sort: str
    dtype: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False

    @property
    def shown(self) -> np.ndarray:
        """The values for plots: times are fractional years."""
        if self.sort == "number":
            return as_floats(self.values)
        return 1970 + self.values / YEAR if self.sort == "time" else self.values


def series_of(frame: Any) -> dict[str, Series]:
    """The columns of a data frame.

    Raises
    ------
    DataError
        If a column does not hold numbers, booleans, text or dates, or mixes them.
    """
    return {name: _series(name, column) for name, column in columns_of(frame).items()}


def columns_of(frame: Any) -> dict[str, nw.Series[Any]]:
    """The columns of a data frame by name, as narwhals series.

    Raises
    ------
    DataError
        If two of them have the same name.
    """
    known = opened(frame)
    columns = {str(name): known.get_column(name) for name in known.columns}
    if len(columns) < len(known.columns):
        raise DataError("column names must be unique", "two are the same as text, such as 1 and '1'", "Rename one.")
    return columns


def series_of_array(x: np.ndarray, names: Sequence[str]) -> dict[str, Series]:
    """The columns of an array of numbers (n, D)."""
    columns = {name: Series(_canonical(x[:, i]), "number", str(x.dtype)) for i, name in enumerate(names)}
    for name, series in columns.items():
        _refuse_infinite(name, series.values)
    return columns


def _canonical(values: np.ndarray) -> np.ndarray:
    """Float64 in which every NaN has the same bits: a row's bits seed the noise of its score."""
    values = np.array(values, dtype=np.float64)
    values[np.isnan(values)] = np.nan
    return values


def _series(name: str, column: nw.Series[Any]) -> Series:
    native, dtype = _native_dtype(name, column), column.dtype
    if dtype.is_integer() and any(abs(int(end)) >= EXACT for end in _ends(column)):
        return Series(_whole(column.to_list()), "number", native)
    if dtype == nw.Decimal:
        return Series(_of_decimals(name, column.to_list(), native), "number", native)
    if dtype.is_numeric():
        values = _canonical(column.cast(nw.Float64).to_numpy())
        _refuse_infinite(name, values)
        return Series(values, "number", native)
    if dtype == nw.Boolean:
        return Series(_canonical(column.cast(nw.Float64).to_numpy()), "flag", native)
    if dtype in (nw.Datetime, nw.Date):
        moments = column.cast(nw.Datetime("us")) if dtype == nw.Date else column
        return Series(_seconds(moments), "time", native)
    missing = _missing(name, column)
    # None first, so that NumPy makes the array one-dimensional
    objects = np.array([None, *column.to_list()], dtype=object)[1:]
    objects[missing] = None
    if dtype in (nw.Categorical, nw.Enum):
        return _categorical(name, column, objects, native)
    if dtype in (nw.String, nw.Object, nw.Unknown):
        return _of_objects(name, objects, native)
    kind = re.sub(r"[\[(].*", "", str(dtype)).lower()
    do = "Drop the column, or turn it into numbers, such as seconds."
    raise DataError("a column must hold numbers, booleans, text or dates", f"{name!r} holds {kind}", do)


def _missing(name: str, column: nw.Series[Any]) -> np.ndarray:
    """Whether each value of a column is missing, (n,)."""
    try:
        return np.array(column.is_null().to_list(), dtype=bool)
    except ArithmeticError as error:  # from comparing a signalling NaN of decimal
        do = "Write None in its place."
        raise DataError("a column must hold values", f"{name!r} holds a signalling NaN", do) from error


def _ends(column: nw.Series[Any]) -> list[Any]:
    """The smallest and the largest value, if there are any."""
    return [] if len(column) == 0 else [end for end in (column.min(), column.max()) if not is_missing(end)]


def _whole(values: Sequence[Any]) -> np.ndarray:
    """Whole numbers of any size as objects (n,), None if missing."""
    whole = np.empty(len(values), dtype=object)
    whole[:] = [None if is_missing(value) else int(value) for value in values]
    return whole


def _of_decimals(name: str, values: Sequence[Any], dtype: str) -> np.ndarray:
    """Decimals as float64; raises if one has more digits than float64 represents."""
    digits = decimals_of(dtype)
    assert digits is not None
    for row, value in enumerate(values):
        if not is_missing(value) and value.is_finite() and abs(value.scaleb(digits[1])) >= 10**DIGITS:
            got = f"row {row}, column {name!r} holds {value!s:.60}"
            do = "Round it, or turn the column into floats, for example by .astype(float)."
            raise DataError(f"decimals must have at most {DIGITS} digits", got, do)
    floats = _canonical(np.array([math.nan if is_missing(v) else float(v) for v in values], dtype=float))
    _refuse_infinite(name, floats)
    return floats


def _native_dtype(name: str, column: nw.Series[Any]) -> str:
    """The library's name of a dtype, from which `native` restores it."""
    series = column.to_native()
    dtype = series.type if hasattr(series, "type") else series.dtype
    if column.implementation.is_pandas() and str(dtype) == "string":
        return f"string:{dtype.storage}"
    if column.dtype == nw.Enum and column.implementation.is_polars():
        return "Enum"  # its categories, perhaps many, are stored separately
    zone = getattr(dtype, "tz", None) if column.implementation.is_pandas() else None
    if zone is None:
        return str(dtype)
    return f"datetime64[{dtype.unit}, {_name_of_zone(name, zone)}]"


def _name_of_zone(name: str, zone: datetime.tzinfo) -> str:
    zone_name = name_of_zone(zone)
    if zone_name is None:
        got = f"that of {name!r} is {str(zone)!r:.60}"
        do = "Turn it into one with a name: X[column].dt.tz_convert('Europe/Berlin')."
        raise DataError("a time zone must have a name, so that it can be restored", got, do)
    return zone_name


def _seconds(column: nw.Series[Any]) -> np.ndarray:
    moments = (math.nan if moment is None else moment / 10**9 for moment in _nanoseconds(column))
    return _canonical(np.fromiter(moments, float, len(column)))


def _nanoseconds(column: nw.Series[Any]) -> list[int | None]:
    unit: Any = "ns" if getattr(column.dtype, "time_unit", "us") == "ns" else "us"
    stamps = column.dt.timestamp(unit).to_list()
    return [None if is_missing(stamp) else int(stamp) * TICKS[unit] for stamp in stamps]


def nanoseconds_of(column: nw.Series[Any], series: Series) -> np.ndarray:
    """The times of a column in nanoseconds since 1970, objects (n,); `series` is the same column."""
    if column.dtype not in (nw.Datetime, nw.Date):  # objects, which have microseconds
        return np.array([None, *ticks_of(series.values, Stamp("ns"))], dtype=object)[1:]
    moments = column.cast(nw.Datetime("us")) if column.dtype == nw.Date else column
    return np.array([None, *_nanoseconds(moments)], dtype=object)[1:]


def _categorical(name: str, column: nw.Series[Any], objects: np.ndarray, native: str) -> Series:
    """A categorical column with all declared categories, also those without rows."""
    categories, ordered = _declared(column)
    strange = [v for v in (*(categories or ()), *objects) if not (v is None or isinstance(_plain(v), PLAIN))]
    if strange:
        got = f"column {name!r} has {str(strange[0])!r:.60}"
        raise Refused("categories must be text, numbers or booleans", f"A category of {got}", AS_TEXT)
    _of_objects(name, objects.copy(), native)  # raises if types are mixed
    native += ":ordered" if native == "category" and ordered else ""
    return Series(objects, "text", native, categories, ordered)


def _declared(column: nw.Series[Any]) -> tuple[tuple[Any, ...] | None, bool]:
    """The categories of a column's dtype, None if it has none, and whether they are ordered."""
    series = column.to_native()
    if hasattr(series, "cat") and hasattr(series.cat, "ordered"):  # of pandas
        return tuple(_plain(c) for c in series.cat.categories), bool(series.cat.ordered)
    if column.dtype == nw.Enum:
        return tuple(column.cat.get_categories().to_list()), True
    if column.implementation.is_polars():
        return None, False
    import pyarrow as pa

    array = pa.chunked_array(pa.array(series)) if column.implementation.is_pandas() else series
    if not array.num_chunks:
        return None, False
    known = array.unify_dictionaries().chunk(0).dictionary.to_pylist()
    return tuple(value for value in known if value is not None), bool(array.type.ordered)


def _of_objects(name: str, objects: np.ndarray, native: str) -> Series:
    """A column of Python objects, by their type."""
    objects[[is_missing(value) for value in objects.tolist()]] = None
    _refuse_mixed(name, objects)
    known = [value for value in objects.tolist() if value is not None]
    sort = _sort(known[0]) if known else "text"
    if sort == "text":
        objects[:] = [None if value is None else str(value) for value in objects]
        return Series(objects, "text", native)
    if any(isinstance(value, Integral) and abs(int(value)) > LARGEST for value in known):
        got = f"column {name!r} has one beyond {LARGEST:.1e}"
        raise DataError("whole numbers must not be larger than floats", got, "Turn them into logarithms, or drop it.")
    native += _suffix(name, known, sort) if native == "object" else ""
    if sort == "time":
        moments = [math.nan if value is None else _moment(value) for value in objects]
        return Series(_canonical(np.array(moments, dtype=float)), "time", native)
    if decimals_of(native):
        return Series(_of_decimals(name, objects.tolist(), native), "number", native)
    if any(isinstance(value, Integral) and abs(int(value)) >= EXACT for value in known):
        if not all(float(value).is_integer() for value in known if not isinstance(value, Integral)):
            got = f"column {name!r} has fractions beside whole numbers beyond 2**53"
            raise DataError("numbers of a column must all be whole, or all be floats", got, "Write .astype(float).")
        return Series(_whole(objects.tolist()), "number", native)
    values = _canonical(np.array([math.nan if v is None else float(v) for v in objects], dtype=float))
    _refuse_infinite(name, values)
    return Series(values, sort, native)


def _refuse_mixed(name: str, objects: np.ndarray) -> None:
    """Raise if objects have several types, or one that a column cannot hold."""
    first: dict[tuple[str, bool], tuple[int, Any]] = {}
    for row, value in enumerate(objects.tolist()):
        if value is not None:
            first.setdefault((_sort(value), isinstance(value, Decimal)), (row, value))
    if len(first) > 1 or ("", False) in first:
        row, value = list(first.values())[-1]
        others = f", others are {type(next(iter(first.values()))[1]).__name__}" if len(first) > 1 else ""
        raise Refused(
            "a column must hold numbers, booleans, text or dates, all of one kind",
            f"Row {row}, column {name!r} holds {str(value)[:40]!r}{others}",
            "Turn all of its values into one kind, for example by .astype(str).",
        )


def _suffix(name: str, known: Sequence[Any], sort: str) -> str:
    """A suffix for the dtype "object": dates without a time, whole numbers, the digits of decimals."""
    if sort == "time":
        if not any(isinstance(value, datetime.datetime) for value in known):
            return ":date"
        zone = _zone_of(name, known)
        return ":time" if zone is None else f":time[us, tz={zone}]"
    if sort == "flag":
        return ":flag"
    if isinstance(known[0], Decimal):
        scale = max(0, *(-int(value.as_tuple().exponent) for value in known if value.is_finite()), 0)
        return f":decimal({max(DIGITS, scale)}, {scale})"
    return f":{'whole' if all(isinstance(v, Integral) or float(v).is_integer() for v in known) else sort}"


def _zone_of(name: str, known: Sequence[Any]) -> str | None:
    """The common time zone of times, None if they have none."""
    zones = {None if getattr(v, "tzinfo", None) is None else _name_of_zone(name, v.tzinfo) for v in known}
    if len(zones) > 1:
        got = f"column {name!r} has {' and '.join(sorted(str(zone or 'none') for zone in zones)[:3])}"
        do = "Turn them into one: pd.to_datetime(X[column], utc=True).dt.tz_convert('Europe/Berlin')."
        raise DataError("all times of a column must have the same time zone, or none", got, do)
    return zones.pop()


def _sort(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "flag"
    if isinstance(value, Real | Decimal | np.number):
        return "number"
    if isinstance(value, str):
        return "text"
    return "time" if isinstance(value, datetime.date) else ""


PLAIN = (str, bool, int, float)
AS_TEXT = "Turn it into text, for example by .astype(str)."


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
    """A category as a JSON value."""
    return value.item() if isinstance(value, np.generic) else value


# ---- back ------------------------------------------------------------------------------------------------------------


def frame_of(columns: Mapping[str, Any], library: str, like: Any = None) -> Any:
    """A frame of native columns; with the index and columns of `like`, if both are pandas frames."""
    if library == "pandas":
        import pandas as pd

        frame = pd.DataFrame({name: column.reset_index(drop=True) for name, column in columns.items()})
        known = isinstance(like, pd.DataFrame)
        return frame.set_axis(like.index, axis=0).set_axis(like.columns, axis=1) if known else frame
    if library == "polars":
        import polars as pl

        return pl.DataFrame(dict(columns))
    import pyarrow as pa

    return pa.table(dict(columns))


def native(values: np.ndarray, dtype: str, library: str, categories: Sequence[Any] | None = None) -> Any:
    """A column of a library, with the dtype of this name if it can hold the values.

    `values` are as in a `Series`; times may also be integer nanoseconds, as objects.
    """
    stamp = stamp_of(dtype)
    if stamp is not None and not dtype.startswith("object"):
        return _of_times(ticks_of(values, stamp), stamp, dtype, library)
    objects = objects_of(values, dtype)
    if library == "pandas":
        return _of_pandas(objects, dtype, categories)
    return (_of_polars if library == "polars" else _of_pyarrow)(objects, dtype, categories)


def objects_of(values: np.ndarray, dtype: str) -> list[Any]:
    """The values as Python objects of a dtype, None if missing."""
    stamp, digits = stamp_of(dtype), decimals_of(dtype)
    if stamp is not None:
        return [None if tick is None else _clock(tick * stamp.tick, stamp) for tick in ticks_of(values, stamp)]
    make: Callable[[Any], Any] | None = None
    if sort_of(dtype) == "flag":
        make = _truth
    elif digits:
        make = partial(decimal_of, scale=digits[1])
    elif integers_of(dtype) or dtype == "object:whole":
        make = round
    objects = values.tolist()
    if values.dtype != object:
        objects = [None if math.isnan(value) else value for value in objects]
    return objects if make is None else [None if value is None else make(value) for value in objects]


def _truth(share: float) -> bool:
    return round(share) == 1


def ticks_of(values: np.ndarray, stamp: Stamp) -> list[int | None]:
    """Times as integer ticks of a dtype, from float seconds (to the microsecond) or nanoseconds as objects."""
    if values.dtype == object:
        return [None if value is None else value // stamp.tick for value in values.tolist()]
    return [None if math.isnan(v) else round(v * 1e6) * 1000 // stamp.tick for v in values.tolist()]


def _clock(moment: int, stamp: Stamp) -> datetime.date:
    """A time in nanoseconds as a Python datetime in its time zone, or a date."""
    clock = EPOCH + datetime.timedelta(microseconds=moment // 1000)
    if stamp.zone is not None:
        return clock.replace(tzinfo=UTC).astimezone(zone_named(stamp.zone))
    return clock.date() if stamp.unit == "D" else clock


def _of_times(ticks: list[int | None], stamp: Stamp, dtype: str, library: str) -> Any:
    if library == "pandas":
        import pandas as pd

        if not dtype.startswith("datetime64") and not dtype.endswith("[pyarrow]"):  # a dtype of another library
            dtype = f"datetime64[{'s' if stamp.unit == 'D' else stamp.unit}{f', {stamp.zone}' if stamp.zone else ''}]"
        if dtype.endswith("[pyarrow]"):
            return _arrow_of_pandas(_of_times(ticks, stamp, dtype.removesuffix("[pyarrow]"), "pyarrow"))
        places = np.array([np.iinfo(np.int64).min if tick is None else tick for tick in ticks], dtype=np.int64)
        moments = pd.Series(places.view(f"M8[{stamp.unit}]"))
        return moments.dt.tz_localize("UTC").astype(dtype) if stamp.zone else moments.astype(dtype)
    if library == "polars":
        import polars as pl

        if stamp.unit == "D":
            return pl.Series(ticks, dtype=pl.Int32).cast(pl.Date)
        parts = 1000 if stamp.unit == "s" else 1  # polars has no seconds
        unit: Any = "ms" if stamp.unit == "s" else stamp.unit
        fine = [None if tick is None else tick * parts for tick in ticks]
        return pl.Series(fine, dtype=pl.Int64).cast(pl.Datetime(unit, stamp.zone))
    import pyarrow as pa

    if dtype.startswith("date64"):
        return pa.chunked_array(
            [pa.array([t if t is None else t * 86_400_000 for t in ticks], pa.int64()).cast("date64")]
        )
    kind = pa.date32() if stamp.unit == "D" else pa.timestamp(stamp.unit, stamp.zone)
    return pa.chunked_array([pa.array(ticks, pa.int32() if stamp.unit == "D" else pa.int64()).cast(kind)])


def _of_pandas(objects: list[Any], dtype: str, categories: Sequence[Any] | None) -> Any:
    import pandas as pd

    base, _, suffix = dtype.partition(":") if dtype.startswith(("object", "category", "string:")) else (dtype, "", "")
    if base == "category":
        known = list(categories or dict.fromkeys(v for v in objects if v is not None))
        return pd.Series(pd.Categorical(objects, categories=known, ordered=suffix == "ordered"))
    if base == "object":
        return pd.Series(objects, dtype=object)
    if base == "str":  # of pandas 3; pandas 2 would make the word "None" of a missing value
        text = pd.api.types.pandas_dtype("str")
        return pd.Series(objects, dtype=object if isinstance(text, np.dtype) else text)
    if None in objects and re.fullmatch(r"u?int\d+|bool", base):
        return pd.Series(objects, dtype=object).astype("float64")
    if dtype.endswith("[pyarrow]"):
        return _arrow_of_pandas(_of_pyarrow(objects, dtype.removesuffix("[pyarrow]"), categories))
    try:
        return pd.Series(objects, dtype=f"string[{suffix}]" if base == "string" and suffix else base)
    except (TypeError, ValueError):  # a dtype of another library
        return pd.Series(objects)


def _arrow_of_pandas(array: Any) -> Any:
    """A pandas column backed by a pyarrow array."""
    import pandas as pd

    return pd.Series(pd.arrays.ArrowExtensionArray(array))


def _of_polars(objects: list[Any], dtype: str, categories: Sequence[Any] | None) -> Any:
    import polars as pl

    if dtype.startswith("Enum") and categories:
        return pl.Series(objects, dtype=pl.Enum([str(c) for c in categories]))
    digits = decimals_of(dtype)
    if digits:
        return pl.Series(objects, dtype=pl.Decimal(*digits))
    simple = re.fullmatch(r"U?Int\d+|Float\d+|Boolean|String|Categorical", dtype)
    return pl.Series(objects, dtype=getattr(pl, dtype)) if simple else pl.Series(objects)


def _of_pyarrow(objects: list[Any], dtype: str, categories: Sequence[Any] | None) -> Any:
    import pyarrow as pa

    coded = re.fullmatch(r"dictionary<values=(\w+), indices=(u?int\d+), ordered=([01])>", dtype)
    if coded:
        known = list(categories or dict.fromkeys(v for v in objects if v is not None))
        bounds, place = integers_of(coded[2]), {value: code for code, value in enumerate(known)}
        index = coded[2] if bounds and len(known) <= bounds[1] else "int32"
        codes = pa.array([None if v is None else place[v] for v in objects], pa.type_for_alias(index))
        array = pa.DictionaryArray.from_arrays(
            codes, pa.array(known, _type_of_pyarrow(coded[1])), ordered=coded[3] == "1"
        )
        return pa.chunked_array([array])
    kind = _type_of_pyarrow(dtype)
    return pa.chunked_array(
        [pa.array(objects, pa.float64()).cast(kind) if dtype == "halffloat" else pa.array(objects, kind)]
    )


def _type_of_pyarrow(dtype: str) -> Any:
    """The type with this name, or None to infer it."""
    import pyarrow as pa

    digits = decimals_of(dtype)
    if digits:
        return (pa.decimal256 if dtype.startswith("decimal256") else pa.decimal128)(*digits)
    named = {"double": "float64", "float": "float32", "halffloat": "float16"}
    simple = re.fullmatch(r"u?int\d+|double|float|halffloat|bool|(large_)?string|string_view", dtype)
    return pa.type_for_alias(named.get(dtype, dtype)) if simple else None
