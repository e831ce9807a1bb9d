"""beta: policies as values with a text form, functions of progress, and errors that say what to do."""

from __future__ import annotations

import contextlib
import math
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elbowroom.beta.policies import (
    POLICIES,
    Beta,
    Capacity,
    Constant,
    Cyclical,
    LogUniform,
    PerRow,
    Schedule,
    TargetDistortion,
    TargetRate,
    Warmup,
    beta_of,
)
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
    "gamma": st.floats(0, 1e3, allow_subnormal=False),
    "cap": st.none() | st.floats(0, 10),
    "nats": st.floats(1e-3, 1e4) | st.integers(1, 100),
    "low": st.floats(1e-9, 0.9),
    "high": st.floats(1.1, 1e9) | st.integers(2, 100),
}


def policies(kind: type[Beta]) -> st.SearchStrategy[Beta]:
    """All policies of a kind, some with their defaults."""
    needed = {field.name: FIELDS[field.name] for field in fields(kind) if field.default is MISSING}
    others = {field.name: FIELDS[field.name] for field in fields(kind) if field.default is not MISSING}
    return st.fixed_dictionaries(needed, optional=others).map(lambda options: kind(**options))


ANY = st.one_of(*map(policies, POLICIES.values()))
SCHEDULE = st.one_of(*(policies(kind) for kind in POLICIES.values() if issubclass(kind, Schedule)))


@given(ANY)
def test_text_form_round_trip(policy: Beta) -> None:
    assert beta_of(str(policy)) == policy


@given(SCHEDULE, st.floats(0, 1))
def test_beta_stays_within_the_policy_s_numbers(policy: Schedule, progress: float) -> None:
    ends = [getattr(policy, name) for name in ("value", "start", "end") if hasattr(policy, name)]
    assert min(ends) * (1 - 1e-15) <= policy.at(progress) <= max(ends) * (1 + 1e-15)
    assert type(policy.at(progress)) is float


@given(SCHEDULE)
def test_the_end_of_the_run_sees_the_end_of_the_policy(policy: Schedule) -> None:
    assert policy.at(1.0) == policy.final
    assert policy.final == (policy.value if isinstance(policy, Constant) else policy.end)  # type: ignore[attr-defined]


@given(SCHEDULE)
def test_every_policy_is_continuous_to_its_end(policy: Schedule) -> None:
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
        ("perrow:gamma=0.01,cap=2", PerRow(gamma=0.01, cap=2)),
        ("targetrate:nats=12", TargetRate(12)),
        ("targetdistortion:nats=-3.5", TargetDistortion(-3.5)),
        ("capacity:nats=10", Capacity(nats=10)),
        ("0.01..10", LogUniform(0.01, 10)),
        (" .5 .. 2 ", LogUniform(0.5, 2)),
        ("1e-2..1e1", LogUniform(0.01, 10)),
        ("range:low=1,high=4", LogUniform(1, 4)),
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
    ("perrow:gamma=-1", "-1"),
    ("perrow:cap=nan", "nan"),
    ("targetrate", "nats"),
    ("targetrate:nats=0", "0"),
    ("targetrate:nats=5,low=2,high=1", "from 2 to 1"),
    ("targetdistortion:nats=inf", "inf"),
    ("capacity:nats=-1", "-1"),
    ("capacity:fraction=2", "2"),
    ("10..1", "from 10 to 1"),
    ("1..1", "from 1 to 1"),
    ("0..1", "0"),
    ("-1..1", "-1"),
    ("1..", "''"),
    ("a..b", "'a'"),
    ("1..inf", "'inf'"),
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
    class Falling(Schedule):
        high: float = 2.0

        def at(self, progress: float) -> float:
            return self.high * (1 - progress)

    assert beta_of(Falling()).final == 0
    assert "high=2.0" in str(Falling())
