"""A report of a trained model: one HTML file to look at, print and send, which needs nothing beside it."""

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
    """A key number of a report: what it is called, its value, its unit and perhaps its standard error."""

    name: str
    value: float
    unit: str = "nats per row"
    error: float | None = None
    meaning: str = ""

    @property
    def value_text(self) -> str:
        """The value as people write it, as exact as its error allows, else to four digits.

        >>> Number("ELBO", -91.3482, error=0.2134).value_text, Number("rows", 1617).value_text
        ('−91.35', '1,617')
        """
        return _written(self.value, self._decimals)

    @property
    def error_text(self) -> str:
        """The standard error to two digits, or nothing where there is none."""
        return "" if self.error is None else _written(self.error, self._decimals)

    @property
    def _decimals(self) -> int:
        if self.error is not None and math.isfinite(self.error) and self.error > 0:
            return _decimals(self.error, 2)
        return 0 if float(self.value).is_integer() else _decimals(self.value, 4)


def _decimals(value: float, digits: int) -> int:
    """How many decimals show this many digits of a value that is not zero."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if math.isfinite(value) else 0


def _written(value: float, decimals: int) -> str:
    """A number with thousands apart and a real minus sign; powers of ten where it would be too long."""
    long = abs(value) >= 1e7 or decimals > 6
    text = f"{value:,.3g}" if long else f"{value:,.{decimals}f}"
    return f"−{text[1:]}" if text.startswith("-") else text


@dataclass(frozen=True)
class Along:
    """What a model does along its range of beta.

    Parameters
    ----------
    span, beta : str, float
        The range, and where in it the model stands: the beta of all else on the page.
    curve : Curve
    picked : mapping
        Betas with a name.
    betas : sequence of float
        k betas, at which the model makes reconstructions and samples.
    reconstructions, samples : arrays (k, n, ...)
        At these betas: of the report's originals, and from the same latents.
    """

    span: str
    beta: float
    curve: Curve
    picked: Mapping[str, float]
    betas: Sequence[float]
    reconstructions: np.ndarray
    samples: np.ndarray

    def table(self) -> list[dict[str, str]]:
        """The rows of the curve's table as texts, each column as exact as its errors allow; `here` marks the beta."""
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
    """A table in a report: its title, a remark on it, the names of its columns, and rows of text."""

    title: str
    remark: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """What a report shows, as plain values; ``write`` makes the file.

    Parameters
    ----------
    title : str
    facts : mapping
        What was trained, on what and how: name to text, in the order of the table.
    numbers : sequence of Number
    verdict, healthy : str, bool
        The diagnosis of the posterior in words, and whether it is a good one.
    history : mapping
        One value per epoch for each of epoch, beta, learning_rate, loss, distortion, rate and, where rows were held
        out, held_out_loss, held_out_distortion, held_out_rate; with a target also target_rate or target_distortion.
        Columns may be missing and values may be NaN.
    rate_per_latent, active : arrays of shape (latents,)
        Nats per row, and whether the latent is in use.
    originals, reconstructions, samples : arrays
        Images (n, height, width) or (n, height, width, 3) with values 0 to 1, or table rows (n, columns) of
        numbers or text. There may be none of them (n = 0); what has no rows is not shown.
    columns : sequence of str
        The names of a table's columns.
    latent_map : array of shape (n, 2), optional
        Rows in the latent space, on two axes called ``latent_axes``. Of one latent (n, 1) there is no map.
    labels : array of shape (n,), optional
        What colours the latent map: numbers or anything that has a text. It is called ``label_name``.
    notes : sequence of str
        What was out of the ordinary in training.
    training_remark, held_out_name : str
        What beta did to the training curves, and what their legend calls the held-out rows.
    along : Along, optional
        What the model does along its range of beta, if it knows one.
    recommended : Recommended, optional
        How good its recommendations are, if it makes any.
    headline : str
        What stands before the verdict, where that is not on a posterior.
    made_name : str
        What the figures call the samples.
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
        """Return the page. It makes no request, has no script, and shows text from the data as text.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        from elbowroom.report import data_figures, style  # here, so that only a page needs matplotlib

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
        """Write the page to a file, which is either the whole new page or what was there before.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        write_atomically(path, self.html().encode("utf-8", "backslashreplace"))


def _shown(value: Any) -> Any:
    """What the page shows of a value: text with what would turn its direction, or control anything, written out."""
    return escaped(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _figures(report: Report) -> Iterator[tuple[str, Figure]]:
    """The figures by the names that the template asks for; what has nothing to show is left out."""
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
    """The curve, and what the model makes along it."""
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
    """What recommendations are like."""
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
    """Reconstructed over original values; samples against data, each column alone and columns together."""
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
    """Whether a column is numbers and no text."""
    try:
        column.astype(float)
    except (TypeError, ValueError):
        return False
    return True


def _epochs(history: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """What the template says beside the curves: how many epochs, how many broken, and any rows held out."""
    columns = {name: np.asarray(values, dtype=float) for name, values in history.items() if len(values)}
    held_out = [columns.pop(name) for name in tuple(columns) if name.startswith("held_out")]
    finite = np.isfinite(np.array([*columns.values()]))
    return {
        "epochs": finite.shape[-1],
        "broken_epochs": int((~finite).any(axis=0).sum()),
        "held_out": bool(np.isfinite(held_out).any()),
    }


def _svg(name: str, figure: Figure, theme: Mapping[str, str]) -> Markup:
    """A figure as a part of the page: its text is text, and its colours follow the page's light or dark theme."""
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph")  # the browser has the letters that matplotlib's font lacks
        figure.savefig(buffer, format="svg", dpi=144, metadata=nothing)
    head = r'^.*?<svg[^>]*(viewBox="[^"]*")[^>]*>.*?</defs>'  # with a style that would act on the whole page
    text = re.sub(head, r"<svg \1>", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # matplotlib counts from 1 in every figure; a page must not
    for role, color in theme.items():
        text = text.replace(f": {color}", f": var(--{role})")
    return Markup(text)
