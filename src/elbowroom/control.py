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

from elbowroom.beta import Beta, Capacity, LogUniform, PerRow, Schedule, TargetDistortion, TargetRate
from elbowroom.data.rows import Rows
from elbowroom.dial import Dial
from elbowroom.errors import DataError, ParameterError
from elbowroom.objectives import Terms

BLOCKS = 32  # betas of a range in a batch: rows of a block share their beta, and the work that it makes
LOOKS = 128  # or more at held-out rows after an epoch, each at a beta of the range; one look at each of more rows
AHEAD = 256  # batches whose betas are drawn at once: on small networks it is operations that cost time
BEYOND = (0.3, 0.1)  # of the range's width in log beta: drawn below and above it, so that its ends have two sides
# Latents that large betas close at the start stay closed to all (docs/range.md). A range starts at a tenth of itself,
# unless its low end is then below 0.01, and is itself after a fifth of the run.
OPENING, OPEN, OPENED = 0.1, 0.01, 0.2
AT_ENDS = 0.5  # share of the draws of a range that crowd at its ends, which have neighbours on one side only
REACHED = {"rate": 0.03, "distortion": 0.02}  # relative errors that count as the target


class Drawn(NamedTuple):
    """The betas of n rows of a range, (n,), and the dial's code of them, (k, width), each for n / k rows."""

    betas: Tensor | None
    code: Tensor | None


NOT_DRAWN = Drawn(None, None)


class Control:
    """Beta from step to step; this one follows a schedule."""

    def __init__(self, policy: Any, steps: int, device: torch.device, dial: Dial | None = None) -> None:
        self.policy, self.steps, self.device, self.dial = policy, steps, device, dial
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

    def note(self, record: dict[str, float]) -> str:
        """What is to be said of the last epoch; nothing if all went as asked."""
        return ""


class RowControl(Control):
    """Beta in proportion to a row's counts."""

    policy: PerRow

    def check(self, rows: Rows) -> None:
        if any(float(batch.x.min()) < 0 for batch in rows.in_order(4096)):
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
    dial: Dial

    def __init__(self, policy: Any, steps: int, device: torch.device, dial: Dial | None = None) -> None:
        super().__init__(policy, steps, device, dial)
        # what is the same in every epoch, which may be a few steps: what held-out rows are told, by how many they are,
        # and the layouts of training batches, by their sizes
        self.known: dict[int, Drawn] = {}
        self.layouts: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def check(self, rows: Rows) -> None:
        if self.dial is None:
            raise ParameterError(
                f"beta={str(self.policy)!r} needs a model that can be told the beta",
                "this one has no dial",
                "Build it with a Dial, or fit an estimator with this beta.",
            )
        if self.policy.low < self.dial.low or self.policy.high > self.dial.high:
            raise ParameterError(
                f"beta={str(self.policy)!r} must lie in the range that the model's dial knows",
                f"that is {self.dial.low:g}..{self.dial.high:g}",
                "Train on a range within it, or build a dial for this one.",
            )

    def looks(self, rows: int) -> Tensor:
        """Few rows are looked at often, forth and back: else the loss would tell which row met which beta."""
        looks = super().looks(rows).repeat(math.ceil(LOOKS / rows), 1)
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
        return map(Drawn, betas[of_row].split(sizes), self.dial(betas).split([*map(_blocks, sizes)]))

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
    """Proportional-integral control of log beta, so that the rate or the distortion reaches its target.

    The error is the relative one of the rate. A distortion's is turned into the rate's, because along the optimum
    d distortion = -beta d rate: both loops then have the same gain, whatever the data. Beta holds still at first, since
    a model that has not learned anything misses every target; then it can cross its limits several times in a run.
    """

    policy: TargetRate | TargetDistortion
    HOLD = 0.1  # share of the run
    PROPORTIONAL, INTEGRAL, SMOOTHING = 1.0, 40.0, 0.95  # the integral's gain is for the whole run

    def __init__(self, policy: Any, steps: int, device: torch.device, dial: Dial | None = None) -> None:
        super().__init__(policy, steps, device, dial)
        start = min(max(1.0, policy.low), policy.high)
        zero = torch.zeros((), device=device)
        self.state = {"log_beta": zero + math.log(start), "integral": zero + math.log(start), "error": zero.clone()}

    def step(self, progress: float, x: Tensor, terms: Terms, betas: Tensor | None) -> Tensor:
        log_beta, integral, error = self.state.values()
        with torch.no_grad():
            low, high = math.log(self.policy.low), math.log(self.policy.high)
            now = self._error(terms, log_beta.exp()).nan_to_num(0.0)
            error.lerp_(now if progress > self.HOLD else torch.zeros_like(now), 1 - self.SMOOTHING)
            integral.add_(self.INTEGRAL / self.steps * error).clamp_(low, high)  # no winding up beyond the limits
            log_beta.copy_((integral + self.PROPORTIONAL * error).clamp(low, high))
        return log_beta.exp()

    def final(self, x: Tensor, betas: Tensor | None) -> None:
        return None

    def _error(self, terms: Terms, beta: Tensor) -> Tensor:
        rate = terms.rate.mean().clamp_min(1e-6)
        if isinstance(self.policy, TargetRate):
            return (rate / self.policy.nats).log().clamp(-1, 1)
        off = (self.policy.nats - terms.distortion.mean()) / beta / rate
        # To lower beta can not lower the distortion by much more than beta times the rate: what is farther off is a
        # matter of training, or out of reach, and no reason to give up the prior.
        return torch.where(off < 0, off / (1 + off.square()), off.clamp_max(1))

    def note(self, record: dict[str, float]) -> str:
        beta, rate, target = record["beta"], record["rate"], self.policy.nats
        kind = "rate" if isinstance(self.policy, TargetRate) else "distortion"
        missing = record[kind] - target
        if abs(missing) <= REACHED[kind] * abs(target):
            return ""
        if kind == "distortion" and missing / beta > rate:
            why = "which a smaller beta would not change by as much: it needs more epochs, latents or wider layers"
        elif beta <= self.policy.low * 1.01:
            why = "the lower limit: it needs more epochs, latents or wider layers, or a lower limit"
        elif beta >= self.policy.high * 0.99:
            why = "the upper limit"
        else:
            why = "and still on its way: it needs more epochs"
        found = f"it is {record[kind]:.4g} at beta {beta:.3g}"
        return f"the target {kind} of {target:g} nats was not reached: {found}, {why}"


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
    TargetDistortion: TargetControl,
    Capacity: CapacityControl,
}


def control_of(policy: Beta, steps: int, device: torch.device, dial: Dial | None = None) -> Control:
    """The state of a policy at the start of a run of so many steps; the dial is that of a model of a range."""
    for kind, control in CONTROLS.items():
        if isinstance(policy, kind):
            return control(policy, steps, device, dial)
    raise ParameterError(
        "a policy for beta of your own must be a Schedule", f"it is {policy!r}", "Inherit from elbowroom.beta.Schedule."
    )
