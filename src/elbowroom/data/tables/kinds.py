"""Kinds of columns: how the cells of a table become the numbers of a model, and back.

A kind turns a column into one or more *cells*, each with its own likelihood. Numbers have a cell for their value and,
if some values are frequent (a rainfall of exactly 0), a cell before it for which of these it is; the cell of the value
is then missing. Kinds are value objects with a JSON form. Parameters that are None are learned from the data.
"""

from __future__ import annotations

import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np

from elbowroom.data.values import shown_time
from elbowroom.errors import DataError, ParameterError, counted, unknown, warn

GRID = 1000  # whole numbers over a range up to this have a probability each; over a wider one, a density
FEW = 12  # with at most this many distinct numbers, each has its own probability
FREQUENT = 0.03  # share of rows from which one of many numbers has its own probability
MOST_POINT_MASSES = 20
MOST_CATEGORIES = 1000
FEW_SHOWN = 3  # point masses that are listed
MOST_SHARE = 0.25  # of categories per row, above which there is a warning
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")
COMMA = re.compile(r"[-+]?\d+,\d{1,2}")
DAY = 86_400.0
LARGEST = sys.float_info.max
EXACT = 2**53  # from here on float64 skips integers: columns of such numbers are Python ints


@dataclass(frozen=True, eq=False)
class Kind(ABC):
    """What a column holds."""

    sort: ClassVar[str] = "number"  # the `sort` of its `Series`

    @abstractmethod
    def learn(self, values: np.ndarray, name: str) -> Self:
        """The kind with parameters that are None learned from the non-missing values (n,)."""

    @abstractmethod
    def cells(self, name: str) -> dict[str, str]:
        """Names and likelihoods of the cells."""

    @abstractmethod
    def encode(self, values: np.ndarray, name: str) -> np.ndarray:
        """Cells (n, k) of values (n,); missing values are NaN.

        Raises
        ------
        DataError
            At the first value that the kind does not allow.
        """

    @abstractmethod
    def decode(self, cells: np.ndarray) -> np.ndarray:
        """Values (n,) of cells (n, k)."""

    @property
    def detail(self) -> str:
        """A short description of the learned parameters."""
        return ""

    @abstractmethod
    def check(self, value: Any, name: str, show: Callable[[Any], str] = repr) -> None:
        """Raise if the column cannot have a value; `show` formats it for the message.

        Raises
        ------
        DataError
            With the nearest values, or the known ones.
        """


@dataclass(frozen=True)
class Real(Kind):
    """Numbers.

    Parameters
    ----------
    low, high : float, int or None
        The range of the data, which limits sampled values. Whole numbers beyond 2**53 are int, and stay exact.
    step : float or None
        Values are multiples of it: 1 for whole numbers, 0.01 for cents, 0 for no step. Whole numbers over a short
        range have a probability each, all others a density.
    point_masses : tuple of float or None
        Values with their own probabilities.
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None
    point_masses: tuple[float, ...] | None = None

    likelihood: ClassVar[str] = "warped"
    lowest: ClassVar[float | None] = None  # the smallest whole number of this kind

    def learn(self, values: np.ndarray, name: str) -> Self:
        self._refuse(self._misfit(as_floats(values)), values, name)
        kind = self._ranged(values)
        kind = replace(kind, step=float(step_of(values) if self.step is None else self.step))
        point_masses = point_masses_of(values, kind.grid) if self.point_masses is None else self.point_masses
        number = int if values.dtype == object else float
        return replace(kind, point_masses=tuple(number(point_mass) for point_mass in point_masses))

    def _ranged(self, values: np.ndarray) -> Self:
        number = int if values.dtype == object else float
        low, high = (number(end) for end in (values.min(), values.max()))
        return replace(self, low=low if self.low is None else self.low, high=high if self.high is None else self.high)

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the range of a learned kind."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @property
    def grid(self) -> bool:
        """Whether every value has its own probability: whole numbers over a short range."""
        return self.step == 1 and self.ends[1] - self.ends[0] <= GRID

    @property
    def exact(self) -> bool:
        """Whether values are Python ints, because float64 does not represent them."""
        ends = (self.low, self.high)
        return all(isinstance(end, int) for end in ends) and any(abs(end or 0) >= EXACT for end in ends)

    @property
    def detail(self) -> str:
        masses = self.point_masses or ()
        often = f", often {', '.join(map(self._shown, masses))}" if 0 < len(masses) <= FEW_SHOWN else ""
        return f"{self._shown(self.low)} to {self._shown(self.high)}{often}"

    def _shown(self, value: Any) -> str:
        return f"{plain(value)}" if isinstance(value, int) else f"{value:.6g}"

    @property
    def origin(self) -> float:
        """The origin of the cells, which is subtracted from the values."""
        return self.ends[0] if self.grid or self.exact else 0

    def cells(self, name: str) -> dict[str, str]:
        point_masses = {f"{name} at": f"categorical:classes={len(self.point_masses) + 1}"} if self.point_masses else {}
        if not self.grid:
            return point_masses | {name: self.likelihood}
        low, high = self.ends
        levels = max(2, int(high - low) + 1)
        floor = "" if self.lowest is None else f",floor={int(self.lowest - low)}"
        return point_masses | {name: f"ordinal:levels={levels},open=true{floor}"}

    def encode(self, values: np.ndarray, name: str) -> np.ndarray:
        numbers = as_floats(values)
        at = np.where(np.isnan(numbers), np.nan, 0.0)
        for code, point_mass in enumerate(self.point_masses or (), 1):
            at[values == point_mass] = code
        rest = np.where(at > 0, np.nan, numbers)
        self._refuse(self._misfit(rest), values, name)
        known = ~np.isnan(rest)
        if self.grid or self.exact:
            broken = known & (rest != np.floor(rest))
            self._refuse(("whole numbers, as in training", broken), values, name, "Real(step=0)")
        if self.exact and self.origin:
            rest[known] = [float(int(value) - self.origin) for value in values[known]]
        elif self.grid:
            rest = rest - self.origin
        return np.column_stack([at, rest] if self.point_masses else [rest])

    def decode(self, cells: np.ndarray) -> np.ndarray:
        if self.exact:
            values = self._whole(cells[:, -1])
        else:
            values = np.clip(self.snapped(cells[:, -1] + self.origin), self.low, self.high)
        for code, point_mass in enumerate(self.point_masses or (), 1):
            values[cells[:, 0] == code] = point_mass
        return values

    def _whole(self, cells: np.ndarray) -> np.ndarray:
        """Decode cells (n,) to integers of any size (n,), as objects."""
        values, (low, high) = np.full(len(cells), None, dtype=object), self.ends
        for row in np.flatnonzero(~np.isnan(cells)):
            values[row] = min(max(int(self.origin) + round(float(cells[row])), low), high)
        return values

    def snapped(self, values: np.ndarray) -> np.ndarray:
        """The nearest multiples of the step, each the float closest to its decimal form."""
        if not self.step:
            return values
        places, parts = np.round(values / self.step), round(1 / self.step)
        if parts > 1 and math.isclose(parts * self.step, 1):
            return places / parts
        return places * self.step if self.step == int(self.step) else np.round(places * self.step, 9)

    def check(self, value: Any, name: str, show: Callable[[Any], str] = repr) -> None:
        wanted, broken = self._misfit(np.array([float(value)]))
        if broken.any():
            raise DataError(f"column {name!r} must be given {wanted}", f"it is {show(value)}", "Correct it.")
        if self.grid and not self.low <= value <= self.high:
            ends = f"{show(plain(self.low))} to {show(plain(self.high))}"
            do = "Stay in the range of the training rows: beyond it the column has no values."
            raise DataError(f"column {name!r} must be given a number from {ends}", f"it is {show(value)}", do)
        if near := self._beside(value):
            expected = f"column {name!r} must be given one of its values, which go in {self.steps}"
            raise DataError(expected, f"it is {show(value)}", f"The nearest are {' and '.join(map(show, near))}.")

    @property
    def steps(self) -> str:
        """The distance between values, in words."""
        return f"steps of {self.step:g}"

    def _beside(self, value: Any) -> tuple[Any, ...]:
        """The multiples of the step below and above a value."""
        if not self.step:
            return ()
        if self.step == int(self.step):
            step, place = int(self.step), Fraction(value)
            below = place // step * step
            return () if below == place else (below, below + step)
        number = float(value)
        at = math.floor(number / self.step) + np.array([-1.0, 0.0, 1.0, 2.0])
        grid = self.snapped(at * self.step)
        return () if number in grid else (float(grid[grid < number].max()), float(grid[grid > number].min()))

    def _misfit(self, values: np.ndarray) -> tuple[str, np.ndarray]:
        return "finite numbers", np.isinf(values)

    def _refuse(self, misfit: tuple[str, np.ndarray], values: np.ndarray, name: str, other: str = "Real()") -> None:
        wanted, broken = misfit
        if broken.any():
            row = int(np.argmax(broken))
            do = f"Correct the cell or, if the training rows have such too, fit with schema[{name!r}] = {other}."
            raise DataError(f"column {name!r} must hold {wanted}", f"row {row} holds {values[row]:g}", do)


@dataclass(frozen=True)
class Positive(Real):
    """Positive numbers that vary by factors, such as incomes and durations; zeros may be a point mass."""

    likelihood: ClassVar[str] = "warped:space=log"

    def _misfit(self, values: np.ndarray) -> tuple[str, np.ndarray]:
        known = self.point_masses if self.point_masses is not None else (0.0,)
        return "numbers above 0", ~(np.isnan(values) | (values > 0) | np.isin(values, known)) | np.isinf(values)

    def learn(self, values: np.ndarray, name: str) -> Self:
        kind = super().learn(values, name)
        masses = kind.point_masses or ()
        zero = bool((values == 0).any()) and 0.0 not in masses
        return replace(kind, point_masses=(0.0, *masses)) if zero else kind

    @property
    def grid(self) -> bool:
        return False

    @property
    def origin(self) -> float:
        return 0


@dataclass(frozen=True)
class Measured(Real):
    """Numbers with outliers: heavy tails (Student's t) keep these from distorting the model."""

    point_masses: tuple[float, ...] | None = ()

    likelihood: ClassVar[str] = "student_t"

    @property
    def grid(self) -> bool:
        return False


@dataclass(frozen=True)
class Count(Real):
    """Whole numbers from 0."""

    step: float | None = 1.0

    lowest: ClassVar[float | None] = 0

    def _misfit(self, values: np.ndarray) -> tuple[str, np.ndarray]:
        whole = (values >= 0) & (values == np.floor(values)) & np.isfinite(values)
        return "whole numbers from 0", ~(np.isnan(values) | whole)


@dataclass(frozen=True)
class Datetime(Real):
    """Dates and times, in seconds since 1970; the step is a day, a second or 0 for none."""

    sort: ClassVar[str] = "time"

    def learn(self, values: np.ndarray, name: str) -> Self:
        step = DAY if (values % DAY == 0).all() else 1.0 if (values % 1 == 0).all() else 0.0
        step = step if self.step is None else self.step
        return replace(
            self._ranged(values), step=step, point_masses=() if self.point_masses is None else self.point_masses
        )

    @property
    def grid(self) -> bool:
        return False

    def _shown(self, value: Any) -> str:
        return shown_time(int(value * 10**9))

    @property
    def steps(self) -> str:
        return {DAY: "whole days", 1.0: "whole seconds"}.get(self.step or 0.0, f"steps of {self.step:g} seconds")


@dataclass(frozen=True)
class Binary(Kind):
    """Booleans, or zeros and ones."""

    sort: ClassVar[str] = "flag"

    def learn(self, values: np.ndarray, name: str) -> Self:
        self.encode(values, name)
        return self

    def cells(self, name: str) -> dict[str, str]:
        return {name: "bernoulli"}

    def encode(self, values: np.ndarray, name: str) -> np.ndarray:
        values = as_floats(values)
        broken = ~(np.isnan(values) | (values == 0) | (values == 1))
        if broken.any():
            got = f"row {int(np.argmax(broken))} holds {values[broken][0]:g}"
            raise DataError(
                f"column {name!r} must hold zeros and ones", got, f"Choose another kind: schema[{name!r}] = Count()."
            )
        return values[:, None]

    def decode(self, cells: np.ndarray) -> np.ndarray:
        return np.round(cells[:, 0])

    def check(self, value: Any, name: str, show: Callable[[Any], str] = repr) -> None:
        if value not in (0, 1):
            raise DataError(f"column {name!r} must be given 0 or 1", f"it is {show(value)}", "Correct it.")


@dataclass(frozen=True)
class Category(Kind):
    """Unordered categories: text, or numbers that are only names."""

    categories: tuple[Any, ...] | None = None
    sort: ClassVar[str] = "text"

    def learn(self, values: np.ndarray, name: str) -> Self:
        categories: list[Any] = list(self.categories or ())
        if self.categories is None:
            categories = sorted({plain(value) for value in values.tolist()}, key=lambda v: (isinstance(v, str), v))
        if len(categories) > MOST_CATEGORIES or (
            len(categories) == len(values) > FEW and self.sort_of(values) == "text"
        ):
            got = f"{name!r} has {len(categories):,} in {len(values):,} rows"
            do = f"Drop it if it names rows (on the command line: --label {name!r}), or group its categories."
            expected = f"a column may have {MOST_CATEGORIES:,} categories, each in several rows"
            raise DataError(expected, got, do + _hint(categories))
        if self.categories is None and len(categories) > max(FEW, MOST_SHARE * len(values)):
            warn(
                f"column {name!r} has {len(categories):,} categories in {len(values):,} rows, too many to learn: "
                f"drop it, group them, or convert it to numbers or dates.{_hint(categories)}",
                2,
            )
        return replace(self, categories=tuple(categories))

    @staticmethod
    def sort_of(values: np.ndarray) -> str:
        """Whether the categories are text or numbers."""
        return "text" if values.dtype == object else "number"

    def cells(self, name: str) -> dict[str, str]:
        return {name: f"categorical:classes={len(self.categories or ()) + 1},unseen=true"}

    def encode(self, values: np.ndarray, name: str) -> np.ndarray:
        """Codes; all categories that were not in training share one further code, the least likely."""
        codes = self._codes(values)
        is_new = codes == -1
        known = self.categories or ()
        if self._of_another_type(values):
            had, has = ("text", "numbers") if isinstance(known[0], str) else ("numbers", "text")
            do = f"Read the column as {had}, as in training."
            raise DataError(f"column {name!r} must hold {had}, as in training", f"it holds {has}", do)
        if is_new.any():
            row = int(np.argmax(is_new))
            message = f"column {name!r} has {counted(int(is_new.sum()), 'cell')} of an unknown category "
            warn(f"{message}(first: row {row}, {plain(values[row])!r})", 2)
        return np.where(is_new, len(known), codes)[:, None]

    def _of_another_type(self, values: np.ndarray) -> bool:
        """Whether all categories are text and all values numbers, or vice versa."""
        texts = {isinstance(category, str) for category in self.categories or ()}
        given = {isinstance(value, str) for value in values.tolist() if value is not None and value == value}
        return len(texts) == len(given) == 1 and texts != given

    def _codes(self, values: np.ndarray) -> np.ndarray:
        """The index of each value's category; -1 if it is unknown, NaN if missing."""
        codes = {category: code for code, category in enumerate(self.categories or ())}
        index = np.array([codes.get(value, -1.0) for value in values.tolist()], dtype=float)
        missing = np.array([value is None or value != value for value in values.tolist()], dtype=bool)
        index[missing] = np.nan
        return index

    def decode(self, cells: np.ndarray) -> np.ndarray:
        known = np.empty(len(self.categories or ()) + 1, dtype=object)
        known[:-1] = self.categories
        missing = np.isnan(cells[:, 0])
        values = known[np.where(missing, len(known) - 1, np.clip(cells[:, 0], 0, len(known) - 2)).astype(int)]
        numbers = all(isinstance(c, int | float) and not isinstance(c, bool) and abs(c) < EXACT for c in known[:-1])
        return values.astype(float) if numbers else values

    def check(self, value: Any, name: str, show: Callable[[Any], str] = repr) -> None:
        known = self.categories or ()
        if not any(same(value, category) for category in known):
            expected = f"column {name!r} must be given one of {counted(len(known), 'category', 'categories')}"
            raise DataError(expected, f"it is {show(value)}", f"Known are {self._listed}.")

    @property
    def detail(self) -> str:
        return f"{counted(len(self.categories or ()), 'category', 'categories')}: {self._listed}"

    @property
    def _listed(self) -> str:
        known = self.categories or ()
        return ", ".join(f"{category!r:.40}" for category in known[:8]) + ", ..." * (len(known) > 8)


@dataclass(frozen=True)
class Ordinal(Category):
    """Ordered categories, such as low, middle, high."""

    def cells(self, name: str) -> dict[str, str]:
        return {name: f"ordinal:levels={max(2, len(self.categories or ()))}"}

    def encode(self, values: np.ndarray, name: str) -> np.ndarray:
        codes, known = self._codes(values), self.categories or ()
        if (codes == -1).any():
            row = int(np.argmax(codes == -1))
            raise DataError(
                f"column {name!r} must hold one of {counted(len(known), 'category', 'categories')} in their order",
                f"row {row} holds {plain(values[row])!r}",
                f"Known are {self._listed}. Leave the cell empty, or fit again.",
            )
        return codes[:, None]


@dataclass(frozen=True)
class Empty(Kind):
    """A column in which every cell is missing."""

    sort: ClassVar[str] = "any"

    def learn(self, values: np.ndarray, name: str) -> Self:
        return self

    def cells(self, name: str) -> dict[str, str]:
        return {}

    def encode(self, values: np.ndarray, name: str) -> np.ndarray:
        return np.empty((len(values), 0))

    def decode(self, cells: np.ndarray) -> np.ndarray:
        return np.full(len(cells), None, dtype=object)

    def check(self, value: Any, name: str, show: Callable[[Any], str] = repr) -> None:
        got = f"it was empty in all training rows, and is given as {show(value)}"
        raise DataError(f"column {name!r} must have values in training to be given", got, "Leave it out.")


def _hint(categories: Sequence[Any]) -> str:
    """The advice for text that looks like dates, or like numbers with a decimal comma."""
    some = [text for text in categories if isinstance(text, str)][:FEW]
    if some and all(DATE.fullmatch(text) for text in some):
        return " They look like dates: read them with pandas.to_datetime."
    if some and all(COMMA.fullmatch(text) for text in some):
        return " They look like numbers with a decimal comma: write a point."
    return ""


def as_floats(values: np.ndarray) -> np.ndarray:
    """Numbers as float64, with None as NaN; integers beyond 2**53 are rounded."""
    if values.dtype != object:
        return values
    return np.array([math.nan if value is None else float(value) for value in values.tolist()], dtype=float)


def same(a: Any, b: Any) -> bool:
    """Whether two categories are the same: True is not 1, and 1 is not "1".

    >>> same(1, 1.0), same(1, True), same("1", 1)
    (True, False, False)
    """
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def plain(value: Any) -> Any:
    """A value as a JSON value; whole numbers are int.

    >>> plain(3.0), plain("a"), plain(0.5)
    (3, 'a', 0.5)
    """
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < 2**53:
        return int(value)
    return value.item() if isinstance(value, np.generic) else value


def step_of(values: np.ndarray) -> float:
    """The step of which all values are multiples: 1, 0.1, 0.01, 0.001, or 0 if none of these.

    >>> step_of(np.array([1.5, 2.0, 3.1])), step_of(np.array([3.0, 4.0])), step_of(np.array([math.pi]))
    (0.1, 1.0, 0.0)
    """
    if values.dtype == object:
        return 1.0
    return next((10.0**-d for d in range(4) if np.array_equal(np.round(values, d), values)), 0.0)


def point_masses_of(values: np.ndarray, grid: bool) -> list[float]:
    """Values with their own probability: all but the rarest of a few, or the frequent ones among many.

    The rarest is left to the density, which needs at least one value for its location, and covers new numbers.
    """
    distinct, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    if 1 < len(distinct) <= FEW and len(values) >= 10 * len(distinct):
        return sorted(distinct[order[:-1]].tolist())
    if grid:
        return []
    frequent = counts[order] >= max(FREQUENT * len(values), 5)
    return sorted(distinct[order][frequent][:MOST_POINT_MASSES].tolist())


def kind_from(value: Any) -> Kind:
    """A kind from its JSON form or its name; a kind is returned unchanged.

    >>> kind_from({"kind": "count", "low": 0}), kind_from("binary")
    (Count(low=0, high=None, step=1.0, point_masses=None), Binary())
    """
    if isinstance(value, Kind):
        return value
    options = dict(value) if isinstance(value, Mapping) else {"kind": value}
    name = options.pop("kind", None)
    if not isinstance(name, str) or name not in KINDS:
        raise unknown("the kind of a column", name, KINDS)
    known = {field.name for field in fields(KINDS[name])}
    for key, option in options.items():
        if key not in known:
            raise unknown(f"an option of the kind {name!r}", key, known or ["(it has none)"])
        _check_option(name, key, option)
    return KINDS[name](**{key: tuple(o) if isinstance(o, list) else o for key, o in options.items()})


def _check_option(kind: str, key: str, value: Any) -> None:
    """Raise if an option from JSON has a value that the kind cannot use."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    items = isinstance(value, list | tuple) and all(
        isinstance(v, str | bool | int | float) and (isinstance(v, str) or abs(v) <= LARGEST) for v in value
    )
    listed = key in ("point_masses", "categories")
    unique = not listed or value is None or (items and len({*value}) == len(value))
    if not unique or not (value is None or (items if listed else number)):
        wanted = "a list of different values" if listed else "a finite number"
        raise ParameterError(f"{key} of the kind {kind!r} must be {wanted}", f"it is {value!r:.60}", "Correct it.")


def kind_form(kind: Kind) -> dict[str, Any]:
    """The JSON form of a kind."""
    name = next(name for name, known in KINDS.items() if known is type(kind))
    options = asdict(kind)
    return {"kind": name, **{key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}}


KINDS: dict[str, type[Kind]] = {
    "real": Real,
    "positive": Positive,
    "measured": Measured,
    "count": Count,
    "binary": Binary,
    "category": Category,
    "ordinal": Ordinal,
    "datetime": Datetime,
    "empty": Empty,
}
