"""The constraints of scikit-learn that this package uses, with the same results and messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AnySet
from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse


class InvalidParameterError(ValueError, TypeError):
    """A parameter satisfies none of its constraints."""


class Interval:
    """Numbers of a type between two bounds, where None is infinity; `closed` names the bounds that are included."""

    def __init__(self, type: Any, left: float | None, right: float | None, *, closed: str) -> None:
        self.type, self.left, self.right = type, left, right
        self.with_left, self.with_right = closed in ("left", "both"), closed in ("right", "both")

    def is_satisfied_by(self, value: Any) -> bool:
        """Whether a value is in the interval; NaN is not."""
        if not isinstance(value, self.type) or value != value:
            return False
        left = -math.inf if self.left is None else self.left
        right = math.inf if self.right is None else self.right
        above = value >= left if self.with_left else value > left
        return bool(above and (value <= right if self.with_right else value < right))

    def __str__(self) -> str:
        kind, shown = ("an int", str) if self.type is Integral else ("a float", lambda bound: str(float(bound)))
        left = "-inf" if self.left is None else shown(self.left)
        right = "inf" if self.right is None else shown(self.right)
        return f"{kind} in the range {'(['[self.with_left]}{left}, {right}{')]'[self.with_right]}"


class StrOptions:
    """Any of some strings."""

    def __init__(self, options: AnySet[str]) -> None:
        self.options = options

    def is_satisfied_by(self, value: Any) -> bool:
        """Whether a value is one of the options."""
        return isinstance(value, str) and value in self.options

    def __str__(self) -> str:
        return f"a str among {{{', '.join(map(repr, self.options))}}}"


class HasMethods:
    """Objects with these methods."""

    def __init__(self, methods: Sequence[str]) -> None:
        self.methods = methods

    def is_satisfied_by(self, value: Any) -> bool:
        """Whether an object has them all."""
        return all(callable(getattr(value, method, None)) for method in self.methods)

    def __str__(self) -> str:
        *names, last = map(repr, self.methods)
        return f"an object implementing {', '.join(names)}{' and ' if names else ''}{last}"


class _Instance:
    def __init__(self, type: Any) -> None:
        self.type = type

    def is_satisfied_by(self, value: Any) -> bool:
        return isinstance(value, self.type)

    def __str__(self) -> str:
        name = f"{self.type.__module__}.{self.type.__qualname__}".removeprefix("builtins.")
        return f"an instance of {name!r}"


class _Nothing:
    def is_satisfied_by(self, value: Any) -> bool:
        return value is None

    def __str__(self) -> str:
        return "None"


class _ArrayLike:
    def is_satisfied_by(self, value: Any) -> bool:
        sized = hasattr(value, "__len__") or hasattr(value, "shape") or hasattr(value, "__array__")
        return sized and not np.isscalar(value) and not sparse.issparse(value)

    def __str__(self) -> str:
        return "an array-like"


class _Callable:
    def is_satisfied_by(self, value: Any) -> bool:
        return callable(value)

    def __str__(self) -> str:
        return "a callable"


class _AnyOf:
    def __init__(self, *constraints: Any) -> None:
        self.constraints = [made(constraint) for constraint in constraints]

    def is_satisfied_by(self, value: Any) -> bool:
        return any(constraint.is_satisfied_by(value) for constraint in self.constraints)

    def __str__(self) -> str:
        *names, last = map(str, self.constraints)
        return f"{', '.join(names)} or {last}" if names else last


def made(constraint: Any) -> Any:
    """A constraint object from its short form: a type, None, or a name."""
    if constraint is None:
        return _Nothing()
    if constraint is callable:
        return _Callable()
    if isinstance(constraint, type):
        return _Instance(constraint)
    if not isinstance(constraint, str):
        return constraint
    if constraint == "array-like":
        return _ArrayLike()
    if constraint == "boolean":
        return _AnyOf(bool, np.bool_)
    whole = Interval(Integral, 0, None, closed="left")
    if constraint == "verbose":
        return _AnyOf(whole, bool, np.bool_)
    if constraint == "random_state":
        return _AnyOf(Interval(Integral, 0, 2**32 - 1, closed="both"), np.random.RandomState, None)
    raise ValueError(f"Unknown constraint type: {constraint}")


def validate_parameter_constraints(constraints: Mapping[str, Any], values: Mapping[str, Any], kind: str) -> None:
    """Raise for the first value that satisfies none of its constraints.

    Raises
    ------
    InvalidParameterError
        With the allowed and the actual value.
    """
    for name, value in values.items():
        allowed = constraints.get(name, "no_validation")
        if isinstance(allowed, str):
            continue
        one = _AnyOf(*allowed)
        if not one.is_satisfied_by(value):
            raise InvalidParameterError(f"The {name!r} parameter of {kind} must be {one}. Got {value!r} instead.")
