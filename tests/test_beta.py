"""beta: policies as values with a text form, functions of progress, and errors that say what to do."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elbowroom.beta import POLICIES, Beta, Constant, Cyclical, Warmup, beta_of
from elbowroom.errors import ParameterError

NON_NEGATIVE = st.floats(0, 1e6, allow_subnormal=False)
# One strategy for each name of a field; a new policy adds the names that it brings.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "value": NON_NEGATIVE | st.integers(0, 100),
    "start": NON_NEGATIVE,
    "end": NON_NEGATIVE | st.integers(0, 100),
    "fraction": st.floats(0, 1),
    "ramp": st.floats(0, 1),
    "cycles": st.integers(1, 50),
}


def policies(kind: type[Beta]) -> st.SearchStrategy[Beta]:
    """All policies of a kind, some with their defaults."""
    chosen = {field.name: FIELDS[field.name] for field in fields(kind)}
    return st.fixed_dictionaries({}, optional=chosen).map(lambda options: kind(**options))


ANY = st.one_of(*map(policies, POLICIES.values()))


@given(ANY)
def test_text_form_round_trip(policy: Beta) -> None:
    assert beta_of(str(policy)) == policy


@given(ANY, st.floats(0, 1))
def test_beta_stays_within_the_policy_s_numbers(policy: Beta, progress: float) -> None:
    ends = [getattr(policy, name) for name in ("value", "start", "end") if hasattr(policy, name)]
    assert min(ends) * (1 - 1e-15) <= policy.at(progress) <= max(ends) * (1 + 1e-15)
    assert type(policy.at(progress)) is float


@given(ANY)
def test_the_end_of_the_run_sees_the_end_of_the_policy(policy: Beta) -> None:
    assert policy.at(1.0) == policy.final
    assert policy.final == (policy.value if isinstance(policy, Constant) else policy.end)  # type: ignore[attr-defined]


@given(ANY)
def test_every_policy_is_continuous_to_its_end(policy: Beta) -> None:
    if not isinstance(policy, Cyclical) or policy.ramp < 1:  # a cycle that never holds starts again at once
        near = policy.at(1 - 1e-12)
        assert near == pytest.approx(policy.final, rel=1e-3, abs=1e-3) or getattr(policy, "fraction", 0) > 1 - 1e-6


def test_warm_up_by_hand() -> None:
    warm_up = Warmup(end=3, fraction=0.5, start=1)
    assert [warm_up.at(p) for p in (0, 0.25, 0.5, 0.75, 1)] == [1, 2, 3, 3, 3]
    assert Warmup(end=2, fraction=0).at(0) == 2


def test_cyclical_by_hand() -> None:
    cyclical = Cyclical(end=1, cycles=2, ramp=0.5)
    assert [cyclical.at(p) for p in (0, 0.125, 0.25, 0.4, 0.5, 0.625, 0.75, 1)] == [0, 0.5, 1, 1, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4, Constant(4)),
        (0.5, Constant(0.5)),
        (np.float32(0.5), Constant(0.5)),
        (np.int64(2), Constant(2)),
        ("4", Constant(4)),
        (" 0.25 ", Constant(0.25)),
        ("1e-3", Constant(0.001)),
        ("constant:value=2", Constant(2)),
        ("warmup", Warmup()),
        ("warmup: end = 2 , fraction = 0.1", Warmup(end=2, fraction=0.1)),
        ("cyclical:cycles=2", Cyclical(cycles=2)),
        (Warmup(end=2), Warmup(end=2)),
    ],
)
def test_beta_of(value: Any, expected: Beta) -> None:
    assert beta_of(value) == expected


BAD: list[tuple[Any, str]] = [
    (-1, "-1"),
    (math.nan, "nan"),
    (math.inf, "inf"),
    (10**400, "000"),
    (True, "True"),
    (None, "None"),
    ([1.0], "[1.0]"),
    ("true", "True"),
    ("", "''"),
    ("wramup:end=1", "Did you mean 'warmup'?"),
    ("warmup:edn=1", "Did you mean 'end'?"),
    ("warmup:end", "end=VALUE"),
    ("warmup:end=1,end=2", "twice"),
    ("warmup:end=-1", "-1"),
    ("warmup:end=much", "'much'"),
    ("warmup:fraction=1.5", "1.5"),
    ("cyclical:cycles=0", "0"),
    ("cyclical:cycles=2.5", "2.5"),
    ("cyclical:ramp=-0.1", "-0.1"),
]


@pytest.mark.parametrize(("value", "said"), BAD, ids=[repr(value)[:30] for value, _ in BAD])
def test_bad_values_give_errors_in_three_parts(value: Any, said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        beta_of(value)
    error = caught.value
    assert error.expected
    assert error.got
    assert error.do.endswith((".", "?"))
    assert said in str(error)


@given(st.text(max_size=40))
def test_any_text_is_a_policy_or_a_parameter_error(text: str) -> None:
    with contextlib.suppress(ParameterError):
        assert isinstance(beta_of(text), Beta)


def test_a_policy_from_elsewhere_is_taken_and_shows_itself() -> None:
    @dataclass(frozen=True)
    class Falling(Beta):
        high: float = 2.0

        def at(self, progress: float) -> float:
            return self.high * (1 - progress)

    assert beta_of(Falling()).final == 0
    assert "high=2.0" in str(Falling())
