"""The number of epochs, the held-out rows, and the rows for diagnosis."""

from __future__ import annotations

import math

import torch

from elbowroom.data.dataset import Rows
from elbowroom.utils.randomness import generator_at

DIAGNOSED, VALUES = 10_000, 2**26  # rows, and values in all of them, that a trained model is diagnosed on
FEWEST = 20  # rows, below which none are held out
STEPS = 4000  # target of epochs="auto", within MIN_EPOCHS and MAX_EPOCHS
MIN_EPOCHS, MAX_EPOCHS = 10, 400


def diagnosis_sample_size(features: int) -> int:
    """The number of training rows in a diagnosis: fewer of wide rows, to limit time."""
    return min(DIAGNOSED, max(DIAGNOSED // 20, VALUES // features))


def split(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows | None]:
    """Training rows, and held-out rows if there are enough rows."""
    held = int(len(rows) * fraction)
    if held < 1 or len(rows) < FEWEST:
        return rows, None
    order = torch.randperm(len(rows), generator=generator_at(seed, "split"))
    return rows.take(order[held:].sort().values), rows.take(order[:held].sort().values)


def epochs_for(rows: int, batch_size: int) -> int:
    """The number of epochs that epochs="auto" stands for, given the number of rows."""
    return min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(STEPS / math.ceil(rows / batch_size))))
