"""What went wrong, in three parts: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress

# what a terminal acts on instead of showing it: control characters, and those that turn the direction of text;
# also separators of lines, and bytes of a file's name that are no text
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str, keep: str = "") -> str:
    """Text from data or from a file's name, safe for a terminal: what it would act on is written out.

    The characters of `keep`, such as newlines of a layout of our own, stay.

    >>> print(escaped("red \\x1b[31m text\\n"))
    red \\x1b[31m text\\n
    """
    return UNSEEN.sub(lambda c: c[0] if c[0] in keep else c[0].encode("unicode_escape").decode("ascii"), text)


class ElbowroomError(Exception):
    """Base of all errors that Elbowroom raises on purpose.

    Parameters
    ----------
    expected, got, do : str
        The three parts of the message. They are kept as attributes, so that a program can show them apart; what is in
        them of the data is escaped.
    """

    _keep = ""  # of the characters that are escaped

    def __init__(self, expected: str, got: str, do: str) -> None:
        self.expected, self.got, self.do = (escaped(part, self._keep) for part in (expected, got, do))
        super().__init__(self.expected, self.got, self.do)

    def __str__(self) -> str:
        got = self.got if self.got.endswith("...") else self.got.rstrip(".")
        return f"{self.expected}, but {got}. {self.do}"


class DataError(ElbowroomError, ValueError):
    """The data does not fit the model, the likelihood or the format."""


class ParameterError(ElbowroomError, ValueError):
    """A parameter has a value that can not be used."""


class TrainingError(ElbowroomError, RuntimeError):
    """Training can not go on; what was trained before is kept where the message says."""


class ArtefactError(ElbowroomError, ValueError):
    """A saved model or checkpoint is missing, broken, foreign or newer than this library."""


class MissingDependencyError(ElbowroomError, ImportError):
    """An optional package is needed for this and is not installed."""


class ElbowroomWarning(UserWarning):
    """Something worth a look: the result is right, but perhaps not what was meant."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def warn(message: str, stacklevel: int = 1) -> None:
    """Give an `ElbowroomWarning`; one that can not be written to stderr is lost, and nothing else with it.

    `stacklevel` counts as that of `warnings.warn` does in the calling function.
    """
    with suppress(OSError, ValueError, AttributeError):  # of a stream that is closed, or is none
        warnings.warn(message, ElbowroomWarning, stacklevel=stacklevel + 1)


def counted(n: int, one: str, many: str = "") -> str:
    """A number and what it counts.

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
    """The error for a name that is in no family, with the nearest known name.

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
