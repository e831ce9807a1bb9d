"""The rate-distortion curve over beta, and the beta of a rate or a distortion on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from elbowroom.data.dataset import Rows
from elbowroom.errors import ParameterError
from elbowroom.models.vae import VAE
from elbowroom.tasks.diagnose import ACTIVE
from elbowroom.tasks.generate import posterior_mean
from elbowroom.tasks.score import distortion_and_rate, warn_non_finite

POINTS = 13  # default number of betas of a curve: a quarter of a decade apart in a range of three decades


@dataclass(frozen=True, eq=False)
class Curve:
    """Distortion and rate of the same n rows at k betas, in nats per row; smallest beta first.

    Parameters
    ----------
    betas : array (k,)
    distortions, rates : arrays (k, n)
        Of every row, so that betas can be compared in pairs.
    active : array (k,)
        Active units: latents whose posterior mean varies over the rows.
    """

    betas: np.ndarray
    distortions: np.ndarray
    rates: np.ndarray
    active: np.ndarray

    @property
    def distortion(self) -> np.ndarray:
        """Mean distortion, (k,)."""
        return self.distortions.mean(1)

    @property
    def rate(self) -> np.ndarray:
        """Mean rate, (k,)."""
        return self.rates.mean(1)

    @property
    def elbo(self) -> np.ndarray:
        """Mean evidence lower bound, at beta = 1, of the model of every beta, (k,)."""
        return -(self.distortion + self.rate)

    @cached_property
    def slope(self) -> np.ndarray:
        """dD/dR at every beta, (k,), NaN at both ends and where it is too uncertain; at the optimum it is -beta.

        Between neighbours the slope is that of a secant. If the rate is linear in log beta, the secant of the optimum
        has minus the logarithmic mean of the two betas as its slope; the ratio of both, averaged over the two
        neighbours, is multiplied by -beta. Where the rate hardly changes, as in a collapsed model, a secant divides
        noise by noise: with a standard error above beta it is NaN.
        """
        if len(self.betas) < 3:
            return np.full(len(self.betas), np.nan)
        between = np.diff(self.betas) / np.diff(np.log(self.betas))
        gained, paid = np.diff(self.distortions, axis=0), np.diff(self.rates, axis=0)
        expected = between * paid.mean(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = -gained.mean(1) / expected
        ratios[_error(gained + between[:, None] * paid) > np.abs(expected)] = np.nan
        around = -self.betas[1:-1] * (ratios[1:] + ratios[:-1]) / 2
        return np.concatenate([[np.nan], around, [np.nan]])

    def columns(self) -> dict[str, list[float]]:
        """The curve as columns of numbers; a column ending in _error has standard errors over rows."""
        found = {
            "beta": self.betas,
            "rate": self.rate,
            "rate_error": _error(self.rates),
            "distortion": self.distortion,
            "distortion_error": _error(self.distortions),
            "elbo": self.elbo,
            "elbo_error": _error(self.distortions + self.rates),
            "active": self.active,
            "slope": self.slope,
        }
        return {name: values.tolist() for name, values in found.items()}

    def __str__(self) -> str:
        """The curve as a table."""
        head = f"{'beta':>8} {'rate':>16} {'distortion':>18} {'ELBO':>18} {'active':>7} {'-dD/dR':>8}"
        columns = [np.asarray(values) for values in self.columns().values()]
        lines = [
            f"{b:8.4g} {r:8.2f} +- {re:4.2f} {d:10.2f} +- {de:4.2f} {e:10.2f} +- {ee:4.2f} {a:7.0f} "
            + (f"{-s:8.3g}" if math.isfinite(s) else f"{'':>8}")
            for b, r, re, d, de, e, ee, a, s in zip(*columns, strict=True)
        ]
        return "\n".join([head, *lines])

    # ---- a beta from the curve -------------------------------------------------------------------------------------

    def beta_for_rate(self, nats: float) -> float:
        """The beta at which the rate is `nats`, between the betas of the curve."""
        return self._solve("rate", self.rate, nats, rising=False)

    def beta_for_distortion(self, nats: float) -> float:
        """The beta at which the distortion is `nats`, between the betas of the curve."""
        return self._solve("distortion", self.distortion, nats, rising=True)

    def knee(self) -> float:
        """The beta at the knee of the curve: farthest from the chord between its ends (Satopaa et al. 2011)."""
        rate, distortion = (_unit(values) for values in (self.rate, self.distortion))
        return float(self.betas[np.argmax(1 - rate - distortion)])

    def _solve(self, name: str, values: np.ndarray, nats: Any, rising: bool) -> float:
        """Linear interpolation in log beta of a quantity that rises, or falls, with beta.

        If a model overfits at small betas, the distortion falls before it rises: the larger beta is returned.
        """
        sign = 1 if rising else -1
        order = np.minimum.accumulate(sign * values[::-1])[::-1]
        target = sign * float(nats) if isinstance(nats, Real) else math.nan
        if not order[0] <= target <= order[-1]:
            low, high = sorted(sign * order[[0, -1]])
            raise ParameterError(
                f"a target {name} must be within those of the range, {low:.4g} and {high:.4g} nats",
                f"it is {nats!r}",
                "Ask for less, or train on a wider range.",
            )
        return float(np.exp(np.interp(target, order, np.log(self.betas))))


def _error(values: np.ndarray) -> np.ndarray:
    n = values.shape[1]
    with np.errstate(invalid="ignore"):
        return values.std(1, ddof=1) / math.sqrt(n) if n > 1 else np.full(len(values), np.nan)


def _unit(values: np.ndarray) -> np.ndarray:
    """Values scaled to [0, 1]."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


def curve(models: Mapping[float, VAE], rows: Rows, draws: int = 4) -> Curve:
    """The curve from models by beta, on the same rows.

    The noise of z depends on the row only, so that it is the same at every beta.
    """
    betas = np.sort(np.array([*models], float))
    found, active = [], []
    for beta in betas.tolist():
        found.append(distortion_and_rate(models[beta], rows, draws, apart=True))
        means = posterior_mean(models[beta], rows)
        active.append(int((means.double().var(0, correction=0) > ACTIVE).sum()))
    distortions, rates = (np.stack(parts) for parts in zip(*found, strict=True))
    warn_non_finite((distortions + rates).T, "score at every beta", 4)
    return Curve(betas, distortions, rates, np.array(active))


def betas_of(model: VAE, betas: Sequence[float] | None, points: int = POINTS) -> list[float]:
    """The requested betas, each once, or a grid over the model's range.

    Raises
    ------
    ParameterError
        If the model was not trained on a range, or a beta is outside of it.
    """
    low, high = model.known_conditioning.low, model.known_conditioning.high
    if betas is None:
        return np.geomspace(low, high, points).clip(low, high).tolist()
    try:
        found = np.unique(np.asarray(betas, float).ravel())
    except (TypeError, ValueError):
        found = np.array([])
    if not len(found) or not np.all((found >= low * (1 - 1e-9)) & (found <= high * (1 + 1e-9))):
        raise ParameterError(
            f"betas must be numbers from {low:g} to {high:g}, the range of the model",
            f"they are {betas!r}",
            "Leave them out for a grid over the range.",
        )
    return found.tolist()
