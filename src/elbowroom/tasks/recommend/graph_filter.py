"""Scores from the neighbours of a history's items: a sharpened filter on the graph of users and items."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from elbowroom.data.interactions.matrix import Interactions, normalised, ones_of
from elbowroom.data.sparse import SparseBatch

# Chosen on validation interactions of Gowalla (docs/benchmarks.md).
PRIOR = 0.3  # weight of the mean filter output over users, added to that of one user
SHARPENED = 0.5  # weight of the second-order neighbours, which is subtracted
POPULAR = 0.1  # power of an item's number of users: the filter alone removes too much of the popularity
LEAST = 1e-9  # score of items without users
WIDE, AT_ONCE = 64, 2**26  # histories per batch, and values (users or items times histories) in memory


class Neighbours:
    """Log-scores of items for histories, from the graph of users and items.

    With R = D_u^-1/2 X D_i^-1/2, the interactions X normalised by their numbers per user and item, a history x becomes
    near = x R'R, the linear filter of GF-CF (Shen et al. 2021), and far = near R'R; a multiple of their means over the
    known users is added to both. The score is log(near) - log(far) / 2 + log(d_i) / 10: first-order neighbours,
    sharpened by second-order ones (as in Choi et al. 2023). A model that encodes a user in a few hundred numbers learns
    which kinds of items go together; this filter also knows it of single, rare items. The sum of both log-scores is a
    product of experts (Hinton 2002).
    """

    def __init__(self, matrix: Any) -> None:
        rows, _ = normalised(matrix)
        self.rows, self.columns = SparseBatch.of(rows), SparseBatch.of(rows.T.tocsr())
        users = torch.from_numpy(np.asarray(ones_of(matrix).sum(0), dtype=np.float32).T)  # per item
        self.popular = POPULAR * users.clamp_min(1).log()
        self.near = self._passed(users) / max(1, matrix.shape[0])  # means over the known users
        self.far = self._passed(self.near)

    def __call__(self, histories: Any) -> Tensor:
        """Log-scores (n, items) of CSR histories (n, items), batch-invariant."""
        binary = ones_of(histories)
        size = max(1, min(WIDE, AT_ONCE // max(len(self.rows), len(self.columns))))
        scores = torch.empty(binary.shape)
        for start in range(0, binary.shape[0], size):
            scores[start : start + size] = self._scores(binary[start : start + size]).mT
        return scores

    def _scores(self, binary: Any) -> Tensor:
        near = self._passed(torch.from_numpy(binary.T.toarray(order="C")))
        far = self._passed(near)
        for weights, usual in ((near, self.near), (far, self.far)):
            weights.add_(PRIOR * usual + LEAST).log_()
        return near.sub_(far, alpha=SHARPENED).add_(self.popular)

    def _passed(self, weights: Tensor) -> Tensor:
        """Weights of items (items, n), propagated to the users who have them and from these to their items."""
        return self.columns.times(self.rows.times(weights))


def neighbours_of(known: Interactions) -> Neighbours:
    """The filter of known interactions, cached."""
    if known not in _FOUND:
        _FOUND[known] = Neighbours(known.matrix)
    return _FOUND[known]


_FOUND: WeakKeyDictionary[Interactions, Neighbours] = WeakKeyDictionary()
