"""Deferred handling of signals that ask a program to end, so that no training step or file is left incomplete."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
AT_ONCE = 1.0  # seconds within which a repeated signal counts once: closing a terminal sends two


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received within `stopping`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupt:
    """Context manager in which the first SIGINT, SIGTERM or SIGHUP only sets `came` to its number.

    A second SIGINT raises KeyboardInterrupt immediately. SIGTERM and SIGHUP are passed on to their previous handlers
    when the context ends; SIGINT is not. An enclosing `Interrupt` is notified of all of them.

    Python allows this only in the main thread; in other threads, and for ignored signals, nothing changes.

    Parameters
    ----------
    act : callable, optional
        Called when a signal is received.
    whole : bool
        Whether the work in the context is useless unless it is completed.
    """

    def __init__(self, act: Callable[[], object] | None = None, whole: bool = False) -> None:
        self.act, self.whole, self.came, self.asked = act, whole, 0, False
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *ENDING):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.handlers[number] = signal.signal(number, self._take)
            self.came = next((outer.came for handler in self.handlers.values() if (outer := _interrupt(handler))), 0)
        return self

    def __exit__(self, *exception: object) -> None:
        handlers, self.handlers = self.handlers, {}
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if outer := _interrupt(handlers.get(self.came)):
            outer.note(self.came)
        elif self.came in ENDING and self.came in handlers:
            signal.raise_signal(self.came)

    def end(self) -> None:
        """Stop after a signal, if the signal ends the process or the context is `whole`."""
        handler = self.handlers.get(self.came)
        if handler == signal.SIG_DFL:
            self.__exit__()
        elif (outer := _interrupt(handler)) and outer.whole:
            raise KeyboardInterrupt

    def note(self, number: int) -> None:
        """Record a signal that was received here or in a nested context."""
        if not self.came or number in ENDING:
            self.came = number
        if self.act is not None:
            self.act()

    def _take(self, number: int, _: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        self.note(number)


def _interrupt(handler: Any) -> Interrupt | None:
    """The context that a signal handler belongs to, if any."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Interrupt) else None


@contextmanager
def stopping() -> Iterator[None]:
    """Context manager in which SIGTERM and SIGHUP raise `Stopped`, so that a program ends cleanly, as with Ctrl-C."""
    last = -AT_ONCE

    def stop(number: int, _: object) -> None:
        nonlocal last
        again, last = time.monotonic() < last + AT_ONCE, time.monotonic()
        if not again:
            raise Stopped(number)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in ENDING}
        handlers = {number: h for number, h in known.items() if h not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
