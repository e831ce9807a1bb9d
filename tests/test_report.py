"""The HTML report: what it shows, that it needs nothing beside it, and that hostile text stays text."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

import matplotlib
import numpy as np

import elbowroom.report
from elbowroom.errors import MissingDependencyError
from elbowroom.report import data_figures, model_figures
from elbowroom.report import style as drawing
from elbowroom.report.page import Number, Report

HOSTILE = """<script>alert(1)</script> "' onload=x {{ 7*7 }} $\\frac{ _ </style></svg> 漢字 \ud800\x00"""
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((30, 8, 8))
NUMBERS = RANDOM.normal(size=(40, 5))
SECTIONS = {
    "images": ["Originals and reconstructions", "Samples"],
    "table": ["Originals and reconstructions", "Samples, column by column", "Samples, columns together"],
    "shared": ["Latent map", "Training", "Rate of each latent", "Facts", "How to read this"],
}


def history(epochs: int, **changes: Any) -> dict[str, Any]:
    """A history that falls as a real one does."""
    epoch = np.arange(1.0, epochs + 1)
    curves = {"loss": 40 / epoch + 25, "distortion": 30 / epoch + 20, "rate": 10 - 5 / epoch}
    held_out = {f"held_out_{name}": values + 0.5 for name, values in curves.items()}
    settings = {"epoch": epoch, "beta": epoch / epochs, "learning_rate": 1e-3 / epoch}
    return settings | curves | held_out | changes


IMAGE_REPORT = Report(
    title="ImageVAE on digits",
    facts={"rows": "1,617 training + 180 held out"},
    numbers=[Number("ELBO", -91.3482, error=0.2134, meaning="A bound."), Number("active", 3, unit="of 4")],
    verdict="3 of 4 latents are in use.",
    healthy=True,
    history=history(20),
    rate_per_latent=np.array([0.5, 2.0, 0.001, 1.0]),
    active=np.array([True, True, False, True]),
    originals=IMAGES,
    reconstructions=IMAGES * 0.9,
    samples=IMAGES[::-1],
    latent_map=RANDOM.normal(size=(30, 2)),
    latent_axes=("latent 1", "latent 3"),
    labels=np.arange(30) % 10,
    label_name="digit",
)
TABLE_REPORT = dataclasses.replace(
    IMAGE_REPORT,
    originals=NUMBERS,
    reconstructions=NUMBERS + 0.1,
    samples=NUMBERS[:7] * 1.1,
    columns=["a", "b", "c", "d", "e"],
)
NOTHING = dataclasses.replace(
    IMAGE_REPORT,
    history={},
    rate_per_latent=np.zeros(0),
    active=np.zeros(0, dtype=bool),
    originals=IMAGES[:0],
    reconstructions=IMAGES[:0],
    samples=IMAGES[:0],
    latent_map=None,
)


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.tags[-1] if self.tags else "", data.strip()))

    def headings(self) -> list[str]:
        return [text for tag, text in self.texts if tag == "h2"]

    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")


@pytest.fixture(scope="module", params=["images", "table"])
def kind_and_html(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A full page, of images and of a table."""
    return request.param, {"images": IMAGE_REPORT, "table": TABLE_REPORT}[request.param].html()


def page_with(**changes: Any) -> Page:
    """A page that shows only what is given."""
    return Page(dataclasses.replace(NOTHING, **changes).html())


def table(**columns: list[Any]) -> np.ndarray:
    """Rows of mixed kinds."""
    return np.array([*columns.values()], dtype=object).T


def test_shows_everything_in_order(kind_and_html: tuple[str, str]) -> None:
    kind, html = kind_and_html
    page = Page(html)
    assert page.headings() == SECTIONS[kind] + SECTIONS["shared"]
    assert page.tags.count("figure") == len(page.headings()) - 2  # all but the facts and the words
    for shown in (
        "ImageVAE on digits",
        "3 of 4 latents are in use.",
        "−91.35",
        "± 0.21 nats per row",
        "of 4",
    ):
        assert shown in page.text()


def test_makes_no_request(kind_and_html: tuple[str, str]) -> None:
    _, html = kind_and_html
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "img"} & set(page.tags)
    for _, name, value in page.attributes:
        if name in {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}:
            assert value.startswith(("data:image/png;base64,", "#"))
        else:
            assert "//" not in value
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))
    assert "default-src 'none'" in html  # and should we miss one, the browser does not


def test_figures_take_the_theme_and_share_no_id(kind_and_html: tuple[str, str]) -> None:
    _, html = kind_and_html
    style, body = html.split("</style>")
    for role, color in drawing.THEME.items():
        assert f"--{role}:" in style
        assert f": {color}" not in body
    ids = re.findall(r' id="([^"]*)"', html)
    assert ids
    assert len(ids) == len(set(ids))


def test_hostile_text_stays_text() -> None:
    labels = np.array([HOSTILE, "_hidden", None, 3.5, (1, 2), float("nan")] * 5, dtype=object)
    rows = table(text=[HOSTILE, "b"] * 15, number=list(range(30)))
    page = page_with(
        originals=rows,
        reconstructions=rows,
        samples=rows,
        latent_map=RANDOM.normal(size=(30, 2)),
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        numbers=[Number(HOSTILE, 1.0, HOSTILE, 0.1, HOSTILE)],
        verdict=HOSTILE,
        columns=[HOSTILE, HOSTILE],
        latent_axes=(HOSTILE, HOSTILE),
        labels=labels,
        label_name=HOSTILE,
    )
    assert page.headings() == [*SECTIONS["table"][:2], "Latent map", *SECTIONS["shared"][-2:]]
    assert "script" not in page.tags
    assert page.tags.count("svg") == page.tags.count("figure") + 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text()
    assert "{{ 7*7 }}" in page.text()


def test_same_report_same_page_and_settings_untouched() -> None:
    before = dict(matplotlib.rcParams)
    report = dataclasses.replace(NOTHING, history=history(5), originals=IMAGES, reconstructions=IMAGES)
    assert report.html() == report.html()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("changed", "remark"),
    [
        (history(1), ""),
        (history(20, rate=[np.nan, np.inf, *[1.0] * 18]), "2 of 20 epochs"),
        (history(3, distortion=[np.nan] * 3, rate=[np.nan] * 3), "3 of 3 epochs"),
        (history(3, distortion=[1.0, 3e38, -1.7e308], rate=[1.0, 1.7e308, 1.0]), ""),
        ({"distortion": [1.0, 2.0]}, ""),
        ({"epoch": [1], "distortion": [1.0], "rate": [1.0], "beta": [1.0], "learning_rate": []}, ""),
    ],
)
def test_any_history_renders(changed: dict[str, Any], remark: str) -> None:
    page = page_with(history=changed)
    assert "Training" in page.headings()
    assert remark in page.text()
    assert ("not finite" in page.text()) == bool(remark)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_says_nothing_of_held_out_rows_where_there_are_none(missing: float | None) -> None:
    gone = {name: [missing] * 20 for name in ("held_out_loss", "held_out_distortion", "held_out_rate")}
    assert "held-out" not in page_with(history=history(20) | gone).text()
    assert "held-out" in page_with(history=history(20)).text()


def test_leaves_out_what_has_nothing_to_show() -> None:
    assert page_with().headings() == ["Facts", "How to read this"]
    assert page_with(facts={}, latent_map=np.zeros((30, 1)), labels=None).headings() == ["How to read this"]
    assert page_with(originals=NUMBERS[:0], samples=NUMBERS, facts={}).headings() == ["How to read this"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 4, 20), (5, 20, 4, 3), (60, 28, 28), (3, 1, 1)])
def test_images_of_any_shape(shape: tuple[int, ...]) -> None:
    images = np.linspace(-1, 2, int(np.prod(shape))).reshape(shape)
    images.flat[0] = np.nan
    page = page_with(originals=images, reconstructions=images, samples=images)
    assert page.headings()[:2] == SECTIONS["images"]


@pytest.mark.parametrize(
    "rows",
    [
        NUMBERS[:1],
        NUMBERS[:, :1],
        np.full((9, 3), 0.1),
        np.full((9, 3), np.nan),
        np.column_stack([NUMBERS[:, 0], np.full(40, np.inf)]),
        np.array([[1e17, 1e9], [1e17, 1e9 + 1e-7]]),
        RANDOM.normal(size=(200, 13)),
        table(job=["nurse", "clerk", None] * 5, age=list(range(15))),
        table(user=[f"user {i}" for i in range(50)]),
    ],
)
def test_tables_of_any_kind(rows: np.ndarray) -> None:
    page = page_with(originals=rows, reconstructions=rows, samples=rows, healthy=False)
    assert page.headings()[:2] == SECTIONS["table"][:2]
    assert "needs a look" in page.text()
    assert ("Of 13 columns" in page.text()) == (rows.shape[1] == 13)


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (None, ""),
        (np.arange(30) % 2 == 0, "True"),
        (np.array([f"a very long name of a group {i}" for i in range(30)]), "20 others"),
        (np.arange(30) % 10 + 1, "10"),
        (np.where(np.arange(30) % 7, np.arange(30) / 7, np.nan), "digit"),
        (np.array(["2024-01-01", "2024-01-02"] * 15, dtype="datetime64[ns]"), "2024-01-01"),
    ],
)
def test_labels_of_any_kind(labels: np.ndarray | None, shown: str) -> None:
    assert shown in page_with(latent_map=RANDOM.normal(size=(30, 2)), labels=labels).text()


def test_many_points_are_pixels() -> None:
    many = RANDOM.normal(size=(drawing.MOST_SHAPES + 1, 2))
    drawn = [model_figures.latent_map(points).axes[0].collections[0] for points in (many, many[1:])]
    assert [points.get_rasterized() for points in drawn] == [True, False]


def test_the_worst_columns_are_shown_in_the_order_of_the_table() -> None:
    data = RANDOM.normal(size=(500, 15))
    samples = data + np.isin(np.arange(15), (2, 5, 14), invert=True)  # three columns are right
    figure = data_figures.marginals(data, samples, [f"column {j}" for j in range(15)])
    shown = [axes.get_title(loc="left") for axes in figure.axes]
    assert shown == [f"column {j}" for j in range(15) if j not in (2, 5, 14)]


def test_overlap_and_correlation_are_what_they_say() -> None:
    data = np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 3.0], [1.0, 4.0]])
    samples = np.array([[0.0, 4.0], [0.0, 3.0], [0.0, 2.0], [1.0, 1.0]])
    overlap = data_figures.marginals(data, samples, ["a", "b"])
    assert [axes.get_title(loc="right") for axes in overlap.axes] == ["75%", "100%"]
    agreement = data_figures.reconstruction_scatter(data, data[:, [0, 1]] * [1, -1], ["a", "b"])
    assert [axes.get_title(loc="right") for axes in agreement.axes] == ["1.00", "-1.00"]


def test_latents_are_sorted_and_keep_their_index() -> None:
    axes = model_figures.rate_per_latent(np.array([0.5, 2.0, 0.001, 1.0]), np.array([1, 1, 0, 1])).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3", "0", "2"]
    heights = np.array([bar.get_extents().height for bar in axes.patches])
    assert heights / heights[0] == pytest.approx([1, 0.5, 0.25, 0.0005])
    assert axes.get_legend_handles_labels()[1] == ["active (3)", "off (1)"]


def lines(axes: Any) -> dict[str, list[float]]:
    """The curves of a panel by name."""
    return {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.lines}


def test_losses_are_those_of_the_records() -> None:
    curves = {"beta": [0.0, 0.5], "distortion": [3.0, 2.0], "rate": [1.0, 4.0], "loss": [9.0, 8.0]}
    axes = model_figures.training_curves(curves | {"held_out_loss": [7.0, 6.0]}, "held out (loss at beta = 1)").axes
    assert lines(axes[0]) == {"training": [9.0, 8.0], "held out (loss at beta = 1)": [7.0, 6.0]}


def test_panels_of_training_are_those_of_its_columns() -> None:
    def titles(**columns: list[float]) -> list[str]:
        return [axes.get_title(loc="left") for axes in model_figures.training_curves(columns).axes]

    assert titles(loss=[1.0], beta=[1.0]) == ["Loss", "Distortion", "Rate", "Beta", "Learning rate"]
    assert titles(loss=[1.0], rate=[1.0]) == ["Loss", "Distortion", "Rate", "Learning rate"]
    assert titles(rate=[1.0], beta=[-3.0, 2.0]) == ["Rate", "Distortion", "Beta", "Learning rate"]


def test_targets_are_dashed_lines_in_their_panels() -> None:
    figure = model_figures.training_curves(history(20) | {"target_rate": [12.0] * 20})
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert lines(panels["Rate"])["target"] == [12.0] * 20
    assert {line.get_label(): line.get_linestyle() for line in panels["Rate"].lines}["target"] == "--"
    assert "target" not in lines(panels["Distortion"])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training", "held out", "target"]


def test_scales_of_beta() -> None:
    """A beta that falls by orders of magnitude is on a logarithmic scale with plain numbers; a negative one is not."""
    falling, swinging = (
        model_figures.training_curves({"beta": beta}).axes[2]
        for beta in (np.geomspace(1, 1e-4, 30), [-30.0, 10.0, 30.0] * 9)
    )
    assert (falling.get_title(loc="left"), falling.get_yscale(), swinging.get_yscale()) == ("Beta", "log", "linear")
    falling.figure.draw_without_rendering()
    assert "0.01" in [label.get_text() for label in falling.get_yticklabels()]
    assert lines(swinging)["training"] == [-30.0, 10.0, 30.0] * 9


def test_notes_are_seen() -> None:
    notes = ["the target rate of 12 nats was not reached", HOSTILE]
    text = page_with(notes=notes).text()
    assert "Note: the target rate of 12 nats was not reached" in text
    assert "<script>alert(1)</script>" in text
    assert "Note:" not in page_with().text()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number("a", -91.3482, error=0.2134), "−91.35 0.21"),
        (Number("a", 1234.5, error=25.0), "1,234 25"),
        (Number("a", 1617), "1,617 "),
        (Number("a", 0.0), "0 "),
        (Number("a", 3.14159), "3.142 "),
        (Number("a", -1e-9), "−1e-09 "),
        (Number("a", 2.5e9), "2.5e+09 "),
        (Number("a", float("nan")), "nan "),
        (Number("a", float("-inf"), error=float("nan")), "−inf nan"),
        (Number("a", 1.5, error=0.0), "1.500 0.000"),
    ],
)
def test_numbers_are_as_exact_as_their_error(number: Number, text: str) -> None:
    assert f"{number.value_text} {number.error_text}" == text


def test_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    NOTHING.write(target)
    assert target.read_text("utf-8") == NOTHING.html()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        dataclasses.replace(NOTHING, title="another").write(str(target))
    assert "another" not in target.read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_writes_text_that_no_file_can_hold(tmp_path: Path) -> None:
    dataclasses.replace(NOTHING, title=HOSTILE).write(tmp_path / "report.html")
    assert "漢字" in (tmp_path / "report.html").read_text("utf-8")


def test_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("style", "model_figures", "data_figures"):
        monkeypatch.delitem(sys.modules, f"elbowroom.report.{name}")
        monkeypatch.delattr(elbowroom.report, name)
    with pytest.raises(MissingDependencyError, match=r"matplotlib.*pip install matplotlib"):
        IMAGE_REPORT.write(tmp_path / "report.html")
    assert not [*tmp_path.iterdir()]
