"""Networks from features to features: MLP, and convolutional or residual networks for images.

Rows are flat everywhere, (..., D); a body for images knows the shape (channels, height, width) of its rows. Every
hidden layer may be modulated by `context`, the one mechanism of conditioning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elbowroom.data.sparse import SparseBatch
from elbowroom.errors import ParameterError, unknown
from elbowroom.randomness import module_generator


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
        deaf: bool = False,
        norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.inner, self.gated, self.residual = inner, gated, residual
        self.norm = nn.LayerNorm(width) if norm else None
        self.skipped = code if deaf else 0
        heard, spatial = context - self.skipped, isinstance(inner, nn.Conv2d)
        self.film = Film(heard, width, spatial, code - self.skipped) if heard else None
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


class MLP(nn.Module):
    """A multi-layer perceptron.

    Parameters
    ----------
    inputs : int
        Features of a row.
    hidden : sequence of int
        Width of every hidden layer; none makes the body linear.
    outputs : int or None
        Width of the linear output layer, or None to end on the last hidden layer (an encoder's body).
    gated : bool
        Gated linear units instead of `activation` (the MLP of the VampPrior paper, Tomczak & Welling 2018).
    context : int
        Width of the context that modulates every hidden layer, or the output where there is none; 0 for no context.
    code : int
        How many features of the context, its first, say beta: where hidden layers are several, they scale alone.
    deaf : int or None
        Which of several hidden layers does without the code (docs/range.md): the one next to the rows, which is 0 in
        an encoder and -1 in a decoder.
    norm : bool
        Layer norm in every hidden layer (Ba et al. 2016).
    residual : bool
        Hidden layers as wide as the one before add what they are given (He et al. 2016).
    sparse : bool
        Whether rows are sparse batches: the first of the hidden layers is then a `SparseLinear`.
    dropout : float
        Share of the inputs that training leaves out; the others are scaled up (Srivastava et al. 2014).
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int] = (256, 256),
        outputs: int | None = None,
        activation: str = "silu",
        gated: bool = False,
        context: int = 0,
        code: int = 0,
        deaf: int | None = None,
        norm: bool = False,
        residual: bool = False,
        sparse: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.outputs = inputs, tuple(hidden), outputs
        self.activation, self.gated, self.context, self.code, self.deaf = activation, gated, context, code, deaf
        self.norm, self.residual, self.sparse, self.dropout = norm, residual, sparse, dropout
        self.layers = nn.ModuleList(self._layer(i, *sizes) for i, sizes in enumerate(pairwise((inputs, *self.hidden))))
        self.last = Linear((inputs, *self.hidden)[-1], outputs, bias=False) if outputs is not None else None
        self.width = outputs if outputs is not None else (inputs, *self.hidden)[-1]
        self.film = Film(context, self.width) if context and not self.hidden else None

    def forward(self, h: Any, context: Tensor | None = None) -> Tensor:
        """Map (..., inputs), a Tensor or a sparse batch, to (..., width)."""
        if self.dropout:
            h = self._with_dropout(h)
        for layer in self.layers:
            h = layer(h, context)
        if self.last is not None:
            h = self.last(h)
        return h if self.film is None else self.film(h, context)

    def _layer(self, i: int, before: int, width: int) -> Layer:
        sparse = self.sparse and i == 0
        inner = (SparseLinear if sparse else Linear)(before, width * (1 + self.gated))
        adds = self.residual and before == width and not sparse
        several = len(self.hidden) > 1  # where a layer is the only one, what it hears shifts too
        code, deaf = self.code if several else 0, several and self.deaf in (i, i - len(self.hidden))
        return Layer(inner, width, self.activation, self.gated, self.context, code, deaf, self.norm, adds)

    def _with_dropout(self, h: Any) -> Any:
        if isinstance(h, SparseBatch):  # of what is not zero
            return h.with_values(self._thinned(h.values))
        return self._thinned(h)

    def _thinned(self, values: Tensor) -> Tensor:
        """`torch.nn.functional.dropout`, but that it draws from `module_generator()`."""
        if not self.training:
            return values
        kept = torch.empty_like(values).bernoulli_(1 - self.dropout, generator=module_generator())
        return values * kept.div_(1 - self.dropout)


class Residual(nn.Module):
    """h + two 3x3 convolutions of h; the second starts at zero, so that the block starts as the identity."""

    def __init__(self, channels: int, activation: str, context: int, code: int = 0) -> None:
        super().__init__()
        self.first = Layer(Conv2d(channels, channels, 3, padding=1), channels, activation, context=context, code=code)
        self.second = Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        """Map (n, channels, height, width) to the same shape."""
        return h + self.second(self.first(h, context))


class ImageEncoder(nn.Module):
    """Convolutions that halve an image, stage by stage, then one dense layer.

    Parameters
    ----------
    shape : (channels, height, width)
        Shape of a row.
    channels : sequence of int
        Channels of every stage; each halves height and width (rounded up).
    blocks : int
        Residual blocks in every stage; 0 makes a plain convolutional network.
    width : int
        Width of the dense layer, which is what the body returns.
    context, code : int
        Width of the context, and how many features of it, its first, say beta: they scale alone, and not in the first
        convolution.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        blocks: int = 0,
        width: int = 256,
        activation: str = "silu",
        context: int = 0,
        code: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.channels, self.blocks = tuple(shape), tuple(channels), blocks
        self.width, self.activation, self.context, self.code = width, activation, context, code
        told: dict[str, Any] = {"context": context, "code": code}
        self.stages = nn.ModuleList()
        for i, (a, b) in enumerate(pairwise((self.shape[0], *self.channels))):
            self.stages.append(Layer(Conv2d(a, b, 3, stride=2, padding=1), b, activation, **told, deaf=i == 0))
            self.stages.extend(Residual(b, activation, **told) for _ in range(blocks))
        height, width_ = halvings(self.shape, len(self.channels))[-1]
        self.dense = Layer(Linear(self.channels[-1] * height * width_, width), width, activation, **told)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map flat images (..., c*h*w) to (..., width)."""
        h = x.reshape(-1, *self.shape)
        context = for_draws(context, x.shape[:-2])
        for stage in self.stages:
            h = stage(h, context)
        return self.dense(h.flatten(1), context).view(*x.shape[:-1], self.width)


class ImageDecoder(nn.Module):
    """The mirror of `ImageEncoder`: a dense layer, then stages that double the image, then `outputs` values a pixel.

    Its result is flat, (..., outputs * c*h*w), with `outputs` as the slowest axis, as likelihoods expect.
    """

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        blocks: int = 0,
        width: int = 256,
        outputs: int = 1,
        activation: str = "silu",
        context: int = 0,
        code: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.shape, self.channels, self.blocks = inputs, tuple(shape), tuple(channels), blocks
        self.width, self.outputs, self.activation, self.context, self.code = width, outputs, activation, context, code
        told: dict[str, Any] = {"context": context, "code": code}
        self.sizes = halvings(self.shape, len(self.channels))[::-1]
        start = self.channels[-1] * math.prod(self.sizes[0])
        self.dense = nn.ModuleList(
            [
                Layer(Linear(inputs, width), width, activation, **told),
                Layer(Linear(width, start), start, activation, **told, deaf=len(self.channels) == 1),
            ]
        )
        self.residuals = nn.ModuleList(
            nn.ModuleList(Residual(a, activation, **told) for _ in range(blocks)) for a in reversed(self.channels)
        )
        self.doublings = nn.ModuleList(
            Layer(Conv2d(a, b, 3, padding=1), b, activation, **told, deaf=stage == len(self.channels))
            for stage, (a, b) in enumerate(pairwise(reversed(self.channels)), 2)
        )
        self.last = Conv2d(self.channels[0], 4 * outputs * self.shape[0], 3, padding=1, bias=False)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latents (..., inputs) to (..., outputs * c*h*w)."""
        lead = z.shape[:-1]
        h = z.reshape(-1, self.inputs)
        context = for_draws(context, lead[:-1])
        for layer in self.dense:
            h = layer(h, context)
        h = h.view(-1, self.channels[-1], *self.sizes[0])
        for stage, blocks in enumerate(self.residuals):
            if stage:
                h = self.doublings[stage - 1](F.interpolate(h, size=self.sizes[stage], mode="nearest"), context)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, context)
        height, width = self.sizes[-1]
        pixels = F.pixel_shuffle(self.last(h), 2)[..., :height, :width]  # four pixels a place: no layer at full size
        return pixels.reshape(*lead, -1)


def by_row(context: Tensor, rows: int) -> Tensor:
    """Context (k, c), each of n / k rows, as one of every row, (n, c)."""
    return context if len(context) == rows else context.repeat_interleave(rows // len(context), 0)


def for_draws(context: Tensor | None, lead: Sequence[int]) -> Tensor | None:
    """Context (n, c) as that of rows (*lead, n) made flat; one for all, (1, c), stays so."""
    return context if context is None or len(context) == 1 else context.repeat(math.prod(lead), 1)


def halvings(shape: Sequence[int], stages: int) -> list[tuple[int, int]]:
    """Height and width of an image before and after each of `stages` halvings, rounded up."""
    if stages < 1:
        raise ParameterError("channels must have at least one stage", "there is none", "Write channels=(32, 64).")
    sizes = [(int(shape[-2]), int(shape[-1]))]
    for _ in range(stages):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


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


WIDEST = 2**24  # of a layer
ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "softplus": nn.Softplus}
BODIES = {"MLP": MLP, "ImageEncoder": ImageEncoder, "ImageDecoder": ImageDecoder}
