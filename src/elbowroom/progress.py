"""How training shows itself: a progress bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from elbowroom.errors import escaped


class Progress:
    """Shows epochs as they end. Use as a context manager; `silent` shows nothing."""

    def __init__(self, epochs: int, silent: bool = False, stream: TextIO | None = None) -> None:
        self.epochs, self.stream = epochs, stream if stream is not None else sys.stderr
        self.silent = silent or self.stream is None  # a program without a console has no stderr
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if not self.silent and self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            note = TextColumn("{task.fields[note]}")
            self.bar = Bar(*columns, note, console=Console(file=self.stream), refresh_per_second=4)
            self.bar.start()
            self.task = self.bar.add_task("training", total=self.epochs, note="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def epoch(self, done: int, record: dict[str, float]) -> None:
        """Show that `done` epochs have ended, the last with this record."""
        if self.silent:
            return
        note = f"distortion {record['distortion']:.2f}  rate {record['rate']:.2f}  beta {record['beta']:.3g}"
        if "held_out_loss" in record:
            note += f"  held-out loss {record['held_out_loss']:.2f}"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, note=note)
        else:
            print(f"epoch {done}/{self.epochs}  {note}", file=self.stream, flush=True)

    def say(self, message: str) -> None:
        """Show a message."""
        message = escaped(message)
        if self.bar is not None:
            self.bar.print(message, markup=False, emoji=False, highlight=False)
        elif not self.silent:
            print(message, file=self.stream, flush=True)
