"""The page about a synthetic table: scores, both tables side by side, and the greatest differences."""

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
EASY, COPIES = 0.75, 0.5  # above this AUC the tables are distinguishable, below this ratio rows are copies
MEANINGS = {
    "marginals": "similarity of single columns: 1 − Kolmogorov-Smirnov statistic, or 1 − total variation distance",
    "pairs": "similarity of pairs of columns: of correlations, or of contingency tables",
    "missing": "similarity of the shares of missing cells",
    "detection_auc": "of trees that distinguish real from synthetic rows: 0.5 is best, 1 worst",
    "nearest_neighbour_ratio": "distance to the nearest real row, over that between real rows: near 0 for copies",
    "utility": "of trees that learned the target from synthetic rows, on real rows",
    "utility_of_real": "the same, learned from real rows",
}


@dataclass(frozen=True)
class Quality(TableQuality):
    """The quality of a synthetic table, with an HTML report."""

    def report(self, path: str | os.PathLike[str] = "quality.html") -> Path:
        """Write one self-contained HTML page with figures of both tables."""
        check_file_place(Path(path))
        page(self).write(path)
        return Path(path)


def quality(real: Any, synthetic: Any, test: Any = None, target: str | None = None, seed: int = 0) -> Quality:
    """Compare a synthetic table with the real one.

    Parameters
    ----------
    real, synthetic : data frames with the same columns, or arrays of numbers (n, D)
    test : data frame, optional
        Real rows that no model was trained on, for testing trees that learned `target`.
    target : str, optional
        The column to predict.

    Raises
    ------
    DataError
        If one is not a table, the tables have different columns, or one has fewer than five rows.
    """
    return Quality.of(real, synthetic, test, target, seed)


def page(result: TableQuality) -> Report:
    """The page of a comparison."""
    facts, words = result.facts, concerns(result)
    real, made = (_rows(result.columns, side) for side in ("real", "synthetic"))
    return Report(
        title="Quality of a synthetic table",
        facts={"real rows": f"{result.rows[0]:,}", "synthetic rows": f"{result.rows[1]:,}"},
        numbers=[
            Number(name.replace("_", " "), facts[name], unit="", meaning="; ".join([meaning, *_remark(result, name)]))
            for name, meaning in MEANINGS.items()
            if name in facts
        ],
        headline="Nothing stands out." if not words else "Something stands out.",
        verdict=" ".join(words) or "The tables are hard to tell apart, and the synthetic rows are not copies.",
        healthy=not words,
        history={},
        rate_per_latent=np.empty(0),
        active=np.empty(0),
        originals=real,
        reconstructions=np.empty((0, real.shape[1])),
        samples=made,
        columns=[column.name for column in result.columns],
        made_name="synthetic",
        listings=_listings(result),
    )


def _remark(result: Any, name: str) -> list[str]:
    return [result.remarks[name]] if name in result.remarks else []


def concerns(result: Any) -> list[str]:
    """Warnings for users of the synthetic table, as sentences."""
    words = []
    if result.auc > EASY:
        words.append(f"Trees distinguish the tables (AUC {result.auc:.2f}).")
    if math.isnan(result.nearest):
        words.append("Whether rows are copies is unknown, as real rows are duplicates of each other.")
    if result.nearest < COPIES:
        words.append(f"Synthetic rows are near copies of real ones (ratio of distances {result.nearest:.2f}).")
    if lost := [name for name, (_, made) in result.rare.items() if made == 0]:
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        words.append(f"Rare categories are lost: {', '.join(lost[:5])}{more}.")
    if result.utility is not None and result.utility_real is not None and result.utility < result.utility_real - 0.05:
        words.append(
            f"Trees learn less of the target from it ({result.utility:.2f} instead of {result.utility_real:.2f})."
        )
    return words


def _listings(result: Any) -> list[Listing]:
    columns = sorted(result.marginals.items(), key=lambda item: item[1])
    pairs = sorted(result.pairs.items(), key=lambda item: item[1])[:SHOWN_PAIRS]
    remark = "The worst first; 1 is best."
    listings = [
        Listing(
            "Columns",
            remark,
            ("column", "values", "missing cells"),
            [(name, f"{score:.3f}", f"{result.missing[name]:.3f}") for name, score in columns],
        ),
        Listing("Pairs", remark, ("columns", "together"), [(f"{a}, {b}", f"{score:.3f}") for (a, b), score in pairs]),
        Listing(
            "Rare categories",
            "Their shares in both tables.",
            ("category", "real", "synthetic"),
            [(name, f"{real:.2%}", f"{made:.2%}") for name, (real, made) in result.rare.items()],
        ),
    ]
    return [listing for listing in listings if listing.rows]


def _rows(columns: Any, side: str) -> np.ndarray:
    """Some rows of one table (n, columns), with names of categories."""
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
