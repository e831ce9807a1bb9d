"""Devices, products and memory: the settings of the process are used, and put back."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from elbowroom.errors import ParameterError
from elbowroom.nn.mlp import MLP
from elbowroom.training.modules import describe, may_draw, placed, tensors_of
from elbowroom.utils.devices import autocast, device_of
from elbowroom.utils.matmul import Processor, fast_products, onednn_is_exact, processor, product_backend, same_products
from elbowroom.utils.settings import flushed_denormals, standard_defaults

onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def setting() -> Any:
    return torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]


def test_the_device_of_a_name() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "xla", "", "cpu:x"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ParameterError) as caught:
        device_of(name)
    assert str(caught.value) == (
        f'device must be available on this machine, but {name!r} cannot be used. Use device="auto" or "cpu".'
    )


@onednn
def test_products_are_put_back() -> None:
    before = setting()
    with fast_products("default"):
        assert setting() == before
    with fast_products("onednn"):
        assert setting() == "bf16"
    assert setting() == before
    with pytest.raises(RuntimeError, match="as planned"), fast_products("onednn"):
        raise RuntimeError("as planned")
    assert setting() == before


@onednn
@pytest.mark.parametrize("first_to_end", [0, 1])
def test_products_of_two_runs_at_once(first_to_end: int) -> None:
    before = setting()
    runs = [fast_products("onednn"), fast_products("onednn")]
    for run in runs:
        run.__enter__()
    runs[first_to_end].__exit__(None, None, None)
    assert setting() == "bf16"  # the other one still goes on
    runs[1 - first_to_end].__exit__(None, None, None)
    assert setting() == before


def test_the_chosen_products_are_exact() -> None:
    backend = product_backend()
    assert backend == "default" or onednn_is_exact()
    a, b = torch.randn(64, 300), torch.randn(300, 50)
    with fast_products(backend):
        assert torch.allclose((a @ b).double(), a.double() @ b.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("vendor", "exact", "chosen"),
    [
        ("AuthenticAMD", True, "onednn"),
        ("AuthenticAMD", False, "default"),
        ("HygonGenuine", True, "onednn"),
        ("AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", True, "onednn"),  # as Windows says it
        ("GenuineIntel", True, "default"),
        ("aarch64", True, "default"),
    ],
)
def test_products_are_chosen_by_the_processor(vendor: str, exact: bool, chosen: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("elbowroom.utils.matmul.onednn_is_exact", lambda: exact)
    monkeypatch.setattr("elbowroom.utils.matmul.processor", lambda: Processor(vendor))
    assert product_backend() == chosen
    with same_products("onednn"):
        assert product_backend() == ("onednn" if exact else "default")
    with same_products("default"):
        assert product_backend() == "default"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc here")
def test_the_processor_is_that_of_the_system() -> None:
    found = Path("/proc/cpuinfo").read_text().splitlines()
    maker = [line.partition(": ")[2] for line in found if line.startswith("vendor_id")]
    assert processor().vendor == (maker[0] if maker else platform.processor() or platform.machine())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are started anew on Linux")
def test_denormals_are_flushed_in_all_threads_and_put_back() -> None:
    done = subprocess.run([sys.executable, "-c", FLUSHED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.0", "1.0", "0.0", "1.0", "0.0", "1.0", "1.0"]


FLUSHED = """
import torch
from elbowroom.utils.settings import flushed_denormals

def share():
    'Of denormal products that come out as zeros, in several threads.'
    halves = torch.full((400000,), torch.finfo(torch.float32).tiny) * 0.5
    return (halves.view(torch.int32) == 0).float().mean().item()

torch.set_num_threads(2)
found = [share()]  # OpenMP has its threads now
for _ in range(2):
    with flushed_denormals():
        found.append(share())
    found.append(share())
torch.set_flush_denormal(True)
with flushed_denormals():
    found.append(share())
torch.set_num_threads(1)
print(*found, share())  # it stays as it was
"""


def test_nothing_is_flushed_where_threads_can_not_be_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def half() -> float:
        return float(torch.full((1,), torch.finfo(torch.float32).tiny) * 0.5)

    monkeypatch.setattr("elbowroom.utils.settings._restart_threads", lambda: False)
    with flushed_denormals():
        assert half() == 0  # there is one thread
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with flushed_denormals():
        assert half() > 0


def test_defaults_are_put_back_by_the_last_of_two_threads() -> None:
    torch.set_default_dtype(torch.float64)
    first, second = standard_defaults(), standard_defaults()
    try:
        for context in (first, second):
            context.__enter__()
            assert torch.zeros(1).dtype == torch.float32
        first.__exit__(None, None, None)
        assert torch.zeros(1).dtype == torch.float32
        second.__exit__(None, None, None)
        assert torch.zeros(1).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast() -> None:
    a = torch.ones(2, 2)
    with autocast("float32", torch.device("cpu")):
        assert (a @ a).dtype == torch.float32
    with autocast("bfloat16", torch.device("cpu")):
        assert (a @ a).dtype == torch.bfloat16
    with pytest.raises(ParameterError, match="Did you mean 'bfloat16'"):
        autocast("bfloat", torch.device("cpu"))


FAULTS = """
import resource, sys
import torch
from elbowroom.utils.devices import keep_all_memory, keep_memory

def faults(blocks, megabytes):
    'Page faults of a step that makes blocks and frees them, after a few to get used to it.'
    def step():
        made = [torch.empty(megabytes * 2**18).fill_(1) for _ in range(blocks)]
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5

torch.set_num_threads(1)
found = [faults(8, 4)]
keep_memory()
found += [faults(8, 4), faults(3, 40)]
assert keep_all_memory()
found += [faults(8, 4), faults(3, 40)]
print(*found)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands memory back so eagerly")
def test_memory_is_kept() -> None:
    for _ in range(9):
        done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
        small_before, small, large, small_after, large_after = map(float, done.stdout.split())
        if small_before > 1000:  # 32 MB are 8,192 pages
            break
    else:
        pytest.skip("memory is kept here whatever one does")  # by what happens to lie behind it
    assert small < 10
    assert large > 1000
    assert small_after < 10
    assert large_after < 10


class CustomModule(nn.Module):
    """A module of unknown behaviour."""


def test_modules_are_described() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), nn.Softplus(beta=2.0))
    described = describe(network)
    assert list(described) == ["module model", "module 0", "module 1", "module 2"]
    assert described["module 0"] == "Linear {'in_features': 3, 'out_features': 2} {'weight': (2, 3), 'bias': (2,)}"
    assert described["module 1"] == "Dropout {'p': 0.5, 'inplace': False} {}"
    assert describe(network.eval()) == described
    network[2].beta = 1.0  # type: ignore[assignment]
    assert describe(network) != described


@pytest.mark.parametrize(
    ("module", "may"),
    [
        (nn.Linear(2, 2), False), (nn.Sequential(nn.Sequential(nn.Dropout1d())), True),
        (MLP(2, (3,), 2), False), (nn.Sequential(CustomModule()), True),
        (nn.LSTM(2, 2, 2, dropout=0.1), True), (nn.LSTM(2, 2, 2), False), (nn.MultiheadAttention(2, 1, 0.1), True),
    ],
)  # fmt: skip
def test_modules_that_may_draw_are_found(module: nn.Module, may: bool) -> None:
    assert may_draw(module) == may


def test_tensors_are_listed_once() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network.append(network[0])
    names = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert tensors_of(network).keys() == names


@pytest.mark.parametrize("training", [False, True])
def test_a_model_is_put_back_where_it_was(training: bool) -> None:
    network = nn.Linear(2, 2).train(training)

    def fail() -> None:
        with placed(network, torch.device("cpu")):
            assert network.training
            raise RuntimeError("as planned")

    with pytest.raises(RuntimeError, match="as planned"):
        fail()
    assert network.training is training
