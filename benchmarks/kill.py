"""Stop training, saving and other commands at random moments, go on, and compare every bit with what nobody stopped.

    python benchmarks/kill.py --kills 40
    python benchmarks/kill.py --kills 10 --kinds fit save --signals KILL TERM

Each kind of work is a process in a folder of its own. Some time after it has begun it gets SIGKILL, SIGTERM or SIGHUP.
Then what has a name must be good: a saved model loads and is the old or the new one, a file has the whole old or the
whole new content. Then the work is done again, to the end, and its result must be that of a process that was left
alone: weights, history (but for its seconds), lists, tables. A command that gets SIGTERM or SIGHUP must end with 128
and the signal's number, unless it was done, and leave nothing half written. The script fails if any of this does not
hold.
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
    """Numbers with something to learn, and some that are missing if they come from a file."""
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


# ---- what is stopped -------------------------------------------------------------------------------------------------


def fit() -> None:
    """Train with a checkpoint after every step, many of which are being written when the process is stopped."""
    from elbowroom import TableVAE
    from elbowroom.training.checkpoints import Checkpoints

    estimator = TableVAE(beta="warmup:fraction=0.3", epochs=40, **SETTINGS)
    estimator.fit(rows(), checkpoint=Checkpoints("run", every=0)).save("model")


def save() -> None:
    """Save two models to one name, in turn."""
    import elbowroom

    models = [elbowroom.load("first"), elbowroom.load("second")]
    for turn in range(SAVES):
        models[turn % 2].save("model")


def partial_fit() -> None:
    """Load a recommender, train on, and save it to its name."""
    import elbowroom

    elbowroom.load("model").partial_fit(clicks(320), epochs=15).save("model")


def prepare(folder: Path) -> None:
    """What the work finds in its folder."""
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
    """Work that is stopped: what a process does in its folder, and the models and files that come of it."""

    work: Callable[..., None]
    arguments: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    given: tuple[str, ...] = ()  # of these models and files, those that there are beforehand


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
WORKSHOP = multiprocessing.get_context("forkserver")  # its processes start at once, with everything imported


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
    """A process that has just begun to work."""
    begun = WORKSHOP.Event()
    process = WORKSHOP.Process(target=_work, args=(kind, str(folder), begun))
    process.start()
    begun.wait()
    return process


def finish(kind: str, folder: Path) -> dict[str, str]:
    """Work to the end, or go on to it; what came of it."""
    process = begin(kind, folder)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{kind} in {folder} ended with status {process.exitcode}")
    return results(kind, folder)


def results(kind: str, folder: Path) -> dict[str, str]:
    """Checksums of the models and files of some work, as far as they are there."""
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
    """Whether a command has ended as it should, and left nothing that is half written.

    Before it has begun and after it is done, it ends by the signal itself, which a shell shows as the same status.
    """
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
    well = process.exitcode in (0, 128 + number, -number) and not left
    if not well:
        print(f"  status {process.exitcode}, left: {', '.join(left) or 'nothing'}")
    return well


@dataclass
class Outcome:
    """What came of one kind of work under one signal: how many times each thing was so."""

    stopped: int = 0
    good: int = 0
    clean: int = 0
    same: int = 0


def stop(kind: str, number: int, kills: int, scratch: Path, moments: random.Random) -> Outcome:
    """Stop some work at random moments and go on, each time in a new folder."""
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
        done = kind == "partial_fit" and results(kind, folder) == whole  # twice would be something else
        outcome.same += (whole if done else finish(kind, folder)) == whole
        shutil.rmtree(folder)
    return outcome


def _wait_for_workers(group: int) -> None:
    """Wait until what the process has started has ended too."""
    with suppress(ProcessLookupError):
        for _ in range(1000):
            os.killpg(group, 0)
            time.sleep(0.02)
        raise SystemExit(f"processes of the group {group} have not ended")


def _good(kind: str, folder: Path, known: dict[str, set[str | None]]) -> bool:
    """Whether all that has a name is whole, and what was there is still there."""
    from elbowroom.errors import ElbowroomError

    try:
        found = results(kind, folder)
    except ElbowroomError as error:
        print(f"  {error}")
        return False
    return set(found) >= set(KINDS[kind].given) and all(found[name] in known[name] for name in found)


def compare(kinds: list[str], signals: list[str], kills: int, moments: random.Random) -> bool:
    """Print a table, a kind and a signal a line; whether all is as it should be."""
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
    """Leave the name of a model free for work that does not find one there."""
    model, aside = scratch / "new" / "model", scratch / "recommender" / "model"
    wanted = kind in ("recommend", "partial_fit")
    if wanted and aside.exists():
        aside.rename(model)
    elif not wanted and model.exists():
        model.rename(aside)


def main() -> None:
    """The command line."""
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
    print(f"{'all as it should be' if well else 'NOT as it should be'}; {(time.monotonic() - start) / 60:.1f} minutes")
    if not well:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
