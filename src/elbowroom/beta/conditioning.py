"""Beta conditioning: how beta enters the network of a model that was trained on a range of betas."""

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

BUMPS = 6  # a rich, smooth basis: the encoding of beta matters more than where it enters (docs/range.md)
# Adam changes all weights at one speed, so what has a larger code adapts to beta faster (docs/range.md).
CODE_SCALE, LAYER_CODE_SCALE = 3.0, 7.0  # of the code, and of the code in hidden layers


class Modulation(NamedTuple):
    """How beta modulates the network for n rows, or for all rows alike (n = 1).

    code : the first features of their context in hidden layers, (n, width); mean_scale, log_std_shift : what multiplies
    the posterior's means and is added to its log standard deviations, (n, d); input_scale : what multiplies the latents
    that enter the decoder, (n, d); likelihood_shift : what is added to the likelihood's own parameters, (n, shifts), if
    any.
    """

    code: Tensor
    mean_scale: Tensor
    log_std_shift: Tensor
    input_scale: Tensor
    likelihood_shift: Tensor | None

    def beside(self, context: Tensor | None) -> Tensor:
        """The context of hidden layers: the code of beta, then the context of the rows, if any."""
        return self.code if context is None else torch.cat([by_row(self.code, len(context)), context], -1)


class BetaConditioning(nn.Module):
    """Encode log beta as a context for hidden layers, and modulate posterior, latents and likelihood by it.

    The context is log beta itself and Gaussian bumps over its range (radial basis functions). Besides the hidden layers
    it modulates the posterior, the latents that enter the decoder, and the likelihood's own parameters, such as a
    learned scale. The modulation starts as the identity.

    Parameters
    ----------
    low, high : float
        The range of beta.
    latents : int
        d, the number of latents.
    shifts : int
        Parameters of the likelihood that beta shifts, its `n_shifts`.
    beta : float or None
        The default beta; None for 1, or the end of the range that is nearest to it.
    """

    width = 1 + BUMPS
    centres: Tensor
    unmodulated: Tensor

    def __init__(self, low: float, high: float, latents: int, shifts: int = 0, beta: float | None = None) -> None:
        super().__init__()
        span = LogUniform(low, high)
        self.low, self.high, self.latents, self.shifts = float(low), float(high), latents, shifts
        self.beta = span.default if beta is None else self._checked(beta)
        # one product: small networks are bound by the number of operations
        self.projection = ZeroLinear(self.width, 3 * latents + shifts)
        unmodulated = torch.cat([torch.ones(latents), torch.zeros(latents), torch.ones(latents), torch.zeros(shifts)])
        self.register_buffer("unmodulated", unmodulated, persistent=False)
        self.register_buffer("centres", torch.linspace(-1, 1, BUMPS), persistent=False)

    def forward(self, beta: Tensor | None) -> Tensor:
        """The code (..., width) of betas (...), or (1, width) of the default beta."""
        like = self.centres
        beta = like.new_tensor([self.beta]) if beta is None else beta.to(like.dtype)
        middle, half = math.log(self.low * self.high) / 2, math.log(self.high / self.low) / 2
        place = ((beta.log() - middle) / half).unsqueeze(-1)  # from -1 to 1
        steps = (place - self.centres) * ((BUMPS - 1) / 2)  # in distances between neighbours
        return CODE_SCALE * torch.cat([place * math.sqrt(3), (-0.5 * steps.square()).exp()], -1)

    def modulation(self, code: Tensor, rows: int) -> Modulation:
        """The modulation of rows: each of the codes (k, width) is for a block of rows / k rows."""
        code = code if len(code) == 1 else by_row(code, rows)
        values = torch.addmm(self.unmodulated, code, self.projection.weight).to(self.unmodulated.dtype)
        sizes = [self.latents] * 3 + ([self.shifts] if self.shifts else [])  # an empty part would get a gradient too
        # this split is safe because nothing writes to a part
        mean_scale, log_std_shift, input_scale, *rest = torch.unsafe_split_with_sizes(values, sizes, -1)
        return Modulation(
            LAYER_CODE_SCALE / CODE_SCALE * code, mean_scale, log_std_shift, input_scale, rest[0] if rest else None
        )

    def at(self, beta: float) -> Self:
        """A copy with another default beta, which shares all weights."""
        other = copy.copy(self)
        other.beta = self._checked(beta)
        return other

    @property
    def reference(self) -> Tensor:
        """The beta (1,) for parts that do not depend on beta, such as a Vamp prior's pseudo-inputs."""
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
