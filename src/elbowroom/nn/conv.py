"""Convolutional encoders and decoders of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from elbowroom.errors import ParameterError
from elbowroom.nn.layers import Conv2d, Layer, Linear, for_draws
from elbowroom.nn.mlp import Residual


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
        Width of the context, and how many of its first features encode beta: these only scale, and not in the first
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
        options: dict[str, Any] = {"context": context, "code": code}
        self.stages = nn.ModuleList()
        for i, (a, b) in enumerate(pairwise((self.shape[0], *self.channels))):
            self.stages.append(Layer(Conv2d(a, b, 3, stride=2, padding=1), b, activation, **options, skip_beta=i == 0))
            self.stages.extend(Residual(b, activation, **options) for _ in range(blocks))
        height, width_ = halvings(self.shape, len(self.channels))[-1]
        self.dense = Layer(Linear(self.channels[-1] * height * width_, width), width, activation, **options)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map flat images (..., c*h*w) to (..., width)."""
        h = x.reshape(-1, *self.shape)
        context = for_draws(context, x.shape[:-2])
        for stage in self.stages:
            h = stage(h, context)
        return self.dense(h.flatten(1), context).view(*x.shape[:-1], self.width)


class ImageDecoder(nn.Module):
    """The mirror of `ImageEncoder`: a dense layer, stages that double the image, then `outputs` values per pixel.

    The result is flat, (..., outputs * c*h*w), with `outputs` as the slowest axis, as likelihoods expect.
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
        options: dict[str, Any] = {"context": context, "code": code}
        self.sizes = halvings(self.shape, len(self.channels))[::-1]
        start = self.channels[-1] * math.prod(self.sizes[0])
        self.dense = nn.ModuleList(
            [
                Layer(Linear(inputs, width), width, activation, **options),
                Layer(Linear(width, start), start, activation, **options, skip_beta=len(self.channels) == 1),
            ]
        )
        self.residuals = nn.ModuleList(
            nn.ModuleList(Residual(a, activation, **options) for _ in range(blocks)) for a in reversed(self.channels)
        )
        self.doublings = nn.ModuleList(
            Layer(Conv2d(a, b, 3, padding=1), b, activation, **options, skip_beta=stage == len(self.channels))
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
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                h = block(h, context)
        height, width = self.sizes[-1]
        # four pixels per position, so that no layer works at full size
        pixels = F.pixel_shuffle(self.last(h), 2)[..., :height, :width]
        return pixels.reshape(*lead, -1)


def halvings(shape: Sequence[int], stages: int) -> list[tuple[int, int]]:
    """Height and width of an image before and after each of `stages` halvings, rounded up."""
    if stages < 1:
        raise ParameterError("channels must have at least one stage", "it is empty", "Write channels=(32, 64).")
    sizes = [(int(shape[-2]), int(shape[-1]))]
    for _ in range(stages):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes
