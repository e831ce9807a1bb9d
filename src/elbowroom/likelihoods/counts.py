"""Likelihoods of counts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from elbowroom import distributions as d
from elbowroom.distributions.gaussian import bounded
from elbowroom.errors import ParameterError
from elbowroom.likelihoods.base import Likelihood, whole, whole_mask

MIN_TOTAL = 1e-8
MAX_LOG_RATE = 30.0  # ten times the largest count
LARGE = 1e5  # total of a row from which float32 loses a tenth of a nat of its log-probability
MAX_LOG_DISPERSION = 8.0
UNNORMALISED = "the totals of the rows, as the sizes of their means; not normalised over the rows of a total"
QUANTILES = 101  # that stand for the totals of many rows


class Counts(Likelihood):
    """Base of the likelihoods of counts; with `library`, the mean is the row's total times a softmax over features.

    Rows without a total get one drawn from the quantiles of the training totals, (101,), and in a model with context
    from those of each label's rows, (contexts, 101).
    """

    large: bool = False  # whether training rows had totals of LARGE or more
    input_mean: Tensor
    input_std: Tensor
    totals: Tensor
    context_totals: Tensor

    def __init__(self, features: int, library: bool = False, *, contexts: int = 0) -> None:
        super().__init__(features)
        if library not in (True, False):
            raise ParameterError("the likelihood's library must be true or false", f"it is {library!r}", "Correct it.")
        self.library = bool(library)
        self.register_buffer("input_mean", torch.zeros(features))
        self.register_buffer("input_std", torch.ones(features))
        self.register_buffer("totals", torch.ones(QUANTILES))
        self.expect_contexts(whole("the likelihood's contexts", contexts, 0))

    def expect_contexts(self, contexts: int) -> None:
        self.contexts = contexts if self.uses_total else 0
        if self.contexts:
            self.register_buffer("context_totals", torch.ones(self.contexts, QUANTILES))

    @property
    def uses_total(self) -> bool:
        return self.library

    def inputs(self, x: Tensor) -> Tensor:
        return (x.to(self.bias.dtype).log1p() - self.input_mean) / self.input_std

    def row_total(self, x: Tensor) -> Tensor | None:
        return x.sum(-1, keepdim=True).to(self.bias.dtype).clamp_min(MIN_TOTAL) if self.uses_total else None

    def draw_total(self, n: int, generator: Generator | None, context: Tensor | None = None) -> Tensor | None:
        if not self.uses_total:
            return None
        at = torch.randint(QUANTILES, (n, 1), generator=generator)
        if context is None or not self.contexts:
            return self.totals[at]
        return self.context_totals[context.argmax(-1, keepdim=True), at]

    @torch.no_grad()
    def fit_context_totals(self, totals: Tensor, context: Tensor) -> None:
        for label, of_label in enumerate(self.context_totals if self.contexts else ()):
            some = totals[context[:, label] > 0]
            of_label.copy_(_quantiles(some[:, 0]) if len(some) else self.totals)

    def log_rate(self, h: Tensor, total: Tensor | None) -> Tensor:
        """Log of the mean of every feature (..., D), from decoder outputs."""
        h = h + self.bias
        if not self.uses_total:
            return bounded(h, -math.inf, MAX_LOG_RATE)
        return h.log_softmax(-1) + (self.typical_total if total is None else total).log()

    def distribution(self, kind: type[d.RowDistribution], *parameters: Tensor) -> d.RowDistribution:
        """p(x|z) of the given class, in float64 where large counts need it."""
        return d.LargeCounts(kind, *parameters) if self.large else kind(*parameters)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.large = bool(self.totals[-1] >= LARGE)

    @property
    def typical_total(self) -> Tensor:
        """Median total of the training rows, for rows without a total."""
        return self.totals[len(self.totals) // 2]

    @torch.no_grad()
    def fit_marginals(self, x: Tensor) -> None:
        seen = x.log1p()
        self.input_mean.copy_(seen.mean(0))
        self.input_std.copy_(seen.std(0, correction=0).clamp_min(0.3))
        sums = x.sum(-1)
        self.totals.copy_(_quantiles(sums).clamp_min(MIN_TOTAL))
        self.large = bool(sums.max() >= LARGE)
        self.set_bias((x.mean(0) + 0.5 / len(x)).log())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "counts (whole numbers from 0 to 1e12)", ~whole_mask(x, d.MAX_COUNT)


class Poisson(Counts):
    """Counts whose variance is their mean; with `library`, given the row's total, which makes them multinomial."""

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        if not self.uses_total:
            return self.distribution(d.Poisson, self.log_rate(h, total))
        return self.distribution(d.Multinomial, h + self.bias, self.typical_total if total is None else total)


class NegativeBinomial(Counts):
    """Counts that vary more than their mean: variance m + m^2 / r with a learned r per feature (Lopez et al. 2018).

    With `library`, the row's total is a size factor of the means, and the sum of a draw may differ from it: log p(x|z)
    is normalised over all rows of counts, not only over those with the given total. Such scores compare with those of
    models of this kind, not with likelihoods that are normalised over the rows of a given total.
    """

    def __init__(self, features: int, library: bool = True, *, contexts: int = 0) -> None:
        super().__init__(features, library, contexts=contexts)
        self.log_dispersion = nn.Parameter(torch.zeros(features))

    @property
    def given(self) -> str:
        return UNNORMALISED if self.uses_total else ""

    @property
    def n_shifts(self) -> int:
        return self.features

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        dispersion = self.log_dispersion if shift is None else self.log_dispersion + shift
        dispersion = bounded(dispersion, -MAX_LOG_DISPERSION, MAX_LOG_DISPERSION)
        return self.distribution(d.NegativeBinomial, self.log_rate(h, total), dispersion)

    @torch.no_grad()
    def fit_marginals(self, x: Tensor) -> None:
        super().fit_marginals(x)
        mean, excess = x.mean(0), (x.var(0, correction=0) - x.mean(0)).clamp_min(1e-3)
        self.log_dispersion.copy_((mean.square().clamp_min(1e-6) / excess).log().clamp(-2, 4))


class Multinomial(Counts):
    """Counts given their total: how the row's events are distributed over features."""

    def __init__(self, features: int, *, contexts: int = 0) -> None:
        super().__init__(features, library=True, contexts=contexts)

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        return self.distribution(d.Multinomial, h + self.bias, self.typical_total if total is None else total)


def _quantiles(totals: Tensor) -> Tensor:
    """Evenly spaced quantiles (101,) of totals (n,)."""
    at = torch.linspace(0, len(totals) - 1, QUANTILES, dtype=torch.float64).round().long()
    return totals.sort().values[at]
