"""What an array of images is: where its channels are, and which values are black and white."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from elbowroom.data import validation
from elbowroom.errors import DataError, warn

Layout = Literal["channels_first", "channels_last"]
Pixels = Literal["binary", "whole", "real"]

FEW_CHANNELS = 4
FEW_LEVELS = 16  # whole pixels up to this are counts up to the largest; those above are 8-bit
FEW_REAL = 64  # real pixels up to this have the largest as white; above that it is 255 or more
AT_ONCE = 2**22  # pixels that are looked at at once

# ---- where the channels are ------------------------------------------------------------------------------------------


def layout_of(shape: tuple[int, ...], asked: str = "auto") -> Layout:
    """Where the channels of images (n, height, width), (n, height, width, c) or (n, c, height, width) are.

    They are the axis of 1 to 4 where the other end has more, or the one that differs from two equal sides.

    Raises
    ------
    DataError
        If both ends may be the channels.
    """
    if asked != "auto" or len(shape) == 3:
        return "channels_first" if asked == "channels_first" else "channels_last"
    _, a, b, c = shape
    first = a <= FEW_CHANNELS < c or a != b == c
    last = c <= FEW_CHANNELS < a or a == b != c
    if first == last:
        raise DataError(
            "it must be plain which axis of images has the channels",
            f"the shape {shape} can be {c} channels of {a} x {b} or {a} channels of {b} x {c}",
            "Choose layout='channels_last' or layout='channels_first'.",
        )
    if last:
        return "channels_last"
    message = f"X of shape {shape} is read as {a} channels of {b} x {c}; layout='channels_first' confirms that"
    warn(message, 6)
    return "channels_first"


def channels_last(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, c), whatever their layout; a view."""
    return np.moveaxis(x, 1, -1) if layout == "channels_first" and x.ndim == 4 else x


def as_given(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, c) in a layout; a view."""
    return np.moveaxis(x, -1, 1) if layout == "channels_first" and x.ndim == 4 else x


def check_shape(x: np.ndarray, shape: tuple[int, ...], layout: Layout) -> None:
    """Refuse images of another shape or layout than those of a fit, whose own, with channels last, is `shape`."""
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
    """Black and white of images whose pixels go from `low` to `high`.

    White is 1, a number of few levels, or 255; black is 0. Images with negative pixels go from -1 to 1, or as they do.
    """
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, max(high, 0.0))
    if high <= 1:
        return 0.0, 1.0
    return 0.0, high if high <= (FEW_LEVELS if whole else FEW_REAL) else max(255.0, high)


def pixels_of(x: np.ndarray) -> tuple[Pixels, tuple[float, float]]:
    """What the pixels of a fit are (nothing but black and white, whole numbers, or real ones), and black and white."""
    low, high = float(x.min()), float(x.max())
    whole = x.dtype.kind != "f" or all((part == np.rint(part)).all() for part in _parts(x))
    black, white = pixel_range(low, high, whole)
    extremes = (low, high) == (black, white)
    if extremes and all(((part == black) | (part == white)).all() for part in _parts(x)):
        return "binary", (black, white)
    return "whole" if whole else "real", (black, white)


def check_scale(x: np.ndarray, kind: Pixels, pixels: tuple[float, float]) -> None:
    """Refuse images whose pixels are plainly on another scale than those of a fit.

    That are pixels between black and white, where there was nothing else; pixels that reach beyond the scale by more
    than half of it; and, where white is a larger number than 1, intensities from 0 to 1.
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
    """What to do about images on another scale."""
    (black, white), theirs = pixels, pixel_range(low, high, True)[1]
    if low >= 0 == black and theirs != white and 1 in (theirs, white):
        return f"Write X * {white:g}." if theirs == 1 else f"Write X / {theirs:g}."
    if kind == "binary":
        return "Fit with binarize='threshold', which makes all pixels 0 or 1."
    return "Rescale them, or fit on images like them."


def _intensities(x: np.ndarray, white: float) -> np.ndarray:
    """Where pixels of at most 1 show that 1 is their white: truths, fractions, or 1 instead of 255."""
    if x.dtype == np.uint8:  # whose white is 255
        return np.zeros(x.shape, bool)
    return x if x.dtype.kind == "b" else (x != np.rint(x)) | ((x == 1) & (white >= 255))


def _parts(x: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, AT_ONCE // max(1, x[0].size))
    return (x[start : start + step] for start in range(0, len(x), step))


# ---- to look at ------------------------------------------------------------------------------------------------------


def drawable(x: Any, layout: Layout, pixels: tuple[float, float]) -> np.ndarray:
    """Images as a page shows them: (n, h, w) or (n, h, w, 3) with values 0..1.

    Of 2, 4 or more channels nobody knows the colours: each is a grey panel, one beside the other.
    """
    x = channels_last(np.asarray(validation.as_array(x)), layout)
    x = np.clip((x.astype(np.float64) - pixels[0]) / (pixels[1] - pixels[0]), 0, 1)
    return x if x.ndim == 3 or x.shape[-1] == 3 else np.concatenate(np.moveaxis(x, -1, 0), axis=-1)
