"""Interactions: who did what, as users, items and a sparse matrix of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import narwhals.stable.v2 as nw
import numpy as np
import torch
from scipy import sparse
from sklearn.utils._param_validation import Interval
from torch import Tensor

from elbowroom.data import door
from elbowroom.data.ids import Roles, all_ids, array_of, as_texts, ids_of, is_text, roles_of, times_of, values_of
from elbowroom.data.words import objects_of
from elbowroom.errors import DataError, ParameterError, counted, unknown, warn

LARGEST = 1e30  # of a value: its square, in float32, is no number
PARTS = ("starts", "columns", "values")  # of a CSR matrix


class Vocabulary:
    """The ids of users or items, and their positions.

    Parameters
    ----------
    ids : array (n,)
        Different numbers, int64 or uint64, or texts as objects, in ascending order.
    """

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids if ids.dtype.kind in "iu" else ids.astype(object)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def learn(cls, ids: np.ndarray) -> tuple[Vocabulary, np.ndarray]:
        """The different ids, and the position of each one given."""
        if not is_text(ids):
            found, positions = np.unique(ids, return_inverse=True)
            return cls(found), positions.reshape(-1)
        known = cls(objects_of(sorted({*ids.tolist()})))
        return known, known.positions(ids)

    @classmethod
    def counting(cls, n: int) -> Vocabulary:
        """The ids of a matrix: 0, 1, ..., n - 1."""
        return cls(np.arange(n))

    def tensors(self) -> dict[str, Tensor]:
        """The ids as tensors: the numbers, or the letters of all texts one after the other, and where each one ends.

        Those of uint64 are the int64 of the same bits, called `unsigned`.
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
        """From what `tensors` made.

        Raises
        ------
        ValueError
            If they are no different numbers or texts in ascending order.
        """
        if letters is not None and ends is not None and ids is None and unsigned is None:
            found = _texts(letters, ends)
        elif letters is None and ends is None and (ids is None) != (unsigned is None):
            found = _numbers(ids) if unsigned is None else _numbers(unsigned).view(np.uint64)
        else:
            raise ValueError("its ids are neither numbers nor texts")
        if not (found[1:] > found[:-1]).all():
            raise ValueError("its ids are not different ones in ascending order")
        return cls(found)

    @cached_property
    def is_text(self) -> bool:
        """Whether the ids are texts."""
        return is_text(self.ids)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.ids.tolist())}

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """The positions of ids (n,), -1 for those that are not known."""
        if not len(self.ids) or not len(ids) or self.is_text != is_text(ids):
            return np.full(len(ids), -1)
        if self.is_text:
            return np.fromiter(map(self._places.get, ids.tolist(), repeat(-1)), np.int64, len(ids))
        alike = ids.astype(self.ids.dtype)
        at = np.minimum(np.searchsorted(self.ids, alike), len(self.ids) - 1)
        return np.where((self.ids[at] == alike) & ((alike < 0) == (ids < 0)), at, -1)


@dataclass(frozen=True, eq=False)
class Interactions:
    """A matrix (users, items), CSR, whose stored values are all above zero, and the ids of its rows and columns."""

    matrix: Any
    users: Vocabulary
    items: Vocabulary

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def with_more(self, users: np.ndarray, matrix: Any, reading: Reading) -> Interactions:
        """These and more interactions: the rows of a matrix, of ascending ids of known and of new users."""
        everybody = Vocabulary(all_ids(self.users.ids, users))
        parts = [sparse.coo_matrix(self.matrix), sparse.coo_matrix(matrix)]
        places = [everybody.positions(self.users.ids), everybody.positions(users)]
        rows = np.concatenate([place[part.row] for part, place in zip(parts, places, strict=True)])
        columns, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("col", "data"))
        read = replace(reading, threshold=None)  # both are what was admitted
        merged = read.matrix(values, rows, columns, (len(everybody), len(self.items)))
        return Interactions(merged, everybody, self.items)

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors by name, for a file."""
        matrix = self.matrix
        parts = {"starts": matrix.indptr.astype(np.int64), "columns": matrix.indices.astype(np.int32)}
        found = {name: torch.from_numpy(part) for name, part in (parts | {"values": matrix.data}).items()}
        for who in ("users", "items"):
            found |= {f"{who}.{name}": tensor for name, tensor in getattr(self, who).tensors().items()}
        return found

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """From what `tensors` made.

        Raises
        ------
        ValueError
            If they are no interactions.
        """
        if unknown_names := {name for name in tensors if not name.startswith(("users.", "items."))} - {*PARTS}:
            raise ValueError(f"its interactions have {min(unknown_names)!r:.60}")
        users, items = (
            Vocabulary.of_tensors(**{n[6:]: tensor for n, tensor in tensors.items() if n.startswith(f"{who}.")})
            for who in ("users", "items")
        )
        starts, columns, values = (tensors[name].numpy() for name in PARTS)
        if not (
            (starts.dtype, columns.dtype, values.dtype) == (np.int64, np.int32, np.float32)
            and (starts.shape, columns.shape) == ((len(users) + 1,), (len(values),))
            and starts[0] == 0
            and starts[-1] == len(columns)
            and (np.diff(starts) >= 0).all()
            and ((columns >= 0) & (columns < len(items))).all()
            and ((values > 0) & (values <= LARGEST)).all()
        ):
            raise ValueError("its interactions are no matrix of users and items")
        matrix = sparse.csr_matrix((values, columns, starts), (len(users), len(items)))
        if not matrix.has_canonical_format:
            raise ValueError("its interactions are not in order")
        return cls(matrix, users, items)


def _numbers(ids: Tensor | None) -> np.ndarray:
    if ids is None or ids.dtype != torch.int64 or ids.ndim != 1:
        raise ValueError("its ids are no numbers")
    return ids.numpy()


def _texts(letters: Tensor, ends: Tensor) -> np.ndarray:
    """Texts (n,) from all their letters, in UTF-8, and where each one ends.

    Raises
    ------
    ValueError
        If they are none.
    """
    content, places = letters.numpy().tobytes(), ends.tolist()
    sizes = np.diff(places, prepend=0)
    if (letters.dtype, ends.dtype) != (torch.uint8, torch.int64) or letters.ndim != 1 or ends.ndim != 1:
        raise ValueError("its ids are no texts")
    if not len(places) or places[-1] != len(content) or (sizes < 0).any():
        raise ValueError("its ids do not end where they are said to")
    starts = [0, *places[:-1]]
    return objects_of(content[a:b].decode(errors="surrogatepass") for a, b in zip(starts, places, strict=True))


@dataclass(frozen=True)
class Reading:
    """How interactions are read.

    Without `threshold`, `counts` and `ratings` every interaction counts once: the values are 1, or 0 where there is
    none, and others are refused. A frame may have several rows of a user and an item, which count once together.

    Parameters
    ----------
    user, item : str or None
        Columns of a frame; None for those that are called so or, where none is, the first and the second one.
    value : str or None
        Column of a frame with counts or ratings; None for one interaction a row.
    threshold : float or None
        Above zero: interactions whose values, summed over a user's rows of an item, are less are left out, negative
        ones too. Those that are left count once, unless `counts` or `ratings` keep their values.
    counts, ratings : bool
        Keep values, whose sum counts where a user has an item more than once, or of ratings the last. Counts must not
        be negative, and ratings must be above zero.
    min_user, min_item : int
        Users and items with fewer interactions are left out, again and again until there are none.

    Raises
    ------
    ParameterError
        If an option is of another kind.
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
        door.check_parameters(self)
        if self.counts and self.ratings:
            raise ParameterError("values are counts or ratings", "counts and ratings are both set", "Set one of them.")

    def learn(self, X: Any) -> Interactions:
        """Interactions with the users and items that X has.

        Raises
        ------
        DataError
            If X holds no interactions, or ids or values that can not be used.
        """
        found = self._of_frame(X) if is_frame(X) else self._of_matrix(X)
        return self._filtered(found)

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
        """Interactions of checked values, by positions of users and items that may come more than once, as CSR."""
        if self.ratings:  # whoever rates an item again has another opinion
            _, last = np.unique((rows * shape[1] + columns)[::-1], return_index=True)
            values, rows, columns = (part[::-1][last] for part in (values, rows, columns))
        return self._admitted(sparse.csr_matrix((values, (rows, columns)), shape))

    def roles(self, X: Any) -> Roles:
        """Which columns of a frame hold the users and the items."""
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
        """A frame of interactions with its rows in the order of a column of times."""
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
                "times must differ, to say what comes later",
                f"column {time!r} holds {frame.get_column(time).to_list()[0]!r} alone",
                "Name another column, or use Split.per_user.",
            )
        return frame[np.argsort(times, kind="stable").tolist()].to_native()

    def order_of(self, X: Any, found: Interactions) -> Any:
        """The place in a frame of the first row of each interaction that was learned from it, a CSR matrix from 1 on.

        Of ratings that of the last row, as it is the last rating that counts.
        """
        users, items, _ = self.columns(X)
        rows, columns = found.users.positions(users), found.items.positions(items)
        order = np.flatnonzero((rows >= 0) & (columns >= 0))[:: -1 if self.ratings else 1]
        _, first = np.unique(rows[order] * len(found.items) + columns[order], return_index=True)
        at = order[first]
        return sparse.csr_matrix((at + 1, (rows[at], columns[at])), found.matrix.shape)

    @property
    def least(self) -> float:
        """A value that counts as an interaction, for those that come without one."""
        return max(1.0, self.threshold or 1.0)

    def check_values(self, values: np.ndarray, place: Callable[[int], str]) -> None:
        """Refuse values (n,) that do not mean anything to this way of reading; `place` says where one of them is.

        Raises
        ------
        DataError
            With the first of them.
        """
        if self.counts:
            broken, expected, do = values < 0, "counts must not be negative", "Correct the data."
        elif self.ratings:
            broken, expected = values <= 0, "ratings must be above zero, as zero means none"
            do = "Add a constant to all of them."
        elif self.threshold is None:
            broken = (values != 0) & (values != 1)
            expected = "values must be 1, or 0 for none, where counts, ratings and threshold are not set"
            do = "Set counts=True to keep them, ratings=True if they are ratings, or threshold=4 for those from 4 on."
        else:
            return
        if broken.any():
            first = int(np.argmax(broken))
            how_many = counted(int(broken.sum()), "value is not", "values are not")
            raise DataError(expected, f"{how_many} (first: {values[first]:g} in {place(first)})", do)

    def check_rows(self, values: np.ndarray) -> None:
        """Refuse values (n,) of the rows of a frame, as `check_values`."""
        self.check_values(values, lambda i: f"row {i} of column {self.value!r}")

    def cleaned(self, matrix: Any) -> Any:
        """Of a matrix as it comes: values checked, what is below the threshold left out, and the rest `stored`."""
        matrix.sum_duplicates()
        self.check_values(matrix.data, lambda i: _cell(matrix, i))
        return self._admitted(matrix)

    def _admitted(self, matrix: Any) -> Any:
        matrix.sum_duplicates()
        kept = matrix.data > 0 if self.threshold is None else _single(matrix.data) >= np.float32(self.threshold)
        if not kept.all():
            matrix = matrix.copy()
            matrix.data[~kept] = 0
            matrix.eliminate_zeros()
        return self.stored(matrix)

    def read_again(self, matrix: Any) -> Any:
        """Of a matrix that may have been read before: ones were admitted then, whatever the threshold."""
        admitted = not self.ratings and bool((matrix.data == 1).all())
        return self.stored(matrix) if admitted else self.cleaned(matrix)

    def stored(self, matrix: Any) -> Any:
        """Interactions that were admitted: values of one unless they are to be kept, in float32."""
        matrix.sum_duplicates()
        if not self.counts and not self.ratings:
            return _like(matrix, np.ones(matrix.nnz, np.float32))
        if self.counts and (broken := matrix.data != np.floor(matrix.data)).any():
            raise DataError(
                "counts=True needs whole numbers above zero",
                f"{counted(int(broken.sum()), 'value is', 'values are')} not (first: {matrix.data[broken][0]:g})",
                "Use counts=False, with a threshold if you like.",
            )
        if (matrix.data > LARGEST).any():
            raise DataError(f"values must be at most {LARGEST:g}", f"one is {matrix.data.max():g}", "Use another unit.")
        return _like(matrix, matrix.data.astype(np.float32))

    def _filtered(self, found: Interactions) -> Interactions:
        matrix = found.matrix
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
        return Interactions(matrix, Vocabulary(found.users.ids[users]), Vocabulary(found.items.ids[items]))

    @property
    def _least(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """For users and items, the axis to sum over and the fewest interactions; a matrix keeps its empty rows."""
        return (1, self.min_user if self.min_user > 1 else 0), (0, self.min_item if self.min_item > 1 else 0)


def reading_of(given: Any) -> Reading:
    """How interactions are read: as given, or by default where it is None."""
    if given is not None and not isinstance(given, Reading):
        raise ParameterError("reading must be a Reading", f"it is {given!r:.80}", "Write Reading(counts=True).")
    return given or Reading()


def histories_of(rows: Iterable[Any], items: Vocabulary, reading: Reading) -> tuple[Any, np.ndarray]:
    """Histories, lists of item ids or mappings of these to values, as a matrix (n, items); and ids not known."""
    pairs = [_pairs(row, i, reading) for i, row in enumerate(rows)]
    for i, (_, values) in enumerate(pairs):
        reading.check_values(values, lambda _, i=i: f"history {i}")  # type: ignore[misc]
    flat = [items.positions(ids) for ids, _ in pairs]
    strangers = [as_texts(ids[at < 0]) for (ids, _), at in zip(pairs, flat, strict=True)]
    columns, values = (np.concatenate(parts or [np.empty(0)]) for parts in (flat, [values for _, values in pairs]))
    row = np.repeat(np.arange(len(pairs)), [len(at) for at in flat])[columns >= 0]
    matrix = reading.matrix(values[columns >= 0], row, columns[columns >= 0].astype(int), (len(pairs), len(items)))
    return matrix, np.unique(np.concatenate(strangers)) if strangers else np.empty(0, object)


def _pairs(row: Any, place: int, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Items and values of a history; the items of a list count once each, however often they are in it."""
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


_EXAMPLE = "Pass a list of dicts, [{3: 4.5, 7: 2.0}]."


def ids_in(values: Iterable[Any], where: str) -> np.ndarray:
    """The ids (n,) of a list, by the rule of columns: whole numbers, also as floats, or texts, and no truth values.

    Raises
    ------
    DataError
        If it holds something else.
    """
    values = values if isinstance(values, np.ndarray) and values.ndim == 1 else list(values)
    odd = () if isinstance(values, np.ndarray) else (bool, np.bool_, bytes, Mapping, Set, list, tuple, np.ndarray)
    first = next((value for value in values if isinstance(value, odd)), None) if odd else None
    if first is not None:
        raise DataError(
            "ids must be whole numbers or texts, all of one kind",
            f"{where} has {first!r:.80}",
            "Pass a flat list of them.",
        )
    return ids_of(array_of(values), where)


def ones_of(matrix: Any) -> Any:
    """A CSR matrix with ones, float32, for what it stores."""
    return sparse.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), matrix.shape)


def normalised(matrix: Any) -> tuple[Any, np.ndarray]:
    """Which interactions there are, D_u^-1/2 X D_i^-1/2 with the users' and items' numbers of them; and D_i^-1/2."""
    seen = ones_of(matrix)
    users, items = (np.maximum(np.asarray(seen.sum(axis), np.float32).ravel(), 1) ** -0.5 for axis in (1, 0))
    seen.data *= items[seen.indices]
    seen.data *= np.repeat(users, np.diff(seen.indptr))
    return seen, items


def csr_of(X: Any) -> Any:
    """A matrix (users, items) of finite numbers as CSR, whose places are its own: what X was may change."""
    door.refuse_collections(X)
    if not (sparse.issparse(X) or hasattr(X, "ndim")):  # lists of lists are histories, wherever they are given
        raise DataError(
            "interactions must be a sparse matrix (users, items) of numbers, or a frame with a row for each of them",
            f"they are of type {type(X).__name__}",
            "Pass numpy.array(X), if its rows are users and its columns are items.",
        )
    door.check_sparse(X)
    try:
        X = X if sparse.issparse(X) else np.asarray(door.as_array(X))
    except DataError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # of the X of another library
        X = np.array(f"{type(X).__name__} ({error!r:.60})", dtype=object)
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise DataError(
            "interactions must be a sparse matrix (users, items) of numbers, or a frame with a row for each of them",
            f"they are of type {type(X).__name__}, shape {X.shape} and dtype {X.dtype}",
            "Build one: scipy.sparse.csr_matrix((values, (users, items))).",
        )
    if X.dtype == bool:
        X = sparse.csr_matrix(X, copy=True)
        X.sum_duplicates()  # where True comes twice it is True, and not 2
    matrix = sparse.csr_matrix(X if X.dtype in (np.float32, np.float64) else X.astype(np.float64), copy=False)
    if not np.isfinite(matrix.data).all():
        raise DataError("interactions must be finite numbers", "some are not", "Set them, or leave them out.")
    data = matrix.data if matrix.has_canonical_format else matrix.data.astype(np.float64)  # which will be summed
    return sparse.csr_matrix((data, matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)


def _single(values: np.ndarray) -> np.ndarray:
    """Values in float32, in which they are kept, and in which 4.1 is the same number wherever it comes from."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def is_frame(X: Any) -> bool:
    """Whether X is a data frame."""
    return isinstance(door.opened(X), nw.DataFrame)


def is_matrix(X: Any) -> bool:
    """Whether X is a matrix with a row for each user: sparse, or an array of two axes that does not hold texts."""
    if sparse.issparse(X):
        return True
    if getattr(X, "ndim", 0) < 2 or is_frame(X):
        return False
    values = np.asarray(X)
    return not (values.dtype.kind in "OUT" and all(isinstance(value, str) for value in values.flat))


def _cell(matrix: Any, i: int) -> str:
    """The place of the i-th stored value of a CSR matrix."""
    return f"row {np.searchsorted(matrix.indptr, i, side='right') - 1}, column {matrix.indices[i]}"


def _like(matrix: Any, data: np.ndarray) -> Any:
    matrix = sparse.csr_matrix((data, matrix.indices, matrix.indptr), matrix.shape)
    matrix.sort_indices()
    return matrix


def listed(ids: Sequence[Any]) -> str:
    """The first few ids as words."""
    return ", ".join(map(repr, list(ids)[:3])) + (", ..." if len(ids) > 3 else "")
