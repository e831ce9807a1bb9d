"""What the tutorials share: their two options, the style of their figures, and a copy of what they print.

Every tutorial writes into the folder of `--out` its pictures, NAME-*.png, and NAME.txt with the printed numbers. The
pages show both from docs/tutorials/images.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

INK, GREY, LIGHT = "#1d2733", "#667180", "#d6dbe1"
BLUE, ORANGE, GREEN, YELLOW = (
    "#1f6fb2",
    "#d9660f",
    "#12835f",
    "#d4a80a",
)  # data is blue, and a model's is orange
MOST_BYTES = 60_000  # of a picture

mpl.rcParams.update(
    {
        "savefig.dpi": 120,
        "font.size": 10,
        "text.color": INK,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.edgecolor": LIGHT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": LIGHT,
        "grid.linewidth": 0.7,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "legend.frameon": False,
    }
)


class Tutorial:
    """A run of one: its options, its lines and its pictures."""

    def __init__(self, name: str) -> None:
        parser = argparse.ArgumentParser(
            description=f"The tutorial {name}: its pictures and its numbers."
        )
        parser.add_argument(
            "--out",
            type=Path,
            default=Path("build/tutorials"),
            help="folder for pictures and numbers",
        )
        parser.add_argument(
            "--quick",
            action="store_true",
            help="train for a moment, to see that everything runs",
        )
        options = parser.parse_args()
        self.name, self.out, self.quick = name, options.out, options.quick
        self.lines: list[str] = []
        self.out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(
            1
        )  # these networks are small, and the same number of threads gives the same bits

    def say(self, text: object) -> None:
        """Print, and keep in NAME.txt."""
        print(text, flush=True)
        self.lines += [line.rstrip() for line in str(text).split("\n")]
        (self.out / f"{self.name}.txt").write_text("\n".join(self.lines) + "\n")

    def save(self, figure: Figure, what: str) -> None:
        """Write a figure to NAME-WHAT.png, with a palette of 64 colours so that the file is small."""
        from PIL import Image

        path = self.out / f"{self.name}-{what}.png"
        figure.savefig(path, facecolor="white")
        with Image.open(path) as image:
            small = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(
                f"{path} should have at most {MOST_BYTES:,} bytes, but has {path.stat().st_size:,}"
            )


def figure_of(
    width: float, height: float, columns: int = 1, rows: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure in inches with an array of axes, of one axis where there is one row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes[0] if rows == 1 else axes


def mosaic(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images (n, h, w) side by side in rows of `columns`, as one image; NaN between them."""
    n, height, width = images.shape
    rows = -(-n // columns)
    page = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        page[top : top + height, left : left + width] = image
    return page


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of text, the first one to the left and the others to the right."""
    texts = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            t.ljust(w) if i == 0 else t.rjust(w)
            for i, (t, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    )
