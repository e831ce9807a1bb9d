"""Files that are never half written, and paths that one process holds at a time."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file so that its name always stands for the whole old or the whole new content."""
    path = Path(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def folder_at_once(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """A new folder to fill, which takes the name of `path` when all is in it; until then nothing is seen of it.

    A folder that has the name already is an error, unless it is empty or is to be replaced.
    """
    path = Path(path)
    fresh = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name[:40]}."))
    old = fresh.with_name(f"{fresh.name}.old")
    try:
        yield fresh
        fresh.chmod(0o755)
        if replace and path.exists():
            path.rename(old)
        fresh.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)


@contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a file or a folder. The system lets go of it when the process ends, however it ends: no lock is left behind.

    Where the system has no such lock (Windows, some network drives) nothing is held.

    Raises
    ------
    BlockingIOError
        If it is held already, by another process or by another thread of this one.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
