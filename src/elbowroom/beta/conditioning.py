"""The dial of a model that knows a range of beta: what tells the network which beta it is asked for."""

from __future__ import annotations

import copy
import math
from numbers import Real
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from elbowroom.beta.policies import LogUniform
from elbowroom.errors import ParameterError
from elbowroom.nn.layers import ZeroLinear, by_row

BUMPS = 6  # a rich, smooth basis: how beta enters matters more than what it then does (docs/range.md)
# The optimiser moves all weights at one speed: what hears beta louder changes faster with it (docs/range.md).
LOUD, LOUD_LAYERS = 3.0, 7.0  # how loud the code is, and how loud it is in hidden layers


class Heard(NamedTuple):
    """What n rows, or all of them alike (n = 1), hear of their beta.

    code : the first features of their context in hidden layers, (n, width); means, wider : what the posterior's means
    are multiplied by and its log standard deviations are moved by, (n, d); entry : what the latents that enter the
    decoder are multiplied by, (n, d); own : what the likelihood's own parameters are moved by, (n, moved), if it has
    such.
    """

    code: Tensor
    means: Tensor
    wider: Tensor
    entry: Tensor
    own: Tensor | None

    def beside(self, context: Tensor | None) -> Tensor:
        """The context of hidden layers: that of beta, then that of the rows, if they have one."""
        return self.code if context is None else torch.cat([by_row(self.code, len(context)), context], -1)


class Dial(nn.Module):
    """Log beta as a context for hidden layers, and what beta moves beside them.

    The context is log beta itself and Gaussian bumps over its range (radial basis functions). Beside the hidden layers
    it moves the posterior, the latents that enter the decoder, and the parameters that a likelihood has beside the
    decoder's output, such as a learned scale. Everything starts as if there were no dial.

    Parameters
    ----------
    low, high : float
        The range of beta.
    latents : int
        d, the number of latents.
    moved : int
        Parameters of the likelihood that the dial moves, its `n_moved`.
    beta : float or None
        Where the dial stands when no beta is asked for; None for 1, or the end of the range that is nearest to it.
    """

    width = 1 + BUMPS
    centres: Tensor
    unmoved: Tensor

    def __init__(self, low: float, high: float, latents: int, moved: int = 0, beta: float | None = None) -> None:
        super().__init__()
        span = LogUniform(low, high)
        self.low, self.high, self.latents, self.moved = float(low), float(high), latents, moved
        self.beta = span.default if beta is None else self._checked(beta)
        self.moves = ZeroLinear(self.width, 3 * latents + moved)  # one product: a small network's time is operations
        unmoved = torch.cat([torch.ones(latents), torch.zeros(latents), torch.ones(latents), torch.zeros(moved)])
        self.register_buffer("unmoved", unmoved, persistent=False)
        self.register_buffer("centres", torch.linspace(-1, 1, BUMPS), persistent=False)

    def forward(self, beta: Tensor | None) -> Tensor:
        """The code (..., width) of betas (...), or (1, width) of where the dial stands."""
        like = self.centres
        beta = like.new_tensor([self.beta]) if beta is None else beta.to(like.dtype)
        middle, half = math.log(self.low * self.high) / 2, math.log(self.high / self.low) / 2
        place = ((beta.log() - middle) / half).unsqueeze(-1)  # from -1 to 1
        steps = (place - self.centres) * ((BUMPS - 1) / 2)  # in distances between neighbours
        return LOUD * torch.cat([place * math.sqrt(3), (-0.5 * steps.square()).exp()], -1)

    def heard(self, code: Tensor, rows: int) -> Heard:
        """What rows hear: codes (k, width) are those of blocks of rows / k rows each; one is that of all rows."""
        code = code if len(code) == 1 else by_row(code, rows)
        values = torch.addmm(self.unmoved, code, self.moves.weight).to(self.unmoved.dtype)
        sizes = [self.latents] * 3 + ([self.moved] if self.moved else [])  # an empty part would have a gradient made
        means, wider, entry, *own = torch.unsafe_split_with_sizes(values, sizes, -1)  # safe: nothing writes to a part
        return Heard(LOUD_LAYERS / LOUD * code, means, wider, entry, own[0] if own else None)

    def at(self, beta: float) -> Self:
        """The same dial, turned to a beta: the weights are shared."""
        other = copy.copy(self)
        other.beta = self._checked(beta)
        return other

    @property
    def reference(self) -> Tensor:
        """The beta (1,) that is told what is the same for all betas, such as a Vamp prior's pseudo-inputs."""
        return self.centres.new_tensor([LogUniform(self.low, self.high).default])

    def _checked(self, beta: float) -> float:
        number = isinstance(beta, Real) and not isinstance(beta, bool)
        if not number or not self.low * (1 - 1e-6) <= beta <= self.high * (1 + 1e-6):
            raise ParameterError(
                f"beta must be in the range from {self.low:g} to {self.high:g} that the model was trained on",
                f"it is {beta!r}",
                "Choose one within, or train on a wider range.",
            )
        return min(max(float(beta), self.low), self.high)
