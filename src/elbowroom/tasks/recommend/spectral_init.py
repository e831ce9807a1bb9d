"""Spectral initialisation of a model of interactions, from the normalised interactions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from elbowroom.data.interactions.matrix import normalised
from elbowroom.models.vae import VAE

POWERS = 4  # iterations; the last vectors need not be exact
SPARE = 10  # extra vectors, which are the least exact


@torch.no_grad()
def start_at_spectrum(model: VAE, x: Any, seed: int) -> None:
    """Initialise both item tables with the leading right singular vectors V of the interactions x, a CSR matrix.

    With D_u and D_i the numbers of interactions of users and items, D_u^-1/2 X D_i^-1/2 = U S V' gives the smoothest
    signals on the graph of users and items (Shen et al. 2021), and spans ratios of probabilities to popularities. The
    encoder's first layer, sqrt(n) D_i^-1/2 V, maps a user's history to the user's row of sqrt(n) U S; the decoder's
    last layer, or a table that both share, gets the same directions, rescaled. Columns beyond the rank keep their
    random values.
    """
    layers: Any = model.encoder.layers
    first = layers[0].inner
    likelihood: Any = model.likelihood
    vectors = leading(x, likelihood.width, seed)
    if not (rank := vectors.shape[1]):
        return
    table = likelihood.table
    table[:, :rank] = vectors * (root_mean_square(table) / root_mean_square(vectors))
    if first.weight is not table:
        first.weight[:, :rank] = vectors * math.sqrt(x.shape[0])


def root_mean_square(values: Tensor) -> Tensor:
    """Root mean square of all values, ()."""
    return values.square().mean().sqrt()


def leading(x: Any, width: int, seed: int) -> Tensor:
    """D_i^-1/2 V of at most `width` leading singular vectors, (items, rank).

    By subspace iteration (Halko et al. 2011) on the items only: a library's decomposition also computes the users'
    vectors, which takes more memory than the rest of training.
    """
    rows, items = normalised(x)
    rank = min(width, min(rows.shape) - 1)
    if rank < 1:
        return torch.empty(x.shape[1], 0)
    basis = torch.randn(rows.shape[1], min(rank + SPARE, *rows.shape), generator=torch.Generator().manual_seed(seed))
    for _ in range(POWERS):
        basis = torch.from_numpy(rows.T @ (rows @ basis.numpy()))
        basis = torch.linalg.qr(basis)[0]
    projected = torch.from_numpy(rows @ basis.numpy())
    turned = torch.linalg.eigh(projected.mT @ projected).eigenvectors.flip(-1)[:, :rank]  # in ascending order
    return basis @ turned * torch.from_numpy(items).unsqueeze(-1)
