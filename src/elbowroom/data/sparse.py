"""Sparse batches of rows, in the layout of a CSR matrix."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn


class SparseBatch:
    """Rows (n, D) that are mostly zero: the other values are stored row by row, as in a CSR matrix.

    Parameters
    ----------
    starts : Tensor (n + 1,)
        Where the values of each row start, and where those of the last row end.
    columns, values : Tensor (m,)
        Column and value of every stored entry.
    features : int
        D.
    """

    def __init__(self, starts: Tensor, columns: Tensor, values: Tensor, features: int) -> None:
        self.starts, self.columns, self.values, self.features = starts, columns, values, features

    @classmethod
    def of(cls, matrix: Any) -> Self:
        """From a scipy CSR matrix."""
        starts, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
        return cls(starts, columns, torch.from_numpy(matrix.data), matrix.shape[1])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return len(self), self.features

    @cached_property
    def row(self) -> Tensor:
        """The row of every stored value, (m,)."""
        return torch.arange(len(self), device=self.starts.device).repeat_interleave(self.starts.diff())

    def rows(self, index: Tensor) -> SparseBatch:
        """The rows at `index`."""
        sizes = self.starts.diff()[index]
        ends = sizes.cumsum(0)
        at = torch.arange(int(ends[-1])) + (self.starts[index] - ends + sizes).repeat_interleave(sizes)
        return SparseBatch(nn.functional.pad(ends, (1, 0)), self.columns[at], self.values[at], self.features)

    def with_values(self, values: Tensor) -> SparseBatch:
        """A batch with other values at the same positions."""
        other = SparseBatch(self.starts, self.columns, values, self.features)
        other.__dict__.update({name: v for name, v in self.__dict__.items() if name == "row"})
        return other

    def to(self, target: torch.device | torch.dtype) -> SparseBatch:
        """On a device, or with values of a dtype."""
        if isinstance(target, torch.dtype):
            return self.with_values(self.values.to(target))
        starts, columns, values = (t.to(target) for t in (self.starts, self.columns, self.values))
        return SparseBatch(starts, columns, values, self.features)

    def by_row(self, terms: Tensor) -> Tensor:
        """Sum terms (..., m), one for each stored value, over each row: (..., n)."""
        return terms.new_zeros(*terms.shape[:-1], len(self)).index_add(-1, self.row, terms)

    def sum(self, dim: int = -1, keepdim: bool = False) -> Tensor:
        """The sum of every row, (n,) or (n, 1)."""
        total = self.by_row(self.values)
        return total.unsqueeze(-1) if keepdim else total

    def min(self) -> Tensor:
        """The minimum of the stored values and zero."""
        return torch.cat([self.values.new_zeros(1), self.values]).min()

    def at(self, table: Tensor) -> Tensor:
        """The entries of a tensor (..., n, D) at the stored positions: (..., m)."""
        return table.flatten(-2).index_select(-1, self.row * self.features + self.columns)

    def times(self, table: Tensor) -> Tensor:
        """The product with a matrix (D, k), in its dtype: (n, k). It is batch-invariant: no row affects another."""
        return nn.functional.embedding_bag(
            self.columns,
            table,
            self.starts,
            mode="sum",
            per_sample_weights=self.values.to(table.dtype),
            include_last_offset=True,
        )

    def unit_length(self, dtype: torch.dtype) -> SparseBatch:
        """Every row divided by its Euclidean norm; empty rows remain zero."""
        values = self.values.to(dtype)
        norm = self.by_row(values.square()).sqrt().clamp_min(1e-12)
        return self.with_values(values / norm[self.row])

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The rows as a dense tensor (n, D)."""
        values = self.values if dtype is None else self.values.to(dtype)
        table = values.new_zeros(len(self) * self.features)
        return table.index_copy_(0, self.row * self.features + self.columns, values).view(self.shape)

    def dense_at(self, columns: Tensor) -> Tensor:
        """The given columns (k,) of the rows as a dense tensor (n, k); a column may be repeated."""
        order = columns.argsort()
        ranked = columns[order]
        first, last = (torch.searchsorted(ranked, self.columns, right=right) for right in (False, True))
        times = last - first  # how often each stored value's column is among them
        value = torch.arange(len(times), device=times.device).repeat_interleave(times)
        within = torch.arange(len(value), device=times.device) - (times.cumsum(0) - times)[value]
        table = self.values.new_zeros(len(self), len(columns))
        table[self.row[value], order[first[value] + within]] = self.values[value]
        return table

    def csr(self) -> Any:
        """As a scipy CSR matrix."""
        parts = (t.numpy(force=True) for t in (self.values, self.columns, self.starts))
        return sparse.csr_matrix(tuple(parts), shape=self.shape)


def dot(x: Tensor | SparseBatch, table: Tensor) -> Tensor:
    """The sum over features of rows x (n, D) times a tensor (..., n, D), in the tensor's dtype: (..., n)."""
    if isinstance(x, SparseBatch):
        return x.by_row(x.values.to(table.dtype) * x.at(table))
    return (x.to(table.dtype) * table).sum(-1)
