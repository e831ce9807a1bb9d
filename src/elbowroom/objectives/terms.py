"""Distortion, rate and penalty of every row, and the only line where beta multiplies the rate."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elbowroom.data.dataset import BinarizedRows, Rows, joined
from elbowroom.models.vae import ModelOutput


class Draws:
    """The draws of z of an importance-weighted bound: `share` scales the gradient that reaches them."""

    def __init__(self, z: Tensor) -> None:
        self.share: Tensor | float = 1.0
        if z.requires_grad:
            z.register_hook(lambda grad: grad * self.share)


class Terms(NamedTuple):
    """The terms of an objective, each in nats per row.

    distortion : -log p(x|z), (n,) or (draws, n); rate : KL(q || p) or its estimate, of the same shape;
    penalty : a term of an objective that beta does not multiply; draws : the draws of z of an importance-weighted
    bound, None for the evidence lower bound.
    """

    distortion: Tensor
    rate: Tensor
    penalty: Tensor | float = 0.0
    draws: Draws | None = None

    def loss(self, beta: float | Tensor) -> Tensor:
        """What training minimises, (n,): the only place where beta multiplies the rate.

        With an importance-weighted bound, only the loss computed last has the right gradient for the encoder.
        """
        cost = self.distortion + beta * self.rate
        if self.draws is not None:
            cost = _importance_weighted(cost, self.draws, beta)
        return cost + self.penalty


def _importance_weighted(cost: Tensor, draws: Draws, beta: float | Tensor) -> Tensor:
    """-log mean exp(-cost) over draws (Burda 2016), with doubly reparameterised gradients (Tucker 2019).

    The value is the bound, and so is the gradient for the decoder. The gradient for the encoder flows through z only,
    where draw i has the weight w_i - beta (w_i - w_i^2): Tucker's w_i^2 at beta = 1, and unbiased at every beta.
    """
    weights = (-cost.detach()).softmax(0)
    draws.share = (1 - beta * (1 - weights)).unsqueeze(-1)
    bound = math.log(len(cost)) - (-cost.detach()).logsumexp(0)
    path = (weights * cost).sum(0)
    return bound + (path - path.detach())


def distortion_of(outcome: ModelOutput, x: Tensor, base: Tensor | None = None) -> Tensor:
    """-log p(x|z) in nats per row; `base` is the part that depends on x only, if already known."""
    if base is None:
        return -outcome.p.log_prob(x)
    return -(outcome.p.log_kernel(x) + base)


def with_base(rows: Rows, likelihood: Any) -> Rows:
    """The rows with the part of their log-probability that has no gradient, computed once; drawn rows have none."""
    if isinstance(rows, BinarizedRows) or rows.base is not None:
        return rows
    with torch.no_grad():
        training, like = likelihood.training, getattr(likelihood, "bias", getattr(likelihood, "like", None))
        likelihood.eval()  # in training mode it may draw
        p = None if like is None else likelihood(like.new_zeros(1, likelihood.n_outputs))
        likelihood.train(training)
        if p is None or not hasattr(p, "log_base"):
            return rows
        at = torch.arange(len(rows)).split(rows.at_once)
        base = joined((p.log_base(rows.dense(index)).expand(len(index)) for index in at), len(rows))
    return rows.with_base(base.float())
