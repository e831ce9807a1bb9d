"""Latents from rows and rows from latents: encode, decode, reconstruct, sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from elbowroom.data.dataset import Batch, Rows, joined
from elbowroom.distributions.gaussian import normal
from elbowroom.latents.priors import HELD_OUT
from elbowroom.models.vae import VAE
from elbowroom.utils.randomness import generator_at, seed_of
from elbowroom.utils.settings import standard_defaults

AT_ONCE = 1024


@standard_defaults()
@torch.no_grad()
def posterior_mean(model: VAE, rows: Rows) -> Tensor:
    """E q(z|x) of every row, (n, d)."""
    return joined((model.encode(batch.x, batch.context).mean for batch in rows.in_order(AT_ONCE)), len(rows))


@standard_defaults()
@torch.no_grad()
def sample_posterior(model: VAE, rows: Rows, draws: int, generator: Generator) -> Tensor:
    """Draws of z from q(z|x) of every row, (draws, n, d)."""
    posteriors = (model.encode(batch.x, batch.context) for batch in rows.in_order(AT_ONCE))
    return joined((q.rsample(normal((draws, *q.mean.shape), generator, q.mean)) for q in posteriors), len(rows), 1)


def settle_prior(model: VAE, rows: Rows, seed: int) -> Rows:
    """Fit a prior of that kind to the encodings of training rows; with a range of beta, where these differ, it stays.

    Returns the rows whose encodings the prior was not fitted to, since the rate of the others is biased downwards.
    """
    prior: Any = model.prior
    if not hasattr(prior, "settle") or model.conditioning is not None:
        return rows
    z = sample_posterior(model, rows, 2, generator_at(seed, "settle"))
    prior.settle(z, seed_of(seed, "settle"))
    return rows.take(torch.arange(len(rows))[HELD_OUT]) if prior.settled else rows


@standard_defaults()
@torch.no_grad()
def decode_mean(model: VAE, z: Tensor, context: Tensor | None = None, total: Tensor | None = None) -> Tensor:
    """E[x|z] of latents (n, d), (n, D)."""
    at = (slice(start, start + AT_ONCE) for start in range(0, len(z), AT_ONCE))
    return joined((model.decode(z[s], _part(context, s), _part(total, s)).mean for s in at), len(z))


@standard_defaults()
@torch.no_grad()
def reconstruct(model: VAE, rows: Rows) -> Tensor:
    """E[x|z] at the posterior mean of every row, (n, D)."""
    likelihood: Any = model.likelihood

    def mean(batch: Batch) -> Tensor:
        z = model.encode(batch.x, batch.context).mean
        return model.decode(z, batch.context, likelihood.row_total(batch.x)).mean

    return joined(map(mean, rows.in_order(AT_ONCE)), len(rows))


@standard_defaults()
@torch.no_grad()
def sample(model: VAE, n: int, generator: Generator, mean: bool = False, context: Tensor | None = None) -> Tensor:
    """Rows drawn from the model: z from the prior, then x from p(x|z), or its mean; (n, D)."""
    likelihood: Any = model.likelihood
    prior = model.prior_distribution()

    def drawn(start: int) -> Tensor:
        size = min(AT_ONCE, n - start)
        some = _part(context, slice(start, start + size))
        p = model.decode(prior.sample(size, generator), some, likelihood.draw_total(size, generator, some))
        return p.mean if mean else p.sample(generator)

    return joined(map(drawn, range(0, n, AT_ONCE)), n)


def _part(values: Tensor | None, at: slice) -> Tensor | None:
    return None if values is None else values[at]
