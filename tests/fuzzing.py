"""Cases of broken or forged files, run in a process of their own that watches what each does beside reading.

A case is a name of `Targets` and a seed: the first function makes a file or a folder, and the second reads it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import itertools
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

SHORT, LONG, BATCH = 40, 300, 60
SECONDS, BYTES, PATIENCE = 5.0, 500 * 2**20, 120  # of a case: processor time, memory, and time until it is given up
Targets = dict[str, tuple[Callable[[Path, Random], Path], Callable[[Path], Any]]]

RUN = (
    "subprocess.",
    "os.exec",
    "os.system",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "pickle.find_class",
    "ctypes.dlopen",
)
LIBRARIES = [
    os.path.realpath(p)
    for p in (sys.prefix, sys.base_prefix, Path(__file__).parent.parent / "src", Path(__file__).parent)
]
SYSTEM = ["/proc", "/sys", "/usr/share/zoneinfo", "/dev/null"]


class Watch:
    """What a piece of code does beside its work: programs that it starts, files that it opens."""

    def __init__(self, canaries: Sequence[Path]) -> None:
        self.folder, self.seen = "", list[str]()
        sys.addaudithook(self.look)
        library = ctypes.CDLL(None)
        self.events = library.inotify_init1(os.O_NONBLOCK) if hasattr(library, "inotify_init1") else -1
        for canary in canaries if self.events >= 0 else ():
            library.inotify_add_watch(self.events, os.fsencode(canary), 0x21)  # opened, or read

    def look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event.startswith(RUN) and arguments != (None,):  # which is the process itself
            self.seen.append(f"{event} {arguments!r:.80}")
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not any(path == place or path.startswith(f"{place}/") for place in (self.folder, *LIBRARIES, *SYSTEM)):
                self.seen.append(f"open {path}")

    @contextlib.contextmanager
    def over(self, folder: Path) -> Iterator[None]:
        self.folder, self.seen = os.path.realpath(folder), []
        try:
            yield
        finally:
            self.folder = ""
            with contextlib.suppress(OSError):
                if self.events >= 0 and os.read(self.events, 4096):
                    self.seen.append("a canary was opened")


def memory(name: str) -> int:
    """Bytes of this process, "VmRSS" now or "VmHWM" at most since it was last set back, where the system says so."""
    for line in Path("/proc/self/status").read_text().splitlines() if os.path.exists("/proc/self/status") else ():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def outcome(targets: Targets, name: str, seed: int, folder: Path, watch: Watch) -> dict[str, Any]:
    """What came of one case."""
    from elbowroom.errors import CONTROL, ElbowroomError

    make, read = targets[name]
    path = make(folder, Random(seed))
    found: dict[str, Any] = {"case": [name, seed], "faults": []}
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    with warnings.catch_warnings(), watch.over(folder):
        warnings.simplefilter("ignore")
        try:
            read(path)
            found["error"] = ""
        except ElbowroomError as error:
            found["error"] = message = str(error)
            whole = all(part.strip() for part in (error.expected, error.got, error.do))
            found["faults"] += [] if whole and not CONTROL.search(message) and len(message) < 900 else ["not clear"]
        except BaseException:
            found["error"] = traceback.format_exc()[-2000:]
            found["faults"].append("another error")
    faulthandler.cancel_dump_traceback_later()
    found["seconds"], found["bytes"] = time.process_time() - began, memory("VmHWM") - before
    found["faults"] += watch.seen + [f"{k} {found[k]}" for k, most in LIMITS.items() if found[k] > most]
    return found


LIMITS = {"seconds": SECONDS, "bytes": BYTES}


def run_here(root: Path, cases: Sequence[tuple[str, int]], targets: Targets, watch: Watch) -> None:
    """Run cases, and print a line of JSON before and after each."""
    for i, (name, seed) in enumerate(cases):
        print(json.dumps({"begins": [name, seed]}), flush=True)
        folder = root / str(i)
        folder.mkdir()
        print(json.dumps(outcome(targets, name, seed, folder, watch)), flush=True)


def run(root: Path, cases: Sequence[tuple[str, int]], script: str) -> list[dict[str, Any]]:
    """What came of cases in a process of their own, which a script runs."""
    words = [sys.executable, script, str(root), *(str(word) for case in cases for word in case)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=1500, check=False)
    said = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    found = [line for line in said if "case" in line]
    assert len(found) == len(cases), f"the process ended ({ended.returncode}) in {said[-1:]}:\n{ended.stderr[-3000:]}"
    return found


def check(root: Path, first: int, count: int, targets: Targets, script: str) -> None:
    names = itertools.cycle(targets)
    found = run(root, [(name, seed) for name, seed in zip(names, range(first, first + count), strict=False)], script)
    faults = [f"{case['case']}: {', '.join(case['faults'])}\n{case['error']}" for case in found if case["faults"]]
    assert not faults, "\n\n".join(faults)
    refused = sum(bool(case["error"]) for case in found)
    assert count / 4 < refused < count  # else the cases are no more what they were meant to be


def asked(pairs: Sequence[str]) -> list[tuple[str, int]]:
    """Cases from the words of a command line."""
    return [(name, int(seed)) for name, seed in zip(pairs[::2], pairs[1::2], strict=True)]
