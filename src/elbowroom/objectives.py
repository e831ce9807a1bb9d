"""Objectives: from a Pass to Terms, and the one line where beta meets the rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from elbowroom import specs
from elbowroom.data.rows import Batch, BinarizedRows, Rows, joined
from elbowroom.errors import ParameterError
from elbowroom.vae import VAE, Pass


class Draws:
    """The draws of z of an importance-weighted bound: `share` is what the gradient that reaches them is scaled by."""

    def __init__(self, z: Tensor) -> None:
        self.share: Tensor | float = 1.0
        if z.requires_grad:
            z.register_hook(lambda grad: grad * self.share)


class Terms(NamedTuple):
    """The terms of an objective, each in nats per row.

    distortion : -log p(x|z), (n,) or (draws, n); rate : KL(q || p) or its estimate, of the same shape;
    penalty : whatever an objective adds that beta does not weigh; draws : the draws of z of an importance-weighted
    bound, None for the evidence lower bound.
    """

    distortion: Tensor
    rate: Tensor
    penalty: Tensor | float = 0.0
    draws: Draws | None = None

    def loss(self, beta: float | Tensor) -> Tensor:
        """What training minimises, (n,): the only place where beta multiplies the rate.

        Of the losses of an importance-weighted bound at several betas, the last one made has the right gradient.
        """
        cost = self.distortion + beta * self.rate
        if self.draws is not None:
            cost = _importance_weighted(cost, self.draws, beta)
        return cost + self.penalty


def _importance_weighted(cost: Tensor, draws: Draws, beta: float | Tensor) -> Tensor:
    """-log mean exp(-cost) over draws (Burda 2016), with doubly reparameterised gradients (Tucker 2019).

    The value is the bound. Its gradient by the decoder is the bound's own. By the encoder it flows through z alone,
    where draw i has the weight w_i - beta (w_i - w_i^2): Tucker's w_i^2 at beta = 1, and unbiased at every beta.
    """
    weights = (-cost.detach()).softmax(0)
    draws.share = (1 - beta * (1 - weights)).unsqueeze(-1)
    bound = math.log(len(cost)) - (-cost.detach()).logsumexp(0)
    path = (weights * cost).sum(0)
    return bound + (path - path.detach())


def distortion_of(outcome: Pass, x: Tensor, base: Tensor | None = None) -> Tensor:
    """-log p(x|z) in nats per row; `base` is the part that depends on x alone, where it is already known."""
    if base is None:
        return -outcome.p.log_prob(x)
    return -(outcome.p.log_kernel(x) + base)


def with_base(rows: Rows, likelihood: Any) -> Rows:
    """The rows with the part of their log-probability that no gradient sees, computed once; drawn rows have none."""
    if isinstance(rows, BinarizedRows) or rows.base is not None:
        return rows
    with torch.no_grad():
        training, like = likelihood.training, getattr(likelihood, "bias", getattr(likelihood, "like", None))
        likelihood.eval()  # in training it may draw
        p = None if like is None else likelihood(like.new_zeros(1, likelihood.n_outputs))
        likelihood.train(training)
        if p is None or not hasattr(p, "log_base"):
            return rows
        at = torch.arange(len(rows)).split(rows.at_once)
        base = joined((p.log_base(rows.dense(index)).expand(len(index)) for index in at), len(rows))
    return rows.with_base(base.float())


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound (Kingma & Welling 2014), with free bits if asked for (Kingma et al. 2016).

    `free_bits` nats per latent are free of charge: a latent whose mean rate is below feels no pull to the prior.
    The reported rate stays the true one; the run can not go below a floor of about free_bits * d nats per row.
    """

    free_bits: float = 0.0

    def __post_init__(self) -> None:
        number = isinstance(self.free_bits, Real) and not isinstance(self.free_bits, bool)
        if not number or not 0 <= self.free_bits < math.inf:
            raise ParameterError(
                "free_bits must be a number of nats, at least 0", f"it is {self.free_bits!r}", "Try 0.1."
            )

    def __call__(self, model: VAE, batch: Batch, noise: Tensor | Generator | None, code: Tensor | None = None) -> Terms:
        x, context, base = batch
        outcome = model(x, context, noise, code=code)
        rate = self._free(outcome) if self.free_bits else outcome.rate
        return Terms(distortion_of(outcome, x, base), rate)

    def _free(self, outcome: Pass) -> Tensor:
        """The rate in value, without the gradient of the latents that are below the floor."""
        if outcome.rate_parts is None:  # q or the prior does not factorise: one floor for all latents together
            floor = self.free_bits * outcome.z.shape[-1]
            return torch.where(outcome.rate.mean() > floor, outcome.rate, outcome.rate.detach())
        charged = outcome.rate_parts.mean(0) > self.free_bits
        return torch.where(charged, outcome.rate_parts, outcome.rate_parts.detach()).sum(-1)

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True)
class Iwae:
    """The importance-weighted bound of `draws` draws (Burda 2016), with doubly reparameterised encoder gradients."""

    draws: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 1:
            raise ParameterError(
                "iwae draws must be a whole number, at least 1", f"it is {self.draws!r}", "Try draws=8."
            )

    def __call__(self, model: VAE, batch: Batch, noise: Tensor | Generator | None, code: Tensor | None = None) -> Terms:
        x, context, base = batch
        outcome = model(x, context, noise, self.draws, code)
        log_ratio = outcome.q.detach().log_prob(outcome.z) - outcome.prior.log_prob(outcome.z)
        return Terms(distortion_of(outcome, x, base), log_ratio, draws=Draws(outcome.z))

    def __str__(self) -> str:
        return _text(self)


Objective = Elbo | Iwae


def _text(objective: Any) -> str:
    name = next(name for name, kind in OBJECTIVES.items() if kind is type(objective))
    return specs.text_form(name, {f.name: getattr(objective, f.name) for f in fields(objective)})


def objective_of(value: Objective | str) -> Objective:
    """Read an objective from its text form, such as ``"iwae:draws=8"``, or take it as it is.

    >>> objective_of("elbo:free_bits=0.1")
    Elbo(free_bits=0.1)
    """
    return specs.make(value, OBJECTIVES, "objective") if isinstance(value, str) else value


OBJECTIVES = {"elbo": Elbo, "iwae": Iwae}
