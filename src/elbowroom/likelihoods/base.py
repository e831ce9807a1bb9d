"""The base class of likelihoods: p(x|z) as a module for one kind of data.

A likelihood defines which data fits it, the encoder's input, and the distribution. It maps the decoder's output, flat
(..., n_outputs), to a distribution over rows (..., D). It starts at the marginals of the training data: its bias is
set from them.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from elbowroom import distributions as d
from elbowroom.errors import DataError, ParameterError, counted

FAR = 4.0  # limit of the encoder's inputs, in standard deviations, for outliers


class Likelihood(nn.Module, ABC):
    """Base of the likelihoods: D features, `per_feature` decoder outputs for each.

    Parameters
    ----------
    features : int
        D, the number of features of a row.
    """

    per_feature: int = 1

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.bias = nn.Parameter(torch.zeros(self.n_outputs))

    @property
    def uses_total(self) -> bool:
        """Whether the distribution is given the row's total."""
        return False

    @property
    def given(self) -> str:
        """What log-probabilities are conditional on, in words; empty if they are of the whole row."""
        return "the totals of the rows" if self.uses_total else ""

    @property
    def n_shifts(self) -> int:
        """Number of the likelihood's own parameters that beta conditioning shifts, besides the decoder's output."""
        return 0

    @property
    def n_outputs(self) -> int:
        """Width of the decoder's output."""
        return self.per_feature * self.features

    @property
    def n_inputs(self) -> int:
        """Width of the encoder's input, `inputs(x)`."""
        return self.features

    @classmethod
    def learn_options(cls, batches: Iterable[Tensor], options: dict[str, Any]) -> dict[str, Any]:
        """Complete options that must be known before the module is built, from all training rows, in batches (n, D).

        The rows are read lazily: options that are given must not read them.
        """
        return options

    @abstractmethod
    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        """Decoder outputs (..., n_outputs), and row totals (n, 1) where `uses_total`, to p(x|z).

        `shift` (n, n_shifts) is what beta conditioning adds to the likelihood's own parameters.
        """

    def inputs(self, x: Tensor) -> Tensor:
        """The encoder's input for rows (n, D): values of order one, in the dtype of the model."""
        return x.to(self.bias.dtype)

    def fit_marginals(self, x: Tensor) -> None:
        """Set units and bias from training rows (n, D), float64."""

    def misfit(self, x: Tensor) -> tuple[str, Tensor] | None:
        """A description of valid values and the mask (n, D) of the invalid cells; None if every value is valid."""
        return None

    def row_total(self, x: Tensor) -> Tensor | None:
        """Sum of every row (n, 1), for likelihoods with `uses_total`."""
        return None

    def draw_total(self, n: int, generator: Generator | None, context: Tensor | None = None) -> Tensor | None:
        """Draw totals (n, 1) from those of the training rows with the same context, for rows without a total."""
        return None

    def expect_contexts(self, contexts: int) -> None:
        """Allocate what `fit_context_totals` learns for so many labels."""

    def fit_context_totals(self, totals: Tensor, context: Tensor) -> None:
        """Learn the totals `row_total` (n, 1) of the training rows for every label of the context (n, c)."""

    def check(self, x: Tensor, columns: Sequence[Any] | None = None, first: int = 0) -> None:
        """Raise `DataError` with the first invalid cell of rows (n, D), which are numbered from `first`.

        `columns` are the names of the columns, or their positions if they have none.
        """
        found = self.misfit(x)
        if found is None or not bool(found[1].any()):
            return
        row, column = (int(i) for i in found[1].nonzero()[0])
        where = f"column {columns[column]!r}" if columns is not None else f"column {column}"
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        count, cell = int(found[1].sum()), f"row {first + row}, {where}, {x[row, column].item():g}"
        raise DataError(
            f"likelihood={name!r} needs {found[0]}",
            f"{counted(count, 'value is', 'values are')} not ({'first: ' * (count > 1)}{cell})",
            "Choose another likelihood, or likelihood='auto' to have one chosen from the data.",
        )

    def split(self, h: Tensor) -> tuple[Tensor, ...]:
        """Add the bias and split into `per_feature` tensors (..., D)."""
        return (h + self.bias).chunk(self.per_feature, -1)

    @torch.no_grad()
    def set_bias(self, *values: Tensor) -> None:
        """Start every output at the given values, each (D,) or a scalar."""
        self.bias.copy_(torch.cat([value.expand(self.features) for value in values]))


def whole(name: str, value: object, least: int) -> int:
    """Refuse an option that is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ParameterError(
            f"{name} must be a whole number, at least {least}",
            f"it is {value!r}",
            f"Write {name.split()[-1]}={max(least, 10)}.",
        )
    return value


def highest(batches: Iterable[Tensor]) -> int:
    """The largest value of all batches, rounded up."""
    return math.ceil(max(float(x.max()) for x in batches))


def whole_mask(x: Tensor, high: float) -> Tensor:
    """Where x holds whole numbers in [0, high]."""
    if not x.is_floating_point():
        x = x.long()  # a bound that its dtype can not hold would wrap around
    inside = (x >= 0) & (x <= high)
    return inside & (x == x.floor()) & x.isfinite() if x.is_floating_point() else inside
