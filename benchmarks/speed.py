"""Training speed of the same VAE in elbowroom and in other libraries. See README.md beside this file.

python benchmarks/speed.py --batch 128 512 --epochs 4 --rounds 3 --json build/speed.json
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from competitors import COMPETITORS
from harness import crowd, fashion, network, peers, runner
from harness.job import Job
from harness.report import summarise, table

ROOT = Path(__file__).resolve().parents[1]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--epochs", type=_at_least(2), default=4, help="the first is warm-up and not counted")
    parser.add_argument("--rounds", type=_at_least(1), default=3, help="times that all competitors take turns")
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=list(COMPETITORS), metavar="NAME")
    parser.add_argument("--data", type=Path, default=fashion.default_folder(ROOT), help="Fashion-MNIST's folder")
    parser.add_argument("--rows", type=_at_least(1), help="train on the first ROWS images only")
    parser.add_argument("--threads", type=_at_least(1), default=2)
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    return parser.parse_args(arguments)


def _at_least(least: int):
    """An argparse type: a whole number that is not smaller than `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
        return value

    return number


def find_absent(names: list[str]) -> dict[str, str]:
    """Install the peers among `names`; returns the reason for each one that cannot be installed."""
    reasons = {name: peers.install(COMPETITORS[name]) for name in names if COMPETITORS[name].is_peer}
    return {name: f"absent: {reason}" for name, reason in reasons.items() if reason}


def run_round(number: int, batch: int, options: argparse.Namespace, absent: dict, folder: Path) -> dict:
    """Every competitor once, in turn, from the same weights; then the matrix-product limit."""
    start = folder / "start.npz"
    np.savez(start, **network.initial_weights(number))
    runs, before = {}, crowd.snapshot()
    for name in options.only:
        job = Job(name, batch, options.epochs, number, str(folder / "rows.npy"), str(start))
        runs[name] = {"error": absent[name]} if name in absent else runner.train(job, options.threads, folder)
        speed = runs[name].get("rows_per_second", 0)
        print(f"batch {batch} round {number + 1} {name}: {speed:,.0f} rows/s", file=sys.stderr, flush=True)
    products = runner.products(batch, options.threads)
    return {"batch": batch, "runs": runs, "products": products, "others": crowd.cores_of_others(before)}


def race(images: Path, options: argparse.Namespace) -> list[dict]:
    """All rounds of all batch sizes."""
    absent = find_absent(options.only)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", fashion.binary_rows(images)[: options.rows])
        return [
            run_round(number, batch, options, absent, folder)
            for batch in options.batch
            for number in range(options.rounds)
        ]


def machine() -> dict:
    """The machine of the measurements."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _processor() -> str:
    """The processor's name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark, print its tables, and write the JSON file if asked."""
    options = parse(arguments)
    images = fashion.find_images(options.data)
    if images is None:
        print(f"No {fashion.IMAGES} in {options.data}: nothing measured. Name its folder with --data.")
        return
    report = {"machine": machine(), "options": vars(options), "rounds": race(images, options)}
    report["summary"] = {}
    for batch in options.batch:
        rounds = [one for one in report["rounds"] if one["batch"] == batch]
        report["summary"][batch] = [summarise(name, rounds) for name in options.only]
        print(f"\n{table(batch, rounds, report['summary'][batch])}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    main()
