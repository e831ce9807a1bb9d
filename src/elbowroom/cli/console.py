"""What the command line says: answers on stdout, notes and errors on stderr, and an exit code for each end."""

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
# what Python calls what has another name, or a meaning of its own, on the command line
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
# a parameter that is set, and parameters that are named: not within paths, quotes and options of a text form
SET = r"""(?<![\w(:,/.'"-])([A-Za-z_]+)=('[^']*'|"[^"]*"|\([\d, ]*\)|\.{3}|-?\w+(?:[.-]\w+)*)"""
NAMED = (
    r"[Tt]he '(\w+)' parameter of \w+",
    r"^(?!counts|ratings|values?\b)([a-z_]+)(?= (?:must|needs) )",  # these are the data's too
    r"""(?<![\w(:/.'"=-])([a-z]+(?:_[a-z]+)+)(?![\w/='"(-]|\.\w)""",
)
# what other programs call an option
ELSEWHERE = {"--seed": "--random-state", "--lr": "--learning-rate", "--latent-dim": "--n-latents"}


@dataclass(frozen=True)
class Answer:
    """What a command found, for programs and for people, and its exit code."""

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
    """Runs a command and says how it went."""

    json: bool = False
    debug: bool = False
    notes: list[str] = field(default_factory=list)

    def run(self, command: Callable[[], Any]) -> int:
        """Run a command, print its answer or its error, and return the exit code."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")  # a name may be any bytes
        with stopping():
            try:
                return self._run(command)
            except (BrokenPipeError, SystemExit):  # SystemExit is what rich makes of a closed pipe
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
            do = "What the command was to write to files is there."
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
    """Print a text: whatever it has of the data, the terminal shows it and does not act on it."""
    print(escaped(text, keep="\n\t"), file=stream, flush=True)


def _settle(stream: TextIO | None) -> None:
    """Throw away what a stream does not take: Python would try again at its exit, and fail over it."""
    if stream is None:
        return
    with suppress(AttributeError, OSError, ValueError):  # it may be any object
        try:
            stream.flush()
        except (OSError, ValueError):
            number = stream.fileno()
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def problem_of(error: BaseException) -> Problem:
    """What to say about an exception."""
    kind = type(error).__name__
    if isinstance(error, ElbowroomError):
        code = USAGE if isinstance(error, ParameterError) else FAILED
        expected, got, do = map(in_flags, (error.expected, error.got, error.do))
        return Problem(kind, expected, got, do, code, in_flags(str(error)))
    if isinstance(error, CycloptsError):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt):
        by, words = signal_of(error), f"interrupted by {error}" if isinstance(error, Stopped) else "interrupted"
        return Problem(kind, "the command was to end by itself", f"it was {words}", "", SIGNALLED + by, words)
    if _out_of_memory(error):
        got = f"memory ran out ({_first_line(error)})"
        return Problem(kind, "data and model must fit into memory", got, "Use fewer rows or a smaller --batch-size.")
    if isinstance(error, OSError):
        got = f"{error.filename or 'the system'}: {error.strerror or error}"
        return Problem(kind, "files must be readable and writable", got, "Check permissions and free space.")
    return Problem(
        kind, "no error that Elbowroom does not know", f"{kind} came: {_first_line(error)}", "Add --debug to see where."
    )


def signal_of(error: BaseException | None) -> int:
    """The number of the signal behind an exception, by default SIGINT's."""
    return error.number if isinstance(error, Stopped) else signal.SIGINT


def in_flags(words: str) -> str:
    """A message that names parameters of the estimators, with the flags that set them.

    >>> in_flags("Fit with beta='0.01..10', hidden=(600, 200) or counts=False.")
    'Fit with --beta 0.01..10, --hidden 600,200 or no --counts.'
    >>> in_flags("Lower learning_rate. The 'epochs' parameter of TableVAE must be positive.")
    'Lower --learning-rate. --epochs must be positive.'
    """
    for pattern, said in IN_OTHER_WORDS:
        words = re.sub(pattern, said, words)
    words = re.sub(SET, _set_by_flag, words)
    for pattern in NAMED:
        words = re.sub(pattern, lambda found: _flag(found[1]) or found[0], words)
    return words


def _flag(name: str) -> str:
    """The flag that sets a parameter of Python's; empty where there is none."""
    known = {parameter.name for parameter in fields(Parameters)}
    return FLAGS.get(name, f"--{name.replace('_', '-')}" if name in known else "")


def _set_by_flag(found: re.Match[str]) -> str:
    name, value = found.groups()
    flag = _flag(name)
    if not flag:
        return found[0]
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
    """JSON of the strict kind: NaN and infinities are null, and control characters of all kinds are escaped."""
    text = json.dumps(plain(facts), ensure_ascii=False, allow_nan=False)
    return CONTROL.sub(lambda c: f"\\u{ord(c[0]):04x}", text)


def plain(value: Any) -> Any:
    """A value that JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # of numpy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def listed(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns, a line each; values without a name go below the one before."""
    rows = [(escaped(name), escaped(value)) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def number(value: float) -> str:
    """A number for people."""
    return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
