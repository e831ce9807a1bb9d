"""Figures of a model: its training, its latents and its curve; functions that return a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from elbowroom.report.style import (
    DATA,
    HUES,
    INK,
    LINE,
    MODEL,
    MUTED,
    PAPER,
    Array,
    Axes,
    Figure,
    ListedColormap,
    MaxNLocator,
    log_axis,
    matplotlib,
    new_figure,
    only_finite,
    points_on,
    short,
    styled,
)
from elbowroom.tasks.curve import Curve

COLORS = (DATA, MODEL, *HUES[2:])  # of curves
MARKS = ("D", "s", "^", "v", "P", "X")  # of picked betas


@styled
def training_curves(history: Mapping[str, Sequence[float]], held_out: str = "held out") -> Figure:
    """Draw loss, distortion, rate, beta and learning rate over the epochs, for training and held-out rows.

    ``history`` has one value per epoch for any of epoch, beta, learning_rate, loss, distortion, rate, held_out_loss,
    held_out_distortion, held_out_rate, and, where training had a target, target_rate or target_distortion. Panels
    without data are omitted, and so are values that are not finite. ``held_out`` is the legend's name of the held-out
    rows.
    """
    columns = {name: np.asarray(values, dtype=float) for name, values in history.items()}
    figure = new_figure(370)
    grid = figure.add_gridspec(2, 3, width_ratios=(1.35, 1, 1), height_ratios=(1.25, 1))
    places = {"rate": grid[:, 0], "distortion": grid[0, 1:]}
    if "loss" in columns:
        places = {"loss": grid[:, 0], "distortion": grid[0, 1], "rate": grid[0, 2]}
    settings = (
        {"beta": grid[1, 1], "learning_rate": grid[1, 2]} if "beta" in columns else {"learning_rate": grid[1, 1:]}
    )
    for name, place in (places | settings).items():
        axes = figure.add_subplot(place, xlabel="epoch" if place.is_last_row() else "")
        _curves(axes, name, columns, held_out)
    pairs = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
    handles = {label: handle for pair in pairs for handle, label in pair}
    if len(handles) > 1:
        figure.axes[0].legend([*handles.values()], [*handles], loc="best")
    return figure


def _curves(axes: Axes, name: str, columns: Mapping[str, Array], held_out: str) -> None:
    """One panel: a quantity over the epochs, for training rows and, if present, held-out rows and its target."""
    axes.set_title(name.replace("_", " ").capitalize())
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    shown = np.empty(0)
    lines = {name: ("training", DATA), f"held_out_{name}": (held_out, MODEL), f"target_{name}": ("target", INK)}
    for column, (label, color) in lines.items():
        values = columns.get(column, np.empty(0))
        finite = np.abs(values) < 1e100  # larger ones do not fit on an axis
        if finite.any():
            epochs = columns.get("epoch", np.arange(1, len(values) + 1))[finite]
            marker, line = "o" if finite.sum() <= 15 else "", "-"
            if label == "target":
                marker, line = "", "--"
            axes.plot(epochs, values[finite], line, marker=marker, color=color, lw=1.8, ms=4, label=label)
            shown = np.append(shown, values[finite])
    if not len(shown):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, color=MUTED, ha="center")
    elif shown.min() > 0 and shown.max() > 50 * np.median(shown):
        log_axis(axes, axes.yaxis)
    elif shown.min() < 0 < shown.max():
        axes.axhline(0, color=MUTED, lw=0.8, zorder=0.5)


@styled
def rate_per_latent(rates: Array, active: Array) -> Figure:
    """Draw the rate of every latent in nats, largest first, with inactive latents in grey."""
    order = np.argsort(-rates)
    on = active[order].astype(bool)
    figure = new_figure(250)
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


@styled
def latent_map(
    points: Array,
    labels: Array | None = None,
    axis_names: Sequence[str] = ("", ""),
    label_name: str = "label",
) -> Figure:
    """Draw finite points (n, 2), coloured by their label.

    More than ten distinct numbers get a colour bar; otherwise, the ten most frequent labels get a hue each.
    """
    finite = np.isfinite(points).all(axis=1)
    points, labels = points[finite], None if labels is None else np.asarray(labels)[finite]
    figure = new_figure(540)
    axes = figure.add_subplot(aspect="equal", adjustable="datalim")
    axes.set(xlabel=short(axis_names[0], 60), ylabel=short(axis_names[1], 60))
    if labels is None:
        points_on(axes, points, color=DATA)
    elif _is_scale(labels):
        _coloured_by_scale(axes, points, np.array(labels, dtype=float), label_name)
    else:
        _coloured_by_category(axes, points, np.array([str(label) for label in labels]), label_name)
    return figure


def _is_scale(labels: Array) -> bool:
    """Whether labels need a continuous scale: numbers with more distinct values than there are hues."""
    numbers = [float(label) for label in labels if isinstance(label, Real)]
    return len(numbers) == len(labels) and len(np.unique(only_finite(np.array(numbers)))) > len(HUES)


def _coloured_by_scale(axes: Axes, points: Array, scale: Array, name: str) -> None:
    """Points coloured by a number, grey if it is not finite; all colours are visible on white and on near black."""
    finite = np.isfinite(scale)
    points_on(axes, points[~finite], color=LINE)
    colors = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.2, 0.92, 256)))
    drawn = points_on(axes, points[finite], c=scale[finite], cmap=colors)
    bar = axes.figure.colorbar(drawn, shrink=0.6, aspect=28, pad=0.02)
    bar.set_label(short(name, 40))
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set(alpha=1, rasterized=True)


def _coloured_by_category(axes: Axes, points: Array, labels: Array, name: str) -> None:
    """Points coloured by category, with a legend, and short names written at the categories' centres."""
    distinct, counts = np.unique(labels, return_counts=True)
    frequent = distinct[np.argsort(-counts, kind="stable")[: len(HUES)]]
    kept = sorted(frequent, key=lambda label: (label.isdecimal() * len(label), label))  # 2 comes before 10
    hue = dict(zip(kept, HUES, strict=False))
    order = np.random.default_rng(0).permutation(len(points))  # so that no category hides another
    points_on(axes, points[order], color=[hue.get(label, LINE) for label in labels[order]])
    for label in kept if max(map(len, kept), default=0) <= 3 else []:
        box = {"boxstyle": "round,pad=0.25", "facecolor": PAPER, "edgecolor": hue[label], "alpha": 0.9}
        x, y = np.median(points[labels == label], axis=0)
        axes.text(x, y, short(label), bbox=box, ha="center", va="center")
    others = [f"{len(distinct) - len(kept):,} others"] * (len(distinct) > len(kept))
    texts, colors = [short(label) for label in kept] + others, [*hue.values(), LINE]
    dots = [axes.plot([], [], "o", ms=7, mew=0, color=color)[0] for color in colors[: len(texts)]]
    axes.figure.legend(dots, texts, title=short(name), loc="outside right center", alignment="left")


@styled
def rate_distortion(curves: Mapping[str, Curve], picked: Mapping[str, float] | None = None) -> Figure:
    """Draw distortion over rate, labelled with beta, and the ELBO at beta = 1 and the active units over beta.

    ``curves`` has one or more curves by name, the most important first. ``picked`` names betas that are marked on the
    first one. Bars are one standard error over rows, if it is large enough to be visible.
    """
    figure = new_figure(400)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1))
    axes = [figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1])]
    units = {"xlabel": "rate (nats per row)", "ylabel": "distortion (nats per row)"}
    axes[0].set(title="Distortion over rate, beta beside it", **units)
    axes[1].set_title("ELBO at beta = 1 (nats per row)")
    axes[2].set(title="Active latents", xlabel="beta")
    for i, (name, curve) in enumerate(curves.items()):
        color = COLORS[i % len(COLORS)]
        _trade_off(axes[0], curve, name if len(curves) > 1 else "", color)
        _over_beta(axes[1], curve, curve.elbo, np.array(curve.columns()["elbo_error"]), color)
        _over_beta(axes[2], curve, curve.active, np.zeros(len(curve.betas)), color)
    axes[2].yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    most = max((curve.active.max() for curve in curves.values()), default=1)
    axes[2].set_ylim(-0.08 * max(most, 1), 1.12 * max(most, 1))
    axes[0].grid()
    axes[0].margins(0.08)
    written: list[Array] = []
    for i, curve in enumerate(curves.values()):
        _write_betas(axes[0], curve, COLORS[i % len(COLORS)], written)
    if curves and picked:
        _mark(axes, next(iter(curves.values())), picked)
    if axes[0].get_legend_handles_labels()[1]:
        axes[0].legend(loc="upper right")
    return figure


def _trade_off(axes: Axes, curve: Curve, name: str, color: str) -> None:
    """One curve, with standard errors."""
    columns = curve.columns()
    axes.plot(curve.rate, curve.distortion, "o-", color=color, lw=1.8, ms=5, label=short(name, 30) or "_")
    errors = (columns["distortion_error"], columns["rate_error"])
    axes.errorbar(curve.rate, curve.distortion, *errors, fmt="none", ecolor=color, elinewidth=5, alpha=0.25)


def _over_beta(axes: Axes, curve: Curve, values: Array, errors: Array, color: str) -> None:
    """A quantity over beta, in a band of its standard error."""
    axes.fill_between(curve.betas, values - errors, values + errors, color=color, alpha=0.2, linewidth=0)
    axes.plot(curve.betas, values, "o-", color=color, lw=1.8, ms=4)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    log_axis(axes, axes.xaxis)


def _write_betas(axes: Axes, curve: Curve, color: str, written: list[Array]) -> None:
    """Label points of a curve with beta, as far as there is room: first the ends, then the decades, then others."""
    corners = axes.dataLim.get_points()
    spread = np.where(np.ptp(corners, axis=0) > 0, np.ptp(corners, axis=0), 1.0)
    places = np.stack([curve.rate, curve.distortion], 1)
    with np.errstate(divide="ignore"):
        decade = np.abs(np.log10(curve.betas) % 1) < 1e-6
    end = np.isin(np.arange(len(places)), (0, len(places) - 1))
    for i in np.lexsort((~decade, ~end)):
        near = any((np.abs(places[i] - other) < np.array([0.12, 0.05]) * spread).all() for other in written)
        if np.isfinite(places[i]).all() and not near:
            written.append(places[i])
            axes.annotate(f"{curve.betas[i]:.2g}", places[i].tolist(), (6, 3), textcoords="offset points", color=color)


def _mark(panels: Sequence[Axes], curve: Curve, picked: Mapping[str, float]) -> None:
    """Markers for named betas, in all panels; equal betas share one."""
    names: dict[float, list[str]] = {}
    for name, beta in picked.items():
        if curve.betas[0] * (1 - 1e-9) <= beta <= curve.betas[-1] * (1 + 1e-9):
            same = next((other for other in names if np.isclose(beta, other, rtol=1e-6)), beta)
            names.setdefault(same, []).append(short(name, 30))
    with np.errstate(divide="ignore"):
        order = np.log(curve.betas)
    for (beta, called), sign in zip(names.items(), MARKS, strict=False):
        style: dict[str, Any] = {"marker": sign, "ms": 11, "mec": INK, "mew": 1.6, "mfc": "none", "ls": "none"}
        over_beta = (curve.rate, curve.distortion, curve.elbo, curve.active)
        rate, distortion, elbo, active = (float(np.interp(np.log(beta), order, values)) for values in over_beta)
        panels[0].plot(rate, distortion, label=f"{', '.join(called)}: beta = {beta:.3g}", zorder=5, **style)
        panels[1].plot(beta, elbo, zorder=5, **style)
        panels[2].plot(beta, active, zorder=5, **style)
