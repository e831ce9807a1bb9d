"""The training loop: what it computes, what it selects, what it survives, and what it leaves alone."""

from __future__ import annotations

import copy
import io
import math
import os
import random
import signal
import threading
import warnings
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from training import D, Spy, bits, custom_encoder, fit, model, rows, weights, without_seconds

from elbowroom.beta.policies import Constant, Cyclical, Warmup
from elbowroom.data.dataset import BinarizedRows, Rows, rows_of
from elbowroom.distributions.gaussian import Composite, StandardGaussian
from elbowroom.errors import ElbowroomWarning, ParameterError, TrainingError
from elbowroom.latents.priors import CompositePrior, Posterior
from elbowroom.models.vae import VAE
from elbowroom.objectives.bounds import Elbo, Iwae
from elbowroom.objectives.terms import Terms
from elbowroom.tasks.score import log_likelihood
from elbowroom.training import optimizer
from elbowroom.training.checkpoints import Checkpoints
from elbowroom.training.history import History
from elbowroom.training.optimizer import AVERAGE_EVERY, Optimiser, learning_rate_at
from elbowroom.training.trainer import Run, Trainer
from elbowroom.utils.progress import Progress
from elbowroom.utils.randomness import generator_at
from elbowroom.utils.signals import Interrupt

SHORT = Trainer(epochs=3, batch_size=16, seed=5, device="cpu")  # 50 rows: 4 steps an epoch, the last of 2 rows


# ---- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0), ("epochs", 2.0), ("epochs", True), ("batch_size", 0), ("patience", 0), ("seed", -1),
        ("learning_rate", 0), ("learning_rate", math.nan), ("clip", math.inf), ("precision", "float16"),
        ("schedule", "cosin"), ("device", "gpu0"),
    ],
)  # fmt: skip
def test_settings_are_checked(setting: str, value: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        Trainer(**{"device": "cpu", setting: value}).fit(model(), rows(), Constant(1.0))
    assert setting in caught.value.expected
    assert repr(value) in caught.value.got


def test_a_misspelt_schedule_is_corrected() -> None:
    with pytest.raises(ParameterError, match="Did you mean 'cosine'"):
        Trainer(schedule="cosin")


# ---- the loop ----------------------------------------------------------------------------------------------------


def plain_loop(trainer: Trainer, data: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """What the trainer is to compute, written with torch's own optimiser: weights, their average, mean losses."""
    vae = model()
    averaged = copy.deepcopy(vae)
    optimiser = torch.optim.Adam(vae.parameters(), lr=trainer.learning_rate)
    total = trainer.epochs * math.ceil(len(data) / trainer.batch_size)
    step, unaveraged, losses = 0, 0, []
    for epoch in range(trainer.epochs):
        order = torch.randperm(len(data), generator=generator_at(trainer.seed, "order", epoch))
        loss_of_epoch = 0.0
        batches = order.split(trainer.batch_size)
        for index in batches:
            x = data[index].float()
            done = (step + 0.5) / total
            share = done / 0.02 if done < 0.02 else (1 + math.cos(math.pi * (done - 0.02) / 0.98)) / 2
            optimiser.param_groups[0]["lr"] = trainer.learning_rate * share
            outcome = vae(x, None, generator_at(trainer.seed, "noise", step))
            loss = (beta * outcome.rate - outcome.p.log_prob(x)).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), trainer.clip)
            optimiser.step()
            loss_of_epoch += float(loss.detach()) * len(x)
            unaveraged, step = unaveraged + 1, step + 1
            if unaveraged == AVERAGE_EVERY or index is batches[-1]:
                keep, unaveraged = min(0.999, step / (9 + step)) ** unaveraged, 0
                for mean, p in zip(averaged.parameters(), vae.parameters(), strict=True):
                    mean.data = keep * mean.data + (1 - keep) * p.data
        losses.append(loss_of_epoch / len(data))
    return weights(vae), weights(averaged), losses


@pytest.mark.parametrize("clip", [100.0, 0.5])
def test_equals_a_plain_loop(clip: float) -> None:
    trainer = Trainer(epochs=8, batch_size=6, learning_rate=1e-2, clip=clip, seed=3, device="cpu")
    last, averaged, losses = plain_loop(trainer, torch.from_numpy(bits()), 0.7)
    vae, history = fit(trainer, beta=Constant(0.7))
    assert torch.allclose(weights(vae), averaged, rtol=1e-4, atol=1e-6)
    assert history["loss"] == pytest.approx(losses, rel=1e-5)
    vae, _ = fit(Trainer(**{**vars(trainer), "average": False}), beta=Constant(0.7))
    assert torch.allclose(weights(vae), last, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(last, averaged, rtol=1e-2)  # or nothing would be shown


def test_loss_is_of_the_beta_of_every_step() -> None:
    _, history = fit(SHORT, beta=Warmup(end=2, fraction=1))
    first = history.records[0]
    assert first["beta"] == pytest.approx(2 * 3 / 11)
    assert first["distortion"] < first["loss"] < first["distortion"] + first["beta"] * first["rate"]
    assert history.records[-1]["beta"] == 2


@pytest.mark.parametrize("objective", [Elbo(), Elbo(free_bits=0.05), Iwae(draws=3)])
def test_training_lowers_every_objective(objective: Any) -> None:
    _, history = fit(Trainer(epochs=60, batch_size=16, learning_rate=1e-2, device="cpu"), objective=objective)
    assert history["loss"][-1] < history["loss"][0] - 0.5


class Watched(Rows):
    """Rows that note which of them were asked for."""

    def __init__(self, x: Any) -> None:
        super().__init__(x)
        self.asked: list[list[int]] = []

    def batch(self, index: torch.Tensor, generator: torch.Generator | None = None) -> Any:
        self.asked.append(index.tolist())
        return super().batch(index, generator)


def test_every_row_is_used_once_an_epoch_in_a_new_order() -> None:
    data = Watched(torch.from_numpy(bits()))
    fit(SHORT, data)
    assert [len(batch) for batch in data.asked] == [16, 16, 16, 2] * 3
    epochs = [[row for batch in data.asked[i : i + 4] for row in batch] for i in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize(("n", "size"), [(50, 1000), (1, 1), (1, 128), (17, 16)])
def test_any_number_of_rows(n: int, size: int) -> None:
    data = Watched(torch.from_numpy(bits(n)))
    _, history = fit(Trainer(epochs=2, batch_size=size, device="cpu"), data)
    assert sum(map(len, data.asked)) == 2 * n
    assert all(math.isfinite(value) for record in history for value in record.values())


def test_a_lone_step_sees_the_final_beta() -> None:
    _, history = fit(Trainer(epochs=1, batch_size=50, device="cpu"), beta=Warmup(end=3))
    assert history["beta"] == [3]


# ---- randomness --------------------------------------------------------------------------------------------------


def test_same_seed_same_bits() -> None:
    (a, first), (b, second) = fit(SHORT), fit(SHORT)
    assert torch.equal(weights(a), weights(b))
    assert without_seconds(first) == without_seconds(second)
    other, _ = fit(Trainer(**{**vars(SHORT), "seed": 6}))
    assert not torch.equal(weights(a), weights(other))


@pytest.mark.parametrize("encoder", [None, custom_encoder])
def test_the_global_streams_are_neither_read_nor_moved(encoder: Any) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
        vae, _ = fit(SHORT, encoder=encoder and encoder(), held_out=rows(30, 9))
        after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
        assert all(np.array_equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
        assert before[2] == after[2]
        results.append(weights(vae))
    assert torch.equal(*results)


def test_running_statistics_are_kept_with_the_weights() -> None:
    vae, _ = fit(SHORT, encoder=custom_encoder())
    norm = vae.encoder.body[1]  # type: ignore[union-attr, index]
    assert int(norm.num_batches_tracked) == 12  # type: ignore[union-attr, arg-type]
    assert norm.running_mean.abs().sum() > 0  # type: ignore[union-attr, operator]


def test_dropout_is_off_where_the_model_is_evaluated() -> None:
    vae, history = fit(SHORT, encoder=custom_encoder(), held_out=rows(30, 9))
    assert vae.training
    vae.eval()
    batch = rows(30, 9).batch(torch.arange(30))
    outcome = vae(batch.x, None, generator_at(SHORT.seed, "held-out", 0))
    assert float(outcome.rate.detach().mean()) == pytest.approx(history.best["held_out_rate"], rel=1e-6)


def test_fits_in_other_threads() -> None:
    def train(vae: VAE) -> None:
        histories.append(SHORT.fit(vae, rows(), Constant(1.0)))

    histories: list[History] = []
    models = [model(), model()]  # made here: their weights come from the global stream
    threads = [threading.Thread(target=train, args=(vae,)) for vae in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    here, history = fit(SHORT)
    assert all(torch.equal(weights(there), weights(here)) for there in models)
    assert [without_seconds(found) for found in histories] == [without_seconds(history)] * 2


# ---- selection ---------------------------------------------------------------------------------------------------


def final_tensors(folder: Checkpoints) -> dict[str, torch.Tensor]:
    loaded = folder.load()
    assert loaded is not None
    return {
        name: tensor for name, tensor in loaded[0].items() if name.startswith(("model.", "averaged.", "optimiser."))
    }


@pytest.mark.parametrize("average", [False, True])
def test_held_out_rows_do_not_change_the_training(average: bool, tmp_path: Any) -> None:
    found = []
    for name, held_out in (("without", None), ("with", rows(30, 9))):
        trainer = Trainer(**{**vars(SHORT), "average": average})
        fit(trainer, encoder=custom_encoder(), held_out=held_out, checkpoints=tmp_path / name)
        found.append(final_tensors(Checkpoints(tmp_path / name)))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_held_out_losses_are_at_the_final_beta() -> None:
    _, history = fit(SHORT, beta=Warmup(end=2, fraction=1), held_out=rows(30, 9))
    assert history["beta"][0] < 1
    for record in history:
        expected = record["held_out_distortion"] + 2 * record["held_out_rate"]
        assert record["held_out_loss"] == pytest.approx(expected, rel=1e-6)  # a float32 sum for every row


def script(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> list[torch.Tensor]:
    """Give the epochs these held-out losses; the averaged weights of each are put into the list."""
    seen: list[torch.Tensor] = []

    def evaluate(run: Run, data: Rows) -> dict[str, float]:
        seen.append(weights(run.averaged))
        return {"held_out_loss": losses[len(seen) - 1]}

    monkeypatch.setattr(Run, "_evaluate", evaluate)
    return seen


NAN = math.nan


@pytest.mark.parametrize(
    ("losses", "best"),
    [([3, 1, 2], 1), ([3, 2, 1], 2), ([1, 1, 1], 0), ([NAN, 2, 3], 1), ([NAN] * 3, 2), ([2, NAN, 1], 2)],
)
def test_the_best_epoch_is_kept(losses: list[float], best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = script(monkeypatch, losses)
    vae, history = fit(SHORT, held_out=rows())
    assert history.best is history.records[best]
    assert torch.equal(weights(vae), seen[best])
    assert len({tuple(w.tolist()) for w in seen}) == 3


def test_held_out_rows_are_scored_by_the_objectives_own_loss() -> None:
    held_out, settings = rows(400, 1), Trainer(epochs=1, average=False, device="cpu")
    vae, history = fit(settings, rows(200), held_out=held_out, objective=Iwae(draws=50))
    exact = log_likelihood(vae, held_out, draws=50)
    assert history["held_out_loss"][0] == pytest.approx(-exact.mean, abs=4 * 0.1 / math.sqrt(400))
    one = history["held_out_distortion"][0] + history["held_out_rate"][0]
    assert history["held_out_loss"][0] < one - 0.01


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = script(monkeypatch, [5, 3, 4, 3, 6, 1])
    with pytest.warns(ElbowroomWarning, match="stopped early"):
        vae, history = fit(Trainer(epochs=6, batch_size=16, patience=3, device="cpu"), held_out=rows())
    assert len(history) == 5
    assert history.complete
    assert history.notes == [
        "stopped early after epoch 5 of 6: the held-out loss has not improved for 3 epochs; beta was 1 of a final 1"
    ]
    assert torch.equal(weights(vae), seen[1])


@pytest.mark.parametrize(
    ("beta", "epochs"),
    [(Constant(1.0), 4), (Warmup(fraction=0.5), 8), (Warmup(fraction=1), 10), (Cyclical(cycles=2, ramp=0.4), 5)],
)
def test_patience_waits_for_the_final_beta(beta: Any, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, history = fit(Trainer(epochs=10, batch_size=16, patience=3, device="cpu"), beta=beta, held_out=rows())
    assert len(history) == epochs


def test_without_held_out_rows_the_last_epoch_is_kept_and_patience_never_ends() -> None:
    _, history = fit(Trainer(epochs=5, batch_size=16, patience=1, device="cpu"))
    assert len(history) == 5
    assert history.best is history.records[-1]
    assert history.complete


# ---- Ctrl-C ------------------------------------------------------------------------------------------------------


def ctrl_c(*steps: int) -> Spy:
    """An objective at whose call Ctrl-C comes."""
    return Spy(lambda call, terms: signal.raise_signal(signal.SIGINT) if call in steps else None)


def test_ctrl_c_keeps_the_last_epoch_that_ended(tmp_path: Any) -> None:
    whole, history = fit(SHORT, objective=ctrl_c())
    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(ElbowroomWarning, match="interrupted in epoch 3 of 3; the model of epoch 2 is kept"):
        vae, short = fit(SHORT, objective=ctrl_c(9), checkpoints=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert not short.complete
    assert short.notes == ["interrupted in epoch 3 of 3; the model of epoch 2 is kept"]
    assert without_seconds(short) == without_seconds(history)[:2]
    assert not torch.equal(weights(vae), weights(whole))
    resumed, full = fit(SHORT, objective=ctrl_c(), checkpoints=tmp_path)
    assert torch.equal(weights(resumed), weights(whole))
    assert without_seconds(full) == without_seconds(history)
    assert full.complete
    assert full.notes == []


def test_ctrl_c_in_the_first_epoch_can_be_resumed(tmp_path: Any) -> None:
    whole, history = fit(SHORT, objective=ctrl_c())
    with pytest.raises(KeyboardInterrupt):
        fit(SHORT, objective=ctrl_c(1), checkpoints=tmp_path)
    resumed, full = fit(SHORT, objective=ctrl_c(), checkpoints=tmp_path)
    assert torch.equal(weights(resumed), weights(whole))
    assert without_seconds(full) == without_seconds(history)


@pytest.mark.parametrize(("step", "epochs"), [(3, 1), (7, 2), (11, 3)])
def test_ctrl_c_in_the_last_step_of_an_epoch_ends_the_epoch(step: int, epochs: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        _, history = fit(SHORT, objective=ctrl_c(step))
    assert len(history) == epochs
    assert history.complete == (epochs == 3)
    assert len(history.notes) == (epochs < 3)


def test_a_second_ctrl_c_does_not_wait() -> None:
    reached = []

    def twice(call: int, terms: Terms) -> None:
        if call == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            reached.append(call)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(SHORT, objective=Spy(twice))
    assert reached == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_sigint_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert not interrupt.came
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# ---- what is not finite ------------------------------------------------------------------------------------------


def spoil(value: float, *steps: int) -> Spy:
    """An objective whose distortion is multiplied by a value in some steps."""
    return Spy(lambda call, terms: terms._replace(distortion=terms.distortion * value) if call in steps else None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_noted(value: float) -> None:
    with pytest.warns(ElbowroomWarning, match="2 of 12 steps had no finite loss and gradient and were skipped"):
        vae, history = fit(SHORT, objective=spoil(value, 2, 3))
    assert len(history.notes) == 1
    assert torch.isfinite(weights(vae)).all()
    assert all(math.isfinite(v) for record in history for v in record.values())


def test_an_infinite_loss_with_a_finite_gradient_is_skipped() -> None:
    calls: list[torch.Tensor] = []
    vae = model()

    def watch(call: int, terms: Terms) -> Terms | None:
        calls.append(weights(vae))
        return terms._replace(penalty=math.inf) if call == 1 else None

    with pytest.warns(ElbowroomWarning, match="1 of 12 steps"):
        SHORT.fit(vae, rows(), Constant(1.0), Spy(watch))  # type: ignore[arg-type]
    assert not torch.equal(calls[0], calls[1])
    assert torch.equal(calls[1], calls[2])
    assert not torch.equal(calls[2], calls[3])


def test_skipped_steps_do_not_count_in_the_means() -> None:
    seen: dict[int, tuple[float, int]] = {}

    def watch(call: int, terms: Terms) -> Terms | None:
        seen[call] = float(terms.distortion.detach().mean()), len(terms.distortion)
        return terms._replace(distortion=terms.distortion * math.nan) if call == 1 else None

    with pytest.warns(ElbowroomWarning, match="1 of 12"):
        _, history = fit(SHORT, objective=Spy(watch))
    taken = [seen[call] for call in (0, 2, 3)]
    assert [size for _, size in taken] == [16, 16, 2]
    expected = sum(mean * size for mean, size in taken) / 34
    assert history["distortion"][0] == pytest.approx(expected, rel=1e-6)


def test_an_epoch_without_a_finite_step_is_an_error() -> None:
    vae, start = model(), weights(model())
    with pytest.raises(TrainingError, match="no step of epoch 1 was; the model's weights are the initial ones"):
        SHORT.fit(vae, rows(), Constant(1.0), spoil(math.nan, *range(12)))  # type: ignore[arg-type]
    assert torch.equal(weights(vae), start)


def test_a_later_bad_epoch_leaves_the_best_weights_and_a_good_checkpoint(tmp_path: Any) -> None:
    with pytest.warns(ElbowroomWarning, match="epoch 2"):
        kept, _ = fit(SHORT, objective=ctrl_c(8))
    vae = model()
    with pytest.raises(TrainingError, match="no step of epoch 3 was; the model's weights are those of epoch 2"):
        SHORT.fit(vae, rows(), Constant(1.0), spoil(math.nan, 8, 9, 10, 11), None, Checkpoints(tmp_path, every=0))  # type: ignore[arg-type]
    assert torch.equal(weights(vae), weights(kept))
    assert all(torch.isfinite(tensor).all() for tensor in final_tensors(Checkpoints(tmp_path)).values())


# ---- the optimiser -----------------------------------------------------------------------------------------------


def gradients(step: int, shapes: list[tuple[int, ...]], device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    scale = 10.0 ** (step % 4 - 2)
    return [(scale * torch.randn(shape, generator=generator)).to(device) for shape in shapes]


@pytest.fixture(params=["torch's kernels", "plain ones"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of torch, and what stands in for them where their names, which are private, are gone."""
    if request.param == "plain ones":
        monkeypatch.setattr(optimizer, "KERNELS", dict.fromkeys(optimizer.KERNELS))


def test_a_run_is_the_same_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights(fit(SHORT, held_out=rows(30, 9))[0])
    monkeypatch.setattr(optimizer, "KERNELS", dict.fromkeys(optimizer.KERNELS))
    assert torch.allclose(weights(fit(SHORT, held_out=rows(30, 9))[0]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("kernels")
def test_optimiser_equals_torch() -> None:
    shapes: list[tuple[int, ...]] = [(7, 5), (5,), (), (1, 3)]
    ours, theirs = ([torch.ones(shape, requires_grad=True) for shape in shapes] for _ in range(2))
    optimiser, adam = Optimiser(ours, clip=2.0), torch.optim.Adam(theirs, lr=0.1)
    longest = 0.0
    for step in range(200):
        for mine, other, grad in zip(ours, theirs, gradients(step, shapes), strict=True):
            mine.grad, other.grad = grad.clone(), grad
        adam.param_groups[0]["lr"] = rate = learning_rate_at(0.1, step / 200)
        longest = max(longest, float(torch.nn.utils.clip_grad_norm_(theirs, 2.0)))
        adam.step()
        assert float(optimiser.step(torch.tensor(1.0), rate)) == 1
    assert longest > 20
    assert int(optimiser.count) == 200
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6)
        assert mine.grad is None


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(("loss", "grad"), [(1.0, math.nan), (1.0, math.inf), (math.nan, 1.0), (-math.inf, 1.0)])
def test_optimiser_skips_what_is_not_finite(loss: float, grad: float, begun: bool) -> None:
    parameter = torch.ones(3, requires_grad=True)
    optimiser = Optimiser([parameter])
    if begun:
        parameter.grad = torch.ones(3)
        optimiser.step(torch.tensor(1.0), 0.1)
    before = {name: tensor.clone() for name, tensor in optimiser.state().items()} | {"p": parameter.detach().clone()}
    parameter.grad = torch.tensor([1.0, grad, 1.0])
    assert float(optimiser.step(torch.tensor(loss), 0.1)) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimiser.state().items())
    assert torch.equal(parameter, before["p"])


@pytest.mark.usefixtures("kernels")
def test_optimiser_leaves_a_parameter_without_gradient() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimiser = Optimiser([used, unused])
    used.grad = torch.ones(2)
    optimiser.step(torch.tensor(1.0), 0.1)
    assert torch.equal(unused, torch.ones(2))
    assert (used < 1).all()


def test_a_prior_that_remembers_is_told_what_the_averaged_encoder_says() -> None:
    """In training alone, and of the weights that the average had in that step: at first those that it starts with."""
    previous_means: list[Tensor] = []

    class Remembering(CompositePrior):
        def beside(self, previous: Posterior) -> Composite:
            previous_means.append(previous.mean)
            assert not previous.mean.requires_grad
            return super().beside(previous)

    begun, data = model(), rows()
    vae, _ = fit(Trainer(epochs=3, batch_size=50), data, prior=Remembering(2), held_out=rows(20, 3))
    assert len(previous_means) == 3
    order = torch.randperm(50, generator=generator_at(0, "order", 0))
    torch.testing.assert_close(previous_means[0], begun.encode(data.batch(order).x).mean)
    assert not vae.ema_model
    assert isinstance(vae.train()(data.dense(torch.arange(4))).prior, StandardGaussian)
    with pytest.raises(ParameterError, match="Set average=True"):
        fit(Trainer(average=False), prior=CompositePrior(2))


def test_frozen_parameters_stay() -> None:
    vae = model()
    vae.encoder.requires_grad_(False)
    before, latent = weights(vae.encoder), weights(vae.latent)
    SHORT.fit(vae, rows(), Constant(1.0))
    assert torch.equal(weights(vae.encoder), before)
    assert not torch.equal(weights(vae.latent), latent)


def test_schedules() -> None:
    assert learning_rate_at(2.0, 0.01) == pytest.approx(1.0)
    assert learning_rate_at(2.0, 0.02) == pytest.approx(2.0)
    assert learning_rate_at(2.0, 0.51) == pytest.approx(1.0)
    assert learning_rate_at(2.0, 1.0) == pytest.approx(0.0)
    assert learning_rate_at(2.0, 0.01, "constant") == pytest.approx(1.0)
    assert [learning_rate_at(2.0, x, "constant") for x in (0.02, 0.5, 1.0)] == [2.0] * 3


def test_the_schedule_is_used() -> None:
    rates = {
        name: fit(Trainer(epochs=20, schedule=name, device="cpu"))[1]["learning_rate"]
        for name in ("cosine", "constant")
    }
    assert rates["constant"][1:] == [1e-3] * 19
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)
    assert rates["cosine"][-1] < 1e-5


# ---- rows --------------------------------------------------------------------------------------------------------


def mapped(x: np.ndarray, folder: Any) -> np.ndarray:
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "kind", ["float32", "float64", "int64", "bool", "csr", "csc", "memmap", "memmap float64", "strided", "taken"]
)
def test_rows_of_any_kind_train_the_same(kind: str, tmp_path: Any) -> None:
    x = bits()
    forms: dict[str, Any] = {
        "csr": lambda: scipy.sparse.csr_matrix(x),
        "csc": lambda: scipy.sparse.csc_array(x.astype(np.float64)),
        "memmap": lambda: mapped(x, tmp_path),
        "memmap float64": lambda: mapped(x.astype(np.float64), tmp_path),
        "strided": lambda: np.asfortranarray(x)[::-1][::-1],
        "taken": lambda: x,
    }
    data = rows_of(forms[kind]() if kind in forms else x.astype(kind))
    data = data.take(torch.arange(50)) if kind == "taken" else data
    expected, history = fit(SHORT, held_out=rows(30, 9))
    vae, found = fit(SHORT, data, held_out=rows(30, 9))
    assert torch.equal(weights(vae), weights(expected))
    assert without_seconds(found) == without_seconds(history)


def test_rows_are_not_changed(tmp_path: Any) -> None:
    x = bits()
    fit(SHORT, rows_of(x))
    assert np.array_equal(x, bits())


def test_rows_that_are_drawn_anew() -> None:
    chances = BinarizedRows(torch.full((50, D), 0.5))
    _, history = fit(SHORT, chances, held_out=BinarizedRows(torch.full((30, D), 0.5)))
    assert history["distortion"][-1] == pytest.approx(D * math.log(2), rel=0.2)


def test_bfloat16_is_close() -> None:
    exact, history = fit(SHORT)
    coarse, found = fit(Trainer(**{**vars(SHORT), "precision": "bfloat16"}))
    assert found["loss"] == pytest.approx(history["loss"], rel=0.02)
    assert not torch.equal(weights(coarse), weights(exact))


# ---- what is put back --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("fails", [False, True])
def test_settings_of_torch_are_put_back(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> tuple[str, int, bool]:
        products = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
        return products, torch.get_num_threads(), torch.is_grad_enabled()

    def act(call: int, terms: Terms) -> None:
        inside.append(settings())
        if fails and call == 5:
            raise RuntimeError("as planned")

    inside: list[tuple[str, int, bool]] = []
    monkeypatch.setattr("elbowroom.training.trainer.product_backend", lambda: "onednn")
    vae = model().eval()
    with torch.no_grad():
        products, threads, grad = settings()
        with pytest.raises(RuntimeError, match="as planned") if fails else nullcontext():
            SHORT.fit(vae, rows(), Constant(1.0), Spy(act))  # type: ignore[arg-type]
        assert settings() == (products, threads, grad)
    assert set(inside) == {("bf16", threads, True)}
    assert (products, grad) == ("none", False)
    assert not vae.training


# ---- progress ----------------------------------------------------------------------------------------------------


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    fit(SHORT, held_out=rows(30, 9), progress=Progress(3, stream=stream))
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(word in lines[-1] for word in ("distortion", "rate", "beta 1", "held-out loss"))


def test_progress_is_silent_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    fit(SHORT)
    stream = io.StringIO()
    progress = Progress(3, silent=True, stream=stream)
    fit(SHORT, progress=progress)
    progress.say("nothing")
    assert stream.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_progress_without_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    fit(SHORT, progress=Progress(3))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    reader, writer = os.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # which is how a terminal says that it was closed
            while chunk := os.read(reader, 4096):
                chunks.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    with os.fdopen(writer, "w") as terminal:
        progress = Progress(3, stream=terminal)
        fit(SHORT, progress=progress)
        with progress:
            progress.say("a message")
    thread.join()
    os.close(reader)
    shown = b"".join(chunks).decode()
    assert "training" in shown
    assert "━" in shown
    assert "3/3" in shown
    assert "distortion" in shown
    assert "a message" in shown
    assert "epoch 1/3" not in shown


# ---- history -----------------------------------------------------------------------------------------------------


def test_history_reads_as_records_and_as_columns() -> None:
    _, history = fit(SHORT, held_out=rows(30, 9))
    assert len(history) == 3
    assert [record["epoch"] for record in history] == history["epoch"] == [1, 2, 3]
    assert history["step"] == [4, 8, 12]
    assert list(history.columns()) == [
        "epoch", "step", "beta", "learning_rate", "distortion", "rate", "loss",
        "held_out_distortion", "held_out_rate", "held_out_loss", "seconds",
    ]  # fmt: skip
    assert history["seconds"] == sorted(history["seconds"])
    assert history.complete


def test_history_of_records_that_differ() -> None:
    history = History([{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 4.0, "held_out_loss": 1.0}, {"epoch": 3}])
    assert history.columns().keys() == {"epoch", "loss", "held_out_loss"}
    assert math.isnan(history["held_out_loss"][0])
    assert history.best["epoch"] == 2
    assert History([{"epoch": 1}, {"epoch": 2}]).best["epoch"] == 2
    assert len(History()) == 0
    assert History().columns() == {}
