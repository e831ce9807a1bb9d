"""The training objectives: the evidence lower bound and the importance-weighted bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from elbowroom.data.dataset import Batch
from elbowroom.errors import ParameterError
from elbowroom.models.vae import VAE, ModelOutput
from elbowroom.objectives.terms import Draws, Terms, distortion_of
from elbowroom.utils import specs


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound (Kingma & Welling 2014), optionally with free bits (Kingma et al. 2016).

    The rate of a latent whose mean is below `free_bits` nats has no gradient. The reported rate is the true one; it
    can not go below a floor of about free_bits * d nats per row.
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

    def _free(self, outcome: ModelOutput) -> Tensor:
        """The rate, without the gradient of latents that are below the floor."""
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


class Objective(Protocol):
    """What an objective is: a function of a model and a batch.

    If it has an attribute `draws`, so many draws of z are made of each row, and fewer held-out rows are in memory at
    once.
    """

    def __call__(self, model: VAE, batch: Batch, noise: Tensor | Generator | None, code: Tensor | None = None) -> Terms:
        """Distortion, rate and penalty of every row, in nats; `noise` is for z, and `code` is that of betas."""


def _text(objective: Any) -> str:
    name = next(name for name, kind in OBJECTIVES.items() if kind is type(objective))
    return specs.text_form(name, {f.name: getattr(objective, f.name) for f in fields(objective)})


def objective_of(value: Objective | str) -> Objective:
    """Read an objective from its text form, such as ``"iwae:draws=8"``, or take it as it is.

    Raises
    ------
    ParameterError
        If there is no such objective, or it is a class.

    >>> objective_of("elbo:free_bits=0.1")
    Elbo(free_bits=0.1)
    """
    if isinstance(value, type):
        name = value.__name__
        raise ParameterError("objective must be an object", f"it is the class {name}", f"Write objective={name}().")
    return specs.make(value, OBJECTIVES, "objective") if isinstance(value, str) else value


def terms_of(
    objective: Objective, model: VAE, batch: Batch, noise: Tensor | Generator | None, code: Tensor | None = None
) -> Terms:
    """The terms of an objective for a batch.

    Raises
    ------
    ParameterError
        If it returns something else, or distortion and rate do not have one value for each row: they would broadcast.
    """
    terms = objective(model, batch, noise, code)
    if not isinstance(terms, Terms):
        got = f"{objective!r:.60} returns {type(terms).__name__}"
        raise ParameterError("an objective must return Terms", got, "Return Terms(distortion, rate).")
    shapes = tuple(terms.distortion.shape), tuple(terms.rate.shape)
    if shapes[0] != shapes[1] or shapes[0][-1:] != (len(batch.x),):
        raise ParameterError(
            f"distortion and rate must have one value for each of the {len(batch.x)} rows of a batch",
            f"their shapes are {shapes[0]} and {shapes[1]}",
            "Sum over features and latents.",
        )
    return terms


OBJECTIVES = {"elbo": Elbo, "iwae": Iwae}
