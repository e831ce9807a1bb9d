"""The choice of a beta from a range, for a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from elbowroom.errors import DataError, ParameterError, warn
from elbowroom.utils import specs

Task = str | Callable[[Any, Any], float]
DRAWS = 100  # of the importance sampling: enough to rank betas


def pick(estimator: Any, X: Any, task: Task, betas: Sequence[float], context: Any) -> float:
    """The beta, of those of an estimator's range or of a sweep, that is best for a task on rows X; see `BaseVAE.pick`.

    Raises
    ------
    ParameterError
        If the task is unknown, a scorer that does not return a number, or a target outside the range.
    DataError
        If no beta has a finite score.
    """
    if not isinstance(task, str) and not callable(task):
        raise ParameterError(
            "task must be a name or a scorer task(model, X)", f"it is {task!r}", "Write task='log_likelihood'."
        )
    if isinstance(task, str):
        return specs.make(task, TASKS, "task", estimator, X, betas, context)
    return _highest({beta: _number(task(estimator.at(beta), X), beta) for beta in betas})


def log_likelihood(estimator: Any, X: Any, betas: Any, context: Any) -> float:
    """The highest importance-weighted log-likelihood."""
    found = {beta: estimator.at(beta)._log_likelihood(X, context=context, n_draws=DRAWS) for beta in betas}
    best = _highest({beta: each.mean for beta, each in found.items()})
    if found[best].caution:
        warn(f"at beta={best:g} {found[best].caution}", 5)
    return best


def elbo(estimator: Any, X: Any, betas: Any, context: Any) -> float:
    """The highest evidence lower bound (at beta = 1)."""
    return _highest({beta: estimator.at(beta).score(X, context=context) for beta in betas})


def rate(estimator: Any, X: Any, betas: Any, context: Any, nats: float) -> float:
    """The beta whose rate is `nats`."""
    return estimator.curve(X, betas, context=context).beta_for_rate(nats)


def distortion(estimator: Any, X: Any, betas: Any, context: Any, nats: float) -> float:
    """The beta whose distortion is `nats`."""
    return estimator.curve(X, betas, context=context).beta_for_distortion(nats)


def knee(estimator: Any, X: Any, betas: Any, context: Any) -> float:
    """The beta at the knee of the curve."""
    return estimator.curve(X, betas, context=context).knee()


def _highest(scores: dict[float, float]) -> float:
    """The beta with the highest finite score."""
    finite = {beta: value for beta, value in scores.items() if math.isfinite(value)}
    if not finite:
        got = f"none of {len(scores)} did (the first gave {next(iter(scores.values()))})"
        raise DataError("a task must score at least one beta with a finite number", got, "Check the rows.")
    return max(finite, key=lambda beta: finite[beta])


def _number(found: Any, beta: float) -> float:
    """A custom scorer's result, refused if it is not a number; an array of one number is accepted."""
    try:
        value = found.item()  # of NumPy and torch
    except (AttributeError, ValueError, RuntimeError):
        value = found
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        got = f"at beta={beta:g} it gave {found!r:.60}"
        raise ParameterError("task(model, X) must return a finite number, higher is better", got, "Correct the scorer.")
    return float(value)


TASKS: dict[str, Callable[..., float]] = {
    "log_likelihood": log_likelihood,
    "elbo": elbo,
    "rate": rate,
    "distortion": distortion,
    "knee": knee,
}
