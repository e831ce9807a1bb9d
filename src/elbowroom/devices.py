"""Where and how the arithmetic runs: device, precision, memory, and the faster exact way to multiply matrices."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

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
    kind = " ".join(filter(None, processor()))
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device.type, "processor": kind}


class Processor(NamedTuple):
    """A kind of processor, as far as the system names it: its maker, its family, its model."""

    vendor: str
    family: str = ""
    model: str = ""


@functools.cache
def processor() -> Processor:
    """The kind of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "vendor_id" in found:
        return Processor(found["vendor_id"], found.get("cpu family", ""), found.get("model", ""))
    return Processor(platform.processor() or platform.machine())  # Windows names the maker at the end


# ---- settings of the process ---------------------------------------------------------------------------------------


class _Nested:
    """Counts those that have a setting of the process, of all threads: the first finds what the last puts back."""

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
    """torch's defaults as a program finds them, float32 on the CPU, whatever the caller has made of them.

    The default dtype is the process's: while one thread is within, new tensors of all threads are float32. It is the
    decorator of whatever trains or asks a model, `@standard_defaults()`.
    """
    elsewhere = torch.get_default_device().type != "cpu"
    with _DTYPE, torch.device("cpu") if elsewhere else nullcontext():
        yield


_DTYPE = _Nested(torch.get_default_dtype, torch.set_default_dtype, torch.float32)


# ---- products ----------------------------------------------------------------------------------------------------


def fast_products(backend: str) -> AbstractContextManager[None]:
    """Multiply float32 matrices on the CPU by the named backend, "default" or "onednn", and put the setting back.

    The setting is the process's: while one run has it, the products of all threads are made that way.
    """
    return _ONEDNN if backend == "onednn" else nullcontext()


def _set_precision(value: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = value  # type: ignore[attr-defined]


_ONEDNN = _Nested(
    lambda: torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
    _set_precision,
    "bf16",  # routes to oneDNN, and is exact where `onednn_is_exact` says so
)
_chosen: ContextVar[str] = ContextVar("products", default="")


@functools.cache
def onednn_is_exact() -> bool:
    """Whether oneDNN makes float32 products in float32; processors with bfloat16 matrix units would use these."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 512, generator=generator, dtype=torch.float32, device="cpu") for n in (128, 512))
    exact = a.double() @ b.double()
    with fast_products("onednn"):
        return float(((a @ b).double() - exact).norm() / exact.norm()) < 1e-5


def product_backend() -> str:
    """Which of torch's two float32 products a run takes on this CPU: oneDNN on AMD's processors, if it is exact there.

    torch's default, MKL, leaves these at half their speed. It is a rule and not a timing, so that all runs on a kind of
    processor have the same bits. Within `same_products` it is the one that is named there.
    """
    if named := _chosen.get():
        return named
    amd = any(maker in processor().vendor for maker in ("AuthenticAMD", "HygonGenuine"))
    return "onednn" if amd and onednn_is_exact() else "default"


@contextmanager
def same_products(backend: str) -> Iterator[None]:
    """Products as another process has chosen them, where this one has them: the last bits of a result hang on them."""
    token = _chosen.set("default" if backend == "onednn" and not onednn_is_exact() else backend)
    try:
        yield
    finally:
        _chosen.reset(token)


# ---- denormal numbers --------------------------------------------------------------------------------------------


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for zeros: units that are dead fill an optimiser with such, which are slow.

    The setting is the calling thread's and that of its OpenMP threads, which take over what it has when they start:
    they are started anew. Where they can not be, nothing is flushed unless there is one thread, so that a result never
    hangs on what the process did before. There is no getter, hence a product that shows it.
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
    """Let OpenMP end the threads that it keeps for the calling thread; False where it can not.

    The next product starts new ones.
    """
    if not sys.platform.startswith("linux"):
        return False
    pause, soft = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None), 1
    return pause is not None and pause(soft) == 0


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
