"""The highest of many scores: exact, without sorting all of them."""

from __future__ import annotations

import torch
from torch import Tensor

SCORES = 2**24  # in memory at once
BLOCK = 64  # columns per block; only the blocks with the highest maxima can hold the best columns


def users_at_once(items: int) -> int:
    """The number of users whose scores of all items fit into memory at once."""
    return max(1, SCORES // items)


def best(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n highest scores of every row (rows, columns), in descending order, and their columns, both (rows, n)."""
    blocks = scores.shape[1] // BLOCK
    if blocks <= 2 * n:
        return scores.topk(n, -1)
    body, rest = scores[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)), scores[:, blocks * BLOCK :]
    chosen = body.amax(-1).topk(n, -1).indices
    within = body.gather(1, chosen.unsqueeze(-1).expand(-1, -1, BLOCK)).flatten(1)
    values, place = torch.cat([within, rest], 1).topk(n, -1)
    block = chosen.gather(1, (place // BLOCK).clamp_max(n - 1))
    return values, torch.where(place < n * BLOCK, block * BLOCK + place % BLOCK, place + (blocks - n) * BLOCK)


def in_order(scores: Tensor, columns: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n highest candidates (rows, k) in descending order of their scores, ties by the lower column."""
    by_column = columns.argsort(-1)
    scores, columns = scores.gather(1, by_column), columns.gather(1, by_column)
    place = scores.argsort(dim=-1, descending=True, stable=True)[:, :n]
    return scores.gather(1, place), columns.gather(1, place)
