"""Distributions over many items: interactions, counts and ratings."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Generator, Tensor

from elbowroom.data.sparse import SparseBatch, dot
from elbowroom.distributions import counts
from elbowroom.distributions.base import RowDistribution, applied, log_factorial
from elbowroom.distributions.kernels import ItemKernel, OwnLogits
from elbowroom.errors import ParameterError

LEAST = 1e-6  # the total of an empty row


class Items(RowDistribution):
    """Counts of `total` independent draws among items, with logits h table' + bias computed on demand."""

    def __init__(self, h: Tensor, table: Tensor, bias: Tensor, total: Tensor) -> None:
        self.h, self.table, self.bias, self.total = h, table, bias, total

    @property
    def logits(self) -> Tensor:
        """Logits of all items, (..., items), in the dtype of the table."""
        return torch.nn.functional.linear(self.h.to(self.table.dtype), self.table, self.bias.to(self.table.dtype))

    @cached_property
    def log_probs(self) -> Tensor:
        """Log-probability of every item, (..., items)."""
        return self.logits.log_softmax(-1)

    def logits_at(self, columns: Tensor) -> Tensor:
        """Logits (n, k) of the items `columns` (n, k), in the dtype of h; batch-invariant."""
        chosen = self.table[columns].to(self.h.dtype)
        return (chosen @ self.h.unsqueeze(-1)).squeeze(-1) + self.bias[columns]

    def own_logits(self, x: SparseBatch) -> Tensor:
        """Logits (..., m) at the m stored values of sparse rows."""
        return applied(OwnLogits, self.h, self.table, x) + self.bias[x.columns]

    def log_kernel(self, x: Tensor | SparseBatch) -> Tensor:
        if isinstance(x, SparseBatch):
            return applied(ItemKernel, self.h, self.table, self.bias, x)
        return dot(x, self.log_probs)

    def log_base(self, x: Tensor | SparseBatch) -> Tensor:
        return (x.sum(-1).double() + 1).lgamma() - _log_factorials(x)

    @property
    def mean(self) -> Tensor:
        return self.total * self.log_probs.exp()

    def level(self, logits: Tensor) -> Tensor:
        """The normaliser (n, 1); scores are the logits (n, items) minus it."""
        return logits.logsumexp(-1, keepdim=True)

    def expected_scores(self) -> Tensor:
        """Scores (items,) of the mixture over all rows."""
        return self.log_probs.logsumexp(0) - math.log(len(self.log_probs))

    def sample(self, generator: Generator | None = None) -> Tensor:
        chances = self.log_probs.exp().flatten(0, -2)
        total = self.total.expand(*self.h.shape[:-1], 1).reshape(-1, 1).round().long()
        drawn = torch.multinomial(chances, max(1, int(total.max())), replacement=True, generator=generator)
        counted = torch.arange(drawn.shape[1]) < total
        return torch.zeros_like(chances).scatter_add(1, drawn, counted.to(chances.dtype)).view_as(self.log_probs)


class SampledItems(Items):
    """`Items` for training, with the sum over all items estimated from the row's own items and a sample of the others.

    Each of the `drawn` items has the weight 1 / (draws * its probability of being drawn), whose logarithm is added to
    its logit (the log-Q correction, Bengio & Senecal 2008), so that the estimate of the sum is unbiased.
    """

    def __init__(
        self, h: Tensor, table: Tensor, bias: Tensor, total: Tensor, drawn: Tensor, log_weight: Tensor
    ) -> None:
        super().__init__(h, table, bias, total)
        self.drawn, self.log_weight = drawn, log_weight

    def log_kernel(self, x: Tensor | SparseBatch) -> Tensor:
        if not isinstance(x, SparseBatch):
            return super().log_kernel(x)
        own = self.own_logits(x)
        others = self.h @ self.table[self.drawn].mT + self.bias[self.drawn] + self.log_weight
        others = others.masked_fill(self._among_own(x), -math.inf)
        log_sum = torch.logaddexp(_log_sum(own, x), others.logsumexp(-1))
        return x.by_row(x.values.to(own.dtype) * (own - log_sum.index_select(-1, x.row)))

    def _among_own(self, x: SparseBatch) -> Tensor:
        """Whether each drawn item is one of the row's own, (n, draws)."""
        return x.with_values(torch.ones_like(x.values, dtype=torch.bool)).dense_at(self.drawn)


class NegativeBinomialItems(Items):
    """Overdispersed counts of items whose means are shares of the total; needs dense tensors (..., items)."""

    def __init__(self, h: Tensor, table: Tensor, bias: Tensor, total: Tensor, log_dispersion: Tensor) -> None:
        super().__init__(h, table, bias, total)
        self.log_dispersion = log_dispersion

    @cached_property
    def counts(self) -> counts.NegativeBinomial:
        """The same distribution over dense rows."""
        return counts.NegativeBinomial(self.log_probs + self.total.clamp_min(LEAST).log(), self.log_dispersion)

    def log_kernel(self, x: Tensor | SparseBatch) -> Tensor:
        return self.counts.log_kernel(x.dense(self.h.dtype) if isinstance(x, SparseBatch) else x)

    def log_base(self, x: Tensor | SparseBatch) -> Tensor:
        values = (x.values if isinstance(x, SparseBatch) else x).double()
        terms = torch.xlogy(values, values) - values
        return (x.by_row(terms) if isinstance(x, SparseBatch) else terms.sum(-1)) - _log_factorials(x)

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.counts.sample(generator)


class Ratings(Items):
    """Ratings of some items, each Gaussian around its logit; zeros are unrated items, which contribute nothing."""

    def __init__(self, h: Tensor, table: Tensor, bias: Tensor, total: Tensor, log_std: Tensor) -> None:
        super().__init__(h, table, bias, total)
        self.log_std = log_std

    @property
    def mean(self) -> Tensor:
        return self.logits

    def log_kernel(self, x: Tensor | SparseBatch) -> Tensor:
        if isinstance(x, SparseBatch):
            return x.by_row(_log_gaussian(x.values, self.own_logits(x), self.log_std[x.columns]))
        return torch.where(x == 0, 0.0, _log_gaussian(x, self.logits, self.log_std)).sum(-1)

    def log_base(self, x: Tensor | SparseBatch) -> Tensor:
        rated = x.with_values(torch.ones_like(x.values)) if isinstance(x, SparseBatch) else x != 0
        return -0.5 * math.log(2 * math.pi) * rated.sum(-1).double()

    def sample(self, generator: Generator | None = None) -> Tensor:
        raise who_rates_what()

    def level(self, logits: Tensor) -> Tensor:
        return logits.new_zeros(len(logits), 1)

    def expected_scores(self) -> Tensor:
        return self.logits.mean(0)


def who_rates_what() -> ParameterError:
    """The error for sampling histories from a model of ratings."""
    return ParameterError(
        "histories are sampled from a model of interactions or counts",
        "a model of ratings does not model who rates what",
        "Fit with ratings=False.",
    )


def _log_gaussian(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-densities up to a constant."""
    return -0.5 * ((x.to(mean.dtype) - mean) * (-log_std).exp()).square() - log_std


def _log_factorials(x: Tensor | SparseBatch) -> Tensor:
    """The sum of log x! over every row, (n,)."""
    return x.by_row(log_factorial(x.values)) if isinstance(x, SparseBatch) else log_factorial(x).sum(-1)


def _log_sum(own: Tensor, x: SparseBatch) -> Tensor:
    """log sum exp of the values (..., m) of every row, (..., n); -inf where it has none."""
    shape = (*own.shape[:-1], len(x))
    top = own.detach().new_full(shape, -math.inf).scatter_reduce(-1, x.row.expand_as(own), own.detach(), "amax")
    top = top.masked_fill(top.isinf(), 0.0)
    return x.by_row((own - top.index_select(-1, x.row)).exp()).log() + top
