"""Stop training, saving and other commands at random moments, resume, and compare every bit with uninterrupted runs.

    python benchmarks/kill.py --kills 40
    python benchmarks/kill.py --kills 10 --kinds fit save --signals KILL TERM

Each kind of work is a process in its own folder. At a random time it receives SIGKILL, SIGTERM or SIGHUP. Then all
outputs must be intact: a saved model loads and is the old or the new one, a file has the complete old or the complete
new content. Then the work is run again, to the end, and its result must be that of an uninterrupted process: weights,
history (except its seconds), lists, tables. A command that receives SIGTERM or SIGHUP must exit with 128 plus the
signal's number, unless it was done, and leave no incomplete files. The script fails if any of this is violated.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAVES = 30
SETTINGS: dict[str, Any] = {"n_latents": 2, "hidden": (16,), "random_state": 0, "device": "cpu"}
FLAGS = "--n-latents 2 --hidden 16 --random-state 0 --device cpu --no-verbose"


def rows(seed: int = 0) -> Any:
    """Correlated numbers, some of them missing in a file."""
    import numpy as np

    draw = np.random.default_rng(seed)
    return (draw.normal(size=(400, 3)) @ np.random.default_rng(1).normal(size=(3, 8))).astype(np.float32)


def clicks(users: int = 300) -> Any:
    """Interactions."""
    import numpy as np
    from scipy import sparse

    return sparse.random(users, 60, 0.1, format="csr", random_state=users, data_rvs=np.ones)


def command(words: str) -> None:
    """Run a command line, and exit with its code."""
    from elbowroom.cli.app import main

    main(words.split())


# ---- kinds of work ---------------------------------------------------------------------------------------------------


def fit() -> None:
    """Train with a checkpoint after every step, so that many kills happen during a write."""
    from elbowroom import TableVAE
    from elbowroom.training.checkpoints import Checkpoints

    estimator = TableVAE(beta="warmup:fraction=0.3", epochs=40, **SETTINGS)
    estimator.fit(rows(), checkpoint=Checkpoints("run", every=0)).save("model")


def save() -> None:
    """Save two models to the same path, in turn."""
    import elbowroom

    models = [elbowroom.load("first"), elbowroom.load("second")]
    for turn in range(SAVES):
        models[turn % 2].save("model")


def partial_fit() -> None:
    """Load a recommender, continue training, and save it to the same path."""
    import elbowroom

    elbowroom.load("model").partial_fit(clicks(320), epochs=15).save("model")


def prepare(folder: Path) -> None:
    """Create the inputs of the work in its folder."""
    import numpy as np
    from elbowroom import InteractionVAE, TableVAE

    names = ",".join("abcdefgh")
    np.savetxt(folder / "rows.csv", rows(), delimiter=",", header=names, comments="")
    some = [[str(value) if (i + j) % 5 else "" for j, value in enumerate(row)] for i, row in enumerate(rows(3))]
    (folder / "gaps.csv").write_text("\n".join([names, *map(",".join, some)]) + "\n")
    (folder / "lists.csv").write_text("of an earlier command\n")
    (folder / "full.csv").write_text("of an earlier command\n")
    for seed, name in enumerate(("first", "second")):
        TableVAE(**{**SETTINGS, "epochs": 2, "random_state": seed}).fit(rows()).save(folder / name)
    TableVAE(**SETTINGS, epochs=2, schema="infer").fit(rows()).save(folder / "people")
    InteractionVAE(**SETTINGS, epochs=2).fit(clicks()).save(folder / "model")


@dataclass(frozen=True)
class Kind:
    """A kind of work: the function that a process runs in its folder, and the models and files that it writes."""

    work: Callable[..., None]
    arguments: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    given: tuple[str, ...] = ()  # the models and files that exist beforehand


SWEEP = f"sweep rows.csv --beta 0.5,1,2 --out sweep --epochs 12 {FLAGS}"
SWEPT = ("sweep/beta-0.5", "sweep/beta-1", "sweep/beta-2")
KINDS = {
    "fit": Kind(fit, models=("model",)),
    "save": Kind(save, models=("model",)),
    "sweep": Kind(command, (SWEEP,), models=SWEPT),
    "sweep-jobs": Kind(command, (f"{SWEEP} --jobs 2",), models=SWEPT),
    "recommend": Kind(command, ("recommend model --out lists.csv",), files=("lists.csv",), given=("lists.csv",)),
    "impute": Kind(command, ("impute people gaps.csv --out full.csv",), files=("full.csv",), given=("full.csv",)),
    "partial_fit": Kind(partial_fit, models=("model",), given=("model",)),
}
SIGNALS = {name: getattr(signal, f"SIG{name}") for name in ("KILL", "TERM", "HUP") if hasattr(signal, f"SIG{name}")}
WORKSHOP = multiprocessing.get_context("forkserver")  # its processes start quickly, with everything imported


# ---- stopping it -----------------------------------------------------------------------------------------------------


def _work(kind: str, folder: str, begun: Any) -> None:
    os.setsid()
    os.chdir(folder)
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    begun.set()
    try:
        KINDS[kind].work(*KINDS[kind].arguments)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # ends pools, as the interpreter does before it exits


def begin(kind: str, folder: Path) -> Any:
    """A process that has just started to work."""
    begun = WORKSHOP.Event()
    process = WORKSHOP.Process(target=_work, args=(kind, str(folder), begun))
    process.start()
    begun.wait()
    return process


def finish(kind: str, folder: Path) -> dict[str, str]:
    """Run or resume the work to its end, and return its results."""
    process = begin(kind, folder)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{kind} in {folder} ended with status {process.exitcode}")
    return results(kind, folder)


def results(kind: str, folder: Path) -> dict[str, str]:
    """Checksums of the existing models and files of some work."""
    saved = (name for name in KINDS[kind].models if (folder / name / "config.json").exists())  # its index is last
    found = {name: _of_model(folder / name) for name in saved}
    return found | {
        name: _short((folder / name).read_bytes()) for name in KINDS[kind].files if (folder / name).exists()
    }


def _of_model(path: Path) -> str:
    import elbowroom

    model = elbowroom.load(path)
    weights = [tensor.numpy().tobytes() for tensor in model.model_.state_dict().values()]
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in model.history_]
    return _short([weights, records, model.history_.notes])


def _short(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


def _in_order(process: Any, number: int, folder: Path) -> bool:
    """Whether a command exited as expected, and left no incomplete files.

    Before it starts and after it is done, the signal itself ends it, which a shell shows as the same status.
    """
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
    well = process.exitcode in (0, 128 + number, -number) and not left
    if not well:
        print(f"  status {process.exitcode}, left: {', '.join(left) or 'nothing'}")
    return well


@dataclass
class Outcome:
    """The counts of outcomes of one kind of work under one signal."""

    stopped: int = 0
    good: int = 0
    clean: int = 0
    same: int = 0


def stop(kind: str, number: int, kills: int, scratch: Path, moments: random.Random) -> Outcome:
    """Stop some work at random moments and resume it, each time in a new folder."""
    new, first = scratch / "new", scratch / "first"
    shutil.copytree(new, first)
    before = results(kind, first) if KINDS[kind].given else {}
    start = time.monotonic()
    whole = finish(kind, first)
    seconds, outcome = time.monotonic() - start, Outcome()
    known = {name: {whole[name], before.get(name)} for name in whole}
    if kind == "save":
        known["model"] |= {_of_model(first / name) for name in ("first", "second")}
    shutil.rmtree(first)
    for _ in range(kills):
        folder = scratch / "stopped"
        shutil.copytree(new, folder)
        process = begin(kind, folder)
        process.join(moments.uniform(0, seconds))
        outcome.stopped += process.exitcode is None
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
        process.join()
        _wait_for_workers(process.pid)
        outcome.good += _good(kind, folder, known)
        outcome.clean += (
            KINDS[kind].work is not command or number == signal.SIGKILL or _in_order(process, number, folder)
        )
        done = kind == "partial_fit" and results(kind, folder) == whole  # running it twice would give another result
        outcome.same += (whole if done else finish(kind, folder)) == whole
        shutil.rmtree(folder)
    return outcome


def _wait_for_workers(group: int) -> None:
    """Wait until all processes of the group have ended."""
    with suppress(ProcessLookupError):
        for _ in range(1000):
            os.killpg(group, 0)
            time.sleep(0.02)
        raise SystemExit(f"processes of the group {group} have not ended")


def _good(kind: str, folder: Path, known: dict[str, set[str | None]]) -> bool:
    """Whether all outputs are intact, and everything that existed still exists."""
    from elbowroom.errors import ElbowroomError

    try:
        found = results(kind, folder)
    except ElbowroomError as error:
        print(f"  {error}")
        return False
    return set(found) >= set(KINDS[kind].given) and all(found[name] in known[name] for name in found)


def compare(kinds: list[str], signals: list[str], kills: int, moments: random.Random) -> bool:
    """Print a table with a line for each kind and signal; returns whether everything is correct."""
    row = "{:<12} {:<5} {:>6} {:>8} {:>12} {:>15} {:>10}"
    print(row.format("work", "sent", "times", "in time", "all is good", "ends in order", "same bits"))
    well = True
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "new").mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare(scratch / "new")
        (scratch / "recommender").mkdir()
        for kind in kinds:
            _keep_given(kind, scratch)
            for name in signals:
                of = stop(kind, SIGNALS[name], kills, scratch, moments)
                print(row.format(kind, name, kills, of.stopped, of.good, of.clean, of.same), flush=True)
                well &= of.good == of.clean == of.same == kills
    return well


def _keep_given(kind: str, scratch: Path) -> None:
    """Delete the model if the work expects none."""
    model, aside = scratch / "new" / "model", scratch / "recommender" / "model"
    wanted = kind in ("recommend", "partial_fit")
    if wanted and aside.exists():
        aside.rename(model)
    elif not wanted and model.exists():
        model.rename(aside)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="times that each work is stopped by each signal")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS), help=", ".join(SIGNALS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is stopped")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    WORKSHOP.set_forkserver_preload(["elbowroom.cli.commands", "elbowroom.cli.ranges", "elbowroom.cli.recommenders"])
    start = time.monotonic()
    well = compare(options.kinds, options.signals, options.kills, random.Random(options.seed))
    print(f"{'all correct' if well else 'NOT all correct'}; {(time.monotonic() - start) / 60:.1f} minutes")
    if not well:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
