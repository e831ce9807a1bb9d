"""Priors p(z): modules that return a distribution over latents."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elbowroom.data.sparse import SparseBatch
from elbowroom.distributions.gaussian import (
    Composite,
    DiagonalGaussian,
    GaussianMixture,
    StandardGaussian,
    bounded,
)
from elbowroom.errors import ParameterError
from elbowroom.latents.posteriors import MAX_LOG_STD, MIN_LOG_STD, Posterior
from elbowroom.nn.layers import ZeroLinear
from elbowroom.utils import specs
from elbowroom.utils.randomness import module_generator

PriorDistribution = StandardGaussian | GaussianMixture
Encode = Callable[[Tensor], Posterior]
NOTHING = -60.0  # the log-weight of an unused component
HELD_OUT = slice(None, None, 5)  # of the rows that a prior is fitted to


class Prior(nn.Module, ABC):
    """p(z): a module that returns a distribution over latents, which may depend on a context."""

    # Whether training also gives it the posterior that an older encoder had for each row.
    uses_previous_posterior = False
    starts_at_rows = False  # whether `initialise` is to be called

    @classmethod
    def build(cls, size: int, features: int, code: int, **options: Any) -> Prior:
        """The prior of `size` latents, whose encoder has inputs of `features` and whose context encodes beta in `code`.

        This one depends on neither.
        """
        return cls(size, **options)

    @abstractmethod
    def forward(self, encode: Encode, context: Tensor | None = None) -> PriorDistribution:
        """The prior; `encode` maps encoder inputs (k, F) to posteriors, for priors made of posteriors.

        It may depend on a context (c,); contexts (b, c) give one prior for each of b blocks of rows.
        """

    def initialise(self, features: Tensor, generator: torch.Generator) -> None:
        """Start from the training data: `features` (n, F) are the encoder's inputs for some rows."""


class StandardPrior(Prior):
    """N(0, I)."""

    zero: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, encode: Encode, context: Tensor | None = None) -> StandardGaussian:
        return StandardGaussian(self.size, self.zero)


class CompositePrior(StandardPrior):
    """N(0, I) for scores and samples; in training a mixture of it, a wide Gaussian and an older posterior of each row.

    The older posterior, from the averaged weights, has the weight `old` in the mixture and keeps the encoder from
    forgetting; N(0, exp(`log_variance`) I) has the weight `wide` and penalises distant rows less (Shenbin et al. 2020,
    RecVAE).
    """

    uses_previous_posterior = True

    def __init__(self, size: int, old: float = 0.75, wide: float = 0.1, log_variance: float = 10.0) -> None:
        super().__init__(size)
        self.old, self.wide, self.log_variance = old, wide, log_variance
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (old, wide, log_variance))
        if not numbers or not (old > 0 and wide > 0 and old + wide < 1 and abs(log_variance) < 2 * MAX_LOG_STD):
            raise ParameterError(
                "shares of a composite prior are positive and leave some to N(0, I), log_variance is from -12 to 12",
                f"old={old!r}, wide={wide!r}, log_variance={log_variance!r}",
                "Try old=0.75, wide=0.1, log_variance=10.",
            )

    def beside(self, previous: Posterior) -> Composite:
        """The prior of rows in training, whose previous posteriors are these."""
        far = DiagonalGaussian(self.zero.expand(self.size), self.zero.expand(self.size) + 0.5 * self.log_variance)
        shares = (1 - self.old - self.wide, self.old, self.wide)
        parts: tuple[StandardGaussian | Posterior, ...] = (StandardGaussian(self.size, self.zero), previous, far)
        return Composite(*zip(shares, parts, strict=True))


class ConditionedMixture(nn.Module):
    """Modulation of a mixture of `components` Gaussians by a context; it starts as the identity.

    A context changes the weights of the components and, for each latent, the scale of all means and of all standard
    deviations. A modulation of each component would need as many parameters per context feature as the mixture has.
    """

    def __init__(self, context: int, size: int, components: int) -> None:
        super().__init__()
        self.sizes = [size, size, components]
        self.linear = ZeroLinear(context, sum(self.sizes))

    def forward(self, mixture: GaussianMixture, context: Tensor) -> GaussianMixture:
        """Modulate a mixture by a context (c,), or to one mixture for each of the contexts (b, c)."""
        apart, log_std_shift, weights = self.linear(context).to(self.linear.weight.dtype).split(self.sizes, -1)
        components = mixture.components.modulated(1 + apart.unsqueeze(-2), log_std_shift.unsqueeze(-2))
        return GaussianMixture(components, mixture.logits + weights)


class MixturePrior(Prior):
    """A learned mixture of `components` diagonal Gaussians, which a context of the width `context` may modulate."""

    @classmethod
    def build(cls, size: int, features: int, code: int, **options: Any) -> Prior:
        return cls(size, code, **options)

    def __init__(self, size: int, context: int = 0, components: int = 100) -> None:
        super().__init__()
        self.size, self.context, self.components = size, context, check_components(components)
        self.conditioned = ConditionedMixture(context, size, components) if context else None
        self.means = nn.Parameter(torch.randn(components, size, generator=module_generator()))
        self.log_stds = nn.Parameter(torch.zeros(components, size))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, encode: Encode, context: Tensor | None = None) -> GaussianMixture:
        log_stds = bounded(self.log_stds, MIN_LOG_STD, MAX_LOG_STD)
        mixture = GaussianMixture(DiagonalGaussian(self.means, log_stds), self.logits)
        return mixture if self.conditioned is None or context is None else self.conditioned(mixture, context)


class VampPrior(Prior):
    """The mean over `components` learned pseudo-inputs u of the posteriors q(z|u) (Tomczak & Welling 2018).

    The pseudo-inputs are inputs of the encoder, and start as training rows. A context of the width `context` may
    modulate the mixture of their posteriors, which are encoded once for all contexts.
    """

    starts_at_rows = True
    logits: Tensor

    @classmethod
    def build(cls, size: int, features: int, code: int, **options: Any) -> Prior:
        return cls(size, features, code, **options)

    def __init__(self, size: int, features: int, context: int = 0, components: int = 500) -> None:
        super().__init__()
        self.size, self.features, self.context = size, features, context
        self.components = check_components(components)
        self.conditioned = ConditionedMixture(context, size, components) if context else None
        self.pseudo_inputs = nn.Parameter(torch.zeros(components, features))
        self.register_buffer("logits", torch.zeros(components), persistent=False)

    def forward(self, encode: Encode, context: Tensor | None = None) -> GaussianMixture:
        mixture = GaussianMixture(encode(self.pseudo_inputs), self.logits)
        return mixture if self.conditioned is None or context is None else self.conditioned(mixture, context)

    @torch.no_grad()
    def initialise(self, features: Tensor, generator: torch.Generator) -> None:
        chosen = torch.randint(len(features), (self.components,), generator=generator)
        if isinstance(features, SparseBatch):
            self.pseudo_inputs.copy_(features.rows(chosen).dense())
            return
        spread = features.std(0, correction=0)
        noise = torch.randn(self.components, self.features, generator=generator, dtype=features.dtype)
        self.pseudo_inputs.copy_(features[chosen] + 0.1 * spread * noise)


class FittedPrior(Prior):
    """N(0, I) in training; then a mixture of Gaussians fitted to the encodings of the training rows (Ghosh 2020).

    Training is that of the standard prior. With the mixture, samples do not fall between the encodings: the rate is
    lower, and samples keep dependent columns together.
    """

    means: Tensor
    log_stds: Tensor
    logits: Tensor
    zero: Tensor

    def __init__(self, size: int, components: int = 50, settled: bool = False) -> None:
        super().__init__()
        self.size, self.components, self.settled = size, check_components(components), settled is True
        for name in ("means", "log_stds"):
            self.register_buffer(name, torch.zeros(components, size))
        self.register_buffer("logits", torch.zeros(components))
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, encode: Encode, context: Tensor | None = None) -> PriorDistribution:
        if not self.settled:
            return StandardGaussian(self.size, self.zero)
        return GaussianMixture(DiagonalGaussian(self.means, self.log_stds), self.logits)

    @torch.no_grad()
    def settle(self, z: Tensor, seed: int) -> None:
        """Fit the mixture to draws z (draws, n, d) of n rows: as many components as fit held-out rows best.

        A row is held out with all its draws, since the draws of one row are not independent.
        """
        from sklearn.exceptions import ConvergenceWarning  # imported here: a process without it takes 100 MB less
        from sklearn.mixture import GaussianMixture as Mixture

        rows = z.double().transpose(0, 1).numpy()
        fitted_to, held_out = np.delete(rows, HELD_OUT, 0), rows[HELD_OUT].reshape(-1, self.size)
        best = float((StandardGaussian(self.size, self.zero.double()).log_prob(torch.from_numpy(held_out))).mean())
        for k in (self.components // 10, self.components // 3, self.components):
            if not 1 <= k <= len(fitted_to) // 10:
                continue
            settings = {"random_state": seed % 2**31, "max_iter": 60, "reg_covar": 1e-5, "init_params": "k-means++"}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a better score is enough
                found = Mixture(k, covariance_type="diag", **settings).fit(fitted_to.reshape(-1, self.size))
            if found.score(held_out) > best:
                best = found.score(held_out)
                self._take(found)

    def _take(self, found: Any) -> None:
        """Set a mixture of k components; the others get no weight."""
        k, self.settled = len(found.weights_), True
        self.logits.fill_(NOTHING)
        self.means.zero_()
        self.log_stds.zero_()
        self.logits[:k] = torch.from_numpy(np.log(found.weights_.clip(1e-12)))
        self.means[:k] = torch.from_numpy(found.means_)
        self.log_stds[:k] = torch.from_numpy(0.5 * np.log(found.covariances_))


def build_prior(prior: Any, size: int, features: int, code: int) -> nn.Module:
    """The prior of `size` latents: by its text form, or from an object with `build(size, features, code)`.

    `features` is the width of the encoder's input, and `code` that of the code of beta, 0 without a range of beta.

    Raises
    ------
    ParameterError
        If there is no such prior, or the object builds no module.
    """
    if isinstance(prior, str):
        name, _ = specs.parse(prior, PRIORS, "prior")
        options = specs.options_of(prior, PRIORS, "prior", ("size", "features", "context"))
        return PRIORS[name].build(size, features, code, **options)
    found = prior.build(size, features, code)
    if not isinstance(found, nn.Module):
        got = f"{type(prior).__name__}.build returns {type(found).__name__}"
        raise ParameterError("a prior's build must return a module", got, "Return one whose forward gives p(z).")
    return found


def check_components(components: int) -> int:
    """Refuse a number of mixture components that is not a positive whole number."""
    if isinstance(components, bool) or not isinstance(components, int) or components < 1:
        raise ParameterError(
            "prior components must be a positive whole number", f"it is {components!r}", "Write components=100."
        )
    return components


PRIORS: dict[str, type[Prior]] = {
    "standard": StandardPrior,
    "mixture": MixturePrior,
    "vamp": VampPrior,
    "fitted": FittedPrior,
    "composite": CompositePrior,
}
