"""How much of the machine other programs used meanwhile: speeds are worth little where it is not near 0."""

import os
import time
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
IDLE_COLUMNS = (3, 4)  # idle and waiting for the disk
COUNTED_COLUMNS = 8  # what follows, the guests' time, is contained in the first two


class Snapshot(NamedTuple):
    """Seconds: on the clock, of all processors' work, and of our own work with that of our children."""

    clock: float
    all_work: float
    own_work: float


def snapshot() -> Snapshot:
    """The counters now; where the system does not count all work (not Linux), ours stands for it."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return Snapshot(time.perf_counter(), _all_work() if STAT.exists() else own, own)


def cores_of_others(before: Snapshot) -> float:
    """How many cores other programs, or other guests of the same host, have used since `before`."""
    clock, all_work, own_work = (late - early for late, early in zip(snapshot(), before, strict=True))
    return max(0.0, (all_work - own_work) / clock)


def _all_work() -> float:
    """Seconds that all processors have worked, or were taken away by the host, since the machine started."""
    ticks = [int(value) for value in STAT.read_text().splitlines()[0].split()[1 : COUNTED_COLUMNS + 1]]
    return (sum(ticks) - sum(ticks[column] for column in IDLE_COLUMNS)) / os.sysconf("SC_CLK_TCK")
