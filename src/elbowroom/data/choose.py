"""likelihood="auto": look at the data, decide, and say why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from elbowroom.data.rows import Rows
from elbowroom.distributions import MAX_COUNT

FEW_LEVELS = 64  # images whose largest pixel is at most this count up to it; those above are 8-bit


class Choice(NamedTuple):
    """A likelihood, as a text form or as text forms of groups of columns, and the reason in words."""

    likelihood: str | dict[str, list[int]]
    why: str


@dataclass(frozen=True)
class Facts:
    """What one look at all values tells; masks are by column, (D,)."""

    low: float
    high: float
    binary: Tensor
    whole: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def is_binary(self) -> bool:
        """Whether all values are zeros and ones."""
        return bool(self.binary.all())

    @property
    def is_counts(self) -> bool:
        """Whether all values are whole numbers from 0."""
        return bool(self.whole.all()) and self.low >= 0


def look(rows: Rows) -> Facts:
    """Read all rows once."""
    low, high = torch.inf, -torch.inf
    binary = whole = torch.ones(rows.features, dtype=torch.bool)
    total = square = torch.zeros(rows.features, dtype=torch.float64)
    for batch in rows.in_order(rows.at_once):
        x = batch.x
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        binary = binary & ((x == 0) | (x == 1)).all(0)
        whole = whole & (x == x.floor()).all(0) if x.is_floating_point() else whole
        total, square = total + x.double().sum(0), square + x.double().square().sum(0)
    mean = total / len(rows)
    return Facts(low, high, binary, whole, mean, (square / len(rows) - mean.square()).clamp_min(0))


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


def pixel_range(low: float, high: float) -> tuple[float, float]:
    """Black and white of images whose pixels go from `low` to `high`.

    White is 1, a number of few levels, or 255; black is 0. Images with negative pixels go from -1 to 1, or as they do.
    """
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, max(high, 0.0))
    return 0.0, 1.0 if high <= 1 else high if high <= FEW_LEVELS else max(255.0, high)


def choose_counts(facts: Facts) -> Choice:
    """Poisson where the variance is the mean, negative binomial where it is larger."""
    if not facts.is_counts:
        return Choice("gaussian", "the values are not counts (whole numbers from 0), although CountVAE is for counts")
    if facts.high > MAX_COUNT:
        return Choice("gaussian", f"counts up to {facts.high:.3g} are too large to be told apart as counts")
    if facts.is_binary:
        return Choice("bernoulli", "every value is 0 or 1")
    seen = facts.mean > 0
    ratio = float((facts.variance[seen] / facts.mean[seen]).median()) if bool(seen.any()) else 1.0
    if ratio > 1.2:
        return Choice("negative_binomial", f"counts vary more than a Poisson's (median variance / mean {ratio:.2g})")
    return Choice("poisson", f"counts vary like a Poisson's (median variance / mean {ratio:.2g})")
