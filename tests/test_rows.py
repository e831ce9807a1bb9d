"""Rows: read all at little memory, moved to a device or batch by batch, and options learned from every one of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from small import counts, table

from elbowroom.data import dataset as module
from elbowroom.data.dataset import BinarizedRows, Rows, SparseRows, joined, rows_of
from elbowroom.errors import DataError
from elbowroom.models.build import ENOUGH, MANY, enough
from elbowroom.training.trainer import Run
from elbowroom.utils.devices import free_memory

CPU, META = torch.device("cpu"), torch.device("meta")
X = np.random.default_rng(0).integers(0, 3, (100, 4)).astype(np.float32)


def kinds() -> dict[str, Rows]:
    """Rows of every kind, each with context and base."""
    made = {"dense": rows_of(X, X[:, :2]), "sparse": rows_of(sparse.csr_matrix(X), X[:, :2])}
    made["drawn"] = BinarizedRows(made["dense"].x / 2, made["dense"].context)
    for some in made.values():
        some.base = torch.arange(100.0)
    return made | {f"some {name}": some.take(torch.arange(90, 10, -3)) for name, some in made.items()}


over_kinds = pytest.mark.parametrize("kind", kinds())


def same(a: Any, b: Any) -> bool:
    return all((u is None and v is None) or torch.equal(u, v) for u, v in zip(a, b, strict=True))


# ---- read all --------------------------------------------------------------------------------------------------------


@over_kinds
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_all_rows_in_order(kind: str, size: int) -> None:
    data = kinds()[kind]
    batches = list(data.in_order(size))
    assert max(len(batch.x) for batch in batches) == min(size, len(data))
    whole = data.batch(torch.arange(len(data)))
    assert torch.equal(torch.cat([batch.x for batch in batches]), whole.x)
    assert torch.equal(torch.cat([batch.context for batch in batches]), whole.context)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(("features", "rows"), [(1, 4096), (64, 4096), (1000, 262), (10**6, 1)])
def test_wide_rows_are_read_a_few_at_once(features: int, rows: int) -> None:
    assert Rows(torch.empty(1, features, device="meta")).at_once == rows


@pytest.mark.parametrize("dim", [0, 1])
def test_parts_are_joined_as_by_torch(dim: int) -> None:
    parts = list(torch.randn(10, 10).split([3, 4, 3], dim))
    assert torch.equal(joined(iter(parts), 10, dim), torch.cat(parts, dim))


@pytest.mark.parametrize(("features", "rows"), [(1, ENOUGH), (784, ENOUGH), (2000, MANY // 2000), (10**6, 2000)])
def test_units_are_learned_from_fewer_rows_where_they_are_wide(features: int, rows: int) -> None:
    assert enough(features) == rows


# ---- options ---------------------------------------------------------------------------------------------------------


def rare(form: str) -> Any:
    """Zeros, ones and a single 5, in a row that is not among evenly spaced ones."""
    x = np.random.default_rng(0).integers(0, 2, (3 * ENOUGH, 2)).astype(np.float32)
    x[4, 1] = 5
    assert 4 not in module.evenly(len(x), ENOUGH)
    return sparse.csr_matrix(x) if form == "sparse" else x


@pytest.mark.parametrize("form", ["dense", "sparse", "mapped"])
@pytest.mark.parametrize(("likelihood", "learned"), [("binomial", "total=5"), ("categorical", "classes=6")])
def test_options_are_learned_from_every_row(form: str, likelihood: str, learned: str, tmp_path: Any) -> None:
    x = rare(form)
    if form == "mapped":
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = counts(likelihood=likelihood, epochs=1, batch_size=20_000).fit(x)
    assert model.likelihood_ == f"{likelihood}:{learned}"


def test_options_of_groups_are_those_of_their_columns() -> None:
    x = rare("dense")
    model = table(likelihood={"binomial": [1], "categorical": [0]}, epochs=1, batch_size=20_000).fit(x)
    assert model.likelihood_ == {"binomial:total=5": [1], "categorical:classes=2": [0]}


def test_a_rare_value_is_looked_at_before_a_likelihood_is_chosen() -> None:
    model = table(epochs=1, batch_size=20_000).fit(rare("dense"))
    assert model.likelihood_ == {"gaussian": [1], "bernoulli": [0]}


# ---- devices ---------------------------------------------------------------------------------------------------------


def small_device(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: free)


def test_free_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory(CPU) == free_memory(META) == float("inf")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert free_memory(torch.device("cuda")) == 7


@over_kinds
def test_on_the_cpu_nothing_is_moved(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_device(monkeypatch, 0)
    data = kinds()[kind]
    moved = data.to(CPU)
    assert moved.x is data.x
    assert moved.index is data.index
    assert same(moved.batch(torch.arange(5)), data.batch(torch.arange(5)))


@pytest.mark.parametrize("kind", ["dense", "some dense"])
def test_rows_that_fit_move_to_the_device_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = kinds()[kind]
    small_device(monkeypatch, 2 * len(data) * 4 * 4)
    moved = data.to(META)
    assert moved.x.device == moved.context.device == moved.base.device == META  # type: ignore[union-attr]
    assert moved.x.shape == (len(data), 4)  # of a part of the rows, that part alone
    assert moved.index is None
    assert len(moved) == len(data)
    batch = moved.batch(torch.arange(5, device=META))
    assert batch.x.shape == (5, 4)
    assert moved.batch(torch.arange(5)).x.device == META  # an index may be anywhere


@over_kinds
def test_rows_that_do_not_fit_are_moved_batch_by_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = kinds()[kind]
    small_device(monkeypatch, 2 * len(data) * 4 * 4 - 1)
    moved = data.to(META)
    assert moved.x is data.x
    if "drawn" in kind:  # whose draws need values, which this device has not
        assert moved._gather(torch.arange(5)).device == META
        return
    batch = moved.batch(torch.arange(5))
    assert {values.device for values in batch if values is not None} == {META}
    assert batch.x.shape == (5, 4)
    moved.device = CPU
    assert same(moved.batch(torch.arange(5)), data.batch(torch.arange(5)))


class Pretended(Rows):
    """Rows on a device that is really the CPU, so that their values can be seen."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.home = torch.device("meta")  # anything but the device


@pytest.mark.parametrize("part", [False, True])
def test_rows_keep_their_values_when_they_move(part: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VALUES", 28)  # seven rows at once
    monkeypatch.setattr(Rows, "_at", lambda rows, index: index if rows.index is None else rows.index[index])
    x = torch.from_numpy(X)
    data = Pretended(x, x[:, :2], x[:, 0])
    if part:
        data = data.take(torch.arange(90, 10, -3))
    moved = data.to(CPU)
    assert moved.x is not data.x
    index = torch.tensor([3, 0, 25])
    assert same(moved.batch(index), data.batch(index))


def test_float64_rows_become_float32_where_a_device_has_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[torch.dtype] = []
    monkeypatch.setattr(torch.Tensor, "to", lambda values, *_, **__: sent.append(values.dtype) or values)
    data = SparseRows(sparse.csr_matrix(X.astype(float)))
    data.device = torch.device("mps")
    data._sent(torch.zeros(2, dtype=torch.float64))
    data._sent(torch.zeros(2, dtype=torch.uint8))
    assert sent == [torch.float32, torch.uint8]


def test_batches_are_pinned_on_their_way_to_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: done.append("pinned") or values)
    monkeypatch.setattr(torch.Tensor, "to", lambda values, *given, **how: done.append((given, how)) or values)
    data = rows_of(X)
    data.device = torch.device("cuda")
    data._sent(torch.zeros(2))
    assert done == ["pinned", ((data.device,), {"non_blocking": True})]


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_scores_and_latents_do_not_keep_what_a_batch_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of a batch goes into one array of results: kept in a list, it would scatter the heap."""
    x = np.random.default_rng(0).normal(size=(3000, 2))
    model = table(epochs=1).fit(x)
    joins: list[int] = []

    def noted(parts: Any, n: int, dim: int = 0) -> Any:
        assert not isinstance(parts, list | tuple)
        joins.append(n)
        return joined(parts, n, dim)

    for user in ("score", "generate"):
        monkeypatch.setattr(f"elbowroom.tasks.{user}.joined", noted)
    model.score(x)
    model.log_likelihood(x, n_draws=2)
    model.transform(x)
    model.inverse_transform(x[:2000])
    model.reconstruct(x)
    model.sample_posterior(x, 2)
    model.sample(1500, random_state=0)
    assert joins == [3000, 3000, 3000, 2000, 3000, 3000, 1500]


def test_scoring_keeps_the_memory_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("elbowroom.tasks.score.keep_memory", lambda: asked.append(True))
    x = np.random.default_rng(0).normal(size=(30, 2))
    model = table(epochs=1, validation_fraction=0).fit(x)
    before = len(asked)
    model.score(x)
    model.log_likelihood(x, n_draws=2)
    assert len(asked) == before + 2


# ---- mapped files ----------------------------------------------------------------------------------------------------


def mapped(tmp_path: Path, mode: str = "r") -> np.memmap:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(64, 3)))
    return np.load(tmp_path / "x.npy", mmap_mode=mode)  # type: ignore[no-any-return, call-overload]


def test_a_mapped_file_is_watched_where_rows_are_read_from_it(tmp_path: Path) -> None:
    x = mapped(tmp_path)
    for view in (x, x[3:], np.asarray(x), x.reshape(32, 6)):
        assert rows_of(view).file is not None
    for copied in (x * 1.0, x[:, ::2], x.astype(np.float16), np.array(x)):
        assert rows_of(copied).file is None
    moved = rows_of(x).to(META)
    assert moved.file is None


@pytest.mark.parametrize("how", ["written", "shorter", "longer"])
def test_rows_of_a_file_that_was_changed_are_refused(tmp_path: Path, how: str) -> None:
    data, path = rows_of(mapped(tmp_path)), tmp_path / "x.npy"
    data.batch(torch.arange(64))
    if how == "written":
        np.load(path, mmap_mode="r+")[5] = 0.0
        os.utime(path, (0, 0))  # which the clock of files, a coarse one, is not at
    else:
        os.truncate(path, 10 if how == "shorter" else 10**6)
    with pytest.raises(DataError, match=r"x\.npy was changed"):
        data.take(torch.arange(5)).batch(torch.arange(5))


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_lost_its_name_keeps_its_rows(tmp_path: Path, how: str) -> None:
    x = mapped(tmp_path)
    data, before = rows_of(x), np.array(x)
    if how == "replaced":
        (tmp_path / "y.npy").write_bytes(b"another")
        (tmp_path / "y.npy").replace(tmp_path / "x.npy")
    else:
        (tmp_path / "x.npy").unlink()
    np.testing.assert_array_equal(data.batch(torch.arange(64)).x, before)


def test_training_ends_with_an_error_when_its_file_is_changed(tmp_path: Path, monkeypatch: Any) -> None:
    x, ended = mapped(tmp_path), Run._end_epoch

    def then_change(run: Run) -> None:
        ended(run)
        np.load(tmp_path / "x.npy", mmap_mode="r+")[:] = 0.0
        os.utime(tmp_path / "x.npy", (0, 0))

    assert table(likelihood="gaussian", epochs=2).fit(x).history_.complete
    monkeypatch.setattr(Run, "_end_epoch", then_change)
    with pytest.raises(DataError, match=r"x\.npy was changed"):
        table(likelihood="gaussian", epochs=2).fit(x)
