"""The quality of a synthetic table compared with the real one: marginals, pairs, rare categories, privacy, utility.

Scores are between 0 and 1, and 1 is best, unless stated otherwise. The definitions are those of the literature: the
complement of the Kolmogorov-Smirnov statistic and of the total variation distance, similarity of correlations and of
contingency tables (as in SDMetrics), distance to the closest record, train on synthetic and test on real (Esteban
2017), and the AUC of a classifier that distinguishes the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Self

import numpy as np
from scipy.stats import ks_2samp

from elbowroom.data import frames
from elbowroom.data.frames import YEAR, Series
from elbowroom.data.tables.kinds import EXACT
from elbowroom.data.tables.schema import missing_mask, read
from elbowroom.errors import DataError, ParameterError

BINS = 10  # bins of numbers, when compared with categories
RARE = 0.05  # categories with a smaller share are rare
FEW_VALUES = 10  # columns with at most this many distinct numbers are compared as categories
FOLDS = 5  # of the cross-validation for the detection AUC
MOST_COMPARED = 2000  # rows whose nearest neighbours are searched
DETECTION_ROWS = 1000  # rows of each table that trees are trained on; the AUC grows with them


@dataclass(frozen=True)
class Column:
    """One column of both tables as numbers (n,), NaN where missing: codes of categories, or values minus an origin.

    If float64 cannot distinguish all values, `places` are ranks among the sorted values of both tables.
    """

    name: str
    real: np.ndarray
    synthetic: np.ndarray
    categories: tuple[Any, ...] | None
    origin: float = 0.0
    places: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def ordered(self) -> tuple[np.ndarray, np.ndarray]:
        """Both columns as numbers with the same order and ties as the values."""
        return self.places or (self.real, self.synthetic)

    @property
    def score(self) -> float:
        """1 minus the Kolmogorov-Smirnov statistic, or minus the total variation distance of the categories."""
        real, synthetic = map(known, self.ordered)
        if not len(real) or not len(synthetic):
            return float(len(real) == len(synthetic))
        if self.categories is None:
            return 1 - float(ks_2samp(real, synthetic).statistic)
        return 1 - variation(shares(real, len(self.categories)), shares(synthetic, len(self.categories)))

    @property
    def missing_score(self) -> float:
        """1 minus the difference between the shares of missing cells."""
        return 1 - abs(float(np.isnan(self.real).mean() - np.isnan(self.synthetic).mean()))

    def codes(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Both columns as codes of categories or quantile bins, the last for missing; and the number of codes."""
        parts = list(self.ordered)
        size = len(self.categories or ())
        if self.categories is None:
            inner = np.unique(np.quantile(known(parts[0]), np.linspace(0, 1, BINS + 1)[1:-1]))
            parts = [np.where(np.isnan(p), np.nan, np.searchsorted(inner, p, side="right")) for p in parts]
            size = len(inner) + 1
        real, synthetic = (np.where(np.isnan(part), size, part).astype(int) for part in parts)
        return real, synthetic, size + 1


def known(values: np.ndarray) -> np.ndarray:
    """The non-missing values."""
    return values[~np.isnan(values)]


def shares(codes: np.ndarray, size: int) -> np.ndarray:
    """The frequency of each code."""
    return np.bincount(codes.astype(int), minlength=size) / max(len(codes), 1)


def variation(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation distance of two distributions."""
    return min(1.0, 0.5 * float(np.abs(a - b).sum()))  # rounding may exceed 1


def columns_of(real: Any, synthetic: Any, names: tuple[str, str] = ("real", "synthetic")) -> list[Column]:
    """Align the columns of two tables.

    Raises
    ------
    DataError
        If one is not a table (`names` are for the message), or their columns or kinds differ.
    """
    ours, theirs = (_read(table, f"the {name} table") for table, name in zip((real, synthetic), names, strict=True))
    if not ours and not theirs:
        raise DataError("tables must have columns", "they have none", "Check where they come from.")
    for name in [*ours, *theirs]:
        if name not in ours or name not in theirs:
            got = f"column {name!r} is in only one of them"
            raise DataError("the tables must have the same columns", got, "Drop or add it.")
        _refuse_other_kinds(name, (ours[name], theirs[name]), names)
    return [_column(name, (ours[name], theirs[name])) for name in ours]


def _read(table: Any, what: str) -> dict[str, Series]:
    """The columns of a table, with times in nanoseconds."""
    columns = read(table, what)
    times = [name for name, column in columns.items() if column.sort == "time"]
    native = frames.columns_of(table) if times else {}
    return columns | {n: columns[n]._replace(values=frames.nanoseconds_of(native[n], columns[n])) for n in times}


def _refuse_other_kinds(name: str, both: Sequence[Series], tables: Sequence[str]) -> None:
    """Raise if a column is text in one table and numbers or times in the other: no values would be equal."""
    kinds = [_kind(series) for series in both]
    if all(kinds) and kinds[0] != kinds[1]:
        got = f"column {name!r} holds {kinds[0]} in the {tables[0]} table and {kinds[1]} in the {tables[1]} one"
        raise DataError("a column must be of one kind in both tables", got, "Turn one into the other.")


def _kind(series: Series) -> str:
    """What a column holds, in words; empty if all is missing, or for categories that may be numbers."""
    values = series.values[~missing_mask(series.values)]
    if series.sort == "time" or not len(values):
        return "times" if len(values) else ""
    return "text" if isinstance(values[0], str) else "numbers"


def _column(name: str, both: Sequence[Series]) -> Column:
    real, synthetic = parts = [series.values for series in both]
    text, time = ("text" in (s.sort for s in both)), ("time" in (s.sort for s in both))
    values = [part[~missing_mask(part)] for part in parts]
    if text or len(np.unique(values[0])) <= FEW_VALUES:
        distinct = sorted({*values[0].tolist(), *values[1].tolist()}, key=lambda v: (str(type(v)) if text else "", v))
        categories = tuple(_year(value) for value in distinct) if time else tuple(distinct)
        return Column(name, _places(real, distinct), _places(synthetic, distinct), categories)
    if all(part.dtype != object for part in parts):
        return Column(name, real, synthetic, None)
    return _exact_column(name, parts, time)


def _exact_column(name: str, parts: Sequence[np.ndarray], time: bool) -> Column:
    """A column of times, in years, or of whole numbers beyond 2**53."""
    distinct = sorted({value for part in parts for value in part[~missing_mask(part)].tolist()})
    low = distinct[0] if time or distinct[-1] - distinct[0] < EXACT else 0
    unit = YEAR * 10**9 if time else 1
    known = {value: (value - low) / unit for value in distinct}
    numbers = [np.array([known.get(value, np.nan) for value in part.tolist()], dtype=float) for part in parts]
    rounded = len({*known.values()}) < len(distinct)
    places = (_places(parts[0], distinct), _places(parts[1], distinct)) if rounded else None
    return Column(name, numbers[0], numbers[1], None, _year(low) if time else float(low), places)


def _places(values: np.ndarray, known: Sequence[Any]) -> np.ndarray:
    """The positions of values in a list, NaN for others."""
    places = {value: float(place) for place, value in enumerate(known)}
    return np.array([places.get(value, np.nan) for value in values.tolist()], dtype=float)


def _year(nanoseconds: int) -> float:
    """A time as a fractional year, for plots."""
    return 1970 + nanoseconds / (YEAR * 10**9)


# ---- marginals and pairs ---------------------------------------------------------------------------------------------


def pair_score(a: Column, b: Column) -> float:
    """Similarity of association: 1 - |difference of correlations| / 2, or overlap of contingency tables."""
    if a.categories is None and b.categories is None:
        real, synthetic = correlation(a.real, b.real), correlation(a.synthetic, b.synthetic)
        return 1 - abs(real - synthetic) / 2
    (real_a, made_a, size_a), (real_b, made_b, size_b) = a.codes(), b.codes()
    size = size_a * size_b
    return 1 - variation(shares(real_a * size_b + real_b, size), shares(made_a * size_b + made_b, size))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation over rows where both are known; 0 if one is constant."""
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a / np.abs(a).max(), b / np.abs(b).max())[0, 1])  # scaled, so that squares do not overflow


def rare_categories(columns: list[Column]) -> dict[str, tuple[float, float]]:
    """Shares of rare categories in the real and the synthetic table, by "column=category"."""
    rare = {}
    for column in columns:
        if column.categories is None:
            continue
        sizes = len(column.categories)
        real, made = shares(known(column.real), sizes), shares(known(column.synthetic), sizes)
        for category, a, b in zip(column.categories, real.tolist(), made.tolist(), strict=True):
            if 0 < a < RARE:
                rare[f"{column.name}={category}"] = (a, b)
    return rare


# ---- rows ------------------------------------------------------------------------------------------------------------


def scaled(columns: list[Column]) -> tuple[np.ndarray, np.ndarray]:
    """Both tables as points for Gower's distance: ranks of numbers, indicators of categories and of missing cells."""
    real, made = [], []
    for column in columns:
        if column.categories is None:
            order = np.sort(known(column.ordered[0]))
            middle = [np.searchsorted(order, p) + np.searchsorted(order, p, side="right") for p in column.ordered]
            parts = [
                np.where(np.isnan(p), -1, m / (2 * max(len(order), 1)))[:, None]
                for p, m in zip(column.ordered, middle, strict=True)
            ]
        else:
            codes_real, codes_made, size = column.codes()
            parts = [np.eye(size)[codes] / 2 for codes in (codes_real, codes_made)]
        real.append(parts[0])
        made.append(parts[1])
    return np.hstack(real), np.hstack(made)


def nearest_ratio(columns: list[Column], seed: int = 0) -> float:
    """Mean distance of synthetic rows to the nearest real row, over that of real rows to the nearest other real row.

    About 1 if synthetic rows are as far from the real ones as these are from each other; near 0 for copies. All real
    rows are searched, so that no copy is missed; values are comparable only for equal numbers of real rows.
    """
    from sklearn.neighbors import NearestNeighbors

    real, made = scaled(columns)
    random = np.random.default_rng(seed)
    some = [p[random.permutation(len(p))[:MOST_COMPARED]] for p in (real, made)]
    search = NearestNeighbors(metric="manhattan").fit(real)
    own = search.kneighbors(some[0], 2)[0][:, 1]
    other = search.kneighbors(some[1], 1)[0][:, 0]
    return float(other.mean() / own.mean()) if own.mean() > 0 else float("nan")


def features(columns: list[Column]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both tables as input of a boosted-tree classifier, and which columns are categories."""
    few = np.array([c.categories is not None and len(c.categories) <= 255 for c in columns])
    real, synthetic = (np.column_stack(part) for part in zip(*(c.ordered for c in columns), strict=True))
    return real, synthetic, few


def detection_rows(real: int, synthetic: int) -> int:
    """The number of rows of each table that `detection_auc` uses."""
    return min(real, synthetic, DETECTION_ROWS)


def folds_of(real: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Random folds (2n,) of n real and n synthetic rows, with equal numbers of each.

    Equal rows of both tables are in one fold: otherwise trees would recognise one from the other, with a wrong label.
    """
    keys = [[row.tobytes() for row in np.where(np.isnan(part), np.nan, part) + 0.0] for part in (real, made)]
    equal: dict[bytes, list[int]] = {}
    for place, key in enumerate(keys[1]):
        equal.setdefault(key, []).append(place)
    pairs = [(place, equal[key].pop()) for place, key in enumerate(keys[0]) if equal.get(key)]
    others = [sorted({*range(len(real))} - {pair[side] for pair in pairs}) for side in (0, 1)]
    folds = np.empty((2, len(real)), int)
    for i, (a, b) in enumerate([*pairs, *zip(*others, strict=True)]):
        folds[0, a] = folds[1, b] = i % FOLDS
    return folds.ravel()


def detection_auc(columns: list[Column], seed: int = 0) -> float:
    """AUC of boosted trees that distinguish real from synthetic rows, over five folds; 0.5 is best, 1 worst.

    As trees learn more from more rows, they always get 1,000 of each table, or as many as the shorter one has if it has
    fewer (`detection_rows`). An exact copy of at most 1,000 rows has an AUC of 0.5.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    real, made, few = features(columns)
    n = detection_rows(len(real), len(made))
    random = np.random.default_rng(seed)
    x = np.vstack([p[random.permutation(len(p))[:n]] for p in (real, made)])
    y = np.repeat([0, 1], n)
    model = HistGradientBoostingClassifier(categorical_features=few, random_state=seed)
    chance = cross_val_predict(model, x, y, cv=PredefinedSplit(folds_of(x[:n], x[n:])), method="predict_proba")[:, 1]
    return float(roc_auc_score(y, chance))


def utility(train: Any, test: Any, target: str, seed: int = 0, rows: int | None = None) -> float:
    """Score on `test` of boosted trees that learned `target` from `train`: AUC for classes, R2 for numbers.

    With `rows`, they learn from that many rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import roc_auc_score

    columns = columns_of(test, train, ("test", "training"))
    names = [column.name for column in columns]
    if target not in names:
        raise ParameterError("the target must be a column", f"{target!r} is not", f"Choose among {', '.join(names)}.")
    at = names.index(target)
    x_test, x_train, few = (np.delete(part, at, -1) for part in features(columns))
    y_test, y_train = columns[at].real, columns[at].synthetic
    if rows is not None and rows < len(y_train):
        some = np.sort(np.random.default_rng(seed).permutation(len(y_train))[:rows])
        x_train, y_train = x_train[some], y_train[some]
    keep, kept = ~np.isnan(y_train), ~np.isnan(y_test)
    settings = {"categorical_features": few, "random_state": seed}
    if columns[at].categories is None:
        model = HistGradientBoostingRegressor(**settings).fit(x_train[keep], y_train[keep])
        return float(model.score(x_test[kept], y_test[kept]))
    distinct, counts = np.unique(y_train[keep], return_counts=True)
    # other classes, and those of a single row, cannot be tested
    classes = distinct[(counts > 1) & np.isin(distinct, y_test)]
    keep &= np.isin(y_train, classes)
    if len(classes) < 2:
        return 0.5
    model = HistGradientBoostingClassifier(**settings).fit(x_train[keep], y_train[keep])
    chances = np.zeros((kept.sum(), len(columns[at].categories or ())))
    chances[:, classes.astype(int)] = model.predict_proba(x_test[kept])
    present = np.unique(y_test[kept]).astype(int)
    scores = [roc_auc_score(y_test[kept] == c, chances[:, c]) for c in present if 0 < (y_test[kept] == c).mean() < 1]
    return float(np.mean(scores))


# ---- summary -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableQuality:
    """The quality of a synthetic table. `str` gives a summary; `facts` are all its numbers.

    marginals, missing, pairs : scores by column, and by pair of columns; rare : shares of rare categories, real and
    synthetic; nearest : `nearest_ratio`; auc : `detection_auc`; utility, utility_real : scores on real test rows of
    trees that learned the target from equally many rows of the synthetic and the real table, None without test rows.
    columns : both tables. rows : their numbers of rows, on which the scores depend as `remarks` explains.
    """

    marginals: Mapping[str, float]
    missing: Mapping[str, float]
    pairs: Mapping[tuple[str, str], float]
    rare: Mapping[str, tuple[float, float]]
    nearest: float
    auc: float
    utility: float | None = None
    utility_real: float | None = None
    columns: Sequence[Column] = field(default=(), repr=False)

    @classmethod
    def of(cls, real: Any, synthetic: Any, test: Any, target: str | None, seed: int) -> Self:
        """Compare both tables; see `quality`."""
        if (test is None) != (target is None):
            raise ParameterError("utility needs test rows and a target", "only one is given", "Give both or none.")
        columns = columns_of(real, synthetic)
        for name, rows in (("real", len(columns[0].real)), ("synthetic", len(columns[0].synthetic))):
            if rows < FOLDS:
                raise DataError(
                    f"tables to compare must have at least {FOLDS} rows",
                    f"the {name} one has {rows}",
                    "Use more rows of it.",
                )
        rows = min(len(columns[0].real), len(columns[0].synthetic))
        learned = [None if target is None else utility(part, test, target, seed, rows) for part in (synthetic, real)]
        marginals, missing = ({c.name: getattr(c, score) for c in columns} for score in ("score", "missing_score"))
        return cls(
            marginals,
            missing,
            {(a.name, b.name): pair_score(a, b) for a, b in combinations(columns, 2)},
            rare_categories(columns),
            nearest_ratio(columns, seed),
            detection_auc(columns, seed),
            learned[0],
            learned[1],
            columns,
        )

    @property
    def rows(self) -> tuple[int, int]:
        """The numbers of rows of the real and the synthetic table."""
        return (len(self.columns[0].real), len(self.columns[0].synthetic)) if self.columns else (0, 0)

    @property
    def remarks(self) -> dict[str, str]:
        """The rows that scores are computed from, by name of the score."""
        real, made = self.rows
        n = detection_rows(real, made)
        few = f", fewer than {DETECTION_ROWS:,}: with more rows it may be higher" if n < DETECTION_ROWS else ""
        return {
            "nearest_neighbour_ratio": f"{min(made, MOST_COMPARED):,} synthetic rows among {real:,} real ones",
            "detection_auc": f"{n:,} rows of each table{few}",
            "utility": f"learned from {min(real, made):,} rows",
            "utility_of_real": f"learned from {min(real, made):,} rows",
        }

    @property
    def facts(self) -> dict[str, float]:
        """All numbers by name."""
        real, made = self.rows
        facts: dict[str, float] = {
            "real_rows": real,
            "synthetic_rows": made,
            "marginals": float(np.mean(list(self.marginals.values()))),
            "missing": float(np.mean(list(self.missing.values()))),
            "pairs": float(np.mean(list(self.pairs.values()))) if self.pairs else 1.0,
            "rare_categories": float(len(self.rare)),
            "rare_categories_lost": float(sum(made == 0 for _, made in self.rare.values())),
            "nearest_neighbour_ratio": self.nearest,
            "detection_auc": self.auc,
            "detection_rows": detection_rows(real, made),
        }
        if self.utility is not None and self.utility_real is not None:
            facts |= {"utility": self.utility, "utility_of_real": self.utility_real}
            facts["utility_rows"] = min(real, made)
        return facts

    def __str__(self) -> str:
        lines = []
        for name, value in self.facts.items():
            remark = f"  ({self.remarks[name]})" if name in self.remarks else ""
            number = f"{value:8,.0f}" if name.endswith("_rows") else f"{value:8.4g}"
            lines.append(f"{name.replace('_', ' '):<24} {number}{remark}")
        return "\n".join(lines)
