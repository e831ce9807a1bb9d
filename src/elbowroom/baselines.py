"""What a recommender has to be ahead of: popularity, nearest items, and the linear EASE."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from scipy import linalg, sparse
from torch import Tensor

from elbowroom.data.interactions import Interactions, Reading
from elbowroom.data.sparse import SparseBatch
from elbowroom.errors import ParameterError
from elbowroom.tasks import recommend as task

BLOCK = 1024  # items whose neighbours are found at once


@dataclass(eq=False)
class Baseline(ABC):
    """Base of the baselines: `fit` on interactions as `InteractionVAE` takes them, then `recommend` or `rank`."""

    def fit(self, X: Any, reading: Reading | None = None) -> Self:
        """Learn from interactions X, a matrix (users, items) or a frame; `reading` says how they are read."""
        self.reading_ = reading or Reading()
        self.known_: Interactions = self.reading_.learn(X)
        self._learn(self.known_.matrix)
        return self

    @abstractmethod
    def _learn(self, matrix: Any) -> None:
        """Learn from a CSR matrix (users, items)."""

    @abstractmethod
    def _score(self, histories: Any) -> Tensor:
        """Scores (n, items) of all items for CSR histories (n, items), the higher the better."""

    def recommend(
        self, users_or_histories: Any, N: int = 10, filter_already_liked_items: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and scores (n, N) of the best items, as `InteractionVAE.recommend` has them."""
        rows, alone = task.histories(users_or_histories, self.known_, self.reading_)
        found = task.lists(self._score, rows, N, filter_already_liked_items)
        return task.named(found, self.known_.items.ids, alone)

    def rank(self, histories: Any, n: int) -> np.ndarray:
        """Positions (users, n) of the best items that are not in CSR histories (users, items); -1 for none."""
        return task.lists(self._score, histories, n).positions


@dataclass(eq=False)
class Popularity(Baseline):
    """Everyone gets the items that most users have."""

    def _learn(self, matrix: Any) -> None:
        self.users_of_ = torch.from_numpy(np.asarray((matrix != 0).sum(0), dtype=np.float32).ravel())

    def _score(self, histories: Any) -> Tensor:
        return self.users_of_.repeat(histories.shape[0], 1)


@dataclass(eq=False)
class ItemKNN(Baseline):
    """Items that are nearest to those of a history, by the cosine of their users (Sarwar et al. 2001).

    Parameters
    ----------
    neighbours : int
        Of each item; the others do not count.
    shrinkage : float
        Added to the product of norms, so that items with few users are near to nothing.
    """

    neighbours: int = 100
    shrinkage: float = 10.0

    def _learn(self, matrix: Any) -> None:
        columns = matrix.tocsc()
        norms = np.sqrt(np.asarray(columns.multiply(columns).sum(0)).ravel())
        blocks = [self._near(columns, norms, at) for at in range(0, matrix.shape[1], BLOCK)]
        self.near_ = sparse.vstack(blocks).tocsr()

    def _near(self, columns: Any, norms: np.ndarray, at: int) -> Any:
        """The nearest items of a block of items, as sparse rows."""
        products = (columns[:, at : at + BLOCK].T @ columns).tocoo()
        row, column = products.row, products.col
        near = products.data / (norms[at + row] * norms[column] + self.shrinkage)
        kept = row + at != column
        row, column, near = row[kept], column[kept], near[kept]
        order = np.lexsort((-near, row))
        row, column, near = row[order], column[order], near[order]
        first = np.searchsorted(row, row)  # where the row of each one begins
        best = np.arange(len(row)) - first < self.neighbours
        shape = (products.shape[0], len(norms))
        return sparse.csr_matrix((near[best].astype(np.float32), (row[best], column[best])), shape)

    def _score(self, histories: Any) -> Tensor:
        return torch.from_numpy((histories @ self.near_).toarray())


@dataclass(eq=False)
class EASE(Baseline):
    """The linear model of items by all others, in closed form (Steck 2019): ten lines, and hard to beat.

    It inverts a matrix (items, items): 4 bytes times the square of the items.

    Parameters
    ----------
    regularisation : float
        Lambda, added to the diagonal of the items' products.
    """

    regularisation: float = 500.0

    def _learn(self, matrix: Any) -> None:
        if not self.regularisation > 0:
            raise ParameterError("regularisation must be positive", f"it is {self.regularisation!r}", "Try 500.")
        gram = np.asfortranarray((matrix.T @ matrix).toarray(), dtype=np.float32)
        gram.flat[:: len(gram) + 1] += self.regularisation
        factor, wrong = linalg.lapack.spotrf(gram, lower=True, overwrite_a=True)
        inverse, wrong = linalg.lapack.spotri(factor, lower=True, overwrite_c=True) if not wrong else (factor, wrong)
        if wrong:
            raise ParameterError(
                "the products of items must have an inverse", f"they have none with {self}", "Raise regularisation."
            )
        _mirror(inverse)
        weights = inverse.T  # it is symmetric, and now in the order of rows
        weights /= -np.diag(weights).copy()
        weights.flat[:: len(weights) + 1] = 0
        self.weights_ = torch.from_numpy(weights)

    def _score(self, histories: Any) -> Tensor:
        return SparseBatch.of(histories).times(self.weights_)


@dataclass(eq=False)
class RatingMeans(Baseline):
    """The mean rating, and how far the user's and the item's are from it (the baseline of Koren et al. 2009).

    Parameters
    ----------
    shrinkage : float
        Ratings that a user or an item is taken to have beside its own, all of them average.
    """

    shrinkage: float = 10.0

    def fit(self, X: Any, reading: Reading | None = None) -> Self:
        """Learn from ratings X, a matrix (users, items), or a frame and `Reading(value="stars", ratings=True)`."""
        return super().fit(X, reading or Reading(ratings=True))

    def _learn(self, matrix: Any) -> None:
        if not (isinstance(self.shrinkage, Real) and 0 <= self.shrinkage < math.inf):
            raise ParameterError("shrinkage must be a number, and not negative", f"it is {self.shrinkage!r}", "Try 10.")
        self.mean_: float = float(matrix.data.mean())
        self.items_: np.ndarray = self._far(matrix.T.tocsr(), self.mean_)

    def expect(self, histories: Any, wanted: Any) -> np.ndarray:
        """Expected ratings (m,) of what CSR rows `wanted` (users, items) store, given CSR histories (users, items)."""
        rows, _ = task.histories(histories, self.known_, self.reading_)
        wanted = task.asked(wanted, *rows.shape)
        users = np.repeat(self._users(rows), np.diff(wanted.indptr))
        return self.mean_ + self.items_[wanted.indices] + users

    def _users(self, histories: Any) -> np.ndarray:
        return self._far(histories, self.mean_ + self.items_[histories.indices])

    def _far(self, rows: Any, usual: Any) -> np.ndarray:
        """How far the stored values of CSR rows are from the usual ones, on average over each row."""
        far = sparse.csr_matrix((rows.data - usual, rows.indices, rows.indptr), rows.shape)
        known = np.diff(rows.indptr)
        return np.asarray(far.sum(1)).ravel() / np.where(known, known + self.shrinkage, 1)

    def _score(self, histories: Any) -> Tensor:
        return torch.from_numpy(self.mean_ + self.items_ + self._users(histories)[:, None])


def _mirror(lower: np.ndarray, block: int = 2048) -> None:
    """Copy the half below the diagonal to the one above, in place."""
    for i in range(0, len(lower), block):
        lower[i : i + block, i + block :] = lower[i + block :, i : i + block].T
        corner = lower[i : i + block, i : i + block]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T


LARGEST_EASE = 20_000  # items, whose products then take 1.6 GB


def baselines(train: Any) -> list[Baseline]:
    """The baselines of lists that this many items allow, fitted on a CSR matrix (users, items)."""
    kinds = (Popularity, ItemKNN, *((EASE,) if train.shape[1] <= LARGEST_EASE else ()))
    return [kind().fit(train) for kind in kinds]
