"""Distributions over latents: Gaussians and Gaussian mixtures.

They follow the interface of `torch.distributions` (`log_prob`, `rsample`, `sample`, `mean`), but randomness is an
argument: standard normal noise for a posterior, a generator for a prior.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Generator, Tensor

from elbowroom.distributions.base import applied

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Posterior(ABC):
    """q(z|x), a distribution over latents for each row; the first axes of its parameters are those of the rows."""

    mean: Tensor

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Marginal variances, (..., d)."""

    @abstractmethod
    def rsample(self, noise: Tensor) -> Tensor:
        """Transform standard normal noise (..., d) to a sample; gradients reach the parameters."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z (..., d), in nats."""

    @abstractmethod
    def log_prob_pairs(self, z: Tensor) -> Tensor:
        """Log-density of every z (..., n, d) under each of k components (..., k, d): (..., n, k)."""

    @abstractmethod
    def modulated(self, scale: Tensor, log_std_shift: Tensor) -> Self:
        """The distribution with means times `scale`, and standard deviations times exp(`log_std_shift`), (..., d)."""

    def kl_parts(self, prior: Any) -> Tensor | None:
        """KL to a prior of each latent, (..., d), if both factorise and it has a closed form; else None."""
        return None

    def kl_to(self, prior: Any, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """KL to a prior in nats per row, exact where a closed form exists, else estimated at z; and `kl_parts`."""
        parts = self.kl_parts(prior)
        return (self.log_prob(z) - prior.log_prob(z) if parts is None else parts.sum(-1)), parts

    def detach(self) -> Self:
        """The same distribution, detached from the graph."""
        return self._changed(Tensor.detach)

    def double(self) -> Self:
        """The same distribution in float64."""
        return self._changed(Tensor.double)

    def at(self, index: Tensor) -> Self:
        """The distributions of the rows at `index`."""
        return self._changed(lambda tensor: tensor[index])

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The distributions of all rows of several batches."""
        return cls(*(torch.cat(tensors) for tensors in zip(*(q.tensors for q in parts), strict=True)))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(*map(change, self.tensors))


class DiagonalGaussian(Posterior):
    """N(mean, diag(exp(log_std)^2)) over latents; both parameters have the shape (..., d)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.mean, self.log_std

    @property
    def variance(self) -> Tensor:
        """Marginal variances, (..., d)."""
        return (2 * self.log_std).exp()

    def rsample(self, noise: Tensor) -> Tensor:
        """Transform standard normal noise (..., d) to a sample; gradients reach the parameters."""
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z (..., d), in nats."""
        whitened = (z - self.mean) * (-self.log_std).exp()
        return -(0.5 * whitened.square() + self.log_std + HALF_LOG_2PI).sum(-1)

    def log_prob_pairs(self, z: Tensor) -> Tensor:
        """Log-density of every z (..., n, d) under each of k components (..., k, d): (..., n, k).

        By matrix products, in float64, because narrow components cause cancellation.
        """
        wide, mean = _widened(z), _widened(self.mean)
        precision = (-2 * _widened(self.log_std)).exp()
        weighted = mean * precision
        const = (0.5 * mean * weighted + self.log_std + HALF_LOG_2PI).sum(-1).unsqueeze(-2)
        return (wide @ weighted.mT - 0.5 * wide.square() @ precision.mT - const).to(z.dtype)

    def kl_to_standard(self) -> Tensor:
        """KL to N(0, I) of each latent: (..., d)."""
        return 0.5 * (self.mean.square() + (2 * self.log_std).exp() - 1) - self.log_std

    def kl_parts(self, prior: Any) -> Tensor | None:
        return self.kl_to_standard() if isinstance(prior, StandardGaussian) else None

    def modulated(self, scale: Tensor, log_std_shift: Tensor) -> Self:
        """The distribution with means times `scale` and log standard deviations plus `log_std_shift`, both (..., d)."""
        return type(self)(self.mean * scale, self.log_std + log_std_shift)


class FullGaussian(Posterior):
    """N(mean, L L') over latents; mean (..., d), lower triangular L (..., d, d) with a positive diagonal."""

    def __init__(self, mean: Tensor, cholesky: Tensor) -> None:
        self.mean, self.cholesky = mean, cholesky

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.mean, self.cholesky

    @property
    def variance(self) -> Tensor:
        """Marginal variances, (..., d)."""
        return self.cholesky.square().sum(-1)

    def rsample(self, noise: Tensor) -> Tensor:
        """Transform standard normal noise (..., d) to a sample; gradients reach the parameters."""
        return self.mean + (self.cholesky * noise.unsqueeze(-2)).sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z (..., d), in nats."""
        centred = (z - self.mean).unsqueeze(-1)
        whitened = torch.linalg.solve_triangular(self.cholesky, centred, upper=False).squeeze(-1)
        return -(0.5 * whitened.square() + HALF_LOG_2PI).sum(-1) - self._log_det()

    def log_prob_pairs(self, z: Tensor) -> Tensor:
        """Log-density of every z (..., n, d) under each of k components (..., k, d): (..., n, k)."""
        centred = z.unsqueeze(-3) - self.mean.unsqueeze(-2)
        whitened = torch.linalg.solve_triangular(self.cholesky, centred.mT, upper=False)
        return -(0.5 * whitened.square() + HALF_LOG_2PI).sum(-2).mT - self._log_det().unsqueeze(-2)

    def kl_to_standard(self) -> Tensor:
        """KL to N(0, I); it is not a sum over latents, so the shape is (..., 1)."""
        spread = self.cholesky.square().sum((-2, -1)) + self.mean.square().sum(-1) - self.mean.shape[-1]
        return (0.5 * spread - self._log_det()).unsqueeze(-1)

    def kl_to(self, prior: Any, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return (self.kl_to_standard().sum(-1), None) if isinstance(prior, StandardGaussian) else super().kl_to(prior, z)

    def modulated(self, scale: Tensor, log_std_shift: Tensor) -> Self:
        """The distribution with means times `scale` and standard deviations times exp(`log_std_shift`), (..., d)."""
        return type(self)(self.mean * scale, self.cholesky * log_std_shift.exp().unsqueeze(-1))

    def _log_det(self) -> Tensor:
        return self.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class StandardGaussian:
    """N(0, I) over d latents."""

    def __init__(self, size: int, like: Tensor) -> None:
        self.mean = like.new_zeros(size)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z (..., d), in nats."""
        return -(0.5 * z.square() + HALF_LOG_2PI).sum(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Draw n latents: (n, d)."""
        return normal((n, *self.mean.shape), generator, self.mean)


class GaussianMixture:
    """A mixture of k Gaussians over latents, with the log-weights `logits` (k,).

    With logits (b, k) and components (b, k, d) one mixture for each of b blocks of rows, for `log_prob` only.
    """

    def __init__(self, components: Posterior, logits: Tensor) -> None:
        self.components, self.logits = components, logits

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, (d,)."""
        return self.logits.softmax(-1) @ self.components.mean

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z (..., d), in nats; with b blocks of rows, of z (..., n, d)."""
        blocks = self.logits.shape[:-1]
        z = z.unflatten(-2, (*blocks, -1)) if blocks else z
        pairs = self.components.log_prob_pairs(z) + self.logits.log_softmax(-1).unsqueeze(-2)
        return pairs.logsumexp(-1).flatten(-2) if blocks else pairs.logsumexp(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Draw n latents: (n, d)."""
        chosen = torch.multinomial(self.logits.softmax(-1), n, replacement=True, generator=generator)
        noise = normal((n, self.components.mean.shape[-1]), generator, self.components.mean)
        return self.components.at(chosen).rsample(noise)


class Composite:
    """A mixture of distributions over latents, one for each row or one for all, with the given weights."""

    def __init__(self, *parts: tuple[float, Posterior | StandardGaussian]) -> None:
        self.parts = parts

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z (..., d), in nats."""
        terms = [part.log_prob(z) + math.log(share) for share, part in self.parts]
        return torch.stack(terms).logsumexp(0)


def _widened(values: Tensor) -> Tensor:
    return values if values.device.type == "mps" else values.double()  # MPS does not support float64


def normal(shape: torch.Size | tuple[int, ...], generator: Generator | None, like: Tensor) -> Tensor:
    """Standard normal noise on the device and in the dtype of `like`."""
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def bounded(values: Tensor, low: float, high: float) -> Tensor:
    """Clamp values to [low, high], with the gradient of the identity, so that training can return into the interval."""
    return applied(_Bounded, values, low, high)


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, low: float, high: float) -> Tensor:
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None
