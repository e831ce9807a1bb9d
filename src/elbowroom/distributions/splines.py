"""Warps: smooth monotone maps from the values of a column to standard normal scores, exactly invertible.

Each warp is a monotone rational-quadratic spline through quantiles of the data (Gregory & Delbourgo 1982), extended by
straight lines beyond the smallest and the largest value.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

KNOTS = 33
ROWS_PER_KNOT = 10  # limits the number of knots, so that a warp does not follow single values


class Warp(NamedTuple):
    """The knots of D maps, each (D, K), float64: values, scores, and slopes of the score."""

    values: Tensor
    scores: Tensor
    slopes: Tensor

    @classmethod
    def identity(cls, features: int) -> Self:
        """Identity maps."""
        line = torch.linspace(-1, 1, KNOTS, dtype=torch.float64).repeat(features, 1)
        return cls(line, line.clone(), torch.ones_like(line))

    @classmethod
    def fit(cls, x: Tensor) -> Self:
        """Maps of the columns of x (n, D) to normal scores."""
        knots = [knots_of(column) for column in x.double().T.numpy()]
        values, scores = (torch.from_numpy(np.stack(part)) for part in zip(*knots, strict=True))
        return cls(values, scores, slopes_of(values, scores))

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of values (..., D), and the logarithm of the slope there, float64."""
        x = x.double()
        a, b = self._around(self.values, x)
        width, height = b.values - a.values, b.scores - a.scores
        inside = ((x - a.values) / width).clamp(0, 1)
        rest, slope = 1 - inside, height / width
        curve = slope + (a.slopes + b.slopes - 2 * slope) * inside * rest
        score = a.scores + height * (slope * inside.square() + a.slopes * inside * rest) / curve
        steepness = b.slopes * inside.square() + 2 * slope * inside * rest + a.slopes * rest.square()
        beyond = (x - a.values).clamp_max(0) * a.slopes + (x - b.values).clamp_min(0) * b.slopes
        return score + beyond, 2 * (slope / curve).log() + steepness.log()

    def value(self, u: Tensor) -> Tensor:
        """Values of scores (..., D), float64: the inverse of `score`."""
        u = u.double()
        a, b = self._around(self.scores, u)
        width, height = b.values - a.values, b.scores - a.scores
        left, right = (part.slopes * (width / height) for part in (a, b))  # of the curve, in units of width and height
        up = ((u - a.scores) / height).clamp(0, 1)
        bend = up * (left + right - 2)
        q, r = 1 - left + bend, left - bend
        inside = 2 * up / (r + (r.square() + 4 * q * up).clamp_min(0).sqrt())
        beyond = (u - a.scores).clamp_max(0) / a.slopes + (u - b.scores).clamp_min(0) / b.slopes
        return a.values + width * inside + beyond

    def _around(self, knots: Tensor, at: Tensor) -> tuple[Warp, Warp]:
        """The knots below and above every value (..., D)."""
        flat = at.reshape(-1, len(knots)).T.contiguous()
        index = (torch.searchsorted(knots, flat, right=True) - 1).clamp(0, knots.shape[1] - 2)
        below = (part.gather(1, index).T.view(at.shape) for part in self)
        above = (part.gather(1, index + 1).T.view(at.shape) for part in self)
        return Warp(*below), Warp(*above)


def knots_of(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values at evenly spaced normal scores, and these scores, (K,) each; a constant column gets a straight line."""
    unique, counts = np.unique(column, return_counts=True)
    if len(unique) == 1:
        line = np.linspace(-1, 1, KNOTS)
        return unique[0] + line * max(1.0, abs(unique[0]) * 1e-6), line
    scores = ndtri((np.cumsum(counts) - counts / 2) / counts.sum())
    few = int(np.clip(len(column) // ROWS_PER_KNOT, 2, KNOTS))
    grid = np.linspace(scores[0], scores[-1], few)
    place = np.linspace(0, few - 1, KNOTS)
    at = np.interp(place, np.arange(few), grid)
    values = np.interp(place, np.arange(few), np.interp(grid, scores, unique))
    least = 1e-9 * max(np.ptp(unique), 1e-3 * np.abs(unique).max())
    return values[0] + np.concatenate([[0], np.cumsum(np.maximum(np.diff(values), least))]), at


def slopes_of(values: Tensor, scores: Tensor) -> Tensor:
    """The slope at every knot: the weighted harmonic mean of the slopes on its two sides."""
    width, height = values.diff(dim=1), scores.diff(dim=1)
    share = width[:, 1:] / (width[:, 1:] + width[:, :-1])  # not the squared widths, which could overflow
    flat = width / height
    inner = 1 / (share * flat[:, 1:] + (1 - share) * flat[:, :-1])
    slope = height / width
    return torch.cat([slope[:, :1], inner, slope[:, -1:]], 1)
