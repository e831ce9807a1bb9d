"""Rows: what training and tasks read. A length, and batches of rows by index."""

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

VALUES = 2**18  # that are read at once where all rows are read: what is made of them stays in the cache
SHARE = 0.5  # of a device's free memory that rows may take


class Batch(NamedTuple):
    """Rows (n, D) in the caller's dtype, their context (n, c) and the known part of their log-probability (n,)."""

    x: Any  # a Tensor, or a SparseBatch
    context: Tensor | None
    base: Tensor | None


class Mapped:
    """The file behind a memory map, which must not be changed while rows are read from it.

    A file that was deleted or replaced by another one keeps the rows that are mapped.
    """

    def __init__(self, array: np.memmap) -> None:
        if array.mode != "r":
            array.flush()
        self.path = Path(str(array.filename))
        self.before = fingerprint(self.path)

    @classmethod
    def behind(cls, array: Any) -> Self | None:
        """That of an array that is a view of a memory map, else None."""
        while isinstance(array, np.ndarray):
            if isinstance(array, np.memmap) and array.filename is not None:
                return cls(array)
            array = array.base
        return None

    def check(self) -> None:
        """Raise `DataError` if the file was written to. To read rows that it no longer has would end the process."""
        now = fingerprint(self.path)
        if now != self.before and now and self.before and now[:2] == self.before[:2]:
            raise changed(self.path)


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
    file: Mapped | None = None  # that x is mapped from
    home = device = torch.device("cpu")  # where the rows are, and where their batches go

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
        """How many rows to read at once where all are read."""
        return max(1, min(4096, VALUES // max(1, self.features)))

    def batch(self, index: Tensor, generator: Generator | None = None) -> Batch:
        """Rows by index with all that belongs to them; `generator` feeds rows that are drawn anew each time."""
        at = self._at(index)
        return Batch(self._gather(at), self._select(self.context, at), self._select(self.base, at))

    def dense(self, index: Tensor) -> Tensor:
        """Rows by index (n, D), as they are stored."""
        return self._gather(self._at(index))

    def in_order(self, size: int = 1024) -> Iterator[Batch]:
        """All rows once, in batches of `size`."""
        return map(self.batch, self._indices(size))

    def spread(self, most: int) -> Tensor:
        """At most `most` rows (m, D), evenly spaced: enough to learn units and marginals from."""
        return self.dense(evenly(len(self), most))

    def take(self, index: Tensor) -> Self:
        """The rows at `index`, as a view: nothing is copied."""
        some = copy.copy(self)
        some.index = self._at(index)
        return some

    def stored(self, index: Tensor) -> tuple[Tensor, ...]:
        """All that is stored of rows, whatever they show: what makes these rows these rows."""
        at = self._at(index)
        context = self._select(self.context, at)
        return (self._gather(at),) if context is None else (self._gather(at), context)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, about."""
        return max(1, self.features * self._gather(self._at(torch.arange(1))).element_size())

    def with_base(self, base: Tensor) -> Self:
        """These rows with the known part of their log-probability (len(self),)."""
        rows = copy.copy(self)
        rows.base = base
        if self.index is not None:
            rows.base = base.new_zeros(self.x.shape[0]).index_copy(0, self.index, base)
        return rows

    def to(self, device: torch.device) -> Self:
        """The rows with their batches on a device. They move there, unless they would take much of its free memory.

        Rows that stay where they are, and sparse rows, are gathered there, and each batch is moved alone.
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
        """What was gathered at home, on the device."""
        if self.device == self.home:
            return values
        if self.device.type == "mps" and values.dtype == torch.float64:  # which it does not have
            values = values.float()
        if self.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()  # so that the copy does not wait for the device
        return values.to(self.device, non_blocking=True)


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
        return self._sent(torch.from_numpy(self.x[at.numpy()].toarray()))


class InteractionRows(Rows):
    """Rows of a scipy CSR matrix whose batches stay sparse: a row costs what is stored of it, however wide it is."""

    @property
    def at_once(self) -> int:
        return 4096

    @property
    def matrix(self) -> Any:
        """The rows as a CSR matrix."""
        return self.x if self.index is None else self.x[self.index.numpy()]

    def spread(self, most: int) -> Any:
        return self.dense(torch.arange(len(self)))  # of all rows: what is stored of them is there already

    def stored(self, index: Tensor) -> tuple[Tensor, ...]:
        batch = self._gather(self._at(index))
        return batch.starts, batch.columns, batch.values

    @property
    def row_bytes(self) -> int:
        return 8 + (8 + self.x.dtype.itemsize) * self.x.nnz // max(1, self.x.shape[0])

    def _gather(self, at: Tensor) -> Any:
        return SparseBatch.of(self.x[at.numpy()]).to(self.device)


def rows_of(x: Any, context: np.ndarray | None = None) -> Rows:
    """Rows from a NumPy array (n, D) or a scipy sparse matrix, without a copy where that is possible."""
    context_tensor = None if context is None else torch.from_numpy(np.ascontiguousarray(context, dtype=np.float32))
    if hasattr(x, "tocsr"):
        return SparseRows(x.tocsr().astype(torch_dtype(x.dtype), copy=False), context_tensor)
    x = np.asarray(x)
    rows = Rows(tensor_of(x), context_tensor)
    if rows.x.data_ptr() == x.__array_interface__["data"][0]:
        rows.file = Mapped.behind(x)
    return rows


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


def joined(parts: Iterable[Tensor], n: int, dim: int = 0) -> Tensor:
    """Parts of n rows in all as one tensor, each written to its place when it comes.

    Thousands of small parts that are kept until the end lie scattered between the large blocks that come and go
    beside them, and the process grows by gigabytes.
    """
    whole, at = torch.empty(0), 0
    for part in parts:
        if not at:
            whole = part.new_empty(*part.shape[:dim], n, *part.shape[dim + 1 :])
        whole.narrow(dim, at, part.shape[dim]).copy_(part)
        at += part.shape[dim]
    return whole


def evenly(n: int, most: int) -> Tensor:
    """At most `most` indices of n rows, evenly spaced."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).long()
