"""Distributions with a different one for each group of columns."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from elbowroom.distributions.base import RowDistribution


class Mixed(RowDistribution):
    """Groups of columns, each with its own distribution; independent given z."""

    def __init__(self, parts: list[RowDistribution], columns: list[Tensor]) -> None:
        self.parts, self.columns = parts, columns

    def log_kernel(self, x: Tensor) -> Tensor:
        return torch.stack([p.log_kernel(x[:, c]) for p, c in zip(self.parts, self.columns, strict=True)]).sum(0)

    def log_base(self, x: Tensor) -> Tensor:
        bases = [p.log_base(x[:, c]).double().expand(len(x)) for p, c in zip(self.parts, self.columns, strict=True)]
        return torch.stack(bases).sum(0)

    def kernel_cells(self, x: Tensor) -> Tensor:
        return self._join([p.kernel_cells(x[:, c]) for p, c in zip(self.parts, self.columns, strict=True)])

    def base_cells(self, x: Tensor) -> Tensor:
        parts = [(p.base_cells(x[:, c]).double(), c) for p, c in zip(self.parts, self.columns, strict=True)]
        return self._join([base.expand(len(x), len(c)) for base, c in parts])

    @property
    def mean(self) -> Tensor:
        return self._join([part.mean for part in self.parts])

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self._join([part.sample(generator) for part in self.parts])

    def _join(self, values: list[Tensor]) -> Tensor:
        """Values of the groups (..., D) in the order of the columns, in the widest of their dtypes."""
        order = torch.cat(self.columns).argsort()
        return torch.cat(values, -1)[..., order]


class Table(Mixed):
    """Mixed columns with missing values (NaN), which contribute nothing; `fill` (D,) has valid placeholders."""

    def __init__(self, parts: list[RowDistribution], columns: list[Tensor], fill: Tensor) -> None:
        super().__init__(parts, columns)
        self.fill = fill

    def log_kernel(self, x: Tensor) -> Tensor:
        return self.kernel_cells(x).sum(-1)

    def log_base(self, x: Tensor) -> Tensor:
        return self.base_cells(x).sum(-1)

    def kernel_cells(self, x: Tensor) -> Tensor:
        missing = x.isnan()
        return super().kernel_cells(x.where(~missing, self.fill)).masked_fill(missing, 0)

    def base_cells(self, x: Tensor) -> Tensor:
        missing = x.isnan()
        return super().base_cells(x.where(~missing, self.fill)).masked_fill(missing, 0)
