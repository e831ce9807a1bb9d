"""likelihood="auto": look at the data, decide, and say why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from elbowroom.data.images import FEW_LEVELS
from elbowroom.data.rows import Rows
from elbowroom.distributions import MAX_COUNT

MARGIN = 3  # standard errors by which counts must vary more than a Poisson's
NEAR, NEAR_SHARE = 1e-4, 1e-6  # how far from a whole number what came of one by computing may be, and by its size


class Choice(NamedTuple):
    """A likelihood, as a text form or as text forms of groups of columns, and the reason in words."""

    likelihood: str | dict[str, list[int]]
    why: str


@dataclass(frozen=True)
class Facts:
    """What one look at all values tells; masks and sums are by column, (D,).

    Of counts, `by_total` sums each row's values times the row's total, and `square_total` the squares of the totals.
    `fractions` is how many values are no whole numbers, and `first_fraction` the first of them: row, column, value. Of
    those that are not near zero, `nonzero`, so many as `far` are not near a whole number either.
    """

    rows: int
    low: float
    high: float
    binary: Tensor
    whole: Tensor
    total: Tensor
    square: Tensor
    by_total: Tensor
    square_total: float
    fractions: int
    first_fraction: tuple[int, int, float] | None
    nonzero: int
    far: int

    @property
    def variance(self) -> Tensor:
        """Variances of the columns."""
        return (self.square / self.rows - (self.total / self.rows).square()).clamp_min(0)

    @property
    def is_binary(self) -> bool:
        """Whether all values are zeros and ones."""
        return bool(self.binary.all())

    @property
    def is_counts(self) -> bool:
        """Whether all values are whole numbers from 0."""
        return bool(self.whole.all()) and self.low >= 0

    @property
    def dispersion(self) -> tuple[float, float]:
        """How much counts vary around row total times column share, over how much Poisson counts do; and its error.

        The squared deviations of all cells are over their expectation given the totals of rows and columns, so that
        Poisson and multinomial counts come to 1. The standard error is theirs. NaN where the totals are all there is.
        """
        n, squares = float(self.total.sum()), float(self.total.square().sum())
        if n <= 1:
            return math.nan, math.nan
        around = float(self.square.sum() - 2 * (self.total @ self.by_total) / n) + self.square_total * squares / n**2
        expected = (n**2 - self.square_total) * (n**2 - squares) / (n**2 * (n - 1))
        if expected <= 1e-9 * n:
            return math.nan, math.nan
        return around / expected, math.sqrt(n + 2 * self.square_total * squares / n**2) / expected


def look(rows: Rows) -> Facts:
    """Read all rows once."""
    low, high = torch.inf, -torch.inf
    binary = whole = torch.ones(rows.features, dtype=torch.bool)
    total = square = by_total = torch.zeros(rows.features, dtype=torch.float64)
    square_total, fractions, first, nonzero, far = 0.0, 0, None, 0, 0
    for i, batch in enumerate(rows.in_order(rows.at_once)):
        x = batch.x.double()
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        binary = binary & ((x == 0) | (x == 1)).all(0)
        near = x.round()
        large = near != 0
        broken = x != near
        if bool(broken.any()):
            whole, fractions = whole & ~broken.any(0), fractions + int(broken.sum())
            row, column = (int(k) for k in broken.nonzero()[0])
            first = first or (rows.at_once * i + row, column, float(x[row, column]))
            off = (x - near).abs() > NEAR + NEAR_SHARE * x.abs()
            large, far = large | off, far + int(off.sum())
        nonzero += int(large.sum())
        sums = x.sum(1)
        total, square, by_total = total + x.sum(0), square + x.square().sum(0), by_total + sums @ x
        square_total += float(sums.square().sum())
    facts = (len(rows), low, high, binary, whole, total, square, by_total)
    return Facts(*facts, square_total, fractions, first, nonzero, far)


def choose_table(facts: Facts) -> Choice:
    """Bernoulli for columns of zeros and ones, Gaussian for the rest."""
    if facts.is_binary:
        return Choice("bernoulli", "every value is 0 or 1")
    binary = facts.binary & (facts.variance > 0)  # nothing but zeros, beside real numbers, may be a real number's
    if not binary.any():
        return Choice("gaussian", "the columns are real numbers")
    yes, no = binary.nonzero()[:, 0].tolist(), (~binary).nonzero()[:, 0].tolist()
    words = "1 column holds" if len(yes) == 1 else f"{len(yes)} columns hold"
    real = "other holds" if len(no) == 1 else f"other {len(no)}"
    return Choice({"gaussian": no, "bernoulli": yes}, f"{words} only 0 and 1, the {real} real numbers")


def choose_image(facts: Facts) -> Choice:
    """By the range of the pixels: binary, few levels, 8 bit, or intensities in [0, 1]."""
    if facts.is_binary:
        return Choice("bernoulli", "every pixel is 0 or 1")
    if facts.is_counts and facts.high <= FEW_LEVELS:
        return Choice(f"binomial:total={int(facts.high)}", f"pixels are whole numbers from 0 to {facts.high:g}")
    if facts.is_counts and facts.high <= 255:
        return Choice("discretized_logistic", f"pixels are 8-bit numbers (largest {facts.high:g})")
    if facts.low >= 0 and facts.high <= 1:
        return Choice("continuous_bernoulli", "pixels are intensities between 0 and 1")
    return Choice("gaussian", f"pixels are real numbers from {facts.low:g} to {facts.high:g}")


def choose_counts(facts: Facts) -> Choice:
    """Negative binomial given the row's total; Poisson where the counts as a whole vary no more than that."""
    if not facts.is_counts:
        return Choice("gaussian", "the values are not counts (whole numbers from 0), although CountVAE is for counts")
    if facts.high > MAX_COUNT:
        return Choice("gaussian", f"counts up to {facts.high:.3g} are too large to be told apart as counts")
    if facts.is_binary:
        return Choice("bernoulli", "every value is 0 or 1")
    if len(facts.total) == 1:
        return Choice("negative_binomial:library=false", "of one column, the count is the row's total")
    ratio, error = facts.dispersion
    if math.isnan(ratio):
        return Choice("negative_binomial", "counts of one row show no more than that they are counts")
    words = f"given the rows' totals (squared deviations / expected {ratio:.3g} +- {error:.2g})"
    if ratio <= 1 + MARGIN * error:
        return Choice("poisson:library=true", f"counts vary like a Poisson's {words}")
    return Choice("negative_binomial", f"counts vary more than a Poisson's {words}")


def are_broken_counts(facts: Facts) -> bool:
    """Whether values are no counts, but all are near whole numbers, or at least half of those that are not zero."""
    return facts.fractions > 0 and facts.low >= 0 and facts.nonzero > 0 and 2 * facts.far <= facts.nonzero
