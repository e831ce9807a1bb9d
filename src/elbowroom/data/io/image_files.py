"""Pictures: a folder of image files as an array, and arrays as image files."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elbowroom.data.streams import refused, regular, whole
from elbowroom.errors import DataError, missing, warn

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # Pillow has more; one of them runs Ghostscript
GRID, TILE, GAP = 400, 32, 2  # a grid shows at most GRID images, enlarged to TILE pixels or more, GAP pixels apart


def pillow() -> Any:
    """The module PIL.Image."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing("pillow", "an image file") from error
    return Image


def read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images in a folder and its subfolders, sorted by name, (n, h, w) or (n, h, w, 3), and their names."""
    pillow()
    paths = sorted(_image_files(folder))
    if not paths:
        raise DataError(
            "a folder given as data must hold images",
            f"{folder} has none ({', '.join(SUFFIXES)})",
            "Check the path, or name a file in it.",
        )
    images, wide = zip(*map(read_image, paths), strict=True)
    if any(wide):
        several = f", and of {sum(wide) - 1} more" if sum(wide) > 1 else ""
        message = f"colours are read with 8 bits: of 16 in {paths[wide.index(True)].name}{several} the upper 8 are kept"
        warn(message, 2)
    first = images[0]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != first.shape[:2]:
            raise DataError(
                "all images must have the same size",
                f"{path} is {_size(image)}, while {paths[0].name} is {_size(first)}",
                "Resize or crop them to one size.",
            )
    images = _of_one_scale(images, paths)
    if len({image.ndim for image in images}) > 1:  # some are grey, some coloured
        images = [image if image.ndim == 3 else np.repeat(image[..., None], 3, -1) for image in images]
    return np.stack(images), np.array([_name(path.relative_to(folder)) for path in paths])


def _image_files(folder: Path) -> Iterator[Path]:
    """The image files in a folder and its subfolders, except hidden ones.

    Links to folders, which may be circular, are not followed.
    """

    def refuse(error: OSError) -> None:
        raise refused(Path(str(error.filename)), error)

    linked = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (Path(place, n) for n in names if Path(n).suffix.lower() in SUFFIXES and not n.startswith("."))
    if linked:
        note = f"links to folders are not followed: {linked[0]}{f' and {len(linked) - 1:,} more' * (len(linked) > 1)}"
        warn(note, 2)


def _name(path: Path) -> str:
    """A path as text; bytes that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _of_one_scale(images: Sequence[np.ndarray], paths: Sequence[Path]) -> Sequence[np.ndarray]:
    """Bring images to one scale: 1-bit images among 8-bit ones get the white of 8 bits; raises for other mixtures.

    If all images have 1 bit, their pixels are zeros and ones.
    """
    first: dict[Any, Path] = {}
    for path, image in zip(paths, images, strict=True):
        first.setdefault(image.dtype, path)
    bits, bytes_ = np.dtype(bool), np.dtype(np.uint8)
    if first.keys() <= {bits, bytes_}:
        white = np.uint8(255 if bytes_ in first else 1)
        return [image.astype(np.uint8) * white if image.dtype == bits else image for image in images]
    if len(first) > 1:
        (one, one_path), (other, other_path) = list(first.items())[:2]
        raise DataError(
            "all images must have pixels on one scale",
            f"{one_path} is of {_scale(one)}, and {other_path.name} of {_scale(other)}",
            "Convert them to one kind, such as 8 bits, or leave out those of the other.",
        )
    return images


def _scale(dtype: np.dtype[Any]) -> str:
    kind = "real numbers" if dtype.kind == "f" else "1 bit" if dtype.kind == "b" else f"{8 * dtype.itemsize} bits"
    return f"{kind} a pixel"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def read_image(path: Path) -> tuple[np.ndarray, bool]:
    """Read one image, rotated upright: (h, w) if grey, else (h, w, 3), and whether its colours had more than 8 bits.

    Transparency is dropped.

    Raises
    ------
    DataError
        If the file is broken, or has several frames.
    """
    Image = pillow()
    from PIL import ImageOps

    regular(path)
    with whole(path, "an image"), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        with Image.open(path, formats=FORMATS) as file:
            _refuse_frames(path, file)
            wide = file.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in file.tile)
            image = ImageOps.exif_transpose(file)
            grey = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
            if image.mode == "LA":
                image, grey = image.convert("L"), True
            array = np.asarray(image if grey else image.convert("RGB"))
    return array.astype(array.dtype.newbyteorder("="), copy=False), wide


def _refuse_frames(path: Path, file: Any) -> None:
    """Raise for animations and several pages; photos of cameras (MPO) have previews as further frames."""
    frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format != "MPO":
        raise DataError(
            "a file must hold one image",
            f"{path} has {frames} frames",
            "Save the frames as separate files.",
        )


def png_bytes(image: np.ndarray) -> bytes:
    """One 8-bit image as a PNG file."""
    buffer = io.BytesIO()
    pillow().fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def eight_bit(images: np.ndarray, pixels: tuple[float, float]) -> np.ndarray:
    """Images as 8-bit ones, (n, h, w) or (n, h, w, 3), from the values of their black and white pixels."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3):
        raise DataError(
            "a picture has 1 or 3 channels", f"the images have {images.shape[-1]}", "Write an .npy file instead."
        )
    images = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
    black, white = pixels
    return np.rint(np.clip((images.astype(np.float64) - black) / (white - black), 0, 1) * 255).astype(np.uint8)


def grid(images: np.ndarray, count: int) -> np.ndarray:
    """One picture of the first of `count` 8-bit images, row by row."""
    if count > GRID:
        warn(f"the picture shows the first {GRID} of {count} images", 2)
        images = images[:GRID]
    times = max(1, math.ceil(TILE / min(images.shape[1:3])))
    images = images.repeat(times, axis=1).repeat(times, axis=2)
    across = math.ceil(math.sqrt(len(images)))
    down = math.ceil(len(images) / across)
    height, width = images.shape[1] + GAP, images.shape[2] + GAP
    sheet = np.full((down * height + GAP, across * width + GAP, *images.shape[3:]), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // across * height + GAP, i % across * width + GAP
        sheet[top : top + height - GAP, left : left + width - GAP] = image
    return sheet


def numbered(count: int) -> Sequence[str]:
    """Names of `count` picture files, whose alphabetical order is their order."""
    digits = len(str(count - 1))
    return [f"{i:0{digits}d}.png" for i in range(count)]
