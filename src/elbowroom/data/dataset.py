"""Rows, the data set of training and tasks: a length, and batches of rows by index."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy.special import ndtr
from torch import Generator, Tensor

from elbowroom.data.sparse import SparseBatch
from elbowroom.data.streams import changed, fingerprint
from elbowroom.utils.devices import free_memory
from elbowroom.utils.randomness import normal_by_row

VALUES = 2**18  # read at once in passes over all rows, so that intermediate results stay in the cache
SHARE = 0.5  # of a device's free memory that rows may use


class Batch(NamedTuple):
    """Rows (n, D) in the caller's dtype, their context (n, c) and the known part of their log-probability (n,)."""

    x: Any  # a Tensor, or a SparseBatch
    context: Tensor | None
    base: Tensor | None


class Mapped:
    """The file behind a memory map, which must not be changed while rows are read from it.

    A mapped file that was deleted or replaced remains readable.
    """

    def __init__(self, array: np.memmap) -> None:
        if array.mode != "r":
            array.flush()
        self.path = Path(str(array.filename))
        self.before = fingerprint(self.path)

    @classmethod
    def behind(cls, array: Any) -> Self | None:
        """The file of an array if it is a view of a memory map, else None."""
        while isinstance(array, np.ndarray):
            if isinstance(array, np.memmap) and array.filename is not None:
                return cls(array)
            array = array.base
        return None

    def check(self) -> None:
        """Raise `DataError` if the file was modified: reading a truncated file could kill the process."""
        now = fingerprint(self.path)
        if now != self.before and now and self.before and now[:2] == self.before[:2]:
            raise changed(self.path)


class Rows:
    """Rows in memory, or mapped from a file, in the caller's dtype; only the rows of a batch are copied.

    Parameters
    ----------
    x : Tensor (n, D)
    context : Tensor (n, c) or None
    base : Tensor (n,) or None
        The part of log p(x|z) that depends on x alone, if it was precomputed.
    """

    index: Tensor | None = None  # positions in x, if these are not all of its rows
    file: Mapped | None = None  # the file that x is mapped from
    home = device = torch.device("cpu")  # of the rows, and of their batches

    def __init__(self, x: Any, context: Tensor | None = None, base: Tensor | None = None) -> None:
        self.x, self.context, self.base = x, context, base

    def __len__(self) -> int:
        return int(self.x.shape[0]) if self.index is None else len(self.index)

    @property
    def features(self) -> int:
        """D, the number of features of a row."""
        return int(self.x.shape[1])

    @property
    def at_once(self) -> int:
        """Number of rows per read in passes over all rows."""
        return max(1, min(4096, VALUES // max(1, self.features)))

    def batch(self, index: Tensor, generator: Generator | None = None) -> Batch:
        """Rows by index, with their context and base; `generator` is used by rows that are sampled anew each time."""
        at = self._at(index)
        return Batch(self._gather(at), self._select(self.context, at), self._select(self.base, at))

    def dense(self, index: Tensor) -> Tensor:
        """Rows by index, (n, D), as a dense tensor."""
        return self._gather(self._at(index))

    def in_order(self, size: int = 1024) -> Iterator[Batch]:
        """All rows once, in batches of `size`."""
        return map(self.batch, self._indices(size))

    def spread(self, most: int) -> Tensor:
        """At most `most` evenly spaced rows (m, D), from which units and marginals are learned."""
        return self.dense(evenly(len(self), most))

    def take(self, index: Tensor) -> Self:
        """The rows at `index`, as a view."""
        some = copy.copy(self)
        some.index = self._at(index)
        return some

    def stored(self, index: Tensor) -> tuple[Tensor, ...]:
        """All tensors that are stored for some rows, which identify them."""
        at = self._at(index)
        context = self._select(self.context, at)
        return (self._gather(at),) if context is None else (self._gather(at), context)

    @property
    def row_bytes(self) -> int:
        """Approximate number of bytes of a row."""
        return max(1, self.features * self._gather(self._at(torch.arange(1))).element_size())

    def with_base(self, base: Tensor) -> Self:
        """The rows with a precomputed part of their log-probability (len(self),)."""
        rows = copy.copy(self)
        rows.base = base
        if self.index is not None:
            rows.base = base.new_zeros(self.x.shape[0]).index_copy(0, self.index, base)
        return rows

    def to(self, device: torch.device) -> Self:
        """The rows with their batches on a device. The rows move there too, unless they need much of its free memory.

        Sparse rows, and rows that do not move, are gathered in their place, and each batch is moved.
        """
        moved = copy.copy(self)
        moved.device = device
        small = isinstance(self.x, Tensor) and self._bytes <= SHARE * free_memory(device)
        if device != self.home and small:
            x = moved._gather(torch.arange(0)).new_empty(len(self), self.features)
            for index in self._indices(self.at_once):
                x[index[0] : index[-1] + 1] = self._gather(self._at(index))
            at = self._at(torch.arange(len(self)))
            context, base = moved._select(self.context, at), moved._select(self.base, at)
            moved.x, moved.context, moved.base, moved.index, moved.home = x, context, base, None, device
            moved.file = None
        return moved

    @property
    def _bytes(self) -> int:
        return len(self) * self.features * int(self.x.element_size())

    def _indices(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield torch.arange(start, min(start + size, len(self)))

    def _at(self, index: Tensor) -> Tensor:
        index = index.to(self.home)
        return index if self.index is None else self.index.index_select(0, index)

    def _gather(self, at: Tensor) -> Tensor:
        if self.file is None:
            return self._sent(self.x.index_select(0, at))
        self.file.check()
        values = self._sent(self.x.index_select(0, at))
        self.file.check()
        return values

    def _select(self, values: Tensor | None, at: Tensor) -> Tensor | None:
        return None if values is None else self._sent(values.index_select(0, at))

    def _sent(self, values: Tensor) -> Tensor:
        """Gathered values, moved to the device."""
        if self.device == self.home:
            return values
        if self.device.type == "mps" and values.dtype == torch.float64:  # which MPS does not support
            values = values.float()
        if self.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()  # so that the copy does not wait for the device
        return values.to(self.device, non_blocking=True)


class BinarizedRows(Rows):
    """Rows of probabilities in [0, 1] from which zeros and ones are sampled (dynamic binarisation).

    With a generator they are sampled anew each time; without one, a row's sample is a function of its content.
    """

    def batch(self, index: Tensor, generator: Generator | None = None) -> Batch:
        probability, context, _ = super().batch(index)
        if generator is None:
            return Batch(self.dense(index), context, None)
        noise = torch.rand(probability.shape, generator=generator, device=probability.device)
        return Batch((noise < probability).to(torch.float32), context, None)

    def dense(self, index: Tensor) -> Tensor:
        probability = super().dense(index)
        uniform = ndtr(normal_by_row(probability.numpy(force=True), 1, self.features)[0])
        return (torch.from_numpy(uniform).to(probability.device) < probability).to(torch.float32)


class SparseRows(Rows):
    """Rows of a scipy CSR matrix, whose batches are dense."""

    def _gather(self, at: Tensor) -> Tensor:
        return self._sent(torch.from_numpy(self.x[at.numpy()].toarray()))


class InteractionRows(Rows):
    """Rows of a scipy CSR matrix whose batches are sparse: the cost of a row is its number of stored values."""

    @property
    def at_once(self) -> int:
        return 4096

    @property
    def matrix(self) -> Any:
        """The rows as a CSR matrix."""
        return self.x if self.index is None else self.x[self.index.numpy()]

    def spread(self, most: int) -> Any:
        return self.dense(torch.arange(len(self)))  # all rows: their stored values are in memory anyway

    def stored(self, index: Tensor) -> tuple[Tensor, ...]:
        batch = self._gather(self._at(index))
        return batch.starts, batch.columns, batch.values

    @property
    def row_bytes(self) -> int:
        return 8 + (8 + self.x.dtype.itemsize) * self.x.nnz // max(1, self.x.shape[0])

    def _gather(self, at: Tensor) -> Any:
        return SparseBatch.of(self.x[at.numpy()]).to(self.device)


def rows_of(x: Any, context: np.ndarray | None = None) -> Rows:
    """Rows from a NumPy array (n, D) or a scipy sparse matrix, without a copy if possible."""
    context_tensor = None if context is None else torch.from_numpy(np.ascontiguousarray(context, dtype=np.float32))
    if hasattr(x, "tocsr"):
        return SparseRows(x.tocsr().astype(torch_dtype(x.dtype), copy=False), context_tensor)
    x = np.asarray(x)
    rows = Rows(tensor_of(x), context_tensor)
    if rows.x.data_ptr() == x.__array_interface__["data"][0]:
        rows.file = Mapped.behind(x)
    return rows


def tensor_of(x: np.ndarray) -> Tensor:
    """A tensor that shares an array's memory, or a copy if torch cannot read it in place or might write to it."""
    x = np.asarray(x).astype(torch_dtype(x.dtype), copy=False)
    owner = x if x.base is None else x.base
    readable = x.flags.c_contiguous and (x.flags.writeable or isinstance(owner, np.memmap))
    with warnings.catch_warnings():  # a mapped file is read-only: nothing here writes to rows
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(x if readable else x.copy(order="C"))


def torch_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype, in native byte order, that torch supports and that holds the values of `dtype`."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "u" and 1 < dtype.itemsize < 8:
        return np.dtype(np.int64)
    known = dtype.kind in "iuf" and dtype not in (np.float16, np.uint64) and dtype.itemsize <= 8
    return dtype.newbyteorder("=") if known else np.dtype(np.float64)


def joined(parts: Iterable[Tensor], n: int, dim: int = 0) -> Tensor:
    """Concatenate parts that have n rows in total, writing each to its place when it arrives.

    torch.cat would need all parts at once: thousands of small tensors, allocated between large temporary ones, fragment
    the memory, and the process grows by gigabytes.
    """
    whole, at = torch.empty(0), 0
    for part in parts:
        if not at:
            whole = part.new_empty(*part.shape[:dim], n, *part.shape[dim + 1 :])
        whole.narrow(dim, at, part.shape[dim]).copy_(part)
        at += part.shape[dim]
    return whole


def evenly(n: int, most: int) -> Tensor:
    """At most `most` evenly spaced indices of n rows."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).long()
