"""The model: encoder, latent, decoder and likelihood, and what one trip of a batch through them yields."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from elbowroom.gaussians import normal
from elbowroom.latents import Posterior, Prior, PriorDistribution, rate_of


class Pass(NamedTuple):
    """One trip of a batch of n rows through a model, with leading axes for draws of z if more than one was asked for.

    q : the posterior q(z|x) of every row; z : its draws (..., n, d); p : p(x|z), a distribution over rows;
    prior : p(z); rate : KL(q || prior) in nats per row, (n,) if exact, else estimated at z, (..., n);
    rate_parts : the rate by latent, (n, d), where q and the prior factorise, else None.
    """

    q: Posterior
    z: Tensor
    p: Any
    prior: PriorDistribution
    rate: Tensor
    rate_parts: Tensor | None


class VAE(nn.Module):
    """A variational autoencoder (Kingma & Welling 2014) made of parts.

    Parameters
    ----------
    encoder : module
        Features (n, likelihood.n_inputs) and context to hidden features.
    latent : module
        Hidden features to the posterior q(z|x), a distribution.
    prior : Prior
        p(z).
    decoder : module
        Latents (..., d) and context to the flat parameters of the likelihood.
    likelihood : module
        Parameters to p(x|z), a distribution over rows.
    """

    def __init__(
        self, encoder: nn.Module, latent: nn.Module, prior: Prior, decoder: nn.Module, likelihood: nn.Module
    ) -> None:
        super().__init__()
        self.encoder, self.latent, self.prior = encoder, latent, prior
        self.decoder, self.likelihood = decoder, likelihood

    @property
    def n_latents(self) -> int:
        """d, the number of latents."""
        return int(self.latent.size)  # type: ignore[arg-type]

    def encode(self, x: Tensor, context: Tensor | None = None) -> Posterior:
        """q(z|x) of rows (n, D)."""
        return self._encode_inputs(self.likelihood.inputs(x), context)  # type: ignore[operator]

    def decode(self, z: Tensor, context: Tensor | None = None, total: Tensor | None = None) -> Any:
        """p(x|z) of latents (..., d); `total` (n, 1) are the rows' totals, for likelihoods that are told them."""
        return self.likelihood(self.decoder(z, context), total)

    def prior_distribution(self) -> PriorDistribution:
        """p(z)."""
        return self.prior(lambda inputs: self._encode_inputs(inputs, None))

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        noise: Tensor | Generator | None = None,
        draws: int | None = None,
    ) -> Pass:
        """Encode rows (n, D), draw z and decode it.

        Parameters
        ----------
        noise : Tensor (..., n, d), Generator or None
            Standard normal noise, or where to draw it from.
        draws : int or None
            Draws of z per row, as a leading axis; None for one draw without that axis.
        """
        q = self.encode(x, context)
        if not isinstance(noise, Tensor):
            lead = () if draws is None else (draws,)
            noise = normal((*lead, *q.mean.shape), noise, q.mean)
        z = q.rsample(noise)
        prior = self.prior_distribution()
        rate, parts = rate_of(q, prior, z)
        p = self.decode(z, context, self.likelihood.row_total(x))  # type: ignore[operator]
        return Pass(q, z, p, prior, rate, parts)

    def _encode_inputs(self, inputs: Tensor, context: Tensor | None) -> Posterior:
        return self.latent(self.encoder(inputs, context))

    @torch.no_grad()
    def initialise(self, x: Tensor, generator: Generator) -> None:
        """Start from training rows (n, D): the likelihood at their marginals, the prior at their features."""
        self.likelihood.fit_marginals(x.double())  # type: ignore[operator]
        self.prior.initialise(self.likelihood.inputs(x), generator)  # type: ignore[operator]
