"""The model: encoder, latent, decoder and likelihood, and what one trip of a batch through them yields."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor, nn

from elbowroom.beta.conditioning import Dial, Heard
from elbowroom.distributions.gaussian import Composite, normal
from elbowroom.errors import ParameterError
from elbowroom.latents.posteriors import Posterior
from elbowroom.latents.priors import Prior, PriorDistribution, rate_of


class Pass(NamedTuple):
    """One trip of a batch of n rows through a model, with leading axes for draws of z if more than one was asked for.

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
    """A variational autoencoder (Kingma & Welling 2014) made of parts.

    Parameters
    ----------
    encoder : module
        Features (n, likelihood.n_inputs) and context to hidden features.
    latent : module
        Hidden features to the posterior q(z|x), a distribution, which has `moved(scale, wider)` if there is a dial.
    prior : Prior
        p(z).
    decoder : module
        Latents (..., d) and context to the flat parameters of the likelihood.
    likelihood : module
        Parameters to p(x|z), a distribution over rows.
    dial : Dial or None
        What tells encoder, prior and decoder the beta, and moves posterior and likelihood by it, if the model knows a
        range. Its code `dial(betas)` (k, width) stands for betas, each of a block of n / k rows, wherever `code` is
        asked for; None is where the dial stands.
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent: nn.Module,
        prior: Prior,
        decoder: nn.Module,
        likelihood: nn.Module,
        dial: Dial | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.latent, self.prior = encoder, latent, prior
        self.decoder, self.likelihood, self.dial = decoder, likelihood, dial
        self.older: list[VAE] = []  # in training with a prior that remembers, the same with older weights; no part
        if getattr(likelihood, "tied", False):  # what an item is, is one table for encoder and likelihood
            encoder.layers[0].inner.weight = likelihood.table  # type: ignore[index, union-attr]

    @property
    def n_latents(self) -> int:
        """d, the number of latents."""
        return int(self.latent.size)  # type: ignore[arg-type]

    def at(self, beta: float) -> Self:
        """The model at one beta of its range; it shares all weights with this one.

        Raises
        ------
        ParameterError
            If the model knows no range, or not this beta.
        """
        other = copy.copy(self)
        other._modules = {**self._modules, "dial": self.known_dial.at(beta)}
        return other

    @property
    def known_dial(self) -> Dial:
        """The dial, or an error that says how to get one."""
        if self.dial is None:
            raise ParameterError(
                "a model can be asked about other betas if it was trained on a range of them",
                "this one was trained at one beta",
                "Fit with beta='0.01..10'.",
            )
        return self.dial

    def encode(self, x: Any, context: Tensor | None = None, code: Tensor | None = None) -> Posterior:
        """q(z|x) of rows (n, D)."""
        return self._encode(x, context, self._heard(code, len(x)))

    def decode(
        self, z: Tensor, context: Tensor | None = None, total: Tensor | None = None, code: Tensor | None = None
    ) -> Any:
        """p(x|z) of latents (..., d); `total` (n, 1) are the rows' totals, for likelihoods that are told them."""
        return self._decode(z, context, total, self._heard(code, z.shape[-2]))

    def prior_distribution(self, code: Tensor | None = None) -> PriorDistribution:
        """p(z), as it is told the beta: one for each block of rows, where betas are more than one."""
        if self.dial is not None and code is None:
            code = self.dial(None)
        return self.prior(self._encode_pseudo_inputs, code[0] if code is not None and len(code) == 1 else code)

    def forward(
        self,
        x: Any,
        context: Tensor | None = None,
        noise: Tensor | Generator | None = None,
        draws: int | None = None,
        code: Tensor | None = None,
    ) -> Pass:
        """Encode rows (n, D), draw z and decode it.

        Parameters
        ----------
        noise : Tensor (..., n, d), Generator or None
            Standard normal noise, or where to draw it from.
        draws : int or None
            Draws of z per row, as a leading axis; None for one draw without that axis.
        code : Tensor (k, width) or None
            The dial's code of betas, each of a block of n / k rows; None for where the dial stands.
        """
        heard = self._heard(code, len(x))
        q = self._encode(x, context, heard)
        if not isinstance(noise, Tensor):
            lead = () if draws is None else (draws,)
            noise = normal((*lead, *q.mean.shape), noise, q.mean)
        z = q.rsample(noise)
        prior = self._remembered(x, context, code) if self.training and self.older else self.prior_distribution(code)
        rate, parts = rate_of(q, prior, z)
        p = self._decode(z, context, self.likelihood.row_total(x), heard)  # type: ignore[operator]
        return Pass(q, z, p, prior, rate, parts)

    # ---- the same, told what a dial says of beta ---------------------------------------------------------------------

    def _heard(self, code: Tensor | None, rows: int) -> Heard | None:
        return None if self.dial is None else self.dial.heard(self.dial(None) if code is None else code, rows)

    def _encode(self, x: Tensor, context: Tensor | None, heard: Heard | None) -> Posterior:
        return self._encode_inputs(self.likelihood.inputs(x), context, heard)  # type: ignore[operator]

    def _encode_inputs(self, inputs: Tensor, context: Tensor | None, heard: Heard | None) -> Posterior:
        if heard is None:
            return self.latent(self.encoder(inputs, context))
        return self.latent(self.encoder(inputs, heard.beside(context))).moved(heard.means, heard.wider)

    def _encode_pseudo_inputs(self, inputs: Tensor) -> Posterior:
        """Once for all betas: at the one that the dial names."""
        code = None if self.dial is None else self.dial(self.dial.reference)
        return self._encode_inputs(inputs, None, self._heard(code, len(inputs)))

    @torch.no_grad()
    def _remembered(self, x: Any, context: Tensor | None, code: Tensor | None) -> Composite:
        """The prior of rows beside what the older model says of them."""
        return self.prior.beside(self.older[0].encode(x, context, code))  # type: ignore[operator]

    def _decode(self, z: Tensor, context: Tensor | None, total: Tensor | None, heard: Heard | None) -> Any:
        if heard is None:
            return self.likelihood(self.decoder(z, context), total)
        h = self.decoder(z * heard.entry, heard.beside(context))
        return self.likelihood(h, total) if heard.own is None else self.likelihood(h, total, heard.own)

    @torch.no_grad()
    def initialise(self, x: Tensor, generator: Generator) -> None:
        """Start from training rows (n, D): the likelihood at their marginals, the prior at their features."""
        self.likelihood.fit_marginals(x.to(torch.float64) if isinstance(x, Tensor) else x)  # type: ignore[operator]
        if self.prior.starts_at_rows:
            self.prior.initialise(self.likelihood.inputs(x), generator)  # type: ignore[operator]


@contextmanager
def remembering(model: VAE, older: VAE) -> Iterator[None]:
    """Within, a prior that remembers is told what a model with older weights says of the rows of training."""
    if getattr(model.prior, "remembers", False):
        if older is model:
            raise ParameterError("a composite prior needs averaged weights", "average is False", "Set average=True.")
        model.older = [older.eval()]
    try:
        yield
    finally:
        model.older = []


def in_double(model: VAE) -> VAE:
    """A float64 copy of a model, made once for as long as its weights stay as they are."""
    state = [(tensor.data_ptr(), tensor._version) for tensor in chain(model.parameters(), model.buffers())]
    known, copied = _DOUBLES.get(model, (None, None))
    if copied is None or known != state:
        copied = copy.deepcopy(model).double()
        _DOUBLES[model] = state, copied
    return copied


_DOUBLES: WeakKeyDictionary[VAE, tuple[list[tuple[int, int]], VAE]] = WeakKeyDictionary()
