"""Metrics of recommendations, with unambiguous names, and standard errors over users."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy import stats

from elbowroom.data import validation
from elbowroom.data.interactions.matrix import Interactions, ones_of
from elbowroom.data.interactions.splits import Fold
from elbowroom.errors import DataError, ParameterError, counted, unknown, warn
from elbowroom.utils.randomness import normal_by_row

METRIC = re.compile(r"([a-z_]+)@([1-9][0-9]*)(?:\[([a-z]+)\])?")
USUAL = ("recall@20[plain]", "recall@20[min]", "ndcg@20", "ndcg@100", "coverage@20", "popularity@20")


class Ranks(Protocol):
    """A model that can be evaluated: it ranks items for users, given their histories."""

    def rank(self, histories: Any, n: int) -> np.ndarray:
        """Positions (users, n) of the n best items that are not in CSR histories (users, items); -1 for none."""


@runtime_checkable
class Expects(Ranks, Protocol):
    """A model that predicts ratings."""

    def expect(self, histories: Any, wanted: Any) -> np.ndarray:
        """Expected ratings (m,) of the entries of CSR rows `wanted` (users, items), given CSR histories."""


@dataclass(frozen=True)
class Ranking:
    """Users' ranked lists, with their hits.

    Parameters
    ----------
    hits : bool array (users, n)
        Whether the item at each place of a user's list is held out.
    n_held_out : array (users,)
        The number of held-out items.
    lists : int array (users, n)
        The lists, as positions of items.
    popularity : array (items,)
        The share of users who have an item.
    """

    hits: np.ndarray
    n_held_out: np.ndarray
    lists: np.ndarray
    popularity: np.ndarray


def recall_plain(ranking: Ranking, k: int) -> np.ndarray:
    """The share of a user's held-out items that are among the first k."""
    return ranking.hits[:, :k].sum(1) / ranking.n_held_out


def recall_min(ranking: Ranking, k: int) -> np.ndarray:
    """The same divided by the maximum, min(k, held-out items) (Liang et al. 2018)."""
    return ranking.hits[:, :k].sum(1) / np.minimum(k, ranking.n_held_out)


def precision(ranking: Ranking, k: int) -> np.ndarray:
    """The share of the first k that are held-out items."""
    return ranking.hits[:, :k].mean(1)


def hit(ranking: Ranking, k: int) -> np.ndarray:
    """Whether any of the first k is a held-out item."""
    return ranking.hits[:, :k].any(1).astype(float)


def ndcg(ranking: Ranking, k: int) -> np.ndarray:
    """Discounted cumulative gain, divided by the ideal one, also truncated at k (binary relevance)."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], discount.cumsum()])
    return ranking.hits[:, :k] @ discount / ideal[np.minimum(k, ranking.n_held_out.astype(int))]


def reciprocal_rank(ranking: Ranking, k: int) -> np.ndarray:
    """The reciprocal rank of the first held-out item, 0 if none is among the first k."""
    first = ranking.hits[:, :k].argmax(1)
    return np.where(ranking.hits[:, :k].any(1), 1 / (1 + first), 0.0)


def popularity(ranking: Ranking, k: int) -> np.ndarray:
    """Mean popularity of the first k, the share of users who have them: a measure of popularity bias."""
    lists = ranking.lists[:, :k]
    return np.where(lists >= 0, ranking.popularity[lists], 0.0).mean(1)


def rmse(errors: np.ndarray, starts: np.ndarray) -> float:
    """The root of the mean squared error of all held-out ratings (m,); those of user u begin at starts[u]."""
    return float(np.sqrt(np.mean(errors**2)))


def mae(errors: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The mean absolute error of each user's held-out ratings."""
    return np.add.reduceat(np.abs(errors), starts[:-1]) / np.diff(starts)


def coverage(ranking: Ranking, k: int) -> float:
    """The share of all items that are in any user's first k."""
    lists = ranking.lists[:, :k]
    return len(np.unique(lists[lists >= 0])) / len(ranking.popularity)


def evaluate(model: Ranks, fold: Fold, metrics: str | Sequence[str] | None = None, batch: int = 4096) -> Evaluation:
    """Recommend to the users of a fold and compare with their held-out items.

    Warns if the model was trained on the held-out items. Held-out items that are also in the history, which are never
    recommended, are ignored with a warning.

    Parameters
    ----------
    model : InteractionVAE, Popularity, ItemKNN, EASE, RatingMeans, or anything with their `rank`
        `rank` returns for each user as many different positions of items as requested, none of them in the history;
        -1 if there are no more.
    fold : Fold
        Such as `split.valid` for choosing settings, and `split.test` once, at the end.
    metrics : str or sequence of str, optional
        NAME@K, with K at most the number of items, and for recall its definition: "recall@20[plain]", "recall@20[min]",
        "ndcg@100", "precision@10", "hit@10", "reciprocal_rank@10", "coverage@20", "popularity@20". For ratings also
        "rmse" and "mae". By default, the usual metrics with K limited to the number of items.

    Returns
    -------
    Evaluation
        Without users that have no held-out items.

    Raises
    ------
    ParameterError
        If a metric is unknown or for ratings that the model does not predict, or K is larger than the number of items.
    DataError
        If there are no held-out items, or `rank` returns something else.
    """
    if not isinstance(fold, Fold):
        raise DataError("a model is evaluated on a Fold", f"it is of type {type(fold).__name__}", "Write split.test.")
    metrics, parsed = _parsed(metrics, fold.held_out.shape[1])
    fold = _without_known(fold)
    users = np.flatnonzero(np.diff(fold.held_out.indptr))
    if not len(users):
        raise DataError("a fold must have held-out items", "it has none", "Cut it with a larger share.")
    held_out, values = fold.held_out[users], {}
    if parsed:
        longest = max(k for _, k in parsed.values())
        parts = _parts(users, validation.positive("batch", batch))
        lists = np.concatenate([_ranked(model, fold.fold_in[part], longest) for part in parts])
        popular = np.asarray((fold.fold_in != 0).mean(0)).ravel()
        ranking = Ranking(_hits(held_out, lists), np.diff(held_out.indptr), lists, popular)
        values = {name: np.asarray(metric(ranking, k)) for name, (metric, k) in parsed.items()}
    if any(name in ERRORS for name in metrics):
        errors = _expected(model, fold.fold_in[users], held_out) - held_out.data
        values |= {name: np.asarray(ERRORS[name](errors, held_out.indptr)) for name in metrics if name in ERRORS}
    known = getattr(model, "known_", None)
    if isinstance(known, Interactions) and trained_on(fold, known.matrix):
        warn(TRAINED_ON, 2)
    return Evaluation({name: values[name] for name in metrics}, users)


def _without_known(fold: Fold) -> Fold:
    """A fold without held-out items that are also in the history."""
    known = fold.held_out.multiply(ones_of(fold.fold_in)).tocsr()
    if not known.nnz:
        return fold
    user = int(np.flatnonzero(np.diff(known.indptr))[0])
    warn(
        f"{counted(known.nnz, 'held-out interaction is', 'held-out interactions are')} also in the "
        f"history, and left out: they are never recommended (first: user {user}, item {known[user].indices[0]})",
        3,
    )
    return Fold(fold.fold_in, fold.held_out - known)


def _parsed(
    metrics: str | Sequence[str] | None, items: int
) -> tuple[list[str], dict[str, tuple[Callable[[Ranking, int], Any], int]]]:
    """The names of metrics, and K of those of lists."""
    names = [metrics] if isinstance(metrics, str) else fitting(USUAL, items) if metrics is None else metrics
    if not isinstance(names, Iterable) or not (names := list(names)):
        raise ParameterError("metrics must be names, at least one", f"they are {metrics!r}", "Write ['ndcg@20'].")
    parsed = {name: metric_of(name) for name in names if name not in ERRORS}
    for name, (_, k) in parsed.items():
        if k > items:
            raise ParameterError(
                "a metric must have at most as many places as there are items",
                f"{name} has {k:,}, and there are {counted(items, 'item')}",
                f"Write {_of_places(name, items)}.",
            )
    return names, parsed


def fitting(metrics: Iterable[str], items: int) -> list[str]:
    """Metrics with K limited to the number of items, without duplicates."""
    return list(dict.fromkeys(_of_places(name, items) for name in metrics))


def _of_places(name: str, most: int) -> str:
    return re.sub(r"(?<=@)[0-9]+", lambda match: str(min(int(match[0]), most)), name)


def _ranked(model: Ranks, fold_in: Any, n: int) -> np.ndarray:
    """A model's lists for users with CSR histories, checked: (users, n)."""
    if not callable(getattr(model, "rank", None)):
        raise ParameterError(
            "a model must have rank(histories, n)",
            f"it is of type {type(model).__name__}",
            "See help(elbowroom.evaluate).",
        )
    given, (users, items) = model.rank(fold_in, n), fold_in.shape
    try:
        lists = np.asarray(given)
    except ValueError:  # lists of different lengths
        lists = np.asarray(None)
    if lists.shape != (users, n) or lists.dtype.kind not in "iu":
        got = f"of type {type(given).__name__}, shape {lists.shape} and dtype {lists.dtype}"
        raise _no_ranking(f"be whole numbers of shape ({users}, {n})", f"they are {got}")
    lists = lists.astype(np.int64)
    if ((lists < -1) | (lists >= items)).any():
        first = lists[(lists < -1) | (lists >= items)][0]
        raise _no_ranking(f"be from 0 to {items - 1}, or -1 for none", f"there is {first}")
    ordered = np.sort(lists, 1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        raise _no_ranking("be different in each list", f"{ordered[:, 1:][twice][0]} comes more than once in a list")
    again = _hits(fold_in, lists)
    if again.any():
        raise _no_ranking("be of items that are not in the history", f"{lists[again][0]} is in its user's history")
    return lists


def _no_ranking(expected: str, got: str) -> DataError:
    return DataError(f"the positions that rank returns must {expected}", got, "Correct the model's rank.")


TRAINED_ON = (
    "most of these users were in training with their held-out items: the metrics measure memorisation, "
    "not recommendation to new users"
)


def trained_on(fold: Fold, train: Any) -> bool:
    """Whether most of a fold was in the training rows, a CSR matrix (rows, items).

    This is so if nearly all held-out items are in the same rows of the training matrix, or if most users, with both
    their folded-in and held-out items, are training rows. As many users may have the same few items, only users whose
    items at most one training row has are counted. Most new users then match no row: the ratio of users without a match
    to users with one is that of unique rows to rows with one duplicate (Good 1953).
    """
    if fold.fold_in.shape[1] != train.shape[1]:
        return False
    if fold.held_out.shape == train.shape and fold.held_out.multiply(train != 0).nnz > 0.9 * fold.held_out.nnz:
        return True
    some = np.flatnonzero(np.diff(fold.held_out.indptr))
    keys, count = np.unique(_keys(train), return_counts=True)
    asked = _keys((fold.fold_in + fold.held_out)[some])
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    times = np.where(keys[at] == asked, count[at], 0)
    return bool((times == 1).sum() > (times == 0).sum())


def _keys(matrix: Any) -> np.ndarray:
    """A hash of the stored positions of each row."""
    return normal_by_row(ones_of(matrix), 1, 1).ravel()


def _expected(model: Ranks, fold_in: Any, held_out: Any) -> np.ndarray:
    if not isinstance(model, Expects):
        raise ParameterError(
            "errors need a model of ratings",
            f"it is of type {type(model).__name__}",
            "Use metrics of its lists.",
        )
    if (held_out.data == 1).all():
        raise DataError(
            "errors of ratings need held-out ratings",
            "all held-out values are 1",
            "Split with reading=Reading(ratings=True, ...).",
        )
    return model.expect(fold_in, held_out)


def gain(model: Ranks, fold: Fold, metric: str) -> float:
    """A metric with errors negated, so that higher is better."""
    return evaluate(model, fold, [metric])[metric] * (-1 if metric in ERRORS else 1)


def _parts(users: np.ndarray, batch: int) -> list[np.ndarray]:
    return [users[start : start + batch] for start in range(0, len(users), batch)]


def _hits(held_out: Any, lists: np.ndarray) -> np.ndarray:
    row = np.repeat(np.arange(len(lists)), lists.shape[1])
    values = np.asarray(held_out[row, np.maximum(lists, 0).ravel()]).reshape(lists.shape)
    return (values != 0) & (lists >= 0)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a recommender on a fold: by user, and their means with standard errors over users."""

    values: Mapping[str, np.ndarray]
    users: np.ndarray

    def __getitem__(self, metric: str) -> float:
        """The mean of a metric over users."""
        if metric not in self.values:
            raise unknown("a metric of this evaluation", metric, self.values)
        return float(self.values[metric].mean())

    def standard_error(self, metric: str) -> float:
        """The standard error of the mean over users; NaN for metrics without a value for each user."""
        if metric not in self.values:
            raise unknown("a metric of this evaluation", metric, self.values)
        values = self.values[metric]
        return float(values.std(ddof=1) / math.sqrt(len(values))) if values.ndim and len(values) > 1 else math.nan

    def compare(self, other: Evaluation, metric: str) -> Comparison:
        """The paired difference to another recommender on the same users."""
        if metric not in self.values or metric not in other.values:
            raise unknown("a metric of both evaluations", metric, set(self.values) & set(other.values))
        if not np.array_equal(self.users, other.users) or not self.values[metric].ndim:
            raise DataError(
                "a paired comparison needs a metric by user, and the same users",
                "these are of different ones" if self.values[metric].ndim else f"{metric} has one value for all",
                "Evaluate both on the same fold.",
            )
        difference = self.values[metric] - other.values[metric]
        spread = difference.std(ddof=1)
        mean, n = float(difference.mean()), len(difference)
        if spread > 0:
            p_value = float(stats.ttest_1samp(difference, 0.0).pvalue)
        else:  # all differences are equal: a sign test, in which 2 of 2^n sign patterns are as extreme
            p_value = min(1.0, 2.0 ** (1 - n)) if mean else 1.0
        return Comparison(mean, float(spread / math.sqrt(n)), p_value)

    def columns(self) -> dict[str, list[Any]]:
        """The table as columns: metric, mean, standard_error."""
        names = list(self.values)
        return {
            "metric": names,
            "mean": [self[name] for name in names],
            "standard_error": [self.standard_error(name) for name in names],
        }

    def __str__(self) -> str:
        rows = zip(*self.columns().values(), strict=True)
        lines = [f"{name:<20} {mean:8.4f}" + ("" if math.isnan(se) else f" +- {se:.4f}") for name, mean, se in rows]
        return "\n".join([counted(len(self.users), "user"), *lines])


@dataclass(frozen=True)
class Comparison:
    """A paired difference of means over users, its standard error, and the p-value of a paired t-test.

    If all users have the same difference, and so no variance for a t-test, the p-value is that of a sign test.
    """

    difference: float
    standard_error: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.difference:+.4f} +- {self.standard_error:.4f} (p = {self.p_value:.2g})"


def metric_of(name: str) -> tuple[Callable[[Ranking, int], Any], int]:
    """Parse a metric's name into the metric and its K."""
    match = METRIC.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise ParameterError("a metric is written NAME@K", f"it is {name!r}", "Write ndcg@20; of ratings, rmse or mae.")
    key = match[1] + (f"[{match[3]}]" if match[3] else "")
    if key == "recall":
        raise ParameterError(
            "recall has two definitions, recall@K[plain] and recall@K[min]",
            f"{name!r} does not name one",
            "[plain] divides by the held-out items, [min] by at most K of them.",
        )
    if key in ERRORS:
        raise ParameterError("errors are over all held-out ratings, and have no K", f"it is {name!r}", f"Write {key}.")
    if key not in METRICS:
        raise unknown("a metric", key, METRICS)
    return METRICS[key], int(match[2])


ERRORS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {"rmse": rmse, "mae": mae}
METRICS: dict[str, Callable[[Ranking, int], Any]] = {
    "recall[plain]": recall_plain,
    "recall[min]": recall_min,
    "precision": precision,
    "hit": hit,
    "ndcg": ndcg,
    "reciprocal_rank": reciprocal_rank,
    "popularity": popularity,
    "coverage": coverage,
}
