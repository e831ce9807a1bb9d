"""All likelihoods by name: one line here registers a new one for saved models, docs and the command line."""

from __future__ import annotations

from elbowroom.likelihoods.base import Likelihood
from elbowroom.likelihoods.continuous import ContinuousBernoulli, Gaussian, StudentT, Warped
from elbowroom.likelihoods.counts import Multinomial, NegativeBinomial, Poisson
from elbowroom.likelihoods.discrete import Bernoulli, Binomial, Categorical, DiscretizedLogistic, Ordinal
from elbowroom.likelihoods.mixed import Mixed

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "binomial": Binomial,
    "gaussian": Gaussian,
    "student_t": StudentT,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "multinomial": Multinomial,
    "categorical": Categorical,
    "discretized_logistic": DiscretizedLogistic,
    "continuous_bernoulli": ContinuousBernoulli,
    "warped": Warped,
    "ordinal": Ordinal,
    "mixed": Mixed,
}
