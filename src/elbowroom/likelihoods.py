"""The likelihoods: bounded, real and categorical features, columns of several kinds, and the family of them all.

Those of counts are in `likelihood_counts`, and what they share is in `likelihood_base`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from elbowroom import distribution_tables as tables
from elbowroom import distributions as d
from elbowroom.errors import ParameterError, unknown
from elbowroom.gaussians import bounded
from elbowroom.likelihood_base import Likelihood, highest, whole, whole_mask
from elbowroom.likelihood_counts import Multinomial, NegativeBinomial, Poisson
from elbowroom.likelihood_tables import Ordinal, Warped

MIN_LOG_STD = -6.0  # softly: the density of a constant column has no upper limit without it (Rybkin et al. 2021)
UNIT_STD = math.log(-math.expm1(MIN_LOG_STD))  # the raw value that stands for a standard deviation of 1
MAX_CLASSES = 4096  # that are taken from the data
MAX_LOG_DF = 6.0  # softly: beyond, a Student-t is a Gaussian, and its gradient nothing but rounding


class Bernoulli(Likelihood):
    """Zeros and ones."""

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
        return d.Bernoulli(h + self.bias)

    def fit_marginals(self, x: Tensor) -> None:
        self.set_bias(((x.sum(0) + 0.5) / (len(x) + 1)).logit())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "zeros and ones", (x != 0) & (x != 1)


class Binomial(Likelihood):
    """Counts out of `total`, such as the pixels of scikit-learn's digits (0..16); by default the largest value seen."""

    def __init__(self, features: int, total: int = 1) -> None:
        super().__init__(features)
        self.total = whole("likelihood binomial: total", total, 1)

    @classmethod
    def learn_options(cls, batches: Iterable[Tensor], options: dict[str, Any]) -> dict[str, Any]:
        return options if "total" in options else options | {"total": max(1, highest(batches))}

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
        return d.Binomial(h + self.bias, self.total)

    def inputs(self, x: Tensor) -> Tensor:
        return x.to(self.bias.dtype) / self.total

    def fit_marginals(self, x: Tensor) -> None:
        self.set_bias(((x.sum(0) + 0.5) / (len(x) * self.total + 1)).logit())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return f"whole numbers from 0 to {self.total}", ~whole_mask(x, self.total)


class Located(Likelihood):
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
    def n_moved(self) -> int:
        return len(self.raw_log_std)

    def log_std(self, moved: Tensor | None = None) -> Tensor:
        """Learned log standard deviation in units of the data's scale, softly above `MIN_LOG_STD`, (D,) or (n, D)."""
        above = self.raw_log_std - MIN_LOG_STD
        if moved is not None:  # added last: it has a value for every row
            above = above + moved
        return (MIN_LOG_STD + F.softplus(above)).expand(*above.shape[:-1], self.features)

    def inputs(self, x: Tensor) -> Tensor:
        return d.in_units(x, self.unit_loc, self.unit_scale, self.bias)

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "finite numbers", ~x.isfinite()

    @torch.no_grad()
    def set_units(self, loc: Tensor, scale: Tensor) -> None:
        """Fix the units of the features, and start at their origin; a shared scale asks for a shared unit."""
        self.set_bias(torch.zeros_like(loc))
        size = loc.abs()
        if self.scale == "shared":
            size, scale = size.max(), scale.square().mean().sqrt()
        self.unit_loc.copy_(loc)
        self.unit_scale.copy_(scale.where(scale > 1e-12 * size.clamp_min(1e-30), 1.0))  # a constant has no scale


class Gaussian(Located):
    """Real features with a learned standard deviation: one per feature, or one shared by all (`scale="shared"`)."""

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
        return d.Gaussian(h + self.bias, self.log_std(moved), self.unit_loc, self.unit_scale)

    def fit_marginals(self, x: Tensor) -> None:
        self.set_units(x.mean(0), x.std(0, correction=0))


class StudentT(Located):
    """Real features with heavy tails; location and scale start at the median and the quartiles."""

    def __init__(self, features: int, scale: str = "feature") -> None:
        super().__init__(features, scale)
        self.raw_df = nn.Parameter(torch.full((features,), 1.5))

    @property
    def n_moved(self) -> int:
        return super().n_moved + self.features

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
        scale, tails = (None, 0.0) if moved is None else moved.split([super().n_moved, self.features], -1)
        df = 1 + (MAX_LOG_DF - F.softplus(MAX_LOG_DF - (self.raw_df + tails))).exp()
        return d.StudentT(h + self.bias, self.log_std(scale), df, self.unit_loc, self.unit_scale)

    def inputs(self, x: Tensor) -> Tensor:
        return super().inputs(x).asinh()  # an outlier must not drown the row

    def fit_marginals(self, x: Tensor) -> None:
        some = x[:: math.ceil(len(x) / 10_000)]
        low, middle, high = torch.quantile(some, torch.tensor([0.25, 0.5, 0.75], dtype=x.dtype), dim=0)
        spread = (high - low) / 1.349
        self.set_units(middle, torch.where(spread > 0, spread, x.std(0, correction=0)))


class Categorical(Likelihood):
    """Codes 0..classes-1 without an order; by default as many as the largest code seen asks for.

    With `unseen=true` the last code stands for all that was not in training: it has a probability, and is never drawn.
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

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
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

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
        location, log_scale = self.split(h)
        return d.DiscretizedLogistic(self.centre * (1 + location), bounded(log_scale, -4, 8), self.levels)

    def inputs(self, x: Tensor) -> Tensor:
        return x.to(self.bias.dtype) / self.centre - 1

    def fit_marginals(self, x: Tensor) -> None:
        spread = x.std(0, correction=0) * (math.sqrt(3) / math.pi)
        self.set_bias(x.mean(0) / self.centre - 1, (spread + 0.5).log())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return f"whole numbers from 0 to {self.levels - 1}", ~whole_mask(x, self.levels - 1)


class ContinuousBernoulli(Likelihood):
    """Real features in [0, 1], such as grey pixels; a density, so that its nats can be positive or negative."""

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
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


class Mixed(Likelihood):
    """Groups of columns, each with a likelihood of its own; columns weigh in nats, nothing else.

    Parameters
    ----------
    parts : sequence of Likelihood
        One for each group.
    columns : sequence of sequence of int
        The columns of each group; together every column once.
    """

    def __init__(self, parts: Sequence[Likelihood], columns: Sequence[Sequence[int]]) -> None:
        nn.Module.__init__(self)
        self.parts = nn.ModuleList(parts)
        self.columns = [[int(c) for c in group] for group in columns]
        self.features = sum(part.features for part in parts)
        if sorted(c for group in self.columns for c in group) != list(range(self.features)):
            raise ParameterError(
                "mixed columns must name every column once", f"they are {self.columns}", "Complete them."
            )
        for i, group in enumerate(self.columns):
            self.register_buffer(f"index{i}", torch.tensor(group), persistent=False)

    @property
    def like(self) -> Tensor:
        """A tensor in the model's precision and place."""
        return next(self.parameters())

    @property
    def n_moved(self) -> int:
        return sum(part.n_moved for part in self._parts)

    @property
    def n_outputs(self) -> int:
        return sum(part.n_outputs for part in self._parts)

    @property
    def n_inputs(self) -> int:
        return sum(part.n_inputs for part in self._parts)

    @property
    def _parts(self) -> list[Likelihood]:
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def _index(self) -> list[Tensor]:
        return [getattr(self, f"index{i}") for i in range(len(self.columns))]

    def forward(self, h: Tensor, total: Tensor | None = None, moved: Tensor | None = None) -> d.RowDistribution:
        outputs = h.split([part.n_outputs for part in self._parts], -1)
        none = [None] * len(outputs)
        totals = none if total is None else total.split(1, -1)
        moves = none if moved is None else moved.split([part.n_moved for part in self._parts], -1)
        found = [part(*given) for part, *given in zip(self._parts, outputs, totals, moves, strict=True)]
        return self._join(found)

    def _join(self, parts: list[d.RowDistribution]) -> d.RowDistribution:
        return tables.Mixed(parts, self._index)

    def inputs(self, x: Tensor) -> Tensor:
        return torch.cat([part.inputs(x[:, c]) for part, c in zip(self._parts, self._index, strict=True)], -1)

    def fit_marginals(self, x: Tensor) -> None:
        for part, c in zip(self._parts, self._index, strict=True):
            part.fit_marginals(x[:, c])

    def row_total(self, x: Tensor) -> Tensor | None:
        return _join_totals([part.row_total(x[:, c]) for part, c in zip(self._parts, self._index, strict=True)])

    def draw_total(self, n: int, generator: Generator | None, context: Tensor | None = None) -> Tensor | None:
        return _join_totals([part.draw_total(n, generator, context) for part in self._parts])

    def expect_contexts(self, contexts: int) -> None:
        for part in self._parts:
            part.expect_contexts(contexts)

    def fit_context_totals(self, totals: Tensor, context: Tensor) -> None:
        for part, of_part in zip(self._parts, totals.split(1, -1), strict=True):
            part.fit_context_totals(of_part, context)

    def check(self, x: Tensor, columns: Sequence[Any] | None = None, first: int = 0) -> None:
        names = columns if columns is not None else range(self.features)
        for part, c in zip(self._parts, self._index, strict=True):
            part.check(x[:, c], [names[i] for i in c.tolist()], first)


class Table(Mixed):
    """Columns of a table, in rows with holes (NaN): a hole adds nothing to the log-probability of its row.

    The encoder sees a 0 in its place; that something is missing it is told by columns of their own, where the schema of
    the table has them.
    """

    fill: Tensor

    def __init__(self, parts: Sequence[Likelihood], columns: Sequence[Sequence[int]]) -> None:
        super().__init__(parts, columns)
        self.register_buffer("fill", torch.zeros(self.features, dtype=torch.float64))

    def _join(self, parts: list[d.RowDistribution]) -> d.RowDistribution:
        return tables.Table(parts, self._index, self.fill)

    def inputs(self, x: Tensor) -> Tensor:
        hole = x.isnan()
        filled, seen = x.where(~hole, self.fill), []
        for part, c in zip(self._parts, self._index, strict=True):
            values = part.inputs(filled[:, c])
            width = values.shape[-1] // len(c)
            seen.append(values.masked_fill(hole[:, c].repeat_interleave(width, -1), 0))
        return torch.cat(seen, -1)

    def fit_marginals(self, x: Tensor) -> None:
        filled = torch.stack([_filled(column) for column in x.T], 1)
        self.fill.copy_(filled.median(0).values)
        super().fit_marginals(filled)

    def check(self, x: Tensor, columns: Sequence[Any] | None = None, first: int = 0) -> None:
        super().check(x.where(~x.isnan(), self.fill), columns, first)


def _filled(column: Tensor) -> Tensor:
    """A column (n,) with its holes filled so that its distribution stays the same; ones where there is nothing else."""
    hole = column.isnan()
    known = column[~hole].sort().values
    if not len(known):
        return torch.ones_like(column)
    at = torch.linspace(0, len(known) - 1, max(int(hole.sum()), 1), dtype=torch.float64).round().long()
    return column.masked_scatter(hole, known[at])


def _join_totals(totals: Sequence[Tensor | None]) -> Tensor | None:
    known = [t for t in totals if t is not None]
    return torch.cat([torch.ones_like(known[0]) if t is None else t for t in totals], -1) if known else None


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "binomial": Binomial,
    "gaussian": Gaussian,
    "student_t": StudentT,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "multinomial": Multinomial,
    "categorical": Categorical,
    "discretized_logistic": DiscretizedLogistic,
    "continuous_bernoulli": ContinuousBernoulli,
    "warped": Warped,
    "ordinal": Ordinal,
    "mixed": Mixed,
}
