"""Data sets by name: training rows, and rows that nothing is trained on."""

import gzip
import os
from pathlib import Path

import numpy as np

MNIST, FASHION = "mnist/mnist.npz", "fashion_mnist/{}-images-idx3-ubyte.gz"


def folder() -> Path:
    """The data folder named by ELBOWROOM_DATA, else the one beside the repository."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    return Path(os.environ.get("ELBOWROOM_DATA", beside))


def there(name: str) -> bool:
    """Whether a data set can be read; scikit-learn brings digits and tables along."""
    needed = {"mnist": MNIST, "fashion": FASHION.format("train"), "table": FASHION.format("train")}
    return name not in needed or (folder() / needed[name]).exists()


def rows(name: str, split: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Training rows, and test rows or, for choices, validation rows cut from the training rows."""
    train, test = _everything(name, seed)
    if split == "test":
        return train, test
    cut = len(train) * 5 // 6
    return train[:cut], train[cut:]


def _everything(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if name == "mnist":
        with np.load(folder() / MNIST) as arrays:
            return arrays["x_train"], arrays["x_test"]
    if name == "fashion":
        return _fashion("train"), _fashion("t10k")
    if name == "table":
        return _pooled(_fashion("train")[:20_000]), _pooled(_fashion("t10k"))
    from sklearn import datasets

    x = datasets.load_digits().images.astype(np.uint8) if name == "digits" else datasets.load_breast_cancer().data
    order = np.random.default_rng(seed).permutation(len(x))
    cut = len(x) // 4
    if name == "small table":
        x = (x - x[order[cut:]].mean(0)) / x[order[cut:]].std(0)
    return x[order[cut:]], x[order[:cut]]


def _pooled(images: np.ndarray) -> np.ndarray:
    """Means of 4 x 4 pixels: 49 real columns."""
    return images.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(len(images), 49)


def _fashion(part: str) -> np.ndarray:
    content = gzip.decompress((folder() / FASHION.format(part)).read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
