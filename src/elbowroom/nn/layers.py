"""Layers of networks: linear, convolutional and sparse ones with weights from a seed, modulation by context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elbowroom.data.sparse import SparseBatch
from elbowroom.errors import ParameterError, unknown
from elbowroom.utils.randomness import module_generator

WIDEST = 2**24  # of a layer
ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "softplus": nn.Softplus}


class Linear(nn.Linear):
    """torch's linear map; its first weights come from `module_generator()`."""

    def reset_parameters(self) -> None:
        """Draw the first weights, as torch does."""
        _draw_weights(self)


class Conv2d(nn.Conv2d):
    """torch's convolution; its first weights come from `module_generator()`."""

    def reset_parameters(self) -> None:
        """Draw the first weights, as torch does."""
        _draw_weights(self)


def _draw_weights(module: nn.Linear | nn.Conv2d) -> None:
    """Uniform numbers up to 1 / sqrt(fan-in), as torch has them for linear maps and convolutions."""
    for tensor in (module.weight, module.bias):
        if tensor is not None:
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(tensor, -bound, bound, generator=module_generator())


class ZeroLinear(nn.Module):
    """A linear map without a bias that starts at zero, for contexts.

    Its table is (inputs, outputs), other than that of `nn.Linear`: where inputs are few, its gradient takes a fifth of
    the time so.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))

    def forward(self, context: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return context @ self.weight


class Film(nn.Module):
    """Scale and shift every channel by a linear function of the context (Perez et al. 2018); starts as the identity.

    The first `code` features of the context, which say beta, only scale (docs/range.md).
    """

    one: Tensor

    def __init__(self, context: int, channels: int, spatial: bool = False, code: int = 0) -> None:
        super().__init__()
        self.context, self.spatial, self.code = context, spatial, code
        self.scale = ZeroLinear(context, channels)
        self.shift = ZeroLinear(context - code, channels) if context > code else None  # the layer has a bias already
        self.register_buffer("one", torch.ones(1), persistent=False)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        """Modulate h (..., n, channels), or (n, channels, height, width) where spatial, by context (n, c) or (1, c).

        No context, or what is lacking at its end, means zeros.
        """
        if context is None:
            return h
        if lacking := self.context - context.shape[-1]:
            context = F.pad(context, (0, lacking))
        # 1 + self.scale(context), but in one operation: on small networks it is operations that cost time
        scale = torch.addmm(self.one, context, self.scale.weight)
        h = h * self._placed(scale)
        return h if self.shift is None else h + self._placed(self.shift(context[..., self.code :]))

    def _placed(self, values: Tensor) -> Tensor:
        """Values of channels, (n, channels), where those of h are."""
        return values[..., None, None] if self.spatial else values


class SparseLinear(nn.Module):
    """A linear map of rows that are mostly zeros: the sum of the rows of a table (inputs, outputs), weighted by them.

    Its table starts with a standard deviation of 1 / sqrt(outputs): a row of length 1 then has features of length 1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, generator=module_generator()).div_(math.sqrt(outputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor | SparseBatch) -> Tensor:
        """Map a sparse batch (n, inputs), or rows (..., inputs) as they are, to (..., outputs)."""
        if not isinstance(x, SparseBatch):
            return (x.to(self.weight.dtype) @ self.weight).to(self.bias.dtype) + self.bias
        return x.times(self.weight).to(self.bias.dtype) + self.bias


class Layer(nn.Module):
    """A linear or convolutional map, its norm, its context, its non-linearity.

    `residual` adds its input to it. A layer that is `deaf` does without the context's first `code` features.
    """

    def __init__(
        self,
        inner: nn.Module,
        width: int,
        activation: str,
        gated: bool = False,
        context: int = 0,
        code: int = 0,
        skip_beta: bool = False,
        norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.inner, self.gated, self.residual = inner, gated, residual
        self.norm = nn.LayerNorm(width) if norm else None
        self.skipped = code if skip_beta else 0
        modulation, spatial = context - self.skipped, isinstance(inner, nn.Conv2d)
        self.film = Film(modulation, width, spatial, code - self.skipped) if modulation else None
        self.activation = activation_of(activation)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        """Map features by the linear map, then modulate and bend them."""
        before, h = h, self.inner(h)
        if self.gated:  # h * sigmoid(g), both linear (van den Oord 2016); the gate replaces the activation
            h = F.glu(h, dim=-1)
        if self.norm is not None:
            h = self.norm(h)
        if self.film is not None:
            h = self.film(h, context[..., self.skipped :] if self.skipped and context is not None else context)
        h = h if self.gated else self.activation(h)
        return before + h if self.residual else h


def by_row(context: Tensor, rows: int) -> Tensor:
    """Context (k, c), each of n / k rows, as one of every row, (n, c)."""
    return context if len(context) == rows else context.repeat_interleave(rows // len(context), 0)


def for_draws(context: Tensor | None, lead: Sequence[int]) -> Tensor | None:
    """Context (n, c) as that of rows (*lead, n) made flat; one for all, (1, c), stays so."""
    return context if context is None or len(context) == 1 else context.repeat(math.prod(lead), 1)


def activation_of(name: str) -> nn.Module:
    """The non-linearity with this name."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def check_widths(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    """Refuse layer widths that are not positive whole numbers."""
    try:
        result = tuple(int(width) for width in widths)
        if all(a == b and 0 < a <= WIDEST for a, b in zip(result, widths, strict=True)):
            return result
    except (TypeError, ValueError, OverflowError):
        pass
    raise ParameterError(
        f"{name} must be whole numbers from 1 to {WIDEST:,}",
        f"it is {widths!r:.80}",
        f"Write {name}=(256, 256).",
    )
