"""likelihood="auto": inspect the data, choose a likelihood, and give the reason."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from elbowroom.data.dataset import Rows
from elbowroom.data.images import FEW_LEVELS
from elbowroom.distributions.counts import MAX_COUNT
from elbowroom.errors import ParameterError, unknown
from elbowroom.likelihoods.base import Likelihood
from elbowroom.likelihoods.custom import custom_likelihood
from elbowroom.likelihoods.discrete import Ordinal
from elbowroom.likelihoods.mixed import Mixed, Table
from elbowroom.likelihoods.registry import LIKELIHOODS
from elbowroom.utils import specs
from elbowroom.utils.settings import standard_defaults

MARGIN = 3  # standard errors by which the variance of counts must exceed a Poisson's
# how far a whole number may be off after computations, absolutely and relative to its size
NEAR, NEAR_SHARE = 1e-4, 1e-6


class Choice(NamedTuple):
    """A likelihood, as a text form or as text forms of groups of columns, and the reason for it."""

    likelihood: str | dict[str, list[int]]
    why: str


@dataclass(frozen=True)
class Facts:
    """Statistics from one pass over all values; masks and sums are by column, (D,).

    For counts, `by_total` sums each row's values times the row's total, and `square_total` the squares of the totals.
    `fractions` is the number of values that are not whole numbers, and `first_fraction` the first of them: row, column,
    value. `nonzero` is the number of values that are not near zero; `far` of these are not near a whole number either.
    """

    rows: int
    low: float
    high: float
    binary: Tensor
    whole: Tensor
    total: Tensor
    square: Tensor
    by_total: Tensor
    square_total: float
    fractions: int
    first_fraction: tuple[int, int, float] | None
    nonzero: int
    far: int

    @property
    def variance(self) -> Tensor:
        """Variances of the columns."""
        return (self.square / self.rows - (self.total / self.rows).square()).clamp_min(0)

    @property
    def is_binary(self) -> bool:
        """Whether all values are zeros and ones."""
        return bool(self.binary.all())

    @property
    def is_counts(self) -> bool:
        """Whether all values are whole numbers from 0."""
        return bool(self.whole.all()) and self.low >= 0

    @property
    def dispersion(self) -> tuple[float, float]:
        """Dispersion of counts around row total times column share, relative to Poisson counts, and its standard error.

        The squared deviations of all cells are divided by their expectation given the totals of rows and columns, so
        that Poisson and multinomial counts have a ratio of 1, and the standard error given. NaN where the totals
        determine all cells.
        """
        n, squares = float(self.total.sum()), float(self.total.square().sum())
        if n <= 1:
            return math.nan, math.nan
        around = float(self.square.sum() - 2 * (self.total @ self.by_total) / n) + self.square_total * squares / n**2
        expected = (n**2 - self.square_total) * (n**2 - squares) / (n**2 * (n - 1))
        if expected <= 1e-9 * n:
            return math.nan, math.nan
        return around / expected, math.sqrt(n + 2 * self.square_total * squares / n**2) / expected


def look(rows: Rows) -> Facts:
    """Read all rows once."""
    low, high = torch.inf, -torch.inf
    binary = whole = torch.ones(rows.features, dtype=torch.bool)
    total = square = by_total = torch.zeros(rows.features, dtype=torch.float64)
    square_total, fractions, first, nonzero, far = 0.0, 0, None, 0, 0
    for i, batch in enumerate(rows.in_order(rows.at_once)):
        x = batch.x.double()
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        binary = binary & ((x == 0) | (x == 1)).all(0)
        near = x.round()
        large = near != 0
        broken = x != near
        if bool(broken.any()):
            whole, fractions = whole & ~broken.any(0), fractions + int(broken.sum())
            row, column = (int(k) for k in broken.nonzero()[0])
            first = first or (rows.at_once * i + row, column, float(x[row, column]))
            off = (x - near).abs() > NEAR + NEAR_SHARE * x.abs()
            large, far = large | off, far + int(off.sum())
        nonzero += int(large.sum())
        sums = x.sum(1)
        total, square, by_total = total + x.sum(0), square + x.square().sum(0), by_total + sums @ x
        square_total += float(sums.square().sum())
    facts = (len(rows), low, high, binary, whole, total, square, by_total)
    return Facts(*facts, square_total, fractions, first, nonzero, far)


def choose_table(facts: Facts) -> Choice:
    """Bernoulli for columns of zeros and ones, Gaussian for the others."""
    if facts.is_binary:
        return Choice("bernoulli", "every value is 0 or 1")
    binary = facts.binary & (facts.variance > 0)  # a column of zeros only, beside real numbers, may be real too
    if not binary.any():
        return Choice("gaussian", "the columns are real numbers")
    yes, no = binary.nonzero()[:, 0].tolist(), (~binary).nonzero()[:, 0].tolist()
    words = "1 column holds" if len(yes) == 1 else f"{len(yes)} columns hold"
    real = "other holds" if len(no) == 1 else f"other {len(no)}"
    return Choice({"gaussian": no, "bernoulli": yes}, f"{words} only 0 and 1, the {real} real numbers")


def choose_image(facts: Facts) -> Choice:
    """Choose by the range of the pixels: binary, few levels, 8 bit, or intensities in [0, 1]."""
    if facts.is_binary:
        return Choice("bernoulli", "every pixel is 0 or 1")
    if facts.is_counts and facts.high <= FEW_LEVELS:
        return Choice(f"binomial:total={int(facts.high)}", f"pixels are whole numbers from 0 to {facts.high:g}")
    if facts.is_counts and facts.high <= 255:
        return Choice("discretized_logistic", f"pixels are 8-bit numbers (largest {facts.high:g})")
    if facts.low >= 0 and facts.high <= 1:
        return Choice("continuous_bernoulli", "pixels are intensities between 0 and 1")
    return Choice("gaussian", f"pixels are real numbers from {facts.low:g} to {facts.high:g}")


def choose_counts(facts: Facts) -> Choice:
    """Negative binomial given the row's total; Poisson where the counts are not overdispersed."""
    if not facts.is_counts:
        return Choice("gaussian", "the values are not counts (whole numbers from 0), although CountVAE is for counts")
    if facts.high > MAX_COUNT:
        return Choice("gaussian", f"counts up to {facts.high:.3g} are too large to be modelled as counts")
    if facts.is_binary:
        return Choice("bernoulli", "every value is 0 or 1")
    if len(facts.total) == 1:
        return Choice("negative_binomial:library=false", "with one column, the count is the row's total")
    ratio, error = facts.dispersion
    if math.isnan(ratio):
        return Choice("negative_binomial", "the dispersion of counts can not be estimated from one row")
    words = f"given the rows' totals (squared deviations / expected {ratio:.3g} +- {error:.2g})"
    if ratio <= 1 + MARGIN * error:
        return Choice("poisson:library=true", f"counts vary like a Poisson's {words}")
    return Choice("negative_binomial", f"counts vary more than a Poisson's {words}")


def are_broken_counts(facts: Facts) -> bool:
    """Whether values are not counts, but all, or at least half of the non-zero ones, are near whole numbers."""
    return facts.fractions > 0 and facts.low >= 0 and facts.nonzero > 0 and 2 * facts.far <= facts.nonzero


Wanted = str | Mapping[str, Sequence[Any]] | nn.Module


def choose_likelihood(
    wanted: Wanted, rows: Rows, choose: Callable[[Facts], Choice], columns: Sequence[str] | None = None
) -> tuple[nn.Module, str | dict[str, list[int]], str]:
    """The likelihood for rows: a new module, its complete text form, and why it was chosen.

    Raises
    ------
    DataError
        If the data does not fit the requested likelihood.
    """
    likelihood: nn.Module
    complete: str | dict[str, list[int]]
    why = "as asked for"
    if isinstance(wanted, str) and wanted == "auto":
        wanted, why = choose(look(rows))
    if isinstance(wanted, nn.Module):
        likelihood, complete = custom_likelihood(wanted, rows.features), type(wanted).__name__
    elif isinstance(wanted, Mapping):
        likelihood, complete = _mixed(wanted, rows, columns)
    else:
        likelihood, complete = _make(wanted, rows, None)
    check_rows(likelihood, rows, columns)
    return likelihood, complete, why


def _mixed(
    wanted: Mapping[str, Sequence[Any]], rows: Rows, columns: Sequence[str] | None
) -> tuple[Likelihood, dict[str, list[int]]]:
    """A likelihood of groups of columns, and the complete text forms of the groups' likelihoods."""
    groups = {text: column_indices(text, group, rows.features, columns) for text, group in wanted.items()}
    named = Counter(c for group in groups.values() for c in group)
    for column in range(rows.features):
        if named[column] != 1:
            name = column if columns is None else columns[column]
            raise ParameterError(
                "likelihood={...} must name every column once",
                f"column {name!r} is in {named[column] or 'none'} of the groups",
                "Put it into one of them.",
            )
    parts, complete = [], defaultdict[str, list[int]](list)
    for text, group in groups.items():
        part, form = _make(text, rows, group)
        parts.append(part)
        complete[form] += group
    return Mixed(parts, list(groups.values())), dict(complete)


def table_likelihood(cells: Mapping[str, str]) -> tuple[Table, dict[str, list[str]]]:
    """The likelihood of a table's cells, from the text form of each, and the names of the cells by text form.

    Whole numbers over ranges of different lengths share one part: the cost of a step depends on the number of parts.
    """
    forms, groups = defaultdict[str, list[str]](list), defaultdict[tuple[str, ...], list[int]](list)
    for place, (name, text) in enumerate(cells.items()):
        forms[text].append(name)
        kind, _, options = text.partition(":")
        groups[(kind,) if kind == "ordinal" and "open" in options else (kind, options)].append(place)
    texts, parts = list(cells.values()), []
    for key, places in groups.items():
        if len(key) > 1:
            parts.append(specs.make(texts[places[0]], LIKELIHOODS, "likelihood", len(places)))
        else:
            each = [specs.parse(texts[place], LIKELIHOODS, "likelihood")[1] for place in places]
            levels, floors = ([options.get(name) for options in each] for name in ("levels", "floor"))
            parts.append(Ordinal(len(places), levels, open=True, floor=floors))  # type: ignore[arg-type]
    return Table(parts, list(groups.values())), dict(forms)


@standard_defaults()
def check_rows(likelihood: nn.Module, rows: Rows, columns: Sequence[str] | None) -> None:
    """Raise `DataError` with the first cell of the rows that does not fit the likelihood."""
    if not hasattr(likelihood, "check"):
        return
    size = rows.at_once
    for i, batch in enumerate(rows.in_order(size)):
        likelihood.check(batch.x, columns, size * i)  # type: ignore[operator]


def _make(text: str, rows: Rows, columns: list[int] | None) -> tuple[Likelihood, str]:
    family = {name: kind for name, kind in LIKELIHOODS.items() if not issubclass(kind, Mixed)}
    name, options = specs.parse(text, family, "likelihood")
    batches = (batch.x if columns is None else batch.x[:, columns] for batch in rows.in_order(rows.at_once))
    options = family[name].learn_options(batches, options)
    complete = specs.text_form(name, options)
    return specs.make(complete, family, "likelihood", rows.features if columns is None else len(columns)), complete


def column_indices(text: str, group: Any, features: int, names: Sequence[str] | None) -> list[int]:
    """The positions of a group of columns that are given by name or by position."""
    if not isinstance(text, str):
        do = "Write {'gaussian': [0, 1, ...]} with positions or names."
        raise ParameterError(
            "likelihood={...} maps each likelihood to a list of columns", f"{text!r} is not a name", do
        )
    if isinstance(group, str) or not isinstance(group, Iterable) or not (columns := list(group)):
        raise ParameterError(
            "likelihood={...} maps each likelihood to a list of columns",
            f"{text!r} has {group!r}",
            f"Write {{{text!r}: [0, 1, ...]}} with positions or names.",
        )
    return [column_index(column, features, names) for column in columns]


def column_index(column: Any, features: int, names: Sequence[str] | None) -> int:
    """The position of a column that is given by name or by position."""
    if isinstance(column, str):
        if names is None:
            raise ParameterError(
                "likelihood={...} names columns as X does",
                f"the columns of X have no names, so there is no {column!r}",
                "Give positions, or pass a data frame.",
            )
        if column not in names:
            raise unknown("a column of likelihood={...}", column, names)
        return list(names).index(column)
    if not isinstance(column, int | np.integer) or isinstance(column, bool) or not 0 <= column < features:
        raise ParameterError(
            f"a column of likelihood={{...}} must be from 0 to {features - 1}",
            f"it is {column!r}",
            "Give positions that X has.",
        )
    return int(column)
