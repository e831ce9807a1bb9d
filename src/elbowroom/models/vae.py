"""The model: encoder, latent, decoder and likelihood, and the output of a forward pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor, nn

from elbowroom.beta.conditioning import BetaConditioning, Modulation
from elbowroom.distributions.gaussian import Composite, normal
from elbowroom.errors import ParameterError
from elbowroom.latents.posteriors import Posterior
from elbowroom.latents.priors import Prior, PriorDistribution


class ModelOutput(NamedTuple):
    """Output of a model for a batch of n rows, with a leading axis for draws of z if `draws` was given.

    q : the posterior q(z|x) of every row; z : its draws (..., n, d); p : p(x|z), a distribution over rows;
    prior : p(z); rate : KL(q || prior) in nats per row, (n,) if exact, else estimated at z, (..., n);
    rate_parts : the rate by latent, (n, d), where q and the prior factorise, else None.
    """

    q: Posterior
    z: Tensor
    p: Any
    prior: PriorDistribution | Composite
    rate: Tensor
    rate_parts: Tensor | None


class VAE(nn.Module):
    """A variational autoencoder (Kingma & Welling 2014), built from modules.

    Parameters
    ----------
    encoder : module
        Features (n, likelihood.n_inputs) and context to hidden features.
    latent : module
        Hidden features to the posterior q(z|x), a distribution; with beta conditioning it has
        `modulated(scale, log_std_shift)`.
    prior : Prior
        p(z).
    decoder : module
        Latents (..., d) and context to the flat parameters of the likelihood.
    likelihood : module
        Parameters to p(x|z), a distribution over rows.
    conditioning : BetaConditioning or None
        Conditions encoder, prior, posterior, decoder and likelihood on beta, if the model was trained on a range. Its
        code `conditioning(betas)` (k, width) is the `code` argument of all methods, each row for a block of n / k rows
        of data; None is the default beta.
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent: nn.Module,
        prior: Prior,
        decoder: nn.Module,
        likelihood: nn.Module,
        conditioning: BetaConditioning | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.latent, self.prior = encoder, latent, prior
        self.decoder, self.likelihood, self.conditioning = decoder, likelihood, conditioning
        self.ema_model: list[VAE] = []  # in training with a composite prior, a copy with older weights; not a submodule
        if getattr(likelihood, "tied", False):  # encoder and likelihood share one table of items
            encoder.layers[0].inner.weight = likelihood.table  # type: ignore[index, union-attr]

    @property
    def n_latents(self) -> int:
        """d, the number of latents."""
        return int(self.latent.size)  # type: ignore[arg-type]

    def at(self, beta: float) -> Self:
        """The model at one beta of its range; it shares all weights with this model.

        Raises
        ------
        ParameterError
            If the model was not trained on a range, or beta is outside of it.
        """
        other = copy.copy(self)  # torch has no public name for the dict of modules, which the two would share
        other._modules = {**self._modules, "conditioning": self.known_conditioning.at(beta)}
        return other

    @property
    def known_conditioning(self) -> BetaConditioning:
        """The beta conditioning, or an error if the model has none."""
        if self.conditioning is None:
            raise ParameterError(
                "a model can be evaluated at other betas if it was trained on a range of them",
                "this one was trained at one beta",
                "Fit with beta='0.01..10'.",
            )
        return self.conditioning

    def encode(self, x: Any, context: Tensor | None = None, code: Tensor | None = None) -> Posterior:
        """q(z|x) of rows (n, D)."""
        return self._encode(x, context, self._modulation(code, len(x)))

    def decode(
        self, z: Tensor, context: Tensor | None = None, total: Tensor | None = None, code: Tensor | None = None
    ) -> Any:
        """p(x|z) of latents (..., d); `total` (n, 1) are the rows' totals, for likelihoods with `uses_total`."""
        return self._decode(z, context, total, self._modulation(code, z.shape[-2]))

    def prior_distribution(self, code: Tensor | None = None) -> PriorDistribution:
        """p(z), given beta: one for each block of rows if there are several betas."""
        if self.conditioning is not None and code is None:
            code = self.conditioning(None)
        return self.prior(self._encode_pseudo_inputs, code[0] if code is not None and len(code) == 1 else code)

    def forward(
        self,
        x: Any,
        context: Tensor | None = None,
        noise: Tensor | Generator | None = None,
        draws: int | None = None,
        code: Tensor | None = None,
    ) -> ModelOutput:
        """Encode rows (n, D), draw z and decode it.

        Parameters
        ----------
        noise : Tensor (..., n, d), Generator or None
            Standard normal noise, or where to draw it from.
        draws : int or None
            Draws of z per row, as a leading axis; None for one draw without that axis.
        code : Tensor (k, width) or None
            The code of betas, each for a block of n / k rows; None for that of the default beta.
        """
        modulation = self._modulation(code, len(x))
        q = self._encode(x, context, modulation)
        if not isinstance(noise, Tensor):
            lead = () if draws is None else (draws,)
            noise = normal((*lead, *q.mean.shape), noise, q.mean)
        z = q.rsample(noise)
        prior = (
            self._prior_with_previous(x, context, code)
            if self.training and self.ema_model
            else self.prior_distribution(code)
        )
        rate, parts = q.kl_to(prior, z)
        p = self._decode(z, context, self.likelihood.row_total(x), modulation)  # type: ignore[operator]
        return ModelOutput(q, z, p, prior, rate, parts)

    # ---- parts, modulated by beta ---------------------------------------------------------------------------------

    def _modulation(self, code: Tensor | None, rows: int) -> Modulation | None:
        return (
            None
            if self.conditioning is None
            else self.conditioning.modulation(self.conditioning(None) if code is None else code, rows)
        )

    def _encode(self, x: Tensor, context: Tensor | None, modulation: Modulation | None) -> Posterior:
        return self._encode_inputs(self.likelihood.inputs(x), context, modulation)  # type: ignore[operator]

    def _encode_inputs(self, inputs: Tensor, context: Tensor | None, modulation: Modulation | None) -> Posterior:
        if modulation is None:
            return self.latent(self.encoder(inputs, context))
        return self.latent(self.encoder(inputs, modulation.beside(context))).modulated(
            modulation.mean_scale, modulation.log_std_shift
        )

    def _encode_pseudo_inputs(self, inputs: Tensor) -> Posterior:
        """Encode pseudo-inputs once for all betas, at the reference beta."""
        code = None if self.conditioning is None else self.conditioning(self.conditioning.reference)
        return self._encode_inputs(inputs, None, self._modulation(code, len(inputs)))

    @torch.no_grad()
    def _prior_with_previous(self, x: Any, context: Tensor | None, code: Tensor | None) -> Composite:
        """The prior of rows, given their posteriors under the older model."""
        return self.prior.beside(self.ema_model[0].encode(x, context, code))  # type: ignore[operator]

    def _decode(self, z: Tensor, context: Tensor | None, total: Tensor | None, modulation: Modulation | None) -> Any:
        if modulation is None:
            return self.likelihood(self.decoder(z, context), total)
        h = self.decoder(z * modulation.input_scale, modulation.beside(context))
        return (
            self.likelihood(h, total)
            if modulation.likelihood_shift is None
            else self.likelihood(h, total, modulation.likelihood_shift)
        )

    @torch.no_grad()
    def initialise(self, x: Tensor, generator: Generator) -> None:
        """Start from training rows (n, D): the likelihood at their marginals, the prior at their features."""
        self.likelihood.fit_marginals(x.to(torch.float64) if isinstance(x, Tensor) else x)  # type: ignore[operator]
        if getattr(self.prior, "starts_at_rows", False):
            self.prior.initialise(self.likelihood.inputs(x), generator)  # type: ignore[operator]


@contextmanager
def previous_posteriors(model: VAE, ema_model: VAE) -> Iterator[None]:
    """Within, a composite prior gets the posteriors of training rows under a model with older weights."""
    if getattr(model.prior, "uses_previous_posterior", False):
        if ema_model is model:
            raise ParameterError("a composite prior needs averaged weights", "average is False", "Set average=True.")
        model.ema_model = [ema_model.eval()]
    try:
        yield
    finally:
        model.ema_model = []


def in_double(model: VAE) -> VAE:
    """A float64 copy of a model, cached while its weights do not change."""
    # torch counts the changes of a tensor by this name, and documents it as _version in its notes on autograd
    state = [(tensor.data_ptr(), tensor._version) for tensor in chain(model.parameters(), model.buffers())]
    known, copied = _DOUBLES.get(model, (None, None))
    if copied is None or known != state:
        copied = copy.deepcopy(model).double()
        _DOUBLES[model] = state, copied
    return copied


_DOUBLES: WeakKeyDictionary[VAE, tuple[list[tuple[int, int]], VAE]] = WeakKeyDictionary()
