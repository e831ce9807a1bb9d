"""Policies for beta, the weight of the rate in ``distortion + beta * rate``, in nats per row.

A policy is a frozen value. A schedule is a function of the progress of the run, a number in [0, 1], never of epochs
or steps: the last step has the final value whatever the size of the data. The other policies depend on the rows, on
the model's rate or distortion, or on random draws; their state during a run is in `training.beta_control`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from elbowroom.errors import ParameterError
from elbowroom.utils import specs

LARGEST = 1e30  # its product with a rate still fits in float32
SMALLEST = 1e-30  # of values whose logarithm is taken


@dataclass(frozen=True, eq=False)
class Beta:
    """A policy for beta."""

    def __str__(self) -> str:
        """The text form, which `beta_of` reads back; a custom policy has none, and its repr is returned."""
        name = next((name for name, policy in POLICIES.items() if policy is type(self)), None)
        if name is None:
            return repr(self)
        return specs.text_form(name, {field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True, eq=False)
class Schedule(Beta, ABC):
    """A policy that is a function of the progress of the run only."""

    @abstractmethod
    def at(self, progress: float) -> float:
        """Beta at a progress in [0, 1] of the run."""

    @property
    def final(self) -> float:
        """Beta at the end of the run, which is also the beta of model selection."""
        return self.at(1.0)

    def __str__(self) -> str:
        return super().__str__()  # otherwise dataclasses would define their own


@dataclass(frozen=True)
class Constant(Schedule):
    """A constant beta (Higgins et al. 2017, beta-VAE); 1 is the evidence lower bound.

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
class Warmup(Schedule):
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
class Cyclical(Schedule):
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


@dataclass(frozen=True)
class PerRow(Beta):
    """Every row has its own beta: `gamma` times the sum of its counts, at most `cap` (Shenbin et al. 2020, RecVAE).

    A user with many clicks has more evidence against the prior; `cap=None` is no limit.
    """

    gamma: float = 0.005
    cap: float | None = None

    def __post_init__(self) -> None:
        _check("beta gamma", self.gamma, 0)
        if self.cap is not None:
            _check("beta cap", self.cap, 0)


@dataclass(frozen=True)
class TargetRate(Beta):
    """The beta at which the mean rate of the training rows is `nats`, found while training (Shao et al. 2020).

    Beta stays within [`low`, `high`]; the history notes a target that is out of reach.
    """

    nats: float
    low: float = 1e-4
    high: float = 1e4

    def __post_init__(self) -> None:
        _check("the target rate's nats", self.nats, SMALLEST)
        _check_ends(self.low, self.high)


@dataclass(frozen=True)
class TargetDistortion(Beta):
    """The largest beta at which the mean distortion of the training rows is at most `nats` (Rezende & Viola 2018).

    Distortions of real data can be negative. Beta stays within [`low`, `high`]; the history notes a target that is out
    of reach.
    """

    nats: float
    low: float = 1e-4
    high: float = 1e4

    def __post_init__(self) -> None:
        _check("the target distortion's nats", self.nats, -LARGEST)
        _check_ends(self.low, self.high)


@dataclass(frozen=True)
class Capacity(Beta):
    """The penalty `gamma` * abs(rate - C), where C grows from 0 to `nats` over the first `fraction` (Burgess 2018).

    The effective beta is +gamma while the rate is above C and -gamma while it is below; the history has its mean.
    """

    nats: float = 25.0
    gamma: float = 30.0
    fraction: float = 0.8

    def __post_init__(self) -> None:
        _check("the capacity's nats", self.nats, 0)
        _check("beta gamma", self.gamma, 0)
        _check("beta fraction", self.fraction, 0, 1)

    def capacity(self, progress: float) -> float:
        """C, in nats per row, at a progress in [0, 1] of the run.

        >>> Capacity(nats=20, fraction=0.5).capacity(0.25)
        10.0
        """
        return _ramp(0.0, self.nats, progress, self.fraction)


@dataclass(frozen=True)
class LogUniform(Beta):
    """Every beta from `low` to `high` at once: log beta is drawn anew for every row, and is an input of the network.

    One run gives the whole rate-distortion curve, after Bae et al. 2023 (MR-VAE).

    >>> beta_of("0.01..10")
    LogUniform(low=0.01, high=10)
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)

    @property
    def default(self) -> float:
        """The model's default beta: 1, or the end of the range that is nearest to it."""
        return float(min(max(1.0, self.low), self.high))

    def __str__(self) -> str:
        return f"{specs.value_form(self.low)}..{specs.value_form(self.high)}"


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


def _check_ends(low: Any, high: Any) -> None:
    _check("the low end of beta", low, SMALLEST)
    _check("the high end of beta", high, SMALLEST)
    if not low < high:
        raise ParameterError(
            "a range of beta goes from a low to a high end", f"it goes from {low!r} to {high!r}", "Write 0.01..10."
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
        low, dots, high = value.partition("..")
        if dots and ":" not in value:
            return LogUniform(specs.literal(low.strip()), specs.literal(high.strip()))
        number = specs.literal(value)
        return Constant(number) if isinstance(number, int | float) else specs.make(value, POLICIES, "beta")
    return Constant(value)


POLICIES: dict[str, type[Beta]] = {
    "constant": Constant,
    "warmup": Warmup,
    "cyclical": Cyclical,
    "perrow": PerRow,
    "targetrate": TargetRate,
    "targetdistortion": TargetDistortion,
    "capacity": Capacity,
    "range": LogUniform,
}
