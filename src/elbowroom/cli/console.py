"""Output of the command line: answers on stdout, notes and errors on stderr, and exit codes."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, TextIO

from cyclopts import CycloptsError, UnknownOptionError

from elbowroom.cli.options import Parameters
from elbowroom.errors import CONTROL, ElbowroomError, ElbowroomWarning, ParameterError, escaped
from elbowroom.utils.progress import Log
from elbowroom.utils.signals import Stopped, stopping

DONE, FAILED, USAGE, SIGNALLED, PIPE_CLOSED = 0, 1, 2, 128, 141
# phrases in messages about Python parameters, and their form on the command line
FLAGS = {"n_draws": "--draws", "n_samples": "--n-samples", "N": "--n-items"} | {
    name: f"--{name}" for name in ("betas", "contamination", "given", "how", "jobs", "target", "task")
}
KINDS = {"TableVAE": "table", "ImageVAE": "image", "CountVAE": "count", "InteractionVAE": "interactions"}
IN_OTHER_WORDS = (
    (r"See help\(\w+\)\.?", "Run: elbowroom fit --help"),
    (r",?( or)? an instance of '[^']*'( or None)?", ""),
    (r"with VAEImputer; TableVAE with", "with elbowroom impute; a table model with"),
    (r"TableVAE with likelihood", "a table model with likelihood"),
    *((rf"\b([Uu]se) {name}\b", rf"\1 --kind {kind}") for name, kind in KINDS.items()),
)
# parameters that are set, and names of parameters, but not in paths, quotes and options of a text form
SET = r"""(?<![\w(:,/.'"-])([A-Za-z_]+)=('[^']*'|"[^"]*"|\([\d, ]*\)|\.{3}|-?\w+(?:[.-]\w+)*)"""
NAMED = (
    r"[Tt]he '(\w+)' parameter of \w+",
    r"^(?!counts|ratings|values?\b)([a-z_]+)(?= (?:must|needs) )",  # these are also words about data
    r"""(?<![\w(:/.'"=-])([a-z]+(?:_[a-z]+)+)(?![\w/='"(-]|\.\w)""",
)
# options of other programs
ELSEWHERE = {"--seed": "--random-state", "--lr": "--learning-rate", "--latent-dim": "--n-latents"}


@dataclass(frozen=True)
class Answer:
    """The result of a command, as JSON facts and as text, and its exit code."""

    facts: Mapping[str, Any]
    text: str
    code: int = DONE


@dataclass(frozen=True)
class Problem:
    """An error in three parts, its kind, and the exit code."""

    kind: str
    expected: str
    got: str
    do: str
    code: int = FAILED
    words: str = ""

    def __str__(self) -> str:
        return " ".join((self.words or f"{self.expected}, but {self.got}. {self.do}").split())


@dataclass
class Console:
    """Run a command, and print its result or error."""

    json: bool = False
    debug: bool = False
    notes: list[str] = field(default_factory=list)

    def run(self, command: Callable[[], Any]) -> int:
        """Run a command, print its answer or its error, and return the exit code."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")  # file names may be any bytes
        with stopping():
            try:
                return self._run(command)
            except (BrokenPipeError, SystemExit):  # rich turns a closed pipe into SystemExit
                return PIPE_CLOSED
            except (Exception, KeyboardInterrupt) as error:
                return self._fail(problem_of(error), error)
            finally:
                for stream in (sys.stdout, sys.stderr):
                    _settle(stream)

    def _run(self, command: Callable[[], Any]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", ElbowroomWarning)
            warnings.showwarning = lambda message, *_, **__: self._note(message)
            answer = command()
        return self._answer(answer) if isinstance(answer, Answer) else DONE

    def _note(self, message: Warning | str) -> None:
        note = in_flags(" ".join(str(message).split()))
        if note in self.notes:
            return
        self.notes.append(note)
        if not self.json:
            say(f"note: {note}", Log(sys.stderr))

    def _answer(self, answer: Answer) -> int:
        facts = {**answer.facts, "notes": self.notes} if self.notes else answer.facts
        try:
            say(as_json(facts) if self.json else answer.text)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            got = f"that failed ({getattr(error, 'strerror', None) or error})"
            do = "The command's files have been written."
            return self._fail(Problem("OutputError", "the answer must be written to standard output", got, do), error)
        return answer.code

    def _fail(self, problem: Problem, error: BaseException) -> int:
        if self.debug:
            say("".join(traceback.format_exception(error)).rstrip(), Log(sys.stderr))
        if self.json:
            parts = {"kind": problem.kind, "expected": problem.expected, "got": problem.got, "do": problem.do}
            facts = {"error": {**parts, "message": str(problem)}} | ({"notes": self.notes} if self.notes else {})
            say(as_json(facts), Log(sys.stderr))
        else:
            say(f"error: {problem}", Log(sys.stderr))
        return problem.code


def say(text: str, stream: TextIO | Log | None = None) -> None:
    """Print a text, with control characters in it escaped."""
    print(escaped(text, keep="\n\t"), file=stream, flush=True)


def _settle(stream: TextIO | None) -> None:
    """Discard unwritable output of a stream: Python would flush it again at exit, and fail."""
    if stream is None:
        return
    with suppress(AttributeError, OSError, ValueError):  # a replaced stream may be any object
        try:
            stream.flush()
        except (OSError, ValueError):
            number = stream.fileno()
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def problem_of(error: BaseException) -> Problem:
    """The problem to report for an exception."""
    kind = type(error).__name__
    if isinstance(error, ElbowroomError):
        code = USAGE if isinstance(error, ParameterError) else FAILED
        expected, got, do = map(in_flags, (error.expected, error.got, error.do))
        return Problem(kind, expected, got, do, code, in_flags(str(error)))
    if isinstance(error, CycloptsError):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt):
        by, words = signal_of(error), f"interrupted by {error}" if isinstance(error, Stopped) else "interrupted"
        return Problem(kind, "the command must run to its end", f"it was {words}", "", SIGNALLED + by, words)
    if _out_of_memory(error):
        got = f"memory ran out ({_first_line(error)})"
        return Problem(kind, "data and model must fit into memory", got, "Use fewer rows or a smaller --batch-size.")
    if isinstance(error, OSError):
        got = f"{error.filename or 'the system'}: {error.strerror or error}"
        return Problem(kind, "files must be readable and writable", got, "Check permissions and free space.")
    return Problem(
        kind,
        "the command must run without unexpected errors",
        f"it raised {kind}: {_first_line(error)}",
        "Add --debug to see where.",
    )


def signal_of(error: BaseException | None) -> int:
    """The number of the signal behind an exception, by default SIGINT's."""
    return error.number if isinstance(error, Stopped) else signal.SIGINT


def in_flags(words: str) -> str:
    """Rewrite a message about estimator parameters in terms of command line flags.

    >>> in_flags("Fit with beta='0.01..10', hidden=(600, 200) or counts=False.")
    'Fit with --beta 0.01..10, --hidden 600,200 or no --counts.'
    >>> in_flags("Lower learning_rate. The 'epochs' parameter of TableVAE must be positive.")
    'Lower --learning-rate. --epochs must be positive.'
    """
    for pattern, said in IN_OTHER_WORDS:
        words = re.sub(pattern, said, words)
    words = re.sub(SET, _set_by_flag, words)
    for pattern in NAMED:
        words = re.sub(pattern, lambda match: _flag(match[1]) or match[0], words)
    return words


def _flag(name: str) -> str:
    """The flag that sets a Python parameter; empty if there is none."""
    known = {parameter.name for parameter in fields(Parameters)}
    return FLAGS.get(name, f"--{name.replace('_', '-')}" if name in known else "")


def _set_by_flag(match: re.Match[str]) -> str:
    name, value = match.groups()
    flag = _flag(name)
    if not flag:
        return match[0]
    if value in ("True", "False", "None"):
        return flag if value == "True" else f"no {flag}"
    return f"{flag} " + value.strip("'(,)").replace(", ", ",")


def _usage(error: CycloptsError) -> Problem:
    error.verbose = False
    command = " ".join(["elbowroom", *(error.command_chain or ())])
    got, do = str(error).rstrip("."), f"Run: {command} --help"
    if isinstance(error, UnknownOptionError):
        asked = (error.token.keyword or error.token.value).partition("=")[0]
        if ELSEWHERE.get(asked) in {name for argument in error.argument_collection for name in argument.names}:
            got = f"Unknown option: {asked}. Did you mean {ELSEWHERE[asked]}?"
    text = f"{got}{'' if got.endswith('?') else '.'} {do}"
    return Problem(type(error).__name__, f"a command line as {command} --help has it", got, do, USAGE, text)


def _out_of_memory(error: BaseException) -> bool:
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def as_json(facts: Mapping[str, Any]) -> str:
    """Strict JSON: NaN and infinities are null, and all control characters are escaped."""
    text = json.dumps(plain(facts), ensure_ascii=False, allow_nan=False)
    return CONTROL.sub(lambda c: f"\\u{ord(c[0]):04x}", text)


def plain(value: Any) -> Any:
    """A value as a JSON value."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def listed(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns, a line each; values without a name continue the one before."""
    rows = [(escaped(name), escaped(value)) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def number(value: float) -> str:
    """Format a number."""
    return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
