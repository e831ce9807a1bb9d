"""Densities of real numbers: Gaussian, Student-t, continuous Bernoulli, and Gaussian after a learned warp."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from elbowroom.distributions.base import RowDistribution, gamma, in_units, uniform
from elbowroom.distributions.gaussian import HALF_LOG_2PI, normal
from elbowroom.distributions.splines import Warp

NODES = 64  # of the quadrature for the mean


class Gaussian(RowDistribution):
    """Real features: x = loc + scale * (mean + std * noise), where loc and scale are fixed units of the data."""

    def __init__(self, mean: Tensor, log_std: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.location, self.log_std, self.loc, self.scale = mean, log_std, loc, scale

    def kernel_cells(self, x: Tensor) -> Tensor:
        residual = (in_units(x, self.loc, self.scale, self.location) - self.location) * (-self.log_std).exp()
        return -(0.5 * residual.square() + self.log_std)

    def base_cells(self, x: Tensor) -> Tensor:
        return -(self.scale.log() + HALF_LOG_2PI).expand(x.shape)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * self.location

    def sample(self, generator: Generator | None = None) -> Tensor:
        noise = normal(self.location.shape, generator, self.location)
        return self.loc + self.scale * (self.location + self.log_std.exp() * noise)


class StudentT(RowDistribution):
    """Real features with heavy tails: a Gaussian whose noise is Student-t with `df` degrees of freedom (> 1)."""

    def __init__(self, mean: Tensor, log_std: Tensor, df: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.location, self.log_std, self.df, self.loc, self.scale = mean, log_std, df, loc, scale

    def kernel_cells(self, x: Tensor) -> Tensor:
        residual = (in_units(x, self.loc, self.scale, self.location) - self.location) * (-self.log_std).exp()
        half = 0.5 * (self.df + 1)
        norm = half.lgamma() - (0.5 * self.df).lgamma() - 0.5 * (math.pi * self.df).log() - self.log_std
        # half log(1 + r^2 / df), without the square, which overflows float32 at an outlier of 1e20
        return norm - 2 * half * torch.hypot(torch.ones_like(residual), residual / self.df.sqrt()).log()

    def base_cells(self, x: Tensor) -> Tensor:
        return -self.scale.log().expand(x.shape)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * self.location

    def sample(self, generator: Generator | None = None) -> Tensor:
        df = self.df.expand(self.location.shape)
        chi2 = 2 * gamma(0.5 * df, generator)
        noise = normal(self.location.shape, generator, self.location) * (df / chi2).sqrt()
        return self.loc + self.scale * (self.location + self.log_std.exp() * noise)


class ContinuousBernoulli(RowDistribution):
    """Features in [0, 1] with density proportional to exp(logit * x) (Loaiza-Ganem & Cunningham 2019)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def kernel_cells(self, x: Tensor) -> Tensor:
        """The density is l e^(l x) / (e^l - 1); for l > 0 it is computed from x = 1, which avoids cancellation."""
        x, size, small = x.to(self.logits.dtype), *self._magnitude()
        far = torch.where(self.logits > 0, x - 1, x) * self.logits - (-torch.expm1(-size) / size).log()
        square = self.logits.square()
        near = (x - 0.5) * self.logits - square * (1 / 24 - square * (1 / 2880 - square / 181440))
        return torch.where(small, near, far)

    def _magnitude(self) -> tuple[Tensor, Tensor]:
        """|l|, and a mask of where a power series is used; there |l| is set to 1, to keep gradients finite."""
        small = self.logits.abs() < 0.3
        return self.logits.abs().where(~small, 1.0), small

    @property
    def mean(self) -> Tensor:
        size, small = self._magnitude()
        upper = -1 / torch.expm1(-size) - 1 / size
        far = torch.where(self.logits > 0, upper, 1 - upper)
        square = self.logits.square()
        return torch.where(small, 0.5 + self.logits * (1 / 12 - square * (1 / 720 - square / 30240)), far)

    def sample(self, generator: Generator | None = None) -> Tensor:
        size = self.logits.abs().clamp_min(1e-4)
        u = uniform(self.logits, generator)
        upper = 1 + torch.log1p((1 - u) * torch.expm1(-size)) / size
        return torch.where(self.logits > 0, upper, 1 - upper).clamp(0, 1)


class Warped(RowDistribution):
    """Real features whose normal scores, by a monotone warp, are Gaussian; with `log`, their logarithm is warped."""

    def __init__(self, mean: Tensor, log_std: Tensor, warp: Warp, log: bool = False) -> None:
        self.location, self.log_std, self.warp, self.log = mean, log_std, warp, log

    def kernel_cells(self, x: Tensor) -> Tensor:
        score = self.warp.score(self._inner(x))[0].to(self.location.dtype)
        return -(0.5 * ((score - self.location) * (-self.log_std).exp()).square() + self.log_std)

    def base_cells(self, x: Tensor) -> Tensor:
        inner = self._inner(x)
        return self.warp.score(inner)[1] - HALF_LOG_2PI - (inner if self.log else 0)

    @property
    def mean(self) -> Tensor:
        """E[x|z], by Gauss-Hermite quadrature over the scores."""
        nodes, weights = (self.location.new_tensor(part, dtype=torch.float64) for part in _HERMITE)
        scores = self.location.double() + self.log_std.double().exp() * nodes.view(-1, *[1] * self.location.dim())
        return torch.tensordot(weights, self._outer(scores), 1)

    def sample(self, generator: Generator | None = None) -> Tensor:
        noise = normal(self.location.shape, generator, self.location)
        return self._outer(self.location + self.log_std.exp() * noise)

    def _inner(self, x: Tensor) -> Tensor:
        return x.double().log() if self.log else x.double()

    def _outer(self, scores: Tensor) -> Tensor:
        return self.warp.value(scores).exp() if self.log else self.warp.value(scores)


_HERMITE = tuple(
    part / scale
    for part, scale in zip(np.polynomial.hermite_e.hermegauss(NODES), (1.0, math.sqrt(2 * math.pi)), strict=True)
)
