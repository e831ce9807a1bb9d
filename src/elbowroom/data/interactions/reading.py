"""Reading interactions of users and items from frames, matrices and lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse

from elbowroom.data import validation
from elbowroom.data.interactions.ids import (
    Roles,
    all_ids,
    array_of,
    as_texts,
    ids_of,
    roles_of,
    times_of,
    values_of,
)
from elbowroom.data.interactions.matrix import (
    LARGEST,
    Interactions,
    Vocabulary,
    cell_of,
    csr_of,
    in_float32,
    is_frame,
    with_values,
)
from elbowroom.errors import DataError, ParameterError, counted, unknown, warn
from elbowroom.utils.constraints import Interval

_EXAMPLE = "Pass a list of dicts, [{3: 4.5, 7: 2.0}]."


@dataclass(frozen=True)
class Reading:
    """How interactions are read.

    Without `threshold`, `counts` and `ratings`, interactions are binary: values must be 1, or 0 for none. Several rows
    of a frame with the same user and item are one interaction.

    Parameters
    ----------
    user, item : str or None
        Columns of a frame; None for those with a usual name, else the first and the second one.
    value : str or None
        Column of a frame with counts or ratings; None if each row is one interaction.
    threshold : float or None
        A positive number: interactions with smaller values, summed over rows with the same user and item, are dropped,
        negative ones too. The others count once, unless `counts` or `ratings` keep their values.
    counts, ratings : bool
        Keep the values. For repeated pairs of a user and an item, counts are summed, and the last rating is kept.
        Counts must not be negative, and ratings must be positive.
    min_user, min_item : int
        Users and items with fewer interactions are dropped, repeatedly, until none are left.

    Raises
    ------
    ParameterError
        If an option has an invalid value.
    """

    user: str | None = None
    item: str | None = None
    value: str | None = None
    threshold: float | None = None
    counts: bool = False
    ratings: bool = False
    min_user: int = 1
    min_item: int = 1

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **{name: [str, None] for name in ("user", "item", "value")},
        "threshold": [Interval(Real, 0, None, closed="neither"), None],
        **{name: ["boolean"] for name in ("counts", "ratings")},
        **{name: [Interval(Integral, 1, None, closed="left")] for name in ("min_user", "min_item")},
    }

    def __post_init__(self) -> None:
        validation.check_parameters(self)
        if self.counts and self.ratings:
            raise ParameterError("values are counts or ratings", "counts and ratings are both set", "Set one of them.")

    def learn(self, X: Any) -> Interactions:
        """Read interactions, and learn the ids of their users and items.

        Raises
        ------
        DataError
            If X has no interactions, or invalid ids or values.
        """
        interactions = self._of_frame(X) if is_frame(X) else self._of_matrix(X)
        return self._filtered(interactions)

    def _of_matrix(self, X: Any) -> Interactions:
        matrix = self.cleaned(csr_of(X))
        return Interactions(matrix, *map(Vocabulary.counting, matrix.shape))

    def _of_frame(self, X: Any) -> Interactions:
        users, items, values = self.columns(X)
        self.check_rows(values)
        known_users, rows = Vocabulary.learn(users)
        known_items, columns = Vocabulary.learn(items)
        matrix = self.matrix(values, rows, columns, (len(known_users), len(known_items)))
        return Interactions(matrix, known_users, known_items)

    def matrix(self, values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Any:
        """A CSR matrix of interactions, from checked values and the positions of users and items, with duplicates."""
        if self.ratings:  # a later rating replaces an earlier one
            _, last = np.unique((rows * shape[1] + columns)[::-1], return_index=True)
            values, rows, columns = (part[::-1][last] for part in (values, rows, columns))
        return self._admitted(sparse.csr_matrix((values, (rows, columns)), shape))

    def roles(self, X: Any) -> Roles:
        """The columns of users and items of a frame."""
        return roles_of(X, self.user, self.item, self.value)

    def columns(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User ids, item ids and values of a frame of interactions, each (n,)."""
        frame = nw.from_native(X, eager_only=True)
        if any(isinstance(name, tuple) for name in frame.columns):
            do = "Write X.columns = ['_'.join(map(str, name)) for name in X.columns]."
            raise DataError("columns of interactions must have plain names", f"the first is {frame.columns[0]!r}", do)
        values = np.ones(len(frame))
        if self.value is not None and self.value in frame.columns:
            values = values_of(frame.get_column(self.value), self.value)
        roles = self.roles(X)
        if roles.note:
            warn(roles.note, 4)
        if self.ratings and self.value is None:
            raise DataError("ratings must have a column", "value is None", "Name it with value=....")
        return (
            ids_of(frame.get_column(roles.user), f"column {roles.user!r}"),
            ids_of(frame.get_column(roles.item), f"column {roles.item!r}"),
            values,
        )

    def in_time(self, X: Any, time: str) -> Any:
        """A frame of interactions, sorted by a column of times."""
        if not is_frame(X):
            raise DataError(
                "an order in time needs a frame", f"X is of type {type(X).__name__}", f"Give it a column {time!r}."
            )
        frame = nw.from_native(X, eager_only=True)
        if not isinstance(time, str) or time not in frame.columns:
            raise unknown("the column of the times", time, list(frame.columns))
        times = times_of(frame.get_column(time), time)
        if len(times) > 1 and (times == times[0]).all():
            raise DataError(
                "times must differ, to define an order",
                f"column {time!r} holds {frame.get_column(time).to_list()[0]!r} alone",
                "Name another column, or use Split.per_user.",
            )
        return frame[np.argsort(times, kind="stable").tolist()].to_native()

    def more(self, known: Interactions, users: np.ndarray, matrix: Any) -> Interactions:
        """Add the rows of a matrix, with ascending ids of known and new users, to known interactions."""
        everybody = Vocabulary(all_ids(known.users.ids, users))
        parts = [sparse.coo_matrix(known.matrix), sparse.coo_matrix(matrix)]
        places = [everybody.positions(known.users.ids), everybody.positions(users)]
        rows = np.concatenate([place[part.row] for part, place in zip(parts, places, strict=True)])
        columns, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("col", "data"))
        read = replace(self, threshold=None)  # the threshold was already applied to both
        merged = read.matrix(values, rows, columns, (len(everybody), len(known.items)))
        return Interactions(merged, everybody, known.items)

    def order_of(self, X: Any, known: Interactions) -> Any:
        """A CSR matrix with the index, from 1, of each interaction's first row in the frame it was learned from.

        For ratings it is the last row, as the last rating is kept.
        """
        users, items, _ = self.columns(X)
        rows, columns = known.users.positions(users), known.items.positions(items)
        order = np.flatnonzero((rows >= 0) & (columns >= 0))[:: -1 if self.ratings else 1]
        _, first = np.unique(rows[order] * len(known.items) + columns[order], return_index=True)
        at = order[first]
        return sparse.csr_matrix((at + 1, (rows[at], columns[at])), known.matrix.shape)

    @property
    def least(self) -> float:
        """The value of interactions that are given without one."""
        return max(1.0, self.threshold or 1.0)

    def check_values(self, values: np.ndarray, place: Callable[[int], str]) -> None:
        """Raise if values (n,) are invalid for these options; `place` describes where one of them is.

        Raises
        ------
        DataError
            With the first invalid value.
        """
        if self.counts:
            broken, expected, do = values < 0, "counts must not be negative", "Correct the data."
        elif self.ratings:
            broken, expected = values <= 0, "ratings must be positive, as zero means no rating"
            do = "Add a constant to all of them."
        elif self.threshold is None:
            broken = (values != 0) & (values != 1)
            expected = "values must be 1, or 0 for none, if counts, ratings and threshold are not set"
            do = "Set counts=True to keep them, ratings=True if they are ratings, or threshold=4 to drop those below."
        else:
            return
        if broken.any():
            first = int(np.argmax(broken))
            how_many = counted(int(broken.sum()), "value is not", "values are not")
            raise DataError(expected, f"{how_many} (first: {values[first]:g} in {place(first)})", do)

    def check_rows(self, values: np.ndarray) -> None:
        """Apply `check_values` to the values (n,) of a frame's rows."""
        self.check_values(values, lambda i: f"row {i} of column {self.value!r}")

    def cleaned(self, matrix: Any) -> Any:
        """Check a caller's matrix, apply the threshold, and convert the rest with `stored`."""
        matrix.sum_duplicates()
        self.check_values(matrix.data, lambda i: cell_of(matrix, i))
        return self._admitted(matrix)

    def _admitted(self, matrix: Any) -> Any:
        matrix.sum_duplicates()
        kept = matrix.data > 0 if self.threshold is None else in_float32(matrix.data) >= np.float32(self.threshold)
        if not kept.all():
            matrix = matrix.copy()
            matrix.data[~kept] = 0
            matrix.eliminate_zeros()
        return self.stored(matrix)

    def read_again(self, matrix: Any) -> Any:
        """Read a matrix that may have been read before: then its ones have already passed the threshold."""
        admitted = not self.ratings and bool((matrix.data == 1).all())
        return self.stored(matrix) if admitted else self.cleaned(matrix)

    def stored(self, matrix: Any) -> Any:
        """Interactions after the threshold, in float32: ones, unless values are kept."""
        matrix.sum_duplicates()
        if not self.counts and not self.ratings:
            return with_values(matrix, np.ones(matrix.nnz, np.float32))
        if self.counts and (broken := matrix.data != np.floor(matrix.data)).any():
            raise DataError(
                "counts=True requires positive whole numbers",
                f"{counted(int(broken.sum()), 'value is', 'values are')} not (first: {matrix.data[broken][0]:g})",
                "Use counts=False, perhaps with a threshold.",
            )
        if (matrix.data > LARGEST).any():
            raise DataError(f"values must be at most {LARGEST:g}", f"one is {matrix.data.max():g}", "Use another unit.")
        return with_values(matrix, matrix.data.astype(np.float32))

    def _filtered(self, interactions: Interactions) -> Interactions:
        matrix = interactions.matrix
        users, items = np.arange(matrix.shape[0]), np.arange(matrix.shape[1])
        while self.min_user > 1 or self.min_item > 1:
            few = [matrix.getnnz(axis) < least for axis, least in self._least]
            if not few[0].any() and not few[1].any():
                break
            users, items = users[~few[0]], items[~few[1]]
            matrix = matrix[~few[0]][:, ~few[1]]
        if not matrix.nnz:
            raise DataError(
                "there must be interactions",
                "none are left",
                "Check the data, threshold, min_user and min_item.",
            )
        return Interactions(
            matrix, Vocabulary(interactions.users.ids[users]), Vocabulary(interactions.items.ids[items])
        )

    @property
    def _least(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """For users and items, the axis to sum over and the fewest interactions; matrices keep empty rows."""
        return (1, self.min_user if self.min_user > 1 else 0), (0, self.min_item if self.min_item > 1 else 0)


def reading_of(given: Any) -> Reading:
    """The given Reading, or the default if it is None."""
    if given is not None and not isinstance(given, Reading):
        raise ParameterError("reading must be a Reading", f"it is {given!r:.80}", "Write Reading(counts=True).")
    return given or Reading()


def _in_history(i: int, _: int) -> str:
    return f"history {i}"


def histories_of(rows: Iterable[Any], items: Vocabulary, reading: Reading) -> tuple[Any, np.ndarray]:
    """Histories, lists of item ids or mappings of these to values, as a matrix (n, items); and the unknown ids."""
    pairs = [_pairs(row, i, reading) for i, row in enumerate(rows)]
    for i, (_, values) in enumerate(pairs):
        reading.check_values(values, partial(_in_history, i))
    flat = [items.positions(ids) for ids, _ in pairs]
    unknown_ids = [as_texts(ids[at < 0]) for (ids, _), at in zip(pairs, flat, strict=True)]
    columns, values = (np.concatenate(parts or [np.empty(0)]) for parts in (flat, [values for _, values in pairs]))
    row = np.repeat(np.arange(len(pairs)), [len(at) for at in flat])[columns >= 0]
    matrix = reading.matrix(values[columns >= 0], row, columns[columns >= 0].astype(int), (len(pairs), len(items)))
    return matrix, np.unique(np.concatenate(unknown_ids)) if unknown_ids else np.empty(0, object)


def _pairs(row: Any, place: int, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Items and values of a history; repeated items of a list count once."""
    if isinstance(row, Mapping):
        if not all(isinstance(v, int | float | np.number) and bool(np.isfinite(v)) for v in row.values()):
            raise DataError("values of a history must be finite numbers", f"they are {list(row.values())!r}", _EXAMPLE)
        return ids_in(row, f"history {place}"), np.array(list(row.values()), np.float64)
    if isinstance(row, str | bytes) or not isinstance(row, Iterable):
        raise DataError(
            "a history must be a list of item ids", f"one is {row!r}", "Pass a list of lists, [[3, 7], [2]]."
        )
    ids = np.unique(ids_in(row, f"history {place}"))
    if reading.ratings and len(ids):
        raise DataError("a history must have a rating for each item", f"one is of type {type(row).__name__}", _EXAMPLE)
    return ids, np.full(len(ids), reading.least)


def ids_in(values: Iterable[Any], where: str) -> np.ndarray:
    """The ids (n,) of a list, as for columns: integers, also as floats, or strings, but not booleans.

    Raises
    ------
    DataError
        If it holds other values.
    """
    values = values if isinstance(values, np.ndarray) and values.ndim == 1 else list(values)
    odd = () if isinstance(values, np.ndarray) else (bool, np.bool_, bytes, Mapping, Set, list, tuple, np.ndarray)
    first = next((value for value in values if isinstance(value, odd)), None) if odd else None
    if first is not None:
        raise DataError(
            "ids must be integers or strings, all of one kind",
            f"{where} has {first!r:.80}",
            "Pass a flat list of them.",
        )
    return ids_of(array_of(values), where)
