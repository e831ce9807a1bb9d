"""Exceptions and warnings. Messages have three parts: what was expected, what was passed, and what to do."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress

# characters that a terminal interprets instead of showing: control characters, directional marks, line separators, and
# undecodable bytes of file names
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str, keep: str = "") -> str:
    """Escape the control characters in a text from data or from a file name, so that it is safe to print.

    Characters in `keep`, such as the newlines of a layout, are not escaped.

    >>> print(escaped("red \\x1b[31m text\\n"))
    red \\x1b[31m text\\n
    """
    return CONTROL.sub(lambda c: c[0] if c[0] in keep else c[0].encode("unicode_escape").decode("ascii"), text)


class ElbowroomError(Exception):
    """Base class of all errors that Elbowroom raises.

    Parameters
    ----------
    expected, got, do : str
        The three parts of the message, which are also attributes. Control characters are escaped.
    """

    _keep = ""  # control characters that are not escaped

    def __init__(self, expected: str, got: str, do: str) -> None:
        self.expected, self.got, self.do = (escaped(part, self._keep) for part in (expected, got, do))
        super().__init__(self.expected, self.got, self.do)

    def __str__(self) -> str:
        got = self.got if self.got.endswith("...") else self.got.rstrip(".")
        return f"{self.expected}, but {got}. {self.do}"


class DataError(ElbowroomError, ValueError):
    """The data does not fit the model, the likelihood or the format."""


class ParameterError(ElbowroomError, ValueError):
    """A parameter has an invalid value."""


class TrainingError(ElbowroomError, RuntimeError):
    """Training cannot continue; the message says where the model trained so far is kept."""


class ArtefactError(ElbowroomError, ValueError):
    """A saved model or checkpoint is missing, corrupted, of another format, or newer than this library."""


class MissingDependencyError(ElbowroomError, ImportError):
    """An optional package is required but not installed."""


class ElbowroomWarning(UserWarning):
    """The result is correct, but may not be what the caller intended."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def warn(message: str, stacklevel: int = 1) -> None:
    """Issue an `ElbowroomWarning`; errors while writing it to stderr are ignored.

    `stacklevel` is that of `warnings.warn`, counted from the calling function.
    """
    with suppress(OSError, ValueError, AttributeError):  # if stderr is closed or None
        warnings.warn(message, ElbowroomWarning, stacklevel=stacklevel + 1)


def counted(n: int, one: str, many: str = "") -> str:
    """Format a number with its noun.

    >>> counted(1, "row"), counted(2000, "row"), counted(0, "is", "are")
    ('1 row', '2,000 rows', '0 are')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def missing(package: str, purpose: str) -> MissingDependencyError:
    """The error for an optional package that is not installed."""
    return MissingDependencyError(
        f"{purpose} needs the package {package!r}",
        "it is not installed",
        f"Run: pip install {package}",
    )


def unknown(what: str, name: object, known: Iterable[str]) -> ParameterError:
    """The error for an unknown name, which suggests the closest known one.

    >>> print(unknown("likelihood", "bernouli", ["bernoulli", "poisson"]))
    likelihood must be one of bernoulli, poisson, but 'bernouli' is none of them. Did you mean 'bernoulli'?
    """
    names = sorted(map(str, known))
    near = difflib.get_close_matches(str(name), names, n=1)
    do = (
        f"Did you mean {near[0]!r}?" if near else f"Choose one, for example {names[0]!r}." if names else "Leave it out."
    )
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return ParameterError(
        f"{what} must be one of {listed or '(there are none)'}",
        f"{name!r:.80} is none of them",
        f"Did you mean {near[0]!r}?" if near else do,
    )
