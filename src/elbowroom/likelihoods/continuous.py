"""Likelihoods of real numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elbowroom import distributions as d
from elbowroom.distributions.base import RowDistribution
from elbowroom.distributions.gaussian import bounded
from elbowroom.distributions.splines import Warp
from elbowroom.errors import unknown
from elbowroom.likelihoods.base import FAR, Likelihood

MAX_SCORE = 12.0  # lower values are not data
KNOT_NAMES = ("knot_values", "knot_scores", "knot_slopes")
MIN_LOG_STD = -6.0  # softly: without it, the density of a constant column is unbounded (Rybkin et al. 2021)
MAX_LOG_STD = 2.0  # softly, of normal scores
UNIT_STD = math.log(-math.expm1(MIN_LOG_STD))  # the raw value that stands for a standard deviation of 1
MAX_LOG_DF = 6.0  # softly: above, a Student-t is a Gaussian, and the gradient is only rounding


class LocationScale(Likelihood):
    """Base of the likelihoods of real features, in fixed units `loc + scale * u` of the data, with a learned scale."""

    unit_loc: Tensor
    unit_scale: Tensor

    def __init__(self, features: int, scale: str = "feature") -> None:
        super().__init__(features)
        if scale not in ("feature", "shared"):
            raise unknown("the likelihood's scale", scale, ["feature", "shared"])
        self.scale = scale
        self.raw_log_std = nn.Parameter(torch.full((features if scale == "feature" else 1,), UNIT_STD))
        self.register_buffer("unit_loc", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("unit_scale", torch.ones(features, dtype=torch.float64))

    @property
    def n_shifts(self) -> int:
        return len(self.raw_log_std)

    def log_std(self, shift: Tensor | None = None) -> Tensor:
        """Learned log standard deviation in units of the data's scale, softly above `MIN_LOG_STD`, (D,) or (n, D)."""
        above = self.raw_log_std - MIN_LOG_STD
        if shift is not None:  # added last, because it has a value for every row
            above = above + shift
        return (MIN_LOG_STD + F.softplus(above)).expand(*above.shape[:-1], self.features)

    def inputs(self, x: Tensor) -> Tensor:
        return d.in_units(x, self.unit_loc, self.unit_scale, self.bias)

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "finite numbers", ~x.isfinite()

    @torch.no_grad()
    def set_units(self, loc: Tensor, scale: Tensor) -> None:
        """Fix the units of the features, and start at their origin; a shared scale needs a shared unit."""
        self.set_bias(torch.zeros_like(loc))
        size = loc.abs()
        if self.scale == "shared":
            size, scale = size.max(), scale.square().mean().sqrt()
        self.unit_loc.copy_(loc)
        self.unit_scale.copy_(scale.where(scale > 1e-12 * size.clamp_min(1e-30), 1.0))  # a constant column has no scale


class Gaussian(LocationScale):
    """Real features with a learned standard deviation: one per feature, or one shared by all (`scale="shared"`)."""

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        return d.Gaussian(h + self.bias, self.log_std(shift), self.unit_loc, self.unit_scale)

    def fit_marginals(self, x: Tensor) -> None:
        self.set_units(x.mean(0), x.std(0, correction=0))


class StudentT(LocationScale):
    """Real features with heavy tails; location and scale start at the median and the quartiles."""

    def __init__(self, features: int, scale: str = "feature") -> None:
        super().__init__(features, scale)
        self.raw_df = nn.Parameter(torch.full((features,), 1.5))

    @property
    def n_shifts(self) -> int:
        return super().n_shifts + self.features

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        scale, tails = (None, 0.0) if shift is None else shift.split([super().n_shifts, self.features], -1)
        df = 1 + (MAX_LOG_DF - F.softplus(MAX_LOG_DF - (self.raw_df + tails))).exp()
        return d.StudentT(h + self.bias, self.log_std(scale), df, self.unit_loc, self.unit_scale)

    def inputs(self, x: Tensor) -> Tensor:
        return super().inputs(x).asinh()  # an outlier must not dominate the row

    def fit_marginals(self, x: Tensor) -> None:
        some = x[:: math.ceil(len(x) / 10_000)]
        low, middle, high = torch.quantile(some, torch.tensor([0.25, 0.5, 0.75], dtype=x.dtype), dim=0)
        spread = (high - low) / 1.349
        self.set_units(middle, torch.where(spread > 0, spread, x.std(0, correction=0)))


class ContinuousBernoulli(Likelihood):
    """Real features in [0, 1], such as grey pixels; a density, so that its nats can be positive or negative."""

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        return d.ContinuousBernoulli(h + self.bias)

    def fit_marginals(self, x: Tensor) -> None:
        mean = x.mean(0).clamp(0.02, 0.98)
        low, high = torch.full_like(mean, -60), torch.full_like(mean, 60)
        for _ in range(40):  # bisection: the logit of this mean has no closed form
            logits = (low + high) / 2
            below = d.ContinuousBernoulli(logits).mean < mean
            low, high = logits.where(below, low), high.where(below, logits)
        self.set_bias(logits)

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "values from 0 to 1", ~((x >= 0) & (x <= 1))


class Warped(Likelihood):
    """Numbers of any distribution: a warp learned from the data makes their normal scores Gaussian.

    The warp is a smooth monotone map through quantiles, so that skewed, heavy-tailed and multi-modal columns are as
    simple as Gaussian ones; the density is in the column's own units. Mean and standard deviation of the scores come
    from the decoder. With `space="log"`, for positive numbers, the logarithm is warped.
    """

    per_feature = 2
    knot_values: Tensor
    knot_scores: Tensor
    knot_slopes: Tensor

    def __init__(self, features: int, space: str = "linear") -> None:
        super().__init__(features)
        if space not in ("linear", "log"):
            raise unknown("the likelihood's space", space, ["linear", "log"])
        self.space = space
        for name, part in zip(KNOT_NAMES, Warp.identity(features), strict=True):
            self.register_buffer(name, part)

    @property
    def warp(self) -> Warp:
        """The map from values, or their logarithms, to normal scores."""
        return Warp(self.knot_values, self.knot_scores, self.knot_slopes)

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> RowDistribution:
        mean, log_std = self.split(h)
        mean = bounded(mean, -MAX_SCORE, MAX_SCORE)
        return d.Warped(mean, bounded(log_std, MIN_LOG_STD, MAX_LOG_STD), self.warp, self.space == "log")

    def inputs(self, x: Tensor) -> Tensor:
        x = x.double().log() if self.space == "log" else x
        return self.warp.score(x)[0].clamp(-FAR, FAR).to(self.bias.dtype)

    @torch.no_grad()
    def fit_marginals(self, x: Tensor) -> None:
        for name, part in zip(KNOT_NAMES, Warp.fit(x.log() if self.space == "log" else x), strict=True):
            getattr(self, name).copy_(part)
        self.set_bias(torch.zeros(self.features), torch.zeros(self.features))

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        if self.space == "log":
            return "numbers above 0", ~((x > 0) & x.isfinite())
        return "finite numbers", ~x.isfinite()
