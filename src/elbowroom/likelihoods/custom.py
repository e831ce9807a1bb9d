"""User-supplied likelihoods as parts of a model, with defaults for optional methods."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from elbowroom.distributions.base import RowDistribution
from elbowroom.errors import DataError, ParameterError, counted
from elbowroom.likelihoods.base import Likelihood
from elbowroom.nn.custom import first_line, takes
from elbowroom.utils.randomness import own_stream

LOG_PROB = "Return a distribution over rows whose log_prob has a value for every row, or for every cell of one."


class CustomLikelihood(nn.Module):
    """A module `module(h)` or `module(h, total)` that returns p(x|z), such as one of `torch.distributions`.

    Besides `forward`, the module may define `n_outputs`, the width of h (default: the features of a row), `n_inputs`
    with `inputs(x)`, `fit_marginals(x)`, `row_total(x)`, `draw_total(n, generator)` and `check(x, columns, first)`.
    """

    def __init__(self, module: nn.Module, features: int) -> None:
        super().__init__()
        self.module, self.features = module, features
        self.n_inputs = int(getattr(module, "n_inputs", features))
        self.n_outputs = int(getattr(module, "n_outputs", features))
        self.takes_total = takes(module, "total")
        self.register_buffer("unit", torch.ones(()), persistent=False)

    def forward(self, h: Tensor, total: Tensor | None = None) -> RowDistribution:
        """Decoder outputs (..., n_outputs) to p(x|z)."""
        return CustomDistribution(self.module(h, total) if self.takes_total else self.module(h), h.dtype)

    def inputs(self, x: Tensor) -> Tensor:
        """The encoder's input for rows (n, D)."""
        found: Tensor = self.module.inputs(x) if hasattr(self.module, "inputs") else x  # type: ignore[operator]
        return found.to(self.unit.dtype)  # type: ignore[arg-type]

    def fit_marginals(self, x: Tensor) -> None:
        """Start from training rows (n, D), float64."""
        self._ask("fit_marginals", x)

    def row_total(self, x: Tensor) -> Tensor | None:
        """Sum of every row (n, 1), for a module that takes it."""
        return self._ask("row_total", x)

    def draw_total(self, n: int, generator: Generator | None, context: Tensor | None = None) -> Tensor | None:
        """Totals (n, 1) for new rows."""
        return self._ask("draw_total", n, generator)

    @torch.no_grad()
    def check(self, x: Tensor, columns: Sequence[str] | None = None, first: int = 0) -> None:
        """Refuse rows without a log-probability, and those that the module's own `check` refuses."""
        self._ask("check", x, columns, first)
        wanted = f"likelihood={type(self.module).__name__} must give every row a log-probability"
        try:
            p = self(torch.zeros(len(x), self.n_outputs, dtype=self.unit.dtype), self.row_total(x))  # type: ignore[arg-type]
            found = tuple(p.log_prob(x).shape)
        except Exception as error:
            got = f"with {counted(len(x), 'row')} from row {first} on it fails: {first_line(error)}"
            raise DataError(wanted, got, LOG_PROB) from error
        if found != (len(x),):
            raise DataError(wanted, f"of {counted(len(x), 'row')} it gives the shape {found}", LOG_PROB)

    def _ask(self, method: str, *args: Any) -> Any:
        found = getattr(self.module, method, None)
        return None if found is None else found(*args)


class CustomDistribution(RowDistribution):
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


def custom_likelihood(module: nn.Module, features: int) -> nn.Module:
    """A copy of the user's likelihood; for one of Elbowroom's own, only the width is checked."""
    module = copy.deepcopy(module)
    if not isinstance(module, Likelihood):
        return CustomLikelihood(module.float(), features)
    if module.features != features:
        raise ParameterError(
            f"likelihood must be for the {features} features of a row",
            f"{type(module).__name__} is for {module.features}",
            f"Build it for {features}.",
        )
    return module
