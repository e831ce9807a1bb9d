"""Infer what the words of a text column are: numbers, booleans, ids, or text. A column has one type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.errors import DataError

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "<na>", "#n/a", "?"))  # in lower case
FLAGS = ("false", "true")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
WHOLE = re.compile(r"[+-]?[0-9]+")
CODE = r"[+-]?(?:0[0-9]+|[0-9]{21,})"  # such as 007, or more than 64 bits: digits would be lost as a number
CANONICAL = re.compile(r"0|-?[1-9][0-9]{0,19}")  # the usual form of a 64-bit integer
MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?Z?")
DIGITS = b"0123456789.eE+- ;"
EXACT = 2**53  # float64 represents every whole number up to this
AT_ONCE = 2**17  # words
AT_A_GLANCE = 100
FEW_WORDS = 0.05  # at most this share of a column's words
SHORT = 2**12  # words; below this, parsing in Python is faster than starting a library


@dataclass
class Words:
    """A column of a text file as strings.

    Parameters
    ----------
    series : narwhals Series or None
        All words, if a data frame library is installed.
    packed : sequence of str or list of str
        Otherwise the words in pieces: lists, or strings joined by NUL, which text files do not contain.
    """

    series: Any = None
    packed: Sequence[str | list[str]] = ()

    def lists(self) -> Iterator[list[str]]:
        """Iterate over the words in lists."""
        if self.series is None:
            yield from (part.split("\0") if isinstance(part, str) else part for part in self.packed)
        else:
            yield from (self.series[at : at + AT_ONCE].to_list() for at in range(0, len(self.series), AT_ONCE))

    def texts(self) -> np.ndarray:
        """The words (n,), as an object array."""
        return objects_of(chain.from_iterable(self.lists()))


def objects_of(values: Any) -> np.ndarray:
    """Any values as an object array (n,)."""
    objects = list(values)
    return np.fromiter(objects, object, len(objects))


# ---- columns of tables -----------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A piece of a column: which words are missing, and the values of the others."""

    missing: np.ndarray | None  # None if none is missing
    values: np.ndarray  # float64, bool, int64, or objects for integers beyond 64 bits

    @property
    def sort(self) -> str:
        """What the words are: "flag", "whole", "real", or "" if all are missing."""
        return {"b": "flag", "f": "real"}.get(self.values.dtype.kind, "whole") if len(self.values) else ""


def values_of(words: Words) -> np.ndarray:
    """The values (n,) of a column of a table.

    Whole numbers (also 1.0) are int64 or uint64, other numbers float64. With missing words, numbers are float64 with
    NaN; booleans, and integers that float64 does not represent, are then objects with None. All other columns are
    text, and so are codes with leading zeros and integers of more than 64 bits.
    """
    values = _by_library(words.series) if words.series is not None and len(words.series) > SHORT else None
    if values is None:
        parts: list[Part] = []
        for piece in words.lists():
            part = _in_digits(piece) or _with_missing(piece)
            if part is None:
                return words.texts()
            parts.append(part)
        values = _joined(parts)
    return words.texts() if values is None else values


def words_among_numbers(values: np.ndarray) -> tuple[int, int, str] | None:
    """The few words that are not numbers in a column (n,) of numbers: how many, and row and word of the first.

    None for all other columns, and for codes with leading zeros.
    """
    if values.dtype != object or not all(isinstance(value, str) for value in values[:AT_A_GLANCE]):
        return None
    some = values[np.linspace(0, len(values) - 1, min(len(values), AT_A_GLANCE)).astype(int)]
    if sum(map(_is_no_number, some)) > FEW_WORDS * len(some):
        return None
    rows = [row for row, value in enumerate(values) if _is_no_number(value)]
    return (len(rows), rows[0], values[rows[0]]) if 0 < len(rows) <= FEW_WORDS * len(values) else None


def _is_no_number(word: Any) -> bool:
    word = word.strip() if isinstance(word, str) else ""
    return word.lower() not in MISSING and NUMBER.fullmatch(word) is None


def _by_library(series: Any) -> np.ndarray | None:
    """The values of a column of plain numbers, which libraries parse fast; None for all others."""
    values = _numbers(series)
    if values is None:
        missing = series.str.to_lowercase().is_in(sorted(MISSING))
        if missing.any() and not missing.all():
            values = _numbers(
                series.to_frame().select(nw.when(~missing).then(nw.col(series.name))).get_column(series.name)
            )
    return values


def _numbers(series: Any) -> np.ndarray | None:
    known = series.drop_nulls()
    whole = _canonical(known)
    if whole is not None:
        return _joined([Part(series.is_null().to_numpy() if len(known) < len(series) else None, whole)])
    real = _cast(series, nw.Float64)
    if real is None:
        return None
    values = real.to_numpy()
    fraction = known.str.contains("[.eE]")
    others = known.filter(~fraction)
    plain = len(others) < len(fraction) and not others.str.contains(f"^{CODE}$").any()
    finite = np.isfinite(values).sum() == len(fraction)  # infinity has several spellings
    if not plain or not finite:
        return None
    return np.array(values, np.float64) if len(known) < len(series) else as_whole(values)


def _cast(series: Any, dtype: Any) -> Any:
    try:
        return series.cast(dtype)
    except MemoryError:
        raise
    except Exception:  # libraries have their own exceptions
        return None


def _in_digits(words: list[str]) -> Part | None:
    """A piece of finite numbers only, parsed without checking each word; None for others."""
    joined = ";".join(words)
    if not joined.isascii() or joined.encode().translate(None, DIGITS) or re.search(rf"(^|;) *{CODE} *(;|$)", joined):
        return None
    try:
        if not any(letter in joined for letter in ".eE"):
            return Part(None, _integers(words))
        real = np.array(list(map(float, words)))
    except ValueError:
        return None
    return Part(None, real) if np.isfinite(real).all() else None


def _with_missing(words: list[str]) -> Part | None:
    """A piece of numbers or booleans, some perhaps missing; None for text."""
    stripped = [word.strip() for word in words]
    missing = np.array([word.lower() in MISSING for word in stripped], bool)
    known = [word for word, no in zip(stripped, missing.tolist(), strict=True) if not no]
    gone = missing if missing.any() else None
    if all(word.lower() in FLAGS for word in known):
        return Part(gone, np.array([word.lower() == "true" for word in known], bool))
    if not all(NUMBER.fullmatch(word) and not re.fullmatch(CODE, word) for word in known):
        return None
    whole = all(map(WHOLE.fullmatch, known))
    return Part(gone, _integers(known) if whole else np.array(list(map(float, known))))


def _integers(words: list[str]) -> np.ndarray:
    """Integers as int64, or as objects if one of them does not fit."""
    numbers = list(map(int, words))
    fit = min(numbers, default=0) >= -(2**63) and max(numbers, default=0) < 2**63
    return np.array(numbers, np.int64) if fit else objects_of(numbers)


def _joined(parts: Sequence[Part]) -> np.ndarray | None:
    """The values of all pieces; None if their types differ, or they do not fit into 64 bits."""
    sorts = {part.sort for part in parts} - {""}
    if not sorts:
        return np.full(sum(_length(part) for part in parts), np.nan)
    if "flag" in sorts and len(sorts) > 1:
        return None
    known = [part.values for part in parts if part.sort]
    if "real" in sorts:
        values = np.concatenate([part.astype(np.float64) for part in known])
    elif "flag" in sorts:
        values = np.concatenate(known)
    else:
        whole = whole_numbers(known)
        if whole is None:
            return None
        values = whole
    if all(part.missing is None for part in parts):
        return as_whole(values)
    missing = np.concatenate([np.zeros(_length(p), bool) if p.missing is None else p.missing for p in parts])
    return _beside(missing, values)


def as_whole(values: np.ndarray) -> np.ndarray:
    """Floats as int64 if all are whole, so that a class is called 3 and not 3.0; other values unchanged."""
    for some in (values[:AT_A_GLANCE], values) if values.dtype.kind == "f" else ():
        if not ((some == np.rint(some)) & (np.abs(some) < EXACT)).all():
            return values
    return values.astype(np.int64) if values.dtype.kind == "f" else values


def _length(part: Part) -> int:
    return len(part.values if part.missing is None else part.missing)


def _beside(missing: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Insert values between missing ones."""
    real = values.dtype.kind == "f" or (values.dtype.kind in "iu" and _are_exact(values))
    column = np.full(len(missing), np.nan) if real else np.full(len(missing), None, dtype=object)
    column[~missing] = values if real else values.tolist()
    return column


def _are_exact(values: np.ndarray) -> bool:
    """Whether float64 represents all of some integers."""
    return int(values.max()) <= EXACT and int(values.min()) >= -EXACT


def whole_numbers(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Join integers, int64 or Python's, into an array of int64, or of uint64 if necessary; None if neither holds them.

    >>> whole_numbers([np.array([2**63], object), np.array([1])]).dtype, whole_numbers([np.array([-1, 2**63], object)])
    (dtype('uint64'), None)
    """
    filled = [part for part in parts if len(part)]
    low, high = min((int(p.min()) for p in filled), default=0), max((int(p.max()) for p in filled), default=0)
    if low < -(2**63) or high >= 2**64 or (low < 0 and high >= 2**63):
        return None
    dtype = np.uint64 if high >= 2**63 else np.int64
    return np.concatenate([part.astype(dtype) for part in filled]) if filled else np.empty(0, dtype)


# ---- columns of ids --------------------------------------------------------------------------------------------------


def ids_of_words(words: Words, where: str) -> np.ndarray:
    """The ids (n,) of a column of interactions: integers if every word is in the usual form of one, else the words.

    Raises
    ------
    DataError
        If an id is empty.
    """
    if words.series is not None and (found := _canonical(words.series)) is not None:
        return found
    numbers: list[np.ndarray] | None = []
    at = 0
    for piece in words.lists():
        if "" in piece:
            got = f"{where} has an empty value (row {at + piece.index('')})"
            raise DataError("every interaction must have a user and an item", got, "Fill it in, or drop the row.")
        at += len(piece)
        if numbers is not None:
            numbers = [*numbers, objects_of(map(int, piece))] if all(map(CANONICAL.fullmatch, piece)) else None
    whole = None if numbers is None else whole_numbers(numbers)
    return words.texts() if whole is None else whole


def _canonical(series: Any) -> np.ndarray | None:
    """The numbers of a column in which every word is in the usual form of an int64; None for all others."""
    whole = _cast(series, nw.Int64)
    return whole.to_numpy() if whole is not None and (whole.cast(nw.String) == series).all() else None
