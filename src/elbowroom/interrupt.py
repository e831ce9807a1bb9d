"""Ctrl-C, waited for: a training step is never cut in two."""

from __future__ import annotations

import signal
import threading
from typing import Any, Self


class Interrupt:
    """Within this context the first SIGINT only sets `came`; the second raises KeyboardInterrupt at once.

    Python lets the main thread alone do this; in other threads, and where SIGINT is ignored, nothing changes.
    """

    came = False
    previous: Any = None

    def __enter__(self) -> Self:
        ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
        if threading.current_thread() is threading.main_thread() and not ignored:
            self.previous = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _take(self, *_: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
