"""Fashion-MNIST's training images, binarised once."""

import gzip
import os
from pathlib import Path

import numpy as np

IMAGES = "train-images-idx3-ubyte.gz"
HEADER_BYTES = 16
PIXELS = 784
THRESHOLD = 127


def default_folder(root: Path) -> Path:
    """The data folder named by ELBOWROOM_DATA, else the one beside the repository."""
    return Path(os.environ.get("ELBOWROOM_DATA", root.parent / "shared" / "data"))


def find_images(folder: Path) -> Path | None:
    """The file of training images in `folder` or in its subfolder `fashion_mnist`; None if neither has it."""
    candidates = (folder / IMAGES, folder / "fashion_mnist" / IMAGES)
    return next((file for file in candidates if file.is_file()), None)


def binary_rows(file: Path) -> np.ndarray:
    """All images as rows of 784 zeros and ones (uint8): one where a pixel is brighter than 127."""
    pixels = np.frombuffer(gzip.decompress(file.read_bytes()), dtype=np.uint8, offset=HEADER_BYTES)
    return (pixels.reshape(-1, PIXELS) > THRESHOLD).astype(np.uint8)
