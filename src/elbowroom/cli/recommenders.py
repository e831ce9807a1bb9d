"""What the commands for recommenders do: lists of items for users, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import elbowroom
from elbowroom.cli.console import Answer, listed
from elbowroom.cli.models import check_not_input, data_for, trained, users_of
from elbowroom.cli.runs import shown
from elbowroom.data.interactions.ids import array_of, is_text
from elbowroom.data.interactions.splits import cut
from elbowroom.data.io.readers import Data
from elbowroom.data.io.writers import check_output, check_table, write_columns
from elbowroom.data.words import CANONICAL
from elbowroom.errors import ArtefactError, DataError, ParameterError, counted, warn
from elbowroom.tasks.recommend import lists as task
from elbowroom.tasks.recommend.baselines import side_by_side
from elbowroom.tasks.recommend.metrics import ERRORS, TRAINED_ON, USUAL, Evaluation, fitting, metric_of, trained_on

SHOWN = 5  # users whose lists are printed


def recommend(
    model: str, file: str | None, n: int, out: str | None, users: Sequence[str], again: bool, beta: float | None
) -> Answer:
    """Lists of items for users of a file, or for known ones."""
    if out is not None:
        check_output(out, images=False)
        check_table(out)
    estimator = opened(model, beta)
    ids, histories = _users(estimator, file, out, users)
    most = min(n, len(estimator.items_))
    items, scores = estimator.recommend(histories, N=most, filter_already_liked_items=not again)
    if few := int(((~np.isfinite(scores)).any(1) | (most < n)).sum()):
        warn(f"{counted(few, 'user has', 'users have')} fewer than {n} items left to recommend", 2)
    columns = lists_as_columns(ids, items, scores)
    facts = {"model": model, "users": len(ids), "n": n, "out": out}
    if out is None:
        first = [(str(user), ", ".join(map(str, row))) for user, row in zip(ids[:SHOWN], items, strict=False)]
        more = (
            f"\n... and {len(ids) - SHOWN:,} more; write them all with --out lists.parquet" if len(ids) > SHOWN else ""
        )
        facts["lists"] = {name: column.tolist() for name, column in columns.items()}
        return Answer(facts, listed([("user", "items"), *first]) + more)
    write_columns(out, columns)
    made = counted(len(columns["item"]), "item")
    return Answer(facts, f"wrote {made} for {counted(len(ids), 'user')} to {shown(Path(out))}")


def _users(estimator: Any, file: str | None, out: str | None, users: Sequence[str]) -> tuple[np.ndarray, Any]:
    """The ids of users, and what `recommend` is asked."""
    if file is not None:
        check_not_input(out, file)
        if users:
            raise ParameterError(
                "--user names users that the model knows", f"{file} has users too", "Leave out one of them."
            )
        data, rows = data_for(estimator, file)
        ids = users_of(estimator, data)
        return (np.arange(rows.shape[0]) if ids is None else ids), rows
    known = estimator.users_
    ids = known if not users else array_of(users) if is_text(known) else np.array([_number(user) for user in users])
    return ids, ids


def _number(user: str) -> int:
    if CANONICAL.fullmatch(user) and int(user) < 2**64:
        return int(user)
    raise ParameterError("the users of this model are whole numbers", f"{user!r} is none", "Correct --user.")


def lists_as_columns(users: np.ndarray, items: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """A row for each recommended item: user, item, rank, score."""
    there = np.isfinite(scores)
    rank = np.broadcast_to(np.arange(1, items.shape[1] + 1), items.shape)
    return {
        "user": np.repeat(users, there.sum(1)),
        "item": items[there],
        "rank": rank[there],
        "score": scores[there],
    }


def new_histories(estimator: Any, n: int, out: str, random_state: int | None) -> Answer:
    """Write the histories of users that the model makes up: a row for each interaction."""
    check_table(out)
    drawn = estimator.sample(n, random_state=random_state).tocoo()
    columns = {estimator.user or "user": drawn.row, estimator.item or "item": estimator.items_[drawn.col]}
    if estimator.value or estimator.counts:  # so that the model reads what it wrote
        value = drawn.data if estimator.counts else np.full(len(drawn.data), estimator.reading.least)
        columns[estimator.value or "value"] = value
    write_columns(out, columns)
    facts = {"out": out, "users": n, "interactions": len(drawn.data)}
    return Answer(
        facts, f"wrote {counted(len(drawn.data), 'interaction')} of {counted(n, 'new user')} to {shown(Path(out))}"
    )


def evaluate(model: str, file: str, fold_in: float, metrics: Sequence[str], known: bool, beta: float | None) -> Answer:
    """How good lists are, beside the baselines."""
    for metric in metrics:
        if metric not in ERRORS:
            metric_of(metric)
    estimator = opened(model, beta)
    data, _ = data_for(estimator, file)
    fold, about = _of_known(estimator, data) if known else _of_new(estimator, data, fold_in)
    _check_some(fold)
    metrics = fitting(metrics, fold.fold_in.shape[1]) if tuple(metrics) == USUAL else metrics
    found, _, chosen = side_by_side(estimator, fold, metrics)
    facts = {
        "model": model,
        "users": len(next(iter(found.values())).users),
        "protocol": about,
        "baselines": chosen,
        "metrics": {name: evaluation.columns() for name, evaluation in found.items()},
    }
    return Answer(facts, f"{about}\n{chosen}\n\n{table(found)}")


def _of_new(estimator: Any, data: Data, fold_in: float) -> tuple[elbowroom.Fold, str]:
    if not 0 < fold_in < 1:
        raise ParameterError("--fold-in must be a share between 0 and 1", f"it is {fold_in}", "Write --fold-in 0.8.")
    histories = task.histories(data.x, estimator.known_, estimator.reading)[0]
    fold = elbowroom.Fold(*cut(histories, 1 - fold_in, np.random.default_rng(0), 1))
    ids = users_of(estimator, data)
    if ids is not None:
        known = estimator.known_
        nobody = sparse.csr_matrix((1, len(known.items)))
        rows = sparse.vstack([known.matrix, nobody]).tocsr()[known.users.positions(ids)]  # of -1 the last one
        if trained_on(fold, rows):
            warn(TRAINED_ON, 2)
    return fold, f"{counted(len(fold), 'user')}, {fold_in:.0%} of their interactions folded in, the others held out"


def _check_some(fold: elbowroom.Fold) -> None:
    """Refuse a fold without held-out interactions, and say why."""
    if not fold.held_out.nnz:
        raise DataError(
            "there must be held-out interactions, of items that the model knows and that are not in the history",
            "the file has none",
            "Give it new interactions.",
        )


def _of_known(estimator: Any, data: Data) -> tuple[elbowroom.Fold, str]:
    users = users_of(estimator, data)
    if users is None:
        raise ParameterError(
            "--known needs ids of users", "the file is a matrix", "Give it a row for each interaction."
        )
    held_out = task.histories(data.x, estimator.known_, estimator.reading)[0]
    fold_in = task.histories(users, estimator.known_, estimator.reading)[0]
    new = held_out - held_out.multiply(fold_in != 0)
    new.eliminate_zeros()
    return elbowroom.Fold(fold_in, new.tocsr()), f"{counted(len(users), 'known user')}, new interactions held out"


def table(found: dict[str, Evaluation]) -> str:
    """Evaluations side by side: a row for each recommender, and what the first one is ahead of."""
    first = next(iter(found.values()))
    width = max(map(len, found))
    lines = [" " * width + "".join(f"{metric:>22}" for metric in first.values)]
    for name, evaluation in found.items():
        cells = [f"{evaluation[metric]:.4f}" + _error(evaluation.standard_error(metric)) for metric in first.values]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    by_user = next((metric for metric, values in first.values.items() if values.ndim), None)
    ahead = [
        f"{next(iter(found))} - {name}, {by_user}, paired: {first.compare(other, by_user)}"
        for name, other in list(found.items())[1:]
        if by_user is not None
    ]
    return "\n".join([*lines, "", *ahead])


def _error(error: float) -> str:
    return "" if np.isnan(error) else f" +- {error:.4f}"


def opened(model: str, beta: float | None) -> Any:
    """A saved recommender, perhaps at one beta of its range.

    Raises
    ------
    ArtefactError
        If the model is another one.
    """
    found = trained(model)
    estimator = found.at(beta) if beta is not None else found
    if not isinstance(estimator, elbowroom.InteractionVAE):
        raise ArtefactError(
            "recommendations need a model of interactions",
            f"{model} is of the kind {type(estimator).__name__}",
            "Train one: elbowroom fit FILE --kind interactions --out MODEL",
        )
    return estimator
