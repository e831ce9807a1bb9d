"""Arrays of images: the position of the channels, and the values of black and white."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from elbowroom.data import validation
from elbowroom.errors import DataError, warn

Layout = Literal["channels_first", "channels_last"]
Pixels = Literal["binary", "whole", "real"]

FEW_CHANNELS = 4
FEW_LEVELS = 16  # integer pixels up to this are levels up to the largest; above it, they are 8-bit
FEW_REAL = 64  # real pixels up to this have the largest as white; above it, white is 255 or more
AT_ONCE = 2**22  # pixels per pass

# ---- where the channels are ------------------------------------------------------------------------------------------


def layout_of(shape: tuple[int, ...], asked: str = "auto") -> Layout:
    """The layout of images (n, height, width), (n, height, width, c) or (n, c, height, width).

    The channels are the first or last axis if it has size 1 to 4 and the other one is larger, or if the other two are
    equal.

    Raises
    ------
    DataError
        If both the first and the last axis may be the channels.
    """
    if asked != "auto" or len(shape) == 3:
        return "channels_first" if asked == "channels_first" else "channels_last"
    _, a, b, c = shape
    first = a <= FEW_CHANNELS < c or a != b == c
    last = c <= FEW_CHANNELS < a or a == b != c
    if first == last:
        raise DataError(
            "it must be clear which axis of images has the channels",
            f"the shape {shape} may be {c} channels of {a} x {b} or {a} channels of {b} x {c}",
            "Choose layout='channels_last' or layout='channels_first'.",
        )
    if last:
        return "channels_last"
    message = f"X of shape {shape} is read as {a} channels of {b} x {c}; layout='channels_first' confirms that"
    warn(message, 6)
    return "channels_first"


def channels_last(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Images of any layout as (n, h, w) or (n, h, w, c); a view."""
    return np.moveaxis(x, 1, -1) if layout == "channels_first" and x.ndim == 4 else x


def as_given(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, c) in the given layout; a view."""
    return np.moveaxis(x, -1, 1) if layout == "channels_first" and x.ndim == 4 else x


def check_shape(x: np.ndarray, shape: tuple[int, ...], layout: Layout) -> None:
    """Raise unless images have the shape and layout of those in fit; `shape` is that of one, with channels last."""
    wanted = (shape[-1], *shape[:-1]) if layout == "channels_first" and len(shape) == 3 else shape
    got = x.shape[1:]
    if got == wanted:
        return
    turned = {
        (*wanted[1:], wanted[0]): "Write X.transpose(0, 3, 1, 2).",
        (wanted[-1], *wanted[:-1]): "Write X.transpose(0, 2, 3, 1).",
    }
    fixes = {(1, *wanted): "Write X[:, 0].", (*wanted, 1): "Write X[..., 0]."}
    if len(wanted) == 3:
        fixes = {wanted[1:]: "Write X[:, None]."} if wanted[0] == 1 else {}
        fixes |= {wanted[:-1]: "Write X[..., None]."} if wanted[-1] == 1 else {}
        fixes |= turned
    expected = f"images must have the shape {wanted} that the model was fitted on"
    raise DataError(expected, f"theirs is {got}", fixes.get(got, "Resize or crop them."))


# ---- which values are black and white --------------------------------------------------------------------------------


def pixel_range(low: float, high: float, whole: bool) -> tuple[float, float]:
    """The values of black and white of images with pixels from `low` to `high`.

    Black is 0; white is 1, the largest of few levels, or 255. With negative pixels they are -1 and 1, or `low` and
    `high`.
    """
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, max(high, 0.0))
    if high <= 1:
        return 0.0, 1.0
    return 0.0, high if high <= (FEW_LEVELS if whole else FEW_REAL) else max(255.0, high)


def pixels_of(x: np.ndarray) -> tuple[Pixels, tuple[float, float]]:
    """The kind of the pixels in fit (black and white only, integers, or real numbers), and black and white."""
    low, high = float(x.min()), float(x.max())
    whole = x.dtype.kind != "f" or all((part == np.rint(part)).all() for part in _parts(x))
    black, white = pixel_range(low, high, whole)
    extremes = (low, high) == (black, white)
    if extremes and all(((part == black) | (part == white)).all() for part in _parts(x)):
        return "binary", (black, white)
    return "whole" if whole else "real", (black, white)


def check_scale(x: np.ndarray, kind: Pixels, pixels: tuple[float, float]) -> None:
    """Raise if pixels are clearly on another scale than in fit.

    These are pixels other than black and white, if there were no others in fit; pixels beyond the scale by more than
    half of it; and, if white is larger than 1, intensities from 0 to 1.
    """
    (black, white), low, high = pixels, float(x.min()), float(x.max())
    half, expected = (white - black) / 2, f"pixels must be on the scale of the fit, from {black:g} to {white:g}"
    if kind == "binary":
        expected, broken = f"every pixel must be {black:g} or {white:g}, as in the fit", (x != black) & (x != white)
    elif white in (1, 255) and (low < black - half or high > white + half):
        broken = (x < black) | (x > white)
    elif low >= -1 and high <= 1 < white and (kind == "whole" or white >= 255):
        broken = _intensities(x, white)
    else:
        return
    if broken.any():
        count, place, value = validation.first_of(x, broken)
        shown = value if x.dtype.kind == "b" else f"{value:g}"
        got = f"{place} is {shown}{f', and {count - 1:,} more are not' if count > 1 else ''}"
        raise DataError(expected, got, _rescaled(low, high, kind, pixels))


def _rescaled(low: float, high: float, kind: Pixels, pixels: tuple[float, float]) -> str:
    """The advice for images on another scale."""
    (black, white), theirs = pixels, pixel_range(low, high, True)[1]
    if low >= 0 == black and theirs != white and 1 in (theirs, white):
        return f"Write X * {white:g}." if theirs == 1 else f"Write X / {theirs:g}."
    if kind == "binary":
        return "Fit with binarize='threshold', which makes all pixels 0 or 1."
    return "Rescale them, or fit on images like them."


def _intensities(x: np.ndarray, white: float) -> np.ndarray:
    """Where pixels of at most 1 show that 1 is their white: booleans, fractions, or 1 instead of 255."""
    if x.dtype == np.uint8:  # whose white is 255
        return np.zeros(x.shape, bool)
    return x if x.dtype.kind == "b" else (x != np.rint(x)) | ((x == 1) & (white >= 255))


def _parts(x: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, AT_ONCE // max(1, x[0].size))
    return (x[start : start + step] for start in range(0, len(x), step))


# ---- drawing --------------------------------------------------------------------------------------------------------


def drawable(x: Any, layout: Layout, pixels: tuple[float, float]) -> np.ndarray:
    """Images for a page: (n, h, w) or (n, h, w, 3) with values in [0, 1].

    The colours of 2, 4 or more channels are unknown: each is a grey panel, side by side.
    """
    x = channels_last(np.asarray(validation.as_array(x)), layout)
    x = np.clip((x.astype(np.float64) - pixels[0]) / (pixels[1] - pixels[0]), 0, 1)
    return x if x.ndim == 3 or x.shape[-1] == 3 else np.concatenate(np.moveaxis(x, -1, 0), axis=-1)
