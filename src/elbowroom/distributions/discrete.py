"""Densities of codes, bits and pixels: Bernoulli, binomial, categorical, discretised logistic, ordinal."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from elbowroom.distributions.base import RowDistribution, applied, uniform

END = 1e4  # stands for an infinite threshold
# scale of a logistic below which levels are summed term by term, and the number of terms on each side
SHARP, NEAR = 2.0, 40


class Bernoulli(RowDistribution):
    """Features that are 0 or 1."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def log_kernel(self, x: Tensor) -> Tensor:
        return binomial_kernel(self.logits, x, 1)

    def kernel_cells(self, x: Tensor) -> Tensor:
        return x.to(self.logits.dtype) * self.logits - F.softplus(self.logits)

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    def sample(self, generator: Generator | None = None) -> Tensor:
        return torch.bernoulli(self.mean, generator=generator)


class Binomial(RowDistribution):
    """Features that count successes out of `total` trials."""

    def __init__(self, logits: Tensor, total: int) -> None:
        self.logits, self.total = logits, total

    def log_kernel(self, x: Tensor) -> Tensor:
        return binomial_kernel(self.logits, x, self.total)

    def kernel_cells(self, x: Tensor) -> Tensor:
        return x.to(self.logits.dtype) * self.logits - self.total * F.softplus(self.logits)

    def base_cells(self, x: Tensor) -> Tensor:
        x = x.double()
        return math.lgamma(self.total + 1) - (x + 1).lgamma() - (self.total - x + 1).lgamma()

    @property
    def mean(self) -> Tensor:
        return self.total * self.logits.sigmoid()

    def sample(self, generator: Generator | None = None) -> Tensor:
        return torch.binomial(torch.full_like(self.logits, self.total), self.logits.sigmoid(), generator=generator)


class Categorical(RowDistribution):
    """Features that are one of `classes` codes 0, 1, ...; logits (..., D, classes).

    With `unseen`, the last code represents all values not seen in training: it has a probability, but is never sampled.
    """

    def __init__(self, logits: Tensor, unseen: bool = False) -> None:
        self.log_probs, self.unseen = logits.log_softmax(-1), unseen

    @property
    def _drawable(self) -> Tensor:
        return self.log_probs[..., :-1] if self.unseen else self.log_probs

    def kernel_cells(self, x: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(self.log_probs.shape[:-1], x.shape)
        codes = x.long().expand(shape).unsqueeze(-1)
        return self.log_probs.expand(*shape, -1).gather(-1, codes)[..., 0]

    @property
    def mean(self) -> Tensor:
        """The most likely code: codes have no order, so an average would be meaningless."""
        return self._drawable.argmax(-1).to(self.log_probs.dtype)

    def sample(self, generator: Generator | None = None) -> Tensor:
        flat = self._drawable.exp().flatten(0, -2)
        codes = torch.multinomial(flat, 1, generator=generator).view(self.log_probs.shape[:-1])
        return codes.to(self.log_probs.dtype)


class DiscretizedLogistic(RowDistribution):
    """Integers 0..levels-1: a logistic density integrated over unit bins; end bins have the tails (Kingma 2016)."""

    def __init__(self, mean: Tensor, log_scale: Tensor, levels: int) -> None:
        self.location, self.log_scale, self.levels = mean, log_scale, levels

    def kernel_cells(self, x: Tensor) -> Tensor:
        x = x.to(self.location.dtype)
        precision = (-self.log_scale).exp()
        below = F.logsigmoid((x + 0.5 - self.location) * precision)
        above = F.logsigmoid((self.location - x + 0.5) * precision)
        # log(S(b) - S(a)) = log S(b) + log S(-a) + log(1 - exp(a - b)), exact for all a < b
        inside = below + above + (-torch.expm1(-precision)).log()
        return torch.where(x <= 0, below, torch.where(x >= self.levels - 1, above, inside))

    @property
    def mean(self) -> Tensor:
        """E[x|z], (..., D): the sum of P(x > k) = sigmoid((location - k - 1/2) / scale) over k = 0..levels-2."""
        location, log_scale = torch.broadcast_tensors(self.location.double(), self.log_scale.double())
        scale, mean = log_scale.exp(), torch.empty_like(location)
        sharp = scale < SHARP
        mean[~sharp] = self._smooth_sum(location[~sharp], scale[~sharp])
        mean[sharp] = self._near_sum(location[sharp], scale[sharp])
        return mean.to(self.location.dtype)

    def _smooth_sum(self, location: Tensor, scale: Tensor) -> Tensor:
        """By the midpoint rule, with two Euler-Maclaurin terms at the ends."""
        low, high = location / scale, (location - self.levels + 1) / scale
        total = scale * (F.softplus(low) - F.softplus(high))
        for at, sign in ((low, -1.0), (high, 1.0)):
            slope = at.sigmoid() * (-at).sigmoid()
            bend = slope * (1 - 6 * slope)
            total += sign * (slope / (24 * scale) - bend * 7 / (5760 * scale**3))
        return total

    def _near_sum(self, location: Tensor, scale: Tensor) -> Tensor:
        """Term by term near the location; terms below are one, and terms above are zero."""
        first = location.clamp(0, self.levels - 1).floor() - NEAR
        total = first.clamp_min(0)
        for j in range(2 * NEAR + 1):
            k = first + j
            total += ((location - k - 0.5) / scale).sigmoid() * ((k >= 0) & (k < self.levels - 1))
        return total

    def sample(self, generator: Generator | None = None) -> Tensor:
        u = uniform(self.location, generator)
        return (self.location + self.log_scale.exp() * u.logit()).round().clamp(0, self.levels - 1)


class _Context(Protocol):
    """The context of a `torch.autograd.Function`, which stores tensors for the backward pass."""

    total: int
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Store tensors for the backward pass."""


class _BinomialKernel(torch.autograd.Function):
    """x * l - total * log(1 + e^l); the forward pass computes the sigmoid, and the backward pass is one subtraction."""

    @staticmethod
    def forward(ctx: _Context, logits: Tensor, x: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(logits, x)
        ctx.total = total
        return torch.addcmul(F.softplus(logits).mul_(-total), logits, x).sum(-1)

    @staticmethod
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, x = ctx.saved_tensors
        slope = torch.sub(x, logits.sigmoid(), alpha=ctx.total)
        return slope.mul_(grad.unsqueeze(-1)), None, None


def binomial_kernel(logits: Tensor, x: Tensor, total: int) -> Tensor:
    """Sum over features of x * l - total * log(1 + e^l): (...,)."""
    return applied(_BinomialKernel, logits, x.to(logits.dtype), total)


class Ordinal(RowDistribution):
    """Ordered codes: a logistic variable cut at thresholds (McCullagh 1980).

    `cutpoints` (D, L+1) are the thresholds around L codes, with -END and END for infinite ones. With `floors` (D,),
    there are lower and higher codes too, whose thresholds are `tail_spacing` (D,) apart, down to the floor (-inf for
    none).
    """

    def __init__(
        self, location: Tensor, log_scale: Tensor, cutpoints: Tensor, tail_spacing: Tensor, floors: Tensor | None = None
    ) -> None:
        self.location, self.log_scale, self.cutpoints, self.tail_spacing, self.floors = (
            location,
            log_scale,
            cutpoints,
            tail_spacing,
            floors,
        )

    def kernel_cells(self, x: Tensor) -> Tensor:
        precision = (-self.log_scale).exp()
        low, high = cutpoints_around(x, self.cutpoints, self.tail_spacing, self.floors)
        # before rounding: among 20,000 codes, neighbouring thresholds are equal in float32
        low, high, width = (edge.to(self.location.dtype) for edge in (low, high, high - low))
        below, above = (high - self.location) * precision, (self.location - low) * precision
        # log(S(b) - S(a)) = log S(b) + log S(-a) + log(1 - exp(a - b)), exact for all a < b
        return F.logsigmoid(below) + F.logsigmoid(above) + (-torch.expm1(-width * precision)).log()

    @property
    def mean(self) -> Tensor:
        """The median: codes are ranks, whose average would be meaningless."""
        return self._code(self.location)

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self._code(self.location + self.log_scale.exp() * uniform(self.location, generator).logit())

    def _code(self, latent: Tensor) -> Tensor:
        """The code between whose thresholds a value (..., D) lies."""
        flat = latent.reshape(-1, len(self.cutpoints)).T.contiguous().to(self.cutpoints.dtype)
        code = (torch.searchsorted(self.cutpoints, flat) - 1).T.view(latent.shape).to(latent.dtype)
        last = self.cutpoints.shape[1] - 2
        if self.floors is None:
            return code.clamp(0, last)
        under = ((latent - self.cutpoints[:, 0]) / self.tail_spacing).ceil().clamp_max(0) - 1
        over = ((latent - self.cutpoints[:, -1]) / self.tail_spacing).ceil().clamp_min(1) + last
        nearest = torch.where(code < 0, under, torch.where(code > last, over, code))
        return torch.maximum(nearest, self.floors).to(latent.dtype)


def cutpoints_around(
    x: Tensor, cutpoints: Tensor, tail_spacing: Tensor, floors: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The thresholds below and above codes (..., D)."""
    return _cutpoint(x, cutpoints, tail_spacing, floors), _cutpoint(x + 1, cutpoints, tail_spacing, floors)


def _cutpoint(x: Tensor, cutpoints: Tensor, tail_spacing: Tensor, floors: Tensor | None) -> Tensor:
    """The cutpoint below codes (..., D)."""
    last = cutpoints.shape[1] - 1
    inside = x.clamp(0, last)
    at = inside.reshape(-1, len(cutpoints)).T.long()
    cutpoint = cutpoints.gather(1, at).T.view(x.shape) + (x - inside) * tail_spacing
    return cutpoint if floors is None else torch.where(x <= floors, -END, cutpoint)
