"""What beta is: the weight of the rate in ``distortion + beta * rate``, in nats per row.

A policy is a frozen value. It is a function of the progress of the run, a number in [0, 1], never of epochs or
steps: the last step sees the final value whatever the size of the data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from elbowroom import specs
from elbowroom.errors import ParameterError

LARGEST = 1e30  # times a rate, it still fits in float32


@dataclass(frozen=True, eq=False)
class Beta(ABC):
    """A policy for beta."""

    @abstractmethod
    def at(self, progress: float) -> float:
        """Beta at a progress in [0, 1] of the run."""

    @property
    def final(self) -> float:
        """Beta at the end of the run, which is also the beta of model selection."""
        return self.at(1.0)

    def __str__(self) -> str:
        """The text form, which `beta_of` reads back; a policy from elsewhere has none, and shows itself."""
        name = next((name for name, policy in POLICIES.items() if policy is type(self)), None)
        if name is None:
            return repr(self)
        return specs.text_form(name, {field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class Constant(Beta):
    """The same beta all along (Higgins et al. 2017, beta-VAE); 1 is the evidence lower bound.

    >>> Constant(4).at(0.2)
    4.0
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _check("beta", self.value, 0)

    def at(self, progress: float) -> float:
        return float(self.value)

    def __str__(self) -> str:
        return specs.value_form(self.value)


@dataclass(frozen=True)
class Warmup(Beta):
    """Linear from `start` to `end` over the first `fraction` of the run (Bowman 2016, Sonderby 2016).

    >>> Warmup(end=2, fraction=0.5).at(0.25)
    1.0
    """

    end: float = 1.0
    fraction: float = 0.3
    start: float = 0.0

    def __post_init__(self) -> None:
        _check("beta end", self.end, 0)
        _check("beta start", self.start, 0)
        _check("beta fraction", self.fraction, 0, 1)

    def at(self, progress: float) -> float:
        return _ramp(self.start, self.end, progress, self.fraction)


@dataclass(frozen=True)
class Cyclical(Beta):
    """`cycles` times: linear from `start` to `end` over the first `ramp` of the cycle, then hold (Fu 2019).

    >>> Cyclical(cycles=2, ramp=0.5).at(0.625)
    0.5
    """

    end: float = 1.0
    cycles: int = 4
    ramp: float = 0.5
    start: float = 0.0

    def __post_init__(self) -> None:
        _check("beta end", self.end, 0)
        _check("beta start", self.start, 0)
        _check("beta ramp", self.ramp, 0, 1)
        _check("beta cycles", self.cycles, 1)
        if self.cycles != int(self.cycles):
            raise ParameterError("beta cycles must be a whole number", f"it is {self.cycles}", "Write cycles=4.")

    def at(self, progress: float) -> float:
        cycle = progress * self.cycles
        within = 1.0 if progress >= 1 else cycle - math.floor(cycle)
        return _ramp(self.start, self.end, within, self.ramp)


def _ramp(start: float, end: float, progress: float, fraction: float) -> float:
    share = 1.0 if progress >= fraction else progress / fraction
    return float(start * (1 - share) + end * share)


def _check(name: str, value: Any, low: float, high: float = LARGEST) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ParameterError(
            f"{name} must be a number from {low:g} to {high:g}",
            f"it is {value!r}",
            "beta=1 is the evidence lower bound.",
        )


def beta_of(value: Beta | float | str) -> Beta:
    """Read a policy from a number, its text form, or a policy.

    >>> beta_of("warmup:end=1,fraction=0.3")
    Warmup(end=1, fraction=0.3, start=0.0)
    >>> beta_of("0.5")
    Constant(value=0.5)
    """
    if isinstance(value, Beta):
        return value
    if isinstance(value, str):
        number = specs.literal(value)
        return Constant(number) if isinstance(number, int | float) else specs.make(value, POLICIES, "beta")
    return Constant(value)


POLICIES: dict[str, type[Beta]] = {"constant": Constant, "warmup": Warmup, "cyclical": Cyclical}
