"""Ids, values and times of interactions: the columns of a frame that hold them, as arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data.words import EXACT, MOMENT, objects_of, whole_numbers
from elbowroom.errors import DataError, ParameterError, counted, unknown

# ---- roles of columns ------------------------------------------------------------------------------------------------

# Names of columns, without words such as id; if several match, those of the first group take precedence.
USERS = ("user customer client member account buyer subscriber listener reviewer", "visitor session")
ITEMS = ("item product article movie film song track book game video recipe asin sku isbn", "artist page")
VALUES = "rating star score value count play playcount listen click view weight quantity qty amount freq frequency"
TIMES = "time timestamp date datetime day ts when at epoch created"
ID_WORDS = ("id", "ids", "idx", "index", "no", "nr", "num", "number", "code", "key")
SECONDS = (10**9, 2 * 10**9)  # since 1970, from 2001 to 2033; also in milli-, micro- and nanoseconds


class Roles(NamedTuple):
    """The columns of users and of items, and a note on the choice, empty if it is obvious."""

    user: str
    item: str
    note: str


def roles_of(X: Any, user: str | None = None, item: str | None = None, value: str | None = None) -> Roles:
    """The columns of users and items of a frame of interactions.

    They are the given ones; else those with a usual name, at any position; else the first and the second of the
    others, if these can be ids.

    Raises
    ------
    DataError, ParameterError
        If a column is missing, or the choice is ambiguous.
    """
    frame = nw.from_native(X, eager_only=True)
    names = list(frame.columns)
    if len(names) < 2:
        raise DataError(
            "a frame of interactions must have a column of users and one of items",
            f"it has {counted(len(names), 'column')}",
            NAME_THEM,
        )
    for what, name in (("user", user), ("item", item), ("value", value)):
        if name is not None and name not in names:
            raise unknown(f"the column of the {what}s", name, names)
    if user is not None and user == item:
        raise ParameterError("users and items must be two columns", f"both are {user!r}", NAME_THEM)
    free = [name for name in names if name not in (user, item)]
    chosen = {
        "user": user if user is not None else _called(frame, free, "user", USERS),
        "item": item if item is not None else _called(frame, free, "item", ITEMS),
    }
    only = len(names) - (value is not None) == 2  # there is no other choice
    plain = only or None not in chosen.values()
    for what in ("user", "item"):
        if chosen[what] is None:
            chosen[what] = _next(frame, [n for n in free if n not in (*chosen.values(), value)], what, only)
    in_order = (user or names[0], item or names[1]) == (chosen["user"], chosen["item"])
    note = f"users are taken from column {chosen['user']!r}, items from column {chosen['item']!r}"
    roles = {what: name for what, name in chosen.items() if name is not None}
    return Roles(**roles, note="" if plain and in_order else note)


def are_interactions(names: Sequence[str]) -> bool:
    """Whether column names are those of interactions: users and items, first or with only values and times."""
    kinds = [kind_of_name(name) for name in names]
    return {"user", "item"} <= {*kinds} and ({*kinds[:2]} == {"user", "item"} or "" not in kinds)


def kind_of_name(name: Any) -> str:
    """The role that a column name suggests: "user", "item", "value", "time", or "" for none.

    >>> [kind_of_name(name) for name in ("userId", "item_id:token", "Rating", "created_at", "age")]
    ['user', 'item', 'value', 'time', '']
    """
    for kind, words in (("user", USERS), ("item", ITEMS)):
        if _group(name, words) is not None:
            return kind
    last = (_words(name) or [""])[-1]
    return "value" if _is_in(last, VALUES) else "time" if _is_in(last, TIMES) else ""


def _words(name: Any) -> list[str]:
    """The words of a name, without those such as id."""
    plain = re.sub(r"([a-z])([A-Z])", r"\1 \2", str(name).partition(":")[0])
    words = re.findall(r"[^\W_]+", plain.lower())
    while len(words) > 1 and words[-1] in ID_WORDS:
        words.pop()
    return words


def _group(name: Any, groups: Sequence[str]) -> int | None:
    """The first group of words that contains a name."""
    whole = "".join(_words(name))
    forms = (whole, whole.removesuffix("id"), whole.removeprefix("id"))
    return next((i for i, group in enumerate(groups) if any(_is_in(form, group) for form in forms)), None)


def _is_in(word: str, words: str) -> bool:
    return word in words.split() or word.removesuffix("s") in words.split()


def _called(frame: Any, names: Sequence[str], what: str, groups: Sequence[str]) -> str | None:
    """The column with a usual name of users or items; None if there is none."""
    called = {name: _group(name, groups) for name in names}
    first = min((group for group in called.values() if group is not None), default=None)
    candidates = [name for name in names if first is not None and called[name] == first]
    if len(candidates) > 1:
        listed = ", ".join(map(repr, candidates[:4]))
        do = f"Name it with {what}={candidates[0]!r}."
        raise DataError(f"it must be clear which column holds the {what}s", f"{listed} are all candidates", do)
    if candidates:
        _check_can_be_ids(frame, candidates[0], what, what_it_holds(frame.get_column(candidates[0])))
    return candidates[0] if candidates else None


def _next(frame: Any, names: Sequence[str], what: str, only: bool) -> str:
    """The first of some columns without a usual name, if it can hold ids."""
    if not names:
        got = "there is no column left for them"
        raise DataError(f"a frame of interactions must have a column of {what}s", got, NAME_THEM)
    name, column = names[0], frame.get_column(names[0])
    holds = {"value": "values, by its name", "time": "times, by its name"}.get(kind_of_name(name), "")
    holds = holds or what_it_holds(column)
    if not holds and not only:
        holds = "numbers with a point" if column.dtype.is_float() else _seconds(column)
    _check_can_be_ids(frame, name, what, holds)
    return name


def _check_can_be_ids(frame: Any, name: str, what: str, holds: str) -> None:
    if holds:
        others = ", ".join(repr(other) for other in frame.columns if other != name)
        raise DataError(
            f"it must be clear which column holds the {what}s",
            f"the next one, {name!r}, holds {holds}",
            f"Name it with {what}=...: {name!r}, if that is right, or one of {others:.200}.",
        )


def what_it_holds(column: Any) -> str:
    """A description of values that cannot be ids, dates or numbers with fractions; empty for all others."""
    dtype = column.dtype
    if dtype in (nw.Date, nw.Datetime, nw.Time, nw.Duration):
        return f"times ({str(dtype).partition('(')[0].lower()})"
    if dtype in (nw.String, nw.Object):
        known = column.drop_nulls().to_list()
        if known and all(isinstance(v, date) or (isinstance(v, str) and MOMENT.fullmatch(v)) for v in known):
            return f"dates (first: {str(known[0])!r})"
    if dtype.is_float():
        values = column.drop_nulls().to_numpy()
        fraction = np.isfinite(values) & (values != np.rint(values))
        return f"numbers with fractions (first: {values[fraction][0]:g})" if fraction.any() else ""
    return ""


def _seconds(column: Any) -> str:
    """A note if integers look like times since 1970, in seconds or smaller units; else empty."""
    if not column.dtype.is_integer() or column.is_null().any() or not len(column):
        return ""
    low, high = int(column.min()), int(column.max())
    times = any(SECONDS[0] * unit <= low and high < SECONDS[1] * unit for unit in (1, 10**3, 10**6, 10**9))
    return f"numbers like times since 1970 (first: {column[0]})" if times else ""


NAME_THEM = "Name them with user=... and item=...."

# ---- ids -------------------------------------------------------------------------------------------------------------

ONE_KIND = "ids must be integers or strings, all of one kind"
DROP = "Drop such rows, or convert all ids to strings."


def ids_of(values: Any, where: str) -> np.ndarray:
    """Ids (n,) of a column, an array or a list: int64, uint64 if necessary, or strings as objects.

    Raises
    ------
    DataError
        If one is missing or invalid.
    """
    ids = _of_column(values, where) if isinstance(values, nw.Series) else array_of(values)
    if ids.dtype.kind == "u" and len(ids) and int(ids.max()) >= 2**63:
        return ids.astype(np.uint64)
    if ids.dtype.kind in "iu" or not len(ids):
        return ids.astype(np.int64)
    if ids.dtype.kind == "f" and (np.abs(ids) <= EXACT).all() and (ids == np.rint(ids)).all():
        return ids.astype(np.int64)  # float64 represents these exactly
    if isinstance(values, nw.Series) and values.dtype == nw.String:
        return ids
    objects = objects_of(ids.tolist() if ids.dtype.kind in "fbUT" else ids)
    if all(isinstance(value, str) for value in objects):
        return objects_of(map(str, objects))
    numbers = [whole_number(value) for value in objects]
    if None not in numbers:
        integers = whole_numbers([objects_of(numbers)])
        if integers is not None:
            return integers
    raise DataError(ONE_KIND, _first_that_is_none(objects, where), DROP)


def _of_column(column: Any, where: str) -> np.ndarray:
    missing = column.is_null()
    if missing.any():
        row = int(np.argmax(missing.to_numpy()))
        raise DataError(ONE_KIND, f"{where} has a missing value, {column[row]} (row {row})", DROP)
    simple = column.dtype.is_float() or (column.dtype.is_integer() and column.dtype not in (nw.Int128, nw.UInt128))
    return np.asarray(column.to_numpy()) if simple else objects_of(column.to_list())


def array_of(ids: Any) -> np.ndarray:
    """Ids as an array (n,); lists become objects, as NumPy would convert numbers among strings to strings."""
    if isinstance(ids, np.ndarray):
        return np.atleast_1d(ids)
    return objects_of([ids] if isinstance(ids, str | bytes) or not isinstance(ids, Iterable) else ids)


def whole_number(value: Any) -> int | None:
    """A value as an int; None if it is not an integer, or may have been rounded."""
    if isinstance(value, bool | np.bool_ | np.timedelta64) or not isinstance(value, Real | Decimal):
        return None
    if isinstance(value, Integral):
        return int(value)
    number = value if isinstance(value, Decimal) else float(value)
    exact = number.is_finite() and number.adjusted() < 20 if isinstance(number, Decimal) else abs(number) <= EXACT
    return int(number) if exact and number == int(number) else None


def _first_that_is_none(objects: np.ndarray, where: str) -> str:
    """Describe the first value that is not a valid id, or not of the kind of the others."""
    text = isinstance(next((v for v in objects if isinstance(v, str) or whole_number(v) is not None), None), str)
    bad = ((i, v) for i, v in enumerate(objects) if not (isinstance(v, str) if text else _fits(v)))
    row, value = next(bad, None) or max(enumerate(objects), key=lambda each: each[1])
    large = ", which 64 bits do not hold together with the others" if whole_number(value) is not None else ""
    return f"{where} has {str(value) if isinstance(value, np.generic) else repr(value):.60} (row {row}){large}"


def _fits(value: Any) -> bool:
    number = whole_number(value)
    return number is not None and -(2**63) <= number < 2**64


def is_text(ids: np.ndarray) -> bool:
    """Whether ids are strings."""
    return ids.dtype.kind not in "iu"


def as_texts(ids: np.ndarray) -> np.ndarray:
    """Ids (n,) as strings."""
    return objects_of(map(str, ids.tolist()))


def all_ids(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The unique ids of two arrays of one kind, in ascending order."""
    if some.dtype == others.dtype:
        return np.union1d(some, others)
    ids = whole_numbers([part.astype(object) for part in (some, others)])
    if ids is None:
        got = "there are negative ones and others of at least 2**63"
        raise DataError("integer ids must fit into 64 bits", got, "Convert all ids to strings.")
    return np.unique(ids)


# ---- values and times ------------------------------------------------------------------------------------------------


def values_of(column: Any, name: str) -> np.ndarray:
    """A column of finite numbers, float64."""
    dtype = column.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        values = np.array(column.cast(nw.Float64).to_numpy(), np.float64)
    else:
        listed = column.to_list()
        values = np.array([float(v) if isinstance(v, Real | Decimal) else np.nan for v in listed], np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        got = f"column {name!r} has others: {str(column[row])[:40]!r} (row {row})"
        raise DataError("values of interactions must be finite numbers", got, "Drop such rows.")
    return values


def times_of(column: Any, name: str) -> np.ndarray:
    """A column of numbers, dates or ISO strings as numbers in the order of time.

    Integers and dates keep all their digits. Strings are all numbers or all dates; of dates, all or none have a UTC
    offset.
    """
    if column.dtype == nw.Datetime and column.dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    missing = column.is_null().to_numpy()
    kinds: set[str] = set()
    row = int(np.argmax(missing)) if missing.any() else -1
    if row < 0:
        long = column.dtype in (nw.Int128, nw.UInt128)  # not in NumPy
        values = np.asarray(column.to_list() if long else column.to_numpy())
        numbers = values.dtype.kind in "iuM" or (values.dtype.kind == "f" and np.isfinite(values).all())
        if numbers and values.ndim == 1:
            return values.astype(np.int64) if values.dtype.kind == "M" else values
        times = [_time(value) for value in column.to_list()]
        kinds = {kind for kind, _ in times}
        if len(kinds) <= 1 and "" not in kinds:
            return np.array([time for _, time in times])
        row = next(i for i, (kind, _) in enumerate(times) if kind == "" or kind != times[0][0])
    several = ", of another kind than the first" if kinds and "" not in kinds else ""
    raise DataError(
        "times must be numbers, dates or ISO strings such as 2026-01-31, all of one kind",
        f"column {name!r} has others: {str(column[row])[:40]!r}{several} (row {row})",
        "Drop such rows, or convert them.",
    )


def _time(value: Any) -> tuple[str, Any]:
    """The kind of a time, "number", "date", "date with an offset" or "" if it is none, and its value for sorting."""
    if isinstance(value, Real | Decimal) and not isinstance(value, bool):
        return ("number", value) if np.isfinite(float(value)) else ("", None)
    text = str(value).strip() if isinstance(value, str | date) else ""
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return "number", int(text)
    try:
        number = float(text)
        return ("number", number) if np.isfinite(number) and "_" not in text else ("", None)
    except ValueError:
        pass
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(text)
    except ValueError:
        return "", None
    moment = when if when.tzinfo else when.replace(tzinfo=UTC)
    return "date with an offset" if when.tzinfo else "date", round((moment - EPOCH).total_seconds() * 10**6)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
