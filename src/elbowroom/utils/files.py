"""Atomic writes, files that are read as data only, and paths that are locked by one process at a time."""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MAX_JSON = 32 * 2**20  # bytes of a JSON file
MAX_MEMORY = 2**28  # bytes of memory that its values may take: up to sixty times their size in the file
COSTS = {"{": 200, "[": 72, ",": 40}  # bytes in memory of the value that the character begins or ends
ABANDONED = 3600.0  # seconds after which a temporary file is taken to be abandoned
RETRY = 0.05  # seconds between looks at a lock that another process has, where the system does not wait for it
WINDOWS = sys.platform == "win32"


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file atomically: a reader sees either the complete old or the complete new content."""
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
    """Context manager that yields a new folder, and renames it to `path` when the block succeeds.

    Raises OSError if `path` is a non-empty folder.
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
    """Delete a folder atomically: its name is free at once, and a killed process leaves only a temporary folder."""
    gone = temporary_name(path)
    try:
        path.rename(gone)
    except OSError:  # the parent folder is not writable
        gone = path
    shutil.rmtree(gone, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """A new path next to `path` for incomplete content; `is_temporary` recognises it."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")


def is_temporary(name: str, of: str) -> bool:
    """Whether a name is a temporary name for the file or folder named `of`."""
    return re.fullmatch(rf"\.{re.escape(of[:40])}\.[0-9a-f]{{16}}\.tmp", name) is not None


def delete(path: Path) -> None:
    """Delete a file, a link or a folder, if it can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _delete_abandoned(path: Path) -> None:
    """Delete temporary files next to a path that killed processes left behind."""
    folder = path.absolute().parent
    with suppress(OSError):
        for name in os.listdir(folder):
            if is_temporary(name, path.name) and time.time() - (folder / name).lstat().st_mtime > ABANDONED:
                delete(folder / name)


def _sync_folder(folder: Path) -> None:
    """Flush a folder, so that new names in it survive a crash of the machine, if its file system supports this."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file (or of a link to one) of at most `most` bytes.

    Raises
    ------
    OSError
        Also for pipes and devices, which might never end, and for files larger than `most`.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        if status.st_size > most:
            raise OSError(
                errno.EFBIG, f"it has {status.st_size:,} bytes, more than the {most:,} allowed", os.fspath(path)
            )
        with open(handle, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(handle)


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file, read in bounded time and memory.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or is not valid for `parse_json`.
    """
    return parse_json(read_file(path, MAX_JSON))


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError
        If it is not JSON, is nested too deeply, holds too many values, or has a duplicate name.
    """
    content = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    memory = sum(cost * content.count(mark.encode()) for mark, cost in COSTS.items())
    if len(content) > MAX_JSON or memory > MAX_MEMORY:
        raise ValueError("it holds too many values")
    collected = gc.isenabled()
    gc.disable()  # which would scan all values again and again while new ones are created
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    finally:
        if collected:
            gc.enable()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"it has {twice!r:.60} twice")
    return unique


# ---- locking ---------------------------------------------------------------------------------------------------------


@contextmanager
def held(path: str | os.PathLike[str], wait: bool = False) -> Iterator[bool]:
    """Lock a file or a folder. The system releases the lock when the process ends, however it ends.

    On Windows the lock applies to this user on this machine. Where the system has no locks (some network drives)
    nothing is locked, and the value is False.

    Raises
    ------
    BlockingIOError
        If another process or thread has locked it, and `wait` is False.
    FileNotFoundError
        If it does not exist, or was deleted while waiting.
    """
    with (_held_by_name if WINDOWS else _held_itself)(path, wait) as sure:
        yield sure


@contextmanager
def _held_itself(path: str | os.PathLike[str], wait: bool) -> Iterator[bool]:
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


@contextmanager
def _held_by_name(path: str | os.PathLike[str], wait: bool) -> Iterator[bool]:
    """Lock a file in the user's temporary folder that represents the path.

    Windows cannot open folders, read locked files, or delete and rename open ones.
    """
    msvcrt: Any = importlib.import_module("msvcrt")
    os.stat(path)  # raises if it does not exist
    lock = _lock_of(path)
    handle, sure = _opened(lock), False
    try:
        while not sure:
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                sure = True
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):  # locks are not supported
                    break
                if not wait:
                    raise BlockingIOError(errno.EAGAIN, "it is locked", os.fspath(path)) from error
                time.sleep(RETRY)
        if wait:
            os.stat(path)  # it may have been deleted meanwhile
        yield sure
    finally:
        if sure:
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        os.close(handle)
        with suppress(OSError):  # Windows cannot delete a file that another process has open
            lock.unlink()


def _lock_of(path: str | os.PathLike[str]) -> Path:
    """The lock file of a path, with links resolved."""
    place = os.path.normcase(os.path.realpath(path))
    name = hashlib.sha256(place.encode(errors="surrogatepass")).hexdigest()
    return Path(tempfile.gettempdir()) / "elbowroom-locks" / name


def _opened(lock: Path) -> int:
    """A handle of a file that another process may be deleting."""
    lock.parent.mkdir(exist_ok=True)
    for _ in range(20):
        with suppress(PermissionError):
            return os.open(lock, os.O_RDWR | os.O_CREAT)
        time.sleep(RETRY)
    return os.open(lock, os.O_RDWR | os.O_CREAT)
