"""Files that are never half written, files that are read as data alone, and paths that one process holds at a time."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MAX_JSON = 32 * 2**20  # bytes of a JSON file
MAX_MEMORY = 2**28  # bytes that its values may take: up to sixty times those that they are written in
COSTS = {"{": 200, "[": 72, ",": 40}  # bytes in memory of what these begin or end
ABANDONED = 3600.0  # seconds, after which nobody is still writing to a temporary file


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file so that its name always stands for the whole old or the whole new content."""
    path = Path(path)
    _delete_abandoned(path)
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.absolute().parent)


@contextmanager
def folder_at_once(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder to fill, which takes the name of `path` when all is in it; until then nothing is seen of it.

    A folder that has the name already is an error, unless it is empty.
    """
    path = Path(path)
    _delete_abandoned(path)
    fresh = temporary_name(path)
    fresh.mkdir()
    try:
        yield fresh
        fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _sync_folder(path.absolute().parent)


def delete_folder(path: Path) -> None:
    """Delete a folder, whose name is free at once: what a kill leaves of it has a temporary one."""
    gone = temporary_name(path)
    try:
        path.rename(gone)
    except OSError:  # the folder around it can not be written to
        gone = path
    shutil.rmtree(gone, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """A new name beside a path for what is not whole yet; `is_temporary` knows it."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")


def is_temporary(name: str, of: str) -> bool:
    """Whether a name is a temporary one of the file or folder with the name `of`."""
    return re.fullmatch(rf"\.{re.escape(of[:40])}\.[0-9a-f]{{16}}\.tmp", name) is not None


def delete(path: Path) -> None:
    """Delete a file, a link or a folder, if it can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _delete_abandoned(path: Path) -> None:
    """Delete what killed processes left beside a path that they were writing to."""
    folder = path.absolute().parent
    with suppress(OSError):
        for name in os.listdir(folder):
            if is_temporary(name, path.name) and time.time() - (folder / name).lstat().st_mtime > ABANDONED:
                delete(folder / name)


def _sync_folder(folder: Path) -> None:
    """Make sure that new names in a folder outlive a crash of the machine, where its file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most `most` bytes, or of one that a link leads to.

    Raises
    ------
    OSError
        Also for pipes and devices, which might never end, and for larger files.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, of {most:,} that it may have", os.fspath(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read(found.st_size)
    finally:
        os.close(handle)


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value that a JSON file holds, read in bounded time and memory.

    Raises
    ------
    OSError, ValueError
        Of a file that can not be read, and of one that `parse_json` refuses.
    """
    return parse_json(read_file(path, MAX_JSON))


def parse_json(content: bytes | str) -> Any:
    """The value that JSON says.

    Raises
    ------
    ValueError
        If it is no JSON, holds more values than any file of ours, or says a name twice.
    """
    content = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    memory = sum(cost * content.count(mark.encode()) for mark, cost in COSTS.items())
    if len(content) > MAX_JSON or memory > MAX_MEMORY:
        raise ValueError("it holds too many values")
    collected = gc.isenabled()
    gc.disable()  # which looks at all values again and again while there are ever more of them
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    finally:
        if collected:
            gc.enable()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"it has {twice!r:.60} twice")
    return found


# ---- holding ---------------------------------------------------------------------------------------------------------


@contextmanager
def held(path: str | os.PathLike[str], wait: bool = False) -> Iterator[bool]:
    """Hold a file or a folder. The system lets go of it when the process ends, however it ends: no lock is left behind.

    Where the system has no such lock (Windows, some network drives) nothing is held, and the context's value is False.

    Raises
    ------
    BlockingIOError
        If it is held already, by another process or by another thread of this one, and is not to be waited for.
    FileNotFoundError
        If it is not there, or not any more after the wait.
    """
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    handle = os.open(path, os.O_RDONLY)
    try:
        sure = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            sure = False
        if wait and not os.path.samestat(os.fstat(handle), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, "it was replaced", os.fspath(path))
        yield sure
    finally:
        os.close(handle)
