"""The best items for users: histories of any kind to lists of ids with scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from elbowroom.data.ids import ids_of
from elbowroom.data.interactions import Interactions, Reading, Vocabulary, csr_of, histories_of, is_frame, listed
from elbowroom.data.sparse import SparseBatch
from elbowroom.errors import DataError, ElbowroomWarning, counted
from elbowroom.tasks.rank import best, in_order, users_at_once

MARGIN = 16  # candidates beyond the N best, among which exact scores decide
Scorer = Callable[[Any], Tensor]  # CSR histories (n, items) to scores (n, items) that may be written to
Exact = Callable[[Any, Tensor], Tensor]  # histories and columns (n, k) to scores that do not change with their company


@dataclass(frozen=True)
class Lists:
    """Recommended items, by position: (users, n), -1 and a score of minus infinity where there were no more."""

    positions: np.ndarray
    scores: np.ndarray


def lists(
    scorer: Scorer,
    histories: Any,
    n: int,
    filter_liked: bool = True,
    only: np.ndarray | None = None,
    without: np.ndarray | None = None,
    exact: Exact | None = None,
) -> Lists:
    """The n best items for every row of CSR histories.

    `only` and `without` are positions of the items to choose among and to leave out. With `exact`, the order of the
    best is that of its scores: those of a large product change in the last bits with the rows it is made with.
    """
    width = histories.shape[1]
    out = np.zeros(width, bool)
    if only is not None:
        out[:] = True
        out[only] = False
    if without is not None:
        out[without] = True
    size, most = users_at_once(width), min(n, width)
    found = [
        _lists(scorer, histories[start : start + size], most, filter_liked, torch.from_numpy(out), exact)
        for start in range(0, histories.shape[0], size)
    ]
    positions, scores = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else (
        np.empty((0, most), int), np.empty((0, most)),
    )  # fmt: skip
    return Lists(np.where(np.isneginf(scores), -1, positions), scores)


@torch.no_grad()
def _lists(
    scorer: Scorer, histories: Any, n: int, filter_liked: bool, out: Tensor, exact: Exact | None
) -> tuple[np.ndarray, np.ndarray]:
    scores = scorer(histories)
    if bool(out.any()):
        scores.masked_fill_(out.to(scores.device), -torch.inf)
    if filter_liked:
        seen = SparseBatch.of(histories).to(scores.device)
        scores.flatten().index_fill_(0, seen.row * seen.features + seen.columns, -torch.inf)
    values, columns = best(scores, n if exact is None else min(n + MARGIN, scores.shape[1]))
    if exact is not None:
        values = exact(histories, columns).masked_fill(values.isneginf(), -torch.inf)
        values, columns = in_order(values, columns, n)
    return columns.numpy(force=True), values.double().numpy(force=True)


def histories(given: Any, known: Interactions, reading: Reading, refuse: bool = False) -> tuple[Any, bool]:
    """Whatever stands for users, as CSR histories (n, items), and whether it was one user alone.

    Parameters
    ----------
    given : id, array of ids, CSR matrix, frame of interactions, or list of lists of item ids
        Known users, or the histories of anybody.
    known : Interactions
        Of the users that the model knows.
    refuse : bool
        Whether unknown items are refused, or reported and left out.

    Raises
    ------
    DataError
        If a user is not known, or it is something else.
    """
    if sparse.issparse(given):
        return _matrix(given, known, reading), False
    if is_frame(given):
        return _frame(given, known, reading, refuse), False
    if isinstance(given, Mapping):
        found, _ = histories([given], known, reading, refuse)
        return found, True
    if isinstance(given, str | Integral):
        return known.matrix[_users([given], known)], True
    rows = list(given) if isinstance(given, Iterable) and getattr(given, "shape", None) != () else None
    if rows is None:
        raise DataError(
            "users must be ids, a CSR matrix, a frame of interactions, or a list of histories, lists or dicts",
            f"they are {given!r}",
            "Pass [3, 7] for users 3 and 7, or [[10, 12]] for somebody with items 10 and 12.",
        )
    if rows and all(isinstance(row, Iterable) and not isinstance(row, str | bytes) for row in rows):
        found, strangers = histories_of(rows, known.items, reading)
        report_unknown(strangers, refuse)
        return found, False
    return known.matrix[_users(rows, known)], False


def _matrix(given: Any, known: Interactions, reading: Reading) -> Any:
    if given.shape[1] != len(known.items):
        fewer = reading.min_item > 1 and given.shape[1] > len(known.items)
        raise DataError(
            f"a matrix of histories must have the {len(known.items):,} items that the model was fitted on",
            f"it has {given.shape[1]:,} columns",
            "Give it those that min_item has left: X[:, model.items_]."
            if fewer
            else "Give it the same columns, or pass lists of item ids.",
        )
    return reading.read_again(csr_of(given))


def _frame(given: Any, known: Interactions, reading: Reading, refuse: bool) -> Any:
    """One history for each user, in ascending order of their ids."""
    users, items, values = reading.columns(given)
    columns = known.items.positions(items)
    report_unknown(np.unique(items[columns < 0].astype(str)), refuse)
    names, rows = np.unique(users, return_inverse=True)
    at = columns >= 0
    shape = (len(names), len(known.items))
    return reading.matrix(values[at], rows.reshape(-1)[at], columns[at], shape)


def users_to_add(given: Any, matrix: Any, known: Interactions, reading: Reading) -> np.ndarray:
    """The ids of the users whose new interactions are in a frame or a matrix, in the order of its rows.

    Raises
    ------
    DataError
        If they are of another kind than those that are known.
    """
    if is_frame(given):
        ids = np.unique(reading.columns(given)[0])
    elif sparse.issparse(given) and np.array_equal(known.users.ids, np.arange(len(known))):
        ids = np.arange(matrix.shape[0])
    else:
        raise DataError(
            "new interactions are a frame, or a matrix where the model was fitted on one",
            f"this is a {type(given).__name__}" + ", and users have ids" * sparse.issparse(given),
            "Give it a row for each interaction: user, item.",
        )
    if Vocabulary(ids).is_text != known.users.is_text:
        kinds = ("numbers", "texts")
        raise DataError(
            f"ids of users must be {kinds[known.users.is_text]}, as those that are known",
            f"they are {kinds[not known.users.is_text]}",
            "Convert the column.",
        )
    return ids


def asked(wanted: Any, users: int, items: int) -> Any:
    """The places that a matrix stores, whatever its values, as CSR rows (users, items)."""
    if sparse.issparse(wanted) and wanted.shape == (users, items):
        return sparse.csr_matrix(wanted)
    raise DataError(
        f"what is asked for must be a sparse matrix of {counted(users, 'user')} and {counted(items, 'item')}",
        f"it is of type {type(wanted).__name__} and shape {np.shape(wanted)}",
        "Store a value wherever a rating is wanted.",
    )


def one_position(item: Any, known: Interactions) -> int:
    """The position of one known item."""
    if np.ndim(item):
        raise DataError("one item is explained at a time", f"it is {item!r}", "Pass its id.")
    return int(positions_of(item, known, refuse=True)[0])


def _users(given: list[Any], known: Interactions) -> np.ndarray:
    if any(not isinstance(user, str | Real) for user in given):
        raise DataError(
            "users must be ids, or all of them lists of item ids",
            f"there is {next(user for user in given if not isinstance(user, str | Real))!r} among ids",
            "Pass [3, 7] for users 3 and 7, or [[10, 12], [7]] for the histories of two.",
        )
    ids = ids_of(np.asarray(given), "the users")
    found = known.users.positions(ids)
    if (found < 0).any():
        strangers = ids[found < 0]
        raise DataError(
            "users must be those that the model was fitted on, or histories",
            f"{counted(len(strangers), 'user is', 'users are')} not known ({listed(strangers.tolist())})",
            "Pass the items of each, a list of lists: recommend([[10, 12], [7]]).",
        )
    return found


def positions_of(items: Any, known: Interactions, refuse: bool = False) -> np.ndarray:
    """The positions of item ids; those that are not known are reported and left out, or refused."""
    ids = ids_of(np.atleast_1d(np.asarray(items)), "the items")
    found = known.items.positions(ids)
    report_unknown(np.unique(ids[found < 0].astype(str)), refuse)
    return found[found >= 0]


def report_unknown(ids: np.ndarray, refuse: bool) -> None:
    """Say which items are not known, or refuse them."""
    if not len(ids):
        return
    found = f"{counted(len(ids), 'item is', 'items are')} not known ({listed(ids.tolist())})"
    if refuse:
        raise DataError("items must be those that the model was fitted on", found, "Leave them out, or fit again.")
    warnings.warn(f"{found} and left out", ElbowroomWarning, stacklevel=4)


def named(found: Lists, ids: np.ndarray, alone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lists with the caller's ids: -1 or an empty text where there were no more items; one user's as one axis."""
    nobody = "" if ids.dtype.kind == "U" else -1
    names = np.where(found.positions >= 0, ids[found.positions], nobody) if len(ids) else found.positions
    return (names[0], found.scores[0]) if alone else (names, found.scores)


def without_each(row: Any) -> Any:
    """A history of one row without its first item, without its second, and so on: CSR (stored, items)."""
    n = len(row.indices)
    kept = ~np.eye(n, dtype=bool).ravel()
    data, columns = (np.tile(part, n)[kept] for part in (row.data, row.indices))
    return sparse.csr_matrix((data, columns, np.arange(n + 1) * max(n - 1, 0)), (n, row.shape[1]))
