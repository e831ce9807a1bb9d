"""Tables as text (.csv, .tsv), read as columns of words; `data.words` infers the type of each column."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import warnings
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data.streams import broken, open_bytes, rows_of_text, whole
from elbowroom.data.words import EXACT, NUMBER, Words, as_whole, values_of, words_among_numbers
from elbowroom.errors import counted, warn

WHAT = "a table as text (UTF-8)"
AT_ONCE = 2**20  # words
BLOCK, CHUNK = 2**24, 2**18  # bytes
OPENED = re.compile(r'(^|[,;]) *"')  # a quote inside a word is an ordinary character
QUOTED = re.compile(OPENED.pattern + r'[^"]*(""[^"]*)*"(?!")')
MOST_LINES = 100  # that are searched for the separator


@dataclass(frozen=True)
class Delimited:
    """A delimited text file, which is parsed when its columns are needed.

    Parameters
    ----------
    path : Path
    separator : str
    names : sequence of str
        Names of the columns; numbers if the file has none.
    named : bool
        Whether the file has names.
    header : int
        Number of lines of the header. Below it, an empty line is a row only if there is a single column.
    """

    path: Path
    separator: str
    names: Sequence[str]
    named: bool
    header: int

    def columns(self, texts: Collection[str] = ()) -> dict[str, np.ndarray]:
        """The columns by name, with types inferred by `values_of`; those in `texts` are always text."""
        numbers = None if {*texts} & {*self.names} else self._numbers()
        if numbers is not None:
            return numbers
        words = self.words()
        values = {name: words[name].texts() if name in texts else values_of(words[name]) for name in words}
        for name in values:
            if name not in texts and (few := words_among_numbers(values[name])):
                n, row, word = few
                warn(
                    f"column {name!r} of {self.path} is text, because of {counted(n, 'word')} in {len(values[name]):,} "
                    f"rows (first: row {row}, {word!r:.60}): all others are numbers",
                    2,
                )
        return values

    def words(self) -> dict[str, Words]:
        """The columns by name, as words."""
        with whole(self.path, WHAT):
            columns = _by_library(self) or _by_line(self)
            words = dict(zip(self.names, columns, strict=True))
            nameless = values_of(words[""]) if "" in words else None
            return words if nameless is None else _without_index(words, nameless)

    def _numbers(self) -> dict[str, np.ndarray] | None:
        """The columns if all are numeric, which NumPy reads fast and in little memory; else None."""
        with whole(self.path, WHAT), open_bytes(self.path) as file:
            try:
                body = Digits(self.after_header(file), self.separator, len(self.names) == 1)
                text = io.TextIOWrapper(io.BufferedReader(body, CHUNK), "ascii", newline="")
                # Private in Python, and of no effect where it is gone: the usual 8 KB take as long as the numbers.
                setattr(text, "_CHUNK_SIZE", CHUNK)  # noqa: B010
                with warnings.catch_warnings(action="ignore"):  # about a file without rows
                    values = np.loadtxt(text, delimiter=self.separator, quotechar='"', comments=None, ndmin=2)
            except ValueError:
                return None
        if values.shape[1] != len(self.names) or not len(values):
            return None
        if values.min() <= -EXACT or values.max() >= EXACT:  # float64 is not exact, so the words are parsed
            return None
        columns = {name: as_whole(values[:, j]) for j, name in enumerate(self.names)}
        return _without_index(columns, columns[""]) if "" in columns else columns

    def after_header(self, file: io.BufferedReader) -> io.BufferedReader:
        """Move an opened file to its first row, and return it.

        Raises
        ------
        Unusual
            If the line ends are mixed.
        """
        if file.peek(3)[:3] == BOM_UTF8:
            file.read(3)
        if any(b"\r" in file.readline().rstrip(b"\r\n") for _ in range(self.header)):
            raise Unusual("mixed line ends")
        return file


def read_delimited(path: Path) -> Delimited:
    """Open a delimited text file and read its column names; raises for duplicate names.

    The separator is a tab in a .tsv, and in a .csv the comma or the semicolon, whichever is more frequent outside
    quotes in the first row.
    """
    with whole(path, WHAT):
        with _opened(path) as file:
            lines_read, first = _first_row(file)
            separator = "\t" if ".tsv" in path.name.lower() else max(",", ";", key=first.count)
            rows = rows_of_text(path, chain(lines_read, file), separator)
            lines, header = next((found for found in rows if found[1]), (0, []))
        named = not _are_numbers(header)
        if not named and header:
            note = f"{path.name} has no header: its first line is read as a row"
            warn(note, 2)
        names = [name.strip() for name in header] if named else [str(i) for i in range(len(header))]
        _check_names(path, names)
        return Delimited(path, separator, names, named, lines if named else 0)


def _first_row(file: io.TextIOWrapper) -> tuple[list[str], str]:
    """The lines up to the end of the first non-empty row, and the part of this row outside quotes."""
    lines, row, outside = [], "", ""
    for line in file:
        lines.append(line)
        row = row + line if row else line.strip("\r\n")
        outside = QUOTED.sub(r"\1", row)
        if (row and not OPENED.search(outside)) or len(lines) == MOST_LINES:
            break
    return lines, outside


def _opened(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_bytes(path), "utf-8-sig", newline="")


def _are_numbers(header: Sequence[str]) -> bool:
    """Whether a first line has values, not names; 0, 1, 2, ... are default names of pandas."""
    counted = list(header) == [str(i) for i in range(len(header))] and len(header) != 1
    words = [word.strip() for word in header]
    return bool(words) and not counted and all(NUMBER.fullmatch(word) or word.lower() == "nan" for word in words)


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise broken(path, "a table whose columns have different names", f"two are called {twice!r}")


def _without_index(columns: dict[str, Any], nameless: np.ndarray) -> dict[str, Any]:
    """Drop a column without a name that is empty, or numbers the rows, as an index written by pandas."""
    if len(columns) == 1 or nameless.dtype.kind not in "if":
        return columns
    first = next(iter(columns)) == ""
    counts = first and any(np.array_equal(nameless, np.arange(len(nameless)) + start) for start in (0, 1))
    useless = counts or bool(np.isnan(nameless).all())
    return {name: column for name, column in columns.items() if name} if useless else columns


# ---- fast paths ------------------------------------------------------------------------------------------------------


class Unusual(ValueError):
    """Text that a fast path cannot read."""


class Digits(io.RawIOBase):
    """Bytes of a table of plain numbers; raises `Unusual` at anything else, and at codes such as 007.

    If the table has a single column, empty lines are `Unusual` too: NumPy would skip them.
    """

    def __init__(self, file: BinaryIO, separator: str, alone: bool) -> None:
        self.file, self.last, self.alone, self.end = file, b",", alone, b"\n"
        marks = bytearray(b"!" * 256)
        for letters, mark in ((b"123456789", b"1"), (b"0", b"0"), (b".eE", b"."), (b"\r\n" + separator.encode(), b",")):
            for letter in letters:
                marks[letter] = mark[0]
        self.marks = bytes(marks)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read and check bytes."""
        content = self.file.read(len(buffer))
        seen = self.last + content.translate(self.marks, b'+- "')
        if b"!" in seen or re.search(rb",0[01]", seen):
            raise Unusual("words or codes")
        if self.alone and re.search(rb"\n[\r\n]|\r\r", self.end + content):
            raise Unusual("empty lines")
        self.last, self.end = seen[-2:], content[-1:]
        buffer[: len(content)] = content
        return len(content)


class Plain(io.RawIOBase):
    """Bytes of a table without quotes and with one kind of line end; raises `Unusual` at anything else."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.last, self.spaces = file, b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read and check bytes."""
        content = self.file.read(len(buffer))
        seen = self.last + content
        mixed = seen.count(b"\r", 0, -1) != seen.count(b"\r\n") or (not content and self.last == b"\r")
        if mixed or b'"' in content or (not self.last and content.startswith(BOM_UTF8)):
            raise Unusual("mixed line ends, quotes, or a byte order mark")
        self.last = content[-1:] or self.last
        self.spaces |= b" " in content
        buffer[: len(content)] = content
        return len(content)


def _by_library(table: Delimited) -> list[Words] | None:
    """The columns of a file that pyarrow or polars reads as the csv module does; None for any other."""
    library = _library()
    if library is None or not table.names:
        return None
    with open_bytes(table.path) as file:
        try:
            plain = Plain(table.after_header(file))
            frame = READERS[library](plain, table.separator, [str(j) for j in range(len(table.names))])
        except (MemoryError, OSError):
            raise
        except Exception:  # `_by_line` reports what is wrong, and where
            return None
    columns = [frame.get_column(name) for name in frame.columns]
    if any((column.str.len_chars().max() or 0) > csv.field_size_limit() for column in columns):
        return None
    return [Words(column.str.replace_all("^ +", "") if plain.spaces else column) for column in columns]


def _library() -> str | None:
    return next((name for name in READERS if importlib.util.find_spec(name)), None)


def _by_pyarrow(file: Plain, separator: str, names: list[str]) -> Any:
    import pyarrow as pa
    from pyarrow import csv as reader

    read = reader.ReadOptions(column_names=names, block_size=BLOCK)
    parse = reader.ParseOptions(
        delimiter=separator, quote_char=False, double_quote=False, ignore_empty_lines=len(names) > 1
    )
    convert = reader.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return nw.from_native(reader.read_csv(file, read, parse, convert), eager_only=True)


def _by_polars(file: Plain, separator: str, names: list[str]) -> Any:
    import polars as pl

    content, commas = file.read(), separator.encode()
    if not all(line and line.count(commas) == len(names) - 1 for line in content.splitlines()):
        raise Unusual("polars takes empty lines for rows, and pads short rows")
    schema = dict.fromkeys(names, pl.String)
    frame = pl.read_csv(content, has_header=False, separator=separator, quote_char=None, schema=schema).fill_null("")
    return nw.from_native(frame, eager_only=True)


READERS: dict[str, Callable[[Plain, str, list[str]], Any]] = {"pyarrow": _by_pyarrow, "polars": _by_polars}


# ---- line by line ----------------------------------------------------------------------------------------------------


def _by_line(table: Delimited) -> list[Words]:
    library: Any = _library()
    frames: list[Any] = []
    pieces: list[list[str]] = [[] for _ in table.names]
    for columns in _in_pieces(table):
        if library is None:
            for piece, words in zip(pieces, columns, strict=True):
                piece.append("\0".join(words))
        else:
            data = {str(j): list(words) for j, words in enumerate(columns)}
            frames.append(nw.from_dict(data, dict.fromkeys(data, nw.String()), backend=library))
    if not frames:
        return [Words(packed=piece) for piece in pieces]
    frame = nw.concat(frames)
    return [Words(frame.get_column(name)) for name in frame.columns]


def _in_pieces(table: Delimited) -> Iterator[list[tuple[str, ...]]]:
    """The columns, in chunks of rows."""
    width = len(table.names)
    empty = [""] if width == 1 else []
    with _opened(table.path) as file:
        numbered = rows_of_text(table.path, file, table.separator)
        rows = ((number, row or empty) for number, row in numbered if number > table.header and (row or empty))
        while piece := list(islice(rows, max(1, AT_ONCE // max(1, width)))):
            for number, row in piece:
                if len(row) != width:
                    got = f"line {number} has {counted(len(row), 'value')}, not {width:,}"
                    raise broken(table.path, "a table whose rows are equally long", got)
            yield list(zip(*(row for _, row in piece), strict=True))
