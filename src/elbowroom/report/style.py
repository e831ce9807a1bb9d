"""How figures look: colours, sizes and style, shared by all of them; nothing shown and nothing global."""

from __future__ import annotations

from typing import Any

import numpy as np

from elbowroom.errors import missing

try:  # here alone: the files of figures get what they use of matplotlib from this one
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
DATA, MODEL = "#1f6fb2", "#d9660f"  # what was given is blue, what the model makes of it is orange, everywhere
THEME = {"ink": INK, "muted": MUTED, "line": LINE, "paper": PAPER, "data": DATA, "model": MODEL}
# Ten hues that stay apart in simulated red-green blindness and stand out from white as well as from near black.
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
WIDTH = 800  # pixels, of every figure: the column of the report, so that text keeps its size
MOST_SHAPES = 2000  # a scatter of more points is drawn as pixels, because a browser chokes on so many shapes
Array = np.ndarray[Any, np.dtype[Any]]

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # the font that comes with matplotlib: the same layout on every machine
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
styled = matplotlib.rc_context(_STYLE)  # around a drawing function; the caller's settings stay as they were


def new_figure(height: float) -> Figure:
    """An empty figure of the report's width; one point of it is one pixel of the page."""
    spacing = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.06)
    return Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout=spacing)


def short(value: object, length: int = 20) -> str:
    """A name from the data on one line, printable, cut to a length, and never taken for a hidden label."""
    words = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    text = text if len(text) <= length else text[: length - 1].rstrip() + "…"
    return f" {text}" if text.startswith("_") else text


def points_on(axes: Axes, points: Array, **style: Any) -> PathCollection:
    """Points, the smaller the more there are, as pixels where they are very many."""
    size = float(np.clip(24000 / max(len(points), 1), 6, 34))
    style = {"rasterized": len(points) > MOST_SHAPES, "alpha": 0.75, "linewidth": 0, "clip_on": False} | style
    return axes.scatter(points[:, 0], points[:, 1], size, **style)


def only_finite(values: Array) -> Array:
    """The values that are numbers, without NaN and infinities."""
    return values[np.isfinite(values)]


def log_axis(axes: Axes, axis: Axis) -> None:
    """An axis with a logarithmic scale, and plain numbers at few places."""
    across = axis is axes.xaxis
    axes.set(**{"xscale" if across else "yscale": "log"})
    low, high = axes.dataLim.intervalx if across else axes.dataLim.intervaly
    narrow = not 0 < 30 * low <= high
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
