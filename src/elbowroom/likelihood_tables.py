"""Likelihoods of what tables hold: numbers of any distribution, and codes that have an order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from elbowroom import distribution_tables as d
from elbowroom.distributions import RowDistribution
from elbowroom.errors import ParameterError, unknown
from elbowroom.gaussians import bounded
from elbowroom.likelihood_base import Likelihood, highest, whole, whole_mask
from elbowroom.warps import Warp

MIN_LOG_STD, MAX_LOG_STD = -6.0, 2.0  # softly, of normal scores
MIN_LOG_SCALE, MAX_LOG_SCALE = -5.0, 3.0  # softly, of the logistic variable behind codes
MAX_SCORE = 12.0  # beyond is no data
FAR = 4.0  # what the encoder sees of an outlier at most, in standard deviations


class Warped(Likelihood):
    """Numbers of any distribution: a warp learned from the data makes their normal scores Gaussian.

    The warp is a smooth monotone map through quantiles, so that skewed, heavy-tailed and multi-modal columns are
    as simple
    as Gaussian ones; the density is that of the column's own units. Mean and standard deviation of the scores come from
    the decoder. With `space="log"` for positive numbers, it is their logarithm that is warped.
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

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> RowDistribution:
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


class Ordinal(Likelihood):
    """Codes 0..levels-1 with an order: a logistic variable cut at thresholds, those of the data's marginals.

    Location and scale come from the decoder. With `open=true` the codes are whole numbers of which these are the usual
    ones, such as ages: lower and higher ones have a probability too, in exponential tails; with a `floor`, 0 or below,
    no code is lower than that.
    """

    per_feature = 2
    edges: Tensor
    pace: Tensor
    floors: Tensor

    def __init__(
        self,
        features: int,
        levels: int | Sequence[int] = 2,
        open: bool = False,
        floor: int | Sequence[int | None] | None = None,
    ) -> None:
        super().__init__(features)
        if open not in (True, False):
            raise ParameterError("the likelihood's open must be true or false", f"it is {open!r}", "Correct it.")
        self.levels, self.open, self.floor = levels, bool(open), floor
        self.tops = [whole("likelihood ordinal: levels", n, 2) for n in _each("levels", levels, features)]
        floors = [-math.inf if one is None else self._lowest(one) for one in _each("floor", floor, features)]
        self.register_buffer("floors", torch.tensor(floors, dtype=torch.float64), persistent=False)
        self.register_buffer("edges", torch.zeros(features, max(self.tops) + 1, dtype=torch.float64))
        self.register_buffer("pace", torch.ones(features, dtype=torch.float64))
        self._set_edges(torch.zeros(features, max(self.tops), dtype=torch.float64), 0)

    def _lowest(self, floor: Any) -> int:
        if isinstance(floor, bool) or not isinstance(floor, int) or floor > 0 or not self.open:
            expected = "the likelihood's floor must be a whole number, 0 or below, beside open=true"
            raise ParameterError(expected, f"it is {floor!r} beside open={self.open}", "Correct it.")
        return floor

    @classmethod
    def learn_options(cls, batches: Iterable[Tensor], options: dict[str, Any]) -> dict[str, Any]:
        return options if "levels" in options else options | {"levels": max(2, highest(batches) + 1)}

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> RowDistribution:
        location, log_scale = self.split(h)
        log_scale = bounded(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE)
        return d.Ordinal(location, log_scale, self.edges, self.pace, self.floors if self.open else None)

    def inputs(self, x: Tensor) -> Tensor:
        low, high = d.edges_around(x, self.edges, self.pace, self.floors)
        middle = (low.clamp(-6, 6) + high.clamp(-6, 6)) / 2
        return (middle * (math.sqrt(3) / math.pi)).clamp(-FAR, FAR).to(self.bias.dtype)

    def fit_marginals(self, x: Tensor) -> None:
        codes = torch.arange(self.edges.shape[1] - 1)
        self._set_edges(torch.stack([(x == code).sum(0) for code in codes], -1).double(), len(x))
        self.set_bias(torch.zeros(self.features), torch.zeros(self.features))

    @torch.no_grad()
    def _set_edges(self, counts: Tensor, n: int) -> None:
        """Thresholds from how often each code (D, L) was seen in n rows; no code is impossible."""
        tops = torch.tensor(self.tops)[:, None]
        codes = torch.arange(counts.shape[1])
        ends = 0.25 if self.open else 0.0
        below = ((counts + 0.5 / tops) * (codes < tops)).cumsum(-1)
        shares = torch.cat([torch.zeros_like(below[:, :1]), below], -1) + ends
        edges, pace = (shares / (n + 0.5 + 2 * ends)).logit(), self._pace(counts, n)
        beyond = torch.arange(counts.shape[1] + 1) - tops
        if self.open:
            last = edges.gather(1, tops)
            edges = torch.where(beyond > 0, last + beyond * pace[:, None], edges)
        else:
            edges[:, 0] = -d.END
            edges[beyond >= 0] = d.END
        self.edges.copy_(edges)
        self.pace.copy_(pace)

    def _pace(self, counts: Tensor, n: int) -> Tensor:
        """How far apart the thresholds beyond the usual codes are: as those of a logistic of the data's spread."""
        codes, total = torch.arange(counts.shape[1], dtype=torch.float64), max(n, 1)
        mean = (counts * codes).sum(-1, keepdim=True) / total
        spread = ((counts * (codes - mean).square()).sum(-1) / total).sqrt()
        return (math.pi / math.sqrt(3)) / spread.clamp_min(0.5)

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        if self.open:
            found = "whole numbers, from the floor of their column" if self.floors.isfinite().any() else "whole numbers"
            return found, ~((x == x.floor()) & x.isfinite() & (x >= self.floors))
        highest_codes = torch.tensor(self.tops, device=x.device) - 1
        return f"codes (whole numbers from 0 to {max(self.tops) - 1})", ~whole_mask(x, highest_codes)  # type: ignore[arg-type]


def _each(name: str, option: Any, features: int) -> list[Any]:
    """An option of every feature."""
    given: list[Any] = list(option) if isinstance(option, list | tuple) else [option] * features
    if len(given) != features:
        raise ParameterError(f"{name} must be one number, or {features}", f"it is {option!r}", "Correct it.")
    return given


KNOT_NAMES = ("knot_values", "knot_scores", "knot_slopes")
