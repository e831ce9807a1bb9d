"""Bytes of data files: regular files only, decompressed up to a limit, with errors that say what is wrong."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from elbowroom.errors import DataError, ElbowroomError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PACKED, RATIO = 2**30, 200  # larger than PACKED bytes and than RATIO times the compressed size is an error
LINE = 2**26  # the most bytes of a line of text
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular(path: Path) -> os.stat_result:
    """The status of a regular file, with links followed. Every file is checked by this function before it is opened.

    Opening a pipe, a socket or a device may block, and reading it may never end.

    Raises
    ------
    DataError
        If the path does not exist or is not a regular file.
    """
    info = status(path)
    if info is None:
        raise DataError("a file must be there", f"{path} does not exist", "Check the path.")
    if not stat.S_ISREG(info.st_mode):
        kind = KINDS.get(stat.S_IFMT(info.st_mode), "something else")
        do = "Name a file in it." if stat.S_ISDIR(info.st_mode) else "Write it to a file first, and name that."
        raise DataError("what is read as a file must be a regular file", f"{path} is {kind}", do)
    return info


def status(path: Path) -> os.stat_result | None:
    """The status of a path, with links followed; None if it does not exist.

    Raises
    ------
    DataError
        If the system refuses the path: circular links, a name that is too long, or a folder without permission.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise refused(path, error) from error


def fingerprint(path: Path) -> tuple[int, ...] | None:
    """A value that changes if a file is changed or replaced; None if it does not exist."""
    found = status(path)
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def changed(path: Path) -> DataError:
    """The error for a file that was changed while it was read."""
    do = "Wait until it is written, or read a copy of it."
    return DataError("a file must stay as it is while it is read", f"{path} was changed", do)


def refused(path: Path, error: Exception) -> DataError:
    """The error for a file that the system does not open or read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError("a file must be one that the system reads", f"{path}: {reason}", "Check path and permissions.")


@contextmanager
def whole(path: Path, what: str) -> Iterator[None]:
    """Turn errors of a reader on corrupted content, errors of the system and MemoryError into a `DataError`."""
    try:
        yield
    except ElbowroomError:
        raise
    except MemoryError as error:
        do = "Use fewer rows or columns; if it is small, it may be broken."
        raise DataError(f"{path} must fit into memory", "memory ran out while it was read", do) from error
    except UnicodeDecodeError as error:
        raise _other_encoding(path, what, error) from error
    except csv.Error as error:
        quotes = "field larger" in str(error)
        why = "a cell has more than 100,000 characters: a quote may never be closed" if quotes else f"{error}"
        raise broken(path, what, why) from error
    except Exception as error:
        # EINVAL: the content told the reader to seek to before the start of the file
        by_content = not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)
        if not by_content:
            raise refused(path, error) from error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise broken(path, what, f"it cannot be read ({reason[0][:160].rstrip('.')})") from error


def broken(path: Path, what: str, why: str) -> DataError:
    """The error for a file whose content does not match its extension."""
    return DataError(f"{path} must be {what}", why, "Check the file, or export it again.")


def _other_encoding(path: Path, what: str, error: UnicodeDecodeError) -> DataError:
    with open_bytes(path) as file:
        first = file.read(2)
    if first in (b"\xff\xfe", b"\xfe\xff"):
        why, name = "it begins as UTF-16 does", "utf-16"
    else:
        byte = error.object[error.start]
        why, name = f"it has the byte 0x{byte:02x} where UTF-8 has another, perhaps in Windows-1252", "cp1252"
    return DataError(f"{path} must be {what}", why, f"Convert it to UTF-8, for example: iconv -f {name} -t utf-8.")


def check_ratio(path: Path, packed: int, unpacked: int) -> None:
    """Raise if a file decompresses to far more than its size."""
    if unpacked > PACKED and unpacked > RATIO * packed:
        raise DataError(
            "a packed file must unpack to a usual size",
            f"{path} has {packed:,} bytes and unpacks to {unpacked:,} or more",
            "If you trust it, unpack it first, or pass what it holds in Python.",
        )


class Unpacked(io.RawIOBase):
    """The decompressed content of a .gz file; raises if it is far larger than the file."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.unpacked = path, path.stat().st_size, 0
        self.file = gzip.GzipFile(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = self.file.readinto(buffer)
        self.unpacked += count
        check_ratio(self.path, self.size, self.unpacked)
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


class Lines(io.RawIOBase):
    """Bytes of a text file; raises at a line that is too long, and at NUL bytes."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.length = path, file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        taken = memoryview(buffer)
        chunk = self.file.read(len(taken))
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
        self.length = len(chunk) - 1 - end + (self.length if end < 0 else 0)
        if self.length > LINE:
            raise broken(self.path, "a table as text", f"it has a line of more than {LINE:,} bytes")
        if b"\0" in chunk and not chunk.startswith((b"\xff\xfe", b"\xfe\xff")):  # which has its own error
            raise broken(self.path, "a table as text", "it has NUL bytes, as UTF-16 and binary files have")
        taken[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self.file.close()
        super().close()


def open_bytes(path: Path) -> io.BufferedReader[Any]:
    """Open a regular file for reading bytes: decompressed if it ends in .gz, with lines checked in .csv and .tsv."""
    regular(path)
    name = path.name.lower()
    file = io.BufferedReader(Unpacked(path), 2**18) if name.endswith(".gz") else path.open("rb")
    return io.BufferedReader(Lines(path, file), 2**18) if name.removesuffix(".gz").endswith((".csv", ".tsv")) else file


def rows_of_text(path: Path, lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a delimited text, including empty lines, each with the number of its last line.

    Raises
    ------
    DataError
        If a quote is never closed.
    """
    reader, before = csv.reader(chain(lines, ["\0"]), delimiter=separator, skipinitialspace=True), 0
    for row in reader:
        if row and row[-1].endswith("\0"):  # the end mark, which does not occur in text
            if row != ["\0"]:
                raise broken(path, "a table as text", f"a quote is opened in line {before + 1} and never closed")
            return
        before = reader.line_num
        yield before, row


def read_text(path: Path, what: str) -> str:
    """Read a small regular file as UTF-8 text.

    Raises
    ------
    DataError
        If it is missing, not a regular file, too large or not text.
    """
    if regular(path).st_size > LINE:
        raise broken(path, what, f"it has more than {LINE:,} bytes")
    with whole(path, what):
        return path.read_bytes().decode("utf-8")
