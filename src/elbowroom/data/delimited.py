"""Tables as text (.csv, .tsv): columns of numbers where all of a column is numbers, else of text."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from elbowroom.data.streams import broken, open_bytes, rows_of_text, whole
from elbowroom.errors import counted, warn

WORDS = dict.fromkeys(("", "na", "n/a", "nan", "null", "none", "<na>", "#n/a", "?"), "nan") | {
    "true": "1",
    "false": "0",
}
AT_ONCE = 2**17  # values
Columns = dict[str, np.ndarray]


def read_delimited(path: Path) -> tuple[Columns, bool]:
    """The columns of a table by name, and whether the names are the file's own; without a header they are numbers.

    The separator is a tab in a .tsv, and in a .csv the comma or the semicolon, whichever the first line has more of.
    """
    with whole(path, "a table as text (UTF-8)"):
        with _opened(path) as file:
            first = file.readline()
            separator = "\t" if ".tsv" in path.name.lower() else max(",", ";", key=first.count)
            header = next((row for _, row in rows_of_text(path, chain([first], file), separator)), [])
        named = not _are_numbers(header)
        if not named and header:
            note = f"{path.name} has no header: its first line is read as a row"
            warn(note, 2)
        names = [name.strip() for name in header] if named else [str(i) for i in range(len(header))]
        _check_names(path, names)
        columns = _numbers(path, separator, names, named) or _columns(path, separator, names, named)
        return _without_index(columns), named


def _opened(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_bytes(path), "utf-8-sig", newline="")


def _are_numbers(header: Sequence[str]) -> bool:
    """Whether a first line is values and not names; 0, 1, 2, ... are names that pandas gave."""
    counted = list(header) == [str(i) for i in range(len(header))] and len(header) != 1
    try:
        return bool([float(word) for word in header]) and not counted
    except ValueError:
        return False


def _numbers(path: Path, separator: str, names: Sequence[str], named: bool) -> Columns | None:
    """The columns if all is numbers, which NumPy reads ten times as fast; else None."""
    with _opened(path) as file:
        try:
            values = np.loadtxt(file, delimiter=separator, quotechar='"', comments=None, skiprows=int(named), ndmin=2)
        except (ValueError, TypeError):
            return None
    return {name: values[:, j] for j, name in enumerate(names)} if values.shape[1] == len(names) else None


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise broken(path, "a table whose columns have different names", f"two are called {twice!r}")


def _without_index(columns: Columns) -> Columns:
    """Leave out a column without a name that only counts the rows, as pandas writes an index, or that is empty."""
    nameless = columns.get("")
    if nameless is None or len(columns) == 1 or nameless.dtype.kind != "f":
        return columns
    first = next(iter(columns)) == ""
    counts = first and any(np.array_equal(nameless, np.arange(len(nameless)) + start) for start in (0, 1))
    useless = counts or bool(np.isnan(nameless).all())
    return {name: column for name, column in columns.items() if name} if useless else columns


def _columns(path: Path, separator: str, names: Sequence[str], named: bool) -> Columns:
    parts: list[list[np.ndarray]] = [[] for _ in names]
    with _opened(path) as file:
        rows = islice(rows_of_text(path, file, separator), int(named), None)
        while chunk := list(islice(rows, max(1, AT_ONCE // max(1, len(names))))):
            for number, row in chunk:
                if len(row) != len(names):
                    got = f"line {number} has {counted(len(row), 'value')}, not {len(names):,}"
                    raise broken(path, "a table whose rows are equally long", got)
            for part, words in zip(parts, zip(*(row for _, row in chunk), strict=True), strict=True):
                part.append(_values(words))
    return {name: _joined(part) for name, part in zip(names, parts, strict=True)}


def _values(words: Sequence[str]) -> np.ndarray:
    try:
        return np.array(list(map(float, words)))
    except ValueError:
        pass
    if all(word.strip().lower() in ("true", "false") for word in words):
        return np.array([word.strip().lower() == "true" for word in words])
    try:
        return np.array([float(WORDS.get(word.strip().lower(), word)) for word in words])
    except ValueError:
        return np.array(words, dtype=object)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    if any(part.dtype == object for part in parts):
        return np.concatenate([part if part.dtype == object else _as_text(part) for part in parts])
    return np.concatenate(parts) if parts else np.empty(0)


def _as_text(numbers: np.ndarray) -> np.ndarray:
    return np.array(["" if np.isnan(number) else f"{number:.17g}" for number in numbers], dtype=object)
