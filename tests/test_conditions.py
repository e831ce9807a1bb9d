"""Tables are exact or raise: given cells, dtypes, imputed cells, comparisons."""

from __future__ import annotations

import datetime
import functools
import json
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from small import WINE, mixed, table

from elbowroom import Real, Schema, TableVAE, VAEImputer, quality
from elbowroom.cli.app import run
from elbowroom.data.tables.schema import merged, read
from elbowroom.data.values import held, long_enough
from elbowroom.errors import DataError, ElbowroomWarning
from elbowroom.estimators.tables import cells_of
from elbowroom.tasks import quality as task

N = 60
BIG = 2**60
BERLIN = ZoneInfo("Europe/Berlin")
WHOLE = [int(k) for k in np.random.default_rng(1).permutation(1000)[:N]]
DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(k) for k in WHOLE]
TIMES = [datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=k, microseconds=k) for k in WHOLE]
AWARE = [t.replace(tzinfo=datetime.UTC).astimezone(BERLIN) for t in TIMES]
CENTS = [Decimal(k) / 100 for k in WHOLE]
NUMBERS = [float(x) for x in np.random.default_rng(2).normal(size=N)]


def gaps(values: Any) -> list[Any]:
    """Values of which every fifth is missing."""
    return [None if i % 5 == 0 else value for i, value in enumerate(values)]


def listed(column: Any) -> list[Any]:
    """A column of any library as Python objects, None if missing."""
    values = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    return [None if value is None or value is pd.NA or value != value else value for value in values]


def dtype_of(frame: Any, name: str) -> Any:
    return frame.schema.field(name).type if isinstance(frame, pa.Table) else frame[name].dtype


# ---- columns of every dtype ------------------------------------------------------------------------------------------

ARROW = pd.ArrowDtype
PANDAS: dict[str, Any] = {
    "int8": pd.Series([k % 100 for k in WHOLE], dtype="int8"),
    "2**60": pd.Series([BIG + k for k in WHOLE]),
    "-2**60": pd.Series([-BIG - k for k in WHOLE]),
    "2**60, missing": pd.Series(gaps(BIG + k for k in WHOLE), dtype="Int64"),
    "2**60 of few": pd.Series([BIG + k % 3 for k in WHOLE]),
    "2**60, wide": pd.Series([BIG + 10**6 * k for k in WHOLE]),
    "uint64": pd.Series([2**64 - 1 - k for k in WHOLE], dtype="uint64"),
    "int64 of pyarrow": pd.Series(gaps(BIG + k for k in WHOLE), dtype="int64[pyarrow]"),
    "objects beyond 64 bits": pd.Series(gaps(2**70 + k for k in WHOLE), dtype=object),
    "float16": pd.Series(NUMBERS, dtype="float16"),
    "Float32": pd.Series(gaps(NUMBERS), dtype="Float32"),
    "double of pyarrow": pd.Series(gaps(NUMBERS), dtype="double[pyarrow]"),
    "sparse": pd.Series(pd.arrays.SparseArray([0, 1, 2] * (N // 3))),
    "string of pyarrow": pd.Series(gaps(["a", "b"] * (N // 2)), dtype="string[pyarrow]"),
    "string of python": pd.Series(gaps(["a", "b"] * (N // 2)), dtype="string[python]"),
    "text of pyarrow": pd.Series(gaps(["a", "b"] * (N // 2)), dtype=ARROW(pa.string())),
    "dictionary": pd.Series(gaps(["a", "b"] * (N // 2)), dtype=ARROW(pa.dictionary(pa.int32(), pa.string()))),
    "truths as objects": pd.Series(gaps([True, False] * (N // 2)), dtype=object),
    "boolean": pd.Series(gaps([True, False] * (N // 2)), dtype="boolean"),
    "bool of pyarrow": pd.Series(gaps([True, False] * (N // 2)), dtype="bool[pyarrow]"),
    "zone": pd.Series(pd.to_datetime(gaps(TIMES))).dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
    "distance from UTC": pd.Series(pd.to_datetime([t.isoformat() + "+02:00" for t in TIMES], format="ISO8601")),
    "seconds": pd.Series([t.replace(microsecond=0) for t in TIMES]).astype("datetime64[s]"),
    "times of pyarrow": pd.Series(gaps(AWARE), dtype=ARROW(pa.timestamp("us", "Europe/Berlin"))),
    "dates of pyarrow": pd.Series(gaps(DAYS), dtype=ARROW(pa.date32())),
    "dates as objects": pd.Series(gaps(DAYS), dtype=object),
    "times as objects": pd.Series(gaps(TIMES), dtype=object),
    "times with a zone as objects": pd.Series(gaps(AWARE), dtype=object),
    "decimals": pd.Series(gaps(CENTS), dtype=object),
    "decimals of pyarrow": pd.Series(gaps(CENTS), dtype=ARROW(pa.decimal128(10, 2))),
    "categories that are numbers": pd.Series(pd.Categorical(gaps([1, 2, 3] * (N // 3)))),
    "categories that are truths": pd.Series(pd.Categorical([True, False] * (N // 2))),
}
POLARS: dict[str, Any] = {
    "2**60": pl.Series(gaps(BIG + k for k in WHOLE), dtype=pl.Int64),
    "UInt64": pl.Series([2**64 - 1 - k for k in WHOLE], dtype=pl.UInt64),
    "Int128": pl.Series([2**100 + k for k in WHOLE], dtype=pl.Int128),
    "Decimal": pl.Series(gaps(CENTS), dtype=pl.Decimal(10, 2)),
    "Date": pl.Series(gaps(DAYS)),
    "zone": pl.Series(gaps(AWARE), dtype=pl.Datetime("ns", "Europe/Berlin")),
    "milliseconds": pl.Series([t.replace(microsecond=0) for t in TIMES], dtype=pl.Datetime("ms")),
    "Enum": pl.Series(gaps(["a", "b"] * (N // 2)), dtype=pl.Enum(["b", "a"])),
    "Categorical": pl.Series(gaps(["a", "b"] * (N // 2)), dtype=pl.Categorical),
    "Boolean": pl.Series(gaps([True, False] * (N // 2))),
}
PYARROW: dict[str, Any] = {
    "2**60": pa.array(gaps(BIG + k for k in WHOLE)),
    "uint64": pa.array([2**64 - 1 - k for k in WHOLE], pa.uint64()),
    "decimal256": pa.array(gaps(CENTS), pa.decimal256(40, 2)),
    "date64": pa.array(gaps(DAYS), pa.date64()),
    "seconds": pa.array([t.replace(microsecond=0) for t in TIMES], pa.timestamp("s")),
    "distance from UTC": pa.array(gaps(AWARE), pa.timestamp("us", "+02:00")),
    "dictionary of numbers": pa.array(gaps([1, 2] * (N // 2))).dictionary_encode(),
    "dictionary with an order": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2] * (N // 3), pa.int8()), pa.array(["s", "m", "l"]), ordered=True
    ),
    "halffloat": pa.array(np.array(NUMBERS, dtype="f2")),
    "string_view": pa.array(gaps(["a", "b"] * (N // 2)), pa.string_view()),
}
FRAMES: dict[str, tuple[str, Any]] = {
    **{f"pandas {name}": ("pandas", pd.DataFrame({"c": column})) for name, column in PANDAS.items()},
    **{f"polars {name}": ("polars", pl.DataFrame({"c": column})) for name, column in POLARS.items()},
    **{f"pyarrow {name}": ("pyarrow", pa.table({"c": column})) for name, column in PYARROW.items()},
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_column_of_any_dtype_comes_back_to_the_last_digit(name: str) -> None:
    library, frame = FRAMES[name]
    schema = Schema.of(json.loads(json.dumps(Schema.infer(frame).form())))
    back = schema.frame(schema.encode(read(frame)), library, frame)
    assert dtype_of(back, "c") == dtype_of(frame, "c")
    assert listed(back["c"]) == listed(frame["c"])


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_given_stands_in_every_row(name: str) -> None:
    library, frame = FRAMES[name]
    schema = Schema.infer(frame)
    value = next(value for value in listed(frame["c"]) if value is not None)
    row, exact = schema.given({"c": value}, library)
    made = schema.frame(np.repeat(row, 3, 0), library, exact=exact)
    assert dtype_of(made, "c") == dtype_of(frame, "c")
    assert listed(made["c"]) == [value] * 3
    if schema.columns["c"].nulls:
        row, exact = schema.given({"c": None}, library)
        assert listed(schema.frame(np.repeat(row, 3, 0), library, exact=exact)["c"]) == [None] * 3


REFUSED: dict[str, tuple[Any, str]] = {
    "durations": (pd.DataFrame({"c": pd.to_timedelta(WHOLE, "s")}), "'c' holds duration"),
    "durations as objects": (pd.DataFrame({"c": pd.Series([datetime.timedelta(1)], dtype=object)}), "column 'c'"),
    "complex numbers": (pd.DataFrame({"c": np.array(NUMBERS) * 1j}), "column 'c' holds"),
    "periods": (pd.DataFrame({"c": pd.period_range("2000", periods=9, freq="M")}), "column 'c' holds '2000-01'"),
    "intervals": (pd.DataFrame({"c": pd.interval_range(0, 9)}), "column 'c' holds '(0, 1]'"),
    "bins": (pd.DataFrame({"c": pd.cut(NUMBERS, 3)}), "column 'c'"),
    "categories that are dates": (pd.DataFrame({"c": pd.Series(DAYS).astype("category")}), "column 'c'"),
    "lists": (pl.DataFrame({"c": [[1]]}), "'c' holds list"),
    "structs": (pl.DataFrame({"c": [{"a": 1}]}), "'c' holds struct"),
    "arrays": (pl.DataFrame({"c": pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2))}), "'c' holds array"),
    "times of a day": (pa.table({"c": pa.array([datetime.time(1)])}), "'c' holds time"),
    "bytes": (pd.DataFrame({"c": [b"a"]}), "column 'c'"),
    "several distances from UTC": (
        pd.DataFrame({"c": pd.Series([pd.Timestamp("2020-01-01T00+01:00"), pd.Timestamp("2020-07-01T00+02:00")])}),
        "'c' has +01:00 and +02:00",
    ),
    "a zone in some rows": (
        pd.DataFrame({"c": pd.Series([AWARE[0], TIMES[0]], dtype=object)}),
        "Europe/Berlin and none",
    ),
    "long decimals": (pd.DataFrame({"c": [Decimal("12345678901234567.5"), Decimal(1)]}), "row 0, column 'c'"),
    "decimals beside floats": (pd.DataFrame({"c": pd.Series([Decimal(1), 2.5], dtype=object)}), "Row 1, column 'c'"),
    "fractions beside 2**60": (pd.DataFrame({"c": pd.Series([BIG + 1, 0.5], dtype=object)}), "column 'c'"),
    "numbers larger than floats": (pd.DataFrame({"c": pd.Series([10**400, 1], dtype=object)}), "column 'c'"),
    "an array of large numbers": (np.array([[BIG, 1]]), str(BIG)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_column_that_can_not_be_kept_is_refused_by_name(name: str) -> None:
    table, place = REFUSED[name]
    with pytest.raises(DataError) as caught:
        Schema.infer(table)
    assert place in str(caught.value)
    assert caught.value.do


def test_columns_of_the_same_name_are_refused() -> None:
    for frame in (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), pd.DataFrame([[1, 2]], columns=[1, "1"])):
        with pytest.raises(DataError, match="unique"):
            Schema.infer(frame)


def test_a_dtype_of_many_categories_is_saved() -> None:
    names = [f"category {k}" for k in range(200)]
    frame = pl.DataFrame({"c": pl.Series(names * 2, dtype=pl.Enum(names))})
    schema = Schema.of(json.loads(json.dumps(Schema.infer(frame).form())))
    assert schema.frame(schema.encode(read(frame)), "polars").equals(frame)


# ---- numbers beyond float64 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [BIG, -BIG - 999, 2**53 - 500, 2**64 - 1000, 2**70])
def test_whole_numbers_are_exact_at_any_size(low: int) -> None:
    values = [low + k for k in range(1000)]
    frame = pd.DataFrame({"c": pd.Series(values, dtype=object)})
    schema = Schema.infer(frame)
    cells = schema.encode(read(frame))
    assert sorted(cells[:, 0]) == list(range(1000))
    assert listed(schema.frame(cells, "pandas")["c"]) == values
    for value in values[::111]:
        row, exact = schema.given({"c": value}, "pandas")
        assert row[0, 0] == value - low
        assert exact == {"c": value}
    for value in (low - 1, low + 1000):
        with pytest.raises(DataError, match=f"from {low} to {low + 999}"):
            schema.given({"c": value}, "pandas")


@given(st.integers(-(2**63), 2**63 - 1001), st.lists(st.integers(0, 1000), min_size=30, max_size=40))
def test_encoding_keeps_every_digit(low: int, steps: list[int]) -> None:
    frame = pl.DataFrame({"c": pl.Series([low + step for step in steps], dtype=pl.Int64)})
    schema = Schema.infer(frame)
    assert schema.frame(schema.encode(read(frame)), "polars").equals(frame)


@given(st.integers(-(10**9), 10**9), st.integers(1, 3))
def test_a_grid_has_the_numbers_that_its_decimals_are_read_as(place: int, digits: int) -> None:
    value = float(Decimal(place).scaleb(-digits))
    kind = Real(low=-1e9, high=1e9, step=10.0**-digits, point_masses=())
    kind.check(value, "c")
    assert kind.snapped(np.array([value])) == [value]
    between = value + 0.3 * 10.0**-digits
    with pytest.raises(DataError) as caught:
        kind.check(between, "c")
    above = float(Decimal(place + 1).scaleb(-digits))
    assert caught.value.do == f"The nearest are {value!r} and {above!r}."


def test_a_tenth_and_a_fifth_are_no_three_tenths() -> None:
    fine = Schema.infer(pd.DataFrame({"c": [0.1, 0.2, 0.1 + 0.2]}))
    assert fine.given({"c": 0.1 + 0.2}, "pandas")[1] == {"c": 0.30000000000000004}
    coarse = Schema.infer(pd.DataFrame({"c": [0.1, 0.2, 0.3]}))
    assert coarse.given({"c": 0.3}, "pandas")[1] == {"c": 0.3}
    with pytest.raises(DataError, match=r"nearest are 0\.3 and 0\.4"):
        coarse.given({"c": 0.1 + 0.2}, "pandas")


def test_a_fraction_is_not_rounded_where_training_had_whole_numbers() -> None:
    schema = Schema.infer(pd.DataFrame({"c": [-3, -1, 2, 5] * 9}))
    with pytest.raises(DataError, match=r"row 1 holds 0\.5"):
        schema.encode(read(pd.DataFrame({"c": [1.0, 0.5]})))


# ---- what is given ---------------------------------------------------------------------------------------------------


@functools.cache
def fitted() -> TableVAE:
    return table(epochs=1).fit(mixed())


GIVEN: list[tuple[str, Any, Any]] = [
    ("i", 10, 10),
    ("i", np.int8(4), 4),
    ("i", np.array(4), 4),
    ("i", 4.0, 4),
    ("x", 0.1 + 0.2, 0.30000000000000004),
    ("x", 1e6, 1e6),
    ("x", -1e3 / 3, -1e3 / 3),
    ("x", Decimal("0.1"), 0.1),
    ("income", 1e6, 1e6),
    ("tenth", 99.9, 99.9),
    ("many", 5001, 5001),
    ("big", BIG + 3, BIG + 3),
    ("short", 0.1, np.float32(0.1)),
    ("churn", "Yes", "Yes"),
    ("flag", True, True),
    ("flag", np.False_, False),
    ("zero", True, 1),
    ("size", "m", "m"),
    ("stamp", "2024-01-02 03:04:05.123456789", pd.Timestamp("2024-01-02 03:04:05.123456789")),
    ("stamp", np.datetime64("2031-01-01T00:00:00.000000001"), pd.Timestamp("2031-01-01 00:00:00.000000001")),
    ("stamp", datetime.date(2024, 2, 29), pd.Timestamp("2024-02-29")),
    ("seen", "2024-10-27 02:30+02:00", pd.Timestamp("2024-10-27 00:30", tz="UTC")),
    ("seen", "2024-10-27 02:30+01:00", pd.Timestamp("2024-10-27 01:30", tz="UTC")),
    ("seen", datetime.datetime(2024, 5, 5, 12), pd.Timestamp("2024-05-05 10:00", tz="UTC")),
    ("seen", pd.Timestamp("2024-05-05", tz="America/New_York"), pd.Timestamp("2024-05-05 04:00", tz="UTC")),
    ("born", "2030-01-01", pd.Timestamp("2030-01-01")),
    ("born", datetime.datetime(2020, 5, 5), pd.Timestamp("2020-05-05")),
    ("cents", Decimal("1.5"), Decimal("1.50")),
    ("cents", 2.07, Decimal("2.07")),
]


@pytest.mark.parametrize(("name", "value", "expected"), GIVEN)
def test_given_cells_are_met_exactly(name: str, value: Any, expected: Any) -> None:
    schema = fitted().schema_
    row, exact = schema.given({name: value}, "pandas")
    made = schema.frame(np.nan_to_num(np.repeat(row, 2, 0)), "pandas", exact=exact)
    assert made[name].tolist() == [expected] * 2
    assert made[name].dtype == mixed()[name].dtype


@pytest.mark.parametrize("value", [None, np.nan, pd.NA, pd.NaT, Decimal("nan"), np.datetime64("NaT")])
def test_a_missing_value_is_given_where_the_column_has_some(value: Any) -> None:
    assert fitted().schema_.given({"gaps": value, "empty": value}, "pandas")[1] == {"gaps": None, "empty": None}
    with pytest.raises(DataError, match="never missing"):
        fitted().schema_.given({"x": value}, "pandas")


def test_samples_have_what_is_given_in_every_row() -> None:
    wanted = {"i": 3, "x": 5.25, "big": BIG + 3, "churn": "No", "flag": False, "gaps": None, "income": 1e6}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        sample = fitted().sample(20, given=wanted, random_state=0)
    assert sample.dtypes.equals(mixed().dtypes)
    for name, value in wanted.items():
        assert sample[name].isna().all() if value is None else sample[name].tolist() == [value] * 20


def test_an_array_is_sampled_with_what_is_given() -> None:
    model = table(schema="infer", epochs=1).fit(WINE)
    sample = model.sample(4, given={"x0": 0.1 + 0.2 + 13, "x12": 750}, random_state=0)
    assert set(sample[:, 0]) == {0.1 + 0.2 + 13}
    assert set(sample[:, 12]) == {750.0}


def test_each_row_is_drawn_for_its_own_context() -> None:
    """Given b, a is above 0 in the one context and below in the other."""
    random = np.random.default_rng(0)
    context = random.choice(["same", "other"], 600)
    a = random.choice([-3.0, 3.0], 600) + random.normal(size=600)
    frame = pd.DataFrame({"a": a, "b": np.where((a > 0) == (context == "same"), "u", "v")})
    model = table(n_latents=1, hidden=(32,), beta=0.5, epochs=40, learning_rate=0.01).fit(frame, context=context)
    four = ["same", "other", "other", "same"]
    for labels in (np.array(four * 50), np.array(four[1:] * 66 + four[:2])):
        sample = model.sample(200, given={"b": "u"}, context=labels, random_state=0)
        assert (sample["a"][labels == "same"] > 0).mean() > 0.8
        assert (sample["a"][labels == "other"] < 0).mean() > 0.8


WORDS: list[tuple[str, str, Any]] = [
    ("i=3", "i", 3),
    ("x=0.30000000000000004", "x", 0.30000000000000004),
    (f"big={BIG + 3}", "big", BIG + 3),
    ("b=c=1.5", "b=c", 1.5),
    ("word=x=y", "word", "x=y"),
    ("word=NA", "word", "NA"),
    ("word=1", "word", "1"),
    ("flag=TRUE", "flag", True),
    ("zero=1", "zero", 1),
    ("zero=false", "zero", 0),
    ("cents=1.10", "cents", Decimal("1.10")),
    ("gaps=", "gaps", None),
    ("gaps=nan", "gaps", None),
    ("born=2020-05-05", "born", "2020-05-05"),
]


@pytest.mark.parametrize(("word", "name", "value"), WORDS)
def test_words_are_read_in_the_type_of_their_column(word: str, name: str, value: Any) -> None:
    found = cells_of(fitted().schema_, [word])
    assert found == {name: value}
    assert type(found[name]) is type(value)
    fitted().schema_.given(found, "pandas")


def test_the_command_line_gives_what_is_asked_for(tmp_path: Path) -> None:
    fitted().save(tmp_path / "m")
    given = ["churn=No", f"big={BIG + 3}", "seen=2024-05-05 12:00", "gaps=", "b=c=0.1", "flag=true"]
    words = [part for word in given for part in ("--given", word)]
    assert run(["sample", str(tmp_path / "m"), "-n", "5", *words, "--out", str(tmp_path / "s.csv")]) == 0
    made = pd.read_csv(tmp_path / "s.csv")
    assert made["churn"].tolist() == ["No"] * 5
    assert made["big"].tolist() == [BIG + 3] * 5
    assert made["seen"].tolist() == ["2024-05-05 12:00:00+02:00"] * 5
    assert made["gaps"].isna().all()
    assert made["b=c"].tolist() == [0.1] * 5
    assert made["flag"].tolist() == [True] * 5


def test_a_context_is_passed_on_with_what_is_given(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": NUMBERS, "b": ["u", "v"] * (N // 2)})
    table(epochs=1).fit(frame, context=np.arange(N) % 3).save(tmp_path / "m")
    command = ["sample", str(tmp_path / "m"), "-n", "4", "--given", "b=v", "--out", str(tmp_path / "s.csv")]
    assert run([*command, "--context", "2"]) == 0
    assert pd.read_csv(tmp_path / "s.csv")["b"].tolist() == ["v"] * 4
    assert run(command) == 1


# ---- names of cells --------------------------------------------------------------------------------------------------


def test_cells_have_names_of_their_own_whatever_columns_are_called() -> None:
    rain = np.where(np.arange(N) % 3 == 0, 0.0, np.exp(NUMBERS))
    frame = pd.DataFrame({"rain": pd.Series(rain).where(np.arange(N) % 7 > 0)})
    names = ["rain at", "rain is missing", "rain at'", "rain is missing at", "rain at is missing"]
    frame = frame.assign(**{name: frame["rain"] * (k + 2) for k, name in enumerate(names)})
    schema = Schema.infer(frame)
    assert len(schema.cells) == len(schema.owners) == schema.encode(read(frame)).shape[1] == 3 * 6
    assert [schema.at(name) for name in frame] == [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(6)]
    model = table(epochs=1).fit(frame)
    full = model.impute(frame)
    assert not full.isna().any().any()
    assert (model.sample(200, given={"rain is missing": None}, random_state=0)["rain"].notna()).any()


# ---- imputation ------------------------------------------------------------------------------------------------------

THIRD = ["a"] * 4 + ["b"] * 4 + ["c"] * (N - 8)


@functools.cache
def categories(ordered: bool) -> TableVAE:
    column = pd.Categorical(THIRD, ["a", "b", "c"], ordered=ordered)
    return table(epochs=1).fit(pd.DataFrame({"c": column, "x": NUMBERS}))


def dictionary(values: list[Any], known: list[str], **options: Any) -> pa.Array:
    codes = pa.array([None if value is None else known.index(value) for value in values], pa.int8())
    return pa.DictionaryArray.from_arrays(codes, pa.array(known), **options)


SOME: list[Any] = ["a", None, None]
FEWER: dict[str, tuple[bool, Any, Any]] = {
    "pandas": (False, pd.DataFrame({"c": pd.Categorical(SOME, ["z", "a"])}), pd.CategoricalDtype(["z", "a", "b", "c"])),
    "pandas, enough": (
        False, pd.DataFrame({"c": pd.Categorical(SOME, ["z", "c", "b", "a"])}),
        pd.CategoricalDtype(["z", "c", "b", "a"])),
    "pandas, in order": (
        True, pd.DataFrame({"c": pd.Categorical(SOME, ["a", "c", "d"], ordered=True)}),
        pd.CategoricalDtype(["a", "b", "c", "d"], ordered=True)),
    "pandas, an order that the model has not": (
        False, pd.DataFrame({"c": pd.Categorical(SOME, ["a", "c"], ordered=True)}),
        pd.CategoricalDtype(["a", "c", "b"])),
    "Enum": (True, pl.DataFrame({"c": pl.Series(SOME, dtype=pl.Enum(["a", "c"]))}), pl.Enum(["a", "b", "c"])),
    "Categorical": (False, pl.DataFrame({"c": pl.Series(SOME, dtype=pl.Categorical)}), pl.Categorical()),
    "dictionary": (False, pa.table({"c": dictionary(SOME, ["a"])}), pa.dictionary(pa.int8(), pa.string())),
    "dictionary in order": (
        True, pa.table({"c": dictionary(SOME, ["a", "c"], ordered=True)}),
        pa.dictionary(pa.int8(), pa.string(), ordered=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", FEWER)
def test_an_imputed_category_has_a_place_in_the_dtype(name: str) -> None:
    ordered, frame, dtype = FEWER[name]
    x = [-1.0, 0.0, 1.0]
    frame = frame.append_column("x", pa.array(x)) if isinstance(frame, pa.Table) else frame
    frame = frame.assign(x=x) if isinstance(frame, pd.DataFrame) else frame
    frame = frame.with_columns(x=pl.Series(x)) if isinstance(frame, pl.DataFrame) else frame
    for full in (categories(ordered).impute(frame), *categories(ordered).impute(frame, n=2)):
        assert dtype_of(full, "c") == dtype
        assert listed(full["c"])[0] == "a"
        assert set(listed(full["c"])) <= {"a", "b", "c"}
    if name == "dictionary in order":
        assert categories(ordered).impute(frame)["c"].chunk(0).dictionary.to_pylist() == ["a", "b", "c"]


def test_orders_are_merged_or_refused() -> None:
    assert merged("c", ("0", "a", "c", "d"), ("a", "b", "c")) == ("0", "a", "b", "c", "d")
    frame = pd.DataFrame({"c": pd.Categorical(["a", None], ["c", "a"], ordered=True), "x": [0.0, 1.0]})
    with pytest.raises(DataError, match="order of column 'c'"):
        categories(True).impute(frame)


@functools.cache
def hundreds() -> TableVAE:
    frame = pd.DataFrame({"i": [200 + k % 120 for k in WHOLE], "x": NUMBERS, "t": ["a", "b"] * (N // 2)})
    return table(epochs=1).fit(frame)


LONGER: list[tuple[Any, Any]] = [
    (pd.Series([100, None], dtype="Int8"), pd.Int64Dtype()),
    (pd.Series([100, None], dtype="Int16"), pd.Int16Dtype()),
    (pd.Series([100, None], dtype="int8[pyarrow]"), ARROW(pa.int64())),
    (pd.Series([100, None], dtype=object), np.dtype(object)),
    (pl.Series([100, None], dtype=pl.Int8), pl.Int64()),
    (pa.array([100, None], pa.int8()), pa.int64()),
]


@pytest.mark.parametrize(("column", "dtype"), LONGER)
def test_an_imputed_number_has_a_place_in_the_dtype(column: Any, dtype: Any) -> None:
    make: Any = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}[
        type(column).__module__.split(".")[0]
    ]
    full = hundreds().impute(make({"i": column, "x": [0.0, 1.0], "t": ["a", "b"]}))
    assert dtype_of(full, "i") == dtype
    first, second = listed(full["i"])
    assert first == 100
    assert 200 <= second <= 319
    assert second == int(second)


def test_a_short_dtype_is_long_enough_or_not() -> None:
    assert [long_enough(name, 0, 300) for name in ("Int8", "UInt8", "int16", "Float32")] == [
        "Int64",
        "Int64",
        "int16",
        "Float32",
    ]
    assert long_enough("int8", -1, 2**63) is None
    assert long_enough("decimal128(4, 2)", 0, 99.99) == "decimal128(4, 2)"
    assert long_enough("Decimal(precision=4, scale=2)", 0, 9999) == "Decimal(precision=38, scale=2)"
    with pytest.raises(DataError, match="whole number"):
        held("c", 2**60 + 1, "float64")


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_columns_without_any_value_get_those_of_the_model(missing: Any) -> None:
    full = hundreds().impute(pd.DataFrame({"i": [missing] * 2, "x": [missing] * 2, "t": [missing] * 2}))
    assert full["i"].between(200, 319).all()
    assert full["x"].dtype == float
    assert set(full["t"]) <= {"a", "b"}
    empty = pl.DataFrame({"i": [None], "x": [None], "t": [None]})
    assert hundreds().impute(empty).schema == {"i": pl.Int64, "x": pl.Float64, "t": pl.String}


def test_observed_cells_are_the_same_bits() -> None:
    frame = pd.DataFrame(
        {
            "number": [0.1 + 0.2, -0.0, np.nan, 1e-310] * 15,
            "whole": pd.array([BIG + 1, None, BIG + 3, BIG + 900] * 15, dtype="Int64"),
            "time": pd.to_datetime(
                ["2024-01-01 00:00:00.123456789", None, "2024-01-02", "2024-02-02"] * 15, format="ISO8601"
            ),
            "text": ["a", None, "b", "b"] * 15,
            "truth": pd.Series([True, None, False, True] * 15, dtype=object),
            "full": np.arange(60) + BIG,
        }
    )
    model = table(epochs=1).fit(frame)
    for full in (model.impute(frame), *model.impute(frame, n=2), VAEImputer(model).fit(frame).transform(frame)):
        assert full.dtypes.equals(frame.dtypes)
        assert not full.isna().any().any()
        for name in frame:
            known = frame[name].notna()
            assert full[name][known].tolist() == frame[name][known].tolist()
        assert np.signbit(full["number"].to_numpy()[1::4]).all()
        assert full["whole"].dropna().between(BIG + 1, BIG + 900).all()
    later = frame.assign(full=pd.array([None, *frame["full"][1:]], dtype="Int64"), text="a")
    full = model.impute(later)
    assert full["full"].tolist()[1:] == frame["full"].tolist()[1:]
    assert BIG <= full["full"][0] < BIG + 60


def test_an_array_without_a_missing_cell_is_not_touched() -> None:
    x = np.random.default_rng(0).integers(0, 3, (60, 2))
    model = table(schema="infer", epochs=1).fit(x)
    later = np.where(x == 2, 2**53 - 1, x)
    assert model.impute(x).dtype == x.dtype
    model = table(schema={"x0": Real(step=0), "x1": Real(step=0)}, epochs=1).fit(x)
    np.testing.assert_array_equal(model.impute(later), later)


def test_numbers_that_are_names_have_no_mean() -> None:
    frame = pd.DataFrame({"zip": pd.array(gaps([1010, 3030] * (N // 2)), dtype="Int64"), "x": NUMBERS})
    full = table(schema={"zip": "category"}, epochs=1).fit(frame).impute(frame, how="mean")
    assert set(full["zip"]) == {1010, 3030}


def test_other_times_than_those_of_training_are_refused() -> None:
    frame = pd.DataFrame(
        {"t": pd.to_datetime(DAYS), "z": pd.Series(pd.to_datetime(DAYS)).dt.tz_localize("UTC"), "x": 1.0}
    )
    schema = Schema.infer(frame)
    for later, said in (
        (frame.assign(t=frame["z"]), "'t' must have no time zone"),
        (frame.assign(z=frame["t"]), "'z' must have a time zone"),
        (frame.assign(t=2020.0), "'t' must hold times"),
        (frame.assign(x=frame["t"]), "'x' must hold no times"),
    ):
        with pytest.raises(DataError, match=said):
            schema.encode(read(later))


def test_values_of_a_column_that_was_empty_are_said_to_be_left_out() -> None:
    schema = Schema.infer(pd.DataFrame({"x": NUMBERS, "e": [None] * N}))
    with pytest.warns(ElbowroomWarning, match="'e' was empty"):
        schema.encode(read(pd.DataFrame({"x": [1.0], "e": ["now"]})))


def test_a_value_out_of_all_reach_is_refused() -> None:
    with pytest.raises(DataError, match="within reach"):
        fitted().sample(3, given={"x": 1e300})
    with pytest.raises(DataError, match="row 1"):
        hundreds().impute(pd.DataFrame({"i": [200, None], "x": [0.0, 1e300], "t": ["a", "b"]}))


# ---- quality ---------------------------------------------------------------------------------------------------------


def shifted(n: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({"a": random.normal(0.3 * (seed > 0), 1, n), "b": random.normal(size=n)})


def test_tables_are_compared_on_the_same_number_of_rows(tmp_path: Path, monkeypatch: Any) -> None:
    sizes, fit = [], HistGradientBoostingClassifier.fit

    def spy(self: Any, x: Any, y: Any) -> Any:
        sizes.append(len(x))
        return fit(self, x, y)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", spy)
    assert task.DETECTION_ROWS == 1000
    monkeypatch.setattr(task, "DETECTION_ROWS", 100)
    long, short = quality(shifted(300, 0), shifted(200, 1)), quality(shifted(60, 0), shifted(300, 1))
    assert sizes == [160] * 5 + [96] * 5
    assert long.facts["detection_rows"] == 100
    assert short.facts["detection_rows"] == 60
    assert (long.facts["real_rows"], long.facts["synthetic_rows"]) == (300, 200)
    assert "(100 rows of each table)" in str(long)
    assert "60 rows of each table, fewer than 100" in str(short)
    assert "60 rows of each table, fewer than 100" in short.report(tmp_path / "q.html").read_text()


def test_both_tables_teach_with_as_many_rows() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=400)}).assign(y=lambda f: f["x"] + random.normal(size=400))
    found = quality(frame, frame[:150], frame, "y")
    assert found.facts["utility_rows"] == 150
    assert found.utility_real == task.utility(frame, frame, "y", 0, 150)
    assert found.utility_real != task.utility(frame, frame, "y", 0)


def test_the_command_line_says_what_its_numbers_rest_on(tmp_path: Path, capsys: Any) -> None:
    shifted(60, 0).to_csv(tmp_path / "r.csv", index=False)
    shifted(50, 1).to_csv(tmp_path / "s.csv", index=False)
    assert run(["quality", str(tmp_path / "r.csv"), str(tmp_path / "s.csv"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["real_rows"], facts["synthetic_rows"], facts["detection_rows"]) == (60, 50, 50)
    assert facts["remarks"]["nearest_neighbour_ratio"] == "50 synthetic rows among 60 real ones"
    assert run(["quality", str(tmp_path / "r.csv"), str(tmp_path / "s.csv")]) == 0
    assert "50 rows of each table, fewer than 1,000" in capsys.readouterr().out


def test_large_numbers_are_compared() -> None:
    frame = pd.DataFrame({"big": [BIG + k for k in range(40)], "c": ["u", "v"] * 20})
    assert quality(frame, frame).facts["marginals"] == 1
