"""The regret of one network for a range of beta against networks that were trained for one beta each.

    python benchmarks/regret.py --data mnist --seeds 0 1 2
    python benchmarks/regret.py --data digits --split validation
    python benchmarks/regret.py --data digits --range 1..10
    python benchmarks/regret.py --data mnist --self-check --seeds 1      # the slope of the curve compared with beta
    python benchmarks/regret.py --data digits --cost 20                  # its time relative to a dedicated network

The regret at beta is J of the one network minus J of the better of two dedicated networks (constant beta and warm-up),
J = distortion + beta * rate in nats per row on rows that nothing was trained on. All of them have the same body, the
same epochs, the same learning rate and the same rows. Finished runs are kept in build/regret and not repeated;
those of a range, while the sources that make it are the same.
"""

import argparse
import hashlib
import json
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from harness import datasets

BETAS = (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0)
TURN = 20  # steps that a network takes before it is the turn of the other, where times are compared
KEPT = Path(__file__).parent.parent / "build" / "regret"
IMAGES = {"n_latents": 20, "body": "mlp", "hidden": (300, 300), "batch_size": 256}
MODELS: dict[str, dict[str, Any]] = {
    "mnist": {**IMAGES, "binarize": "sample", "epochs": 30},
    "fashion": {**IMAGES, "binarize": "sample", "epochs": 30},
    "digits": {"n_latents": 10, "body": "mlp", "likelihood": "binomial", "epochs": 200},
    "table": {"n_latents": 8, "likelihood": "gaussian", "epochs": 50},
    "small table": {"n_latents": 8, "likelihood": "gaussian", "epochs": 1000},
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=MODELS, default="digits")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="rows that are scored")
    parser.add_argument("--range", default="0.01..10", help="betas that the one network knows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    parser.add_argument("--self-check", action="store_true", help="print the curve of one network and its slopes")
    parser.add_argument("--cost", type=int, metavar="N", help="time N epochs of each, in turns, for each of the seeds")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of finished runs (default: build/regret)")
    return parser.parse_args()


def run(task: dict[str, Any], kept: str) -> dict[str, Any]:
    """Train and score one network, or read the result of an earlier call."""
    path = Path(kept) / f"{hashlib.blake2b(json.dumps(task, sort_keys=True).encode(), digest_size=8).hexdigest()}.json"
    if path.exists():
        return json.loads(path.read_text())
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    train, rest = datasets.rows(task["data"], task["split"], task["seed"])
    model = estimator(task)
    cpu, started = time.process_time(), time.perf_counter()
    model.fit(train)
    result = {
        **task,
        "cpu_seconds": time.process_time() - cpu,  # of one thread, so that other processes hardly matter
        "seconds": time.perf_counter() - started,
        "parameters": sum(p.numel() for p in model.model_.parameters()),
        "terms": {},
    }
    for beta in within(task["beta"]) if task["at"] is None else (task["at"],):
        one = model.at(beta) if task["at"] is None else model
        distortion, rate = one.distortion_and_rate(rest, n_draws=4)
        result["terms"][str(beta)] = [float(distortion.mean()), float(rate.mean())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return result


def estimator(task: dict[str, Any]) -> Any:
    """The network of a task, not trained."""
    import elbowroom

    kind = elbowroom.TableVAE if "table" in task["data"] else elbowroom.ImageVAE
    return kind(**task["model"], beta=task["beta"], random_state=task["seed"])


def within(span: str) -> list[float]:
    """The betas of the table that lie in a range."""
    low, high = map(float, span.split(".."))
    return [beta for beta in BETAS if low <= beta <= high]


def self_check(task: dict[str, Any]) -> None:
    """Train the range, and print its curve and how far its slopes are from -beta in the middle 80 % of the range."""
    train, rest = datasets.rows(task["data"], task["split"], task["seed"])
    curve = estimator(task).fit(train).curve(rest)
    middle = slice(2, -2)  # of 13 betas, evenly spaced in their logarithm
    print(curve)
    print(f"worst |dD/dR + beta| / beta in the middle: {np.abs(-curve.slope / curve.betas - 1)[middle].max():.3f}")


def cost(tasks: list[dict[str, Any]], epochs: int) -> None:
    """Train ranges and networks of beta = 1 in turns, and print the ratio of the times of their epochs.

    Every pair runs in new processes, as the layout in memory changes times by a percent or two.
    """
    ratios = []
    for task in tasks:
        task = {**task, "model": {**task["model"], "epochs": epochs + 1}}  # the first of each warms up
        ratios.append(np.median(ratios_of(task)))
        print(f"seed {task['seed']}: {ratios[-1]:.3f} x the CPU time (median of {epochs} epochs)", flush=True)
    error = f" +- {np.std(ratios, ddof=1) / np.sqrt(len(ratios)):.3f}" if len(ratios) > 1 else ""
    data, beta = tasks[0]["data"], tasks[0]["beta"]
    print(f"{data}: an epoch of beta {beta} takes {np.mean(ratios):.3f}{error} x the CPU time of one of beta 1.0")


def ratios_of(task: dict[str, Any]) -> np.ndarray:
    """The ratio of CPU times of a range and of a network with beta = 1, for every epoch but the first."""
    processes = get_context("spawn")
    here, there = processes.Pipe()
    other = processes.Process(target=timed, args=(task, there), daemon=True)  # ends with this process
    other.start()
    there.close()  # so that the end of the other process is noticed
    alone = timed({**task, "beta": "1.0"}, here, first=True)
    together = here.recv()
    other.join()
    return np.divide(together, alone)[1:]


def timed(task: dict[str, Any], other: Connection, first: bool = False) -> list[float]:
    """CPU seconds of every epoch of a network, which takes turns with the process at the other end.

    Disturbances then slow both of them.
    """
    import torch
    from elbowroom.training.trainer import Run

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seconds: list[float] = []
    train_epoch, train_step = Run._train_epoch, Run._train_step

    def timed_epoch(run: Any, *args: Any) -> None:
        started = time.process_time()
        train_epoch(run, *args)
        seconds.append(time.process_time() - started)

    def step_in_turn(run: Any, *args: Any) -> None:
        if run.step % TURN == 0:
            if run.step:
                other.send(None)
            if run.step or not first:
                other.recv()
        train_step(run, *args)

    train, _ = datasets.rows(task["data"], task["split"], task["seed"])
    with patch.multiple(Run, _train_epoch=timed_epoch, _train_step=step_in_turn):
        estimator(task).fit(train)
    other.send(None if first else seconds)
    return seconds


def tasks_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The range first, then the dedicated networks."""
    model = {**MODELS[options.data], "learning_rate": options.learning_rate}
    if options.epochs:
        model["epochs"] = options.epochs
    common = {"data": options.data, "split": options.split, "model": model}
    tasks = [{**common, "seed": seed, "beta": options.range, "at": None, "recipe": recipe()} for seed in options.seeds]
    for seed in options.seeds:
        for beta in within(options.range):
            for policy in (str(beta), f"warmup:end={beta}"):
                tasks.append({**common, "seed": seed, "beta": policy, "at": beta})
    return tasks


def recipe() -> str:
    """A checksum of the sources that affect a range, so that results of other sources are not reused."""
    found = find_spec("elbowroom")
    folder = Path(found.origin).parent  # type: ignore[union-attr, arg-type]
    sources = (
        folder / f"{name}.py"
        for name in ("bodies", "latents", "gaussians", "conditioning", "vae", "control", "likelihoods")
    )
    return hashlib.blake2b(b"".join(source.read_bytes() for source in sources), digest_size=8).hexdigest()


def table(results: list[dict[str, Any]], seeds: list[int]) -> str:
    """Regret by beta, the mean over seeds and its standard error."""
    lines = [
        f"{'beta':>8} {'dedicated J':>12} {'range J':>10} {'regret':>18} {'% of J':>8} {'rate':>6} {'dedicated':>9}"
    ]
    shares = []
    for beta in within(next(r["beta"] for r in results if r["at"] is None)):
        rows = []
        for seed in seeds:
            mine = [r for r in results if r["seed"] == seed]
            D, R = next(r["terms"][str(beta)] for r in mine if r["at"] is None)
            best = min((r["terms"][str(beta)] for r in mine if r["at"] == beta), key=lambda t: t[0] + beta * t[1])
            rows.append((best[0] + beta * best[1], D + beta * R, R, best[1]))
        alone, together, rate, rate_alone = np.mean(rows, 0)
        regrets = np.array([b - a for a, b, *_ in rows])
        error = regrets.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else np.nan
        shares.append(100 * regrets.mean() / abs(alone))
        lines.append(
            f"{beta:8g} {alone:12.2f} {together:10.2f} {regrets.mean():10.2f} +- {error:4.2f} {shares[-1]:8.2f} "
            f"{rate:6.2f} {rate_alone:9.2f}"
        )
    whole = [r for r in results if r["at"] is None]
    alone_runs = [r for r in results if r["at"] is not None]
    size = whole[0]["parameters"] / alone_runs[0]["parameters"]
    lines.append(f"mean regret {np.mean(shares):.2f} % of J, worst {max(shares):.2f} %")
    lines.append(f"the one network has {size:.3f} x the parameters of a dedicated one; --cost N compares their times")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    options = parse()
    if not datasets.there(options.data):
        print(f"skipped: {options.data} is not in {datasets.folder()} (set ELBOWROOM_DATA)")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    tasks, results = tasks_of(options), []
    if options.self_check:
        self_check(tasks[0])
        return
    if options.cost:
        cost([task for task in tasks if task["at"] is None], options.cost)
        return
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, task, str(options.kept)) for task in tasks]
        for i, future in enumerate(as_completed(futures), 1):
            found = future.result()
            results.append(found)
            print(
                f"{i}/{len(tasks)}: beta {found['beta']}, seed {found['seed']}, {found['cpu_seconds']:.0f} s",
                flush=True,
            )
    print(
        f"\n{options.data}, beta {options.range}, {tasks[0]['model']['epochs']} epochs, "
        f"learning rate {options.learning_rate:g}, {options.split} rows, seeds {options.seeds}"
    )
    print(table(results, options.seeds))


if __name__ == "__main__":
    main()
