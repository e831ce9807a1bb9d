"""The plain constraints of parameters say what scikit-learn's private ones say, and stand in for them."""

from __future__ import annotations

import importlib
import sys
from numbers import Integral, Real
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from elbowroom import TableVAE
from elbowroom.data.interactions import reading
from elbowroom.estimators import base, count, image, recommender, table, wrappers
from elbowroom.tasks.recommend import baselines
from elbowroom.utils import constraints, plain_constraints

private = pytest.importorskip("sklearn.utils._param_validation")

KINDS = {
    kind
    for module in (reading, base, count, image, recommender, table, wrappers, baselines)
    for kind in vars(module).values()
    if isinstance(kind, type) and hasattr(kind, "_parameter_constraints")
}
NUMBERS = [
    0,
    -1,
    1,
    3,
    2**31 - 1,
    2**32,
    0.0,
    0.5,
    1.0,
    2.5,
    -0.1,
    np.inf,
    -np.inf,
    np.nan,
    np.int8(1),
    np.float32(0.5),
]
ARRAYS = [(), [1], np.ones(3), np.float64(1), sparse.eye(2), torch.ones(2), {"a": 1}]
OTHERS = [None, True, np.True_, "", "auto", "spectral", b"x", 1j, object, object(), np.random.RandomState(0)]
VALUES = [*NUMBERS, *ARRAYS, *OTHERS, np.random.default_rng(0), torch.nn.Linear(1, 1), TableVAE()]


def plain(constraint: Any) -> Any:
    """The plain constraint for one of scikit-learn's; a type, None or a name is itself."""
    if isinstance(constraint, private.Interval):
        bounds = constraint.left, constraint.right
        return plain_constraints.Interval(constraint.type, *bounds, closed=constraint.closed)
    if isinstance(constraint, private.StrOptions):
        return plain_constraints.StrOptions(constraint.options)
    return (
        plain_constraints.HasMethods(constraint.methods) if isinstance(constraint, private.HasMethods) else constraint
    )


def said(module: Any, allowed: Any, value: Any) -> str | None:
    try:
        module.validate_parameter_constraints({"n": allowed}, {"n": value}, "TableVAE")
    except module.InvalidParameterError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.__name__))
def test_they_say_the_same_of_every_parameter(kind: Any) -> None:
    for name, allowed in kind._parameter_constraints.items():
        ours = allowed if isinstance(allowed, str) else [plain(one) for one in allowed]
        for value in VALUES:
            assert said(plain_constraints, ours, value) == said(private, allowed, value), (name, value)


@pytest.mark.parametrize("closed", ["left", "right", "both", "neither"])
@pytest.mark.parametrize("bounds", [(0, 1), (0, None), (None, 3), (0.5, 2.5), (-1, 1)])
@pytest.mark.parametrize("type_", [Real, Integral])
def test_intervals_are_the_same(type_: Any, bounds: Any, closed: str) -> None:
    if type_ is Integral:  # whole numbers have whole bounds, or open ends
        bounds = tuple(None if bound is None else int(bound) for bound in bounds)
        closed = "neither" if None in bounds else closed
    theirs = private.Interval(type_, *bounds, closed=closed)
    for value in VALUES:
        assert said(plain_constraints, [plain(theirs)], value) == said(private, [theirs], value), value


def test_the_error_is_of_both_kinds() -> None:
    for module in (plain_constraints, private):
        assert issubclass(module.InvalidParameterError, ValueError)
        assert issubclass(module.InvalidParameterError, TypeError)


def test_methods_are_named_alike() -> None:
    for methods in (["fit"], ["fit", "impute"], ["fit", "impute", "nothing"]):
        theirs = private.HasMethods(methods)
        assert str(plain(theirs)) == str(theirs)


def test_they_stand_in_where_those_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = constraints.__all__
    assert [getattr(constraints, name) for name in names] == [getattr(private, name) for name in names]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, private.__name__, None)
        importlib.reload(constraints)
        assert [getattr(constraints, name) for name in names] == [getattr(plain_constraints, name) for name in names]
    importlib.reload(constraints)
    assert constraints.Interval is private.Interval
