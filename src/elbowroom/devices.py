"""Where and how the arithmetic runs: device, precision, memory, and the faster exact way to multiply matrices."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch

from elbowroom.errors import ParameterError, unknown

PRECISIONS = ("float32", "bfloat16")
PRODUCTS = ("default", "onednn")


def device_of(name: str) -> torch.device:
    """The device with this name; "auto" takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ParameterError(
            "device must be one that this machine has", f"{name!r} can not be used", 'Use device="auto" or "cpu".'
        ) from error
    return device


def autocast(precision: str, device: torch.device) -> Any:
    """The context in which networks run: bfloat16 products if asked for."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a device; infinity where it does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return math.inf


def circumstances(device: torch.device) -> dict[str, str | int]:
    """What may change the last bits of a result."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device.type}


# ---- products ----------------------------------------------------------------------------------------------------

_lock, _probing = threading.Lock(), threading.Lock()
_told: ContextVar[str] = ContextVar("products", default="")
_found: list[str] = []  # a stack: of runs in several threads, the last to end puts back what the first one found


@contextmanager
def fast_products(backend: str) -> Iterator[None]:
    """Multiply float32 matrices on the CPU by the named backend, "default" or "onednn", and put the setting back.

    The setting is the process's: while one run has it, the products of all threads are made that way.
    """
    if backend != "onednn":
        yield
        return
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _lock:
        _found.append(setting.fp32_precision)
        setting.fp32_precision = "bf16"  # routes to oneDNN, and is exact where `onednn_is_exact` says so
    try:
        yield
    finally:
        with _lock:
            setting.fp32_precision = _found.pop()


@functools.cache
def onednn_is_exact() -> bool:
    """Whether oneDNN makes float32 products in float32; processors with bfloat16 matrix units would use these."""
    return _error("onednn") < 1e-5


def product_backend() -> str:
    """The faster of torch's two exact float32 products on this CPU, found by a probe once per process (30 ms).

    Within `same_products` it is the one that was told.
    """
    if told := _told.get():
        return told
    with _probing:  # a second thread waits: it would measure what the first one has set
        return _probe()


@contextmanager
def same_products(backend: str) -> Iterator[None]:
    """Products as another process has chosen them, where this one has them: the last bits of a result hang on them."""
    token = _told.set("default" if backend == "onednn" and not onednn_is_exact() else backend)
    try:
        yield
    finally:
        _told.reset(token)


@functools.cache
def _probe() -> str:
    if not onednn_is_exact():
        return "default"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for the slowest, and the choice must not change with the load
    try:
        factors = _factors()
        pairs = [(_seconds("default", *factors), _seconds("onednn", *factors)) for _ in range(5)]
    finally:
        torch.set_num_threads(threads)
    default, onednn = map(min, zip(*pairs, strict=True))
    return "onednn" if onednn < 0.8 * default else "default"


def _factors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(128, 512, generator=generator), torch.randn(512, 512, generator=generator)


def _error(backend: str) -> float:
    """Relative error of a product, infinite where this torch can not make it so."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return float("inf")
    a, b = _factors()
    exact = a.double() @ b.double()
    with fast_products(backend):
        return float(((a @ b).double() - exact).norm() / exact.norm())


def _seconds(backend: str, a: torch.Tensor, b: torch.Tensor) -> float:
    """The least time of a few products."""
    times = []
    with fast_products(backend):
        for _ in range(3):
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
    return min(times)


# ---- memory ------------------------------------------------------------------------------------------------------


def keep_memory() -> None:
    """Let the C library keep the memory that a training step frees, instead of faulting it in again every step.

    glibc raises its limits to the size of the largest block that was freed, so freeing one block of just under 32 MB
    is enough for blocks up to that size. Any program that frees such an array has the same effect on the process;
    elsewhere this does nothing.
    """
    block = torch.empty(31 * 2**20, dtype=torch.uint8)
    del block


def keep_all_memory() -> bool:
    """Let glibc keep freed memory of any size, for the rest of the process; False where it is not glibc.

    Trainers never call this: it is a decision about the whole process, for a program to make at its start. It helps
    where a step has blocks of more than 32 MB (20,000 items and a batch of 500), which glibc otherwise hands back to
    the system and faults in again each time. The process then stays as large as it was at its largest, up to 2 GB.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h
    return mallopt is not None and bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, 2**31 - 1))
