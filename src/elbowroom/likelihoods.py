"""p(x|z): modules that know a kind of data: what fits it, what the encoder sees of it, which distribution it has.

A likelihood reads the decoder's output, flat (..., n_outputs), and returns a distribution over rows (..., D). It
starts at the marginals of the training data, because its bias is set from them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from elbowroom import distributions as d
from elbowroom.errors import DataError, ParameterError, unknown

MIN_LOG_STD = -6.0  # softly: the density of a constant column has no upper limit without it (Rybkin et al. 2021)
MAX_LOG_DISPERSION = 8.0
MIN_TOTAL = 1e-8


class Likelihood(nn.Module, ABC):
    """Base of the likelihoods: D features, `per_feature` decoder outputs for each.

    Parameters
    ----------
    features : int
        D, the number of features of a row.
    """

    per_feature = 1
    uses_total = False

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.bias = nn.Parameter(torch.zeros(self.n_outputs))

    @property
    def n_outputs(self) -> int:
        """Width of the decoder's output."""
        return self.per_feature * self.features

    @property
    def n_inputs(self) -> int:
        """Width of what the encoder sees, `inputs(x)`."""
        return self.features

    @classmethod
    def learn_options(cls, x: Tensor, options: dict[str, Any]) -> dict[str, Any]:
        """Complete the options that must be known before the module is built from training rows (n, D)."""
        return options

    @abstractmethod
    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        """Decoder outputs (..., n_outputs), and row totals (n, 1) where `uses_total`, to p(x|z)."""

    def inputs(self, x: Tensor) -> Tensor:
        """What the encoder sees of rows (n, D): values of order one, in the dtype of the model."""
        return x.to(self.bias.dtype)

    def fit_marginals(self, x: Tensor) -> None:
        """Set units and bias from training rows (n, D), float64."""

    def misfit(self, x: Tensor) -> tuple[str, Tensor] | None:
        """What this likelihood needs and the mask (n, D) of the cells that break it; None if nothing can."""
        return None

    def row_total(self, x: Tensor) -> Tensor | None:
        """Sum of every row (n, 1), for the likelihoods that are told it."""
        return None

    def draw_total(self, n: int, generator: Generator | None) -> Tensor | None:
        """Totals (n, 1) like those of the training rows, to sample rows that have none of their own."""
        return None

    def check(self, x: Tensor, columns: Sequence[str] | None = None, first: int = 0) -> None:
        """Raise `DataError` with the first offending cell if rows (n, D), of which the first is `first`, do not fit."""
        found = self.misfit(x)
        if found is None or not bool(found[1].any()):
            return
        row, column = (int(i) for i in found[1].nonzero()[0])
        where = f"column {columns[column]!r}" if columns is not None else f"column {column}"
        raise DataError(
            f"likelihood={NAMES.get(type(self), type(self).__name__)!r} needs {found[0]}",
            f"{int(found[1].sum())} values are not (first: row {first + row}, {where}, {x[row, column].item():g})",
            "Choose another likelihood, or likelihood='auto' to have one chosen from the data.",
        )

    def split(self, h: Tensor) -> tuple[Tensor, ...]:
        """Add the bias and split into `per_feature` tensors (..., D)."""
        h = h + self.bias
        return (h,) if self.per_feature == 1 else h.chunk(self.per_feature, -1)

    @torch.no_grad()
    def set_bias(self, *values: Tensor) -> None:
        """Start every output at the given values, each (D,) or a scalar."""
        self.bias.copy_(torch.cat([value.expand(self.features) for value in values]))


class Bernoulli(Likelihood):
    """Zeros and ones."""

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        return d.Bernoulli(*self.split(h))

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
    def learn_options(cls, x: Tensor, options: dict[str, Any]) -> dict[str, Any]:
        return {"total": max(1, math.ceil(float(x.max()))), **options}

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        return d.Binomial(*self.split(h), self.total)

    def inputs(self, x: Tensor) -> Tensor:
        return x.to(self.bias.dtype) / self.total

    def fit_marginals(self, x: Tensor) -> None:
        self.set_bias(((x.sum(0) + 0.5) / (len(x) * self.total + 1)).logit())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return f"whole numbers from 0 to {self.total}", ~whole_mask(x, self.total)


class Located(Likelihood):
    """Base of the likelihoods of real features, in fixed units `loc + scale * u` of the data, with a learned scale."""

    def __init__(self, features: int, scale: str = "feature") -> None:
        super().__init__(features)
        if scale not in ("feature", "shared"):
            raise unknown("the likelihood's scale", scale, ["feature", "shared"])
        self.scale = scale
        self.raw_log_std = nn.Parameter(torch.zeros(features if scale == "feature" else 1))
        self.register_buffer("unit_loc", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("unit_scale", torch.ones(features, dtype=torch.float64))

    @property
    def log_std(self) -> Tensor:
        """Learned log standard deviation in units of the data's scale, softly above `MIN_LOG_STD`, (D,)."""
        return (MIN_LOG_STD + F.softplus(self.raw_log_std - MIN_LOG_STD)).expand(self.features)

    def inputs(self, x: Tensor) -> Tensor:
        return d.in_units(x, self.unit_loc, self.unit_scale, self.bias)

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "finite numbers", ~x.isfinite()

    @torch.no_grad()
    def set_units(self, loc: Tensor, scale: Tensor) -> None:
        """Fix the units of the features; one shared learned scale asks for one shared unit."""
        scale = torch.where(scale > 1e-12 * loc.abs().clamp_min(1e-30), scale, torch.ones_like(scale))
        self.unit_loc.copy_(loc)  # type: ignore[operator]
        self.unit_scale.copy_(scale.square().mean().sqrt() if self.scale == "shared" else scale)  # type: ignore[operator]


class Gaussian(Located):
    """Real features with a learned standard deviation: one per feature, or one shared by all (`scale="shared"`)."""

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        return d.Gaussian(*self.split(h), self.log_std, self.unit_loc, self.unit_scale)  # type: ignore[arg-type, misc]

    def fit_marginals(self, x: Tensor) -> None:
        self.set_units(x.mean(0), x.std(0, correction=0))


class StudentT(Located):
    """Real features with heavy tails; location and scale start at the median and the quartiles."""

    def __init__(self, features: int, scale: str = "feature") -> None:
        super().__init__(features, scale)
        self.raw_df = nn.Parameter(torch.full((features,), 1.5))

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        df = 1 + self.raw_df.exp()
        return d.StudentT(*self.split(h), self.log_std, df, self.unit_loc, self.unit_scale)  # type: ignore[arg-type, misc]

    def inputs(self, x: Tensor) -> Tensor:
        return super().inputs(x).asinh()  # an outlier must not drown the row

    def fit_marginals(self, x: Tensor) -> None:
        low, middle, high = torch.quantile(x[:10_000], torch.tensor([0.25, 0.5, 0.75], dtype=x.dtype), dim=0)
        spread = (high - low) / 1.349
        self.set_units(middle, torch.where(spread > 0, spread, x.std(0, correction=0)))


class Counts(Likelihood):
    """Base of the likelihoods of counts; with `library`, the mean is the row's total times a softmax over features."""

    def __init__(self, features: int, library: bool = False) -> None:
        super().__init__(features)
        self.library = bool(library)
        self.register_buffer("input_mean", torch.zeros(features))
        self.register_buffer("input_std", torch.ones(features))
        self.register_buffer("totals", torch.ones(101))

    @property
    def uses_total(self) -> bool:  # type: ignore[override]
        """Whether the distribution is told the row's total."""
        return self.library

    def inputs(self, x: Tensor) -> Tensor:
        return (x.to(self.bias.dtype).log1p() - self.input_mean) / self.input_std  # type: ignore[operator]

    def row_total(self, x: Tensor) -> Tensor | None:
        return x.sum(-1, keepdim=True).to(self.bias.dtype).clamp_min(MIN_TOTAL) if self.uses_total else None

    def draw_total(self, n: int, generator: Generator | None) -> Tensor | None:
        if not self.uses_total:
            return None
        return self.totals[torch.randint(len(self.totals), (n, 1), generator=generator)]  # type: ignore[arg-type, index]

    def log_rate(self, h: Tensor, total: Tensor | None) -> Tensor:
        """Log of the mean of every feature (..., D)."""
        if not self.uses_total:
            return h
        return h.log_softmax(-1) + (self.typical_total if total is None else total).log()

    @property
    def typical_total(self) -> Tensor:
        """Median total of the training rows, for rows that have none of their own."""
        return self.totals[len(self.totals) // 2]  # type: ignore[index, arg-type]

    @torch.no_grad()
    def fit_marginals(self, x: Tensor) -> None:
        seen = x.log1p()
        self.input_mean.copy_(seen.mean(0))  # type: ignore[operator]
        self.input_std.copy_(seen.std(0, correction=0).clamp_min(0.3))  # type: ignore[operator]
        at = torch.linspace(0, 1, len(self.totals), dtype=x.dtype)  # type: ignore[arg-type]
        self.totals.copy_(torch.quantile(x.sum(-1)[:100_000], at).clamp_min(MIN_TOTAL))  # type: ignore[operator]
        self.set_bias((x.mean(0) + 0.5 / len(x)).log())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return "counts (whole numbers from 0)", ~whole_mask(x, math.inf)


class Poisson(Counts):
    """Counts whose variance is their mean."""

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        return d.Poisson(self.log_rate(*self.split(h), total))


class NegativeBinomial(Counts):
    """Counts that vary more than their mean: variance m + m^2 / r with a learned r per feature (Lopez et al. 2018)."""

    def __init__(self, features: int, library: bool = True) -> None:
        super().__init__(features, library)
        self.log_dispersion = nn.Parameter(torch.zeros(features))

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        dispersion = self.log_dispersion.clamp(-MAX_LOG_DISPERSION, MAX_LOG_DISPERSION)
        return d.NegativeBinomial(self.log_rate(*self.split(h), total), dispersion)

    @torch.no_grad()
    def fit_marginals(self, x: Tensor) -> None:
        super().fit_marginals(x)
        mean, excess = x.mean(0), (x.var(0, correction=0) - x.mean(0)).clamp_min(1e-3)
        self.log_dispersion.copy_((mean.square().clamp_min(1e-6) / excess).log().clamp(-2, 4))


class Multinomial(Counts):
    """Counts given their total: which features the row's events fell on."""

    uses_total = True  # type: ignore[assignment]

    def __init__(self, features: int) -> None:
        super().__init__(features, library=True)

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        return d.Multinomial(*self.split(h), self.typical_total if total is None else total)


class Categorical(Likelihood):
    """Codes 0..classes-1 without an order; by default as many as the largest code seen asks for."""

    def __init__(self, features: int, classes: int = 2) -> None:
        self.classes = self.per_feature = whole("likelihood categorical: classes", classes, 2)
        super().__init__(features)

    @classmethod
    def learn_options(cls, x: Tensor, options: dict[str, Any]) -> dict[str, Any]:
        return {"classes": max(2, math.ceil(float(x.max())) + 1), **options}

    @property
    def n_inputs(self) -> int:
        return self.features * self.classes

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        return d.Categorical(torch.stack(self.split(h), -1))

    def inputs(self, x: Tensor) -> Tensor:
        return F.one_hot(x.long(), self.classes).flatten(-2).to(self.bias.dtype)

    def fit_marginals(self, x: Tensor) -> None:
        seen = F.one_hot(x.long(), self.classes).sum(0)
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

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        location, log_scale = self.split(h)
        return d.DiscretizedLogistic(self.centre * (1 + location), log_scale.clamp(-4, 8), self.levels)

    def inputs(self, x: Tensor) -> Tensor:
        return x.to(self.bias.dtype) / self.centre - 1

    def fit_marginals(self, x: Tensor) -> None:
        spread = x.std(0, correction=0) * (math.sqrt(3) / math.pi)
        self.set_bias(x.mean(0) / self.centre - 1, (spread + 0.5).log())

    def misfit(self, x: Tensor) -> tuple[str, Tensor]:
        return f"whole numbers from 0 to {self.levels - 1}", ~whole_mask(x, self.levels - 1)


class ContinuousBernoulli(Likelihood):
    """Real features in [0, 1], such as grey pixels; a density, so that its nats can be positive or negative."""

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        return d.ContinuousBernoulli(*self.split(h))

    def fit_marginals(self, x: Tensor) -> None:
        self.set_bias(x.mean(0).clamp(0.02, 0.98).logit())

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

    def forward(self, h: Tensor, total: Tensor | None = None) -> d.RowDistribution:
        outputs = h.split([part.n_outputs for part in self._parts], -1)
        totals = [None] * len(outputs) if total is None else total.split(1, -1)
        return d.Mixed([part(o, t) for part, o, t in zip(self._parts, outputs, totals, strict=True)], self._index)

    def inputs(self, x: Tensor) -> Tensor:
        return torch.cat([part.inputs(x[:, c]) for part, c in zip(self._parts, self._index, strict=True)], -1)

    def fit_marginals(self, x: Tensor) -> None:
        for part, c in zip(self._parts, self._index, strict=True):
            part.fit_marginals(x[:, c])

    def row_total(self, x: Tensor) -> Tensor | None:
        return _join_totals([part.row_total(x[:, c]) for part, c in zip(self._parts, self._index, strict=True)])

    def draw_total(self, n: int, generator: Generator | None) -> Tensor | None:
        return _join_totals([part.draw_total(n, generator) for part in self._parts])

    def check(self, x: Tensor, columns: Sequence[str] | None = None, first: int = 0) -> None:
        names = columns if columns is not None else [str(c) for c in range(self.features)]
        for part, c in zip(self._parts, self._index, strict=True):
            part.check(x[:, c], [names[i] for i in c.tolist()], first)


def _join_totals(totals: Sequence[Tensor | None]) -> Tensor | None:
    known = [t for t in totals if t is not None]
    return torch.cat([torch.ones_like(known[0]) if t is None else t for t in totals], -1) if known else None


def whole(name: str, value: object, least: int) -> int:
    """Refuse an option that is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ParameterError(
            f"{name} must be a whole number, at least {least}", f"it is {value!r}", "Correct the option."
        )
    return value


def whole_mask(x: Tensor, high: float) -> Tensor:
    """Where x holds whole numbers in [0, high]."""
    inside = (x >= 0) & (x <= high)
    return inside & (x == x.floor()) & x.isfinite() if x.is_floating_point() else inside


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
    "mixed": Mixed,
}
NAMES = {likelihood: name for name, likelihood in LIKELIHOODS.items()}
