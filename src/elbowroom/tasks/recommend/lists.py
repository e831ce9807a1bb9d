"""Lists of the best items for users: from histories in any form to ids with scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from elbowroom.data import validation
from elbowroom.data.interactions.ids import as_texts, is_text
from elbowroom.data.interactions.matrix import Interactions, Vocabulary, csr_of, is_frame, is_matrix, listed
from elbowroom.data.interactions.reading import Reading, histories_of, ids_in
from elbowroom.data.sparse import SparseBatch
from elbowroom.errors import DataError, counted, warn
from elbowroom.tasks.recommend.topk import best, in_order, users_at_once
from elbowroom.utils.settings import standard_defaults

MARGIN = 16  # candidates beyond the N best, which exact scores are computed for
Scorer = Callable[[Any], Tensor]  # CSR histories (n, items) to scores (n, items), which the caller may modify
Exact = Callable[[Any, Tensor], Tensor]  # histories and columns (n, k) to scores, batch-invariant


@dataclass(frozen=True)
class Lists:
    """Recommended items by position, (users, n); -1 with a score of minus infinity if there are no more."""

    positions: np.ndarray
    scores: np.ndarray


def lists(
    scorer: Scorer,
    histories: Any,
    n: int,
    filter_liked: bool = True,
    only: np.ndarray | None = None,
    without: Any = None,
    exact: Exact | None = None,
) -> Lists:
    """The n best items for every row of CSR histories.

    `only` are the positions of candidates; `without` is a CSR matrix of items to exclude, with a row for each history
    or one for all. With `exact`, its scores decide the order of the best items, since the last bits of a large matrix
    product depend on the other rows of the batch.
    """
    rows, width = histories.shape
    most, size = validation.positive("n", n), users_at_once(width)
    best_items = Lists(np.full((rows, most), -1), np.full((rows, most), -np.inf))
    for start in range(0, rows, size):
        part = slice(start, start + size)
        out = [histories[part]] * filter_liked
        if without is not None:
            out.append(without if without.shape[0] == 1 else without[part])
        columns, values = _lists(scorer, histories[part], min(most, width), only, out, exact)
        best_items.positions[part, : columns.shape[1]] = np.where(np.isneginf(values), -1, columns)
        best_items.scores[part, : values.shape[1]] = values
    return best_items


@standard_defaults()
@torch.no_grad()
def _lists(
    scorer: Scorer, histories: Any, n: int, only: np.ndarray | None, out: list[Any], exact: Exact | None
) -> tuple[np.ndarray, np.ndarray]:
    scores = scorer(histories)
    if only is not None:
        others = torch.ones(scores.shape[1], dtype=torch.bool)
        others[torch.from_numpy(only)] = False
        scores.masked_fill_(others.to(scores.device), -torch.inf)
    for matrix in out:
        left_out = SparseBatch.of(matrix).to(scores.device)
        if len(left_out) == 1:
            scores[:, left_out.columns] = -torch.inf
        else:
            scores.flatten().index_fill_(0, left_out.row * left_out.features + left_out.columns, -torch.inf)
    values, columns = best(scores, n if exact is None else min(n + MARGIN, scores.shape[1]))
    if exact is not None:
        values = exact(histories, columns).masked_fill(values.isneginf(), -torch.inf)
        values, columns = in_order(values, columns, n)
    return columns.numpy(force=True), values.double().numpy(force=True)


def histories(given: Any, known: Interactions, reading: Reading, refuse: bool = False) -> tuple[Any, bool]:
    """Users in any form as CSR histories (n, items), and whether it was a single user.

    Parameters
    ----------
    given : id, array of ids, matrix (n, items), frame of interactions, or list of lists (or dicts) of item ids
        Known users, or histories of any users. A matrix is a sparse matrix or a 2-d array; a list of lists is never a
        matrix, whatever their lengths.
    known : Interactions
        The interactions of the users that the model was fitted on.
    refuse : bool
        Whether unknown items raise an error; otherwise they are ignored with a warning.

    Raises
    ------
    DataError
        If a user is unknown, or `given` has another type.
    """
    given = validation.as_array(given)
    if is_matrix(given):
        return _matrix(given, known, reading), False
    if is_frame(given):
        return _frame(given, known, reading, refuse), False
    if isinstance(given, Mapping):
        matrix, _ = histories([given], known, reading, refuse)
        return matrix, True
    if _is_one(given):
        return known.matrix[_users([given], known)], True
    if not _is_list(given) or isinstance(given, Set):
        raise DataError(
            "users must be ids, a matrix, a frame of interactions, or a list of histories, lists or dicts",
            f"they are {given!r:.80}",
            "Pass [3, 7] for users 3 and 7, or [[10, 12]] for a user with items 10 and 12.",
        )
    rows = list(given)
    if rows and all(map(_is_list, rows)):
        matrix, unknown_ids = histories_of(rows, known.items, reading)
        report_unknown(unknown_ids, refuse)
        return matrix, False
    return known.matrix[_users(rows, known)], False


def _is_one(given: Any) -> bool:
    """Whether `given` is a single id of a user or an item."""
    return isinstance(given, str | Real | np.generic)


def _is_list(given: Any) -> bool:
    once = isinstance(given, str | bytes | Iterator)  # strings and iterators
    return isinstance(given, Iterable) and not once and getattr(given, "shape", None) != ()


def _matrix(given: Any, known: Interactions, reading: Reading) -> Any:
    matrix = csr_of(given)
    if matrix.shape[1] == len(known.items):
        return reading.read_again(matrix)
    what, do = "a matrix of histories", "Give it the same columns, or pass lists of item ids."
    if not sparse.issparse(given):
        what, do = f"a 2-d array is {what} and", "Give it the same columns; for lists of ids, pass X.tolist()."
    if reading.min_item > 1 and matrix.shape[1] > len(known.items):
        do = "Select the items that min_item has kept: X[:, model.items_]."
    raise DataError(
        f"{what} must have the {len(known.items):,} items that the model was fitted on",
        f"it has {matrix.shape[1]:,} columns",
        do,
    )


def _frame(given: Any, known: Interactions, reading: Reading, refuse: bool) -> Any:
    """One history for each user, in ascending order of their ids."""
    users, items, values = reading.columns(given)
    reading.check_rows(values)
    columns = known.items.positions(items)
    report_unknown(np.unique(as_texts(items[columns < 0])), refuse)
    everybody, rows = Vocabulary.learn(users)
    at = columns >= 0
    return reading.matrix(values[at], rows[at], columns[at], (len(everybody), len(known.items)))


def users_to_add(given: Any, matrix: Any, known: Interactions, reading: Reading) -> np.ndarray:
    """The ids of users with new interactions in a frame or a matrix, in the order of the rows of `matrix`.

    Raises
    ------
    DataError
        If their type differs from that of the known ids.
    """
    if is_frame(given):
        ids = np.unique(reading.columns(given)[0])
        if not len(ids):
            raise DataError("there must be new interactions", "the frame has no rows", "Give it a row for each.")
    elif is_matrix(given) and np.array_equal(known.users.ids, np.arange(len(known))):
        ids = np.arange(matrix.shape[0])
    else:
        raise DataError(
            "new interactions must be a frame, or a matrix if the model was fitted on one",
            f"they are of type {type(given).__name__}" + ", and users have ids" * is_matrix(given),
            "Give it a row for each interaction: user, item.",
        )
    if Vocabulary(ids).is_text != known.users.is_text:
        kinds = ("integers", "strings")
        raise DataError(
            f"ids of users must be {kinds[known.users.is_text]}, like the known ones",
            f"they are {kinds[not known.users.is_text]}",
            "Convert the column.",
        )
    return ids


def asked(wanted: Any, users: int, items: int) -> Any:
    """The stored positions of a matrix, whatever their values, as CSR rows (users, items)."""
    validation.check_sparse(wanted)
    if sparse.issparse(wanted) and wanted.shape == (users, items):
        return sparse.csr_matrix(wanted)
    raise DataError(
        f"wanted must be a sparse matrix of {counted(users, 'user')} and {counted(items, 'item')}",
        f"it is of type {type(wanted).__name__} and shape {np.shape(wanted)}",
        "Store a value for each wanted rating.",
    )


def one_history(given: Any, known: Interactions, reading: Reading) -> Any:
    """The history of one user as a CSR matrix (1, items): from a known id, a list of item ids, a dict or a row."""
    given = validation.as_array(given)
    of_many = is_matrix(given) or is_frame(given) or isinstance(given, Mapping) or _is_one(given)
    rows, _ = histories(given if of_many else [given], known, reading, refuse=True)
    if rows.shape[0] != 1:
        raise DataError("only one history can be explained at a time", f"there are {rows.shape[0]:,}", "Pass one row.")
    return rows


def one_position(item: Any, known: Interactions) -> int:
    """The position of one known item."""
    if not _is_one(item):
        raise DataError("only one item can be explained at a time", f"it is {item!r:.80}", "Pass its id.")
    return int(positions_of(item, known, refuse=True)[0])


def _users(given: list[Any], known: Interactions) -> np.ndarray:
    if any(not isinstance(user, str | Real) for user in given):
        raise DataError(
            "users must be ids, or all of them lists of item ids",
            f"there is {next(user for user in given if not isinstance(user, str | Real))!r} among ids",
            "Pass [3, 7] for users 3 and 7, or [[10, 12], [7]] for the histories of two.",
        )
    ids = ids_in(given, "the list of users")
    positions = known.users.positions(ids)
    if (positions < 0).any():
        unknown_ids = ids[positions < 0]
        raise DataError(
            "users must be those that the model was fitted on, or histories",
            f"{counted(len(unknown_ids), 'user is', 'users are')} not known ({listed(unknown_ids.tolist())})",
            "Pass the items of each, a list of lists: recommend([[10, 12], [7]]).",
        )
    return positions


def positions_of(items: Any, known: Interactions, refuse: bool = False) -> np.ndarray:
    """The positions of an item id or a list of ids; unknown ids are ignored with a warning, or raise an error."""
    given = [items] if _is_one(items) else validation.as_array(items)
    if not _is_list(given) or isinstance(given, Mapping) or is_matrix(given) or is_frame(given) or _any_lists(given):
        raise DataError("items must be ids, in one list", f"they are {items!r:.80}", "Pass a flat list, [10, 12].")
    ids = ids_in(given, "the list of items")
    positions = known.items.positions(ids)
    report_unknown(np.unique(as_texts(ids[positions < 0])), refuse)
    return positions[positions >= 0]


def _any_lists(given: Any) -> bool:
    return not isinstance(given, np.ndarray) and any(map(_is_list, given))


def excluded(given: Any, known: Interactions, users: int, refuse: bool = False) -> Any:
    """Items to exclude, as a CSR matrix with a row for each user, or one for all of them.

    Parameters
    ----------
    given : id, list of ids, list of a list for each user, or matrix (users, items)

    Raises
    ------
    DataError
        If there is not one list for each user, or `given` has another type.
    """
    if is_matrix(given):
        matrix = csr_of(given).copy()
        matrix.eliminate_zeros()
    elif isinstance(given, Iterable) and _any_lists(given):
        if not all(map(_is_list, given)):
            raise DataError("exclude is a list of ids, or of lists", f"it is {given!r:.80}", "Pass [[10, 12], []].")
        matrix, unknown_ids = histories_of([list(row) for row in given], known.items, Reading())
        report_unknown(unknown_ids, refuse)
    else:
        at = positions_of(given, known, refuse)
        return sparse.csr_matrix((np.ones(len(at), np.float32), (np.zeros(len(at), int), at)), (1, len(known.items)))
    if matrix.shape != (users, len(known.items)):
        raise DataError(
            f"exclude must be a list of ids for all users, or one for each of the {counted(users, 'user')}",
            f"it has {counted(matrix.shape[0], 'row')}" + f" of {matrix.shape[1]:,} items" * is_matrix(given),
            "Pass [[10, 12], []]: 10 and 12 for the first user, nothing for the second.",
        )
    return matrix


def report_unknown(ids: np.ndarray, refuse: bool) -> None:
    """Warn about unknown items, or raise an error."""
    if not len(ids):
        return
    got = f"{counted(len(ids), 'item is', 'items are')} not known ({listed(ids.tolist())})"
    if refuse:
        raise DataError("items must be those that the model was fitted on", got, "Leave them out, or fit again.")
    warn(f"{got} and left out", 4)


def named(lists: Lists, ids: np.ndarray, alone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lists with the caller's ids, -1 or an empty string if there are no more items; 1-d for a single user."""
    there, none = lists.positions >= 0, "" if is_text(ids) else -1
    ids = ids.astype(object) if ids.dtype.kind == "u" and not there.all() else ids  # uint64 has no -1
    names = np.where(there, ids[lists.positions], none) if len(ids) else lists.positions
    return (names[0], lists.scores[0]) if alone else (names, lists.scores)


def without_each(row: Any) -> Any:
    """Copies of a one-row history, each without one of its items: CSR (stored, items)."""
    n = len(row.indices)
    kept = ~np.eye(n, dtype=bool).ravel()
    data, columns = (np.tile(part, n)[kept] for part in (row.data, row.indices))
    return sparse.csr_matrix((data, columns, np.arange(n + 1) * max(n - 1, 0)), (n, row.shape[1]))
