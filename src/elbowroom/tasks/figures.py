"""Figures of a model and its data: plain arrays in, a matplotlib Figure out, nothing shown and nothing global."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from elbowroom.errors import missing

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis, YAxis
    from matplotlib.collections import PathCollection
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    raise missing("matplotlib", "plot", "drawing a figure") from error

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
MOST_COLUMNS = 12  # of a table, in one figure
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
_styled = matplotlib.rc_context(_STYLE)  # around a drawing function; the caller's settings stay as they were


def _figure(height: float) -> Figure:
    """An empty figure of the report's width; one point of it is one pixel of the page."""
    spacing = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.06)
    return Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout=spacing)


def _short(value: object, length: int = 20) -> str:
    """A name from the data on one line, printable, cut to a length, and never taken for a hidden label."""
    words = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    text = text if len(text) <= length else text[: length - 1].rstrip() + "…"
    return f" {text}" if text.startswith("_") else text


@_styled
def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw loss, distortion and rate (training and held out), beta and learning rate over the epochs.

    ``history`` has one value per epoch for any of epoch, beta, learning_rate, distortion, rate,
    held_out_distortion, held_out_rate. Values that are not finite are left out of the curves.
    """
    columns = {name: np.asarray(values, dtype=float) for name, values in history.items()}
    columns |= {f"{part}loss": _loss(columns, part) for part in ("", "held_out_")}
    figure = _figure(370)
    grid = figure.add_gridspec(2, 3, width_ratios=(1.35, 1, 1), height_ratios=(1.25, 1))
    upper = {"loss": grid[:, 0], "distortion": grid[0, 1], "rate": grid[0, 2]}
    for name, place in (upper | {"beta": grid[1, 1], "learning_rate": grid[1, 2]}).items():
        axes = figure.add_subplot(place, xlabel="epoch" if place.is_last_row() else "")
        _curves(axes, name, columns)
    if len(figure.axes[0].lines) > 1:
        figure.axes[0].legend(loc="best")
    return figure


def _loss(columns: Mapping[str, Array], part: str) -> Array:
    """The loss at each epoch's own beta; empty where one of its three terms was not recorded."""
    if not {"beta", f"{part}distortion", f"{part}rate"} <= columns.keys():
        return np.empty(0)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(columns[f"{part}distortion"] + columns["beta"] * columns[f"{part}rate"])


def _curves(axes: Axes, name: str, columns: Mapping[str, Array]) -> None:
    """One panel: a quantity over the epochs, for training rows and, where there are any, held-out rows."""
    axes.set_title(name.replace("_", " ").capitalize())
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    shown = np.empty(0)
    for column, label, color in ((name, "training", DATA), (f"held_out_{name}", "held out", MODEL)):
        values = columns.get(column, np.empty(0))
        finite = np.abs(values) < 1e100  # larger ones fit on no axis
        if finite.any():
            epochs = columns.get("epoch", np.arange(1, len(values) + 1))[finite]
            marker = "o" if finite.sum() <= 15 else ""
            axes.plot(epochs, values[finite], marker=marker, color=color, lw=1.8, ms=4, label=label)
            shown = np.append(shown, values[finite])
    if not len(shown):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, color=MUTED, ha="center")
    elif shown.min() > 0 and shown.max() > 50 * np.median(shown):
        axes.set_yscale("log")


@_styled
def rate_per_latent(rates: Array, active: Array) -> Figure:
    """Draw the rate of every latent in nats, largest first, with the latents that are off in grey."""
    order = np.argsort(-rates)
    on = active[order].astype(bool)
    figure = _figure(250)
    axes = figure.add_subplot()
    for chosen, name, color in ((on, "active", DATA), (~on, "off", MUTED)):
        places = np.flatnonzero(chosen)
        axes.bar(places, rates[order][places], width=0.68, color=color, label=f"{name} ({len(places)})")
    axes.set(ylabel="rate (nats per row)", xlim=(-0.7, max(len(order), 10) - 0.3))
    axes.grid(axis="y")
    axes.legend(loc="upper right", handlelength=0.9)
    if len(order) <= 40:
        axes.set_xticks(range(len(order)), [str(index) for index in order])
    axes.set_xlabel("index of the latent" if len(order) <= 40 else "latents, largest rate first")
    return figure


@_styled
def image_grid(images: Array, rows: int = 5) -> Figure:
    """Draw images side by side in rows: shape (n, height, width) or (n, height, width, 3), values 0 to 1."""
    columns = _columns_of(images)
    return _mosaic([_tiles(images[i : i + columns]) for i in range(0, len(images), columns)[:rows]])


@_styled
def image_pairs(originals: Array, reconstructions: Array, strips: int = 3) -> Figure:
    """Draw strips of images, in each the originals above and the model's reconstructions below them."""
    columns = _columns_of(originals)
    starts = range(0, len(originals), columns)[:strips]
    rows = [_tiles(images[i : i + columns]) for i in starts for images in (originals, reconstructions)]
    return _mosaic(rows, names=("original", "model"))


def _columns_of(images: Array) -> int:
    """How many images stand in a row: twelve squares, fewer where images are wide."""
    return int(np.clip(round(12 * np.sqrt(images.shape[1] / images.shape[2])), 2, 20))


def _tiles(images: Array) -> Array:
    """Images as opaque colours (n, height, width, 4), clipped to what a screen can show."""
    pixels = np.clip(np.nan_to_num(np.asarray(images, dtype=np.float32)), 0, 1)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    tiles = np.ones((*pixels.shape[:3], 4), dtype=np.float32)
    tiles[..., :3] = pixels
    return tiles


def _mosaic(rows: Sequence[Array], names: Sequence[str] = ()) -> Figure:
    """Rows of tiles as one picture; given names, each row has its own and rows stand in groups of them."""
    height, width = rows[0].shape[1:3]
    gap, group = max(1, round(width / 14)), len(names) or len(rows)
    tops = [(height + gap) * i + 2 * gap * (i // group) for i in range(len(rows))]
    picture = np.zeros((tops[-1] + height, (width + gap) * _columns_of(rows[0]) - gap, 4), dtype=np.float32)
    for top, row in zip(tops, rows, strict=True):
        for i, tile in enumerate(row):
            picture[top : top + height, (width + gap) * i :][:, :width] = tile
    share = 0.925  # of the width; the rest is for names, and without any it stays, so that pictures line up
    tall, wide = picture.shape[:2]
    figure = Figure(figsize=(WIDTH / 72, WIDTH / 72 * share * tall / wide), dpi=72)
    axes = figure.add_axes((0, 0, share, 1))
    axes.imshow(picture)
    axes.set_axis_off()
    for i, top in enumerate(tops if names else []):
        figure.text(share + 0.012, 1 - (top + height / 2) / tall, names[i % group], color=MUTED, va="center")
    return figure


@_styled
def latent_map(
    points: Array,
    labels: Array | None = None,
    axis_names: Sequence[str] = ("", ""),
    label_name: str = "label",
) -> Figure:
    """Draw rows as points (n, 2), where they are finite, coloured by their label.

    More than ten different numbers are a scale with a colour bar; of anything else, the ten most frequent have a hue.
    """
    finite = np.isfinite(points).all(axis=1)
    points, labels = points[finite], None if labels is None else np.asarray(labels)[finite]
    figure = _figure(540)
    axes = figure.add_subplot(aspect="equal", adjustable="datalim")
    axes.set(xlabel=_short(axis_names[0], 60), ylabel=_short(axis_names[1], 60))
    if labels is None:
        _points(axes, points, color=DATA)
    elif _is_scale(labels):
        _coloured_by_scale(axes, points, np.array(labels, dtype=float), label_name)
    else:
        _coloured_by_category(axes, points, np.array([str(label) for label in labels]), label_name)
    return figure


def _is_scale(labels: Array) -> bool:
    """Whether labels are places on a scale: numbers, and more of them than there are hues."""
    numbers = [float(label) for label in labels if isinstance(label, Real)]
    return len(numbers) == len(labels) and len(np.unique(_finite(np.array(numbers)))) > len(HUES)


def _points(axes: Axes, points: Array, **style: Any) -> PathCollection:
    """Points, the smaller the more there are, as pixels where they are very many."""
    size = float(np.clip(24000 / max(len(points), 1), 6, 34))
    style = {"rasterized": len(points) > MOST_SHAPES, "alpha": 0.75, "linewidth": 0, "clip_on": False} | style
    return axes.scatter(points[:, 0], points[:, 1], size, **style)


def _coloured_by_scale(axes: Axes, points: Array, scale: Array, name: str) -> None:
    """Points coloured by a number, grey where it is not finite; no colour vanishes on white or on near black."""
    finite = np.isfinite(scale)
    _points(axes, points[~finite], color=LINE)
    colors = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.2, 0.92, 256)))
    drawn = _points(axes, points[finite], c=scale[finite], cmap=colors)
    bar = axes.figure.colorbar(drawn, shrink=0.6, aspect=28, pad=0.02)
    bar.set_label(_short(name, 40))
    bar.outline.set_visible(False)
    bar.solids.set(alpha=1, rasterized=True)  # type: ignore[union-attr]


def _coloured_by_category(axes: Axes, points: Array, labels: Array, name: str) -> None:
    """Points coloured by category, with a legend, and short names written where the categories lie."""
    found, counts = np.unique(labels, return_counts=True)
    frequent = found[np.argsort(-counts, kind="stable")[: len(HUES)]]
    kept = sorted(frequent, key=lambda label: (label.isdecimal() * len(label), label))  # 2 comes before 10
    hue = dict(zip(kept, HUES, strict=False))
    order = np.random.default_rng(0).permutation(len(points))  # so that no category hides another
    _points(axes, points[order], color=[hue.get(label, LINE) for label in labels[order]])
    for label in kept if max(map(len, kept), default=0) <= 3 else []:
        box = {"boxstyle": "round,pad=0.25", "facecolor": PAPER, "edgecolor": hue[label], "alpha": 0.9}
        x, y = np.median(points[labels == label], axis=0)
        axes.text(x, y, _short(label), bbox=box, ha="center", va="center")
    others = [f"{len(found) - len(kept):,} others"] * (len(found) > len(kept))
    texts, colors = [_short(label) for label in kept] + others, [*hue.values(), LINE]
    dots = [axes.plot([], [], "o", ms=7, mew=0, color=color)[0] for color in colors[: len(texts)]]
    axes.figure.legend(dots, texts, title=_short(name), loc="outside right center", alignment="left")


@_styled
def marginals(data: Array, samples: Array, names: Sequence[str]) -> Figure:
    """Draw the histogram of each column in the data and in the model's samples, with the share they overlap.

    Rows are numbers or text. Of more than twelve columns, the twelve that overlap least are shown.
    """
    columns = [_coded(*pair) for pair in zip(data.T, samples.T, strict=True)]
    edges = [_edges(given, made) for _, given, made in columns]
    shares = [[_shares(values, bins) for values in c[1:]] for c, bins in zip(columns, edges, strict=True)]
    figure, panels = _panels([float(np.minimum(*pair).sum()) for pair in shares], names, "{:.0%}")
    for axes, j in panels:
        axes.stairs(shares[j][0], edges[j], fill=True, color=DATA, alpha=0.3, lw=0, label="data")
        axes.stairs(shares[j][1], edges[j], color=MODEL, lw=1.6, label="samples of the model")
        axes.set(yticks=[], ylim=(0, None))
        axes.spines["left"].set_visible(False)
        _name_ticks(axes.xaxis, columns[j][0])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


@_styled
def reconstruction_scatter(originals: Array, reconstructions: Array, names: Sequence[str]) -> Figure:
    """Draw each column's reconstructions over the originals: on the diagonal where the model is right.

    Rows are numbers or text. Of more than twelve columns, the twelve that correlate least are shown.
    """
    columns = [_coded(*pair) for pair in zip(originals.T, reconstructions.T, strict=True)]
    figure, panels = _panels([_correlation(np.stack(c[1:], 1))[0, 1] for c in columns], names, "{:.2f}")
    for axes, j in panels:
        categories, *pair = columns[j]
        points = np.stack(pair, 1)
        if categories:  # they would lie on top of each other; spread out, the crowd at each place is seen
            points += np.random.default_rng(0).uniform(-0.3, 0.3, points.shape)
        _points(axes, points, color=MODEL, rasterized=len(points) * len(panels) > MOST_SHAPES)
        axes.plot(axes.get_xlim(), axes.get_xlim(), color=LINE, lw=1.2, zorder=0)
        _name_ticks(axes.xaxis, categories)
        _name_ticks(axes.yaxis, categories)
    return figure


@_styled
def correlations(data: Array, samples: Array, names: Sequence[str]) -> Figure:
    """Draw how columns of numbers correlate, in the data and in the model's samples, as squares on a grid.

    The side of a square is the strength; hollow squares are negative. Only the first twenty columns are shown.
    """
    shown = [_short(name, 14) for name in names[:20]]
    y, x = np.tril_indices(len(shown), -1)
    side = 240 / max(len(shown), 4)
    figure = _figure(430)
    sides = zip(figure.subplots(1, 2, sharey=True), (data, samples), (DATA, MODEL), strict=True)
    for axes, rows, color in sides:
        strength = _correlation(rows[:, : len(shown)])[y, x]
        faces = [color if value > 0 else "none" for value in strength]
        axes.scatter(x, y, side**2, "none", marker="s", edgecolors=LINE, linewidth=0.6)
        axes.scatter(x, y, (side * strength) ** 2, faces, marker="s", edgecolors=color, linewidth=0.9)
        axes.set(aspect="equal", xlim=(-0.6, len(shown) - 1.4), ylim=(len(shown) - 0.4, 0.4))
        axes.set_xticks(range(len(shown) - 1), shown[:-1], rotation=90, parse_math=False)
        axes.set_yticks(range(1, len(shown)), shown[1:], parse_math=False)
        axes.spines[:].set_visible(False)
        axes.set_title("data" if color == DATA else "samples of the model")
    return figure


def _coded(given: Array, made: Array) -> tuple[list[str], Array, Array]:
    """Two columns as numbers. Text becomes the place of its category, the most frequent first, with their names."""
    try:
        return [], given.astype(float), made.astype(float)
    except (TypeError, ValueError):
        ranked = [name for name, _ in Counter(str(value) for value in (*given, *made)).most_common()]
        places = {name: float(min(i, 9)) for i, name in enumerate(ranked)}
        codes = [np.array([places[str(value)] for value in column]) for column in (given, made)]
        return ranked[:9] + ["others"] * (len(ranked) > 9), codes[0], codes[1]


def _finite(values: Array) -> Array:
    """The values that are numbers, without NaN and infinities."""
    return values[np.isfinite(values)]


def _edges(given: Array, made: Array) -> Array:
    """Where the bins of a column's histogram begin and end: one for each of few whole numbers, else equal ones."""
    both = _finite(np.append(given, made))
    if len(both) and (np.ptp(both) > 30 or np.any(both % 1)):
        # The data says how far; samples outside count in the first and last bin.
        kept = _finite(given) if np.isfinite(given).any() else both
        width = np.ptp(kept) / np.clip(np.sqrt(len(kept)), 6, 24) or max(abs(kept[0]), 1.0) / 10
        return np.arange(kept.min() - 3 * width, kept.max() + 4 * width, width)
    low, span = (both.min(), int(np.ptp(both))) if len(both) else (0.0, 0)
    return low - 0.5 + np.arange(span + 2)


def _shares(values: Array, edges: Array) -> Array:
    """The share of the finite values in each bin."""
    counts = np.histogram(np.clip(_finite(values), edges[0], edges[-1]), edges)[0]
    return np.asarray(counts / max(counts.sum(), 1))


def _correlation(rows: Array) -> Array:
    """The correlations between columns over the rows without a gap; NaN where a column is constant."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < 2:
        return np.full((rows.shape[1], rows.shape[1]), np.nan)
    varying = np.where(np.ptp(rows, axis=0) > 0, rows, np.nan)
    return np.atleast_2d(np.corrcoef(varying, rowvar=False))


def _panels(fits: Sequence[float], names: Sequence[str], shown: str) -> tuple[Figure, list[tuple[Axes, int]]]:
    """Small panels for the columns that fit worst, in the table's order, headed by the column's name and its fit."""
    worst = np.sort(np.argsort(fits, kind="stable")[:MOST_COLUMNS])
    rows = -(-len(worst) // 4)
    figure = _figure(40 + 140 * rows)
    panels = [(figure.add_subplot(rows, 4, i), int(j)) for i, j in enumerate(worst, start=1)]
    for axes, j in panels:
        axes.set_title(_short(names[j]), fontsize=10.5)
        if np.isfinite(fits[j]):
            axes.set_title(shown.format(fits[j]), loc="right", fontsize=10, color=MUTED)
    return figure, panels


def _name_ticks(axis: Axis, categories: Sequence[str]) -> None:
    """Few ticks on a small panel; of categories their names, cut to what fits, and none where nothing would."""
    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if categories:
        room = 8 if isinstance(axis, YAxis) else 24 // len(categories)
        names = [_short(name, room) for name in categories] if len(categories) <= 6 else []
        axis.set_ticks(range(len(names)), names, parse_math=False)
