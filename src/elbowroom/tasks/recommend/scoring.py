"""Scores of items for histories, by a model of interactions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elbowroom.data.sparse import SparseBatch
from elbowroom.distributions.items import Items
from elbowroom.models.vae import VAE
from elbowroom.nn.layers import SparseLinear
from elbowroom.tasks.recommend.graph_filter import Neighbours
from elbowroom.tasks.recommend.topk import users_at_once
from elbowroom.utils.randomness import generator_at
from elbowroom.utils.settings import standard_defaults

PRIOR_DRAWS = 256  # draws from the prior, over which scores for an empty history are averaged


class Scoring:
    """Scores of all items for histories, and exact ones for a few of them.

    With `noise`, z is a posterior sample; otherwise it is the mean. `neighbours` adds weighted scores to the model's.
    """

    def __init__(
        self,
        model: VAE,
        noise: torch.Generator | None = None,
        neighbours: Neighbours | None = None,
        weight: float = 0.0,
    ) -> None:
        self.model, self.noise, self.neighbours, self.weight = model, noise, neighbours, weight

    @standard_defaults()
    @torch.no_grad()
    def __call__(self, histories: Any) -> Tensor:
        """Logits (n, items) for CSR histories (n, items); the latents are kept for `exact`."""
        x = SparseBatch.of(histories)
        q = self.model.encode(x)
        z = q.mean if self.noise is None else q.rsample(torch.randn(q.mean.shape, generator=self.noise).to(q.mean))
        self.p = self.model.decode(z, None, x.sum(keepdim=True))
        scores = self.p.logits
        if self.neighbours is not None:
            self.added = self.neighbours(histories).mul_(self.weight)
            scores += self.added
        self.level = self.p.level(scores).double()
        self.empty = torch.from_numpy(np.diff(histories.indptr) == 0)
        if bool(self.empty.any()):
            scores[self.empty] = self.expected
        return scores

    @standard_defaults()
    @torch.no_grad()
    def exact(self, histories: Any, columns: Tensor) -> Tensor:
        """Scores (n, k) of the items at `columns` (n, k), for the histories of the last call."""
        scores = self.p.logits_at(columns) - self.level
        if self.neighbours is not None:
            scores += self.added.gather(-1, columns)
        if bool(self.empty.any()):
            scores[self.empty] = self.expected.double()[columns[self.empty]]
        return scores

    @standard_defaults()
    def of_item(self, histories: Any, item: int) -> np.ndarray:
        """Exact scores (n,) of one item for any number of CSR histories (n, items)."""
        scores = []
        for part in _parts(histories):
            self(histories[part])
            columns = torch.full((histories[part].shape[0], 1), item)
            scores.append(self.exact(histories[part], columns).squeeze(-1).numpy())
        return np.concatenate(scores)

    def at(self, histories: Any, wanted: Any) -> np.ndarray:
        """Scores (m,) for the entries of CSR rows `wanted` (n, items), given any number of CSR histories (n, items)."""
        scores = (SparseBatch.of(wanted[part]).at(self(histories[part])).numpy() for part in _parts(histories))
        return np.concatenate([np.empty(0), *scores])

    @property
    def expected(self) -> Tensor:
        """Scores under the prior, (items,), for empty histories."""
        if not hasattr(self, "_expected"):
            z = self.model.prior_distribution().sample(PRIOR_DRAWS, generator_at(0, "expected"))
            total = z.new_ones(PRIOR_DRAWS, 1)
            self._expected = self.model.decode(z, None, total).expected_scores()
        return self._expected


def different(p: Items, generator: torch.Generator) -> Tensor:
    """Draw round(total) different items from every row of p(item|z), sequentially without replacement: (n, items).

    Equivalently, take the largest log-probabilities after adding Gumbel noise (Yellott 1977; Kool et al. 2019).
    """
    noisy = p.log_probs - torch.empty_like(p.log_probs).exponential_(generator=generator).log()
    ranks = noisy.argsort(-1, descending=True).argsort(-1)
    return (ranks < p.total.round()).to(noisy.dtype)


def _parts(histories: Any) -> list[slice]:
    """Slices of rows whose scores fit into memory at once."""
    size = users_at_once(histories.shape[1])
    return [slice(start, start + size) for start in range(0, histories.shape[0], size)]


def widened(model: VAE) -> VAE:
    """A copy of the model in float64, with shared item tables, so that features are batch-invariant."""
    tables = [m.weight for m in model.modules() if isinstance(m, SparseLinear)] + [model.likelihood.table]
    wide = copy.deepcopy(model, {id(table): table for table in tables})
    kept = {id(table) for table in tables}
    for module in wide.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in kept:
                parameter.data = parameter.data.double()
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dtype == torch.float32:
                setattr(module, name, buffer.double())
    return wide
