"""Latents from rows and rows from latents: encode, decode, reconstruct, sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from elbowroom.data.rows import Rows
from elbowroom.gaussians import normal
from elbowroom.vae import VAE

AT_ONCE = 1024


@torch.no_grad()
def posterior_mean(model: VAE, rows: Rows) -> Tensor:
    """E q(z|x) of every row, (n, d)."""
    return torch.cat([model.encode(batch.x, batch.context).mean for batch in rows.in_order(AT_ONCE)])


@torch.no_grad()
def sample_posterior(model: VAE, rows: Rows, draws: int, generator: Generator) -> Tensor:
    """Draws of z from q(z|x) of every row, (draws, n, d)."""
    found = []
    for batch in rows.in_order(AT_ONCE):
        q = model.encode(batch.x, batch.context)
        found.append(q.rsample(normal((draws, *q.mean.shape), generator, q.mean)))
    return torch.cat(found, 1)


@torch.no_grad()
def decode_mean(model: VAE, z: Tensor, context: Tensor | None = None, total: Tensor | None = None) -> Tensor:
    """E[x|z] of latents (n, d), (n, D)."""
    pieces = range(0, len(z), AT_ONCE)
    at = [slice(start, start + AT_ONCE) for start in pieces]
    return torch.cat([model.decode(z[s], _part(context, s), _part(total, s)).mean for s in at])


@torch.no_grad()
def reconstruct(model: VAE, rows: Rows) -> Tensor:
    """E[x|z] at the posterior mean of every row, (n, D)."""
    likelihood: Any = model.likelihood
    found = []
    for batch in rows.in_order(AT_ONCE):
        z = model.encode(batch.x, batch.context).mean
        found.append(model.decode(z, batch.context, likelihood.row_total(batch.x)).mean)
    return torch.cat(found)


@torch.no_grad()
def sample(model: VAE, n: int, generator: Generator, mean: bool = False, context: Tensor | None = None) -> Tensor:
    """Rows drawn from the model: z from the prior, then x from p(x|z), or its mean; (n, D)."""
    likelihood: Any = model.likelihood
    prior = model.prior_distribution()
    found = []
    for start in range(0, n, AT_ONCE):
        size = min(AT_ONCE, n - start)
        p = model.decode(
            prior.sample(size, generator),
            _part(context, slice(start, start + size)),
            likelihood.draw_total(size, generator),
        )
        found.append(p.mean if mean else p.sample(generator))
    return torch.cat(found)


def _part(values: Tensor | None, at: slice) -> Tensor | None:
    return None if values is None else values[at]
