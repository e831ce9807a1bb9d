"""The choice of a library for matrix products: by processor, never by timing, so that results are reproducible."""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch

from elbowroom.utils.settings import Nested

_MKLDNN: Any = torch.backends.mkldnn  # torch's types do not know its settings
PRODUCTS = ("default", "onednn")
_chosen: ContextVar[str] = ContextVar("products", default="")


class Processor(NamedTuple):
    """The vendor, family and model of a processor, as far as the system reports them."""

    vendor: str
    family: str = ""
    model: str = ""


@functools.cache
def processor() -> Processor:
    """This machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    info = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "vendor_id" in info:
        return Processor(info["vendor_id"], info.get("cpu family", ""), info.get("model", ""))
    return Processor(platform.processor() or platform.machine())  # on Windows it ends with the vendor


# ---- products ----------------------------------------------------------------------------------------------------


def fast_products(backend: str) -> AbstractContextManager[None]:
    """Multiply float32 matrices on the CPU by the named backend, "default" or "onednn", then restore the setting.

    The setting is process-wide: it applies to the products of all threads.
    """
    return _ONEDNN if backend == "onednn" else nullcontext()


def _set_precision(value: str) -> None:
    _MKLDNN.matmul.fp32_precision = value


_ONEDNN = Nested(
    lambda: _MKLDNN.matmul.fp32_precision,
    _set_precision,
    "bf16",  # routes to oneDNN, and is exact where `onednn_is_exact` says so
)


@functools.cache
def onednn_is_exact() -> bool:
    """Whether oneDNN computes float32 products in float32; on processors with bfloat16 matrix units it may not."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 512, generator=generator, dtype=torch.float32, device="cpu") for n in (128, 512))
    exact = a.double() @ b.double()
    with fast_products("onednn"):
        return float(((a @ b).double() - exact).norm() / exact.norm()) < 1e-5


def product_backend() -> str:
    """Which of torch's two float32 products a run uses on this CPU: oneDNN on AMD processors, if it is exact there.

    torch's default, MKL, reaches half the speed on these. The choice is a fixed rule, not a timing, so that all runs
    on one kind of processor have the same bits. Within `same_products` it is the backend given there.
    """
    if named := _chosen.get():
        return named
    amd = any(maker in processor().vendor for maker in ("AuthenticAMD", "HygonGenuine"))
    return "onednn" if amd and onednn_is_exact() else "default"


@contextmanager
def same_products(backend: str) -> Iterator[None]:
    """Use the backend that another process has chosen, if available: the last bits of a result depend on it."""
    token = _chosen.set("default" if backend == "onednn" and not onednn_is_exact() else backend)
    try:
        yield
    finally:
        _chosen.reset(token)
