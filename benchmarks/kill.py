"""Kill a training run at random moments, resume it, and compare every bit with a run that nobody killed.

    python benchmarks/kill.py --kills 20

Each run is a process that fits a `TableVAE` with `checkpoint=`. A checkpoint is written after every
step, so that many of the kills hit one that is being written. The run that all are compared with writes none.
The script fails if a single bit of the weights or of the history (but for its seconds) differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EPOCHS, ROWS, FEATURES = 30, 1000, 20


def train(folder: str | None, every: float) -> None:
    """What a process does: say that it begins, train, and print what came out."""
    import numpy as np
    import torch
    from elbowroom import TableVAE
    from elbowroom.checkpoints import Checkpoints

    x = np.random.default_rng(0).normal(size=(ROWS, 4)) @ np.random.default_rng(1).normal(size=(4, FEATURES))
    estimator = TableVAE(n_latents=4, beta="warmup:fraction=0.3", epochs=EPOCHS, random_state=0, device="cpu")
    print("begun", flush=True)
    estimator.fit(x.astype(np.float32), checkpoint=Checkpoints(folder, every=every) if folder else None)
    weights = torch.cat([p.detach().flatten() for p in estimator.model_.parameters()])
    history = [{k: v for k, v in record.items() if k != "seconds"} for record in estimator.history_]
    results = {
        "steps": estimator.history_["step"][-1],
        "weights": _short(weights.numpy().tobytes()),
        "history": _short([history, estimator.history_.notes]),
    }
    print(json.dumps(results), flush=True)


def _short(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


def begin(folder: Path | None, every: float) -> subprocess.Popen[str]:
    """A process that has just begun to train; without a folder it writes no checkpoints."""
    command = [sys.executable, __file__, "--train", str(folder or ""), "--every", str(every)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "begun\n":
        raise SystemExit(f"the process ended with status {process.wait()} before it trained")
    return process


def finish(folder: Path | None, every: float) -> dict[str, Any]:
    """Train, or go on training, to the end."""
    out, _ = (process := begin(folder, every)).communicate()
    if process.returncode:
        raise SystemExit(f"training in {folder} ended with status {process.returncode}")
    return json.loads(out)


def kill(folder: Path, every: float, at_step: int, delay: float) -> dict[str, Any]:
    """Train, and kill the process some seconds after it has reached a step; what it left behind."""
    process = begin(folder, every)
    while newest(folder) < at_step and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    torn = folder.is_dir() and any(folder.glob(".*.tmp"))
    return {"killed": killed, "step": newest(folder), "torn": torn}


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    names = os.listdir(folder) if folder.is_dir() else []
    return max((int(name[5:17]) for name in names if name.startswith("step-")), default=0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed and resumed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which they are killed")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between checkpoints; 0: after every step")
    parser.add_argument("--train", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train is not None:
        return train(options.train or None, options.every)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        return compare(Path(scratch), options.kills, options.every, random.Random(options.seed))


def compare(scratch: Path, kills: int, every: float, moments: random.Random) -> None:
    """Print a table, a run a line, and fail if one of them is not what it should be."""
    start = time.monotonic()
    whole = finish(None, every)
    print(f"{whole['steps']} steps; left alone: weights {whole['weights']}, history {whole['history']}")
    row = "{:>4} {:>8} {:>12} {:>17} {:>17}  {}"
    print(row.format("kill", "at step", "half a file", "weights", "history", "same bits"))
    alike = killed = 0
    for number in range(1, kills + 1):
        folder, at_step = scratch / str(number), moments.randrange(whole["steps"])
        left = kill(folder, every, at_step, moments.uniform(0, 0.05))
        found = finish(folder, every)
        alike, killed = alike + (found == whole), killed + left["killed"]
        torn, same = "yes" if left["torn"] else "no", "yes" if found == whole else "NO"
        print(row.format(number, left["step"], torn, found["weights"], found["history"], same), flush=True)
    minutes = (time.monotonic() - start) / 60
    print(f"{alike} of {kills} final models are bit-equal; {killed} runs were killed; {minutes:.1f} minutes")
    if alike < kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
