"""What Windows lacks, and what stands in for its locks on other systems: `msvcrt`, with the errors that it gives."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from elbowroom.utils import files

LOCKED, LOCK, UNLOCK = PermissionError(errno.EACCES, "Permission denied"), 2, 0
UNLINK = Path.unlink


posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def pipe_at(path: Path) -> str:
    """A pipe, from which nothing comes."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("Windows has no such pipes")
    os.mkfifo(path)
    return str(path)


def locking(handle: int, mode: int, size: int) -> None:
    import fcntl

    assert (size, os.lseek(handle, 0, os.SEEK_CUR)) == (1, 0)  # the same byte for everybody
    try:
        fcntl.flock(handle, {LOCK: fcntl.LOCK_EX | fcntl.LOCK_NB, UNLOCK: fcntl.LOCK_UN}[mode])
    except BlockingIOError:
        raise LOCKED from None


def unlink(path: Path, missing_ok: bool = False) -> None:
    """Windows does not delete what others have opened: none is deleted here."""
    if path.parent.name == "elbowroom-locks":
        raise LOCKED
    UNLINK(path, missing_ok)


def with_its_locks(patch: Any, folder: Path) -> None:
    """Lock files as on Windows, with a folder for the locks of its own."""
    patch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=LOCK, LK_UNLCK=UNLOCK, locking=locking))
    patch.setattr(Path, "unlink", unlink)
    patch.setattr(tempfile, "tempdir", str(folder))
    patch.setattr(files, "WINDOWS", True)
