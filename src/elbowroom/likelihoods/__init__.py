"""Likelihoods p(x|z): modules that map a decoder's output to a density of rows. One file per family."""

from elbowroom.likelihoods.base import Likelihood
from elbowroom.likelihoods.continuous import ContinuousBernoulli, Gaussian, LocationScale, StudentT, Warped
from elbowroom.likelihoods.counts import Counts, Multinomial, NegativeBinomial, Poisson
from elbowroom.likelihoods.discrete import Bernoulli, Binomial, Categorical, DiscretizedLogistic, Ordinal
from elbowroom.likelihoods.mixed import Mixed, Table
from elbowroom.likelihoods.registry import LIKELIHOODS

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "Counts",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "LocationScale",
    "Mixed",
    "Multinomial",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "StudentT",
    "Table",
    "Warped",
]
