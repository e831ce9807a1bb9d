"""Where and how the arithmetic runs: device, precision, and the faster exact way to multiply matrices."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from elbowroom.errors import ParameterError, unknown

PRECISIONS = ("float32", "bfloat16")


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


@contextmanager
def fast_products(backend: str) -> Iterator[None]:
    """Multiply float32 matrices on the CPU by the named backend, "default" or "onednn", and put the setting back."""
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    try:
        if backend == "onednn":
            setting.fp32_precision = "bf16"  # routes to oneDNN; exact where `exact_and_faster` said so
        yield
    finally:
        setting.fp32_precision = before


@functools.cache
def product_backend() -> str:
    """The faster of torch's two exact float32 products on this CPU, found by a probe once per process (20 ms)."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return "default"
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(128, 512, generator=generator)
    b = torch.randn(512, 512, generator=generator)
    exact = a.double() @ b.double()
    seconds, error = {}, {}
    for backend in ("default", "onednn"):
        with fast_products(backend):
            error[backend] = float(((a @ b).double() - exact).norm() / exact.norm())
            seconds[backend] = min(_seconds(a, b) for _ in range(9))
    faster = seconds["onednn"] < 0.8 * seconds["default"]  # a clear gap only: the choice must not change with the load
    return "onednn" if faster and error["onednn"] < 1e-5 else "default"


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(a, b)
    return time.perf_counter() - start


def autocast(precision: str, device: torch.device) -> Any:
    """The context in which networks run: bfloat16 products if asked for."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def keep_memory() -> None:
    """Let the C library keep the memory that a training step frees, instead of faulting it in again every step.

    glibc raises its limits to the size of the largest block that was freed, so freeing one block of 32 MB is enough.
    Any program that frees a large array has the same effect on the process; elsewhere this does nothing.
    """
    block = torch.empty(31 * 2**20, dtype=torch.uint8)
    del block
