"""How long and on what a model is trained: epochs, held-out rows, rows that it is diagnosed on."""

from __future__ import annotations

import math

import torch

from elbowroom.data.dataset import Rows
from elbowroom.utils.randomness import generator_at

DIAGNOSED, VALUES = 10_000, 2**26  # rows, and values of them all, that a trained model is diagnosed on
FEWEST = 20  # rows, below which none are held out
STEPS = 4000  # what epochs="auto" aims at, within MIN_EPOCHS and MAX_EPOCHS
MIN_EPOCHS, MAX_EPOCHS = 10, 400


def diagnosis_sample_size(features: int) -> int:
    """How many training rows a diagnosis looks at: of a million items each, a few tell as much as there is time for."""
    return min(DIAGNOSED, max(DIAGNOSED // 20, VALUES // features))


def split(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows | None]:
    """Training rows, and held-out rows where there are enough to have any."""
    held = int(len(rows) * fraction)
    if held < 1 or len(rows) < FEWEST:
        return rows, None
    order = torch.randperm(len(rows), generator=generator_at(seed, "split"))
    return rows.take(order[held:].sort().values), rows.take(order[:held].sort().values)


def epochs_for(rows: int, batch_size: int) -> int:
    """What epochs="auto" means for so many rows."""
    return min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(STEPS / math.ceil(rows / batch_size))))
