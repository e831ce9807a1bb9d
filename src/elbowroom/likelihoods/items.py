"""Likelihoods of many items, which contain the last layer of the network: events, play counts, ratings.

With tens of thousands of items, the last product and the softmax dominate a training step. Computed together they need
one table (n, items) instead of four, and with a sample of the items none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy import sparse
from torch import Generator, Tensor, nn

from elbowroom.data.sparse import SparseBatch
from elbowroom.distributions.items import Items, NegativeBinomialItems, Ratings, SampledItems, who_rates_what
from elbowroom.errors import ParameterError
from elbowroom.likelihoods.base import Likelihood
from elbowroom.likelihoods.counts import UNNORMALISED
from elbowroom.utils.randomness import module_generator

MAX_LOG_DISPERSION = 10.0
MAX_LOG_ERROR = 3.0
FEW_RATINGS = 5.0  # ratings equal to the mean that every item starts with
QUANTILES = 101  # of the training rows' totals


class ItemMultinomial(Likelihood):
    """Counts given their total, over many items, so that the last layer of the network is part of the likelihood.

    Parameters
    ----------
    features : int
        The number of items.
    width : int
        Width of the decoder's last hidden layer.
    sampled : int
        Items drawn by popularity in every training step to estimate the sum over all (Jean et al. 2015): apart from
        the table itself, memory and time of a step then do not grow with the number of items. 0 uses all.
    tied : bool
        Whether the encoder's first layer shares the table.
    """

    totals: Tensor
    log_chance: Tensor  # of each item's being drawn
    reach: Tensor  # their cumulative sum

    def __init__(self, features: int, width: int, tied: bool = False, sampled: int = 0) -> None:
        nn.Module.__init__(self)
        if isinstance(sampled, bool) or not isinstance(sampled, int) or sampled < 0:
            raise ParameterError("sampled must be a number of items, or 0 for all", f"it is {sampled!r}", "Try 8192.")
        self.features, self.width, self.sampled, self.tied = features, width, sampled, tied
        table = torch.empty(features, width).uniform_(-1, 1, generator=module_generator())
        self.table = nn.Parameter(table.div_(math.sqrt(width)))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("totals", torch.ones(QUANTILES))
        self.register_buffer("log_chance", torch.full((features if sampled else 0,), -math.log(features)))
        self.register_buffer("reach", torch.arange(1, features + 1 if sampled else 1).double() / features)

    @property
    def uses_total(self) -> bool:
        return True

    @property
    def n_outputs(self) -> int:
        return self.width

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> Items:
        total = self.totals[QUANTILES // 2] if total is None else total
        if not (self.training and self.sampled):
            return Items(h, self.table, self.bias, total)
        u = torch.rand(self.sampled, dtype=torch.float64, device=h.device, generator=module_generator())
        drawn = torch.searchsorted(self.reach, u)
        log_weight = -math.log(self.sampled) - self.log_chance[drawn]
        return SampledItems(h, self.table, self.bias, total, drawn, log_weight)

    def inputs(self, x: Any) -> Any:
        """Rows of norm 1 (Liang et al. 2018); counts by their logarithm, so that one item can not dominate a row."""
        if isinstance(x, SparseBatch):
            return x.with_values(x.values.to(self.bias.dtype).log1p()).unit_length(self.bias.dtype)
        return nn.functional.normalize(x.to(self.bias.dtype).log1p(), dim=-1)

    def row_total(self, x: Any) -> Tensor:
        return x.sum(-1, keepdim=True).to(self.bias.dtype)

    def draw_total(self, n: int, generator: Generator | None, context: Tensor | None = None) -> Tensor:
        return self.totals[torch.randint(QUANTILES, (n, 1), generator=generator)]

    @torch.no_grad()
    def fit_marginals(self, x: Any) -> None:
        """Start at the popularity of the items in rows (n, items)."""
        if isinstance(x, SparseBatch):
            x = x.with_values(x.values.double())
            seen = x.values.new_zeros(self.features).index_add(0, x.columns, x.values)
        else:
            seen = x.double().sum(0)
        chance = (seen + 0.5) / (seen + 0.5).sum()
        self.bias.copy_(chance.log() - chance.log().mean())
        sums = x.sum(-1).double().sort().values
        at = torch.linspace(0, len(sums) - 1, QUANTILES, dtype=torch.float64).round().long()
        self.totals.copy_(sums[at])
        if self.sampled:
            self.log_chance.copy_(chance.log())
            self.reach.copy_(chance.cumsum(0) / chance.sum())


class ItemPoisson(ItemMultinomial):
    """Counts of every item, Poisson with the row's total times the item's share as the mean.

    The row's total is given, so that they are multinomial: so are log-probabilities, gradients and samples.
    """

    def __init__(self, features: int, width: int, tied: bool = False) -> None:
        super().__init__(features, width, tied)


class ItemNegativeBinomial(ItemMultinomial):
    """Play counts: like Poisson counts, with a learned dispersion for each item (variance m + m^2 / r).

    Playing a song a hundred times is then little more evidence than playing it ten times. A step needs several tables
    (batch, items).
    """

    def __init__(self, features: int, width: int, tied: bool = False) -> None:
        super().__init__(features, width, tied)
        self.log_dispersion = nn.Parameter(torch.zeros(features))

    @property
    def given(self) -> str:
        return UNNORMALISED

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> Items:
        total = self.totals[QUANTILES // 2] if total is None else total
        dispersion = self.log_dispersion.clamp(-MAX_LOG_DISPERSION, MAX_LOG_DISPERSION)
        return NegativeBinomialItems(h, self.table, self.bias, total, dispersion)


class ItemRatings(ItemMultinomial):
    """Ratings of the items that a row has rated, Gaussian with a learned error for each item; the others are unknown.

    A score is the expected rating. Which items a user rates is not modelled, so that histories can not be drawn.
    Ratings must be above zero, which stands for unrated.
    """

    center: Tensor  # of every item
    spread: Tensor  # standard deviation of all ratings around these

    def __init__(self, features: int, width: int, tied: bool = False) -> None:
        super().__init__(features, width, tied)
        self.log_error = nn.Parameter(torch.zeros(features))  # log standard deviations in units of the spread
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> Items:
        log_std = self.log_error.clamp(-MAX_LOG_ERROR, MAX_LOG_ERROR) + self.spread.log()
        return Ratings(h, self.table, self.bias, self.totals[QUANTILES // 2] if total is None else total, log_std)

    def inputs(self, x: Any) -> Any:
        """Deviations of ratings from their items' means, over the root of their number: an average rating is 0."""
        if isinstance(x, SparseBatch):
            far = (x.values.to(self.bias.dtype) - self.center[x.columns]) / self.spread
            return x.with_values(far / x.starts.diff()[x.row].to(far.dtype).sqrt())
        far = torch.where(x == 0, 0.0, (x.to(self.bias.dtype) - self.center) / self.spread)
        return far / (x != 0).sum(-1, keepdim=True).clamp_min(1).sqrt()

    def draw_total(self, n: int, generator: Generator | None, context: Tensor | None = None) -> Tensor:
        raise who_rates_what()

    @torch.no_grad()
    def fit_marginals(self, x: Any) -> None:
        """Start at the items' means in rows (n, items), with few ratings shrunk towards the overall mean."""
        x = x if isinstance(x, SparseBatch) else SparseBatch.of(sparse.csr_matrix(x.numpy(force=True)))
        values, sums = x.values.double(), torch.zeros(2, self.features, dtype=torch.float64)
        mean = values.mean() if len(values) else values.new_zeros(())
        sums.index_add_(1, x.columns, torch.stack([values - mean, torch.ones_like(values)]))
        center = mean + sums[0] / (sums[1] + FEW_RATINGS)
        self.center.copy_(center)
        self.bias.copy_(center)
        spread = (values - center[x.columns]).square().mean().sqrt() if len(values) else mean
        self.spread.copy_(spread if spread > 0 else torch.ones_like(spread))


ITEM_LIKELIHOODS: dict[str, type[ItemMultinomial]] = {
    "multinomial": ItemMultinomial,
    "poisson": ItemPoisson,
    "negative_binomial": ItemNegativeBinomial,
    "ratings": ItemRatings,
}
