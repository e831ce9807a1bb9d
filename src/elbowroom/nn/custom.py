"""User-supplied networks as parts of a model."""

from __future__ import annotations

import copy
import inspect
import math

import torch
from torch import Tensor, nn

from elbowroom.errors import ParameterError
from elbowroom.nn.layers import by_row
from elbowroom.utils.randomness import own_stream


class CustomNetwork(nn.Module):
    """A network `module(features)` or `module(features, context)`, which may accept rows (n, D) only."""

    width = 0

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.takes_context = takes(module, "context")

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (..., inputs) to (..., width)."""
        lead = h.shape[:-1]
        rows = h.reshape(-1, h.shape[-1])
        if not self.takes_context:
            return self.module(rows).reshape(*lead, -1)
        context = None if context is None else by_row(context, lead[-1]).repeat(math.prod(lead[:-1]), 1)
        return self.module(rows, context).reshape(*lead, -1)


def custom_network(name: str, module: nn.Module, inputs: int, outputs: int | None, context: int) -> CustomNetwork:
    """A copy of the user's encoder or decoder, tested on two rows.

    Raises
    ------
    ParameterError
        If it does not map (n, inputs) to (n, outputs), or to any width where `outputs` is None.
    """
    body = CustomNetwork(copy.deepcopy(module).float())
    target = "features" if outputs is None else f"{outputs} values"
    wanted = f"{name} must map rows of {inputs} values to rows of {target}"
    if context and not body.takes_context:
        raise ParameterError(
            f"{name} must take the context too: forward(rows, context)",
            f"{type(module).__name__}.forward takes rows only",
            f"Add the argument (n, {context}), or fit without context.",
        )
    try:
        with torch.no_grad(), own_stream(0):
            found = tuple(body.eval().module(*_trial(body, inputs, context)).shape)
    except Exception as error:
        raise ParameterError(
            wanted, f"it fails: {first_line(error)}", f"Return a tensor (n, {outputs or 'any width'})."
        ) from error
    if len(found) != 2 or found[0] != 2 or found[1] != (outputs or found[1]):
        raise ParameterError(
            wanted, f"for 2 rows it returns the shape {found}", f"Return a tensor (n, {outputs or 'any width'})."
        )
    body.width = found[1]
    return body.train()


def _trial(body: CustomNetwork, inputs: int, context: int) -> tuple[Tensor | None, ...]:
    rows = torch.zeros(2, inputs)
    return (rows, torch.zeros(2, context) if context else None) if body.takes_context else (rows,)


def takes(module: nn.Module, name: str) -> bool:
    """Whether `forward` takes a second argument: one of the given name, or one without a default."""
    first, *more = inspect.signature(module.forward).parameters.values()
    needed = (p.kind is p.VAR_POSITIONAL or (p.default is p.empty and p.kind is not p.VAR_KEYWORD) for p in more)
    return first.kind is first.VAR_POSITIONAL or any(p.name == name for p in more) or any(needed)


def first_line(error: Exception) -> str:
    """One line on an error in user code."""
    return f"{type(error).__name__}, {(str(error).splitlines() or ['no message'])[0][:120].rstrip('.')}"
