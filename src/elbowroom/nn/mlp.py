"""Multi-layer perceptrons, optionally with residual layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from elbowroom.data.sparse import SparseBatch
from elbowroom.nn.layers import Conv2d, Film, Layer, Linear, SparseLinear
from elbowroom.utils.randomness import module_generator


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
        How many of the context's first features encode beta: with several hidden layers, these only scale.
    skip_beta : int or None
        Index of the hidden layer that does not use the code, if there are several (docs/range.md): the one next to the
        rows, 0 in an encoder and -1 in a decoder.
    norm : bool
        Layer norm in every hidden layer (Ba et al. 2016).
    residual : bool
        Hidden layers as wide as the one before have skip connections (He et al. 2016).
    sparse : bool
        Whether rows are sparse batches: the first of the hidden layers is then a `SparseLinear`.
    dropout : float
        Share of the inputs that are dropped in training; the others are scaled up (Srivastava et al. 2014).
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
        skip_beta: int | None = None,
        norm: bool = False,
        residual: bool = False,
        sparse: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.outputs = inputs, tuple(hidden), outputs
        self.activation, self.gated, self.context, self.code, self.skip_beta = (
            activation,
            gated,
            context,
            code,
            skip_beta,
        )
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
        several = len(self.hidden) > 1  # if there is only one layer, its context shifts too
        code, skip_beta = self.code if several else 0, several and self.skip_beta in (i, i - len(self.hidden))
        return Layer(inner, width, self.activation, self.gated, self.context, code, skip_beta, self.norm, adds)

    def _with_dropout(self, h: Any) -> Any:
        if isinstance(h, SparseBatch):  # of the non-zero values
            return h.with_values(self._thinned(h.values))
        return self._thinned(h)

    def _thinned(self, values: Tensor) -> Tensor:
        """`torch.nn.functional.dropout` that draws from `module_generator()`."""
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
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        """Map (n, channels, height, width) to the same shape."""
        return h + self.second(self.first(h, context))
