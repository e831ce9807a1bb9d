"""Adam with a learning-rate schedule, gradient clipping and weight averaging, without a host sync per step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

AVERAGE_EVERY = 8  # steps between updates of the average: it costs nothing then, and is as good


class Optimiser:
    """Fused Adam over the parameters of a model (Kingma & Ba 2015).

    The functional form is used because building any `torch.optim` object imports the compiler (0.9 s). A step whose
    gradient is not finite changes nothing; `skipped` counts those.

    Parameters
    ----------
    parameters : sequence of Tensor
        What is trained.
    averaged : sequence of Tensor
        Copies of the parameters, which will hold their exponential moving average; empty for none.
    clip : float
        The gradient is scaled down to this norm where it is longer.
    decay : float
        Of the average, per step; it is shorter at the start: (1 + step) / (10 + step).
    """

    def __init__(
        self, parameters: Sequence[Tensor], averaged: Sequence[Tensor] = (), clip: float = 100.0, decay: float = 0.999
    ) -> None:
        self.parameters, self.averaged, self.clip, self.decay = list(parameters), list(averaged), clip, decay
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.counts = [torch.zeros((), device=p.device) for p in self.parameters]
        self.skipped = torch.zeros((), device=self.parameters[0].device)

    def step(self, step: int, learning_rate: float) -> None:
        """Move the parameters by their gradients; `step` counts from 0."""
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        norm = torch.stack(torch._foreach_norm(grads)).norm()  # type: ignore[arg-type]
        broken = (~norm.isfinite()).float()
        self.skipped += broken
        with torch.no_grad():
            adam(
                self.parameters, grads, self.first, self.second, [], self.counts,
                fused=True, foreach=False, amsgrad=False, beta1=0.9, beta2=0.999, lr=learning_rate,
                weight_decay=0.0, eps=1e-8, maximize=False,
                grad_scale=(norm / self.clip).clamp_min(1.0), found_inf=broken,
            )  # fmt: skip
            if self.averaged and step % AVERAGE_EVERY == 0:
                torch._foreach_lerp_(self.averaged, self.parameters, 1 - self._decay(step) ** AVERAGE_EVERY)
        for p in self.parameters:
            p.grad = None

    def _decay(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint needs to go on exactly, besides the parameters and their average."""
        lists = {"first": self.first, "second": self.second, "counts": self.counts, "skipped": [self.skipped]}
        return {f"{name}.{i}": t for name, tensors in lists.items() for i, t in enumerate(tensors)}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def learning_rate_at(peak: float, progress: float, warm_up: float = 0.02) -> float:
    """Linear warm-up over the first share of the run, then half a cosine down to 0."""
    if progress < warm_up:
        return peak * progress / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
