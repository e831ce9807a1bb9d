"""Likelihoods of codes, bits and pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from elbowroom import distributions as d
from elbowroom.distributions.base import RowDistribution
from elbowroom.distributions.gaussian import bounded
from elbowroom.errors import ParameterError
from elbowroom.likelihoods.base import FAR, Likelihood, highest, whole, whole_mask

MIN_LOG_SCALE, MAX_LOG_SCALE = -5.0, 3.0  # softly, of the latent logistic variable
MAX_CLASSES = 4096  # taken from the data


class Bernoulli(Likelihood):
    """Zeros and ones."""

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        return d.Bernoulli(h + self.bias)

    def fit_marginals(self, x: Tensor) -> None:
        self.set_bias(((x.sum(0) + 0.5) / (len(x) + 1)).logit())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "zeros and ones", (x != 0) & (x != 1)


class Binomial(Likelihood):
    """Counts out of `total`, such as the pixels of scikit-learn's digits (0..16); by default the training maximum."""

    def __init__(self, features: int, total: int = 1) -> None:
        super().__init__(features)
        self.total = whole("likelihood binomial: total", total, 1)

    @classmethod
    def learn_options(cls, batches: Iterable[Tensor], options: dict[str, Any]) -> dict[str, Any]:
        return options if "total" in options else options | {"total": max(1, highest(batches))}

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        return d.Binomial(h + self.bias, self.total)

    def inputs(self, x: Tensor) -> Tensor:
        return x.to(self.bias.dtype) / self.total

    def fit_marginals(self, x: Tensor) -> None:
        self.set_bias(((x.sum(0) + 0.5) / (len(x) * self.total + 1)).logit())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return f"whole numbers from 0 to {self.total}", ~whole_mask(x, self.total)


class Categorical(Likelihood):
    """Codes 0..classes-1 without an order; by default up to the largest code in training.

    With `unseen=true` the last code stands for all values not in training: it has a probability, and is never drawn.
    """

    def __init__(self, features: int, classes: int = 2, unseen: bool = False) -> None:
        if unseen not in (True, False):
            raise ParameterError("the likelihood's unseen must be true or false", f"it is {unseen!r}", "Correct it.")
        self.unseen = bool(unseen)
        self.classes = self.per_feature = whole("likelihood categorical: classes", classes, 2)
        super().__init__(features)

    @classmethod
    def learn_options(cls, batches: Iterable[Tensor], options: dict[str, Any]) -> dict[str, Any]:
        if "classes" in options:
            return options
        return options | {"classes": max(2, min(MAX_CLASSES, highest(batches) + 1))}

    @property
    def n_inputs(self) -> int:
        return self.features * self.classes

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        return d.Categorical(torch.stack(self.split(h), -1), self.unseen)

    def inputs(self, x: Tensor) -> Tensor:
        return F.one_hot(x.long(), self.classes).flatten(-2).to(self.bias.dtype)

    def fit_marginals(self, x: Tensor) -> None:
        seen = torch.stack([(x == code).sum(0) for code in range(self.classes)], -1)
        self.set_bias(*((seen + 0.5) / (len(x) + 0.5 * self.classes)).log().unbind(-1))

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return f"codes (whole numbers from 0 to {self.classes - 1})", ~whole_mask(x, self.classes - 1)


class DiscretizedLogistic(Likelihood):
    """Whole numbers 0..levels-1 with an order, such as 8-bit pixels; location and scale come from the decoder."""

    per_feature = 2

    def __init__(self, features: int, levels: int = 256) -> None:
        super().__init__(features)
        self.levels = whole("likelihood discretized_logistic: levels", levels, 2)

    @property
    def centre(self) -> float:
        """Middle of the range, and half its width."""
        return (self.levels - 1) / 2

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        location, log_scale = self.split(h)
        return d.DiscretizedLogistic(self.centre * (1 + location), bounded(log_scale, -4, 8), self.levels)

    def inputs(self, x: Tensor) -> Tensor:
        return x.to(self.bias.dtype) / self.centre - 1

    def fit_marginals(self, x: Tensor) -> None:
        spread = x.std(0, correction=0) * (math.sqrt(3) / math.pi)
        self.set_bias(x.mean(0) / self.centre - 1, (spread + 0.5).log())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return f"whole numbers from 0 to {self.levels - 1}", ~whole_mask(x, self.levels - 1)


class Ordinal(Likelihood):
    """Codes 0..levels-1 with an order: a logistic variable cut at thresholds that match the data's marginals.

    Location and scale come from the decoder. With `open=true`, whole numbers outside 0..levels-1 are possible too, as
    with ages: they have a probability in exponential tails; with a `floor`, 0 or below, no code is lower than that.
    """

    per_feature = 2
    cutpoints: Tensor
    tail_spacing: Tensor
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
        self.register_buffer("cutpoints", torch.zeros(features, max(self.tops) + 1, dtype=torch.float64))
        self.register_buffer("tail_spacing", torch.ones(features, dtype=torch.float64))
        self._set_cutpoints(torch.zeros(features, max(self.tops), dtype=torch.float64), 0)

    def _lowest(self, floor: Any) -> int:
        if isinstance(floor, bool) or not isinstance(floor, int) or floor > 0 or not self.open:
            expected = "the likelihood's floor must be a whole number, 0 or below, beside open=true"
            raise ParameterError(expected, f"it is {floor!r} beside open={self.open}", "Correct it.")
        return floor

    @classmethod
    def learn_options(cls, batches: Iterable[Tensor], options: dict[str, Any]) -> dict[str, Any]:
        return options if "levels" in options else options | {"levels": max(2, highest(batches) + 1)}

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> RowDistribution:
        location, log_scale = self.split(h)
        log_scale = bounded(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE)
        return d.Ordinal(location, log_scale, self.cutpoints, self.tail_spacing, self.floors if self.open else None)

    def inputs(self, x: Tensor) -> Tensor:
        low, high = d.cutpoints_around(x, self.cutpoints, self.tail_spacing, self.floors)
        middle = (low.clamp(-6, 6) + high.clamp(-6, 6)) / 2
        return (middle * (math.sqrt(3) / math.pi)).clamp(-FAR, FAR).to(self.bias.dtype)

    def fit_marginals(self, x: Tensor) -> None:
        codes = torch.arange(self.cutpoints.shape[1] - 1)
        self._set_cutpoints(torch.stack([(x == code).sum(0) for code in codes], -1).double(), len(x))
        self.set_bias(torch.zeros(self.features), torch.zeros(self.features))

    @torch.no_grad()
    def _set_cutpoints(self, counts: Tensor, n: int) -> None:
        """Thresholds from the number of times that each code (D, L) was seen in n rows; no code is impossible."""
        tops = torch.tensor(self.tops)[:, None]
        codes = torch.arange(counts.shape[1])
        ends = 0.25 if self.open else 0.0
        below = ((counts + 0.5 / tops) * (codes < tops)).cumsum(-1)
        shares = torch.cat([torch.zeros_like(below[:, :1]), below], -1) + ends
        cutpoints, tail_spacing = (shares / (n + 0.5 + 2 * ends)).logit(), self._tail_spacing(counts, n)
        beyond = torch.arange(counts.shape[1] + 1) - tops
        if self.open:
            last = cutpoints.gather(1, tops)
            cutpoints = torch.where(beyond > 0, last + beyond * tail_spacing[:, None], cutpoints)
        else:
            cutpoints[:, 0] = -d.END
            cutpoints[beyond >= 0] = d.END
        self.cutpoints.copy_(cutpoints)
        self.tail_spacing.copy_(tail_spacing)

    def _tail_spacing(self, counts: Tensor, n: int) -> Tensor:
        """The distance of the thresholds outside the usual codes: that of a logistic with the data's spread."""
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
    """An option with one value per feature."""
    given: list[Any] = list(option) if isinstance(option, list | tuple) else [option] * features
    if len(given) != features:
        raise ParameterError(f"{name} must be one number, or {features} numbers", f"it is {option!r}", "Correct it.")
    return given
