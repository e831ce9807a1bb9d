"""Runs one measurement in a process of its own, with a fixed number of threads."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from competitors import COMPETITORS
from harness import network, peers
from harness.job import Job

BENCHMARKS = Path(__file__).resolve().parents[1]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")  # NPROC: XLA's
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
JUDGED_ROWS = 10_000
NOISE_SEED = 0


def environment(threads: int) -> dict[str, str]:
    """This process's environment, with the thread limit, this folder and the checkout's own package."""
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent / "src"), os.environ.get("PYTHONPATH", "")]
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return os.environ | limits | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def products(batch: int, threads: int) -> dict:
    """The matrix-product limit now (see products.py), with freed memory kept for the next product."""
    command = [sys.executable, "-m", "harness.products", str(batch)]
    return json.loads(_output(command, environment(threads) | KEEP_MEMORY))


def train(job: Job, threads: int, folder: Path) -> dict:
    """Train one competitor and judge its weights; a failure is a result with an `error`."""
    python = peers.python() if COMPETITORS[job.competitor].is_peer else sys.executable
    job.write(folder / "job.json")
    try:
        _output([python, "-m", "harness.worker", folder], environment(threads))
        return json.loads((folder / "result.json").read_text()) | judge(job, folder)
    except subprocess.CalledProcessError as error:
        return {"error": peers.last_line(error.stderr), "stderr": error.stderr}
    except ValueError as error:
        return {"error": str(error)}


def judge(job: Job, folder: Path) -> dict:
    """Speed over the steady epochs and loss on the same rows with the same noise, for every competitor."""
    rows = job.rows()
    with np.load(folder / "weights.npz") as arrays:
        weights = dict(arrays)
    network.check_shapes(weights)
    seconds = json.loads((folder / "result.json").read_text())["seconds"]
    if len(seconds) != job.epochs:
        raise ValueError(f"expected {job.epochs} epochs, but {len(seconds)} were marked")
    noise = np.random.default_rng(NOISE_SEED).standard_normal((JUDGED_ROWS, network.LATENT), np.float32)
    judged = rows[:JUDGED_ROWS]
    loss = network.negative_elbo(weights, judged, noise[: len(judged)])
    return {"rows_per_second": len(rows) / statistics.median(seconds[1:]), "loss": loss}


def _output(command: list, variables: dict[str, str]) -> str:
    """What a command prints on its standard output."""
    done = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
    return done.stdout
