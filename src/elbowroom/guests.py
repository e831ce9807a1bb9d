"""A caller's own networks and likelihoods as parts of a model: what they leave out is filled in."""

from __future__ import annotations

import copy
import inspect
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from elbowroom.bodies import by_row
from elbowroom.distributions import RowDistribution
from elbowroom.errors import DataError, ParameterError, counted
from elbowroom.likelihoods import Likelihood

LOG_PROB = "Return a distribution over rows whose log_prob has a value for every row, or for every cell of one."
ONE_STREAM = threading.RLock()


class GuestBody(nn.Module):
    """A network `module(features)` or `module(features, context)`, which may know rows (n, D) only."""

    width = 0

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.takes_context = _takes(module, "context")

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (..., inputs) to (..., width)."""
        lead = h.shape[:-1]
        rows = h.reshape(-1, h.shape[-1])
        if not self.takes_context:
            return self.module(rows).reshape(*lead, -1)
        context = None if context is None else by_row(context, lead[-1]).repeat(math.prod(lead[:-1]), 1)
        return self.module(rows, context).reshape(*lead, -1)


def guest_body(name: str, module: nn.Module, inputs: int, outputs: int | None, context: int) -> GuestBody:
    """A copy of the caller's encoder or decoder, tried on two rows.

    Raises
    ------
    ParameterError
        If it does not map (n, inputs) to (n, outputs), or to any width where `outputs` is None.
    """
    body = GuestBody(copy.deepcopy(module).float())
    target = "features" if outputs is None else f"{outputs} values"
    wanted = f"{name} must map rows of {inputs} values to rows of {target}"
    if context and not body.takes_context:
        raise ParameterError(
            f"{name} must take the context too: forward(rows, context)",
            f"{type(module).__name__}.forward takes rows alone",
            f"Add the argument (n, {context}), or fit without context.",
        )
    try:
        with torch.no_grad(), own_stream(0):
            found = tuple(body.eval().module(*_trial(body, inputs, context)).shape)
    except Exception as error:
        raise ParameterError(
            wanted, f"it fails: {_first_line(error)}", f"Return a tensor (n, {outputs or 'any width'})."
        ) from error
    if len(found) != 2 or found[0] != 2 or found[1] != (outputs or found[1]):
        raise ParameterError(
            wanted, f"of 2 rows it makes the shape {found}", f"Return a tensor (n, {outputs or 'any width'})."
        )
    body.width = found[1]
    return body.train()


def _trial(body: GuestBody, inputs: int, context: int) -> tuple[Tensor | None, ...]:
    rows = torch.zeros(2, inputs)
    return (rows, torch.zeros(2, context) if context else None) if body.takes_context else (rows,)


class GuestLikelihood(nn.Module):
    """A module `module(h)` or `module(h, total)` that returns p(x|z), such as one of `torch.distributions`.

    All that it may have besides `forward` is `n_outputs`, the width of h (else the features of a row), `n_inputs` with
    `inputs(x)`, `fit_marginals(x)`, `row_total(x)`, `draw_total(n, generator)` and `check(x, columns, first)`.
    """

    def __init__(self, module: nn.Module, features: int) -> None:
        super().__init__()
        self.module, self.features = module, features
        self.n_inputs = int(getattr(module, "n_inputs", features))
        self.n_outputs = int(getattr(module, "n_outputs", features))
        self.takes_total = _takes(module, "total")
        self.register_buffer("unit", torch.ones(()), persistent=False)

    def forward(self, h: Tensor, total: Tensor | None = None) -> RowDistribution:
        """Decoder outputs (..., n_outputs) to p(x|z)."""
        return GuestDistribution(self.module(h, total) if self.takes_total else self.module(h), h.dtype)

    def inputs(self, x: Tensor) -> Tensor:
        """What the encoder sees of rows (n, D)."""
        return self.module.inputs(x) if hasattr(self.module, "inputs") else x.to(self.unit.dtype)  # type: ignore[operator, arg-type]

    def fit_marginals(self, x: Tensor) -> None:
        """Start from training rows (n, D), float64."""
        self._ask("fit_marginals", x)

    def row_total(self, x: Tensor) -> Tensor | None:
        """Sum of every row (n, 1), for a module that is told it."""
        return self._ask("row_total", x)

    def draw_total(self, n: int, generator: Generator | None, context: Tensor | None = None) -> Tensor | None:
        """Totals (n, 1) for new rows."""
        return self._ask("draw_total", n, generator)

    @torch.no_grad()
    def check(self, x: Tensor, columns: Sequence[str] | None = None, first: int = 0) -> None:
        """Refuse rows that have no log-probability, and those that the module's own `check` refuses."""
        self._ask("check", x, columns, first)
        wanted = f"likelihood={type(self.module).__name__} must give every row a log-probability"
        try:
            p = self(torch.zeros(len(x), self.n_outputs, dtype=self.unit.dtype), self.row_total(x))  # type: ignore[arg-type]
            found = tuple(p.log_prob(x).shape)
        except Exception as error:
            got = f"with {counted(len(x), 'row')} from row {first} on it fails: {_first_line(error)}"
            raise DataError(wanted, got, LOG_PROB) from error
        if found != (len(x),):
            raise DataError(wanted, f"of {counted(len(x), 'row')} it gives the shape {found}", LOG_PROB)

    def _ask(self, method: str, *args: Any) -> Any:
        found = getattr(self.module, method, None)
        return None if found is None else found(*args)


class GuestDistribution(RowDistribution):
    """p(x|z) as one of `torch.distributions`, or a class with its `log_prob`, `mean` and `sample`."""

    def __init__(self, p: Any, dtype: torch.dtype) -> None:
        self.p, self.dtype = p, dtype

    def log_kernel(self, x: Tensor) -> Tensor:
        value = self.p.log_prob(x.to(self.dtype))
        by_feature = getattr(self.p, "event_shape", None) == ()
        return value.sum(-1) if by_feature else value

    @property
    def mean(self) -> Tensor:
        return self.p.mean

    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw; `torch.distributions` take no generator."""
        if "generator" in inspect.signature(self.p.sample).parameters:
            return self.p.sample(generator=generator)
        with own_stream(int(torch.randint(2**62, (), generator=generator))):
            return self.p.sample()


def guest_likelihood(module: nn.Module, features: int) -> nn.Module:
    """A copy of the caller's likelihood; one of Elbowroom's own needs nothing but the right width."""
    module = copy.deepcopy(module)
    if not isinstance(module, Likelihood):
        return GuestLikelihood(module.float(), features)
    if module.features != features:
        raise ParameterError(
            f"likelihood must be for the {features} features of a row",
            f"{type(module).__name__} is for {module.features}",
            f"Build it for {features}.",
        )
    return module


def _takes(module: nn.Module, name: str) -> bool:
    """Whether `forward` takes a second argument: one of this name, or one without a default."""
    first, *more = inspect.signature(module.forward).parameters.values()
    needed = (p.kind is p.VAR_POSITIONAL or (p.default is p.empty and p.kind is not p.VAR_KEYWORD) for p in more)
    return first.kind is first.VAR_POSITIONAL or any(p.name == name for p in more) or any(needed)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}, {(str(error).splitlines() or ['no message'])[0][:120].rstrip('.')}"


@contextmanager
def own_stream(seed: int) -> Iterator[None]:
    """Give custom modules, which draw from torch's global stream, a stream of its own, one thread at a time."""
    with ONE_STREAM, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
