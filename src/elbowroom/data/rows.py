"""Rows: what a trainer reads. A length, and batches of rows by index."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy.special import ndtr
from torch import Generator, Tensor

from elbowroom.randomness import normal_by_row


class Batch(NamedTuple):
    """Rows (n, D) in the caller's dtype, their context (n, c) and the known part of their log-probability (n,)."""

    x: Tensor
    context: Tensor | None
    base: Tensor | None


class Rows:
    """Rows in memory, or mapped from a file, in the caller's dtype: a batch is gathered, nothing is copied before.

    Parameters
    ----------
    x : Tensor (n, D)
    context : Tensor (n, c) or None
    base : Tensor (n,) or None
        The part of log p(x|z) that depends on x alone, where it was computed once for the data.
    """

    index: Tensor | None = None  # the rows of x that these are, where they are some of them

    def __init__(self, x: Any, context: Tensor | None = None, base: Tensor | None = None) -> None:
        self.x, self.context, self.base = x, context, base

    def __len__(self) -> int:
        return int(self.x.shape[0]) if self.index is None else len(self.index)

    @property
    def features(self) -> int:
        """D, the number of features of a row."""
        return int(self.x.shape[1])

    def batch(self, index: Tensor, generator: Generator | None = None) -> Batch:
        """Rows by index with all that belongs to them; `generator` feeds rows that are drawn anew each time."""
        at = self._at(index)
        return Batch(self._gather(at), _select(self.context, at), _select(self.base, at))

    def dense(self, index: Tensor) -> Tensor:
        """Rows by index (n, D), as they are stored."""
        return self._gather(self._at(index))

    def in_order(self, size: int = 1024) -> Iterator[Batch]:
        """All rows once, in batches of `size`."""
        for start in range(0, len(self), size):
            yield self.batch(torch.arange(start, min(start + size, len(self))))

    def spread(self, most: int) -> Tensor:
        """At most `most` rows (m, D), evenly spaced: enough to learn units and marginals from."""
        return self.dense(evenly(len(self), most))

    def take(self, index: Tensor) -> Self:
        """The rows at `index`, as a view: nothing is copied."""
        some = copy.copy(self)
        some.index = self._at(index)
        return some

    def with_base(self, base: Tensor) -> Self:
        """These rows with the known part of their log-probability (len(self),)."""
        rows = copy.copy(self)
        rows.base = base
        if self.index is not None:
            rows.base = base.new_zeros(self.x.shape[0]).index_copy(0, self.index, base)
        return rows

    def to(self, device: torch.device) -> Self:
        """The rows on a device."""
        moved = copy.copy(self)
        for name in ("x", "context", "base", "index"):
            value = getattr(self, name)
            setattr(moved, name, value.to(device) if isinstance(value, Tensor) else value)
        return moved

    def _at(self, index: Tensor) -> Tensor:
        return index if self.index is None else self.index.index_select(0, index)

    def _gather(self, at: Tensor) -> Tensor:
        return self.x.index_select(0, at)


class BinarizedRows(Rows):
    """Rows of chances in [0, 1] that are drawn as zeros and ones (dynamic binarisation).

    A generator draws them anew each time; without one, each row's draw is fixed by its content.
    """

    def batch(self, index: Tensor, generator: Generator | None = None) -> Batch:
        chance, context, _ = super().batch(index)
        if generator is None:
            return Batch(self.dense(index), context, None)
        noise = torch.rand(chance.shape, generator=generator, device=chance.device)
        return Batch((noise < chance).to(torch.float32), context, None)

    def dense(self, index: Tensor) -> Tensor:
        chance = super().dense(index)
        uniform = ndtr(normal_by_row(chance.numpy(force=True), 1, self.features)[0])
        return (torch.from_numpy(uniform).to(chance.device) < chance).to(torch.float32)


class SparseRows(Rows):
    """Rows of a scipy CSR matrix, made dense batch by batch."""

    def _gather(self, at: Tensor) -> Tensor:
        return torch.from_numpy(self.x[at.numpy(force=True)].toarray()).to(at.device)


def rows_of(x: Any, context: np.ndarray | None = None) -> Rows:
    """Rows from a NumPy array (n, D) or a scipy sparse matrix, without a copy where that is possible."""
    context_tensor = None if context is None else torch.from_numpy(np.ascontiguousarray(context, dtype=np.float32))
    if hasattr(x, "tocsr"):
        return SparseRows(x.tocsr().astype(torch_dtype(x.dtype), copy=False), context_tensor)
    return Rows(tensor_of(x), context_tensor)


def tensor_of(x: np.ndarray) -> Tensor:
    """A tensor on the memory of an array; what torch can not read in place, or might write to, is copied."""
    x = np.asarray(x).astype(torch_dtype(x.dtype), copy=False)
    owner = x if x.base is None else x.base
    readable = x.flags.c_contiguous and (x.flags.writeable or isinstance(owner, np.memmap))
    with warnings.catch_warnings():  # a mapped file is read-only: nothing here writes to rows
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(x if readable else x.copy(order="C"))


def torch_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in the machine's byte order that torch computes with and that holds these values."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "u" and 1 < dtype.itemsize < 8:
        return np.dtype(np.int64)
    known = dtype.kind in "iuf" and dtype not in (np.float16, np.uint64) and dtype.itemsize <= 8
    return dtype.newbyteorder("=") if known else np.dtype(np.float64)


def evenly(n: int, most: int) -> Tensor:
    """At most `most` indices of n rows, evenly spaced."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).long()


def _select(values: Tensor | None, index: Tensor) -> Tensor | None:
    return None if values is None else values.index_select(0, index)
