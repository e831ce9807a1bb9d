"""Dtypes of columns by their library's name, and single values of them, without loss of digits."""

from __future__ import annotations

import datetime
import math
import re
import sys
from collections.abc import Mapping
from decimal import Context, Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from elbowroom.errors import DataError, ParameterError

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1)
TICKS = {"D": 86_400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
FIRST, LAST = (days * 86_400 * 10**9 for days in (2 - EPOCH.toordinal(), EPOCH.max.toordinal() - EPOCH.toordinal()))
DIGITS = 15  # of a decimal that float64 represents


# ---- dtypes ----------------------------------------------------------------------------------------------------------


class Stamp(NamedTuple):
    """A dtype of times: ticks of a unit since 1970, in a time zone or none."""

    unit: str
    zone: str | None = None

    @property
    def tick(self) -> int:
        """Nanoseconds of a tick."""
        return TICKS[self.unit]


def sort_of(dtype: str) -> str:
    """What a dtype holds: "flag", "number", "time" or "text"; "" if its name does not determine this.

    >>> [sort_of(name) for name in ("boolean", "Int64", "timestamp[us]", "object:whole", "large_string", "object")]
    ['flag', 'number', 'time', 'number', 'text', '']
    """
    if dtype.lower().startswith("bool") or dtype == "object:flag":
        return "flag"
    if integers_of(dtype) or decimals_of(dtype) or re.match(r"(?:sparse\[)?float|double|half", dtype.lower()):
        return "number"
    if dtype in ("object:whole", "object:number"):
        return "number"
    if stamp_of(dtype):
        return "time"
    return "text" if re.match(r"(large_)?str", dtype.lower()) else ""


def stamp_of(dtype: str) -> Stamp | None:
    """The unit and time zone of a dtype of times; None for all others.

    >>> stamp_of("datetime64[ns, Europe/Berlin]"), stamp_of("Date")
    (Stamp(unit='ns', zone='Europe/Berlin'), Stamp(unit='D', zone=None))
    """
    if re.match(r"Date$|date32|date64|object:date", dtype):
        return Stamp("D")
    if dtype == "object:time":
        return Stamp("us")
    match = re.match(
        r"(?:datetime64|timestamp|object:time)\[(s|ms|us|ns)(?:, (?:tz=)?([^\]]+))?\]"
        r"|Datetime\(time_unit='(ms|us|ns)', time_zone=(?:None|'(.+)')\)",
        dtype,
    )
    return Stamp(match[1] or match[3], match[2] or match[4]) if match else None


def integers_of(dtype: str) -> tuple[int, int] | None:
    """The smallest and the largest number of a dtype of whole numbers; None for all others."""
    match = re.match(r"(?:sparse\[)?(u?)int(\d+)", dtype.lower())
    if not match:
        return None
    bits = int(match[2])
    return (0, 2**bits - 1) if match[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def float_of(dtype: str) -> Any:
    """The NumPy type of a float dtype: float16, float32 or float64."""
    if re.match(r"float16|half", dtype.lower()):
        return np.float16
    return np.float32 if re.match(r"float(32|$|\[)", dtype.lower()) else np.float64


def long_enough(dtype: str, low: float, high: float) -> str | None:
    """A number dtype if it holds the range low to high, else the widest of its kind; None if none holds it.

    >>> long_enough("Int8", 0, 300), long_enough("uint8[pyarrow]", 0, 2**63), long_enough("float16", 0, 1e6)
    ('Int64', 'uint64[pyarrow]', 'float64')
    """
    digits = decimals_of(dtype)
    if digits:
        longest = len(str(int(max(-low, high)))) + digits[1]
        return dtype if longest <= digits[0] else re.sub(r"(\(|precision=)\d+", r"\g<1>38", dtype, count=1)
    if integers_of(dtype) is None:
        if max(-low, high) <= float(np.finfo(float_of(dtype)).max):
            return dtype
        return re.sub(r"^(halffloat|float)(?=$|\[)", "double", re.sub(r"^([Ff]loat)(16|32)", r"\g<1>64", dtype))
    word, un = ("Int", "U") if "Int" in dtype else ("int", "u")
    longer = (re.sub(r"[uU]?[iI]nt\d+", f"{sign}{word}64", dtype, count=1) for sign in ("", un))
    for name in (dtype, *longer):
        least, most = integers_of(name) or (0, 0)
        if least <= low and high <= most:
            return name
    return None


def decimals_of(dtype: str) -> tuple[int, int] | None:
    """The precision and scale of a decimal dtype; None for all others.

    >>> decimals_of("decimal128(10, 2)"), decimals_of("Decimal(precision=38, scale=4)"), decimals_of("float64")
    ((10, 2), (38, 4), None)
    """
    match = re.match(r"(?:object:)?decimal\d*\((?:precision=)?(\d+), (?:scale=)?(-?\d+)\)", dtype.lower())
    return (int(match[1]), int(match[2])) if match else None


def decimal_of(number: Any, scale: int) -> Decimal:
    """The nearest decimal with `scale` digits after the point."""
    exact = number if isinstance(number, Decimal) else Decimal(repr(number))
    return exact.quantize(Decimal(1).scaleb(-scale), context=Context(prec=400))


# ---- one value -------------------------------------------------------------------------------------------------------


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pd.NA."""
    if isinstance(value, str):
        return False
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, Real) and bool(value != value)


def scalar(name: str, value: Any) -> Any:
    """A single value, unwrapped if it is a 0-d array or a pyarrow scalar.

    Raises
    ------
    ParameterError
        If it is more than one value.
    """
    if hasattr(value, "as_py"):
        value = value.as_py()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    several = hasattr(value, "__len__") and not isinstance(value, str | bytes)
    if several or isinstance(value, slice | Mapping) or hasattr(value, "__next__"):
        got = f"it is the {type(value).__name__} {value!r:.60}"
        do = "Sample once for each of its values."
        raise ParameterError(f"given must have a single value for each column, here {name!r}", got, do)
    return value


def held(name: str, value: Any, dtype: str) -> Any:
    """A value as a column of a dtype holds it: bool, int, float, Decimal, str, or nanoseconds since 1970 for a time.

    Only floats are rounded, to the precision of the dtype.

    Raises
    ------
    DataError
        If the dtype cannot hold it.
    """
    sort = sort_of(dtype)
    if sort == "flag":
        if not isinstance(value, bool | np.bool_):
            raise _refused(name, "True or False", value, "Give True or False.")
        return bool(value)
    if sort == "number":
        return _number(name, value, dtype)
    if sort == "time":
        return _time(name, value, stamp_of(dtype))
    if sort == "text" and not isinstance(value, str):
        raise _refused(name, "text", value, f"Give {str(value)!r:.40}, if that is a value of the column.")
    return value.item() if isinstance(value, np.generic) else value


def _refused(name: str, wanted: str, value: Any, do: str) -> DataError:
    return DataError(f"column {name!r} must be given {wanted}", f"it is {_shown(value)}", do)


def _shown(value: Any) -> str:
    value = value.item() if isinstance(value, np.number) else value
    return f"{value!r:.60}"


def _number(name: str, value: Any, dtype: str) -> Any:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real | Decimal | np.number):
        raise _refused(name, "a number", value, "Give a number.")
    number: Any = int(value) if isinstance(value, Integral) else value if isinstance(value, Decimal) else None
    number = float(value) if number is None else number
    bounds, digits = integers_of(dtype), decimals_of(dtype)
    if not abs(number) <= sys.float_info.max:
        raise _refused(name, "a finite number", value, "Correct it.")
    if bounds or dtype == "object:whole":
        return _whole(name, number, bounds, dtype)
    if digits:
        exact = decimal_of(number, digits[1])
        if exact != (number if isinstance(number, Decimal) else Decimal(repr(number))):
            wanted = f"a number of at most {digits[1]} decimals"
            raise _refused(name, wanted, value, f"The nearest is {exact}.")
        if len(exact.as_tuple().digits) > digits[0]:
            raise _refused(name, f"a number of at most {digits[0]} digits", value, "Correct it.")
        return exact
    return _float(name, number, dtype)


def _whole(name: str, number: Any, bounds: tuple[int, int] | None, dtype: str) -> Any:
    if number != int(number):
        if bounds is None:
            return float(number)
        below = math.floor(number)
        do = f"The nearest are {below} and {below + 1}."
        raise _refused(name, f"a whole number (it holds {dtype})", number, do)
    if bounds and not bounds[0] <= number <= bounds[1]:
        ends = f"a number from {bounds[0]} to {bounds[1]}"
        raise _refused(name, f"{ends} (it holds {dtype})", number, "Stay within them.")
    return int(number)


def _float(name: str, number: Any, dtype: str) -> float:
    kind = float_of(dtype)
    try:
        with np.errstate(over="ignore"):
            rounded = float(kind(float(number)))
    except OverflowError:
        rounded = math.inf
    if math.isinf(rounded):
        raise _refused(name, f"a number that {np.dtype(kind).name} holds", number, "Correct it.")
    if isinstance(number, int) and rounded != number:
        wanted = f"a whole number that {np.dtype(kind).name} holds"
        raise _refused(name, wanted, number, f"The nearest is {int(rounded)}.")
    return rounded


# ---- times -----------------------------------------------------------------------------------------------------------


def _time(name: str, value: Any, stamp: Any) -> int:
    """Nanoseconds since 1970: in UTC for a column with a time zone, else in local time."""
    wall, offset = _moment(name, value)
    if offset is not None and stamp.zone is None:
        do = f"Give it as the column has it, without {shown_time(0, 'UTC')[-6:]} or the like."
        raise _refused(name, "a time without a time zone", value, do)
    if not FIRST <= wall <= LAST:
        raise _refused(name, "a time of the years 1 to 9999", value, "Correct it.")
    moment = wall - offset if offset is not None else wall if stamp.zone is None else _instant(name, wall, stamp.zone)
    if not -(2**63) < moment // stamp.tick < 2**63:
        raise _refused(name, "a time that its dtype holds", value, "Correct it.")
    if moment % stamp.tick:
        below = moment // stamp.tick * stamp.tick
        near = " and ".join(shown_time(v, stamp.zone) for v in (below, below + stamp.tick))
        wanted = "a date without a time" if stamp.unit == "D" else f"a time in whole {stamp.unit}"
        raise _refused(name, wanted, value, f"The nearest are {near}.")
    return moment


def _moment(name: str, value: Any) -> tuple[int, int | None]:
    """A time in its own time zone, and the UTC offset, None if it has none; both in nanoseconds."""
    extra, moment = 0, value
    if isinstance(value, np.datetime64):
        return _of_numpy(name, value), None
    if isinstance(value, str):
        moment, extra = _of_text(name, value)
    elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        moment = datetime.datetime(value.year, value.month, value.day)
    if not isinstance(moment, datetime.datetime):
        raise _refused(name, "a date or time", value, "Give one such as '2024-05-31' or '2024-05-31 14:30'.")
    offset = moment.utcoffset()
    parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond)
    wall = (datetime.datetime(*parts) - EPOCH) // datetime.timedelta(microseconds=1) * 1000
    wall += extra + getattr(moment, "nanosecond", 0)
    return wall, None if offset is None else offset // datetime.timedelta(microseconds=1) * 1000


def _of_numpy(name: str, value: np.datetime64) -> int:
    unit, count = np.datetime_data(value.dtype)
    if unit in ("Y", "M", "W"):
        value, unit, count = value.astype("M8[D]"), "D", 1
    if unit not in TICKS:
        raise _refused(name, "a time in nanoseconds or coarser", value, "Write value.astype('datetime64[ns]').")
    return int(value.astype(np.int64)) * TICKS[unit] * count


def _of_text(name: str, text: str) -> tuple[Any, int]:
    """Parse a time: a datetime up to microseconds, and the remaining nanoseconds."""
    fine = re.fullmatch(r"(.*\d:\d\d)[.,](\d{6})(\d+)(\D.*)?", text.strip())
    rest = fine[3].ljust(3, "0") if fine else "000"
    if rest[3:].strip("0"):
        raise _refused(name, "a time in nanoseconds or coarser", text, "Leave the last digits out.")
    words = f"{fine[1]}.{fine[2]}{fine[4] or ''}" if fine else text.strip()
    try:
        return datetime.datetime.fromisoformat(words), int(rest[:3])
    except ValueError:
        return None, 0


def zone_named(name: str) -> datetime.tzinfo:
    """A time zone by its name, or by its UTC offset such as +02:00.

    Raises
    ------
    DataError
        If the name is unknown.
    """
    if name == "UTC":
        return UTC
    fixed = re.fullmatch(r"(?:UTC)?([+-])(\d\d):?(\d\d)", name)
    if fixed:
        distance = datetime.timedelta(hours=int(fixed[2]), minutes=int(fixed[3]))
        return datetime.timezone(distance if fixed[1] == "+" else -distance)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        do = "Correct the name, or install the package tzdata."
        raise DataError("a time zone must be known to Python", f"{name!r:.60} is not", do) from error


def name_of_zone(zone: datetime.tzinfo) -> str | None:
    """The name of a time zone by which `zone_named` finds it, or None if it has none."""
    fixed = zone.utcoffset(None)
    if fixed is not None:
        minutes, seconds = divmod(round(fixed.total_seconds()), 60)
        if seconds:
            return None
        return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "UTC"
    try:
        zone_named(str(zone))
    except DataError:
        return None
    return str(zone)


def _instant(name: str, wall: int, zone: str) -> int:
    """Nanoseconds in UTC of a local time in a zone; raises if it is ambiguous or does not exist."""
    there = zone_named(zone)
    clock = EPOCH + datetime.timedelta(microseconds=wall // 1000)
    offsets = set()
    for fold in (0, 1):
        offset = clock.replace(tzinfo=there, fold=fold).utcoffset() or datetime.timedelta()
        instant = (clock - offset).replace(tzinfo=UTC)
        if instant.astimezone(there).replace(tzinfo=None, fold=0) == clock:
            offsets.add(offset)
    if len(offsets) != 1:
        got = f"{shown_time(wall)} occurs there {'twice' if offsets else 'never'}"
        raise DataError(f"column {name!r} must be given a time that is unambiguous in {zone}", got, DO)
    return wall - offsets.pop() // datetime.timedelta(microseconds=1) * 1000


def shown_time(moment: int, zone: str | None = None) -> str:
    """Format a time in nanoseconds since 1970.

    >>> shown_time(86_400 * 10**9), shown_time(1), shown_time(0, "+02:00")
    ('1970-01-02', '1970-01-01 00:00:00.000000001', '1970-01-01 02:00:00+02:00')
    """
    clock = EPOCH + datetime.timedelta(microseconds=moment // 1000)
    if zone is not None:
        return clock.replace(tzinfo=UTC).astimezone(zone_named(zone)).isoformat(" ")
    rest = f"{moment % 10**9:09}".rstrip("0")
    text = clock.replace(microsecond=0).isoformat(" ") + f".{rest}" * bool(rest)
    return text.removesuffix(" 00:00:00")


DO = "Give it with its UTC offset, such as '2024-10-27 02:30+01:00'."
