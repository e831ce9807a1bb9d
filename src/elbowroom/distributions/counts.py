"""Densities of counts: Poisson, negative binomial, multinomial."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from elbowroom.distributions.base import RowDistribution, gamma, log_factorial

MANY = 64  # counts from which the terms of a log-probability are hundreds of nats that nearly cancel
MAX_COUNT = 1e12  # beyond this, a Poisson is narrower than the rounding of its float32 parameter


class Poisson(RowDistribution):
    """Counts with mean exp(log_rate)."""

    def __init__(self, log_rate: Tensor) -> None:
        self.log_rate = log_rate

    def kernel_cells(self, x: Tensor) -> Tensor:
        return x.to(self.log_rate.dtype) * self.log_rate - self.log_rate.exp()

    def base_cells(self, x: Tensor) -> Tensor:
        return -log_factorial(x)

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        return torch.poisson(self.mean, generator=generator)


class NegativeBinomial(RowDistribution):
    """Counts with mean m = exp(log_rate) and variance m + m^2 / r, where r = exp(log_dispersion)."""

    def __init__(self, log_rate: Tensor, log_dispersion: Tensor) -> None:
        self.log_rate, self.log_dispersion = log_rate, log_dispersion

    def log_kernel(self, x: Tensor) -> Tensor:
        return self._at_zero().sum(-1) + self._at_counts(x)

    def kernel_cells(self, x: Tensor) -> Tensor:
        x = x.double()
        excess, r = (self.log_rate - self.log_dispersion).double(), self.log_dispersion.double().exp()
        return self._at_zero() + _beyond_zero(x, excess, r, r.lgamma()).to(self.log_rate.dtype)

    def _at_zero(self) -> Tensor:
        """log p(0|z), part of the log-probability of every count."""
        return -self.log_dispersion.exp() * F.softplus(self.log_rate - self.log_dispersion)

    def _at_counts(self, x: Tensor) -> Tensor:
        """The contribution of nonzero counts to the kernel of every row, (...,), computed only for these."""
        few, many = (x > 0) & (x < MANY), x >= MANY
        precise = self.log_rate.dtype if x.device.type == "mps" else torch.float64  # which MPS does not support
        return self._at(few, x, self.log_rate.dtype) + self._at(many, x, precise)

    def _at(self, mask: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
        """`_at_counts` for the counts in a mask (n, D), in a given precision."""
        row, column = mask.nonzero(as_tuple=True)
        at, log_r = row * x.shape[1] + column, self.log_dispersion.to(dtype)
        if log_r.dim() > 1:  # one dispersion for each row
            log_r, column = log_r.expand(x.shape).flatten(), at
        r = log_r.exp()
        log_r, r, lgamma_r = (part.index_select(0, column) for part in (log_r, r, r.lgamma()))
        log_rate = self.log_rate.expand(*self.log_rate.shape[:-2], *x.shape).flatten(-2)
        counts, excess = x.flatten()[at].to(dtype), log_rate.index_select(-1, at).to(dtype) - log_r
        terms = _beyond_zero(counts, excess, r, lgamma_r).to(self.log_rate.dtype)
        return terms.new_zeros(*terms.shape[:-1], len(x)).index_add(-1, row, terms)

    def base_cells(self, x: Tensor) -> Tensor:
        x = x.double()
        return torch.xlogy(x, x) - x - log_factorial(x)

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        dispersion = self.log_dispersion.exp().expand(self.log_rate.shape)
        rate = gamma(dispersion, generator) * (self.log_rate - self.log_dispersion).exp()
        return torch.poisson(rate, generator=generator)


class LargeCounts(RowDistribution):
    """Wrapper for counts so large that the terms of their log-probability cancel to noise in float32.

    The kernel has all terms, computed in float64; their small sum is in the dtype of the parameters.
    """

    def __init__(self, kind: Callable[..., RowDistribution], *parameters: Tensor) -> None:
        self.like = parameters[0]
        self.p = kind(*map(self._widened, parameters))

    def log_kernel(self, x: Tensor) -> Tensor:
        return self._narrowed(self.p.log_prob(self._widened(x)))

    @property
    def mean(self) -> Tensor:
        return self._narrowed(self.p.mean)

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self._narrowed(self.p.sample(generator))

    def _widened(self, values: Tensor) -> Tensor:
        return (values.cpu() if self.like.device.type == "mps" else values).double()  # MPS has no float64

    def _narrowed(self, values: Tensor) -> Tensor:
        return values.to(self.like.dtype).to(self.like.device)


class Multinomial(RowDistribution):
    """Counts of `total` independent draws among the D features."""

    def __init__(self, logits: Tensor, total: Tensor) -> None:
        self.log_probs, self.total = logits.log_softmax(-1), total

    def log_kernel(self, x: Tensor) -> Tensor:
        return (x.to(self.log_probs.dtype) * self.log_probs).sum(-1)

    def log_base(self, x: Tensor) -> Tensor:
        x = x.double()
        return (x.sum(-1) + 1).lgamma() - log_factorial(x).sum(-1)

    @property
    def mean(self) -> Tensor:
        return self.total * self.log_probs.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        probs = self.log_probs.exp()
        left = self.total.expand(*probs.shape[:-1], 1)[..., 0].round()
        rest = probs.flip(-1).cumsum(-1).flip(-1).clamp_min(torch.finfo(probs.dtype).tiny)
        share = (probs / rest).clamp(0, 1)
        drawn = torch.zeros_like(probs)
        for column in range(probs.shape[-1]):
            drawn[..., column] = torch.binomial(left, share[..., column].contiguous(), generator=generator)
            left -= drawn[..., column]
        return drawn


def _beyond_zero(x: Tensor, excess: Tensor, r: Tensor, lgamma_r: Tensor) -> Tensor:
    """log p(x|z) - log p(0|z) of a negative binomial without its base, as a sum of small terms; zero for x = 0."""
    # log sigmoid(excess) equals excess - softplus(excess) except in the last digits, which large counts multiply
    return x * (F.logsigmoid(excess) + 1) - torch.xlogy(x, x) + (x + r).lgamma() - lgamma_r
