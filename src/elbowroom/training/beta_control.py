"""Controllers of beta: the state of a policy during a run, step by step.

A checkpoint saves the state; the policy itself is a frozen value. Nothing here synchronises with the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from elbowroom.beta.conditioning import BetaConditioning
from elbowroom.beta.policies import Beta, Capacity, LogUniform, PerRow, Schedule, TargetDistortion, TargetRate
from elbowroom.data.dataset import Rows
from elbowroom.errors import DataError, ParameterError
from elbowroom.objectives.terms import Terms
from elbowroom.utils.randomness import generator_at

BLOCKS = 32  # betas of a range in a batch: rows of a block share their beta and its computations
LOOKS = 128  # held-out evaluations after an epoch at least, each at a beta of the range; with more rows, one of each
AHEAD = 256  # batches whose betas are drawn at once: small networks are bound by the number of operations
BEYOND = (0.3, 0.1)  # of the range's width in log beta: drawn beyond its ends, so that these have two sides
# Latents that large betas collapse at the start stay collapsed at all betas (docs/range.md). Betas of a range start at
# a tenth of their values, unless its low end is then below 0.01, and have them after a fifth of the run.
OPENING, OPEN, OPENED = 0.1, 0.01, 0.2
AT_ENDS = 0.5  # share of the draws of a range that are near its ends, which have neighbours on one side only
REACHED = {"rate": 0.03, "distortion": 0.05}  # tolerance of a target: a share of the rate, or of beta times the rate


class Drawn(NamedTuple):
    """The betas of n rows of a range, (n,), and their code, (k, width), each for n / k rows."""

    betas: Tensor | None
    code: Tensor | None


NOT_DRAWN = Drawn(None, None)


class Control:
    """Beta at each step; this base class follows a schedule."""

    def __init__(
        self, policy: Any, steps: int, device: torch.device, conditioning: BetaConditioning | None = None
    ) -> None:
        self.policy, self.steps, self.device, self.conditioning = policy, steps, device, conditioning
        self.state: dict[str, Tensor] = {}  # all that changes from step to step

    def check(self, rows: Rows) -> None:
        """Refuse rows that the policy can not be used with."""

    def looks(self, rows: int) -> Tensor:
        """The held-out rows in the order of evaluation after an epoch, each equally often."""
        return torch.arange(rows, device=self.device)

    def draw(self, n: int) -> Drawn:
        """The betas of n held-out rows as the network's inputs, the same at every call."""
        return NOT_DRAWN

    def draws(self, batches: Sequence[Tensor], generator: Generator) -> Iterator[Drawn]:
        """The betas of training batches as the network's inputs."""
        return repeat(NOT_DRAWN, len(batches))

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> float | Tensor:
        """Beta of a training step, one for all or one for each of its rows (n,); `betas` are those that were drawn."""
        return self.policy.at(progress)

    def final(self, x: Tensor, betas: Tensor | None) -> float | Tensor | None:
        """Beta of held-out rows, the same in every epoch so that losses compare; None if there is no such beta."""
        return self.policy.final

    def settled(self, progress: float) -> bool:
        """Whether the held-out loss may select the epoch."""
        return True

    def judge(self, record: dict[str, float]) -> dict[str, float]:
        """Criteria for selecting an epoch besides, or instead of, the held-out loss: more columns of the history."""
        return {}

    def note(self, record: dict[str, float]) -> str:
        """A note on the selected epoch; empty if the target was reached."""
        return ""


class RowControl(Control):
    """Beta in proportion to a row's counts."""

    policy: PerRow

    def check(self, rows: Rows) -> None:
        low = [float(batch.x.min()) for batch in rows.in_order(4096)]
        if any(math.isnan(value) for value in low):
            raise DataError(
                f"beta={str(self.policy)!r} needs rows without missing values, since it grows with their total",
                "some are missing",
                "Use another policy, such as beta=1.",
            )
        if min(low) < 0:
            raise DataError(
                f"beta={str(self.policy)!r} needs rows of counts, since it grows with their total",
                "some values are negative",
                "Use another policy, such as beta=1.",
            )

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> Tensor:
        return self.final(x, betas)

    def final(self, x: Tensor, betas: Tensor | None) -> Tensor:
        beta = self.policy.gamma * x.sum(-1).float()
        return beta if self.policy.cap is None else beta.clamp_max(self.policy.cap)


class RangeControl(Control):
    """Betas drawn log-uniformly from a range, a little more often at its ends, and spread evenly over every batch.

    At the start, the weight of the rate is less than the beta that the network gets, so that latents become active
    first.
    """

    policy: LogUniform
    conditioning: BetaConditioning

    def __init__(
        self, policy: Any, steps: int, device: torch.device, conditioning: BetaConditioning | None = None
    ) -> None:
        super().__init__(policy, steps, device, conditioning)
        # cached, since epochs may be a few steps: the betas of held-out rows by their number, and the layouts of
        # training batches by their sizes
        self.known: dict[int, Drawn] = {}
        self.layouts: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def check(self, rows: Rows) -> None:
        if self.conditioning is None:
            raise ParameterError(
                f"beta={str(self.policy)!r} needs a model with beta conditioning",
                "this one has none",
                "Build it with BetaConditioning, or fit an estimator with this beta.",
            )
        if self.policy.low < self.conditioning.low or self.policy.high > self.conditioning.high:
            raise ParameterError(
                f"beta={str(self.policy)!r} must lie in the range of the model",
                f"that is {self.conditioning.low:g}..{self.conditioning.high:g}",
                "Train on a range within it, or build a model for this one.",
            )

    def looks(self, rows: int) -> Tensor:
        """A random order, since betas depend on the position; few rows repeatedly, forwards and backwards.

        Otherwise the loss would depend on which row was evaluated at which beta.
        """
        looks = torch.randperm(rows, generator=generator_at(0, "looks")).to(self.device)
        looks = looks.repeat(math.ceil(LOOKS / rows), 1)
        looks[1::2] = looks[1::2].flip(1)
        return looks.flatten()

    def draw(self, n: int) -> Drawn:
        if n not in self.known:
            (self.known[n],) = self._drawn([n], torch.full((_blocks(n),), 0.5, device=self.device), 0.0, 0.0)
        return self.known[n]

    def draws(self, batches: Sequence[Tensor], generator: Generator) -> Iterator[Drawn]:
        for first in range(0, len(batches), AHEAD):
            sizes = [len(batch) for batch in batches[first : first + AHEAD]]
            places = torch.rand(sum(map(_blocks, sizes)), generator=generator, device=self.device)
            yield from self._drawn(sizes, places, *BEYOND)

    def _drawn(self, sizes: list[int], places: Tensor, below: float, above: float) -> Iterator[Drawn]:
        """Batches of these sizes, from the place of every beta in its stratum of the widened range."""
        part, parts, of_row = self._layout(sizes)
        even = (part + places) / parts
        crowded = torch.lerp(even, (1 - (math.pi * even).cos()) / 2, AT_ENDS)
        width = math.log(self.policy.high / self.policy.low)
        betas = (math.log(self.policy.low) + width * ((1 + below + above) * crowded - below)).exp()
        return map(Drawn, betas[of_row].split(sizes), self.conditioning(betas).split([*map(_blocks, sizes)]))

    def _layout(self, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The stratum of every beta of these batches, how many its batch has, and the beta index of every row."""
        if (key := tuple(sizes)) not in self.layouts:
            counts = torch.tensor([*map(_blocks, sizes)])
            part, parts = torch.cat([torch.arange(k) for k in counts]), counts.repeat_interleave(counts)
            rows = (torch.tensor(sizes) // counts).repeat_interleave(counts)  # of every beta
            of_row = torch.arange(len(part)).repeat_interleave(rows)
            self.layouts[key] = part.to(self.device), parts.to(self.device), of_row.to(self.device)
        return self.layouts[key]

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> Tensor:
        beta = self.final(x, betas)
        return beta if self.settled(progress) else beta * self.start ** (1 - progress / OPENED)

    def final(self, x: Tensor, betas: Tensor | None) -> Tensor:
        assert betas is not None  # of a range they are drawn
        return betas

    @property
    def start(self) -> float:
        """The factor of betas at the start of the run."""
        return min(1.0, max(OPENING, OPEN / self.policy.low))

    def settled(self, progress: float) -> bool:
        """Only after the warm-up: before, the held-out loss would be lowest without active latents."""
        return self.start == 1 or progress >= OPENED


class TargetControl(Control):
    """Proportional-integral control of log beta, so that the mean rate of the training rows reaches its target.

    Beta is constant at first, since an untrained model misses every target; after that it is fast enough to cross its
    range several times in a run.
    """

    policy: Any
    kind = "rate"
    HOLD = 0.1  # share of the run
    PROPORTIONAL, INTEGRAL, SMOOTHING = 1.0, 40.0, 0.95  # the integral's gain is for the whole run
    FASTEST = (
        0.1  # largest gain of the integral per step: more oscillates in short runs, as errors are means over steps
    )

    def __init__(
        self, policy: Any, steps: int, device: torch.device, conditioning: BetaConditioning | None = None
    ) -> None:
        super().__init__(policy, steps, device, conditioning)
        start = math.log(min(max(1.0, policy.low), policy.high))
        self.state = {name: torch.zeros((), device=device) for name in ("log_beta", "integral", "error")}
        for name in ("log_beta", "integral"):
            self.state[name] += start

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> Tensor:
        log_beta, integral, error = (self.state[name] for name in ("log_beta", "integral", "error"))
        with torch.no_grad():
            low, high = math.log(self.policy.low), math.log(self.policy.high)
            now = self._error(progress, terms, log_beta.exp()).nan_to_num(0.0)
            error.lerp_(now if progress > self.HOLD else torch.zeros_like(now), 1 - self.SMOOTHING)
            # clamped, against integral wind-up
            integral.add_(min(self.INTEGRAL / self.steps, self.FASTEST) * error).clamp_(low, high)
            log_beta.copy_((integral + self.PROPORTIONAL * error).clamp(low, high))
        return log_beta.exp()

    def final(self, x: Tensor, betas: Tensor | None) -> None:
        return None

    def _error(self, progress: float, terms: Terms, beta: Tensor) -> Tensor:
        """The control error, about in units of log beta: above zero where beta should rise."""
        return (terms.rate.mean().clamp_min(1e-6) / self.policy.nats).log().clamp(-1, 1)

    def missing(self, record: dict[str, float]) -> float:
        """The relative error of an epoch's target: as a share of the rate, or of beta times the rate."""
        return (record["rate"] - self.policy.nats) / self.policy.nats

    def note(self, record: dict[str, float]) -> str:
        beta, target, missing = record["beta"], self.policy.nats, self.missing(record)
        if abs(missing) <= REACHED[self.kind]:
            return ""
        if beta <= self.policy.low * 1.01:
            why = "the lower limit: it needs more epochs, latents or wider layers, or a lower limit"
        elif beta >= self.policy.high * 0.99:
            why = "the upper limit"
        elif self.kind == "distortion" and missing > 1:
            why = "which a smaller beta would not change by as much: it needs more epochs, latents or wider layers"
        else:
            why = "and still changing: it needs more epochs"
        found = f"it is {record[self.kind]:.4g} at beta {beta:.3g}"
        if self.kind == "distortion" and missing < 0 and beta < self.policy.high * 0.99:
            return f"the target distortion of {target:g} nats is met by a smaller beta than it needs: {found}, {why}"
        return f"the target {self.kind} of {target:g} nats was not reached: {found}, {why}"


class DistortionControl(TargetControl):
    """The same for the mean distortion, whose error is converted to the rate's: at the optimum dD = -beta dR.

    The distortion lags: at a constant beta it goes on falling as the network learns, and it responds late to a smaller
    beta. So beta is lowered only for the part of the error that the trend will not remove. The trend is that of
    D + beta R: dD + beta dR, the part of dD that is not a trade-off with the rate, is what the network still learns at
    its current beta.
    """

    policy: TargetDistortion
    kind = "distortion"
    SMOOTHING = 0.9
    TREND, LEAST = 0.03, 10  # over which the trend is estimated: a share of the run, and the least number of steps
    AHEAD = 0.5  # for how long the trend is extrapolated, as a share of the steps of its estimate
    SURE = 2.0  # standard errors of the trend that count as noise
    ALONE = 1.0  # nats: the rate that is assumed of a collapsed network, whose latents are not active yet

    def __init__(
        self, policy: Any, steps: int, device: torch.device, conditioning: BetaConditioning | None = None
    ) -> None:
        super().__init__(policy, steps, device, conditioning)
        names = ("distortion", "slow_distortion", "rate", "slow_rate", "noise")
        self.state |= {name: torch.zeros((), device=device) for name in names}

    def _error(self, progress: float, terms: Terms, beta: Tensor) -> Tensor:
        done = 1 + progress * (self.steps - 1)
        learned = self._learned(terms, beta, done) * self.AHEAD * min(done, self.steps - done)
        off = self.policy.nats - self.state["distortion"]
        off = torch.where(off < 0, (off + learned).clamp_max(0), off) / beta / (self.state["rate"] + self.ALONE)
        # To lower beta can not lower the distortion by much more than beta times the rate, and late in the run, as the
        # learning rate falls, by less and less.
        less = off / (1 + off.square()) * min(1.0, 2 * (1 - progress))
        return torch.where(off < 0, less, off.clamp_max(1))

    def _learned(self, terms: Terms, beta: Tensor, done: float) -> Tensor:
        """The decrease of the distortion per step that is not traded for rate, in nats, less the noise."""
        span = max(self.LEAST, self.TREND * self.steps)
        newest, trend, seen = 1 / min(span, done), {}, torch.zeros_like(beta)
        for name, weight in (("distortion", torch.ones_like(beta)), ("rate", beta)):
            value = getattr(terms, name).detach().mean()
            fast, slow = self.state[name], self.state[f"slow_{name}"]
            fast.lerp_(value, newest)
            slow.lerp_(fast, newest)
            trend[name] = weight * (fast - slow) / span
            seen = seen + weight * (value - fast)
        self.state["noise"].lerp_(seen.square(), newest)
        error = (self.state["noise"] / (8 * span)).sqrt() / span  # of the difference of two moving averages
        return ((trend["distortion"] + trend["rate"]).abs() - self.SURE * error).clamp_min(0)

    def judge(self, record: dict[str, float]) -> dict[str, float]:
        return {"target_met": float(record["distortion"] <= self.policy.nats)}

    def missing(self, record: dict[str, float]) -> float:
        """The distortion above its target, relative to beta times the rate: the scale of distortions is arbitrary."""
        return (record["distortion"] - self.policy.nats) / max(record["beta"] * record["rate"], 1e-12)


class CapacityControl(Control):
    """Pull the mean rate to a capacity that grows: beta is +gamma above it and -gamma below."""

    policy: Capacity

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> Tensor:
        return self.policy.gamma * (terms.rate.detach().mean() - self.policy.capacity(progress)).sign()

    def final(self, x: Tensor, betas: Tensor | None) -> None:
        return None


def _blocks(n: int) -> int:
    """The number of betas for n rows."""
    return BLOCKS if n % BLOCKS == 0 else n


CONTROLS: dict[type[Beta], type[Control]] = {
    Schedule: Control,
    PerRow: RowControl,
    LogUniform: RangeControl,
    TargetRate: TargetControl,
    TargetDistortion: DistortionControl,
    Capacity: CapacityControl,
}


def control_of(policy: Beta, steps: int, device: torch.device, conditioning: BetaConditioning | None = None) -> Control:
    """The state of a policy at the start of a run of so many steps; the conditioning is that of a model of a range."""
    for kind, control in CONTROLS.items():
        if isinstance(policy, kind):
            return control(policy, steps, device, conditioning)
    raise ParameterError(
        "a custom policy for beta must be a Schedule",
        f"it is {policy!r}",
        "Inherit from elbowroom.beta.policies.Schedule.",
    )
