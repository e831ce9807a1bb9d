"""Adam with a learning-rate schedule, gradient clipping and weight averaging, without host synchronisation in steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

AVERAGE_EVERY = 8  # steps between updates of the average, which make it cheap and no worse


class Optimiser:
    """Fused Adam over the parameters of a model (Kingma & Ba 2015).

    torch's kernel is called directly, because building any `torch.optim` object imports the compiler (0.9 s) and its
    bookkeeping costs more than a small model's update. A step whose loss or gradient is not finite changes nothing.

    Parameters
    ----------
    parameters : sequence of Tensor
        The trained parameters.
    averaged : sequence of Tensor
        Copies of the parameters, which will hold their exponential moving average; empty for none.
    clip : float
        The gradient is scaled down to this norm where it is longer.
    decay : float
        Decay of the average, per step; after n steps at most n / (9 + n), so that the average is short at the start.

    Attributes
    ----------
    count : Tensor ()
        Steps that were taken; those that were skipped are not counted.
    """

    def __init__(
        self, parameters: Sequence[Tensor], averaged: Sequence[Tensor] = (), clip: float = 100.0, decay: float = 0.999
    ) -> None:
        self.parameters, self.averaged, self.clip, self.decay = list(parameters), list(averaged), clip, decay
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.count = torch.zeros((), device=self.parameters[0].device)

    @torch.no_grad()
    def step(self, loss: Tensor, learning_rate: float) -> Tensor:
        """Update the parameters by their gradients, and clear these.

        Returns 1 if the step was taken, 0 if it was skipped, as a tensor, without synchronisation.
        """
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        taken = (norm + loss.abs() < math.inf).float()
        self.count += taken
        self._adam(grads, norm, 1 - taken, learning_rate)
        for p in self.parameters:
            p.grad = None
        return taken

    def _adam(self, grads: list[Tensor], norm: Tensor, skipped: Tensor, learning_rate: float) -> None:
        scale: Tensor | None = (norm / self.clip).clamp_min(1.0)
        if norm.device.type == "cpu" and scale == 1:
            scale = None  # on a CPU the check is free, and the kernel then need not write the gradients
        torch._fused_adam_(
            self.parameters, grads, self.first, self.second, [], [self.count] * len(grads),
            lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
            grad_scale=scale, found_inf=skipped,
        )  # fmt: skip

    @torch.no_grad()
    def average(self, done: int, since: int) -> None:
        """Update the average, after `done` steps in all, `since` of them since its last update."""
        if self.averaged:
            kept = min(self.decay, done / (9 + done)) ** since
            torch._foreach_lerp_(self.averaged, self.parameters, 1 - kept)

    def state(self) -> dict[str, Tensor]:
        """The state that a checkpoint needs to resume exactly, besides the parameters and their average."""
        lists = {"first": self.first, "second": self.second, "count": [self.count]}
        return {f"{name}.{i}": t for name, tensors in lists.items() for i, t in enumerate(tensors)}


def cosine(progress: float) -> float:
    """Half a cosine, from 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """Constant 1."""
    return 1.0


def learning_rate_at(peak: float, progress: float, schedule: str = "cosine", warm_up: float = 0.02) -> float:
    """Linear warm-up over the first share of the run, then the schedule over the rest of it."""
    if progress < warm_up:
        return peak * progress / warm_up
    return peak * SCHEDULES[schedule]((progress - warm_up) / (1 - warm_up))


SCHEDULES = {"cosine": cosine, "constant": constant}
