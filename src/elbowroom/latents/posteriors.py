"""Posteriors q(z|x), from an encoder's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elbowroom.distributions.gaussian import DiagonalGaussian, FullGaussian, Posterior, bounded
from elbowroom.nn.layers import Linear

__all__ = ["LATENTS", "DiagonalLatent", "FullLatent", "Posterior"]
MIN_LOG_STD, MAX_LOG_STD = -12.0, 6.0  # of the encoder's log standard deviations, before beta conditioning shifts them


class Head(Linear):
    """A linear map from features to the parameters of a posterior."""

    def forward(self, h: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs), in the weights' dtype: densities need more precision than bfloat16."""
        return super().forward(h).to(self.weight.dtype)


class DiagonalLatent(nn.Module):
    """A Gaussian posterior with independent latents."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.inputs, self.size = inputs, size
        self.head = Head(inputs, 2 * size)

    def forward(self, h: Tensor) -> DiagonalGaussian:
        """Features (..., inputs) to q(z|x) over (..., size)."""
        mean, log_std = self.head(h).chunk(2, -1)
        return DiagonalGaussian(mean, bounded(log_std, MIN_LOG_STD, MAX_LOG_STD))


class FullLatent(nn.Module):
    """A Gaussian posterior with a full covariance matrix, as a Cholesky factor with a softplus diagonal."""

    below: Tensor  # rows and columns of the entries below the diagonal

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.inputs, self.size = inputs, size
        self.head = Head(inputs, 2 * size + size * (size - 1) // 2)
        self.register_buffer("below", torch.tril_indices(size, size, -1), persistent=False)

    def forward(self, h: Tensor) -> FullGaussian:
        """Features (..., inputs) to q(z|x) over (..., size)."""
        mean, diagonal, below = self.head(h).split([self.size, self.size, self.below.shape[1]], -1)
        # softplus(0.54) = 1: the posterior starts at the standard prior
        cholesky = torch.diag_embed(F.softplus(diagonal + 0.5413) + 1e-5)
        row, column = self.below
        cholesky[..., row, column] = below
        return FullGaussian(mean, cholesky)


LATENTS = {"diagonal": DiagonalLatent, "full": FullLatent}
