"""The choice of a beta from a range, by what it is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from elbowroom import specs
from elbowroom.errors import DataError, ParameterError

Task = str | Callable[[Any, Any], float]
DRAWS = 100  # of the importance sampling: the order of betas needs no more


def pick(estimator: Any, X: Any, task: Task, betas: Sequence[float], context: Any) -> float:
    """The beta, of those of an estimator's range or of a sweep, that is best for a task on rows X; see `BaseVAE.pick`.

    Raises
    ------
    ParameterError
        If the task is unknown, or a target that the range does not reach.
    DataError
        If no beta has a finite score.
    """
    if not isinstance(task, str) and not callable(task):
        raise ParameterError(
            "task must be a name or a scorer task(model, X)", f"it is {task!r}", "Write task='log_likelihood'."
        )
    if isinstance(task, str):
        return specs.make(task, TASKS, "task", estimator, X, betas, context)
    return _highest(lambda model: task(model, X), estimator, betas)


def log_likelihood(estimator: Any, X: Any, betas: Any, context: Any) -> float:
    """The highest importance-weighted log-likelihood."""
    return _highest(lambda model: model.log_likelihood(X, context=context, n_draws=DRAWS).mean, estimator, betas)


def elbo(estimator: Any, X: Any, betas: Any, context: Any) -> float:
    """The highest evidence lower bound (at beta = 1)."""
    return _highest(lambda model: model.score(X, context=context), estimator, betas)


def rate(estimator: Any, X: Any, betas: Any, context: Any, nats: float) -> float:
    """The beta whose rate is `nats`."""
    return estimator.curve(X, betas, context=context).beta_for_rate(nats)


def distortion(estimator: Any, X: Any, betas: Any, context: Any, nats: float) -> float:
    """The beta whose distortion is `nats`."""
    return estimator.curve(X, betas, context=context).beta_for_distortion(nats)


def knee(estimator: Any, X: Any, betas: Any, context: Any) -> float:
    """The beta where the curve bends most."""
    return estimator.curve(X, betas, context=context).knee()


def _highest(score: Callable[[Any], float], estimator: Any, betas: Sequence[float]) -> float:
    scores = {}
    for beta in betas:
        value = score(estimator.at(beta))
        try:
            scores[beta] = float(value)
        except (TypeError, ValueError):
            raise DataError(
                "a task must score a beta with a number", f"it gave {value!r:.80}", "Correct the scorer."
            ) from None
    finite = {beta: value for beta, value in scores.items() if math.isfinite(value)}
    if not finite:
        raise DataError("a task must score a beta with a finite number", f"it gave {scores}", "Correct the scorer.")
    return max(finite, key=lambda beta: finite[beta])


TASKS: dict[str, Callable[..., float]] = {
    "log_likelihood": log_likelihood,
    "elbo": elbo,
    "rate": rate,
    "distortion": distortion,
    "knee": knee,
}
