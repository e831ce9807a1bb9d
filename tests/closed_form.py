"""The closed form of a linear Gaussian VAE: probabilistic PCA, and reverse water-filling at every beta.

With decoder W z + b and noise sigma^2, the best model at beta is probabilistic PCA with the noise beta * sigma^2
(Tipping & Bishop 1999; Lucas et al. 2019): a direction of the data whose variance lambda is above beta * sigma^2 stays
on, costs 1/2 log(lambda / (beta sigma^2)) nats and leaves the error beta * sigma^2; any other is off, costs nothing
and leaves the error lambda. The best sigma^2 is the mean error, sigma^2 D = a beta sigma^2 + sum of lambda_j over the
D - a directions that are off, so that sigma^2 = sum_off lambda_j / (D - a beta).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine

TABLES = {"wine": load_wine, "breast cancer": load_breast_cancer}
# All rows in one batch: a run of 2,000 steps, about 4 seconds.
SETTINGS: dict[str, Any] = {
    "hidden": (),
    "likelihood": "gaussian:scale=shared",
    "validation_fraction": 0,
    "learning_rate": 0.02,
    "batch_size": 1000,
    "epochs": 2000,
    "random_state": 0,
    "device": "cpu",
}


def table(name: str) -> np.ndarray:
    """Standardised rows."""
    x = TABLES[name]().data
    return (x - x.mean(0)) / x.std(0)


def spectrum_of(x: np.ndarray) -> np.ndarray:
    """Variances of the data's directions, largest first."""
    return np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1]


class Optimum(NamedTuple):
    """The best linear Gaussian model at a beta, in nats per row."""

    active: int
    variance: float
    rate: float
    distortion: float
    loss: float


def optimum(spectrum: np.ndarray, latents: int, beta: float, variance: float | None = None) -> Optimum:
    """The best model with so many latents, over all numbers of active ones; `variance` if sigma^2 is fixed."""
    size, found = len(spectrum), []
    for active in range(latents + 1):
        rest = float(spectrum[active:].sum())
        if variance is None and active * beta >= size:
            break
        noise = variance if variance is not None else rest / (size - active * beta)
        if active and spectrum[active - 1] <= beta * noise:
            break
        rate = 0.5 * float(np.log(spectrum[:active] / (beta * noise)).sum())
        error = active * beta * noise + rest
        distortion = 0.5 * (size * math.log(2 * math.pi * noise) + error / noise)
        found.append(Optimum(active, noise, rate, distortion, distortion + beta * rate))
    return min(found, key=lambda best: best.loss)
