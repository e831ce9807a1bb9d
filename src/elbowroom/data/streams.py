"""Bytes of data files: unpacked with a limit, and errors that say which file is broken and why."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from elbowroom.errors import DataError, ElbowroomError

PACKED, RATIO = 2**30, 200  # what unpacks to more than PACKED bytes and to more than RATIO times its size is refused


@contextmanager
def whole(path: Path, what: str) -> Iterator[None]:
    """Turn what a reader raises on broken content into a `DataError`; what the system says (no permission) passes."""
    try:
        yield
    except (ElbowroomError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise broken(path, what, f"it can not be read ({reason[0][:160].rstrip('.')})") from error


def broken(path: Path, what: str, why: str) -> DataError:
    """The error for a file whose content is not what its name says."""
    return DataError(f"{path} must be {what}", why, "Check the file, or export it again.")


def check_ratio(path: Path, packed: int, unpacked: int) -> None:
    """Refuse what unpacks to far more than it is."""
    if unpacked > PACKED and unpacked > RATIO * packed:
        raise DataError(
            "a packed file must unpack to a usual size",
            f"{path} has {packed:,} bytes and unpacks to {unpacked:,} or more",
            "If you trust it, unpack it first.",
        )


class Unpacked(io.RawIOBase):
    """The content of a .gz file, which stops with an error where it grows out of proportion."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.seen = path, path.stat().st_size, 0
        self.file = gzip.GzipFile(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self.file.readinto(buffer)
        self.seen += count
        check_ratio(self.path, self.size, self.seen)
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def open_bytes(path: Path) -> BinaryIO:
    """A file to read bytes from, unpacked if its name ends in .gz."""
    return io.BufferedReader(Unpacked(path), 2**18) if path.name.lower().endswith(".gz") else path.open("rb")
