"""p(x|z) over rows of tables: columns of several kinds, warped numbers, ordered codes, and rows with holes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from elbowroom.distributions import RowDistribution, uniform
from elbowroom.gaussians import HALF_LOG_2PI, normal
from elbowroom.warps import Warp

NODES = 64  # of the quadrature for a mean
END = 1e4  # a threshold that nothing is beyond


class Mixed(RowDistribution):
    """Groups of columns, each with a distribution of its own; independent given z."""

    def __init__(self, parts: list[RowDistribution], columns: list[Tensor]) -> None:
        self.parts, self.columns = parts, columns

    def log_kernel(self, x: Tensor) -> Tensor:
        return torch.stack([p.log_kernel(x[:, c]) for p, c in zip(self.parts, self.columns, strict=True)]).sum(0)

    def log_base(self, x: Tensor) -> Tensor:
        bases = [p.log_base(x[:, c]).double().expand(len(x)) for p, c in zip(self.parts, self.columns, strict=True)]
        return torch.stack(bases).sum(0)

    def kernel_cells(self, x: Tensor) -> Tensor:
        return self._join([p.kernel_cells(x[:, c]) for p, c in zip(self.parts, self.columns, strict=True)])

    def base_cells(self, x: Tensor) -> Tensor:
        parts = [(p.base_cells(x[:, c]).double(), c) for p, c in zip(self.parts, self.columns, strict=True)]
        return self._join([base.expand(len(x), len(c)) for base, c in parts])

    @property
    def mean(self) -> Tensor:
        return self._join([part.mean for part in self.parts])

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self._join([part.sample(generator) for part in self.parts])

    def _join(self, values: list[Tensor]) -> Tensor:
        """Values of the groups (..., D) in the order of the columns, in the widest of their dtypes."""
        order = torch.cat(self.columns).argsort()
        return torch.cat(values, -1)[..., order]


class Table(Mixed):
    """Columns of several kinds, in rows with holes (NaN): a hole has no say. `fill` (D,) is what columns know."""

    def __init__(self, parts: list[RowDistribution], columns: list[Tensor], fill: Tensor) -> None:
        super().__init__(parts, columns)
        self.fill = fill

    def log_kernel(self, x: Tensor) -> Tensor:
        return self.kernel_cells(x).sum(-1)

    def log_base(self, x: Tensor) -> Tensor:
        return self.base_cells(x).sum(-1)

    def kernel_cells(self, x: Tensor) -> Tensor:
        hole = x.isnan()
        return super().kernel_cells(x.where(~hole, self.fill)).masked_fill(hole, 0)

    def base_cells(self, x: Tensor) -> Tensor:
        hole = x.isnan()
        return super().base_cells(x.where(~hole, self.fill)).masked_fill(hole, 0)


class Warped(RowDistribution):
    """Numbers whose normal scores, by a monotone warp, are Gaussian; with `log`, the warp is of their logarithm."""

    def __init__(self, mean: Tensor, log_std: Tensor, warp: Warp, log: bool = False) -> None:
        self.location, self.log_std, self.warp, self.log = mean, log_std, warp, log

    def kernel_cells(self, x: Tensor) -> Tensor:
        score = self.warp.score(self._inner(x))[0].to(self.location.dtype)
        return -(0.5 * ((score - self.location) * (-self.log_std).exp()).square() + self.log_std)

    def base_cells(self, x: Tensor) -> Tensor:
        inner = self._inner(x)
        return self.warp.score(inner)[1] - HALF_LOG_2PI - (inner if self.log else 0)

    @property
    def mean(self) -> Tensor:
        """E[x|z], by Gauss-Hermite quadrature over the scores."""
        nodes, weights = (self.location.new_tensor(part, dtype=torch.float64) for part in _HERMITE)
        scores = self.location.double() + self.log_std.double().exp() * nodes.view(-1, *[1] * self.location.dim())
        return torch.tensordot(weights, self._outer(scores), 1)

    def sample(self, generator: Generator | None = None) -> Tensor:
        noise = normal(self.location.shape, generator, self.location)
        return self._outer(self.location + self.log_std.exp() * noise)

    def _inner(self, x: Tensor) -> Tensor:
        return x.double().log() if self.log else x.double()

    def _outer(self, scores: Tensor) -> Tensor:
        return self.warp.value(scores).exp() if self.log else self.warp.value(scores)


_HERMITE = tuple(
    part / scale
    for part, scale in zip(np.polynomial.hermite_e.hermegauss(NODES), (1.0, math.sqrt(2 * math.pi)), strict=True)
)


class Ordinal(RowDistribution):
    """Codes with an order: a logistic variable cut at thresholds (McCullagh 1980).

    `edges` (D, L+1) are the thresholds around L codes, -END and END where nothing is beyond. With `floors` (D,), lower
    and higher codes go on at the distance `pace` (D,), down to the floor, which is -inf where there is none.
    """

    def __init__(
        self, location: Tensor, log_scale: Tensor, edges: Tensor, pace: Tensor, floors: Tensor | None = None
    ) -> None:
        self.location, self.log_scale, self.edges, self.pace, self.floors = location, log_scale, edges, pace, floors

    def kernel_cells(self, x: Tensor) -> Tensor:
        precision = (-self.log_scale).exp()
        low, high = edges_around(x, self.edges, self.pace, self.floors)
        # before they are rounded: of 20,000 codes, neighbouring thresholds are the same number in float32
        low, high, width = (edge.to(self.location.dtype) for edge in (low, high, high - low))
        below, above = (high - self.location) * precision, (self.location - low) * precision
        # log(S(b) - S(a)) = log S(b) + log S(-a) + log(1 - exp(a - b)), exact for all a < b
        return F.logsigmoid(below) + F.logsigmoid(above) + (-torch.expm1(-width * precision)).log()

    @property
    def mean(self) -> Tensor:
        """The median: codes are places in an order, whose average means nothing."""
        return self._code(self.location)

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self._code(self.location + self.log_scale.exp() * uniform(self.location, generator).logit())

    def _code(self, latent: Tensor) -> Tensor:
        """The code whose edges are around a value (..., D)."""
        flat = latent.reshape(-1, len(self.edges)).T.contiguous().to(self.edges.dtype)
        code = (torch.searchsorted(self.edges, flat) - 1).T.view(latent.shape).to(latent.dtype)
        last = self.edges.shape[1] - 2
        if self.floors is None:
            return code.clamp(0, last)
        under = ((latent - self.edges[:, 0]) / self.pace).ceil().clamp_max(0) - 1
        over = ((latent - self.edges[:, -1]) / self.pace).ceil().clamp_min(1) + last
        found = torch.where(code < 0, under, torch.where(code > last, over, code))
        return torch.maximum(found, self.floors).to(latent.dtype)


def edges_around(x: Tensor, edges: Tensor, pace: Tensor, floors: Tensor | None) -> tuple[Tensor, Tensor]:
    """The thresholds below and above codes (..., D)."""
    return _edge(x, edges, pace, floors), _edge(x + 1, edges, pace, floors)


def _edge(x: Tensor, edges: Tensor, pace: Tensor, floors: Tensor | None) -> Tensor:
    """The threshold below codes (..., D)."""
    last = edges.shape[1] - 1
    inside = x.clamp(0, last)
    at = inside.reshape(-1, len(edges)).T.long()
    edge = edges.gather(1, at).T.view(x.shape) + (x - inside) * pace
    return edge if floors is None else torch.where(x <= floors, -END, edge)
