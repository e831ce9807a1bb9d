"""Figures of rows, reconstructions and samples: functions of plain arrays that return a matplotlib Figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from elbowroom.report.style import (
    DATA,
    LINE,
    MODEL,
    MOST_SHAPES,
    MUTED,
    WIDTH,
    Array,
    Axes,
    Axis,
    Figure,
    MaxNLocator,
    YAxis,
    log_axis,
    new_figure,
    only_finite,
    points_on,
    short,
    styled,
)

MOST_COLUMNS = 12  # of a table, in one figure


@styled
def image_grid(images: Array, rows: int = 5) -> Figure:
    """Draw images side by side in rows: shape (n, height, width) or (n, height, width, 3), values 0 to 1."""
    columns = _columns_of(images)
    return _mosaic([_tiles(images[i : i + columns]) for i in range(0, len(images), columns)[:rows]])


@styled
def image_pairs(originals: Array, reconstructions: Array, strips: int = 3) -> Figure:
    """Draw strips of images, with originals above and reconstructions below."""
    columns = _columns_of(originals)
    starts = range(0, len(originals), columns)[:strips]
    rows = [_tiles(images[i : i + columns]) for i in starts for images in (originals, reconstructions)]
    return _mosaic(rows, names=("original", "model"))


def _columns_of(images: Array) -> int:
    """The number of images in a row: twelve if they are square, fewer if they are wide."""
    return int(np.clip(round(12 * np.sqrt(images.shape[1] / images.shape[2])), 2, 20))


def _tiles(images: Array) -> Array:
    """Images as opaque colours (n, height, width, 4), clipped to [0, 1]."""
    pixels = np.clip(np.nan_to_num(np.asarray(images, dtype=np.float32)), 0, 1)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    tiles = np.ones((*pixels.shape[:3], 4), dtype=np.float32)
    tiles[..., :3] = pixels
    return tiles


def _mosaic(rows: Sequence[Array], names: Sequence[str] = (), heads: Sequence[str] = ()) -> Figure:
    """Rows of tiles as one picture, with groups of rows labelled by `names`, and columns by `heads`, if given."""
    height, width = rows[0].shape[1:3]
    gap, group = max(1, round(width / 14)), len(names) or len(rows)
    tops = [(height + gap) * i + 2 * gap * (i // group) for i in range(len(rows))]
    columns = len(heads) or _columns_of(rows[0])
    picture = np.zeros((tops[-1] + height, (width + gap) * columns - gap, 4), dtype=np.float32)
    for top, row in zip(tops, rows, strict=True):
        for i, tile in enumerate(row):
            picture[top : top + height, (width + gap) * i :][:, :width] = tile
    # Fraction of the width; the rest is for names, and stays empty without any, so that pictures line up.
    share = 0.925 if max(map(len, names), default=0) <= 8 else 0.9
    tall, wide = picture.shape[:2]
    across, over = WIDTH * share * tall / wide, 24 if heads else 0
    figure = Figure(figsize=(WIDTH / 72, (across + over) / 72), dpi=72)
    part = across / (across + over)
    axes = figure.add_axes((0, 0, share, part))
    axes.imshow(picture, aspect="auto")
    axes.set_axis_off()
    for i, top in enumerate(tops if names else []):
        figure.text(share + 0.012, part * (1 - (top + height / 2) / tall), names[i % group], color=MUTED, va="center")
    for i, head in enumerate(heads):
        middle = share * ((width + gap) * i + width / 2) / wide
        figure.text(middle, part + 8 / (across + over), head, color=MUTED, ha="center")
    return figure


@styled
def images_along(originals: Array, reconstructions: Array, betas: Sequence[float]) -> Figure:
    """Draw a few images, one in each row: the original, then its reconstruction (k, n, ...) at every beta."""
    count = min(len(originals), int(np.clip(round(6 * originals.shape[2] / originals.shape[1]), 2, 8)))
    rows = [_tiles(np.concatenate([originals[i : i + 1], reconstructions[:, i]])) for i in range(count)]
    return _mosaic(rows, heads=("original", *_beta_names(betas)))


@styled
def samples_along(samples: Array, betas: Sequence[float]) -> Figure:
    """Draw samples (k, n, ...), a row for every beta; a column has the same latents."""
    columns = _columns_of(samples[0])
    return _mosaic([_tiles(images[:columns]) for images in samples], names=_beta_names(betas))


@styled
def columns_along(
    originals: Array, reconstructions: Array, samples: Array, betas: Sequence[float], names: Sequence[str]
) -> Figure:
    """Draw, over beta and for each column, how reconstructions correlate with originals and samples overlap with data.

    Reconstructions and samples are (k, n, columns) at k betas. Only the first twelve columns are shown.
    """
    figure, panels = _panels([np.nan] * originals.shape[1], names, "")
    for axes, j in panels:
        agreement = [_agreement(originals[:, j], made[:, j]) for made in reconstructions]
        overlap = [_overlap(originals[:, j], made[:, j]) for made in samples]
        axes.plot(betas, agreement, "o-", color=DATA, lw=1.8, ms=4, label="reconstructions: correlation with originals")
        axes.plot(betas, overlap, "o-", color=MODEL, lw=1.8, ms=4, label="samples: overlap with the data")
        log_axis(axes, axes.xaxis)
        lowest = np.nanmin([0.0, *agreement])
        axes.set(ylim=(lowest - 0.06, 1.06), yticks=[-1, -0.5, 0, 0.5, 1] if lowest < -0.2 else [0, 0.5, 1])
        axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


def _beta_names(betas: Sequence[float]) -> list[str]:
    return [f"β = {beta:.2g}" for beta in betas]


def _agreement(given: Array, made: Array) -> float:
    """The correlation of two columns."""
    return float(_correlation(np.stack(_coded(given, made)[1:], 1))[0, 1])


def _overlap(given: Array, made: Array) -> float:
    """The overlap of the histograms of two columns."""
    _, *pair = _coded(given, made)
    edges = _edges(pair[0], pair[1])
    return float(np.minimum(*(_shares(values, edges) for values in pair)).sum())


@styled
def marginals(data: Array, samples: Array, names: Sequence[str], made: str = "samples of the model") -> Figure:
    """Draw the histograms of each column in the data and in the model's samples, with their overlap.

    Rows are numbers or text. Of more than twelve columns, the twelve that overlap least are shown.
    """
    columns = [_coded(*pair) for pair in zip(data.T, samples.T, strict=True)]
    edges = [_edges(given, made) for _, given, made in columns]
    shares = [[_shares(values, bins) for values in c[1:]] for c, bins in zip(columns, edges, strict=True)]
    figure, panels = _panels([float(np.minimum(*pair).sum()) for pair in shares], names, "{:.0%}")
    for axes, j in panels:
        axes.stairs(shares[j][0], edges[j], fill=True, color=DATA, alpha=0.3, lw=0, label="data")
        axes.stairs(shares[j][1], edges[j], color=MODEL, lw=1.6, label=made)
        axes.set(yticks=[], ylim=(0, None))
        axes.spines["left"].set_visible(False)
        _name_ticks(axes.xaxis, columns[j][0])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


@styled
def reconstruction_scatter(originals: Array, reconstructions: Array, names: Sequence[str]) -> Figure:
    """Draw each column's reconstructions over the originals; points on the diagonal are exact.

    Rows are numbers or text. Of more than twelve columns, the twelve that correlate least are shown.
    """
    columns = [_coded(*pair) for pair in zip(originals.T, reconstructions.T, strict=True)]
    figure, panels = _panels([_correlation(np.stack(c[1:], 1))[0, 1] for c in columns], names, "{:.2f}")
    for axes, j in panels:
        categories, *pair = columns[j]
        points = np.stack(pair, 1)
        if categories:  # jitter, as equal points would hide each other
            points += np.random.default_rng(0).uniform(-0.3, 0.3, points.shape)
        points_on(axes, points, color=MODEL, rasterized=len(points) * len(panels) > MOST_SHAPES)
        axes.plot(axes.get_xlim(), axes.get_xlim(), color=LINE, lw=1.2, zorder=0)
        _name_ticks(axes.xaxis, categories)
        _name_ticks(axes.yaxis, categories)
    return figure


@styled
def correlations(data: Array, samples: Array, names: Sequence[str], made: str = "samples of the model") -> Figure:
    """Draw the correlations of numeric columns, in the data and in the model's samples, as squares on a grid.

    The size of a square is the strength; hollow squares are negative. Only the first twenty columns are shown.
    """
    shown = [short(name, 14) for name in names[:20]]
    y, x = np.tril_indices(len(shown), -1)
    side = 240 / max(len(shown), 4)
    figure = new_figure(430)
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
        axes.set_title("data" if color == DATA else made)
    return figure


def _coded(given: Array, made: Array) -> tuple[list[str], Array, Array]:
    """Two columns as numbers: text becomes the index of its category, by frequency; and the names of categories."""
    try:
        return [], given.astype(float), made.astype(float)
    except (TypeError, ValueError):
        ranked = [name for name, _ in Counter(str(value) for value in (*given, *made)).most_common()]
        places = {name: float(min(i, 9)) for i, name in enumerate(ranked)}
        codes = [np.array([places[str(value)] for value in column]) for column in (given, made)]
        return ranked[:9] + ["others"] * (len(ranked) > 9), codes[0], codes[1]


def _edges(given: Array, made: Array) -> Array:
    """The edges of a histogram's bins: one bin for each of a few integers, else bins of equal width."""
    both = only_finite(np.append(given, made))
    if len(both) and (np.ptp(both) > 30 or np.any(both % 1)):
        # The range is that of the data; samples outside count in the first and last bin.
        kept = only_finite(given) if np.isfinite(given).any() else both
        width = np.ptp(kept) / np.clip(np.sqrt(len(kept)), 6, 24) or max(abs(kept[0]), 1.0) / 10
        return np.arange(kept.min() - 3 * width, kept.max() + 4 * width, width)
    low, span = (both.min(), int(np.ptp(both))) if len(both) else (0.0, 0)
    return low - 0.5 + np.arange(span + 2)


def _shares(values: Array, edges: Array) -> Array:
    """The share of the finite values in each bin."""
    counts = np.histogram(np.clip(only_finite(values), edges[0], edges[-1]), edges)[0]
    return np.asarray(counts / max(counts.sum(), 1))


def _correlation(rows: Array) -> Array:
    """Correlations of columns over rows without missing values; NaN if a column is constant."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < 2:
        return np.full((rows.shape[1], rows.shape[1]), np.nan)
    varying = np.where(np.ptp(rows, axis=0) > 0, rows, np.nan)
    return np.atleast_2d(np.corrcoef(varying, rowvar=False))


def _panels(fits: Sequence[float], names: Sequence[str], shown: str) -> tuple[Figure, list[tuple[Axes, int]]]:
    """Small panels for the columns with the worst fits, in the table's order, titled with the column's name and fit."""
    worst = np.sort(np.argsort(fits, kind="stable")[:MOST_COLUMNS])
    rows = -(-len(worst) // 4)
    figure = new_figure(40 + 140 * rows)
    panels = [(figure.add_subplot(rows, 4, i), int(j)) for i, j in enumerate(worst, start=1)]
    for axes, j in panels:
        axes.set_title(short(names[j]), fontsize=10.5)
        if np.isfinite(fits[j]):
            axes.set_title(shown.format(fits[j]), loc="right", fontsize=10, color=MUTED)
    return figure, panels


def _name_ticks(axis: Axis, categories: Sequence[str]) -> None:
    """A few ticks for a small panel: shortened names of categories, or none if they do not fit."""
    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if categories:
        room = 8 if isinstance(axis, YAxis) else 24 // len(categories)
        names = [short(name, room) for name in categories] if len(categories) <= 6 else []
        axis.set_ticks(range(len(names)), names, parse_math=False)
