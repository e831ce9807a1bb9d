"""Tables: kinds, schema, warps, missing values, imputation, conditional samples, detection, quality."""

from __future__ import annotations

import datetime
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from forging import forge
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from small import WINE, table

import elbowroom
from elbowroom import (
    Binary,
    Category,
    Count,
    Measured,
    Positive,
    Real,
    Schema,
    TableVAE,
    VAEDetector,
    VAEImputer,
    quality,
)
from elbowroom.data.tables.kinds import KINDS, kind_form, kind_from, step_of
from elbowroom.data.tables.schema import read
from elbowroom.distributions.splines import KNOTS, Warp
from elbowroom.errors import ArtefactError, DataError, ElbowroomWarning, ParameterError
from elbowroom.likelihoods.auto import table_likelihood
from elbowroom.tasks.quality import columns_of, folds_of, pair_score

N = 300


def people(n: int = N, missing: bool = True) -> pd.DataFrame:
    """Every kind of column, with missing values of every library."""
    random = np.random.default_rng(0)
    country = random.choice(["de", "fr", "it"], n, p=[0.6, 0.3, 0.1])
    frame = pd.DataFrame(
        {
            "age": pd.array(random.integers(18, 90, n), dtype="Int64"),
            "income": np.exp(random.normal(9 + (country == "de"), 1, n)),
            "rain": np.where(random.random(n) < 0.5, 0.0, random.lognormal(0, 1, n)),
            "country": country,
            "size": pd.Categorical(random.choice(["s", "m", "l"], n), categories=["s", "m", "l"], ordered=True),
            "smoker": pd.array(random.random(n) < 0.3, dtype="boolean"),
            "born": pd.to_datetime("2000-01-01") + pd.to_timedelta(random.integers(0, 9000, n), "D"),
            "seen": pd.Timestamp("2024-05-05 12:00", tz="Europe/Berlin")
            + pd.to_timedelta(random.integers(0, 80_000, n), "s"),
            "height": random.normal(170, 10, n).astype(np.float32),
            "stars": random.choice([1.5, 2.0, 4.0], n),
        }
    )
    if missing:
        frame.loc[:20, ["age", "smoker"]] = pd.NA
        frame.loc[10:40, "income"] = np.nan
        frame.loc[30:50, ["country", "size", "born", "seen"]] = None
    return frame


def as_polars(frame: pd.DataFrame) -> pl.DataFrame:
    return pl.from_pandas(frame)


def as_arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame)


LIBRARIES = {"pandas": lambda frame: frame, "polars": as_polars, "pyarrow": as_arrow}
each_library = pytest.mark.parametrize("library", LIBRARIES)


@pytest.fixture(scope="module")
def fitted() -> TableVAE:
    return table(epochs=20).fit(people())


# ---- kinds and schema ------------------------------------------------------------------------------------------------


def test_kinds_are_inferred() -> None:
    schema = Schema.infer(people())
    found = {name: type(kind).__name__ for name, kind in schema.items()}
    assert found == {
        "age": "Count",
        "income": "Positive",
        "rain": "Positive",
        "country": "Category",
        "size": "Ordinal",
        "smoker": "Binary",
        "born": "Datetime",
        "seen": "Datetime",
        "height": "Real",
        "stars": "Real",
    }
    assert schema["rain"].point_masses == (0.0,)
    assert schema["size"].categories == ("s", "m", "l")
    assert [name for name, column in schema.columns.items() if column.nulls] == [
        *("age", "income", "country", "size", "smoker", "born", "seen")
    ]


@each_library
def test_what_goes_in_comes_out(library: str) -> None:
    frame = LIBRARIES[library](people())
    schema = Schema.infer(frame)
    back = schema.frame(schema.encode(read(frame)), library, frame)
    assert type(back) is type(frame)
    if library == "pandas":
        pd.testing.assert_frame_equal(back, frame, check_exact=False, rtol=1e-12)
    else:
        assert back.schema.equals(frame.schema) if library == "pyarrow" else back.schema == frame.schema
        pd.testing.assert_frame_equal(pl.DataFrame(back).to_pandas(), pl.DataFrame(frame).to_pandas(), rtol=1e-12)


def test_a_schema_is_json_and_comes_back(fitted: TableVAE) -> None:
    form = json.loads(json.dumps(fitted.schema_.form()))
    assert Schema.of(form) == fitted.schema_
    assert Schema.of(json.dumps(form)) == fitted.schema_
    for kind in fitted.schema_.values():
        assert kind_from(kind_form(kind)) == kind
    assert set(KINDS) >= {kind_form(kind)["kind"] for kind in fitted.schema_.values()}


def test_kinds_are_chosen_by_the_user() -> None:
    frame = pd.DataFrame({"age": [1.0, 5.0, 9.0] * 20, "zip": [1010, 2020, 3030] * 20})
    schema = Schema.infer(frame)
    schema["age"] = Count()
    schema["zip"] = "category"
    model = table(schema=schema).fit(frame)
    assert isinstance(model.schema_["age"], Count)
    assert model.schema_["zip"].categories == (1010, 2020, 3030)
    sample = model.sample(50, random_state=0)
    assert sample.dtypes.equals(frame.dtypes)
    assert set(sample["zip"]) <= {1010, 2020, 3030}
    assert clone(model).get_params()["schema"] == schema


def test_metadata_of_the_synthetic_data_vault_is_read() -> None:
    columns = {"a": {"sdtype": "numerical"}, "b": {"sdtype": "categorical"}, "c": {"sdtype": "boolean"}}
    for metadata in ({"columns": columns}, {"tables": {"people": {"columns": columns}}}):
        schema = Schema.of(metadata)
        assert schema["a"] is None
        assert isinstance(schema["b"], Category)
    with pytest.raises(ParameterError, match=r"sdtype.*'id'.*'key'|'key'.*'id'"):
        Schema.of({"columns": {"key": {"sdtype": "id"}}})


BROKEN = [
    3,
    "{",
    {"a": "cuont"},
    {"a": {"kind": "count", "hihg": 3}},
    {"a": {"kind": "real", "low": "x"}},
    {"a": {"kind": "category", "categories": ["x", "x"]}},
    {"a": {"kind": "category", "categories": [[1]]}},
    {"format": "elbowroom schema", "columns": [{"name": "a"}, {"name": "a"}]},
    {"format": "elbowroom schema", "columns": 3},
    {1: "count"},
]


@pytest.mark.parametrize("form", BROKEN)
def test_a_broken_schema_is_refused(form: Any) -> None:
    with pytest.raises(ParameterError):
        Schema.of(form)


@pytest.mark.parametrize(("values", "step"), [([0.1, 0.3], 0.1), ([2, 9], 1.0), ([0.123, 4], 0.001), ([math.pi], 0)])
def test_steps(values: list[float], step: float) -> None:
    assert step_of(np.array(values, dtype=float)) == pytest.approx(step)


# ---- densities -------------------------------------------------------------------------------------------------------


def columns_to_warp() -> torch.Tensor:
    random = np.random.default_rng(0)
    two = np.where(random.random(2000) < 0.5, random.normal(0, 1, 2000), random.normal(30, 0.1, 2000))
    return torch.from_numpy(np.stack([random.lognormal(0, 2, 2000), two, random.integers(0, 5, 2000)], 1)).double()


def test_a_warp_is_monotone_smooth_and_invertible() -> None:
    x = columns_to_warp()
    warp = Warp.fit(x)
    assert warp.values.shape == (3, KNOTS)
    line = torch.linspace(-50, 200, 40_001, dtype=torch.float64)[:, None].expand(-1, 3)
    u, log_slope = warp.score(line)
    assert bool((u.diff(dim=0) > 0).all())
    torch.testing.assert_close(warp.value(u), line, rtol=1e-9, atol=1e-9)
    scores = torch.linspace(-5, 5, 10_001, dtype=torch.float64)[:, None].expand(-1, 3)
    torch.testing.assert_close(warp.score(warp.value(scores))[0], scores, rtol=1e-8, atol=1e-8)
    by_hand = torch.autograd.functional.jvp(lambda t: warp.score(t)[0], line, torch.ones_like(line))[1]
    torch.testing.assert_close(by_hand.log(), log_slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e156, 1e300])
def test_a_warp_is_the_same_in_all_units(size: float) -> None:
    x = columns_to_warp()
    plain, sized = Warp.fit(x), Warp.fit(x * size)
    scores = torch.linspace(-5, 5, 1001, dtype=torch.float64)[:, None].expand(-1, 3)
    torch.testing.assert_close(sized.value(scores) / size, plain.value(scores), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sized.score(sized.value(scores))[0], scores, rtol=1e-8, atol=1e-8)
    apart = sized.score(x * size)[1] - plain.score(x)[1] + math.log(size)
    torch.testing.assert_close(apart, torch.zeros_like(apart), rtol=0, atol=1e-6)


def test_samples_of_huge_numbers_are_finite() -> None:
    x = np.random.default_rng(0).normal(size=100)
    frame = pd.DataFrame({"a": x * 1e156, "b": x * 1e300, "c": ["u", "v"] * 50})
    sample = TableVAE(2, hidden=(8,), epochs=1, random_state=0).fit(frame).sample(50)
    for name, size in (("a", 1e156), ("b", 1e300)):
        assert np.isfinite(sample[name]).all()
        assert 0.1 < np.abs(sample[name] / size).mean() < 3


def test_a_warp_makes_normal_scores() -> None:
    u, _ = Warp.fit(columns_to_warp()).score(columns_to_warp())
    assert u[:, 0].quantile(torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64)).tolist() == pytest.approx(
        [-1.96, 0, 1.96], abs=0.1
    )


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([f"{m:02d}/{d:02d}/2021" for m in range(1, 9) for d in range(1, 26)], "They look like dates"),
        ([f"{n // 100},{n % 100:02d}" for n in range(200, 400)], "a decimal comma"),
        ([f"word {i}" for i in range(200)], "convert it to numbers or dates."),
    ],
)
def test_columns_that_are_nearly_all_different_are_said(words: list[str], hint: str) -> None:
    frame = pd.DataFrame({"a": words[:150] * 2, "b": np.arange(300) % 7})
    with pytest.warns(ElbowroomWarning, match=f"column 'a' has 150 categories in 300 rows, too many.*{hint}"):
        table(epochs=1).fit(frame)
    assert not [w for w in caught_of(lambda: table(epochs=1).fit(frame.assign(a=frame["b"].map(str)))) if "many" in w]


def test_a_column_of_another_type_is_named_as_such() -> None:
    frame = pd.DataFrame({"zip": [f"{i % 9:05d}" for i in range(60)], "a": np.arange(60) % 5})
    model = table(epochs=1).fit(frame)
    with pytest.raises(DataError, match="'zip' must hold text, as in training, but it holds numbers"):
        model.score(frame.assign(zip=frame["zip"].astype(int)))
    with pytest.warns(ElbowroomWarning, match="60 cells of an unknown category"):
        model.score(frame.assign(zip="99999"))


def test_what_columns_were_taken_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"age": np.arange(60.0) % 41 + 18, "plan": list("ab") * 30, "ok": [True, False] * 30})
    frame["day"] = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(60), "D")
    frame.loc[3, "age"] = np.nan
    model = table(epochs=1, verbose=True).fit(frame)
    assert model.schema_ is not None
    assert model.schema_.lines() == [
        "age   Count     18 to 58, some missing",
        "plan  Category  2 categories: 'a', 'b'",
        "ok    Binary",
        "day   Datetime  2024-02-01 to 2024-03-31",
    ]
    assert all(line in capsys.readouterr().err for line in ["day   Datetime  2024-02-01 to 2024-03-31"])
    wide = Schema.infer(pd.DataFrame({f"c{i}": np.arange(9.0) for i in range(40)}))
    assert wide.lines()[-1] == "... and 10 more columns"


def caught_of(act: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(warning.message) for warning in caught]


@torch.no_grad()
def test_the_density_of_a_column_integrates_to_one_with_missing_values_and_point_masses() -> None:
    """P(missing) + P(point mass) + the integral over all values, in the column's own units."""
    frame = people()[["rain"]].assign(rain=lambda f: f["rain"].where(np.arange(N) % 7 > 0))
    schema = Schema.infer(frame)
    likelihood, _ = table_likelihood(schema.cells)
    likelihood.fit_marginals(torch.from_numpy(schema.encode(read(frame))))
    likelihood.double()
    t = np.linspace(-60, 60, 400_001)
    x = pd.DataFrame({"rain": np.concatenate([[np.nan, 0.0], np.exp(t)])})
    weights = np.concatenate([[1.0, 1.0], np.exp(t) * (t[1] - t[0])])
    for seed in range(3):
        h = torch.randn(1, likelihood.n_outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        log_p = likelihood(h).log_prob(torch.from_numpy(schema.encode(read(x))))
        assert float(log_p.exp().numpy() @ weights) == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_missing_values_contribute_nothing() -> None:
    """The log-probability of a row with missing cells is that of its other cells; cells sum to the row."""
    schema = Schema.infer(people(missing=False))
    likelihood, _ = table_likelihood(schema.cells)
    x = torch.from_numpy(schema.encode(read(people(missing=False))))
    likelihood.fit_marginals(x)
    p = likelihood(torch.randn(len(x), likelihood.n_outputs, generator=torch.Generator().manual_seed(0)))
    cells = p.kernel_cells(x) + p.base_cells(x)
    torch.testing.assert_close(cells.sum(-1), p.log_prob(x), rtol=1e-5, atol=1e-4)
    some = x.clone()
    some[:, ::2] = math.nan
    torch.testing.assert_close(p.log_prob(some), cells[:, 1::2].sum(-1), rtol=1e-5, atol=1e-4)
    assert bool(likelihood.inputs(some).isfinite().all())


def test_gradients_are_finite_where_cells_are_missing() -> None:
    schema = Schema.infer(people())
    likelihood, _ = table_likelihood(schema.cells)
    x = torch.from_numpy(schema.encode(read(people())))
    likelihood.fit_marginals(x)
    h = torch.randn(len(x), likelihood.n_outputs).requires_grad_()
    likelihood(h).log_prob(x).sum().backward()
    assert bool(h.grad.isfinite().all())  # type: ignore[union-attr]


def test_the_rate_of_holes_and_rare_categories_are_kept() -> None:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "rare": random.choice(["a", "b", "c"], 4000, p=[0.878, 0.1, 0.022]),
            "value": np.where(random.random(4000) < 0.3, np.nan, random.normal(size=4000)),
        }
    )
    sample = table(epochs=15, batch_size=256).fit(frame).sample(20_000, random_state=0)
    assert (sample["rare"] == "c").mean() == pytest.approx((frame["rare"] == "c").mean(), abs=0.006)
    assert sample["value"].isna().mean() == pytest.approx(frame["value"].isna().mean(), abs=0.02)


# ---- the estimator ---------------------------------------------------------------------------------------------------


@each_library
def test_a_table_is_fitted_and_everything_comes_in_its_own_kind(library: str) -> None:
    frame = LIBRARIES[library](people())
    model = table(epochs=2).fit(frame)
    for out in (
        model.reconstruct(frame),
        model.sample(7, random_state=0),
        model.impute(frame),
        model.impute(frame, 1)[0],
    ):
        assert type(out) is type(frame)
        columns = out.column_names if library == "pyarrow" else list(out.columns)
        assert columns == list(people().columns)
        if library == "pandas":
            assert out.dtypes.equals(frame.dtypes)
        else:
            assert out.schema.equals(frame.schema) if library == "pyarrow" else out.schema == frame.schema
    assert model.transform(frame).shape == (N, 2)
    assert np.isfinite(model.score_samples(frame)).all()
    assert np.isfinite(model.log_likelihood(frame, n_draws=4).rows).all()


def test_numbers_alone_are_read_as_before() -> None:
    assert table().fit(WINE).schema_ is None
    assert table().fit(pd.DataFrame({"a": [1, 2] * 9, "b": [True, False] * 9})).schema_ is None
    assert table(schema="infer").fit(WINE).schema_ is not None


def test_arrays_with_holes() -> None:
    x = np.where(np.random.default_rng(0).random(WINE.shape) < 0.1, np.nan, WINE)
    model = table().fit(x)
    assert model.schema_ is not None
    full = model.impute(x)
    assert np.isfinite(full).all()
    np.testing.assert_array_equal(full[~np.isnan(x)], x[~np.isnan(x)])
    assert model.sample(3).shape == (3, 13)


def test_training_decreases_the_loss_and_finds_dependence() -> None:
    frame = people(2000, missing=False)[["country", "income"]].assign(same=lambda f: f["country"])
    model = table(epochs=40, hidden=(64,), n_latents=4, beta=0.25).fit(frame)
    sample = model.sample(1000, random_state=0)
    assert (sample["country"] == sample["same"]).mean() > 0.9  # of independent columns, 0.4


def test_a_range_of_beta_and_an_importance_weighted_bound_work_with_holes() -> None:
    model = table(beta="0.1..10", objective="iwae:draws=2").fit(people())
    assert np.isfinite(model.at(0.5).score_samples(people())).all()
    assert not model.at(2.0).impute(people()).isna().any().any()


def test_a_table_resumes_to_the_same_bits(tmp_path: Path) -> None:
    model = table(epochs=4).fit(people(), checkpoint=tmp_path / "a")
    again = table(epochs=4).fit(people(), checkpoint=tmp_path / "a")
    whole = table(epochs=4).fit(people())
    for one in (model, again):
        np.testing.assert_array_equal(one.score_samples(people()), whole.score_samples(people()))


def test_a_saved_table_comes_back_and_a_broken_schema_is_refused(tmp_path: Path, fitted: TableVAE) -> None:
    fitted.save(tmp_path / "m")
    again = elbowroom.load(tmp_path / "m")
    assert again.schema_ == fitted.schema_
    np.testing.assert_array_equal(again.score_samples(people()), fitted.score_samples(people()))
    pd.testing.assert_frame_equal(again.sample(9, random_state=1), fitted.sample(9, random_state=1))

    def edit(config: Any, _: Any) -> None:
        config["fitted"]["schema_"]["columns"][0]["kind"] = "os.system"

    forge(tmp_path / "m", edit)
    with pytest.raises(ArtefactError, match=r"os\.system"):
        elbowroom.load(tmp_path / "m")


def test_a_report_of_a_table_is_written(tmp_path: Path, fitted: TableVAE) -> None:
    pytest.importorskip("matplotlib")
    assert fitted.report(people(), tmp_path / "r.html").stat().st_size > 10_000


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "everything is missing": (lambda: table().fit(pd.DataFrame({"a": [None, None]})), "every cell is missing"),
    "names of rows": (
        lambda: table().fit(pd.DataFrame({"id": [f"p{i}" for i in range(50)]})), "'id' has 50 in 50 rows"),
    "two kinds": (lambda: table().fit(pd.DataFrame({"a": [1, "x", None]})), "Row 1, column 'a' holds 'x'"),
    "lists": (lambda: table().fit(pl.DataFrame({"a": [[1], [2]]})), "'a' holds list"),
    "infinity": (lambda: table().fit(pd.DataFrame({"a": [1, np.inf], "b": ["x", "y"]})), "infinity (row 1, column 'a'"),
    "twice": (lambda: table().fit(pd.DataFrame([["x", 2.0]], columns=["a", "a"])), "'a' comes more"),
    "numbers as names": (lambda: table().fit(pd.DataFrame({0: ["x", "y"]})), "all be text"),
    "no rows": (lambda: table().fit(pd.DataFrame({"a": pd.Series([], dtype=str)})), "(0, 1)"),
    "both": (lambda: table(schema="infer", likelihood="gaussian").fit(WINE), "likelihood='auto'"),
    "an unknown column": (lambda: table(schema={"aeg": "count"}).fit(people()), "Did you mean 'age'"),
    "a kind that does not fit": (
        lambda: table(schema={"country": "count"}).fit(people()), "schema['country'] = Category()"),
    "negative counts": (
        lambda: table(schema={"a": Count()}).fit(pd.DataFrame({"a": [1.0, -2.0]})), "whole numbers from 0"),
    "not positive": (
        lambda: table(schema={"a": Positive(point_masses=())}).fit(pd.DataFrame({"a": [1.0, -2.0]})),
        "numbers above 0"),
    "impute without a schema": (lambda: table().fit(WINE).impute(WINE), "schema='infer'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_answered_in_three_parts(case: str) -> None:
    make, said = BAD[case]
    with pytest.raises((DataError, ParameterError)) as caught:
        make()
    assert said in str(caught.value)
    assert caught.value.do


PREDICT_BAD = {
    "a missing column": (lambda f: f.drop(columns="age"), "age"),
    "an extra column": (lambda f: f.assign(more=1), "more"),
    "another order": (lambda f: f[f.columns[::-1]], "order"),
    "text for numbers": (lambda f: f.assign(age="old"), "'age' must hold numbers"),
    "an unknown level": (lambda f: f.assign(size="xl"), "'size' must hold one of 3 categories"),
    "an array": (lambda f: np.zeros((3, 10)), "must be a data frame"),
    "more than two truths": (lambda f: f.assign(smoker=3), "'smoker' must hold zeros and ones"),
    "half a year": (lambda f: f.assign(age=30.5), "whole numbers"),
}


@pytest.mark.parametrize("case", PREDICT_BAD)
def test_other_tables_are_refused_when_used(case: str, fitted: TableVAE) -> None:
    change, said = PREDICT_BAD[case]
    with pytest.raises(DataError) as caught:
        fitted.transform(change(people()))
    assert said in str(caught.value)


def test_unknown_categories_are_said_and_strange(fitted: TableVAE) -> None:
    frame = people(missing=False)
    with pytest.warns(ElbowroomWarning, match=r"'country' has 300 cells of an unknown category.*row 0, 'xx'"):
        scores = fitted.score_samples(frame.assign(country="xx"))
    assert np.isfinite(scores).all()
    assert scores.mean() < fitted.score_samples(frame).mean() - 1


def test_odd_tables_are_fitted() -> None:
    odd = pd.DataFrame(
        {
            "constant": [3.5] * 30,
            "word": ["x"] * 30,
            "huge": [2**60 + i for i in range(30)],
            "empty": pd.Series([None] * 30, dtype=object),
            "day": [datetime.date(2020, 1, 1 + i) for i in range(30)],
            "maybe": [True, None, False] * 10,
        }
    )
    model = table().fit(odd)
    sample = model.sample(20, random_state=0)
    assert set(sample["constant"]) == {3.5}
    assert set(sample["word"]) == {"x"}
    assert sample["empty"].isna().all()
    assert all(isinstance(day, datetime.date) for day in sample["day"])
    assert sample["huge"].between(2**60 - 1000, 2**60 + 1000).all()
    assert set(sample["maybe"]) <= {True, False, None}
    one = table().fit(pd.DataFrame({"a": ["x"], "b": [1.0]}))
    assert list(one.sample(2)["a"]) == ["x", "x"]
    row = model.transform(odd.assign(constant=np.nan, word=None, huge=1, maybe=None).iloc[:1])
    assert np.isfinite(row).all()


# ---- imputation, conditions, detection -------------------------------------------------------------------------------


@each_library
@pytest.mark.parametrize("how", ["likely", "mean"])
def test_imputation_fills_the_holes_and_nothing_else(library: str, how: str, fitted: TableVAE) -> None:
    frame = people()
    full = fitted.impute(LIBRARIES[library](frame), how=how)
    out = full if library == "pandas" else pl.DataFrame(full).to_pandas()
    given = frame if library == "pandas" else pl.DataFrame(LIBRARIES[library](frame)).to_pandas()
    assert not out.isna().any().any()
    for name in frame:
        known = given[name].notna()
        assert out[name][known].tolist() == given[name][known].tolist()


def test_multiple_imputations_differ_where_cells_are_missing(fitted: TableVAE) -> None:
    frames = fitted.impute(people(), n=5, random_state=3)
    assert len(frames) == 5
    values = np.stack([f["income"].to_numpy() for f in frames])
    missing = people()["income"].isna().to_numpy()
    assert (np.ptp(values[:, ~missing], axis=0) == 0).all()
    assert (np.ptp(values[:, missing], axis=0) > 0).all()
    again = fitted.impute(people(), n=5, random_state=3)
    pd.testing.assert_frame_equal(frames[4], again[4])


def test_a_row_without_any_cell_gets_one_of_the_model(fitted: TableVAE) -> None:
    row = people().reindex([10**6])
    full = fitted.impute(row)
    assert not full.isna().any().any()


def test_conditional_samples_are_those_of_bayes() -> None:
    """Samples given b = x have the shares that free samples have where b is x."""
    random = np.random.default_rng(0)
    a = random.choice(["u", "v"], 2000, p=[0.3, 0.7])
    b = np.where(random.random(2000) < 0.8, np.where(a == "u", "x", "y"), np.where(a == "u", "y", "x"))
    model = table(epochs=30).fit(pd.DataFrame({"a": a, "b": b}))
    free = model.sample(40_000, random_state=0)
    expected = (free["a"][free["b"] == "x"] == "u").mean()
    given = model.sample(10_000, given={"b": "x"}, random_state=0)
    assert set(given["b"]) == {"x"}
    assert (given["a"] == "u").mean() == pytest.approx(expected, abs=0.03)


def test_samples_can_be_given_any_cell(fitted: TableVAE) -> None:
    given = {"age": 40, "country": "it", "smoker": True, "born": pd.Timestamp("2010-01-01"), "income": None}
    sample = fitted.sample(5, given=given, random_state=0)
    assert set(sample["age"]) == {40}
    assert set(sample["country"]) == {"it"}
    assert sample["income"].isna().all()
    assert (sample["born"] == pd.Timestamp("2010-01-01")).all()
    with pytest.raises(ParameterError, match="Did you mean 'country'"):
        fitted.sample(5, given={"county": "it"})
    with pytest.raises(DataError, match="never missing"):
        fitted.sample(5, given={"rain": None})


CHECKED = [
    VAEDetector(TableVAE(2, schema="infer", epochs=2, hidden=(8,)), n_draws=8),
    VAEImputer(TableVAE(2, schema="infer", epochs=2, hidden=(8,))),
    VAEDetector(TableVAE(2, epochs=3, hidden=(8,)), n_draws=8),
    VAEDetector(n_draws=8),
    TableVAE(2, schema="infer", epochs=2, hidden=(8,)),
]


@parametrize_with_checks(CHECKED)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_the_imputer_learns_what_goes_together() -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=600)
    full = np.stack([z, 2 * z + 0.1 * random.normal(size=600), -z + 0.1 * random.normal(size=600)], 1)
    x = np.where(random.random(full.shape) < 0.2, np.nan, full)
    imputer = VAEImputer(table(schema="infer", epochs=60, hidden=(64,)), random_state=0)
    error = (imputer.fit_transform(x) - full)[np.isnan(x)]
    plain = (np.where(np.isnan(x), np.nanmean(x, 0), x) - full)[np.isnan(x)]
    assert (error**2).mean() < 0.3 * (plain**2).mean()


@pytest.mark.parametrize("inner", [None, table(schema="infer", epochs=60, hidden=(64,))])
def test_the_detector_names_the_column_that_is_strange(inner: TableVAE | None) -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=600)
    frame = pd.DataFrame({"a": z, "b": z + 0.1 * random.normal(size=600), "c": random.choice(["x", "y"], 600)})
    detector = VAEDetector(inner, random_state=0).fit(frame)
    odd = frame.iloc[:20].assign(b=lambda f: f["b"] + 1.5)
    assert detector.score_samples(odd).mean() < detector.score_samples(frame).mean() - 2
    assert (detector.predict(odd) == -1).mean() > 0.7
    why = detector.contributions(odd)
    assert list(why.columns) == ["a", "b", "c"]
    assert (why[["a", "b"]].mean() > why["c"].mean() + 1).all()


def test_far_rows_do_not_bend_a_robust_table() -> None:
    """A tenth of the rows is far off along one direction: they stay strange to a model that has learned from them."""
    random = np.random.default_rng(0)
    z = random.normal(size=(400, 1))
    x = np.hstack([z, z, z, z]) + 0.2 * random.normal(size=(400, 4))
    x[:40] += 6 * np.array([1, -1, 1, -1])
    robust = VAEDetector(random_state=0).fit(x)
    assert set(map(type, robust.estimator_.schema_.values())) == {Measured}
    scores = robust.score_samples(x)
    assert (scores[:40] < np.quantile(scores[40:], 0.01)).mean() > 0.95


def test_robust_tables_keep_what_is_no_number() -> None:
    frame = pd.DataFrame({"n": [0, 0, 0, 3] * 10, "flag": [True, False] * 20, "text": ["a", "b"] * 20, "r": 0.5})
    frame["r"] += np.arange(40) / 3
    model = table(schema="robust", epochs=2).fit(frame)
    assert [type(kind) for kind in model.schema_.values()] == [Measured, Binary, Category, Measured]
    assert model.schema_["n"].point_masses == ()
    sample = model.sample(50, random_state=0)
    assert sample.dtypes.equals(frame.dtypes)
    assert sample["n"].between(0, 3).all()


# ---- quality ---------------------------------------------------------------------------------------------------------


def test_quality_of_the_table_itself_is_perfect() -> None:
    frame = people()
    found = quality(frame, frame.copy())
    assert found.facts["marginals"] == found.facts["pairs"] == found.facts["missing"] == 1
    assert found.nearest == 0
    assert found.facts["rare_categories_lost"] == 0


@pytest.mark.parametrize(("real", "synthetic"), [(0, 10), (4, 10), (10, 0), (10, 4)])
def test_quality_of_next_to_no_rows_is_refused(real: int, synthetic: int) -> None:
    frame = pd.DataFrame({"a": np.arange(10.0), "b": ["x", "y"] * 5})
    with pytest.raises(DataError, match="at least 5 rows"):
        quality(frame[:real], frame[:synthetic])
    assert np.isfinite(quality(frame[:5], frame[:5]).auc)


def test_quality_by_hand() -> None:
    real = pd.DataFrame({"x": np.arange(100.0), "c": ["a"] * 96 + ["b"] * 4})
    made = pd.DataFrame({"x": np.arange(100.0) + 25, "c": ["a"] * 100})
    found = quality(real, made)
    assert found.marginals == {"x": pytest.approx(0.75), "c": pytest.approx(0.96)}
    assert found.rare == {"c=b": (0.04, 0.0)}
    apart = pd.DataFrame({"x": np.linspace(0, 1, 500), "c": ["a"] * 500})
    assert quality(apart, apart.assign(x=apart["x"] + 0.9)).auc > 0.85
    assert [c.name for c in columns_of(real, made)] == ["x", "c"]
    with pytest.raises(DataError, match="'c' is in only one"):
        quality(real, made[["x"]])


def digits_apart(case: str, shift: int) -> pd.DataFrame:
    """A column of values that float64 does not tell apart, and that are others with another shift."""
    small = np.random.default_rng(0).integers(0, 3 if "few" in case else 90, 200)
    if "times" in case:
        return pd.DataFrame({"k": pd.to_datetime(1_700_000_000 * 10**9 + shift + small)})
    whole = small.astype(np.uint64 if "unsigned" in case else np.int64)
    whole += whole.dtype.type((2**63 if "unsigned" in case else 2**62) + shift)
    return pd.DataFrame({"k": np.where(np.arange(200) % 2, whole, 0) if "spread" in case else whole})


@pytest.mark.parametrize(
    ("case", "score"),
    [
        ("few", 0),
        ("many", 0),
        ("unsigned", 0),
        ("few times", 0),
        ("many times", 0),
        ("spread", 0.5),
        ("few spread", 0.5),
    ],
)
def test_quality_compares_all_digits(tmp_path: Path, case: str, score: float) -> None:
    real, made = digits_apart(case, 0), digits_apart(case, 100)
    for library in (pd.DataFrame, as_polars, as_arrow):
        found = quality(library(real), library(made))
        assert found.marginals == {"k": pytest.approx(score)}
        assert found.auc > (0.7 if score else 0.99)
        assert quality(library(real), library(real)).marginals == {"k": 1}
    assert found.report(tmp_path / "q.html").is_file()
    other = np.random.default_rng(1).normal(size=200)
    pairs = quality(real.assign(x=other), made.assign(x=other)).pairs.values()
    assert all(0 <= score <= 1 for score in pairs)


def test_quality_of_numbers_of_any_size_is_a_number() -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    for size in (1e-300, 1e300):
        found = quality(x * size, x * size)
        assert found.facts["marginals"] == 1
        assert found.facts["pairs"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("real", "synthetic", "kinds"),
    [
        (["100", "200"], [100, 200], "text in the real table and numbers in the synthetic one"),
        ([100.0, 200.0], ["100", None], "numbers in the real table and text in the synthetic one"),
        (
            pd.to_datetime(["2020-01-01", "2020-01-02"]),
            ["2020-01-01", "2020-01-02"],
            "times in the real table and text",
        ),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), [2020, 2021], "times in the real table and numbers"),
    ],
)
def test_quality_of_columns_of_two_kinds_is_refused(real: Any, synthetic: Any, kinds: str) -> None:
    tables = [pd.DataFrame({"k": [*values] * 10, "x": np.arange(20.0)}) for values in (real, synthetic)]
    with pytest.raises(DataError, match=f"column 'k' holds {kinds}"):
        quality(*tables)


def test_quality_of_columns_of_one_kind_in_other_dtypes_is_that_of_their_values() -> None:
    numbers = pd.DataFrame({"k": [100, 200] * 10})
    for other in (numbers.astype("category"), numbers.astype(float), numbers.astype(object)):
        assert quality(numbers, other).marginals == quality(other, numbers).marginals == {"k": 1}
    assert quality(numbers, pd.DataFrame({"k": [None] * 20})).marginals == {"k": 0}


@pytest.mark.parametrize("n", [7, 200, 1000])
def test_trees_do_not_tell_a_copy_from_the_table(n: int) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=n), "b": random.normal(size=n), "c": random.choice(["u", None], n)})
    for copy in (frame, frame.sample(frac=1, random_state=0)):
        assert quality(frame, copy).auc == pytest.approx(0.5, abs=1e-12)
    shares = [pd.DataFrame({"c": ["u"] * k + ["v"] * (1000 - k)}) for k in (900, 100)]
    assert quality(*shares).auc == pytest.approx(0.9, abs=0.01)


def test_folds_are_equally_long_and_equal_rows_are_in_one() -> None:
    random = np.random.default_rng(0)
    real, made = random.permutation(100)[:, None] / 7, random.permutation(100)[:, None] / 7
    made[:40] = np.nan
    folds = folds_of(real, made)
    assert [np.bincount(part).tolist() for part in (folds[:100], folds[100:])] == [[20] * 5] * 2
    for row in range(40, 100):
        assert folds[100 + row] == folds[:100][real[:, 0] == made[row, 0]]


def test_scores_of_pairs_are_shares() -> None:
    for seed in range(100):
        random = np.random.default_rng(seed)
        tables = [
            pd.DataFrame({"a": random.integers(at, at + 7, 200), "b": random.integers(0, 7, 200)}) for at in (0, 20)
        ]
        assert 0 <= pair_score(*columns_of(*tables)) <= 1


def test_trees_learn_a_target_from_synthetic_rows() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=2000)
    frame = pd.DataFrame({"x": x, "y": np.where(x + 0.3 * random.normal(size=2000) > 0, "yes", "no")})
    shuffled = frame.assign(y=random.permutation(frame["y"]))
    test = frame.iloc[1000:]
    assert quality(frame.iloc[:1000], frame.iloc[:1000], test, "y").utility > 0.9
    assert quality(frame.iloc[:1000], shuffled.iloc[:1000], test, "y").utility < 0.7
    assert Real().low is None


def test_classes_that_a_synthetic_table_makes_up_do_not_stop_the_trees() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=12_000)
    real = pd.DataFrame({"x": x, "y": (x > 0).astype(float)})
    made = real.copy()
    made.loc[:300, "y"] = 2.0 + np.arange(301) / 301
    assert quality(real, made, real, "y").utility > 0.99


def test_the_page_about_a_synthetic_table_names_what_stands_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    real = pd.DataFrame({"a": random.normal(size=300), "<b>": random.choice(["x", "y"], 300), "when": "2020-05-01"})
    real["when"] = pd.to_datetime(real["when"]) + pd.to_timedelta(random.integers(0, 900, 300), unit="D")
    real.loc[:4, "<b>"] = "rare"
    real.loc[5:9, "<b>"] = None
    good = real.sample(frac=1, random_state=0).assign(a=random.normal(size=300))
    bad = real.assign(**{"a": 5.0, "<b>": "x"})
    words = {name: quality(real, made) for name, made in (("good", good), ("bad", bad), ("copy", real))}
    for name, found in words.items():
        page = found.report(tmp_path / f"{name}.html").read_text()
        assert "&lt;b&gt;" in page
        assert "<b></td>" not in page
        assert "posterior" not in page
    assert "Nothing stands out." in (tmp_path / "good.html").read_text()
    text = (tmp_path / "bad.html").read_text()
    assert "Trees distinguish the tables" in text
    assert "Rare categories are lost: &lt;b&gt;=rare" in text
    assert "Synthetic rows are near copies" in (tmp_path / "copy.html").read_text()
