"""Adam with a learning-rate schedule, gradient clipping and weight averaging, without host synchronisation in steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Private in torch; where one is gone, plain code does the same.
KERNELS: dict[str, Any] = {n: getattr(torch, n, None) for n in ("_fused_adam_", "_foreach_norm", "_foreach_lerp_")}
AVERAGE_EVERY = 8  # steps between updates of the average: it costs next to nothing then, and is as good


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
        norm = torch.stack(_norms(grads)).norm()
        taken = (norm + loss.abs() < math.inf).float()
        self.count += taken
        self._adam(grads, norm, 1 - taken, learning_rate)
        for p in self.parameters:
            p.grad = None
        return taken

    def _adam(self, grads: list[Tensor], norm: Tensor, skipped: Tensor, learning_rate: float) -> None:
        scale: Tensor | None = (norm / self.clip).clamp_min(1.0)
        if norm.device.type == "cpu" and scale == 1:
            scale = None  # to look at it costs nothing on a CPU, and the kernel then need not write the gradients
        fused = KERNELS["_fused_adam_"]
        if fused is None:
            grads = grads if scale is None else [grad / scale for grad in grads]
            plain_adam(self.parameters, grads, self.first, self.second, self.count, skipped > 0, learning_rate)
            return
        fused(
            self.parameters, grads, self.first, self.second, [], [self.count] * len(grads),
            lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
            grad_scale=scale, found_inf=skipped,
        )  # fmt: skip

    @torch.no_grad()
    def average(self, done: int, since: int) -> None:
        """Update the average, after `done` steps in all, `since` of them since its last update."""
        if self.averaged:
            kept = min(self.decay, done / (9 + done)) ** since
            _move(self.averaged, self.parameters, 1 - kept)

    def state(self) -> dict[str, Tensor]:
        """The state that a checkpoint needs to resume exactly, besides the parameters and their average."""
        lists = {"first": self.first, "second": self.second, "count": [self.count]}
        return {f"{name}.{i}": t for name, tensors in lists.items() for i, t in enumerate(tensors)}


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    at_once = KERNELS["_foreach_norm"]
    return list(at_once(tensors)) if at_once else [tensor.norm() for tensor in tensors]


def _move(tensors: list[Tensor], targets: list[Tensor], share: float) -> None:
    """Move tensors by a share of the way to their targets."""
    at_once = KERNELS["_foreach_lerp_"]
    if at_once:
        at_once(tensors, targets, share)
        return
    for tensor, target in zip(tensors, targets, strict=True):
        tensor.lerp_(target, share)


def plain_adam(
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    count: Tensor,
    skipped: Tensor,
    learning_rate: float,
) -> None:
    """The step of torch's kernel in public functions, for a torch without it: slower, and the same to rounding."""
    faded = [-torch.expm1(count * math.log(share)) for share in (0.9, 0.999)]  # 1 - share ** count
    for p, grad, m, v in zip(parameters, grads, first, second, strict=True):
        new_m, new_v = m.lerp(grad, 0.1), v.lerp(grad.square(), 0.001)
        move = learning_rate * (new_m / faded[0]) / ((new_v / faded[1]).sqrt() + 1e-8)
        for old, new in ((p, p - move), (m, new_m), (v, new_v)):
            old.copy_(torch.where(skipped, old, new))


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
