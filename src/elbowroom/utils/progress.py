"""What the library says while it works: records of `logging`, or lines on stderr where nothing takes these.

Lines are records of the loggers `elbowroom.estimators`, `elbowroom.sweep` and `elbowroom.training`, of level INFO;
those of epochs are of level DEBUG unless `verbose` is set. The library adds no handler and sets no level.
`verbose=True` promises that the lines are seen: where no handler takes records of level INFO, because logging is not
configured or shows warnings only, they go to stderr, and training has a progress bar there if it is a terminal.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from elbowroom.errors import escaped


class Log:
    """A stream for optional output: after the first failed write it is silent; no error is raised.

    A full disk, or a closed pipe or terminal, must not end a run. If `stream` is None, nothing is written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, if possible."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if possible."""
        self._try("flush")

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return bool(self._try("isatty"))

    def _try(self, method: str, *arguments: str) -> Any:
        try:
            return None if self.stream is None else getattr(self.stream, method)(*arguments)
        except Exception:
            self.stream = None
            return None


def takes(logger: logging.Logger, level: int = logging.INFO) -> bool:
    """Whether a handler that was configured for this logger, or one around it, takes records of a level."""
    if not logger.isEnabledFor(level):
        return False
    at: logging.Logger | None = logger
    while at is not None:
        if any(handler.level <= level and not isinstance(handler, logging.NullHandler) for handler in at.handlers):
            return True
        at = at.parent if at.propagate else None
    return False


def tell(logger: logging.Logger, message: str, verbose: bool) -> None:
    """Say a line: to `logging` where that takes it, else to stderr if `verbose` is set."""
    if takes(logger):
        logger.info("%s", escaped(message), stacklevel=2)
    elif verbose:
        print(escaped(message), file=Log(sys.stderr), flush=True)


class Progress:
    """Report each epoch when it ends. Use as a context manager; if `silent`, nothing is shown.

    With a stream of its own it writes there only. Without one, where `logging` takes records of level INFO, epochs and
    messages are such records instead of lines on stderr; if it is silent they are of level DEBUG.
    """

    LOGGER = logging.getLogger("elbowroom.training")

    def __init__(self, epochs: int, silent: bool = False, stream: TextIO | None = None) -> None:
        self.epochs = epochs
        self.level = logging.DEBUG if silent else logging.INFO
        self.logged = stream is None and takes(self.LOGGER, self.level)
        self.log = Log(None if silent or self.logged else stream if stream is not None else sys.stderr)
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if self.log.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            note, console = TextColumn("{task.fields[note]}"), Console(file=self.log)  # type: ignore[arg-type]
            self.bar = Bar(*columns, note, console=console, refresh_per_second=4)
            self.bar.start()
            self.task = self.bar.add_task("training", total=self.epochs, note="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def epoch(self, done: int, record: dict[str, float]) -> None:
        """Show that `done` epochs have ended; `record` is the last one's."""
        if self.log.stream is None and not self.logged:
            return
        note = f"distortion {record['distortion']:.2f}  rate {record['rate']:.2f}  beta {record['beta']:.3g}"
        if "held_out_loss" in record:
            note += f"  held-out loss {record['held_out_loss']:.2f}"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, note=note)
        else:
            self.say(f"epoch {done}/{self.epochs}  {note}")

    def say(self, message: str) -> None:
        """Show a message."""
        message = escaped(message)
        if self.logged:
            self.LOGGER.log(self.level, "%s", message, stacklevel=2)
        elif self.bar is not None:
            self.bar.print(message, markup=False, emoji=False, highlight=False)
        else:
            print(message, file=self.log, flush=True)
