"""Baselines for recommenders: popularity, nearest items, and the linear EASE."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy import linalg, sparse
from sklearn.exceptions import NotFittedError
from torch import Tensor

from elbowroom.data import validation
from elbowroom.data.interactions.matrix import Interactions, ones_of
from elbowroom.data.interactions.reading import Reading, reading_of
from elbowroom.data.interactions.splits import Fold, Split
from elbowroom.data.sparse import SparseBatch
from elbowroom.errors import ParameterError, counted
from elbowroom.tasks.recommend import lists as task
from elbowroom.tasks.recommend.metrics import ERRORS, Evaluation, evaluate, fitting, gain
from elbowroom.utils.constraints import Interval

BLOCK = 1024  # items per block of neighbours


@dataclass(eq=False)
class Baseline(ABC):
    """Base class of the baselines: `fit` on the same interactions as `InteractionVAE`, then `recommend` or `rank`."""

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {}  # the settings that `choose` tries, in all combinations
    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def fit(self, X: Any, reading: Reading | None = None) -> Self:
        """Learn from interactions X, a matrix (users, items) or a frame, read with the options in `reading`.

        Raises
        ------
        DataError, ParameterError
            If X or a setting is invalid.
        """
        validation.check_parameters(self)
        self.reading_ = reading_of(reading)
        self.known_: Interactions = self.reading_.learn(X)
        self._learn(self.known_.matrix)
        return self

    @classmethod
    def choose(cls, X: Any, valid: Fold, metric: str = "ndcg@100", reading: Reading | None = None) -> Self:
        """Fit on X with the settings of `grid` that are best on validation users.

        Parameters
        ----------
        X, reading
            As in `fit`.
        valid : Fold
            Such as `split.valid`, never `split.test`.
        metric : str
            As in `elbowroom.evaluate`.
        """
        settings = [dict(zip(cls.grid, values, strict=True)) for values in itertools.product(*cls.grid.values())]
        scores = [gain(cls(**setting).fit(X, reading), valid, metric) for setting in settings]
        return cls(**settings[int(np.argmax(scores))]).fit(X, reading)

    @abstractmethod
    def _learn(self, matrix: Any) -> None:
        """Learn from a CSR matrix (users, items)."""

    @abstractmethod
    def _score(self, histories: Any) -> Tensor:
        """Scores (n, items) of all items for CSR histories (n, items); higher is better."""

    def recommend(
        self, users_or_histories: Any, N: int = 10, filter_already_liked_items: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and scores (n, N) of the best items, as in `InteractionVAE.recommend`."""
        rows, alone = self._histories(users_or_histories)
        lists = task.lists(self._score, rows, validation.positive("N", N), bool(filter_already_liked_items))
        return task.named(lists, self.known_.items.ids, alone)

    def rank(self, histories: Any, n: int) -> np.ndarray:
        """Positions (users, n) of the best items that are not in histories, a matrix (users, items); -1 for none."""
        return task.lists(self._score, self._histories(histories)[0], n).positions

    def _histories(self, given: Any) -> tuple[Any, bool]:
        if not hasattr(self, "known_"):
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet. Call 'fit' first.")
        return task.histories(given, self.known_, self.reading_)


@dataclass(eq=False)
class Popularity(Baseline):
    """Recommend the most popular items to everyone."""

    def _learn(self, matrix: Any) -> None:
        self.users_of_ = torch.from_numpy(np.asarray((matrix != 0).sum(0), dtype=np.float32).ravel())

    def _score(self, histories: Any) -> Tensor:
        return self.users_of_.repeat(histories.shape[0], 1)


@dataclass(eq=False)
class ItemKNN(Baseline):
    """Recommend the items that are nearest to those of a history, by the cosine of their users (Sarwar et al. 2001).

    Parameters
    ----------
    neighbours : int
        Number of neighbours of each item.
    shrinkage : float
        Added to the product of norms, so that the similarities of items with few users are small.
    """

    neighbours: int = 100
    shrinkage: float = 10.0

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {"neighbours": (20, 100), "shrinkage": (10.0, 100.0, 1000.0, 10000.0)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "neighbours": [Interval(Integral, 1, None, closed="left")],
        "shrinkage": [Interval(Real, 0, None, closed="left")],
    }

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
        first = np.searchsorted(row, row)  # the first entry of each one's row
        best = np.arange(len(row)) - first < self.neighbours
        shape = (products.shape[0], len(norms))
        return sparse.csr_matrix((near[best].astype(np.float32), (row[best], column[best])), shape)

    def _score(self, histories: Any) -> Tensor:
        return torch.from_numpy((histories @ self.near_).toarray())


@dataclass(eq=False)
class EASE(Baseline):
    """A linear model of each item by all others, in closed form (Steck 2019), a strong baseline.

    It inverts a matrix (items, items), which takes 4 bytes per pair of items.

    Parameters
    ----------
    regularisation : float
        Lambda, added to the diagonal of the items' Gram matrix.
    """

    regularisation: float = 500.0

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {"regularisation": (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {"regularisation": [Interval(Real, 0, None, closed="neither")]}

    def _learn(self, matrix: Any) -> None:
        gram = np.asfortranarray((matrix.T @ matrix).toarray(), dtype=np.float32)
        gram.flat[:: len(gram) + 1] += self.regularisation
        factor, wrong = linalg.lapack.spotrf(gram, lower=True, overwrite_a=True)
        inverse, wrong = linalg.lapack.spotri(factor, lower=True, overwrite_c=True) if not wrong else (factor, wrong)
        if wrong:
            raise ParameterError(
                "the Gram matrix of items must have an inverse", f"it has none with {self}", "Raise regularisation."
            )
        _mirror(inverse)
        weights = inverse.T  # symmetric, and now in row-major order
        weights /= -np.diag(weights).copy()
        weights.flat[:: len(weights) + 1] = 0
        self.weights_ = torch.from_numpy(weights)

    def _score(self, histories: Any) -> Tensor:
        return SparseBatch.of(histories).times(self.weights_)


@dataclass(eq=False)
class RatingMeans(Baseline):
    """The mean rating plus biases of the user and the item (the baseline of Koren et al. 2009).

    Parameters
    ----------
    shrinkage : float
        Number of average ratings that are added to the ratings of each user and item.
    """

    shrinkage: float = 10.0

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {"shrinkage": (1.0, 3.0, 10.0, 30.0)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {"shrinkage": [Interval(Real, 0, None, closed="left")]}

    def fit(self, X: Any, reading: Reading | None = None) -> Self:
        """Learn from ratings X, a matrix (users, items), or a frame and `Reading(value="stars", ratings=True)`."""
        return super().fit(X, reading or Reading(ratings=True))

    def _learn(self, matrix: Any) -> None:
        self.mean_: float = float(matrix.data.mean())
        self.items_: np.ndarray = self._far(matrix.T.tocsr(), self.mean_)

    def expect(self, histories: Any, wanted: Any) -> np.ndarray:
        """Expected ratings (m,) of the entries of CSR rows `wanted` (users, items), given CSR histories."""
        rows, _ = self._histories(histories)
        wanted = task.asked(wanted, *rows.shape)
        users = np.repeat(self._users(rows), np.diff(wanted.indptr))
        return self.mean_ + self.items_[wanted.indices] + users

    def _users(self, histories: Any) -> np.ndarray:
        return self._far(histories, self.mean_ + self.items_[histories.indices])

    def _far(self, rows: Any, usual: Any) -> np.ndarray:
        """The mean deviation of the stored values of CSR rows from the expected ones, for each row."""
        far = sparse.csr_matrix((rows.data - usual, rows.indices, rows.indptr), rows.shape)
        known = np.diff(rows.indptr)
        return np.asarray(far.sum(1)).ravel() / np.where(known, known + self.shrinkage, 1)

    def _score(self, histories: Any) -> Tensor:
        return torch.from_numpy(self.mean_ + self.items_ + self._users(histories)[:, None])


def _mirror(lower: np.ndarray, block: int = 2048) -> None:
    """Copy the lower triangle to the upper one, in place."""
    for i in range(0, len(lower), block):
        lower[i : i + block, i + block :] = lower[i + block :, i : i + block].T
        corner = lower[i : i + block, i : i + block]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T


LARGEST_EASE = 20_000  # items; their Gram matrix takes 1.6 GB
FEW, MANY = 20, 5000  # training users needed to hold out a tenth, and the most users that are held out
NEUTRAL = ("coverage@", "popularity@")  # metrics for which neither high nor low is better


def baselines(train: Any, metrics: Sequence[str], valid: Fold | None = None) -> tuple[list[Baseline], str]:
    """Baselines that suit the metrics and the number of items, with tuned settings, and a sentence on the settings.

    Parameters
    ----------
    train : CSR matrix (users, items)
        The training data of the model.
    metrics : sequence of str
        The metrics of the evaluation; settings are chosen by the first that has a direction.
    valid : Fold, optional
        Users to tune on; by default, some of the users in `train` are held out.
    """
    of_ratings = any(metric in ERRORS for metric in metrics)
    kinds: list[type[Baseline]] = [RatingMeans] if of_ratings else [Popularity, ItemKNN, EASE]
    if train.shape[1] > LARGEST_EASE and not of_ratings:
        kinds.remove(EASE)
    reading, train = Reading(ratings=of_ratings), train if of_ratings else ones_of(train)
    able = int((np.diff(train.indptr) > 1).sum())
    if valid is None and able < FEW:
        return [kind().fit(train, reading) for kind in kinds], "Default settings of baselines, as there are few users"
    decides = (metric for metric in metrics if (metric in ERRORS) == of_ratings and not metric.startswith(NEUTRAL))
    metric = next(decides, fitting(["ndcg@20"], train.shape[1])[0])
    if valid is None:
        split = Split.strong(train, held_out=min(able // 10, MANY), reading=reading)
        chosen = [kind.choose(split.train, split.valid, metric, reading) for kind in kinds]
        fitted = [replace(model).fit(train, reading) for model in chosen]
        whom = f"{counted(len(split.valid), 'user')} held out of the training for that"
    else:
        fold = valid if of_ratings else valid.binary
        fitted = [kind.choose(train, fold, metric, reading) for kind in kinds]
        whom = counted(len(valid), "user")
    return fitted, f"Settings chosen by {metric} on {whom}: {', '.join(repr(model) for model in fitted if model.grid)}"


def side_by_side(
    model: Any, fold: Fold, metrics: Sequence[str], valid: Fold | None = None
) -> tuple[dict[str, Evaluation], list[Baseline], str]:
    """Evaluate a model and the baselines on a fold: evaluations by name, baselines, a sentence on their settings.

    Except for metrics of ratings, baselines binarise counts and ratings, as in training.
    """
    evaluations = {type(model).__name__: evaluate(model, fold, metrics)}
    others, chosen = baselines(model.known_.matrix, metrics, valid)
    for other in others:
        evaluations[type(other).__name__] = evaluate(other, fold if other.reading_.ratings else fold.binary, metrics)
    return evaluations, others, chosen
