"""Signals that ask a program to end, and logs that can not be written: neither costs what was trained."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from small import WINE, table
from training import Spy, fit, same

import elbowroom
from elbowroom import InteractionVAE, TableVAE
from elbowroom.cli.app import run
from elbowroom.data.io.readers import read
from elbowroom.errors import ElbowroomWarning, warn
from elbowroom.training.checkpoints import Checkpoints
from elbowroom.training.trainer import Trainer
from elbowroom.utils import signals
from elbowroom.utils.files import write_atomically
from elbowroom.utils.progress import Progress
from elbowroom.utils.signals import Interrupt, Stopped, stopping

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
SHORT = Trainer(epochs=3, batch_size=16, seed=5, device="cpu")  # of four steps an epoch
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
each_ending = pytest.mark.parametrize("number", signals.ENDING)


@pytest.fixture
def came() -> Iterator[list[int]]:
    """The signals that come to handlers of the program's."""
    found: list[int] = []
    before = {number: signal.signal(number, lambda n, _: found.append(n)) for number in signals.ENDING}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


# ---- the contexts ----------------------------------------------------------------------------------------------------


@each_ending
def test_a_signal_waits_for_the_end_and_then_goes_to_its_handler(number: int, came: list[int]) -> None:
    handler = signal.getsignal(number)
    with Interrupt() as within:
        signal.raise_signal(number)
        signal.raise_signal(number)  # a terminal that is closed sends two
        assert within.came == number
        assert came == []
    assert came == [number]
    assert signal.getsignal(number) is handler


def test_of_several_signals_the_one_that_ends_the_process_counts(came: list[int]) -> None:
    with Interrupt() as within:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert within.came == signal.SIGTERM
    assert came == [signal.SIGTERM]
    with Interrupt():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # somebody is in a hurry
    assert came == [signal.SIGTERM] * 2


def test_the_outer_context_learns_of_a_signal_and_the_inner_of_an_earlier_one(came: list[int]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        acted: list[int] = []
        with Interrupt(lambda acted=acted: acted.append(1)) as outer:  # type: ignore[misc]
            with Interrupt() as inner:
                signal.raise_signal(number)
            assert outer.came == inner.came == number
            assert acted == [1]
            with Interrupt() as later:
                assert later.came == number
    assert came == [signal.SIGTERM]


def test_the_end_of_what_nobody_waits_for(came: list[int]) -> None:
    with Interrupt() as within:
        within.end()
        signal.raise_signal(signal.SIGTERM)
        within.end()  # a handler of the program's waits for it
    with Interrupt(whole=True), Interrupt() as within:
        within.end()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            within.end()


@each_ending
def test_an_ignored_signal_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interrupt() as within, stopping():
            signal.raise_signal(number)
        assert not within.came
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_other_threads_leave_signals_alone() -> None:
    def enter() -> None:
        with Interrupt(), stopping():
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[Any] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


@each_ending
def test_a_program_stops_once(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before, tidied = signal.getsignal(number), []
    with stopping():
        try:
            signal.raise_signal(number)
        except Stopped as stopped:
            signal.raise_signal(number)
            tidied.append(stopped.number == number)
    assert tidied == [True]
    assert signal.getsignal(number) is before
    monkeypatch.setattr(signals, "AT_ONCE", 0.0)
    with stopping():
        for _ in range(2):  # after an ignored signal, the next one still has an effect
            with pytest.raises(Stopped):
                signal.raise_signal(number)


# ---- training --------------------------------------------------------------------------------------------------------


def sends(number: int, *calls: int) -> Spy:
    """An objective at whose calls a signal comes."""
    return Spy(lambda call, terms: signal.raise_signal(number) if call in calls else None)


@each_ending
def test_a_signal_keeps_the_model_so_far_and_a_checkpoint(number: int, came: list[int], tmp_path: Path) -> None:
    whole = fit(SHORT, objective=sends(number))
    with pytest.warns(ElbowroomWarning, match="interrupted in epoch 3 of 3; the model of epoch 2 is kept"):
        _, history = fit(SHORT, objective=sends(number, 9), checkpoints=tmp_path)
    assert came == [number]
    assert not history.complete
    assert [path.name[:17] for path in tmp_path.glob("step-*")] == ["step-000000000010"]
    assert same(fit(SHORT, objective=sends(number), checkpoints=tmp_path), whole)


def test_the_estimator_has_the_model_so_far_when_the_handler_is_called() -> None:
    def handler(*_: object) -> None:
        reached.append((len(model.history_), model.score(WINE)))
        raise SystemExit(3)

    class Encoder(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(self.training)
            if self.training and calls.count(True) == 5:  # an epoch has two steps
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(x)

    calls: list[bool] = []
    reached: list[Any] = []
    model = table(encoder=Encoder(13, 4))
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.warns(ElbowroomWarning, match="interrupted in epoch 3"), pytest.raises(SystemExit):
            model.fit(WINE)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert reached == [(2, model.score(WINE))]


LIBRARY = """
import os, sys
from small import WINE, table
from elbowroom.training.checkpoints import Checkpoints
import elbowroom.training.trainer as trainer

def step(run, *batch, train=trainer.Run._train_step):
    train(run, *batch)
    if run.step == 7:
        os.kill(os.getpid(), {signal})

trainer.Run._train_step = step
table().fit(WINE, checkpoint=sys.argv[1])
print("not reached")
"""


def test_the_system_s_handler_ends_the_process_after_a_checkpoint(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LIBRARY.format(signal=int(signal.SIGTERM)), str(tmp_path / "run")]
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout == ""
    assert [path.name[:17] for path in (tmp_path / "run").glob("step-*")] == ["step-000000000007"]
    again, whole = table().fit(WINE, checkpoint=tmp_path / "run"), table().fit(WINE)
    assert same((again.model_, again.history_), (whole.model_, whole.history_))


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and models."""
    folder = tmp_path_factory.mktemp("made")
    rows = np.random.default_rng(0).normal(size=(400, 4))
    np.savetxt(folder / "rows.csv", rows, delimiter=",", header="a,b,c,d", comments="")
    (folder / "gaps.csv").write_text("a,b,c,d\n1,,2,3\n4,1,,2\n")
    clicks = sparse.random(30, 12, 0.3, format="csr", random_state=0, data_rvs=np.ones)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table(schema="infer", epochs=1).fit(read(str(folder / "rows.csv")).x).save(folder / "people")
        InteractionVAE(n_latents=2, hidden=(4,), epochs=1, random_state=0).fit(clicks).save(folder / "clicks")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it, which is the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


FITTED = ["--epochs", "6", "--hidden", "8", "--batch-size", "16", "--random-state", "0", "--n-latents", "2"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (1, 129), (signal.SIGINT, 130)])
def test_a_fit_that_is_stopped_saves_the_model_so_far(
    here: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def step(run: Any, *batch: Any, train: Any = elbowroom.training.trainer.Run._train_step) -> None:
        train(run, *batch)
        if run.step == 60:  # an epoch has 23
            signal.raise_signal(number)

    words = ["rows.csv", *FITTED]
    assert run(["fit", *words, "--out", "whole"]) == 0
    monkeypatch.setattr(elbowroom.training.trainer.Run, "_train_step", step)
    capsys.readouterr()
    assert run(["fit", *words, "--out", "m"]) == code
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "interrupted; the model so far is in m; go on: elbowroom resume m.run"
    assert err.splitlines()[-1] == "note: interrupted in epoch 3 of 6; the model of epoch 2 is kept"
    assert len(elbowroom.load("m").history_) == 2
    assert run(["resume", "m.run"]) == 0
    found, whole = elbowroom.load("m"), elbowroom.load("whole")
    assert same((found.model_, found.history_), (whole.model_, whole.history_))
    assert not Path("m.run").exists()


COMMANDS = {
    "fit": f"fit rows.csv --out m {' '.join(FITTED)}",
    "encode": "encode people rows.csv --out z.npy",
    "sample": "sample people -n 10 --out new.csv",
    "score": "score people rows.csv --draws 5 --out scores.csv",
    "impute": "impute people gaps.csv --out full.csv",
    "impute many": "impute people gaps.csv --n 3 --out full.csv",
    "recommend": "recommend clicks --out lists.csv",
    "report": "report people rows.csv --out report.html",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_stopped_leaves_nothing_half_done(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The signal comes where the result is being written, to a file that is not there yet."""

    def sync(number: int, real: Callable[[int], None] = os.fsync) -> None:
        real(number)
        signal.raise_signal(signal.SIGTERM)

    before = {path.name for path in here.iterdir()}
    monkeypatch.setattr(os, "fsync", sync)
    code = run(COMMANDS[name].split())
    out, err = capsys.readouterr()
    left = {path.name for path in here.iterdir()} - before
    assert code == 143
    assert out == ""
    assert [line for line in err.splitlines() if line.startswith("error: ")] == ["error: interrupted by SIGTERM"]
    assert "Traceback" not in err
    assert left == ({"full-1.csv", "full-2.csv", "full-3.csv"} if name == "impute many" else set())


def test_a_fit_that_has_ended_is_saved_and_done(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(*arguments: Any, real: Any = elbowroom.estimators.base.generate.settle_prior) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(elbowroom.estimators.base.generate, "settle_prior", settle)
    assert run(["fit", "rows.csv", "--out", "m", *FITTED]) == 0
    assert elbowroom.load("m").history_.complete
    assert not Path("m.run").exists()


WAITING = "--beta 0.1,1,4,8 --epochs 400 --hidden 8 --n-latents 2 --random-state 0 --no-warm-start --jobs 2 --out s"


@pytest.mark.long
def test_a_sweep_in_processes_ends_with_its_workers_and_keeps_their_work(here: Path) -> None:
    words = [sys.executable, "-m", "elbowroom.cli", "sweep", "rows.csv", *WAITING.split()]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True)
    until(lambda: len(list(here.glob("s/beta-*.run"))) == 2)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does, and to those that wait for work too
    assert process.wait(120) == 143
    assert process.stderr is not None
    assert process.stderr.read().splitlines()[-1] == "error: interrupted by SIGTERM"
    until(lambda: not alive(process.pid))
    left = sorted(path.name for path in (here / "s").iterdir())
    assert left[-1] == "sweep.json"
    assert len(left) == 3
    for folder in here.glob("s/beta-*.run"):
        assert Checkpoints(folder).load() is not None
    assert not list(here.glob("s/**/.*"))


@pytest.mark.long
def test_stopped_at_random_moments() -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "kill.py"
    done = subprocess.run([sys.executable, script, "--kills", "2"], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# ---- logs that can not be written ------------------------------------------------------------------------------------


class Broken:
    """A stream that takes nothing."""

    def __init__(self, error: Exception, terminal: bool = False) -> None:
        self.error, self.terminal = error, terminal

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        return self.terminal


STREAMS = {
    "none": None,
    "closed": Broken(ValueError("I/O operation on closed file")),
    "pipe": Broken(BrokenPipeError(32, "Broken pipe")),
    "full": Broken(OSError(28, "No space left on device")),
    "terminal": Broken(OSError(5, "Input/output error"), terminal=True),
    "object": object(),
}
each_stream = pytest.mark.parametrize("name", STREAMS)


@each_stream
def test_a_log_that_can_not_be_written_ends_no_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 9, "patience": 1, "learning_rate": 1.0}  # it stops early, and warns of it
    with pytest.warns(ElbowroomWarning, match="stopped early"):
        whole = table(**settings).fit(WINE)
    monkeypatch.setattr(warnings, "showwarning", lambda *_: sys.stderr.write("warning"))
    monkeypatch.setattr(sys, "stderr", STREAMS[name])
    found = table(**settings, verbose=True).fit(WINE)
    assert same((found.model_, found.history_), (whole.model_, whole.history_))


def test_a_terminal_that_is_closed_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.openpty()
    terminal = os.fdopen(writer, "w")
    progress = Progress(3, stream=terminal)
    close = Spy(lambda call, _: os.close(reader) if call == 5 else None)
    whole = fit(SHORT, objective=Spy(lambda *_: None))
    assert same(fit(SHORT, objective=close, progress=progress), whole)
    assert progress.log.stream is None
    progress.say("nothing comes of it")


def test_a_warning_is_an_error_where_that_is_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ElbowroomWarning, match="look here"):
            warn("look here")
    with pytest.warns(ElbowroomWarning) as caught:
        warn("look here")
    assert caught[0].filename == __file__


@each_stream
def test_a_command_whose_log_can_not_be_written(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", STREAMS[name])
    assert run(["fit", "rows.csv", "--out", "m", *FITTED]) == 0
    assert run(["info", "none", "--debug"]) == 1
    out = capsys.readouterr().out
    assert elbowroom.load("m").history_.complete
    assert "saved to m" in out
    assert "error" not in out


def test_an_answer_that_can_not_be_written(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdout", STREAMS["full"])
    assert run(["fit", "rows.csv", "--out", "m", *FITTED]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: the answer must be written to standard output, but that failed (No space left")
    assert elbowroom.load("m").history_.complete
    monkeypatch.setattr(sys, "stdout", STREAMS["pipe"])
    assert run(["info", "m"]) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("streams", ["2>/dev/full", ">/dev/full 2>&1", "2>&-", ">&- 2>&-"])
def test_python_itself_does_not_fail_over_a_stream(streams: str) -> None:
    line = f"{sys.executable} -m elbowroom.cli fit --none {streams}"
    assert subprocess.run(["bash", "-c", line], env=ENVIRONMENT).returncode == 2


def test_what_was_half_written_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(number: int) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(Stopped):
        write_atomically(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_second_fit_is_not_stopped_by_what_ended_the_first(came: list[int]) -> None:
    with pytest.warns(ElbowroomWarning, match="interrupted"):
        fit(SHORT, objective=sends(signal.SIGTERM, 9))
    assert fit(SHORT, objective=sends(signal.SIGTERM))[1].complete
    assert isinstance(TableVAE(n_latents=1, hidden=(), epochs=1).fit(WINE).history_.complete, bool)
