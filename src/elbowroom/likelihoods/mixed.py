"""Likelihoods of rows with a different likelihood for each group of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from elbowroom import distributions as d
from elbowroom.errors import ParameterError
from elbowroom.likelihoods.base import Likelihood


class Mixed(Likelihood):
    """Groups of columns, each with its own likelihood; their log-probabilities are added without weights.

    Parameters
    ----------
    parts : sequence of Likelihood
        One for each group.
    columns : sequence of sequence of int
        The columns of each group; every column is in exactly one.
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
        """A tensor in the model's dtype and on its device."""
        return next(self.parameters())

    @property
    def n_shifts(self) -> int:
        return sum(part.n_shifts for part in self._parts)

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

    def forward(self, h: Tensor, total: Tensor | None = None, shift: Tensor | None = None) -> d.RowDistribution:
        outputs = h.split([part.n_outputs for part in self._parts], -1)
        none = [None] * len(outputs)
        totals = none if total is None else total.split(1, -1)
        shifts = none if shift is None else shift.split([part.n_shifts for part in self._parts], -1)
        found = [part(*given) for part, *given in zip(self._parts, outputs, totals, shifts, strict=True)]
        return self._join(found)

    def _join(self, parts: list[d.RowDistribution]) -> d.RowDistribution:
        return d.Mixed(parts, self._index)

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
    """Columns of a table with missing values (NaN), which contribute nothing to the log-probability of their row.

    The encoder gets a 0 in their place; where the table's schema has indicator columns, these show what is missing.
    """

    fill: Tensor

    def __init__(self, parts: Sequence[Likelihood], columns: Sequence[Sequence[int]]) -> None:
        super().__init__(parts, columns)
        self.register_buffer("fill", torch.zeros(self.features, dtype=torch.float64))

    def _join(self, parts: list[d.RowDistribution]) -> d.RowDistribution:
        return d.Table(parts, self._index, self.fill)

    def inputs(self, x: Tensor) -> Tensor:
        missing = x.isnan()
        filled, seen = x.where(~missing, self.fill), []
        for part, c in zip(self._parts, self._index, strict=True):
            values = part.inputs(filled[:, c])
            width = values.shape[-1] // len(c)
            seen.append(values.masked_fill(missing[:, c].repeat_interleave(width, -1), 0))
        return torch.cat(seen, -1)

    def fit_marginals(self, x: Tensor) -> None:
        filled = torch.stack([_filled(column) for column in x.T], 1)
        self.fill.copy_(filled.median(0).values)
        super().fit_marginals(filled)

    def check(self, x: Tensor, columns: Sequence[Any] | None = None, first: int = 0) -> None:
        super().check(x.where(~x.isnan(), self.fill), columns, first)


def _filled(column: Tensor) -> Tensor:
    """A column (n,) with missing values filled so that its distribution stays the same; ones if all are missing."""
    missing = column.isnan()
    known = column[~missing].sort().values
    if not len(known):
        return torch.ones_like(column)
    at = torch.linspace(0, len(known) - 1, max(int(missing.sum()), 1), dtype=torch.float64).round().long()
    return column.masked_scatter(missing, known[at])


def _join_totals(totals: Sequence[Tensor | None]) -> Tensor | None:
    known = [t for t in totals if t is not None]
    return torch.cat([torch.ones_like(known[0]) if t is None else t for t in totals], -1) if known else None
