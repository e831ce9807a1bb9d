"""What a report shows of a recommender, on users that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elbowroom.data.dataset import evenly
from elbowroom.data.interactions.splits import Fold, cut
from elbowroom.errors import counted
from elbowroom.estimators.reporting import MAPPED, SCORED, SHOWN_BETAS, held_out_name, latent_map, remark, trajectory
from elbowroom.persistence.card import facts
from elbowroom.report.page import Number, Report
from elbowroom.report.recommender_figures import Recommended, User
from elbowroom.tasks.curve import betas_of
from elbowroom.tasks.recommend.baselines import side_by_side
from elbowroom.tasks.recommend.metrics import TRAINED_ON, evaluate, fitting, trained_on

METRICS = ("ndcg@10", "recall@20[plain]", "recall@20[min]", "coverage@20", "popularity@20")
FOLDED, LONGEST, SHOWN_USERS, SHOWN_ITEMS = 5000, 20, 8, 10


def summarise_lists(estimator: Any, X: Any) -> Report:
    """The report of a fitted recommender on a `Fold`, or on interactions, of which a fifth is then held out."""
    fold, protocol = fold_of(estimator, X)
    some = evenly(len(fold), FOLDED).numpy()
    fold = Fold(fold.fold_in[some], fold.held_out[some])
    rows = fold.fold_in[evenly(len(fold), SCORED).numpy()]
    diagnosis = estimator.diagnose(rows)
    mapped = fold.fold_in[evenly(len(fold), MAPPED).numpy()]
    points, axes = latent_map(estimator.transform(mapped))
    metrics = fitting(METRICS, fold.fold_in.shape[1])
    recommended = _recommended(estimator, fold, protocol, metrics)
    nothing = np.empty((0, 0))
    return Report(
        title=type(estimator).__name__,
        facts={"users": f"{len(fold):,}", **facts(estimator)},
        numbers=_numbers(recommended, diagnosis),
        verdict=diagnosis.verdict,
        healthy=diagnosis.trained and diagnosis.healthy,
        history=trajectory(estimator),
        rate_per_latent=diagnosis.rate_per_latent,
        active=diagnosis.active,
        originals=nothing,
        reconstructions=nothing,
        samples=nothing,
        latent_map=points,
        latent_axes=axes,
        labels=np.diff(mapped.indptr).clip(max=20),
        label_name="items in the history (20 and more alike)",
        notes=estimator.history_.notes,
        training_remark=remark(estimator.beta_),
        held_out_name=held_out_name(estimator.beta_),
        recommended=recommended,
    )


def fold_of(estimator: Any, X: Any) -> tuple[Fold, str]:
    """A fold, and what it is in words."""
    if isinstance(X, Fold):
        return X, f"{counted(len(X), 'user')}, as the fold has them"
    fold_in, held_out = cut(estimator._read(X, reset=False), 0.2, np.random.default_rng(0), 1)
    return Fold(fold_in, held_out), f"{counted(fold_in.shape[0], 'user')}, a fifth of their interactions held out"


def _recommended(estimator: Any, fold: Fold, protocol: str, metrics: Sequence[str]) -> Recommended:
    train = estimator.known_.matrix
    found, others, chosen = side_by_side(estimator, fold, metrics)
    if trained_on(fold, train):
        protocol += ". " + TRAINED_ON[0].upper() + TRAINED_ON[1:]
    n_interactions = np.asarray((train != 0).sum(0)).ravel()
    order = np.argsort(-n_interactions, kind="stable")
    n = min(LONGEST, train.shape[1])
    lists = {type(estimator).__name__: estimator.rank(fold.fold_in, n)}
    lists |= {type(other).__name__: other.rank(fold.binary.fold_in, n) for other in others}
    popularity = {
        name: np.bincount(found[found >= 0], minlength=len(n_interactions))[order]
        for name, found in lists.items()
        if name != "ItemKNN"
    }
    users = _users(estimator, fold, next(iter(lists.values())))
    over_beta = _over_beta(estimator, fold, metrics[0])
    return Recommended(f"{protocol}. {chosen}", found, popularity, n_interactions[order], users, *over_beta)


def _users(estimator: Any, fold: Fold, lists: np.ndarray) -> list[User]:
    """Some users with a history and held-out interactions."""
    able = np.flatnonzero((np.diff(fold.fold_in.indptr) > 0) & (np.diff(fold.held_out.indptr) > 0))
    names = estimator.items_
    users = []
    for user in able[evenly(len(able), SHOWN_USERS).numpy()]:
        fold_in, held_out = (matrix[[user]].indices for matrix in (fold.fold_in, fold.held_out))
        shown = lists[user, :SHOWN_ITEMS]
        items = [(str(names[item]), bool(item in held_out)) for item in shown if item >= 0]
        missed = [str(names[item]) for item in held_out if item not in shown]
        users.append(User([str(names[item]) for item in fold_in], items, missed))
    return users


def _over_beta(estimator: Any, fold: Fold, metric: str) -> tuple[Any, ...]:
    if estimator.model_.conditioning is None:
        return ()
    betas = betas_of(estimator.model_, None, SHOWN_BETAS)
    found = [evaluate(estimator.at(beta), fold, [metric]) for beta in betas]
    return metric, betas, [each[metric] for each in found], [each.standard_error(metric) for each in found]


def _numbers(recommended: Recommended, diagnosis: Any) -> list[Number]:
    model = next(iter(recommended.evaluations.values()))
    ndcg, recall, _, coverage, _ = recommended.metrics
    meanings = {
        ndcg: "gain of the first places, over the ideal",
        recall: "share of the held-out items that are recommended",
    }
    best = [
        Number(name, model[name], unit="over users", error=model.standard_error(name), meaning=meaning)
        for name, meaning in meanings.items()
    ]
    return [
        *best,
        Number(coverage, model[coverage], unit="of all items", meaning="are in anybody's list"),
        Number("distortion", diagnosis.distortion, meaning="-log p(x|z): what the latents can not tell about the user"),
        Number("rate", diagnosis.rate, meaning="KL(q(z|x) || p(z)): what the latents tell about the user"),
        Number(
            "active latents", diagnosis.n_active, unit=f"of {len(diagnosis.active)}", meaning="posterior mean varies"
        ),
    ]
