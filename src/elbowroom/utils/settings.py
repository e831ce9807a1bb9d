"""Temporary settings of torch, restored afterwards."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

# ---- settings of the process ---------------------------------------------------------------------------------------


class Nested:
    """A process-wide setting for several threads: the first to enter saves the value that the last to exit restores."""

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], object], value: Any) -> None:
        self.get, self.put, self.value = get, put, value
        self.lock, self.inside, self.before = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = self.get()
                self.put(self.value)
            self.inside += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.put(self.before)


@contextmanager
def standard_defaults() -> Iterator[None]:
    """Context manager with torch's initial defaults, float32 on the CPU, whatever the caller has set.

    The default dtype is process-wide: within the context, new tensors of all threads are float32. All
    functions that train or evaluate a model are decorated with `@standard_defaults()`.
    """
    elsewhere = torch.get_default_device().type != "cpu"
    with _DTYPE, torch.device("cpu") if elsewhere else nullcontext():
        yield


_DTYPE = Nested(torch.get_default_dtype, torch.set_default_dtype, torch.float32)


# ---- denormal numbers --------------------------------------------------------------------------------------------


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers (below 1e-38), which are slow, to zero: the optimiser state of dead units is full of them.

    The setting applies to the calling thread and its OpenMP threads, which inherit it when they start: they are
    restarted. If that is not possible, nothing is flushed unless there is only one thread, so that a result never
    depends on what the process did before. torch has no getter, so a product shows the current setting.
    """
    if torch.get_num_threads() > 1 and not _restart_threads():
        yield
        return
    before = _flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
        _restart_threads()


def _flushes() -> bool:
    least = torch.full((1,), torch.finfo(torch.float32).tiny, dtype=torch.float32, device="cpu")
    return bool((least / 2).view(torch.int32) == 0)


def _restart_threads() -> bool:
    """Let OpenMP end the threads of the calling thread's pool; returns False if this is not possible.

    The next product starts new threads.
    """
    if not sys.platform.startswith("linux"):
        return False
    pause, soft = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None), 1
    return pause is not None and pause(soft) == 0
