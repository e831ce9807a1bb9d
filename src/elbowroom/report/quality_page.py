"""The page about a synthetic table: its numbers, both tables side by side, and what is least alike."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elbowroom.data.dataset import evenly
from elbowroom.data.io.writers import check_file_place
from elbowroom.report.page import Listing, Number, Report
from elbowroom.tasks.quality import TableQuality

SHOWN_ROWS, SHOWN_PAIRS = 2000, 10
EASY, COPIES = 0.75, 0.5  # above this AUC tables are told apart, below this ratio rows are copies
MEANINGS = {
    "marginals": "how alike columns are, one by one: 1 − Kolmogorov-Smirnov's statistic, or − the total variation",
    "pairs": "how alike they go together: correlations, or tables of counts",
    "missing": "how alike the shares of missing cells are",
    "detection_auc": "of trees that are to tell real from synthetic rows: 0.5 is best, 1 worst",
    "nearest_neighbour_ratio": "distance to the nearest real row, over that between real rows: near 0 for copies",
    "utility": "of trees that learned the target from synthetic rows, on real ones",
    "utility_of_real": "the same, learned from real rows",
}


@dataclass(frozen=True)
class Quality(TableQuality):
    """How good a synthetic table is, with a page about it."""

    def report(self, path: str | os.PathLike[str] = "quality.html") -> Path:
        """Write one self-contained HTML page with pictures of both tables."""
        check_file_place(Path(path))
        page(self).write(path)
        return Path(path)


def quality(real: Any, synthetic: Any, test: Any = None, target: str | None = None, seed: int = 0) -> Quality:
    """Compare a synthetic table with the real one that it was made from.

    Parameters
    ----------
    real, synthetic : data frames with the same columns, or arrays of numbers (n, D)
    test : data frame, optional
        Real rows that no model was trained on, to test trees that learned `target`.
    target : str, optional
        The column that is learned.

    Raises
    ------
    DataError
        If one is no table, the tables do not have the same columns, or one has fewer than five rows.
    """
    return Quality.of(real, synthetic, test, target, seed)


def page(found: TableQuality) -> Report:
    """The page about a comparison."""
    facts, words = found.facts, concerns(found)
    real, made = (_rows(found.columns, side) for side in ("real", "synthetic"))
    return Report(
        title="Quality of a synthetic table",
        facts={"real rows": f"{found.rows[0]:,}", "synthetic rows": f"{found.rows[1]:,}"},
        numbers=[
            Number(name.replace("_", " "), facts[name], unit="", meaning="; ".join([meaning, *_remark(found, name)]))
            for name, meaning in MEANINGS.items()
            if name in facts
        ],
        headline="Nothing stands out." if not words else "Something stands out.",
        verdict=" ".join(words) or "The tables are hard to tell apart, and the synthetic rows are no copies.",
        healthy=not words,
        history={},
        rate_per_latent=np.empty(0),
        active=np.empty(0),
        originals=real,
        reconstructions=np.empty((0, real.shape[1])),
        samples=made,
        columns=[column.name for column in found.columns],
        made_name="synthetic",
        listings=_listings(found),
    )


def _remark(found: Any, name: str) -> list[str]:
    return [found.remarks[name]] if name in found.remarks else []


def concerns(found: Any) -> list[str]:
    """What somebody who is to use the synthetic table should know, in sentences."""
    words = []
    if found.auc > EASY:
        words.append(f"Trees tell the tables apart (AUC {found.auc:.2f}).")
    if math.isnan(found.nearest):
        words.append("Whether rows are copies is not known, as real rows repeat each other.")
    if found.nearest < COPIES:
        words.append(f"Synthetic rows are near copies of real ones (ratio of distances {found.nearest:.2f}).")
    if lost := [name for name, (_, made) in found.rare.items() if made == 0]:
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        words.append(f"Rare categories are lost: {', '.join(lost[:5])}{more}.")
    if found.utility is not None and found.utility_real is not None and found.utility < found.utility_real - 0.05:
        words.append(
            f"Trees learn less of the target from it ({found.utility:.2f} instead of {found.utility_real:.2f})."
        )
    return words


def _listings(found: Any) -> list[Listing]:
    columns = sorted(found.marginals.items(), key=lambda item: item[1])
    pairs = sorted(found.pairs.items(), key=lambda item: item[1])[:SHOWN_PAIRS]
    remark = "The least alike first; 1 is best."
    listings = [
        Listing(
            "Columns",
            remark,
            ("column", "values", "missing cells"),
            [(name, f"{score:.3f}", f"{found.missing[name]:.3f}") for name, score in columns],
        ),
        Listing("Pairs", remark, ("columns", "together"), [(f"{a}, {b}", f"{score:.3f}") for (a, b), score in pairs]),
        Listing(
            "Rare categories",
            "Their shares in both tables.",
            ("category", "real", "synthetic"),
            [(name, f"{real:.2%}", f"{made:.2%}") for name, (real, made) in found.rare.items()],
        ),
    ]
    return [listing for listing in listings if listing.rows]


def _rows(columns: Any, side: str) -> np.ndarray:
    """Some rows of one of the tables (n, columns), with the names of categories."""
    return np.column_stack([_values(column, getattr(column, side)) for column in columns])


def _values(column: Any, values: np.ndarray) -> np.ndarray:
    values = values[evenly(len(values), SHOWN_ROWS).numpy()]
    if column.categories is None or not any(isinstance(category, str) for category in column.categories):
        numbers = column.origin + values if column.categories is None else _named(column, values, np.nan)
        return numbers.astype(object)
    return _named(column, values, "(missing)")


def _named(column: Any, values: np.ndarray, missing: Any) -> np.ndarray:
    names = np.array([*(column.categories or ()), missing], dtype=object)
    return names[np.where(np.isnan(values), len(names) - 1, values).astype(int)]
