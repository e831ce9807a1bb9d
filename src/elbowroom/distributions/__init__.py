"""Normalised distributions over rows and latents, with log_prob, sample and mean."""

from elbowroom.distributions.base import RowDistribution, gamma, in_units, log_factorial, uniform
from elbowroom.distributions.continuous import ContinuousBernoulli, Gaussian, StudentT, Warped
from elbowroom.distributions.counts import MAX_COUNT, LargeCounts, Multinomial, NegativeBinomial, Poisson
from elbowroom.distributions.discrete import (
    END,
    Bernoulli,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    Ordinal,
    binomial_kernel,
    cutpoints_around,
)
from elbowroom.distributions.mixed import Mixed, Table

__all__ = [
    "END",
    "MAX_COUNT",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "LargeCounts",
    "Mixed",
    "Multinomial",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "RowDistribution",
    "StudentT",
    "Table",
    "Warped",
    "binomial_kernel",
    "cutpoints_around",
    "gamma",
    "in_units",
    "log_factorial",
    "uniform",
]
