"""Protocols for recommenders: which interactions are trained on, which are folded in, and which are held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from scipy import sparse

from elbowroom.data.interactions.matrix import csr_of, is_matrix, ones_of
from elbowroom.data.interactions.reading import Reading, reading_of
from elbowroom.errors import DataError, ParameterError, counted
from elbowroom.utils.randomness import resolve_seed

MIN_FOLD_IN = 1  # interactions of a user that are never held out


@dataclass(frozen=True)
class Fold:
    """Users to recommend to: interactions that the model is given and interactions that are held out.

    Both are kept as CSR matrices, without stored zeros.

    Parameters
    ----------
    fold_in : matrix (users, items)
        The histories that the model is given.
    held_out : matrix (users, items)
        The interactions that it is evaluated on.

    Raises
    ------
    DataError
        If they are not matrices of finite numbers, or their shapes differ.
    """

    fold_in: Any
    held_out: Any

    def __post_init__(self) -> None:
        for name in ("fold_in", "held_out"):
            object.__setattr__(self, name, _without_zeros(getattr(self, name)))
        if self.fold_in.shape != self.held_out.shape:
            raise DataError(
                "fold_in and held_out must have the same users and items",
                f"their shapes are {self.fold_in.shape} and {self.held_out.shape}",
                "Cut both from the same interactions.",
            )

    def __len__(self) -> int:
        return int(self.fold_in.shape[0])

    @property
    def n_evaluated(self) -> int:
        """The number of users with held-out interactions: the others are not evaluated."""
        return int(np.count_nonzero(np.diff(self.held_out.indptr)))

    @property
    def binary(self) -> Fold:
        """The fold with binary interactions."""
        return Fold(ones_of(self.fold_in), ones_of(self.held_out))


@dataclass(frozen=True)
class Split:
    """A protocol: interactions to train on, a validation fold and a test fold.

    Attributes
    ----------
    train : CSR matrix (users, items)
    valid, test : Fold
    items : array
        The ids of the items.
    name : str
        The protocol in words.
    """

    train: Any
    valid: Fold
    test: Fold
    items: np.ndarray
    name: str

    @classmethod
    def strong(
        cls,
        X: Any,
        *,
        held_out: float | int = 0.1,
        fold_in: float = 0.8,
        random_state: int = 0,
        reading: Reading | None = None,
    ) -> Self:
        """Strong generalisation (Marlin 2004, Liang et al. 2018): users of the test are not in training.

        `held_out` users (a share or a number) are for validation and as many for the test; a share `fold_in` of each
        one's interactions is folded in and the rest is held out. Users with a single interaction are not held out.

        Raises
        ------
        ParameterError
            If these leave nothing to train on, or nothing to test on.
        """
        _check_shares(fold_in=fold_in)
        known, random = reading_of(reading).learn(X), np.random.default_rng(resolve_seed(random_state))
        able = np.flatnonzero(np.diff(known.matrix.indptr) > MIN_FOLD_IN)
        is_number = isinstance(held_out, Integral) and not isinstance(held_out, bool)
        if not is_number:
            _check_shares(held_out=held_out)
        count = int(held_out) if is_number else round(held_out * len(known))
        if count < 1 or 2 * count >= len(able) or not fold_in > 0:
            raise ParameterError(
                "held_out users must leave some to train on, and fold_in must be a share between 0 and 1",
                f"held_out={held_out!r} of {counted(len(able), 'user')}, fold_in={fold_in!r}",
                "Try held_out=0.1, fold_in=0.8.",
            )
        chosen = random.permutation(able)[: 2 * count]
        kept = np.setdiff1d(np.arange(len(known)), chosen)
        folds = [
            Fold(*cut(known.matrix[np.sort(users)], 1 - fold_in, random, 1))
            for users in (chosen[:count], chosen[count:])
        ]
        name = (
            f"strong generalisation: {counted(count, 'user')} held out, {fold_in:.0%} of their interactions folded in"
        )
        return cls(known.matrix[kept], folds[0], folds[1], known.items.ids, name)

    @classmethod
    def per_user(
        cls,
        X: Any,
        test: Any = None,
        *,
        share: float = 0.2,
        valid: float = 0.1,
        random_state: int = 0,
        reading: Reading | None = None,
    ) -> Self:
        """A share of every user's interactions is held out (the protocol of NGCF and LightGCN).

        `test` are the held-out interactions, a matrix like X, for a given split; else a `share` of each user's
        interactions is drawn. A share `valid` of the rest is for validation. Choose settings with `train` and `valid`;
        then train on `test.fold_in`, everything that is not held out for the test, and test.
        """
        _check_shares(share=share, valid=valid)
        reading = reading_of(reading)
        known, random = reading.learn(X), np.random.default_rng(resolve_seed(random_state))
        if test is not None and not is_matrix(test):
            raise DataError(
                "test must be a matrix like X", f"it is of type {type(test).__name__}", "Use Fold for others."
            )
        given = None if test is None else reading.read_again(csr_of(test))
        fold_in, held_out = cut(known.matrix, share, random) if given is None else (known.matrix, given)
        rest, chosen = cut(fold_in, valid, random)
        drawn = "as given" if test is not None else f"{share:.0%}"
        name = f"per user: {drawn} of each one's interactions held out, {valid:.0%} of the others for validation"
        return cls(rest, Fold(rest, chosen), Fold(fold_in, held_out), known.items.ids, name)

    @classmethod
    def latest(
        cls, X: Any, time: str, *, share: float = 0.2, valid: float = 0.1, reading: Reading | None = None
    ) -> Self:
        """The latest interactions of every user are held out, and predicted from the earlier ones, as in practice.

        X is a frame with a column `time` of numbers, dates or ISO strings. The time of an interaction is its first one;
        for ratings, which later ones replace, its last. Rows with equal times are in the order of the frame. The latest
        `share` of each user's interactions is for the test, and the latest share `valid` of the rest for validation, so
        that settings are never chosen on later data.
        """
        _check_shares(share=share, valid=valid)
        reading = reading_of(reading)
        frame = reading.in_time(X, time)
        known = reading.learn(frame)
        when = reading.order_of(frame, known)
        fold_in, held_out = _latest(known.matrix, share, when)
        rest, chosen = _latest(fold_in, valid, when)
        name = f"by {time}: the latest {share:.0%} of each user's interactions held out, {valid:.0%} of the others "
        return cls(rest, Fold(rest, chosen), Fold(fold_in, held_out), known.items.ids, name + "for validation")

    @property
    def checksum(self) -> str:
        """A checksum of the split: results of two runs are comparable if it is equal."""
        digest = hashlib.blake2b(digest_size=8)
        for matrix in (self.train, self.valid.fold_in, self.valid.held_out, self.test.fold_in, self.test.held_out):
            for part in (matrix.indptr, matrix.indices, matrix.data):
                digest.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        users, items = self.train.shape
        return (
            f"{self.name}\n{users:,} users and {items:,} items to train on, {self.train.nnz:,} interactions; "
            f"{counted(self.valid.n_evaluated, 'user')} for validation, {self.test.n_evaluated:,} for the test; "
            f"checksum {self.checksum}"
        )


def _without_zeros(matrix: Any) -> Any:
    """A matrix as CSR without stored zeros."""
    matrix = csr_of(matrix)
    matrix.sum_duplicates()
    if not matrix.data.all():
        matrix = matrix.copy()  # its values may be the caller's
        matrix.eliminate_zeros()
    return matrix


def _check_shares(**shares: Any) -> None:
    for name, share in shares.items():
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= float(share) < 1:
            raise ParameterError(f"{name} must be a share, from 0 to less than 1", f"it is {share!r}", "Try 0.2.")


def cut(matrix: Any, share: float, random: np.random.Generator, least: int = 0) -> tuple[Any, Any]:
    """Draw a share of every row's interactions, at least `least` but never all; returns the others, and these."""
    return _first(matrix, share, random.random(matrix.nnz), least)


def _latest(matrix: Any, share: float, when: Any) -> tuple[Any, Any]:
    """Split off the latest share of every row's interactions; `when` is a CSR matrix of their order in time."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return _first(matrix, share, -np.asarray(when[row, matrix.indices]).ravel(), 0)


def _first(matrix: Any, share: float, key: np.ndarray, least: int) -> tuple[Any, Any]:
    """Split off the share of every row's interactions with the smallest keys (nnz,); returns the others, and these."""
    sizes = np.diff(matrix.indptr)
    row = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((key, row))  # within every row
    rank = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], sizes)
    some = np.minimum(np.maximum(np.rint(share * sizes), least), np.maximum(sizes - MIN_FOLD_IN, 0))
    drawn = np.zeros(matrix.nnz, bool)
    drawn[order] = rank < some[row]
    return _only(matrix, row, ~drawn), _only(matrix, row, drawn)


def _only(matrix: Any, row: np.ndarray, kept: np.ndarray) -> Any:
    parts = (matrix.data[kept], (row[kept], matrix.indices[kept]))
    return sparse.csr_matrix(parts, shape=matrix.shape)
