"""Train one competitor in this process: `python -m harness.worker FOLDER`, with job.json in FOLDER.

Imports NumPy only, so that the peak memory is the competitor's own.
Leaves weights.npz and result.json in FOLDER.
"""

import importlib
import json
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from competitors import COMPETITORS
from harness.job import Job, Stopwatch


def peak_megabytes() -> float:
    """The most memory this process has held, in MB.

    Linux's ru_maxrss starts from the parent's memory at the fork, so VmHWM is read where there is one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 / 1e6


def version_of(distribution: str) -> str:
    """The installed version, or "checkout" for a package that is imported without being installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "checkout"


def main(folder: Path) -> None:
    """Run the job in `folder` and leave its results there."""
    job, watch = Job.read(folder / "job.json"), Stopwatch()
    competitor = COMPETITORS[job.competitor]
    weights = importlib.import_module(f"competitors.{competitor.module}").train(job, watch)
    result = {
        "version": version_of(competitor.distribution),
        "torch": version_of("torch"),
        "seconds": watch.seconds,
        "peak_mb": peak_megabytes(),
        "note": watch.note,
    }
    np.savez(folder / "weights.npz", **weights)
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
