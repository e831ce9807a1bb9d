"""Linear, convolutional and sparse layers with seeded initial weights, and modulation by a context."""

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
    """`torch.nn.Linear` with initial weights from `module_generator()`."""

    def reset_parameters(self) -> None:
        """Draw the first weights, as torch does."""
        _draw_weights(self)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with initial weights from `module_generator()`."""

    def reset_parameters(self) -> None:
        """Draw the first weights, as torch does."""
        _draw_weights(self)


def _draw_weights(module: nn.Linear | nn.Conv2d) -> None:
    """Uniform numbers up to 1 / sqrt(fan-in), torch's default for linear maps and convolutions."""
    for tensor in (module.weight, module.bias):
        if tensor is not None:
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(tensor, -bound, bound, generator=module_generator())


class ZeroLinear(nn.Module):
    """A linear map without a bias that starts at zero, for contexts.

    Its weight is (inputs, outputs), the transpose of that of `nn.Linear`: for few inputs, the gradient then takes a
    fifth of the time.
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

    The first `code` features of the context, which encode beta, only scale (docs/range.md).
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

        Without a context, or where its last features are left out, these are zeros.
        """
        if context is None:
            return h
        if lacking := self.context - context.shape[-1]:
            context = F.pad(context, (0, lacking))
        # 1 + self.scale(context) in one operation: small networks are bound by the number of operations
        scale = torch.addmm(self.one, context, self.scale.weight)
        h = h * self._placed(scale)
        return h if self.shift is None else h + self._placed(self.shift(context[..., self.code :]))

    def _placed(self, values: Tensor) -> Tensor:
        """Values of channels, (n, channels), in a shape that broadcasts with h."""
        return values[..., None, None] if self.spatial else values


class SparseLinear(nn.Module):
    """A linear map of sparse rows: the weighted sum of the rows of a table (inputs, outputs).

    The table starts with a standard deviation of 1 / sqrt(outputs): a row of norm 1 then has features of norm 1.
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
    """A linear or convolutional map, then norm, modulation by the context, and non-linearity.

    `residual` adds the input to the result. With `skip_beta` the layer
    does not use the context's first `code` features.
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
        """Apply the linear map, then the modulation and the non-linearity."""
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
    """Context (k, c), each row for n / k rows of data, repeated for every row, (n, c)."""
    return context if len(context) == rows else context.repeat_interleave(rows // len(context), 0)


def for_draws(context: Tensor | None, lead: Sequence[int]) -> Tensor | None:
    """Context (n, c) repeated for flattened rows (*lead, n); one context for all, (1, c), stays as it is."""
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
