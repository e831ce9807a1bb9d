"""A report of a trained model: one self-contained HTML file."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup

from elbowroom.errors import escaped
from elbowroom.utils.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from elbowroom.report.recommender_figures import Recommended
    from elbowroom.tasks.curve import Curve


@dataclass(frozen=True)
class Number:
    """A key number of a report: its name, value, unit and, optionally, standard error."""

    name: str
    value: float
    unit: str = "nats per row"
    error: float | None = None
    meaning: str = ""

    @property
    def value_text(self) -> str:
        """The formatted value, with as many digits as its error allows, else four.

        >>> Number("ELBO", -91.3482, error=0.2134).value_text, Number("rows", 1617).value_text
        ('−91.35', '1,617')
        """
        return _written(self.value, self._decimals)

    @property
    def error_text(self) -> str:
        """The standard error to two digits, or an empty string without one."""
        return "" if self.error is None else _written(self.error, self._decimals)

    @property
    def _decimals(self) -> int:
        if self.error is not None and math.isfinite(self.error) and self.error > 0:
            return _decimals(self.error, 2)
        return 0 if float(self.value).is_integer() else _decimals(self.value, 4)


def _decimals(value: float, digits: int) -> int:
    """The number of decimals that show `digits` significant digits of a nonzero value."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if math.isfinite(value) else 0


def _written(value: float, decimals: int) -> str:
    """Format a number with thousands separators and a minus sign, in scientific notation if it is too long."""
    long = abs(value) >= 1e7 or decimals > 6
    text = f"{value:,.3g}" if long else f"{value:,.{decimals}f}"
    return f"−{text[1:]}" if text.startswith("-") else text


@dataclass(frozen=True)
class Along:
    """The model along its range of beta.

    Parameters
    ----------
    span, beta : str, float
        The range, and the beta that is used on the rest of the page.
    curve : Curve
    picked : mapping
        Betas by name.
    betas : sequence of float
        The k betas of reconstructions and samples.
    reconstructions, samples : arrays (k, n, ...)
        Reconstructions of the report's originals, and samples from the same latents, at these betas.
    """

    span: str
    beta: float
    curve: Curve
    picked: Mapping[str, float]
    betas: Sequence[float]
    reconstructions: np.ndarray
    samples: np.ndarray

    def table(self) -> list[dict[str, str]]:
        """The rows of the curve's table as strings, with digits as errors allow; `here` marks the current beta."""
        columns = {name: np.array(values) for name, values in self.curve.columns().items()}
        texts = {"beta": [f"{beta:.3g}" for beta in self.curve.betas], "active": [f"{n:g}" for n in self.curve.active]}
        for name in ("rate", "distortion", "elbo"):
            errors = columns[f"{name}_error"]
            usual = float(np.median(errors[errors > 0])) if (errors > 0).any() else 0.01
            for column in (name, f"{name}_error"):
                texts[column] = [_written(value, _decimals(usual, 2)) for value in columns[column].tolist()]
        texts["slope"] = [_written(-s, _decimals(s, 2)) if math.isfinite(s) else "" for s in columns["slope"].tolist()]
        texts["here"] = ["here" if math.isclose(beta, self.beta) else "" for beta in self.curve.betas]
        return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]


@dataclass(frozen=True)
class Listing:
    """A table in a report: title, remark, column names, and rows of text."""

    title: str
    remark: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """The contents of a report as plain values; ``write`` creates the file.

    Parameters
    ----------
    title : str
    facts : mapping
        What was trained, on which data and how: name to text, in the order of the table.
    numbers : sequence of Number
    verdict, healthy : str, bool
        The diagnosis of the posterior in words, and whether it is healthy.
    history : mapping
        One value per epoch for each of epoch, beta, learning_rate, loss, distortion, rate; with held-out rows,
        held_out_loss, held_out_distortion, held_out_rate; with a target, target_rate or target_distortion.
        Columns may be missing and values may be NaN.
    rate_per_latent, active : arrays of shape (latents,)
        Nats per row, and whether the latent is active.
    originals, reconstructions, samples : arrays
        Images (n, height, width) or (n, height, width, 3) with values 0 to 1, or table rows (n, columns) of
        numbers or text. Empty ones (n = 0) are not shown.
    columns : sequence of str
        The names of a table's columns.
    latent_map : array of shape (n, 2), optional
        Rows in the latent space, on two axes named ``latent_axes``. With one latent (n, 1) there is no map.
    labels : array of shape (n,), optional
        Labels that colour the latent map, of any type; ``label_name`` is their name.
    notes : sequence of str
        Unusual events of the training.
    training_remark, held_out_name : str
        A remark on how beta affects the training curves, and the legend's name of the held-out rows.
    along : Along, optional
        The model along its range of beta, if it has one.
    recommended : Recommended, optional
        Its recommendations, if it is a recommender.
    headline : str
        The heading of the verdict, if it is not about a posterior.
    made_name : str
        The name of the samples in figures.
    listings : sequence of Listing
    """

    title: str
    facts: Mapping[str, str]
    numbers: Sequence[Number]
    verdict: str
    healthy: bool
    history: Mapping[str, Sequence[float]]
    rate_per_latent: np.ndarray
    active: np.ndarray
    originals: np.ndarray
    reconstructions: np.ndarray
    samples: np.ndarray
    columns: Sequence[str] = ()
    latent_map: np.ndarray | None = None
    latent_axes: tuple[str, str] = ("", "")
    labels: np.ndarray | None = None
    label_name: str = "label"
    notes: Sequence[str] = ()
    training_remark: str = ""
    held_out_name: str = "held out"
    along: Along | None = None
    recommended: Recommended | None = None
    headline: str = ""
    made_name: str = "samples of the model"
    listings: Sequence[Listing] = ()

    def html(self) -> str:
        """Return the page. It has no scripts, makes no requests, and escapes text from the data.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        from elbowroom.report import data_figures, style  # imported here, so that only a page requires matplotlib

        environment = jinja2.Environment(
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = environment.from_string(files(__package__).joinpath("report.html.j2").read_text("utf-8"))
        pictures = {name: _svg(name, figure, style.THEME) for name, figure in _figures(self)}
        remarks = {"most_columns": data_figures.MOST_COLUMNS, **_epochs(self.history)}
        return page.render(report=self, pictures=pictures, **remarks)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, atomically.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        write_atomically(path, self.html().encode("utf-8", "backslashreplace"))


def _shown(value: Any) -> Any:
    """A value for the page, with control characters and directional marks in text escaped."""
    return escaped(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _figures(report: Report) -> Iterator[tuple[str, Figure]]:
    """The figures by their names in the template, except empty ones."""
    from elbowroom.report import data_figures, model_figures

    yield from _figures_along(report)
    yield from _figures_of_lists(report)
    originals, samples = report.originals, report.samples
    if max(originals.ndim, samples.ndim) >= 3:
        if len(originals):
            yield "pairs", data_figures.image_pairs(originals, report.reconstructions)
        if len(samples):
            yield "samples", data_figures.image_grid(samples)
    elif len(originals):
        yield from _table_figures(report)
    points, labels = report.latent_map, report.labels
    if points is not None and len(points) and points.shape[1] == 2:
        yield "latent_map", model_figures.latent_map(points, labels, report.latent_axes, report.label_name)
    if any(len(values) for values in report.history.values()):
        yield "training", model_figures.training_curves(report.history, report.held_out_name)
    if len(report.rate_per_latent):
        yield "rates", model_figures.rate_per_latent(report.rate_per_latent, report.active)


def _figures_along(report: Report) -> Iterator[tuple[str, Figure]]:
    """The curve, and reconstructions and samples along it."""
    from elbowroom.report import data_figures, model_figures

    along = report.along
    if along is None:
        return
    yield "curve", model_figures.rate_distortion({"": along.curve}, along.picked)
    if report.originals.ndim >= 3:
        yield "pairs_along", data_figures.images_along(report.originals, along.reconstructions, along.betas)
        yield "samples_along", data_figures.samples_along(along.samples, along.betas)
    else:
        made = (along.reconstructions, along.samples, along.betas, _names(report))
        yield "columns_along", data_figures.columns_along(report.originals, *made)


def _figures_of_lists(report: Report) -> Iterator[tuple[str, Figure]]:
    """Figures of recommendations."""
    from elbowroom.report import recommender_figures

    if report.recommended is None:
        return
    yield "popularity", recommender_figures.popularity_curves(report.recommended)
    if len(report.recommended.betas):
        yield "over_beta", recommender_figures.metric_over_beta(report.recommended)


def _names(report: Report) -> list[str]:
    """The names of a table's columns."""
    return list(report.columns) or [f"column {j + 1}" for j in range(report.originals.shape[1])]


def _table_figures(report: Report) -> Iterator[tuple[str, Figure]]:
    """Reconstructed over original values; samples and data, column by column and by correlations."""
    from elbowroom.report import data_figures

    originals, samples = report.originals, report.samples
    names = _names(report)
    if len(report.reconstructions):
        yield "scatter", data_figures.reconstruction_scatter(originals, report.reconstructions, names)
    if len(samples):
        yield "marginals", data_figures.marginals(originals, samples, names, report.made_name)
        both = [j for j in range(len(names)) if _numeric(originals[:, j]) and _numeric(samples[:, j])]
        if len(both) > 1:
            numbers = (originals[:, both].astype(float), samples[:, both].astype(float))
            yield "correlations", data_figures.correlations(*numbers, [names[j] for j in both], report.made_name)


def _numeric(column: np.ndarray) -> bool:
    """Whether a column has numbers only."""
    try:
        column.astype(float)
    except (TypeError, ValueError):
        return False
    return True


def _epochs(history: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """The template's variables on training: numbers of epochs and of broken ones, and if there are held-out rows."""
    columns = {name: np.asarray(values, dtype=float) for name, values in history.items() if len(values)}
    held_out = [columns.pop(name) for name in tuple(columns) if name.startswith("held_out")]
    finite = np.isfinite(np.array([*columns.values()]))
    return {
        "epochs": finite.shape[-1],
        "broken_epochs": int((~finite).any(axis=0).sum()),
        "held_out": bool(np.isfinite(held_out).any()),
    }


def _svg(name: str, figure: Figure, theme: Mapping[str, str]) -> Markup:
    """A figure as inline SVG, with text as text, and colours that follow the page's light or dark theme."""
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph")  # the browser has the glyphs that matplotlib's font lacks
        figure.savefig(buffer, format="svg", dpi=144, metadata=nothing)
    head = r'^.*?<svg[^>]*(viewBox="[^"]*")[^>]*>.*?</defs>'  # with a style that would apply to the whole page
    text = re.sub(head, r"<svg \1>", buffer.getvalue(), flags=re.DOTALL)
    # matplotlib numbers every figure's ids from 1, but ids of a page must be unique
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for role, color in theme.items():
        text = text.replace(f": {color}", f": var(--{role})")
    return Markup(text)
