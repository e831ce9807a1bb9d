"""One network for a range of beta: its conditioning, the model at one beta, its curve, and picking a beta."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from closed_form import SETTINGS, optimum, spectrum_of
from closed_form import table as standardised
from small import COUNTS, DIGITS, NAMES, WINE, counts, images, table
from torch import Tensor, nn
from training import Killed, killed_at, rows, weights

import elbowroom
from elbowroom import TableVAE
from elbowroom.beta.conditioning import CODE_SCALE, BetaConditioning
from elbowroom.beta.policies import LogUniform
from elbowroom.data.dataset import rows_of
from elbowroom.errors import ElbowroomError, ParameterError
from elbowroom.latents.posteriors import LATENTS
from elbowroom.latents.priors import PRIORS
from elbowroom.likelihoods.continuous import Gaussian
from elbowroom.likelihoods.discrete import Bernoulli
from elbowroom.likelihoods.mixed import Mixed
from elbowroom.likelihoods.registry import LIKELIHOODS
from elbowroom.models.vae import VAE
from elbowroom.nn.conv import ImageDecoder, ImageEncoder
from elbowroom.nn.layers import Film, Layer, by_row
from elbowroom.nn.mlp import MLP
from elbowroom.objectives.bounds import Elbo, Iwae
from elbowroom.tasks.curve import Curve
from elbowroom.training import beta_control
from elbowroom.training.checkpoints import Checkpoints
from elbowroom.training.trainer import Trainer
from elbowroom.utils.randomness import generator_at

RANGE = "0.01..10"
CPU = torch.device("cpu")
BETAS = torch.tensor([0.01, 0.2, 1.0, 10.0])
SHAPE = (1, 5, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return generator_at(seed, "test")


def stirred(module: nn.Module) -> nn.Module:
    """With weights that are not zero, so that a context has an effect."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=seeded(p.numel())))
    return module.eval()


def model(
    likelihood: nn.Module | None = None, features: int = 6, covariance: str = "diagonal", prior: str = "standard"
) -> VAE:
    likelihood = likelihood or Bernoulli(features)
    conditioning = BetaConditioning(0.01, 10, 3, likelihood.n_shifts)  # type: ignore[arg-type]
    widths = {"context": BetaConditioning.width, "code": BetaConditioning.width}
    encoder = MLP(likelihood.n_inputs, (8, 8), **widths, skip_beta=0)  # type: ignore[arg-type]
    decoder = MLP(3, (8,), likelihood.n_outputs, **widths)  # type: ignore[arg-type]
    made: dict[str, dict[str, int]] = {
        "standard": {},
        "fitted": {"components": 4},
        "composite": {},
        "mixture": {"context": BetaConditioning.width, "components": 4},
        "vamp": {"context": BetaConditioning.width, "components": 4, "features": likelihood.n_inputs},  # type: ignore[dict-item]
    }
    p = PRIORS[prior](3, **made[prior])
    return VAE(encoder, LATENTS[covariance](8, 3), p, decoder, likelihood, conditioning)


def coded(vae: VAE) -> Tensor:
    """The code of the betas, each of a block of rows."""
    return cast(BetaConditioning, vae.conditioning)(BETAS.to(next(vae.parameters()).dtype))


# ---- conditioning on beta -------------------------------------------------------------------------------------------


def bodies(labels: int = 0) -> dict[str, nn.Module]:
    widths: dict[str, Any] = {"context": BetaConditioning.width + labels, "code": BetaConditioning.width}
    return {
        "mlp": MLP(20, (8, 8), 5, **widths),
        "first skips": MLP(20, (8, 8), 5, skip_beta=0, **widths),
        "last skips": MLP(20, (8, 8), 5, skip_beta=-1, **widths),
        "gated": MLP(20, (8,), 5, gated=True, **widths),
        "linear": MLP(20, (), 5, **widths),
        "conv encoder": ImageEncoder(SHAPE, (4, 6), width=8, **widths),
        "residual encoder": ImageEncoder(SHAPE, (4,), 1, 8, **widths),
        "conv decoder": ImageDecoder(20, SHAPE, (4, 6), width=8, outputs=2, **widths),
        "residual decoder": ImageDecoder(20, SHAPE, (4,), 1, 8, **widths),
    }


@pytest.mark.parametrize("name", bodies())
@pytest.mark.parametrize("lead", [(), (3,)])
def test_rows_are_told_their_own_beta_or_that_of_all(name: str, lead: tuple[int, ...]) -> None:
    body = stirred(bodies()[name])
    h, code = torch.randn(*lead, 4, 20, generator=seeded()), torch.randn(4, BetaConditioning.width, generator=seeded(1))
    together = body(h, code)
    for i in range(4):
        row = slice(i, i + 1)
        torch.testing.assert_close(together[..., row, :], body(h[..., row, :], code[row]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[..., row, :], body(h, code[row])[..., row, :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", bodies())
def test_a_new_body_does_not_listen_yet(name: str) -> None:
    body = bodies()[name]
    h, code = torch.randn(4, 20, generator=seeded()), torch.randn(4, BetaConditioning.width, generator=seeded(1))
    assert torch.equal(body(h, code), body(h, None))


@pytest.mark.parametrize("name", bodies())
def test_a_code_without_labels_is_a_code_with_zeros_for_labels(name: str) -> None:
    body = stirred(bodies(labels=2)[name])
    h, code = torch.randn(4, 20, generator=seeded()), torch.randn(4, BetaConditioning.width, generator=seeded(1))
    context = torch.cat([code, torch.randn(4, 2, generator=seeded(2))], -1)
    torch.testing.assert_close(body(h, code), body(h, torch.cat([code, torch.zeros(4, 2)], -1)))
    assert not torch.allclose(body(h, context), body(h, code), atol=1e-3)


def test_a_code_scales_and_labels_shift_too() -> None:
    film, nothing = stirred(Film(5, 3, code=3)), torch.zeros(4, 3)
    code, labels = torch.randn(4, 5, generator=seeded()), torch.randn(4, 5, generator=seeded())
    code[:, 3:], labels[:, :3] = 0, 0
    assert torch.equal(film(nothing, code), nothing)
    assert bool((film(nothing, labels) != 0).all())
    assert not torch.allclose(film(nothing + 1, code), nothing + 1)


DEAF_LAYERS = {
    "mlp": None,
    "first skips": "layers.0",
    "last skips": "layers.1",
    "conv encoder": "stages.0",
    "residual encoder": "stages.0",
    "conv decoder": "doublings.0",
    "residual decoder": "dense.1",
    "gated": None,
    "linear": None,
}


@pytest.mark.parametrize("name", bodies())
def test_the_layer_next_to_rows_hears_labels_alone(name: str) -> None:
    layers = {key: layer for key, layer in bodies()[name].named_modules() if isinstance(layer, Layer)}
    assert {key for key, layer in layers.items() if layer.film is None} == {DEAF_LAYERS[name]} - {None}
    for key, layer in bodies(labels=2)[name].named_modules():
        if isinstance(layer, Layer):
            assert layer.film is not None
            assert layer.film.scale.inputs == 2 + BetaConditioning.width * (key != DEAF_LAYERS[name])


@pytest.mark.parametrize("skip_beta", [0, -1])
def test_an_only_layer_hears_in_full(skip_beta: int) -> None:
    only = MLP(20, (8,), 5, context=BetaConditioning.width, code=BetaConditioning.width, skip_beta=skip_beta)
    assert only.layers[0].film.shift is not None  # type: ignore[union-attr]


def test_the_code_is_smooth_and_tells_betas_apart() -> None:
    code = BetaConditioning(0.01, 10, 2)(torch.logspace(-2, 1, 301)) / CODE_SCALE
    assert code.abs().max() < 3
    assert float(code.diff(dim=0).norm(dim=1).max()) < 0.1
    distances = torch.cdist(code[::50], code[::50]) + 9 * torch.eye(7)
    assert float(distances.min()) > 0.3


LIKELIHOOD_KINDS: list[tuple[str, nn.Module]] = [
    (name, kind(6)) for name, kind in LIKELIHOODS.items() if kind is not Mixed
] + [("mixed", Mixed([Gaussian(2), Bernoulli(3), LIKELIHOODS["student_t"](1)], [[0, 3], [1, 2, 4], [5]]))]


@pytest.mark.parametrize("covariance", LATENTS)
@pytest.mark.parametrize(("name", "likelihood"), LIKELIHOOD_KINDS, ids=[name for name, _ in LIKELIHOOD_KINDS])
def test_every_part_listens_and_blocks_equal_models_at_one_beta(name: str, likelihood: Any, covariance: str) -> None:
    torch.manual_seed(0)
    vae = model(copy.deepcopy(likelihood), covariance=covariance)
    x = torch.tensor(np.random.default_rng(0).integers(0, 2, (8, 6)), dtype=torch.float64)
    vae.initialise(x, seeded())
    noise = torch.randn(8, 3, generator=seeded(2))
    elbo = Elbo()
    batch = elbowroom.data.dataset.Batch(x, None, None)
    loss = elbo(vae, batch, noise, coded(vae)).loss(by_row(BETAS, 8)).sum()
    loss.backward()
    conditioning = [p for key, p in vae.named_parameters() if "film" in key or "conditioning" in key]
    assert conditioning
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in conditioning)
    assert any(bool((p.grad != 0).any()) for p in conditioning)  # type: ignore[union-attr]
    stirred(vae.double())
    with torch.no_grad():
        for objective, z in ((elbo, noise.double()), (Iwae(2), torch.randn(2, 8, 3, generator=seeded(3)).double())):
            together = objective(vae, batch, z, coded(vae))
            for i, beta in enumerate(BETAS.tolist()):
                at = slice(2 * i, 2 * i + 2)
                alone = objective(vae.at(beta), elbowroom.data.dataset.Batch(x[at], None, None), z[..., at, :])
                torch.testing.assert_close(together.distortion[..., at], alone.distortion, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(together.rate[..., at], alone.rate, rtol=1e-4, atol=1e-4)


def test_a_range_needs_a_model_with_beta_conditioning() -> None:
    vae = model()
    vae.conditioning = None
    with pytest.raises(ParameterError, match="needs a model with beta conditioning"):
        Trainer(epochs=1, device="cpu").fit(vae, rows(), LogUniform(0.01, 10))
    with pytest.raises(ParameterError, match=r"that is 0\.01\.\.10"):
        Trainer(epochs=1, device="cpu").fit(model(), rows(), LogUniform(1, 1000))


def test_at_shares_the_weights_and_stands_still() -> None:
    vae = model()
    one, other = vae.at(0.1), vae.at(5)
    assert (one.conditioning.beta, other.conditioning.beta, vae.conditioning.beta) == (0.1, 5.0, 1.0)  # type: ignore[union-attr]
    for p, q in zip(vae.parameters(), one.parameters(), strict=True):
        assert p is q
    assert one.conditioning.projection is vae.conditioning.projection  # type: ignore[union-attr]


@pytest.mark.parametrize(("low", "high", "stands"), [(0.01, 10, 1), (2, 10, 2), (0.01, 0.5, 0.5)])
def test_the_dial_stands_at_one_or_next_to_it(low: float, high: float, stands: float) -> None:
    assert BetaConditioning(low, high, 2).beta == stands


@pytest.mark.parametrize(("low", "start"), [(0.01, 1), (0.001, 1), (0.02, 0.5), (0.1, 0.1), (3, 0.1)])
def test_a_range_starts_a_tenth_lower_and_not_below_a_hundredth(low: float, start: float) -> None:
    """Latents that large betas close at the start stay closed, so at first the rate has a smaller weight than beta."""
    policy = beta_control.control_of(LogUniform(low, 10), 100, CPU, BetaConditioning(low, 10, 2))
    drawn = policy.draw(64).betas
    found = [policy.step(p, torch.zeros(64, 2), cast(Any, None), drawn) for p in (0.0, 0.1, 0.2, 1.0)]
    for beta, share in zip(found, (start, start**0.5, 1, 1), strict=True):
        torch.testing.assert_close(beta, share * drawn)


def test_epochs_in_which_latents_open_are_not_chosen() -> None:
    """Few held-out rows liked the first epoch best, where no latent is open: the model knew one beta for all."""
    x = standardised("wine")[::2]
    model = TableVAE(n_latents=4, beta="1..10", epochs=100, random_state=0, device="cpu").fit(x)
    open_from = math.ceil(100 * beta_control.OPENED)
    assert np.isnan(model.history_["held_out_loss"][: open_from - 1]).all()
    assert np.isfinite(model.history_["held_out_loss"][open_from:]).all()
    assert model.history_.best["epoch"] > open_from - 1
    low, high = model.at(1).curve(x, [1]).rate, model.at(10).curve(x, [10]).rate
    assert low > 0.5 > high


@pytest.mark.parametrize("place", [0, 11])
def test_few_held_out_rows_are_each_looked_at_over_the_whole_range(place: int) -> None:
    """A row with a large rate counts as much whether it is the first of the held-out rows or the last."""
    torch.manual_seed(0)
    vae, trainer = cast(VAE, stirred(model())), Trainer(epochs=1, device="cpu", average=False)
    x = np.zeros((12, 6), dtype=np.float32)
    x[place] = 1
    history = trainer.fit(vae, rows_of(x), LogUniform(0.01, 10), held_out=rows_of(x))
    grid = cast(Tensor, beta_control.control_of(LogUniform(0.01, 10), 1, CPU, vae.conditioning).draw(61).betas).tolist()
    held_out, losses = torch.from_numpy(x), []
    with torch.no_grad():
        for beta in grid:
            outcome = vae.eval().at(beta)(held_out, None, seeded(), 64)
            losses.append(float((beta * outcome.rate - outcome.p.log_prob(held_out)).mean()))
    assert history.records[0]["held_out_loss"] == pytest.approx(np.mean(losses), rel=0.1)


def test_a_range_that_begins_high_opens_latents_first(monkeypatch: pytest.MonkeyPatch) -> None:
    x = DIGITS[:1000].reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)

    def score_and_rate() -> tuple[float, float]:
        settings: dict[str, Any] = {"hidden": (64, 64), "likelihood": "gaussian", "learning_rate": 3e-3}
        model = TableVAE(8, **settings, beta="1..10", epochs=40, random_state=0, device="cpu").fit(x)
        return model.at(1).score(x), float(model.at(1).curve(x, [1]).rate[0])

    score, rate = score_and_rate()
    monkeypatch.setattr(beta_control, "OPENING", 1.0)
    closed_score, closed_rate = score_and_rate()
    assert score > closed_score + 1
    assert rate > closed_rate + 1


@pytest.mark.parametrize("beta", ["1..1.0001", "0.5..2", "1e-6..1e6"])
def test_narrow_and_wide_ranges_train(beta: str) -> None:
    fitted = table(beta=beta, epochs=30).fit(WINE)
    assert np.isfinite(fitted.history_["loss"]).all()
    assert fitted.history_.notes == []
    assert np.isfinite(fitted.curve(WINE).elbo).all()


# priors that do not depend on beta: N(0, I), except after or during training
SAME = ("standard", "fitted", "composite")


@pytest.mark.parametrize("covariance", LATENTS)
@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_of_blocks_of_betas_is_that_of_each_beta(prior: str, covariance: str) -> None:
    vae = stirred(model(covariance=covariance, prior=prior)).double()
    z = torch.randn(2, 8, 3, generator=seeded(4), dtype=torch.float64)
    together = vae.prior_distribution(coded(vae)).log_prob(z)
    assert together.shape == (2, 8)
    for i, beta in enumerate(BETAS.tolist()):
        at = slice(2 * i, 2 * i + 2)
        torch.testing.assert_close(together[:, at], vae.at(beta).prior_distribution().log_prob(z[:, at]))
    alone = [vae.at(beta).prior_distribution().log_prob(z) for beta in (0.01, 10)]
    assert torch.equal(*alone) == (prior in SAME)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_new_prior_does_not_listen_yet(prior: str) -> None:
    vae, z = model(prior=prior), torch.randn(8, 3, generator=seeded(4))
    found = [vae.at(beta).prior_distribution().log_prob(z) for beta in (0.01, 1, 10)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("covariance", LATENTS)
@pytest.mark.parametrize("prior", PRIORS)
def test_the_rate_at_every_beta_is_its_monte_carlo_estimate(prior: str, covariance: str) -> None:
    """KL(q || p) by many draws of q, under the density of that beta's prior as its own draws have it."""
    vae = stirred(model(covariance=covariance, prior=prior)).double()
    x = (torch.rand(8, 6, generator=seeded(5)) < 0.5).double()
    many = vae(x, None, seeded(6), 4000, coded(vae)).rate.mean(0) if prior not in SAME else vae(x, code=coded(vae)).rate
    for i, beta in enumerate(BETAS.tolist()):
        one, at = vae.at(beta), slice(2 * i, 2 * i + 2)
        q, p = one.encode(x[at]), one.prior_distribution()
        z = q.rsample(torch.randn(40_000, 2, 3, generator=seeded(7), dtype=torch.float64))
        ratios = q.log_prob(z) - p.log_prob(z)
        assert bool(((ratios.mean(0) - many[at]).abs() < 5 * ratios.std(0) / math.sqrt(4000) + 1e-9).all())


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_draws_of_the_prior_at_a_beta_have_its_density(prior: str) -> None:
    """E_p[f / p] is the volume of f: 1, where f is the density of one of the components."""
    vae = stirred(model(prior=prior)).double().requires_grad_(False)
    for beta in BETAS.tolist():
        p = vae.at(beta).prior_distribution()
        z = p.sample(100_000, seeded(8))
        for f in p.components.log_prob_pairs(z).unbind(-1):  # type: ignore[union-attr]
            ratios = (f - p.log_prob(z)).exp()
            assert abs(float(ratios.mean()) - 1) < 5 * float(ratios.std()) / math.sqrt(len(z))


@pytest.mark.parametrize("prior", ["mixture:components=3", "vamp:components=4"])
def test_a_prior_learns_to_hear_beta(prior: str) -> None:
    fitted = table(beta=RANGE, prior=prior, epochs=30).fit(WINE)
    priors = [fitted.at(beta).model_.prior_distribution() for beta in (0.01, 10)]
    assert not torch.equal(*(p.log_prob(torch.zeros(3, 2)) for p in priors))
    for beta, p in zip((0.01, 10), priors, strict=True):
        torch.testing.assert_close(fitted.at(beta).sample(5, random_state=0), fitted.at(beta).sample(5, random_state=0))
        assert p.sample(3, seeded()).shape == (3, 2)


def test_a_killed_range_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    def train(**options: Any) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vae = model()
        trainer = Trainer(epochs=3, batch_size=16, seed=5, device="cpu")
        trainer.fit(vae, rows(), LogUniform(0.01, 10), held_out=rows(30, 9), **options)
        return weights(vae)

    whole, never = train(), killed_at(-1)
    for step in (1, 4, 6, 11):
        with pytest.raises(Killed):
            train(objective=killed_at(step), checkpoints=Checkpoints(tmp_path / str(step), every=0))
        assert torch.equal(train(objective=never, checkpoints=tmp_path / str(step)), whole)


# ---- the estimators --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wine() -> TableVAE:
    return TableVAE(n_latents=4, hidden=(32,), beta=RANGE, epochs=150, random_state=0, device="cpu").fit(WINE[::2])


def test_a_smaller_beta_has_more_rate_and_less_distortion(wine: TableVAE) -> None:
    found = wine.curve(WINE[::2])
    assert found.betas[0] == pytest.approx(0.01)
    assert found.betas[-1] == pytest.approx(10)
    assert len(found.betas) == 13
    assert bool((np.diff(found.rate) < 0).all())
    assert found.distortion[0] < found.distortion[-1] - 3
    assert found.rate[0] > found.rate[-1] + 5


def test_the_curve_has_the_numbers_of_the_models(wine: TableVAE) -> None:
    found = wine.curve(WINE[:50], [1, 0.1, 0.1], n_draws=16)
    assert found.betas.tolist() == [0.1, 1.0]
    for i, beta in enumerate((0.1, 1.0)):
        distortion, rate = wine.at(beta).distortion_and_rate(WINE[:50])
        np.testing.assert_array_equal(found.distortions[i], distortion)
        np.testing.assert_array_equal(found.rates[i], rate)
        assert found.elbo[i] == pytest.approx(wine.at(beta).score(WINE[:50]))
        assert found.active[i] == wine.at(beta).diagnose(WINE[:50]).n_active
    columns = found.columns()
    assert columns["elbo_error"][0] == pytest.approx((found.distortions + found.rates)[0].std(ddof=1) / math.sqrt(50))
    assert str(found).count("\n") == 2


def test_every_task_works_at_every_beta(wine: TableVAE) -> None:
    low, high = wine.at(0.01), wine.at(10)
    assert not np.allclose(low.transform(WINE), high.transform(WINE))
    errors = [np.square((m.reconstruct(WINE) - WINE) / WINE.std(0)).mean() for m in (low, high)]
    assert errors[0] < errors[1]
    assert np.isfinite(high.sample(5, random_state=0)).all()
    assert high.log_likelihood(WINE[:20], n_draws=20).mean > high.score(WINE[:20]) - 0.5
    assert high.diagnose(WINE).beta == 10
    assert wine.diagnose(WINE).beta == 1


@pytest.mark.parametrize(
    ("estimator", "x", "given"),
    [
        (images(beta=RANGE), DIGITS[:60].astype(np.uint8), {}),
        (images(beta=RANGE, body="residual"), DIGITS[:60].astype(np.uint8), {}),
        (images(beta=RANGE, body="mlp", binarize="sample"), DIGITS[:60] / 16, {}),
        (counts(beta=RANGE), COUNTS, {}),
        (counts(beta=RANGE), COUNTS, {"context": np.arange(60) % 3}),
        (table(beta=RANGE, covariance="full"), WINE, {}),
        (table(beta=RANGE, prior="mixture:components=3"), WINE, {}),
        (table(beta=RANGE, prior="vamp:components=4"), WINE, {}),
        (table(beta=RANGE, gated=True, objective="iwae:draws=3"), WINE, {}),
        (table(beta=RANGE, hidden=()), WINE, {"context": np.arange(len(WINE)) % 2}),
        (table(beta=RANGE, likelihood={"gaussian": NAMES[:6], "student_t": NAMES[6:]}), WINE, {}),
    ],
)
def test_saved_and_loaded_it_is_the_same_at_every_beta(estimator: Any, x: Any, given: Any, tmp_path: Path) -> None:
    if isinstance(estimator.likelihood, dict):
        import pandas as pd

        x = pd.DataFrame(x, columns=NAMES)
    fitted = estimator.fit(x, **given)
    fitted.save(tmp_path / "range")
    fitted.at(0.3).save(tmp_path / "at")
    loaded, at = elbowroom.load(tmp_path / "range"), elbowroom.load(tmp_path / "at")
    for one in (loaded.at(0.3), at, pickle.loads(pickle.dumps(fitted)).at(0.3)):
        np.testing.assert_array_equal(one.score_samples(x, **given), fitted.at(0.3).score_samples(x, **given))
    np.testing.assert_array_equal(loaded.transform(x, **given), fitted.transform(x, **given))


def test_a_caller_s_own_networks_can_know_a_range() -> None:
    class Mine(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.linear = nn.Linear(inputs + BetaConditioning.width, outputs)

        def forward(self, rows: Tensor, context: Tensor) -> Tensor:
            return self.linear(torch.cat([rows, context], -1))

    fitted = table(beta=RANGE, encoder=Mine(13, 7), decoder=Mine(2, 13), likelihood="gaussian", epochs=30).fit(WINE)
    found = fitted.curve(WINE, [0.01, 10])
    assert found.rate[0] > found.rate[1]


# ---- the exact curve -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "latents"), [("wine", 4)])
def test_the_curve_is_that_of_reverse_water_filling(name: str, latents: int) -> None:
    """A linear Gaussian range lies on the exact curve of its optimum at every beta (Lucas et al. 2019)."""
    x = standardised(name)
    fitted = TableVAE(n_latents=latents, beta="0.1..3", **{**SETTINGS, "epochs": 3000, "learning_rate": 0.02}).fit(x)
    found = fitted.curve(x, np.geomspace(0.1, 3, 7), n_draws=64)
    exact = [optimum(spectrum_of(x), latents, float(beta)) for beta in np.geomspace(4, 0.05, 400)]
    least = np.interp(found.rate, [best.rate for best in exact], [best.distortion for best in exact])
    np.testing.assert_allclose(found.distortion, least, rtol=0.01)  # at the same rate
    for beta, distortion, rate in zip(found.betas, found.distortion, found.rate, strict=True):
        assert distortion + beta * rate == pytest.approx(optimum(spectrum_of(x), latents, float(beta)).loss, rel=0.01)


def test_the_slope_of_an_exact_curve_is_minus_beta() -> None:
    spectrum = np.array([9.0, 4.0, 2.0, 1.0, 0.5])
    betas = np.geomspace(0.05, 2, 13)
    best = [optimum(spectrum, 5, float(beta), 0.3) for beta in betas]
    curve = Curve(betas, *(np.array([[getattr(b, n)] for b in best]) for n in ("distortion", "rate")), np.zeros(13))
    assert np.isnan(curve.slope[[0, -1]]).all()
    np.testing.assert_allclose(-curve.slope[1:-1] / betas[1:-1], 1, atol=0.03)


def test_a_slope_that_rows_can_not_tell_is_left_out() -> None:
    """In a collapsed model a difference of distortions that is noise is divided by next to nothing."""
    rng, betas = np.random.default_rng(0), np.geomspace(0.1, 10, 9)
    rates = np.where(betas < 1.5, 5 - 2 * np.log(betas), 0.001)[:, None] + rng.normal(0, 1e-4, (9, 50))
    distortions = 20 + 2 * np.minimum(betas, 1.5)[:, None] + rng.normal(0, 0.02, (9, 50))
    slope = Curve(betas, distortions, rates, np.zeros(9)).slope
    np.testing.assert_allclose(-slope[1:4] / betas[1:4], 1, atol=0.1)
    assert np.isnan(slope[5:]).all()


# ---- the choice of a beta --------------------------------------------------------------------------------------------


def test_picks_are_what_they_say(wine: TableVAE) -> None:
    x, grid = WINE[1::2], [0.03, 0.1, 0.3, 1, 3]
    curve = wine.curve(x)
    assert wine.pick(x, "elbo", grid) == max(grid, key=lambda beta: wine.at(beta).score(x))
    weighted = {beta: wine.at(beta).log_likelihood(x, n_draws=100).mean for beta in grid}
    assert wine.pick(x, "log_likelihood", grid) == max(weighted, key=lambda beta: weighted[beta])
    assert wine.pick(x, lambda m, rows: -m.model_.conditioning.beta, grid) == 0.03
    for nats in np.linspace(curve.rate[-1], curve.rate[0], 5)[1:-1]:
        assert wine.at(wine.pick(x, f"rate:nats={nats}")).curve(x, [wine.pick(x, f"rate:nats={nats}")]).rate[
            0
        ] == pytest.approx(nats, rel=0.05)
    middle = float(curve.distortion[6])
    assert wine.pick(x, f"distortion:nats={middle}") == pytest.approx(curve.betas[6], rel=0.3)
    assert 0.01 < wine.pick(x, "knee") < 10


def test_a_distortion_that_small_betas_overfit_is_met_at_the_larger_beta() -> None:
    """Held-out distortion that falls before it rises: every value that it takes can be asked for."""
    rate, distortion = np.array([[9.0], [7], [5], [3], [1]]), np.array([[12.0], [11], [10], [12], [14]])
    curve = Curve(np.array([0.01, 0.1, 1.0, 10.0, 100.0]), distortion, rate, np.zeros(5))
    assert curve.beta_for_distortion(10) == pytest.approx(1)
    assert curve.beta_for_distortion(11) == pytest.approx(10**0.5)
    assert curve.beta_for_distortion(12) == pytest.approx(10)
    assert curve.beta_for_distortion(14) == pytest.approx(100)
    with pytest.raises(ParameterError, match="within those of the range, 10 and 14 nats"):
        curve.beta_for_distortion(9.9)


def test_the_knee_of_a_corner_is_the_corner() -> None:
    rate, distortion = np.array([[20.0], [10.0], [9.0], [5.0], [1.0]]), np.array([[9.0], [9.5], [10.0], [30.0], [50.0]])
    curve = Curve(np.array([0.1, 0.3, 1, 3, 10]), distortion, rate, np.zeros(5))
    assert curve.knee() == 1


BAD: list[tuple[Any, str]] = [
    (lambda m: m.at(20), "range from 0.01 to 10"),
    (lambda m: m.at(0), "range from 0.01 to 10"),
    (lambda m: m.at(math.nan), "range from 0.01 to 10"),
    (lambda m: m.at("much"), "range from 0.01 to 10"),
    (lambda m: m.curve(WINE, [1, 20]), "from 0.01 to 10"),
    (lambda m: m.curve(WINE, []), "from 0.01 to 10"),
    (lambda m: m.curve(WINE, ["x"]), "from 0.01 to 10"),
    (lambda m: m.curve(WINE, n_draws=0), "n_draws"),
    (lambda m: m.curve(WINE[:, :3]), "features"),
    (lambda m: m.pick(WINE, "likelihood"), "Did you mean 'log_likelihood'?"),
    (lambda m: m.pick(WINE, "rate"), "needs nats"),
    (lambda m: m.pick(WINE, "rate:nats=1e6"), "within those of the range"),
    (lambda m: m.pick(WINE, "rate:nats=much"), "'much'"),
    (lambda m: m.pick(WINE, lambda one, x: math.nan), "finite number"),
    (lambda m: m.pick(WINE, 3), "task"),
]


@pytest.mark.parametrize(("act", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_wishes_give_errors_in_three_parts(wine: TableVAE, act: Any, said: str) -> None:
    with pytest.raises((ElbowroomError, ValueError)) as caught:
        act(wine)
    assert said in str(caught.value)


def test_one_beta_is_no_range() -> None:
    fitted = table().fit(WINE)
    for act in (lambda: fitted.at(1), lambda: fitted.curve(WINE), lambda: fitted.pick(WINE)):
        with pytest.raises(ParameterError, match=r"Fit with beta='0\.01\.\.10'"):
            act()
