"""What the words of a column of text are: numbers, truth values, ids, or text. All of a column is one thing."""

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
CODE = r"[+-]?(?:0[0-9]+|[0-9]{21,})"  # such as 007, or of more than 64 bits: as a number it would lose digits
CANONICAL = re.compile(r"0|-?[1-9][0-9]{0,19}")  # what a whole number of 64 bits is written as
MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?Z?")
DIGITS = b"0123456789.eE+- ;"
EXACT = 2**53  # up to which float64 holds every whole number
AT_ONCE = 2**17  # words
AT_A_GLANCE = 100
FEW_WORDS = 0.05  # share of a column's words, up to which they are said to be few
SHORT = 2**12  # words, which are read one by one before a library has begun


@dataclass
class Words:
    """A column of a text file, nothing of it read as something else.

    Parameters
    ----------
    series : narwhals Series or None
        All words, where a library that holds text is installed.
    packed : sequence of str or list of str
        Otherwise the words in pieces, also joined by NUL, which no text file has in it.
    """

    series: Any = None
    packed: Sequence[str | list[str]] = ()

    def lists(self) -> Iterator[list[str]]:
        """The words, piece by piece."""
        if self.series is None:
            yield from (part.split("\0") if isinstance(part, str) else part for part in self.packed)
        else:
            yield from (self.series[at : at + AT_ONCE].to_list() for at in range(0, len(self.series), AT_ONCE))

    def texts(self) -> np.ndarray:
        """The words (n,), as objects."""
        return objects_of(chain.from_iterable(self.lists()))


def objects_of(values: Any) -> np.ndarray:
    """Any values as an array (n,) of objects."""
    found = list(values)
    return np.fromiter(found, object, len(found))


# ---- columns of tables -----------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A piece of a column: where words are missing, and what the others are."""

    missing: np.ndarray | None  # None: nowhere
    values: np.ndarray  # float64, bool, or whole numbers: int64, or objects where these do not hold them

    @property
    def sort(self) -> str:
        """What the words are: "flag", "whole", "real", or "" where all are missing."""
        return {"b": "flag", "f": "real"}.get(self.values.dtype.kind, "whole") if len(self.values) else ""


def values_of(words: Words) -> np.ndarray:
    """The values (n,) of a column of a table.

    Whole numbers are int64 or uint64 (1.0 is one too) and other numbers float64. Where words are missing, numbers are
    float64 with NaN; whole numbers that float64 does not hold, and truth values, are then objects with None. All other
    columns are text, as it is written, and so are codes with leading zeros and whole numbers of more than 64 bits.
    """
    found = _by_library(words.series) if words.series is not None and len(words.series) > SHORT else None
    if found is None:
        parts: list[Part] = []
        for piece in words.lists():
            part = _in_digits(piece) or _with_missing(piece)
            if part is None:
                return words.texts()
            parts.append(part)
        found = _joined(parts)
    return words.texts() if found is None else found


def words_among_numbers(values: np.ndarray) -> tuple[int, int, str] | None:
    """Of a column (n,) of text in which nearly all is numbers, how many words are none, and the first: row and word.

    None of all other columns, and of codes with leading zeros, which are digits too.
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
    """The values of a column of plain numbers, which libraries read fast; None of all others."""
    found = _numbers(series)
    if found is None:
        missing = series.str.to_lowercase().is_in(sorted(MISSING))
        if missing.any() and not missing.all():
            found = _numbers(
                series.to_frame().select(nw.when(~missing).then(nw.col(series.name))).get_column(series.name)
            )
    return found


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
    finite = np.isfinite(values).sum() == len(fraction)  # infinite ones are written in several ways
    if not plain or not finite:
        return None
    return np.array(values, np.float64) if len(known) < len(series) else as_whole(values)


def _cast(series: Any, dtype: Any) -> Any:
    try:
        return series.cast(dtype)
    except MemoryError:
        raise
    except Exception:  # each library has its own
        return None


def _in_digits(words: list[str]) -> Part | None:
    """A piece of finite numbers alone, without a look at each word."""
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
    """A piece of numbers or truth values, perhaps with missing ones; None of text."""
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
    """Whole numbers as int64, or as objects if one of them does not fit."""
    numbers = list(map(int, words))
    fit = min(numbers, default=0) >= -(2**63) and max(numbers, default=0) < 2**63
    return np.array(numbers, np.int64) if fit else objects_of(numbers)


def _joined(parts: Sequence[Part]) -> np.ndarray | None:
    """The values of all pieces; None if they are not of one kind, or do not fit 64 bits."""
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
    """Numbers that are all whole as int64, so that a class is called 3 and not 3.0; any other values as they are."""
    for some in (values[:AT_A_GLANCE], values) if values.dtype.kind == "f" else ():
        if not ((some == np.rint(some)) & (np.abs(some) < EXACT)).all():
            return values
    return values.astype(np.int64) if values.dtype.kind == "f" else values


def _length(part: Part) -> int:
    return len(part.values if part.missing is None else part.missing)


def _beside(missing: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values in their places among missing ones."""
    real = values.dtype.kind == "f" or (values.dtype.kind in "iu" and _are_exact(values))
    found = np.full(len(missing), np.nan) if real else np.full(len(missing), None, dtype=object)
    found[~missing] = values if real else values.tolist()
    return found


def _are_exact(values: np.ndarray) -> bool:
    """Whether float64 holds whole numbers as they are."""
    return int(values.max()) <= EXACT and int(values.min()) >= -EXACT


def whole_numbers(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Whole numbers, int64 or Python's own, as one array of int64, or of uint64 if need be; None if neither holds them.

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
    """The ids (n,) of a column of interactions: whole numbers if every word is how one is written, else the words.

    Raises
    ------
    DataError
        If one is empty.
    """
    if words.series is not None and (found := _canonical(words.series)) is not None:
        return found
    numbers: list[np.ndarray] | None = []
    at = 0
    for piece in words.lists():
        if "" in piece:
            got = f"{where} has an empty one (row {at + piece.index('')})"
            raise DataError("every interaction must have a user and an item", got, "Fill it in, or drop the row.")
        at += len(piece)
        if numbers is not None:
            numbers = [*numbers, objects_of(map(int, piece))] if all(map(CANONICAL.fullmatch, piece)) else None
    whole = None if numbers is None else whole_numbers(numbers)
    return words.texts() if whole is None else whole


def _canonical(series: Any) -> np.ndarray | None:
    """The numbers of a column in which every word is how a number of int64 is written; None of all others."""
    whole = _cast(series, nw.Int64)
    return whole.to_numpy() if whole is not None and (whole.cast(nw.String) == series).all() else None
