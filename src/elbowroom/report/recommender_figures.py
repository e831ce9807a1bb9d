"""Figures and tables of recommendations: metrics and baselines, popularity, users with their lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from elbowroom.report.style import DATA, MODEL, MUTED, Figure, log_axis, new_figure, short, styled
from elbowroom.tasks.recommend.metrics import Evaluation

DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class User:
    """A user in a report: the history that was folded in, and the list, with which of its items were held out."""

    history: Sequence[str]
    items: Sequence[tuple[str, bool]]
    missed: Sequence[str]


@dataclass(frozen=True)
class Recommended:
    """Recommendations in a report.

    Parameters
    ----------
    protocol : str
        The users and the method of the evaluation.
    evaluations : mapping of str to Evaluation
        Evaluations by name of the recommender; the first one is the model.
    popularity : mapping of str to array (items,)
        By the same names, the number of lists with each item; items are in the order of their popularity in training.
    n_interactions : array (items,)
        The number of training interactions of each item, in the same order.
    users : sequence of User
    metric, betas, values, errors
        The values of a metric at the betas of a range, with standard errors; empty for a model of one beta.
    """

    protocol: str
    evaluations: Mapping[str, Evaluation]
    popularity: Mapping[str, np.ndarray]
    n_interactions: np.ndarray
    users: Sequence[User]
    metric: str = ""
    betas: Sequence[float] = ()
    values: Sequence[float] = ()
    errors: Sequence[float] = ()

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return list(next(iter(self.evaluations.values())).values)

    def table(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """For each recommender, its name, and the metrics with their errors as strings."""
        return [
            (name, [(f"{evaluation[m]:.4f}", _error(evaluation.standard_error(m))) for m in self.metrics])
            for name, evaluation in self.evaluations.items()
        ]

    def ahead(self) -> list[str]:
        """Paired comparisons of the model with the others, by the first metric with a value for each user."""
        (model, first), *others = self.evaluations.items()
        metric = next((m for m in self.metrics if first.values[m].ndim), None)
        if metric is None:
            return []
        return [
            f"{model} − {name}, {metric}, paired: {first.compare(other, metric)}".replace("+-", "±")
            for name, other in others
        ]


def _error(error: float) -> str:
    return "" if math.isnan(error) else f"± {error:.4f}"


@styled
def popularity_curves(recommended: Recommended) -> Figure:
    """Draw the share of all recommendations that are of the most popular items, and that of the interactions."""
    figure = new_figure(300)
    axes = figure.add_subplot(xlabel="items, most popular first", ylabel="share of all recommendations")
    rank = np.arange(1, len(recommended.n_interactions) + 1)
    axes.plot(rank, _share(recommended.n_interactions), color=DATA, lw=1.8, label="interactions")
    for (name, counts), dash in zip(recommended.popularity.items(), DASHES, strict=False):
        color = MODEL if dash == "-" else MUTED
        axes.plot(rank, _share(counts), dash, color=color, lw=1.8, label=short(name))
    log_axis(axes, axes.xaxis)
    axes.set(ylim=(0, 1.02))
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    return figure


def _share(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) / max(1, counts.sum())


@styled
def metric_over_beta(recommended: Recommended) -> Figure:
    """Draw a metric over the betas of a range, with standard errors."""
    figure = new_figure(260)
    axes = figure.add_subplot(xlabel="beta", ylabel=recommended.metric)
    axes.errorbar(recommended.betas, recommended.values, recommended.errors, color=MODEL, lw=1.8, marker="o", ms=4)
    log_axis(axes, axes.xaxis)
    axes.grid(axis="y")
    return figure
