"""Device, precision and memory of computations."""

from __future__ import annotations

import ctypes
import math
import sys
from contextlib import nullcontext
from typing import Any

import torch

from elbowroom.errors import ParameterError, unknown
from elbowroom.utils.matmul import processor

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
            "device must be available on this machine", f"{name!r} cannot be used", 'Use device="auto" or "cpu".'
        ) from error
    return device


def autocast(precision: str, device: torch.device) -> Any:
    """The context in which networks run: with bfloat16 matrix products on request."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def free_memory(device: torch.device) -> float:
    """Free bytes on a device; infinity if the device does not report it."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return math.inf


def reproducibility_info(device: torch.device) -> dict[str, str | int]:
    """The versions and settings on which the last bits of a result depend."""
    kind = " ".join(filter(None, processor()))
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device.type, "processor": kind}


# ---- memory ------------------------------------------------------------------------------------------------------


def keep_memory() -> None:
    """Let the C library keep the memory that a training step frees, instead of faulting it in again every step.

    glibc raises its limits to the size of the largest block that was freed, so freeing one block of just under 32 MB
    is enough for blocks up to that size. Any program that frees such an array has the same effect on the process;
    on other platforms this does nothing.
    """
    block = torch.empty(31 * 2**20, dtype=torch.uint8)
    del block


def keep_all_memory() -> bool:
    """Let glibc keep freed memory of any size, for the rest of the process; returns False on other C libraries.

    Trainers never call this: it affects the whole process, so a program should decide on it at its start. It helps
    where a step has blocks of more than 32 MB (20,000 items and a batch of 500), which glibc otherwise returns to
    the system and faults in again each time. The process then keeps its peak size, up to 2 GB.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h
    return mallopt is not None and bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, 2**31 - 1))
