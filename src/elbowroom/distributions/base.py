"""The base class of distributions over rows, and shared functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor


class RowDistribution(ABC):
    """p(x|z) over rows: parameters (..., D), data (n, D) in any dtype, one log-probability per row."""

    def log_kernel(self, x: Tensor) -> Tensor:
        """The terms of log p(x|z) that depend on the parameters, in nats, (...,)."""
        return self.kernel_cells(x).sum(-1)

    def log_base(self, x: Tensor) -> Tensor:
        """The terms of log p(x|z) that depend on x only, in nats, (n,)."""
        return self.base_cells(x).sum(-1)

    def kernel_cells(self, x: Tensor) -> Tensor:
        """`log_kernel` of each cell, (..., D), where the features are independent given z."""
        raise NotImplementedError(f"{type(self).__name__} has no log-probabilities of single cells")

    def base_cells(self, x: Tensor) -> Tensor:
        """`log_base` of each cell, (n, D)."""
        return torch.zeros((), device=x.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) of every row, in nats, (...,)."""
        return self.log_kernel(x) + self.log_base(x)

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[x|z], (..., D)."""

    @abstractmethod
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw of x for each z, (..., D)."""


def applied(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """Apply a custom autograd function."""
    result: Tensor = function.apply(*inputs)
    return result


def in_units(x: Tensor, loc: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    """(x - loc) / scale, subtracted in the precision of x (as time stamps require), then in the model's dtype."""
    if x.is_floating_point():
        loc, scale = loc.to(x.dtype), scale.to(x.dtype)
    return ((x - loc) / scale).to(like.dtype)


def log_factorial(x: Tensor) -> Tensor:
    """log x!, in float64."""
    return (x.double() + 1).lgamma()


def uniform(like: Tensor, generator: Generator | None) -> Tensor:
    """Uniform noise in the open interval (0, 1), with the shape of `like`."""
    tiny = torch.finfo(like.dtype).eps
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device).clamp(tiny, 1 - tiny)


def gamma(concentration: Tensor, generator: Generator | None) -> Tensor:
    """Gamma noise with unit rate."""
    return _gamma(concentration, generator=generator).clamp_min(torch.finfo(concentration.dtype).tiny)


def plain_gamma(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """The same bits as `torch._standard_gamma`, by a public function without a generator argument.

    The default generator temporarily has the state of `generator`: no other thread may draw from it meanwhile.
    """
    gammas = torch.distributions.Gamma(concentration, torch.ones_like(concentration), validate_args=False)
    if generator is None:
        return gammas.rsample()
    device = generator.device
    kind: Any = torch if device.type == "cpu" else torch.get_device_module(device)
    place = (device,) if device.type == "cuda" else ()
    before = kind.get_rng_state(*place)
    try:
        kind.set_rng_state(generator.get_state(), *place)
        draws = gammas.rsample()
        generator.set_state(kind.get_rng_state(*place))
    finally:
        kind.set_rng_state(before, *place)
    return draws


# Private in torch, whose public Gamma takes no generator; `plain_gamma` replaces it if it was removed.
_gamma: Callable[..., Tensor] = getattr(torch, "_standard_gamma", plain_gamma)
