"""Resume: a run that was stopped anyhow, anywhere, ends with the bits of one that was not."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import Killed, Spy, bits, custom_encoder, fit, killed_at, rows, same, weights

import elbowroom.training.checkpoints
import elbowroom.training.trainer
from elbowroom import TableVAE
from elbowroom.beta.policies import Constant, TargetRate, Warmup
from elbowroom.data.dataset import Rows, rows_of
from elbowroom.errors import ArtefactError, ElbowroomWarning, ParameterError
from elbowroom.latents.priors import CompositePrior
from elbowroom.models.vae import VAE
from elbowroom.nn.mlp import MLP
from elbowroom.objectives.bounds import Elbo, Iwae
from elbowroom.objectives.terms import Terms
from elbowroom.training.checkpoints import Checkpoints, checksum
from elbowroom.training.history import History
from elbowroom.training.trainer import Trainer
from elbowroom.utils.files import held, write_atomically

SHORT = Trainer(epochs=3, batch_size=16, seed=5, device="cpu")
Trained = tuple[VAE, History]


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:17]) for path in folder.glob("step-*.safetensors"))


def start(folder: Path, step: int, trainer: Trainer = SHORT, **options: Any) -> None:
    """A run that dies in this step, after a checkpoint at every step before."""
    with pytest.raises(Killed):
        fit(trainer, checkpoints=Checkpoints(folder, every=0), objective=killed_at(step), **options)


# ---- exactness ---------------------------------------------------------------------------------------------------


EARLY = {"epochs": 9, "patience": 1, "precision": "bfloat16", "learning_rate": 0.3, "schedule": "constant"}


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"average": False, "schedule": "constant"}, {"held_out": rows(30, 9)}),
        (EARLY, {"held_out": rows(30, 9), "beta": Warmup(fraction=0.3)}),
        ({"batch_size": 8}, {"encoder": custom_encoder(), "held_out": rows(30, 9)}),
        ({}, {"beta": TargetRate(0.5, low=1e-9), "held_out": rows(30, 9)}),
        ({}, {"prior": CompositePrior(2), "held_out": rows(30, 9)}),
    ],
    ids=["plain", "not averaged", "early stop", "custom encoder", "target", "previous posterior"],
)
def test_from_any_step(settings: dict[str, Any], options: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    """Every checkpoint of a run, each resumed on its own."""
    monkeypatch.setattr(elbowroom.training.checkpoints, "KEEP", 1000)
    warnings.simplefilter("ignore", ElbowroomWarning)
    trainer = Trainer(**{**vars(SHORT), **settings})
    whole = fit(trainer, checkpoints=Checkpoints(tmp_path / "all", every=0), **options)
    assert same(whole, fit(trainer, **options))
    assert (len(whole[1]) < trainer.epochs) == (settings is EARLY)
    assert steps(tmp_path / "all") == list(range(1, int(whole[1]["step"][-1]) + 1))
    for path in (tmp_path / "all").glob("step-*"):
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        (tmp_path / "one").mkdir()
        shutil.copy(path, tmp_path / "one")
        assert same(fit(trainer, checkpoints=tmp_path / "one", **options), whole), path.name


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    warnings.simplefilter("ignore", ElbowroomWarning)
    trainer = Trainer(**{**vars(SHORT), "epochs": 9, "patience": 1, "learning_rate": 1e-12})  # nothing improves
    objective = Spy(lambda call, terms: terms._replace(penalty=np.inf) if call == 1 else None)
    whole = fit(trainer, held_out=rows(30, 9), checkpoints=tmp_path, objective=objective)
    assert len(whole[1].notes) == 2
    assert len(whole[1]) < 9
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = Spy(lambda call, terms: None)
    assert same(fit(trainer, held_out=rows(30, 9), checkpoints=tmp_path, objective=again), whole)
    assert again.calls == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_resumed_twice(tmp_path: Path) -> None:
    for step in (2, 3, 3):
        start(tmp_path, step)
    assert same(fit(SHORT, checkpoints=tmp_path, objective=Spy(lambda *_: None)), fit(SHORT))


def test_a_run_multiplies_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    real = elbowroom.training.trainer.fast_products
    monkeypatch.setattr(
        elbowroom.training.trainer, "fast_products", lambda backend: (used.append(backend), real(backend))[1]
    )
    monkeypatch.setattr(elbowroom.training.trainer, "onednn_is_exact", lambda: True)
    for name, begun, now in (("a", "onednn", "default"), ("b", "default", "onednn")):
        monkeypatch.setattr(elbowroom.training.trainer, "product_backend", lambda begun=begun: begun)
        start(tmp_path / name, 5)
        monkeypatch.setattr(elbowroom.training.trainer, "product_backend", lambda now=now: now)
        fit(SHORT, checkpoints=tmp_path / name, objective=Spy(lambda *_: None))
        assert used[-2:] == [begun, begun]
    monkeypatch.setattr(elbowroom.training.trainer, "onednn_is_exact", lambda: False)  # such as on another processor
    monkeypatch.setattr(elbowroom.training.trainer, "product_backend", lambda: "onednn")
    start(tmp_path / "c", 5)
    fit(SHORT, checkpoints=tmp_path / "c", objective=Spy(lambda *_: None))
    assert used[-1] == "default"


def test_another_thread_count_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path, 5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(ElbowroomWarning, match="started with threads 1, not 7: the last bits"):
        fit(SHORT, checkpoints=tmp_path, objective=Spy(lambda *_: None))


# ---- SIGKILL -----------------------------------------------------------------------------------------------------

X = bits(200, 3)
PARAMETERS: dict[str, Any] = {
    "n_latents": 2, "hidden": (16,), "epochs": 40, "batch_size": 16, "random_state": 4, "device": "cpu",
}  # fmt: skip


def train(folder: str, begun: Any) -> None:
    """What the processes that are killed do."""
    torch.set_num_threads(1)
    begun.set()
    TableVAE(**PARAMETERS).fit(X, checkpoint=Checkpoints(folder, every=0))


@pytest.fixture(scope="module")
def server() -> Any:
    """Processes that start at once, because they come from one that has torch already."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork server here")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["elbowroom.estimators.registry"])
    return context


@pytest.mark.filterwarnings("ignore::elbowroom.errors.ElbowroomWarning")
def test_killed_at_random_moments(server: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    whole = TableVAE(**PARAMETERS).fit(X)
    resumed_from = []
    for kill in range(5):
        folder = tmp_path / str(kill)
        for _ in range(2):  # the second process goes on where the first one was killed
            begun = server.Event()
            process = server.Process(target=train, args=(str(folder), begun))
            process.start()
            assert begun.wait(60)
            time.sleep(random.uniform(0.05, 0.5))
            process.kill()
            process.join()
        resumed_from += steps(folder)[-1:]
        again = TableVAE(**PARAMETERS).fit(X, checkpoint=folder)
        assert same((again.model_, again.history_), (whole.model_, whole.history_))
        assert np.array_equal(again.transform(X), whole.transform(X))
    assert len(set(resumed_from)) > 2, "the processes were killed at the same place"


def hold(folder: str, begun: Any) -> None:
    with held(folder):
        begun.set()
        time.sleep(60)


def test_one_run_a_folder(server: Any, tmp_path: Path) -> None:
    begun = server.Event()
    process = server.Process(target=hold, args=(str(tmp_path), begun))
    process.start()
    assert begun.wait(60)
    with pytest.raises(ArtefactError, match="can be used by one run at a time, but another run is using"):
        fit(SHORT, checkpoints=tmp_path)
    process.kill()
    process.join()
    fit(SHORT, checkpoints=tmp_path)  # the lock died with its owner


def test_one_run_a_folder_among_threads(tmp_path: Path) -> None:
    errors = []

    def meanwhile(call: int, terms: Terms) -> None:
        def other() -> None:
            try:
                fit(SHORT, checkpoints=tmp_path)
            except ArtefactError as error:
                errors.append(error.got)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    fit(Trainer(**{**vars(SHORT), "epochs": 1, "batch_size": 50}), checkpoints=tmp_path, objective=Spy(meanwhile))
    assert errors == [f"another run is using {tmp_path}"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert same(fit(SHORT, checkpoints=tmp_path), fit(SHORT))


# ---- broken checkpoints ------------------------------------------------------------------------------------------


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    at = len(content) - 9
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


TORN: dict[str, Callable[[bytes], bytes]] = {
    "truncated": truncated,
    "bit-flipped": flipped,
    "header flipped": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "empty": lambda content: b"",
    "garbage": lambda content: b"garbage" * 1000,
    "longer": lambda content: content + b"x",
}


@pytest.mark.parametrize("how", TORN)
def test_a_broken_checkpoint_is_skipped(how: str, tmp_path: Path) -> None:
    start(tmp_path, 7)
    assert steps(tmp_path) == [6, 7]
    newest = max(tmp_path.glob("step-*"))
    newest.write_bytes(TORN[how](newest.read_bytes()))
    with pytest.warns(ElbowroomWarning, match=f"checkpoint {newest.name} is broken and was skipped"):
        start(tmp_path, 1)  # one step further: 7 again
    assert steps(tmp_path) == [6, 7]
    assert same(fit(SHORT, checkpoints=tmp_path, objective=Spy(lambda *_: None)), fit(SHORT))
    assert not newest.exists()


def test_an_unreadable_checkpoint_is_skipped(tmp_path: Path) -> None:
    start(tmp_path, 7)
    newest = max(tmp_path.glob("step-*"))
    newest.unlink()
    newest.mkdir()
    with pytest.warns(ElbowroomWarning, match="is broken and was skipped"):
        start(tmp_path, 0)


def test_all_broken(tmp_path: Path) -> None:
    start(tmp_path, 7)
    for path in tmp_path.glob("step-*"):
        path.write_bytes(b"")
    with pytest.warns(ElbowroomWarning) as warned, pytest.raises(ArtefactError, match=r"all 2 in .* are broken"):
        fit(SHORT, checkpoints=tmp_path)
    assert len(warned) == 2


def test_what_was_half_written_is_swept_up(tmp_path: Path) -> None:
    start(tmp_path, 7)
    torn = tmp_path / f".{max(tmp_path.glob('step-*')).name[:40]}.0123456789abcdef.tmp"
    torn.write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    start(tmp_path, 0)
    assert not torn.exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path, 2)
    monkeypatch.setattr(elbowroom.training.checkpoints, "FORMAT", 2)
    with pytest.raises(ArtefactError, match=r"must have format 2, but .* has format 1"):
        fit(SHORT, checkpoints=tmp_path)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "as planned")))
    with pytest.raises(OSError, match="as planned"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


# ---- other runs --------------------------------------------------------------------------------------------------


def other_rows() -> Rows:
    x = bits()
    x[49, 5] ^= 1
    return rows_of(x)


@pytest.mark.parametrize(
    ("settings", "options", "named"),
    [
        ({"epochs": 4}, {}, "epochs is 3, not 4"),
        ({"batch_size": 17}, {}, "batch_size is 16, not 17"),
        ({"learning_rate": 0.002}, {}, "learning_rate is 0.001, not 0.002"),
        ({"schedule": "constant"}, {}, "schedule is 'cosine', not 'constant'"),
        ({"average": False}, {}, "average is True, not False"),
        ({"patience": 2}, {}, "patience is None, not 2"),
        ({"seed": 6}, {}, "seed is 5, not 6"),
        ({"precision": "bfloat16"}, {}, "precision is 'float32', not 'bfloat16'"),
        ({}, {"beta": Constant(1.0000001)}, "beta is 'Constant(value=1.0)', not 'Constant(value=1.0000001)'"),
        ({}, {"beta": Warmup()}, "beta is 'Constant(value=1.0)', not 'Warmup("),
        ({}, {"objective": Elbo(0.1)}, "objective is 'Spy()', not 'Elbo(free_bits=0.1)'"),
        ({}, {"objective": Iwae(2)}, "objective is 'Spy()', not 'Iwae(draws=2)'"),
        ({}, {"data": rows(51)}, "data is "),
        ({}, {"data": other_rows()}, "data is "),
        ({}, {"held_out": rows(5)}, "held-out data is 'none', not "),
        ({}, {"encoder": MLP(6, (8,), activation="relu")}, "module encoder"),
        ({}, {"encoder": MLP(6, (9, 8))}, "module encoder"),
        ({}, {"encoder": MLP(6, (8,), gated=True)}, "module encoder"),
    ],
)
def test_another_run_is_refused(settings: dict[str, Any], options: dict[str, Any], named: str, tmp_path: Path) -> None:
    start(tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = {"objective": Spy(lambda *_: None)} | options
    with pytest.raises(ArtefactError) as caught:
        fit(Trainer(**{**vars(SHORT), **settings}), checkpoints=tmp_path, **options)
    assert f"its {named}" in caught.value.got
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_checksums_tell_rows_apart() -> None:
    x = bits(9000)
    context = np.zeros((9000, 2), np.float32)
    other = context.copy()
    other[8999, 1] = 1
    found = {
        checksum(r)
        for r in (
            rows_of(x), rows_of(x[:8999]), rows_of(x.astype(np.float32)), rows_of(x[::-1].copy()), rows_of(1 - x),
            rows_of(x, context), rows_of(x, other), rows_of(x).take(torch.arange(8999)), None,
        )
    }  # fmt: skip
    assert len(found) == 8  # the first 8,999 rows are the same, however they are taken
    assert checksum(rows_of(x)) == checksum(rows_of(bits(9000)))


# ---- folders -----------------------------------------------------------------------------------------------------


def test_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Checkpoints("a").every == 30
    assert Checkpoints(Checkpoints("a", every=5)).every == 5
    assert repr(Checkpoints(Checkpoints("a", 5), every=0)) == "Checkpoints('a', every=0)"
    with pytest.raises(ParameterError, match="every must be a number of seconds"):
        Checkpoints("a", every=-1)
    fit(SHORT, checkpoints=tmp_path)
    assert steps(tmp_path) == [12]
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path / "new", every=10)
    with checkpoints.held():
        assert not checkpoints.due
        now = 10.0
        assert checkpoints.due
        monkeypatch.setattr(
            elbowroom.training.checkpoints, "write_atomically", lambda *_: time.__dict__.update(late=True)
        )

        def slow(*_: Any) -> None:
            nonlocal now
            now += 4

        monkeypatch.setattr(elbowroom.training.checkpoints, "write_atomically", slow)
        checkpoints.save(1, {"a": torch.zeros(1)}, {})
        now += 79
        assert not checkpoints.due  # to write it took 4 s, so the next one is due after 80
        now += 1
        assert checkpoints.due


def test_the_seed_of_a_run(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").seed() is None
    start(tmp_path, 2)
    assert Checkpoints(tmp_path).seed() == 5


@pytest.mark.parametrize("place", ["file", "file/folder"])
def test_a_folder_that_can_not_be_made(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match=r"the folder for checkpoints must be writable, but .* is not"):
        fit(SHORT, checkpoints=tmp_path / place)


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path / "begun", 2)
    whole = fit(SHORT, checkpoints=tmp_path / "finished")

    def refuse(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for name in ("new", "begun"):
        calls = Spy(lambda *_: None)
        with pytest.raises(ArtefactError, match=r"must be writable.*Read-only file system.*Choose"):
            fit(SHORT, checkpoints=tmp_path / name, objective=calls)
        assert calls.calls == 0  # it is said before hours of training, not after
    calls = Spy(lambda *_: None)
    with pytest.raises(ArtefactError, match="its objective"):
        fit(SHORT, checkpoints=tmp_path / "finished", objective=calls)
    assert same(fit(SHORT, checkpoints=tmp_path / "finished"), whole)


def full_disk(folder: str, results: Any) -> None:
    """A process that may write files of 8 kB at most: the system refuses the rest, as on a full disk."""
    import resource

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = TableVAE(**PARAMETERS | {"epochs": 2}).fit(X, checkpoint=Checkpoints(folder, every=0))
    limited = [str(w.message) for w in caught if "no checkpoint" in str(w.message)], weights(estimator.model_).numpy()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    results.put(limited)


def test_a_full_disk_does_not_stop_the_training(server: Any, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    results = server.Queue()
    process = server.Process(target=full_disk, args=(str(tmp_path), results))
    process.start()
    messages, found = results.get(timeout=60)
    process.join()
    assert len(messages) == 25  # 24 steps and the end
    assert (
        f"no checkpoint could be written to {tmp_path} ([Errno 27] File too large); training continues" in messages[0]
    )
    assert messages[-1].endswith("the model is trained nevertheless")
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(found, weights(TableVAE(**PARAMETERS | {"epochs": 2}).fit(X).model_).numpy())


def test_a_disk_that_fills_up_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def fills_up(handle: int) -> None:
        nonlocal count
        count += 1
        if count > 10:  # two for each: the file, and the folder in which it has its name
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.warns(ElbowroomWarning, match=r"No space left on device\); training continues, and will"):
        start(tmp_path, 9)
    assert steps(tmp_path) == [4, 5]
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    assert same(fit(SHORT, checkpoints=tmp_path, objective=Spy(lambda *_: None)), fit(SHORT))


def test_a_run_without_a_seed_of_its_own_keeps_the_one_it_drew(tmp_path: Any) -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    first = TableVAE(2, hidden=(4,), epochs=2).fit(x, checkpoint=tmp_path)
    again = TableVAE(2, hidden=(4,), epochs=2).fit(x, checkpoint=tmp_path)
    assert again.seed_ == first.seed_
    np.testing.assert_array_equal(again.transform(x), first.transform(x))
