"""Ids of users and items, and their interactions as a sparse matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, Self

import narwhals.stable.v2 as nw
import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from elbowroom.data import validation
from elbowroom.data.interactions.ids import (
    is_text,
)
from elbowroom.data.words import objects_of
from elbowroom.errors import DataError

LARGEST = 1e30  # of a value, whose square overflows in float32
PARTS = ("starts", "columns", "values")  # of a CSR matrix


class Vocabulary:
    """The ids of users or items, and their positions.

    Parameters
    ----------
    ids : array (n,)
        Unique integers, int64 or uint64, or strings as objects, in ascending order.
    """

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids if ids.dtype.kind in "iu" else ids.astype(object)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def learn(cls, ids: np.ndarray) -> tuple[Vocabulary, np.ndarray]:
        """The unique ids, and the position of each given id."""
        if not is_text(ids):
            unique, positions = np.unique(ids, return_inverse=True)
            return cls(unique), positions.reshape(-1)
        known = cls(objects_of(sorted({*ids.tolist()})))
        return known, known.positions(ids)

    @classmethod
    def counting(cls, n: int) -> Vocabulary:
        """The ids of a matrix, 0, 1, ..., n - 1."""
        return cls(np.arange(n))

    def tensors(self) -> dict[str, Tensor]:
        """The ids as tensors: integers, or the concatenated characters of all strings and where each one ends.

        uint64 is stored as int64 with the same bits, under the name `unsigned`.
        """
        if not self.is_text:
            unsigned = self.ids.dtype == np.uint64
            return {"unsigned" if unsigned else "ids": torch.from_numpy(self.ids.view(np.int64))}
        texts = [text.encode(errors="surrogatepass") for text in self.ids.tolist()]
        letters = np.frombuffer(b"".join(texts), np.uint8).copy()
        return {"letters": torch.from_numpy(letters), "ends": torch.tensor([*map(len, texts)]).cumsum(0)}

    @classmethod
    def of_tensors(
        cls,
        ids: Tensor | None = None,
        unsigned: Tensor | None = None,
        letters: Tensor | None = None,
        ends: Tensor | None = None,
    ) -> Self:
        """The inverse of `tensors`.

        Raises
        ------
        ValueError
            If they are not unique integers or strings in ascending order.
        """
        if letters is not None and ends is not None and ids is None and unsigned is None:
            values = _texts(letters, ends)
        elif letters is None and ends is None and (ids is None) != (unsigned is None):
            values = _numbers(ids) if unsigned is None else _numbers(unsigned).view(np.uint64)
        else:
            raise ValueError("its ids are neither integers nor strings")
        if not (values[1:] > values[:-1]).all():
            raise ValueError("its ids are not unique and in ascending order")
        return cls(values)

    @cached_property
    def is_text(self) -> bool:
        """Whether the ids are strings."""
        return is_text(self.ids)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.ids.tolist())}

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """The positions of ids (n,), -1 if unknown."""
        if not len(self.ids) or not len(ids) or self.is_text != is_text(ids):
            return np.full(len(ids), -1)
        if self.is_text:
            return np.fromiter(map(self._places.get, ids.tolist(), repeat(-1)), np.int64, len(ids))
        alike = ids.astype(self.ids.dtype)
        at = np.minimum(np.searchsorted(self.ids, alike), len(self.ids) - 1)
        return np.where((self.ids[at] == alike) & ((alike < 0) == (ids < 0)), at, -1)


@dataclass(frozen=True, eq=False)
class Interactions:
    """A CSR matrix (users, items) whose stored values are positive, and the ids of its rows and columns."""

    matrix: Any
    users: Vocabulary
    items: Vocabulary

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def tensors(self) -> dict[str, Tensor]:
        """The matrix and the ids as tensors by name, for a file."""
        matrix = self.matrix
        parts = {"starts": matrix.indptr.astype(np.int64), "columns": matrix.indices.astype(np.int32)}
        tensors = {name: torch.from_numpy(part) for name, part in (parts | {"values": matrix.data}).items()}
        for who in ("users", "items"):
            tensors |= {f"{who}.{name}": tensor for name, tensor in getattr(self, who).tensors().items()}
        return tensors

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `tensors`.

        Raises
        ------
        ValueError
            If they are not interactions.
        """
        if unknown_names := {name for name in tensors if not name.startswith(("users.", "items."))} - {*PARTS}:
            raise ValueError(f"its interactions have {min(unknown_names)!r:.60}")
        users, items = (
            Vocabulary.of_tensors(**{n[6:]: tensor for n, tensor in tensors.items() if n.startswith(f"{who}.")})
            for who in ("users", "items")
        )
        starts, columns, values = (tensors[name].numpy() for name in PARTS)
        if not (
            (starts.dtype, columns.dtype, values.dtype) == tuple(map(np.dtype, ("i8", "i4", "f4")))
            and (starts.shape, columns.shape) == ((len(users) + 1,), (len(values),))
            and starts[0] == 0
            and starts[-1] == len(columns)
            and (np.diff(starts) >= 0).all()
            and ((columns >= 0) & (columns < len(items))).all()
            and ((values > 0) & (values <= LARGEST)).all()
        ):
            raise ValueError("its interactions are not a matrix of users and items")
        matrix = sparse.csr_matrix((values, columns, starts), (len(users), len(items)))
        if not matrix.has_canonical_format:
            raise ValueError("its interactions are not in order")
        return cls(matrix, users, items)


def _numbers(ids: Tensor | None) -> np.ndarray:
    if ids is None or ids.dtype != torch.int64 or ids.ndim != 1:
        raise ValueError("its ids are not integers")
    return ids.numpy()


def _texts(letters: Tensor, ends: Tensor) -> np.ndarray:
    """Strings (n,) from their concatenated characters in UTF-8, and where each one ends.

    Raises
    ------
    ValueError
        If they are invalid.
    """
    content, places = letters.numpy().tobytes(), ends.tolist()
    sizes = np.diff(places, prepend=0)
    if (letters.dtype, ends.dtype) != (torch.uint8, torch.int64) or letters.ndim != 1 or ends.ndim != 1:
        raise ValueError("its ids are not strings")
    if not len(places) or places[-1] != len(content) or (sizes < 0).any():
        raise ValueError("the ends of its ids do not match their characters")
    starts = [0, *places[:-1]]
    return objects_of(content[a:b].decode(errors="surrogatepass") for a, b in zip(starts, places, strict=True))


def ones_of(matrix: Any) -> Any:
    """A CSR matrix with its stored values replaced by ones, float32."""
    return sparse.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), matrix.shape)


def normalised(matrix: Any) -> tuple[Any, np.ndarray]:
    """D_u^-1/2 X D_i^-1/2 for binary interactions X, with their numbers D_u by user and D_i by item; and D_i^-1/2."""
    seen = ones_of(matrix)
    users, items = (np.maximum(np.asarray(seen.sum(axis), np.float32).ravel(), 1) ** -0.5 for axis in (1, 0))
    seen.data *= items[seen.indices]
    seen.data *= np.repeat(users, np.diff(seen.indptr))
    return seen, items


def csr_of(X: Any) -> Any:
    """A matrix (users, items) of finite numbers as CSR, with indices that later changes of X do not affect."""
    validation.refuse_collections(X)
    if not (sparse.issparse(X) or hasattr(X, "ndim")):  # lists of lists are always histories
        raise DataError(
            "interactions must be a sparse matrix (users, items) of numbers, or a frame with a row for each of them",
            f"they are of type {type(X).__name__}",
            "Pass numpy.array(X), if its rows are users and its columns are items.",
        )
    validation.check_sparse(X)
    try:
        X = X if sparse.issparse(X) else np.asarray(validation.as_array(X))
    except DataError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # from another library's X
        X = np.array(f"{type(X).__name__} ({error!r:.60})", dtype=object)
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise DataError(
            "interactions must be a sparse matrix (users, items) of numbers, or a frame with a row for each of them",
            f"they are of type {type(X).__name__}, shape {X.shape} and dtype {X.dtype}",
            "Build one: scipy.sparse.csr_matrix((values, (users, items))).",
        )
    if X.dtype == bool:
        X = sparse.csr_matrix(X, copy=True)
        X.sum_duplicates()  # before the cast: duplicates of True are True, not 2
    matrix = sparse.csr_matrix(X if X.dtype in (np.float32, np.float64) else X.astype(np.float64), copy=False)
    if not np.isfinite(matrix.data).all():
        raise DataError("interactions must be finite numbers", "some are not", "Set them, or leave them out.")
    data = matrix.data if matrix.has_canonical_format else matrix.data.astype(np.float64)  # for summing duplicates
    return sparse.csr_matrix((data, matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)


def in_float32(values: np.ndarray) -> np.ndarray:
    """Values in float32, in which they are stored, so that 4.1 is the same number whatever its original dtype."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def is_frame(X: Any) -> bool:
    """Whether X is a data frame."""
    return isinstance(validation.opened(X), nw.DataFrame)


def is_matrix(X: Any) -> bool:
    """Whether X is a matrix with a row for each user: sparse, or a 2-d array that does not hold strings."""
    if sparse.issparse(X):
        return True
    if getattr(X, "ndim", 0) < 2 or is_frame(X):
        return False
    values = np.asarray(X)
    return not (values.dtype.kind in "OUT" and all(isinstance(value, str) for value in values.flat))


def cell_of(matrix: Any, i: int) -> str:
    """The place of the i-th stored value of a CSR matrix."""
    return f"row {np.searchsorted(matrix.indptr, i, side='right') - 1}, column {matrix.indices[i]}"


def with_values(matrix: Any, data: np.ndarray) -> Any:
    """A CSR matrix with other values at the same positions, in order."""
    matrix = sparse.csr_matrix((data, matrix.indices, matrix.indptr), matrix.shape)
    matrix.sort_indices()
    return matrix


def listed(ids: Sequence[Any]) -> str:
    """The first few ids, for a message."""
    return ", ".join(map(repr, list(ids)[:3])) + (", ..." if len(ids) > 3 else "")
