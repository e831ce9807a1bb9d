"""The shared style of figures: colours, sizes and settings, without global effects."""

from __future__ import annotations

from typing import Any

import numpy as np

from elbowroom.errors import missing

try:  # matplotlib is imported only here; other modules import it from this one
    import matplotlib as matplotlib
    from matplotlib.axes import Axes as Axes
    from matplotlib.axis import Axis as Axis
    from matplotlib.axis import YAxis as YAxis
    from matplotlib.collections import PathCollection as PathCollection
    from matplotlib.colors import ListedColormap as ListedColormap
    from matplotlib.figure import Figure as Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter as FuncFormatter
    from matplotlib.ticker import LogLocator as LogLocator
    from matplotlib.ticker import MaxNLocator as MaxNLocator
    from matplotlib.ticker import NullLocator as NullLocator
except ModuleNotFoundError as error:
    raise missing("matplotlib", "drawing a figure") from error

INK, MUTED, LINE, PAPER = "#1d2733", "#667180", "#d6dbe1", "#fffffe"
DATA, MODEL = "#1f6fb2", "#d9660f"  # data is blue, and everything from the model is orange, in all figures
THEME = {"ink": INK, "muted": MUTED, "line": LINE, "paper": PAPER, "data": DATA, "model": MODEL}
# Ten hues that are distinct under simulated red-green blindness, and visible on white and on near black.
HUES = (
    "#2070b3",
    "#da6710",
    "#12835f",
    "#e892c2",
    "#d4a80a",
    "#63bdf0",
    "#7c3f9c",
    "#80522f",
    "#72c9a6",
    "#c22f4a",
)
WIDTH = 800  # pixels of every figure: the width of the report's column, so that text is not rescaled
MOST_SHAPES = 2000  # a scatter plot of more points is rasterised, as browsers are slow with many shapes
Array = np.ndarray[Any, np.dtype[Any]]

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # the font that comes with matplotlib, for the same layout on every machine
    "font.size": 11,
    "text.parse_math": False,  # a column called "$x" is a name, not a formula
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
}
styled = matplotlib.rc_context(_STYLE)  # decorator of drawing functions; the caller's settings are restored


def new_figure(height: float) -> Figure:
    """An empty figure of the report's width; one point is one pixel of the page."""
    spacing = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.06)
    return Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout=spacing)


def short(value: object, length: int = 20) -> str:
    """A name from the data on one printable line, truncated, that matplotlib does not treat as a hidden label."""
    words = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    text = text if len(text) <= length else text[: length - 1].rstrip() + "…"
    return f" {text}" if text.startswith("_") else text


def points_on(axes: Axes, points: Array, **style: Any) -> PathCollection:
    """A scatter plot, with smaller points the more there are, rasterised if there are very many."""
    size = float(np.clip(24000 / max(len(points), 1), 6, 34))
    style = {"rasterized": len(points) > MOST_SHAPES, "alpha": 0.75, "linewidth": 0, "clip_on": False} | style
    return axes.scatter(points[:, 0], points[:, 1], size, **style)


def only_finite(values: Array) -> Array:
    """The finite values."""
    return values[np.isfinite(values)]


def log_axis(axes: Axes, axis: Axis) -> None:
    """Make an axis logarithmic, with a few plain numbers as ticks."""
    across = axis is axes.xaxis
    axes.set(**{"xscale" if across else "yscale": "log"})
    low, high = axes.dataLim.intervalx if across else axes.dataLim.intervaly
    narrow = not 0 < 30 * low <= high
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
