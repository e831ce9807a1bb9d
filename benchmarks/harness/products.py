"""The machine's limit: one training step's matrix products, and nothing else.

A step multiplies 17 times: six layers forward, six weight gradients, and five input gradients (the data needs
none). `python -m harness.products BATCH` times exactly these, into arrays that are allocated once, through
torch's default float32 path (MKL on x86) and through oneDNN, and prints both as rows per second in JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch

from harness.network import LAYERS

PATHS = {"default": "none", "onednn": "bf16"}  # "bf16" sends float32 products to oneDNN ...
EXACT = 5e-6  # ... which really computes in bfloat16 on some processors: such a path does not count
ROWS_A_CHUNK = 8192
CHUNKS = 9
Product = Callable[[], torch.Tensor]


def products_of_step(batch: int) -> list[Product]:
    """The 17 products of one step on random matrices, each as a function that writes into its own array."""
    products = []
    for number, (inputs, outputs) in enumerate(LAYERS["encoder"] + LAYERS["decoder"]):
        x, gradient = torch.rand(batch, inputs), torch.rand(batch, outputs)
        weight = torch.rand(outputs, inputs)
        products += [_product(x, weight.T), _product(gradient.T, x)]
        products += [_product(gradient, weight)] if number else []
    return products


def _product(left: torch.Tensor, right: torch.Tensor) -> Product:
    """A function that computes `left @ right` into one array that it keeps."""
    out = torch.empty(len(left), right.shape[1])
    return lambda: torch.mm(left, right, out=out)


def use(path: str) -> None:
    """Send torch's float32 matrix products through `path`, a key of PATHS."""
    torch.backends.mkldnn.matmul.fp32_precision = PATHS[path]


def relative_error(batch: int) -> float:
    """The error of the path in use, against float64, for the largest layer of the network."""
    x, weight = torch.randn(batch, 784), torch.randn(512, 784)
    exact = x.double() @ weight.double().T
    return float((x @ weight.T - exact).norm() / exact.norm())


def rows_per_second(products: list[Product], batch: int) -> float:
    """The speed of the path in use over one chunk of steps."""
    steps = ROWS_A_CHUNK // batch or 1
    begin = time.perf_counter()
    for _ in range(steps):
        for product in products:
            product()
    return steps * batch / (time.perf_counter() - begin)


def measure(batch: int) -> dict:
    """Rows per second and error of every path, the paths taking turns; `limit` is the fastest exact one."""
    products = products_of_step(batch)
    speeds, errors = {path: [] for path in PATHS}, {}
    for path in PATHS:
        use(path)
        errors[path] = relative_error(batch)
        rows_per_second(products, batch)
    for path in list(PATHS) * CHUNKS:
        use(path)
        speeds[path].append(rows_per_second(products, batch))
    medians = {path: statistics.median(values) for path, values in speeds.items()}
    best = max((path for path in PATHS if errors[path] < EXACT), key=medians.__getitem__)
    return {"limit": medians[best], "path": best, "rows_per_second": medians, "relative_error": errors}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
