"""The curve in figures, in the report and on the card."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("matplotlib")

import numpy as np

from elbowroom.tasks import figures
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
    trade_off, elbo, active = figures.rate_distortion({"one": curve}).axes
    shown = [np.array(axes.lines[0].get_xydata()) for axes in (trade_off, elbo, active)]
    assert shown[0] == pytest.approx(np.stack([curve.rate, curve.distortion], 1))
    assert shown[1] == pytest.approx(np.stack([curve.betas, -(curve.rate + curve.distortion)], 1))
    assert shown[2] == pytest.approx(np.stack([curve.betas, curve.active], 1))
    assert [axes.get_xscale() for axes in (trade_off, elbo, active)] == ["linear", "log", "log"]
    assert trade_off.get_legend() is None  # one curve needs no name
    assert [label.get_text() for label in elbo.get_xticklabels()][1:-1] == ["0.01", "0.1", "1", "10"]


def test_betas_stand_at_their_points_and_do_not_overlap() -> None:
    curve = curve_of(np.geomspace(0.01, 10, 61).tolist())
    axes = figures.rate_distortion({"one": curve}).axes[0]
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
    trade_off, elbo, _ = figures.rate_distortion({"one": curve}).axes
    (across,) = trade_off.collections[0].get_segments()[:1]  # type: ignore[attr-defined]
    error = curve.rates[0].std(ddof=1) / np.sqrt(40)
    assert across[1, 0] - across[0, 0] == pytest.approx(2 * error)
    band = elbo.collections[0].get_paths()[0].get_extents()
    largest = ((curve.rates + curve.distortions).std(1, ddof=1) / np.sqrt(40)).max()
    assert band.height == pytest.approx(np.ptp(curve.elbo) + 2 * largest)


def test_several_curves_have_names_and_colours() -> None:
    curves = {"one network": curve_of(BETAS), "dedicated models": curve_of(BETAS[::2], shift=5)}
    axes = figures.rate_distortion(curves).axes
    assert axes[0].get_legend_handles_labels()[1] == [*curves]
    for panel in axes:
        lines = [line for line in panel.lines if len(np.asarray(line.get_xdata())) in (7, 4)]
        assert [line.get_color() for line in lines] == [figures.DATA, figures.MODEL]
    many = {f"curve {i}": curve_of(BETAS, shift=i) for i in range(2 * len(figures.COLORS))}
    assert figures.rate_distortion(many).axes[0].get_legend_handles_labels()[1] == [*many]


def test_picked_betas_are_marked_where_they_are() -> None:
    curve = curve_of(BETAS)
    picked = {"knee": 1.0, "stands at": 1.0, "between": 0.1**0.75, "outside": 20.0}
    axes = figures.rate_distortion({"one": curve, "other": curve_of(BETAS, shift=9)}, picked).axes
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
        figure = figures.rate_distortion({"$x_{": curve, "_hidden": curve}, {"knee": curve.betas[0]})
        figure.draw_without_rendering()
    assert figure.axes[0].get_legend_handles_labels()[1][:2] == ["$x_{", " _hidden"]
