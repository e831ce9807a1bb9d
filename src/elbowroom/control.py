"""What a policy of beta comes to, step by step: the state that it has while a run goes on.

A checkpoint saves the state; the policy itself is a frozen value. Nothing here waits for the device.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from elbowroom.beta import Beta, Capacity, LogUniform, PerRow, Schedule, TargetDistortion, TargetRate
from elbowroom.bodies import by_row
from elbowroom.objectives import Terms

BLOCKS = 16  # betas of a range in a batch: rows of a block share their beta, and the work that it makes
AT_ENDS = 0.5  # share of the draws of a range that crowd at its ends, which have neighbours on one side only
TOWARDS_LOW = 0.2  # rows of a range weigh (1 + beta)^-this: large betas have large gradients
REACHED = 0.03  # relative error of a rate that counts as the target


class Control:
    """Beta from step to step; this one follows a schedule."""

    selects = True  # whether there is a fixed beta by which the best epoch can be chosen

    def __init__(self, policy: Any, device: torch.device) -> None:
        self.policy = policy
        self.state: dict[str, Tensor] = {}  # all that changes from step to step
        self.device = device

    def draw(self, n: int, generator: Generator | None) -> Tensor | None:
        """Betas (k,) that the network is told, each for n / k rows; None if it is told none."""
        return None

    def step(self, progress: float, x: Tensor, terms: Terms, told: Tensor | None) -> float | Tensor:
        """Beta of a training step, one or one for each of its rows (n,)."""
        return self.policy.at(progress)

    def final(self, x: Tensor, told: Tensor | None) -> float | Tensor:
        """Beta of held-out rows: that of the end of the run, so that epochs can be compared."""
        return self.policy.final

    def mean(self, loss: Tensor, beta: float | Tensor) -> Tensor:
        """What a step descends, from the loss of every row (n,)."""
        return loss.mean()

    def note(self, record: dict[str, float]) -> str:
        """What is to be said of the last epoch; nothing if all went as asked."""
        return ""


class RowControl(Control):
    """Beta in proportion to a row's counts."""

    policy: PerRow

    def step(self, progress: float, x: Tensor, terms: Terms, told: Tensor | None) -> Tensor:
        return self.final(x, told)

    def final(self, x: Tensor, told: Tensor | None) -> Tensor:
        beta = self.policy.gamma * x.sum(-1).float().clamp_min(0)
        return beta if self.policy.cap is None else beta.clamp_max(self.policy.cap)


class RangeControl(Control):
    """Betas drawn log-uniformly from a range, a little more often at its ends, and spread evenly over every batch."""

    policy: LogUniform

    def draw(self, n: int, generator: Generator | None) -> Tensor:
        blocks = BLOCKS if n % BLOCKS == 0 else n
        within = 0.5 if generator is None else torch.rand(blocks, generator=generator, device=self.device)
        even = (torch.arange(blocks, device=self.device) + within) / blocks
        place = torch.lerp(even, (1 - (math.pi * even).cos()) / 2, AT_ENDS)
        low, high = math.log(self.policy.low), math.log(self.policy.high)
        return (low + (high - low) * place).exp()

    def step(self, progress: float, x: Tensor, terms: Terms, told: Tensor | None) -> Tensor:
        return self.final(x, told)

    def final(self, x: Tensor, told: Tensor | None) -> Tensor:
        return by_row(told, len(x))  # type: ignore[arg-type]

    def mean(self, loss: Tensor, beta: float | Tensor) -> Tensor:
        weights = (1 + beta) ** -TOWARDS_LOW  # type: ignore[operator]
        return (loss * weights).sum() / weights.sum()


class TargetControl(Control):
    """Proportional-integral control of log beta, so that the rate or the distortion reaches its target.

    The error is the relative one of the rate. A distortion's is turned into the rate's, because along the optimum
    d distortion = -beta d rate: both loops then have the same gain, whatever the data.
    """

    selects = False
    policy: TargetRate | TargetDistortion
    PROPORTIONAL, INTEGRAL, SMOOTHING = 0.3, 0.005, 0.9

    def __init__(self, policy: Any, device: torch.device) -> None:
        super().__init__(policy, device)
        start = min(max(1.0, policy.low), policy.high)
        zero = torch.zeros((), device=device)
        self.state = {"log_beta": zero + math.log(start), "integral": zero + math.log(start), "error": zero.clone()}

    def step(self, progress: float, x: Tensor, terms: Terms, told: Tensor | None) -> Tensor:
        log_beta, integral, error = self.state.values()
        with torch.no_grad():
            low, high = math.log(self.policy.low), math.log(self.policy.high)
            now = self._error(terms, log_beta.exp()).nan_to_num(0.0).clamp(-1, 1)
            error.lerp_(now, 1 - self.SMOOTHING)
            integral.add_(self.INTEGRAL * error).clamp_(low, high)  # it does not wind up beyond the limits
            log_beta.copy_((integral + self.PROPORTIONAL * error).clamp(low, high))
        return log_beta.exp()

    def final(self, x: Tensor, told: Tensor | None) -> Tensor:
        return self.state["log_beta"].exp()

    def _error(self, terms: Terms, beta: Tensor) -> Tensor:
        rate = terms.rate.mean().clamp_min(1e-6)
        if isinstance(self.policy, TargetRate):
            return (rate / self.policy.nats).log()
        return (self.policy.nats - terms.distortion.mean()) / beta / rate

    def note(self, record: dict[str, float]) -> str:
        kind = "rate" if isinstance(self.policy, TargetRate) else "distortion"
        beta, found, target = record["beta"], record[kind], self.policy.nats
        off = (found - target) / (target if kind == "rate" else max(abs(target), beta * record["rate"]))
        if abs(off) <= REACHED or (kind == "distortion" and off < 0 and record["rate"] < REACHED):
            return ""
        why = "it was still on its way there: train longer"
        if beta <= self.policy.low * 1.01:
            why = "beta is at its lower limit: the model can not do more; it needs more latents or wider layers"
        if beta >= self.policy.high * 0.99:
            why = "beta is at its upper limit"
        return f"the target {kind} of {target:g} nats was not reached: it is {found:.4g} at beta {beta:.3g}, and {why}"


class CapacityControl(Control):
    """Pull the mean rate to a capacity that grows: beta is +gamma above it and -gamma below."""

    selects = False
    policy: Capacity

    def step(self, progress: float, x: Tensor, terms: Terms, told: Tensor | None) -> Tensor:
        return self.policy.gamma * (terms.rate.detach().mean() - self.policy.capacity(progress)).sign()

    def final(self, x: Tensor, told: Tensor | None) -> float:
        return 1.0


CONTROLS: dict[type[Beta], type[Control]] = {
    Schedule: Control,
    PerRow: RowControl,
    LogUniform: RangeControl,
    TargetRate: TargetControl,
    TargetDistortion: TargetControl,
    Capacity: CapacityControl,
}


def control_of(policy: Beta, device: torch.device) -> Control:
    """The state of a policy at the start of a run."""
    return next(control for kind, control in CONTROLS.items() if isinstance(policy, kind))(policy, device)
