"""Policies that look at rows, rates and distortions, or draw: what beta is, step by step."""

from __future__ import annotations

import math
import warnings
from typing import Any, cast

import numpy as np
import pytest
import torch
from closed_form import SETTINGS, optimum, spectrum_of, table
from small import DIGITS, WINE
from torch import Tensor
from training import bits, fit, rows

from elbowroom import CountVAE, ImageVAE, TableVAE
from elbowroom.beta.conditioning import BetaConditioning
from elbowroom.beta.policies import (
    POLICIES,
    Beta,
    Capacity,
    Constant,
    LogUniform,
    PerRow,
    TargetDistortion,
    TargetRate,
    beta_of,
)
from elbowroom.data.dataset import rows_of
from elbowroom.errors import DataError, ElbowroomWarning, ParameterError
from elbowroom.nn.layers import by_row
from elbowroom.objectives.terms import Terms
from elbowroom.training.beta_control import BLOCKS, CONTROLS, LOOKS, RangeControl, control_of
from elbowroom.training.history import History
from elbowroom.training.trainer import Trainer
from elbowroom.utils.randomness import generator_at

CPU = torch.device("cpu")
LONG = Trainer(epochs=60, batch_size=16, seed=5, device="cpu", learning_rate=0.01)


def terms(distortion: float, rate: float, n: int = 4) -> Terms:
    return Terms(torch.full((n,), float(distortion)), torch.full((n,), float(rate)))


def test_every_policy_has_a_control() -> None:
    for kind in POLICIES.values():
        assert any(issubclass(kind, known) for known in CONTROLS), kind


def test_a_strange_policy_is_refused() -> None:
    with pytest.raises(ParameterError, match="must be a Schedule"):
        control_of(Beta(), 10, CPU)


# ---- a beta for every row --------------------------------------------------------------------------------------------


def test_a_row_s_beta_is_by_hand() -> None:
    x = torch.tensor([[1, 2, 3], [0, 0, 0], [100, 0, 0]])
    control = control_of(PerRow(gamma=0.01, cap=0.5), 10, CPU)
    torch.testing.assert_close(control.step(0.0, x, terms(1, 1), None), torch.tensor([0.06, 0.0, 0.5]))
    torch.testing.assert_close(control.final(x, None), torch.tensor([0.06, 0.0, 0.5]))
    free = control_of(PerRow(gamma=0.01), 10, CPU)
    torch.testing.assert_close(free.final(x, None), torch.tensor([0.06, 0.0, 1.0]))


def test_rows_of_one_total_train_as_with_one_beta() -> None:
    same = rows(48)
    same.x = torch.from_numpy(np.tile([1, 1, 0, 0, 1, 1], (48, 1)).astype(np.uint8))
    short = Trainer(epochs=3, batch_size=16, seed=5, device="cpu")
    (one, a), (other, b) = fit(short, same, PerRow(gamma=0.125)), fit(short, same, Constant(0.5))
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
    assert a["beta"] == pytest.approx([0.5] * 3)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_held_out_rows_are_judged_by_their_own_betas() -> None:
    held_out = rows(30, 9)
    _vae, history = fit(LONG, beta=PerRow(gamma=0.2), held_out=held_out)
    record = history.records[-1]
    totals = bits(30, 9).sum(1) * 0.2
    assert record["held_out_loss"] > record["held_out_distortion"]
    low, high = totals.min() * record["held_out_rate"], totals.max() * record["held_out_rate"]
    assert low <= record["held_out_loss"] - record["held_out_distortion"] <= high


# ---- targets ---------------------------------------------------------------------------------------------------------


def plant(beta: float) -> tuple[float, float]:
    """A made-up curve with dD/dR = -beta: rate 10 - 3 log beta, distortion 40 + 3 beta."""
    return 40 + 3 * beta, 10 - 3 * math.log(beta)


@pytest.mark.parametrize("start", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize(
    "policy", [TargetRate(4), TargetRate(16), TargetDistortion(41.5), TargetDistortion(55)], ids=str
)
def test_targets_are_reached_from_both_sides_without_swinging(policy: Any, start: float) -> None:
    control = control_of(policy, 1000, CPU)
    for name in ("log_beta", "integral"):
        control.state[name].fill_(math.log(start))
    seen = []
    beta, lagged = start, math.log(start)
    for step in range(1000):
        lagged += (math.log(beta) - lagged) / 20  # a model follows its beta slowly
        distortion, rate = plant(math.exp(lagged))
        beta = float(control.step(step / 999, torch.zeros(4, 2), terms(distortion, max(rate, 0.1)), None))
        seen.append(math.log(beta))
    distortion, rate = plant(beta)
    found = rate if isinstance(policy, TargetRate) else distortion
    assert found == pytest.approx(policy.nats, rel=0.01)
    aim, way = seen[-1], abs(math.log(start) - seen[-1])
    beyond = max(s - aim for s in seen) if math.log(start) < aim else max(aim - s for s in seen)
    assert beyond < 0.35 * way + 0.05, "it swings far beyond the target"
    assert np.ptp(seen[-200:]) < 0.1, "it does not come to rest"


def test_a_short_run_meets_its_rate_without_swinging() -> None:
    settings: dict[str, Any] = {"body": "mlp", "hidden": (64,), "epochs": 12, "random_state": 0, "device": "cpu"}
    model = ImageVAE(n_latents=8, beta="targetrate:nats=2", **settings).fit(DIGITS.astype(np.uint8))
    assert model.diagnosis_.rate == pytest.approx(2, rel=0.03)


def test_a_distortion_that_lags_does_not_wind_beta_down() -> None:
    """A fixed beta of 0.5 comes to a distortion, and the controller to that distortion with a beta near it."""
    generator = np.random.default_rng(1)
    x = generator.poisson(np.exp(generator.normal(size=(1000, 3)) @ generator.normal(size=(3, 30)) * 0.5 + 0.5))
    settings: dict[str, Any] = {"likelihood": "poisson", "epochs": 30, "random_state": 0, "device": "cpu"}
    fixed = CountVAE(n_latents=4, hidden=(64,), beta=0.5, **settings).fit(x).diagnosis_
    target = f"targetdistortion:nats={fixed.distortion}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        found = CountVAE(n_latents=4, hidden=(64,), beta=target, **settings).fit(x)
    assert found.history_.final_beta > 0.8 * 0.5
    assert found.diagnosis_.distortion < fixed.distortion + 0.05 * 0.5 * fixed.rate
    assert found.diagnosis_.rate < 1.3 * fixed.rate


def test_of_the_epochs_that_met_a_distortion_the_one_of_the_largest_beta_is_kept() -> None:
    epochs = [(1, 0), (2, 1), (3, 1), (4, 0), (1, 1)]
    met: list[Any] = [{"epoch": i, "beta": beta, "target_met": is_met} for i, (beta, is_met) in enumerate(epochs)]
    history = History(records=met)
    assert (history.best["epoch"], history.final_beta) == (2, 3)
    missed = History(records=[{"epoch": 0, "beta": 2, "target_met": 0}, {"epoch": 1, "beta": 1, "target_met": 0}])
    assert (missed.best["epoch"], missed.final_beta) == (1, 1)


@pytest.mark.parametrize(("nats", "latents"), [(3.0, 6), (8.0, 6)])
def test_the_beta_of_a_target_rate_is_the_one_of_reverse_water_filling(nats: float, latents: int) -> None:
    x = table("wine")
    fitted = TableVAE(n_latents=latents, beta=TargetRate(nats), **SETTINGS).fit(x)
    found = fitted.history_["beta"][-1]
    assert optimum(spectrum_of(x), latents, found).rate == pytest.approx(nats, rel=0.03)
    assert fitted.diagnosis_.rate == pytest.approx(nats, rel=0.03)


@pytest.mark.parametrize("target", ["targetrate:nats=8", "targetrate:nats=25", "targetdistortion:nats=90"])
def test_targets_are_met_on_digits(target: str) -> None:
    settings: dict[str, Any] = {"body": "mlp", "hidden": (64,), "epochs": 60, "random_state": 0, "device": "cpu"}
    model = ImageVAE(n_latents=10, beta=target, **settings).fit(DIGITS.astype(np.uint8))
    kind, near = ("rate", 0.03) if "rate" in target else ("distortion", 0.02)
    assert getattr(model.diagnosis_, kind) == pytest.approx(beta_of(target).nats, rel=near)  # type: ignore[attr-defined]
    assert model.history_.notes == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("targetrate:nats=500", "lower limit"),
        ("targetdistortion:nats=1e3,high=2", "upper limit"),
    ],
)
def test_what_is_out_of_reach_is_said_and_not_chased(target: str, said: str) -> None:
    with pytest.warns(ElbowroomWarning, match="was not reached"):
        vae, history = fit(LONG, beta=beta_of(target))
    policy = beta_of(target)
    assert said in history.notes[-1]
    assert "nats was not reached" in history.notes[-1]
    low, high = policy.low * (1 - 1e-6), policy.high * (1 + 1e-6)  # type: ignore[attr-defined]
    assert all(low <= beta <= high for beta in history["beta"])
    assert all(bool(p.isfinite().all()) for p in vae.parameters())


def test_a_distortion_beyond_reach_does_not_give_up_the_prior() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        _, history = fit(LONG, beta=TargetDistortion(-100))
    assert "a smaller beta would not" in history.notes[-1]
    assert history["beta"][-1] > 0.01


def test_targets_keep_the_last_epoch_and_have_no_patience() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        _, history = fit(
            Trainer(epochs=8, batch_size=16, patience=1, device="cpu"), beta=TargetRate(1), held_out=rows(30)
        )
    assert len(history) == 8
    assert history.best is history.records[-1]
    assert "held_out_loss" not in history.records[0]
    assert "held_out_rate" in history.records[0]


# ---- capacity --------------------------------------------------------------------------------------------------------


def test_capacity_pulls_from_both_sides() -> None:
    control = control_of(Capacity(nats=10, gamma=7, fraction=0.5), 10, CPU)
    steps = [control.step(p, torch.zeros(4, 2), terms(1, rate), None) for p, rate in ((0.0, 1), (1.0, 9), (0.25, 6))]
    assert [float(beta) for beta in steps] == [7, -7, 7]


def test_the_rate_follows_the_capacity() -> None:
    _, history = fit(LONG, beta=Capacity(nats=1.0, gamma=5))
    assert history["rate"][-1] == pytest.approx(1.0, rel=0.05)
    assert -5 < history["beta"][-1] < 5  # what acted is a mean of both signs


# ---- a range ---------------------------------------------------------------------------------------------------------


def test_a_batch_spreads_over_the_range() -> None:
    conditioning = BetaConditioning(0.01, 10, 2)
    control = control_of(LogUniform(0.01, 10), 10, CPU, conditioning)
    assert isinstance(control, RangeControl)
    for n, blocks in ((64, BLOCKS), (BLOCKS, BLOCKS), (7, 7), (1, 1)):
        (drawn,) = control.draws([torch.zeros(n)], generator_at(0, "test"))
        betas = drawn.betas[:: n // blocks]  # type: ignore[index]
        assert bool((betas.diff() > 0).all())
        assert torch.equal(drawn.code, conditioning(betas))  # type: ignore[arg-type]
        assert torch.equal(drawn.betas, by_row(betas, n))  # type: ignore[arg-type]
    fixed = cast(Tensor, control.draw(64).betas)
    assert torch.equal(fixed, cast(Tensor, control.draw(64).betas))
    assert fixed.min() >= 0.01
    assert fixed.max() <= 10
    batches = torch.zeros(64 * 500 + 7).split(64)
    *most, last = (cast(Tensor, drawn.betas) for drawn in control.draws(batches, generator_at(0, "test")))
    assert (len(most), len(last)) == (500, 7)
    for drawn, batch in zip(control.draws(batches, generator_at(0, "test")), batches, strict=True):
        each = len(batch) // len(cast(Tensor, drawn.code))
        torch.testing.assert_close(conditioning(drawn.betas)[::each], drawn.code)
    many = torch.cat(most).log()
    thirds = torch.histogram(many, torch.tensor([0.0, 0.01, 0.1, 1, 10, 1e9]).log().clamp(-50, 50)).hist / len(many)
    assert float(thirds.min()) > 0.05, "the ends have draws on both sides, and no part of the range is forgotten"


@pytest.mark.parametrize("rows", [1, 42, 100, LOOKS, LOOKS + 1, 1000])
def test_held_out_rows_are_looked_at_equally_often_and_often_enough(rows: int) -> None:
    looks = control_of(LogUniform(0.01, 10), 10, CPU, BetaConditioning(0.01, 10, 2)).looks(rows)
    each = torch.bincount(looks, minlength=rows)
    assert len(each) == rows
    assert bool((each == each[0]).all())
    assert LOOKS <= len(looks) < LOOKS + rows or each[0] == 1


@pytest.mark.parametrize("rows", [200, 1000])
def test_which_beta_a_held_out_row_meets_has_nothing_to_do_with_its_place(rows: int) -> None:
    control = control_of(LogUniform(0.01, 10), 10, CPU, BetaConditioning(0.01, 10, 2))
    looks, betas = control.looks(rows).double(), cast(Tensor, control.draw(rows).betas).log().double()
    assert abs(float(torch.corrcoef(torch.stack([looks, betas]))[0, 1])) < 3 / math.sqrt(rows)
    assert torch.equal(control.looks(rows).double(), looks)


def test_beta_per_row_needs_all_counts() -> None:
    x = np.array([[1.0, 2], [np.nan, 3]])
    with pytest.raises(DataError, match="some are missing"):
        control_of(beta_of("perrow"), 10, CPU).check(rows_of(x))


def test_counts_have_targets_too() -> None:
    generator = np.random.default_rng(0)
    x = generator.poisson(np.exp(generator.normal(size=(600, 2)) @ generator.normal(size=(2, 20)) * 0.7 + 1))
    settings: dict[str, Any] = {"likelihood": "poisson", "epochs": 200, "random_state": 0, "device": "cpu"}
    model = CountVAE(n_latents=4, hidden=(32,), beta="targetrate:nats=2.5", **settings).fit(x)
    assert model.diagnosis_.rate == pytest.approx(2.5, rel=0.03)
    rows_beta = CountVAE(n_latents=4, hidden=(32,), beta="perrow:gamma=0.01", **settings | {"epochs": 3}).fit(x)
    assert rows_beta.history_["beta"][-1] == pytest.approx(0.01 * x.sum(1).mean(), rel=0.05)


def test_wine_is_refused_per_row() -> None:
    """Beta in proportion to a total needs totals that are not negative."""
    x = WINE - WINE.mean(0)
    with pytest.raises(ValueError, match="perrow"):
        TableVAE(beta="perrow", epochs=2).fit(x)
