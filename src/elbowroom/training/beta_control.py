"""What a policy of beta comes to, step by step: the state that it has while a run goes on.

A checkpoint saves the state; the policy itself is a frozen value. Nothing here waits for the device.
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

BLOCKS = 32  # betas of a range in a batch: rows of a block share their beta, and the work that it makes
LOOKS = 128  # or more at held-out rows after an epoch, each at a beta of the range; one look at each of more rows
AHEAD = 256  # batches whose betas are drawn at once: on small networks it is operations that cost time
BEYOND = (0.3, 0.1)  # of the range's width in log beta: drawn below and above it, so that its ends have two sides
# Latents that large betas close at the start stay closed to all (docs/range.md). A range starts at a tenth of itself,
# unless its low end is then below 0.01, and is itself after a fifth of the run.
OPENING, OPEN, OPENED = 0.1, 0.01, 0.2
AT_ENDS = 0.5  # share of the draws of a range that crowd at its ends, which have neighbours on one side only
REACHED = {"rate": 0.03, "distortion": 0.05}  # what a target may be off: a share of the rate, or of beta times it


class Drawn(NamedTuple):
    """The betas of n rows of a range, (n,), and their code, (k, width), each for n / k rows."""

    betas: Tensor | None
    code: Tensor | None


NOT_DRAWN = Drawn(None, None)


class Control:
    """Beta from step to step; this one follows a schedule."""

    def __init__(
        self, policy: Any, steps: int, device: torch.device, conditioning: BetaConditioning | None = None
    ) -> None:
        self.policy, self.steps, self.device, self.conditioning = policy, steps, device, conditioning
        self.state: dict[str, Tensor] = {}  # all that changes from step to step

    def check(self, rows: Rows) -> None:
        """Refuse rows that the policy can not be used on."""

    def looks(self, rows: int) -> Tensor:
        """The held-out rows in the order in which they are looked at after an epoch, each as often as the others."""
        return torch.arange(rows, device=self.device)

    def draw(self, n: int) -> Drawn:
        """What the network is told of n held-out rows, the same whenever it is asked."""
        return NOT_DRAWN

    def draws(self, batches: Sequence[Tensor], generator: Generator) -> Iterator[Drawn]:
        """What the network is told of training batches of rows."""
        return repeat(NOT_DRAWN, len(batches))

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> float | Tensor:
        """Beta of a training step, one or one for each of its rows (n,); `betas` are those that were drawn."""
        return self.policy.at(progress)

    def final(self, x: Tensor, betas: Tensor | None) -> float | Tensor | None:
        """Beta of held-out rows, the same in every epoch so that these compare; None if there is no such beta."""
        return self.policy.final

    def settled(self, progress: float) -> bool:
        """Whether held-out rows may choose the epoch."""
        return True

    def judge(self, record: dict[str, float]) -> dict[str, float]:
        """What chooses among epochs beside, or instead of, held-out rows: more columns of the history."""
        return {}

    def note(self, record: dict[str, float]) -> str:
        """What is to be said of the epoch that is kept; nothing if all went as asked."""
        return ""


class RowControl(Control):
    """Beta in proportion to a row's counts."""

    policy: PerRow

    def check(self, rows: Rows) -> None:
        low = [float(batch.x.min()) for batch in rows.in_order(4096)]
        if any(math.isnan(value) for value in low):
            raise DataError(
                f"beta={str(self.policy)!r} needs rows whose counts are all known, since it grows with their total",
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

    At the start the rate weighs less than the network is told, so that latents open before they are priced.
    """

    policy: LogUniform
    conditioning: BetaConditioning

    def __init__(
        self, policy: Any, steps: int, device: torch.device, conditioning: BetaConditioning | None = None
    ) -> None:
        super().__init__(policy, steps, device, conditioning)
        # what is the same in every epoch, which may be a few steps: what held-out rows are told, by how many they are,
        # and the layouts of training batches, by their sizes
        self.known: dict[int, Drawn] = {}
        self.layouts: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def check(self, rows: Rows) -> None:
        if self.conditioning is None:
            raise ParameterError(
                f"beta={str(self.policy)!r} needs a model that can be told the beta",
                "this one has no beta conditioning",
                "Build it with a Dial, or fit an estimator with this beta.",
            )
        if self.policy.low < self.conditioning.low or self.policy.high > self.conditioning.high:
            raise ParameterError(
                f"beta={str(self.policy)!r} must lie in the range that the model knows",
                f"that is {self.conditioning.low:g}..{self.conditioning.high:g}",
                "Train on a range within it, or build a model for this one.",
            )

    def looks(self, rows: int) -> Tensor:
        """In an order of chance, as betas go by place; few rows often, forth and back.

        Else the loss would tell which row met which beta.
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
        """Batches of these sizes, from the place of every beta in its part of what the range is widened to."""
        part, parts, of_row = self._layout(sizes)
        even = (part + places) / parts
        crowded = torch.lerp(even, (1 - (math.pi * even).cos()) / 2, AT_ENDS)
        width = math.log(self.policy.high / self.policy.low)
        betas = (math.log(self.policy.low) + width * ((1 + below + above) * crowded - below)).exp()
        return map(Drawn, betas[of_row].split(sizes), self.conditioning(betas).split([*map(_blocks, sizes)]))

    def _layout(self, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Of every beta of these batches its part and how many parts its batch has, and of every row its beta."""
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
        return betas  # type: ignore[return-value]

    @property
    def start(self) -> float:
        """What betas are multiplied by when the run begins."""
        return min(1.0, max(OPENING, OPEN / self.policy.low))

    def settled(self, progress: float) -> bool:
        """Before, latents open that large betas have not closed yet: held-out rows would like no latents best."""
        return self.start == 1 or progress >= OPENED


class TargetControl(Control):
    """Proportional-integral control of log beta, so that the mean rate of the training rows reaches its target.

    Beta holds still at first, since a model that has not learned anything misses every target; then it can cross its
    limits several times in a run.
    """

    policy: Any
    kind = "rate"
    HOLD = 0.1  # share of the run
    PROPORTIONAL, INTEGRAL, SMOOTHING = 1.0, 40.0, 0.95  # the integral's gain is for the whole run
    FASTEST = 0.1  # gain of the integral in a step: more swings in short runs, as the error is a mean over many steps

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
            # clamped: no winding up beyond the limits
            integral.add_(min(self.INTEGRAL / self.steps, self.FASTEST) * error).clamp_(low, high)
            log_beta.copy_((integral + self.PROPORTIONAL * error).clamp(low, high))
        return log_beta.exp()

    def final(self, x: Tensor, betas: Tensor | None) -> None:
        return None

    def _error(self, progress: float, terms: Terms, beta: Tensor) -> Tensor:
        """How far beta is off, about in units of its logarithm: above zero where it is to rise."""
        return (terms.rate.mean().clamp_min(1e-6) / self.policy.nats).log().clamp(-1, 1)

    def missing(self, record: dict[str, float]) -> float:
        """How far an epoch is off its target, as a share: of the rate, or of what the rate costs in the loss."""
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
            why = "and still on its way: it needs more epochs"
        found = f"it is {record[self.kind]:.4g} at beta {beta:.3g}"
        if self.kind == "distortion" and missing < 0 and beta < self.policy.high * 0.99:
            return f"the target distortion of {target:g} nats is met by a smaller beta than it needs: {found}, {why}"
        return f"the target {self.kind} of {target:g} nats was not reached: {found}, {why}"


class DistortionControl(TargetControl):
    """The same for the mean distortion, whose error is turned into the rate's: at the optimum dD = -beta dR.

    The distortion lags: it goes on falling at one beta as the network learns, and a smaller beta shows in it late. What
    is missing and will come by itself is no reason to lower beta, and what is lowered in vain stays low. So beta falls
    only for what the trend does not promise: its part that is no trade of rate for distortion, dD + beta dR, is what
    the network still learns, or has yet to learn at the beta that it has now.
    """

    policy: TargetDistortion
    kind = "distortion"
    SMOOTHING = 0.9
    TREND, LEAST = 0.03, 10  # over which the trend is seen: a share of the run, and the least number of steps
    AHEAD = 0.5  # for how long the trend goes on, as a share of the steps that made it
    SURE = 2.0  # standard errors of the trend that are taken for noise
    ALONE = 1.0  # nats: how much rate a network counts as having that has collapsed, and has yet to open its latents

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
        """What the distortion falls by in a step that is no trade for rate, in nats, as far as the noise lets see."""
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
        """The distortion beyond its target, over beta times the rate: nats of the data's own may be any number."""
        return (record["distortion"] - self.policy.nats) / max(record["beta"] * record["rate"], 1e-12)


class CapacityControl(Control):
    """Pull the mean rate to a capacity that grows: beta is +gamma above it and -gamma below."""

    policy: Capacity

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> Tensor:
        return self.policy.gamma * (terms.rate.detach().mean() - self.policy.capacity(progress)).sign()

    def final(self, x: Tensor, betas: Tensor | None) -> None:
        return None


def _blocks(n: int) -> int:
    """How many betas n rows have."""
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
        "a policy for beta of your own must be a Schedule", f"it is {policy!r}", "Inherit from elbowroom.beta.Schedule."
    )
