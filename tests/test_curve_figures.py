"""The curve in figures, in the report and on the card."""

from __future__ import annotations

import dataclasses
import re
import warnings
from typing import Any

import pytest

pytest.importorskip("matplotlib")

import numpy as np
from small import COUNTS, DIGITS, WINE, counts, images, table

from elbowroom.errors import ElbowroomWarning
from elbowroom.estimators.reporting import summarise
from elbowroom.persistence.card import card
from elbowroom.report import data_figures, model_figures
from elbowroom.tasks.curve import Curve

RANDOM = np.random.default_rng(0)


def curve_of(betas: list[float], rows: int = 40, shift: float = 0.0) -> Curve:
    """A curve that falls as a real one does: distortion = 60 + 10 beta, rate = -10 log beta + 30."""
    found = np.array(betas)[:, None]
    noise = RANDOM.normal(size=rows)
    noise -= noise.mean()
    active = np.arange(len(betas), 0, -1)
    return Curve(found[:, 0], 60 + shift + 10 * found + noise, 30 - 10 * np.log(found) + noise, active)


BETAS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]


# ---- the figure of the curve -----------------------------------------------------------------------------------------


def test_panels_have_rate_distortion_elbo_and_active_units() -> None:
    curve = curve_of(BETAS)
    trade_off, elbo, active = model_figures.rate_distortion({"one": curve}).axes
    shown = [np.array(axes.lines[0].get_xydata()) for axes in (trade_off, elbo, active)]
    assert shown[0] == pytest.approx(np.stack([curve.rate, curve.distortion], 1))
    assert shown[1] == pytest.approx(np.stack([curve.betas, -(curve.rate + curve.distortion)], 1))
    assert shown[2] == pytest.approx(np.stack([curve.betas, curve.active], 1))
    assert [axes.get_xscale() for axes in (trade_off, elbo, active)] == ["linear", "log", "log"]
    assert trade_off.get_legend() is None  # one curve needs no name
    assert [label.get_text() for label in elbo.get_xticklabels()][1:-1] == ["0.01", "0.1", "1", "10"]


def test_betas_stand_at_their_points_and_do_not_overlap() -> None:
    curve = curve_of(np.geomspace(0.01, 10, 61).tolist())
    axes = model_figures.rate_distortion({"one": curve}).axes[0]
    texts = {float(text.get_text()): text.xy for text in axes.texts}  # type: ignore[attr-defined]
    assert {0.01, 0.1, 1.0, 10.0} <= set(texts)
    assert len(texts) < 20
    for beta in (0.01, 1.0, 10.0):
        assert texts[beta] == pytest.approx((30 - 10 * np.log(beta), 60 + 10 * beta))
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_errors_are_one_standard_error() -> None:
    curve = curve_of(BETAS)
    trade_off, elbo, _ = model_figures.rate_distortion({"one": curve}).axes
    (across,) = trade_off.collections[0].get_segments()[:1]  # type: ignore[attr-defined]
    error = curve.rates[0].std(ddof=1) / np.sqrt(40)
    assert across[1, 0] - across[0, 0] == pytest.approx(2 * error)
    band = elbo.collections[0].get_paths()[0].get_extents()
    largest = ((curve.rates + curve.distortions).std(1, ddof=1) / np.sqrt(40)).max()
    assert band.height == pytest.approx(np.ptp(curve.elbo) + 2 * largest)


def test_several_curves_have_names_and_colours() -> None:
    curves = {"one network": curve_of(BETAS), "dedicated models": curve_of(BETAS[::2], shift=5)}
    axes = model_figures.rate_distortion(curves).axes
    assert axes[0].get_legend_handles_labels()[1] == [*curves]
    for panel in axes:
        lines = [line for line in panel.lines if len(np.asarray(line.get_xdata())) in (7, 4)]
        assert [line.get_color() for line in lines] == [model_figures.DATA, model_figures.MODEL]
    many = {f"curve {i}": curve_of(BETAS, shift=i) for i in range(2 * len(model_figures.COLORS))}
    assert model_figures.rate_distortion(many).axes[0].get_legend_handles_labels()[1] == [*many]


def test_picked_betas_are_marked_where_they_are() -> None:
    curve = curve_of(BETAS)
    picked = {"knee": 1.0, "stands at": 1.0, "between": 0.1**0.75, "outside": 20.0}
    axes = model_figures.rate_distortion({"one": curve, "other": curve_of(BETAS, shift=9)}, picked).axes
    names = axes[0].get_legend_handles_labels()[1][2:]
    assert names == ["knee, stands at: beta = 1", "between: beta = 0.178"]
    marks = [
        [np.array(line.get_xydata())[0] for line in panel.lines if line.get_linestyle() == "None"] for panel in axes
    ]
    knee = [marks[i][-2] for i in range(3)]
    assert np.concatenate(knee) == pytest.approx([30, 70, 1, -100, 1, 3])
    share = np.log(0.1**0.75 / 0.1) / np.log(0.3 / 0.1)  # straight in log beta
    assert marks[0][-1] == pytest.approx([30 - 10 * np.log(0.1**0.75), 61 + 2 * share])


@pytest.mark.parametrize(
    "curve",
    [
        curve_of([1.0]),
        curve_of([1.0], rows=1),
        curve_of(BETAS, rows=1),
        curve_of([0.9, 1.1]),
        Curve(np.array([0.1, 1.0, 10.0]), np.full((3, 5), 7.0), np.zeros((3, 5)), np.zeros(3)),
        Curve(np.array([0.1, 1.0]), np.full((2, 5), np.nan), np.full((2, 5), np.nan), np.zeros(2)),
        Curve(np.array([0.1, 1.0]), np.full((2, 5), 1e30), np.ones((2, 5)), np.ones(2)),
    ],
    ids=["one beta", "one beta, one row", "one row", "narrow", "collapsed", "not finite", "huge"],
)
def test_curves_of_any_kind_are_drawn(curve: Curve) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = model_figures.rate_distortion({"$x_{": curve, "_hidden": curve}, {"knee": curve.betas[0]})
        figure.draw_without_rendering()
    assert figure.axes[0].get_legend_handles_labels()[1][:2] == ["$x_{", " _hidden"]


# ---- rows along the curve --------------------------------------------------------------------------------------------


def test_images_stand_beside_what_the_model_makes_of_them_at_each_beta() -> None:
    originals, made = RANDOM.random((9, 2, 3)), RANDOM.random((4, 9, 2, 3))
    figure = data_figures.images_along(originals, made, [0.01, 0.1, 1, 10])
    assert [text.get_text() for text in figure.texts] == ["original", "β = 0.01", "β = 0.1", "β = 1", "β = 10"]
    picture = np.asarray(figure.axes[0].images[0].get_array())[..., 0]
    assert len(picture) == 3 * 8 - 1  # at most eight images
    for i in range(8):
        for j, expected in enumerate([originals[i], *made[:, i]]):
            assert picture[3 * i : 3 * i + 2, 4 * j : 4 * j + 3] == pytest.approx(expected, abs=1e-6)


def test_a_row_of_samples_has_one_beta() -> None:
    made = RANDOM.random((3, 30, 2, 3))
    figure = data_figures.samples_along(made, [0.1, 1, 10])
    assert [text.get_text() for text in figure.texts] == ["β = 0.1", "β = 1", "β = 10"]
    picture = np.asarray(figure.axes[0].images[0].get_array())[..., 0]
    assert picture[3:5, 4:7] == pytest.approx(made[1, 1], abs=1e-6)


def test_columns_along_have_agreement_and_overlap() -> None:
    originals = np.array([[0.0, 0.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]]).T
    reversed_ = originals[:, [0, 1]] * [1, -1]
    made, drawn = np.stack([originals, reversed_]), np.stack([originals] * 2)
    figure = data_figures.columns_along(originals, made, drawn, [1, 2], ["a", "b"])
    shown = [[np.asarray(line.get_ydata()).tolist() for line in axes.lines] for axes in figure.axes]
    assert np.array(shown) == pytest.approx(np.array([[[1, 1], [1, 1]], [[1, -1], [1, 1]]]))
    assert all(axes.get_ylim()[1] > 1 for axes in figure.axes)
    assert figure.axes[1].get_ylim()[0] < -1


# ---- the report of a model that knows a range ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranged() -> Any:
    return table(beta="0.1..10").fit(WINE)


def test_along_is_what_the_model_does_at_each_beta(ranged: Any) -> None:
    report = summarise(ranged.at(0.3), WINE)
    along = report.along
    assert along is not None
    assert (along.span, along.beta, along.picked["this page"]) == ("0.1..10", 0.3, 0.3)
    assert along.betas == pytest.approx(np.geomspace(0.1, 10, 7))
    for beta, made, drawn in zip(along.betas, along.reconstructions, along.samples, strict=True):
        assert made == pytest.approx(ranged.at(beta).reconstruct(WINE)[:, :12])
        assert drawn == pytest.approx(ranged.at(beta).sample(len(WINE), random_state=0)[:, :12])
    at = along.curve.betas.tolist().index(0.3)
    numbers = {number.name: number.value for number in report.numbers}
    assert numbers["rate"] == pytest.approx(along.curve.rate[at])
    assert numbers["ELBO"] == pytest.approx(along.curve.elbo[at])
    best = ranged.at(along.picked["highest ELBO"]).distortion_and_rate(WINE, n_draws=4)
    assert -np.add(*best).mean() == pytest.approx(along.curve.elbo.max())


def test_the_page_of_a_range(ranged: Any) -> None:
    html = summarise(ranged.at(0.3), WINE).html()
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html.split("</style>")[1]))
    assert "The model covers every beta from 0.1 to 10. Numbers and figures are at β = 0.3" in text
    headings = re.findall("<h2>(.*?)</h2>", html)
    assert headings[:3] == ["The curve", "Columns along the curve", "Originals and reconstructions"]
    assert text.count("At β = 0.3") == headings.index("Facts") - 3  # the curve, what is along it, training
    rows = re.findall("<tr.*?</tr>", html)[1:]
    assert len(rows) == 14
    assert [i for i, row in enumerate(rows) if "here" in row] == [i for i, row in enumerate(rows) if "<td>0.3<" in row]
    assert "beta 0.1..10, stands at 0.3" in text
    assert "means over the range of beta" in text
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_the_table_is_the_curve(ranged: Any) -> None:
    along = summarise(ranged, WINE).along
    assert along is not None
    rows, columns = along.table(), along.curve.columns()
    number = {"−": "-", ",": ""}
    for name in ("rate", "distortion", "elbo", "active", "slope"):
        texts = [row[name].translate(str.maketrans(number)) for row in rows]
        found = [-float(text or "nan") if name == "slope" else float(text) for text in texts]
        assert found == pytest.approx(columns[name], rel=0.06, abs=0.06, nan_ok=True)
    assert [row["beta"] for row in rows if row["here"]] == ["1"]
    one = dataclasses.replace(along, curve=curve_of([0.5], rows=1)).table()
    assert (one[0]["rate_error"], one[0]["slope"], one[0]["here"]) == ("nan", "", "")


def test_the_page_of_images_along_a_range() -> None:
    model = images(beta="0.1..10").fit(DIGITS[:100])
    report = summarise(model, DIGITS[:30], context=None)
    assert report.along is not None
    assert report.along.samples.shape == (7, 60, 8, 8)
    assert 0 <= report.along.samples.min() <= report.along.samples.max() <= 1
    headings = re.findall("<h2>(.*?)</h2>", report.html())
    assert headings[:3] == ["The curve", "Reconstructions along the curve", "Samples along the curve"]


def test_a_range_with_context_and_counts() -> None:
    group = np.arange(len(COUNTS)) % 3
    model = counts(beta="0.5..2").fit(COUNTS, context=group)
    report = summarise(model, COUNTS, context=group)
    assert report.along is not None
    assert "Columns along the curve" in report.html()


# ---- what policies do to the curves of training ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beta", "remark", "held_out"),
    [
        (4, "The loss is at beta = 4.", "held out"),
        ("warmup:end=2", "each epoch's own beta", "held out (loss at beta = 2)"),
        ("perrow:gamma=0.1", "Every row has its own beta", "held out"),
        ("targetrate:nats=3", "rate of the training rows", "held out"),
        ("targetdistortion:nats=3", "distortion of the training rows", "held out"),
        ("capacity:nats=3", "capacity that grows", "held out"),
        ("0.1..10", "means over the range of beta", "held out"),
    ],
)
def test_the_report_says_what_beta_did(beta: Any, remark: str, held_out: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # targets are not reached in so few steps
        model = counts(beta=beta, validation_fraction=0.2).fit(COUNTS)
    report = summarise(model, COUNTS)
    assert remark in report.training_remark
    assert report.held_out_name == held_out
    assert [*report.notes] == model.history_.notes
    target, records = [3.0] * 5, model.history_.columns()
    name = str(beta).partition(":")[0]
    expected = {"targetrate": {"target_rate": target}, "targetdistortion": {"target_distortion": target}}
    if name == "capacity":
        assert report.history["target_rate"] == pytest.approx([0, 0.9375, 1.875, 2.8125, 3], abs=0.94)
        assert report.history["target_rate"][-1] == 3
        assert set(report.history) == set(records) - {"loss"} | {"target_rate"}
    else:
        hidden = {"beta"} if name == "0.1..10" else set()
        assert report.history == {k: v for k, v in records.items() if k not in hidden} | expected.get(name, {})
    assert all(note in report.html() for note in report.notes)


# ---- the card --------------------------------------------------------------------------------------------------------


def test_the_card_says_at_which_beta(ranged: Any) -> None:
    text, diagnosis = card(ranged.at(0.3)), ranged.diagnosis_
    assert "| beta | 0.1..10, stands at 0.3 |" in text
    assert (
        "| training rows, beta = 1 | training rows, mean over the range | held-out rows, mean over the range |" in text
    )
    assert f"| rate | {diagnosis.rate:.3f} | {ranged.history_.best['rate']:.3f} |" in text
    assert f"Active latents at beta = 1: {diagnosis.n_active} of 2." in text


def test_the_card_of_one_beta_has_no_range() -> None:
    with pytest.warns(ElbowroomWarning, match="was not reached"):
        model = counts(beta="targetrate:nats=30", validation_fraction=0).fit(COUNTS)
    text, best = card(model), model.history_.best
    assert "|  | training rows | held-out rows |\n|---|---|---|\n" in text
    assert f"| distortion | {best['distortion']:.3f} | - |" in text
    assert f"\n- {model.history_.notes[0]}\n" in text
    assert "stands at" not in text
