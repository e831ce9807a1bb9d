"""Scores, samples and reconstructions on real data."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from small import COUNTS, DIGITS, WINE, counts, images, table

from elbowroom import TableVAE, VAEDetector, load
from elbowroom.distributions.gaussian import DiagonalGaussian, FullGaussian
from elbowroom.errors import DataError, ElbowroomWarning
from elbowroom.estimators.reporting import summarise
from elbowroom.latents.priors import FittedPrior
from elbowroom.tasks.diagnose import Diagnosis, _information_per_latent, _mutual_information, fall_at_the_end
from elbowroom.tasks.score import LogLikelihood
from elbowroom.training.history import History


@pytest.fixture(scope="module")
def wine_model() -> TableVAE:
    return table(hidden=(64, 64), epochs=150).fit(WINE)


# ---- scores


@pytest.mark.parametrize("make", [table, images])
def test_scores_are_deterministic_and_a_row_does_not_know_its_company(make: Callable[..., Any]) -> None:
    x = DIGITS[:80] if make is images else WINE
    model = make(prior="vamp:components=5", covariance="full").fit(x)
    scores = model.score_samples(x)
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_array_equal(model.score_samples(x), scores)
    close = 1e-5 if make is images else 1e-12  # images are scored in float32, the rest in float64
    np.testing.assert_allclose(model.score_samples(x[order]), scores[order], rtol=close)
    np.testing.assert_allclose(model.score_samples(x[3:5]), scores[3:5], rtol=close)
    np.testing.assert_allclose(model.score_samples(x[7:8]), scores[7:8], rtol=close)


def test_scores_are_the_bound_at_beta_one_whatever_beta_was(wine_model: TableVAE) -> None:
    other = copy.deepcopy(wine_model)
    other.set_params(beta=7.0)
    other.beta_ = type(other.beta_)(7.0)
    np.testing.assert_array_equal(other.score_samples(WINE), wine_model.score_samples(WINE))
    strong = table(hidden=(64, 64), epochs=150, beta=7.0).fit(WINE)
    for model in (wine_model, strong):
        distortion, rate = model.distortion_and_rate(WINE)
        np.testing.assert_array_equal(model.score_samples(WINE), -(distortion + rate))
        assert model.score(WINE) == model.score_samples(WINE).mean()
        assert (rate >= 0).all()
    assert strong.distortion_and_rate(WINE)[1].mean() < wine_model.distortion_and_rate(WINE)[1].mean()
    assert strong.score(WINE) < wine_model.score(WINE)


def test_the_bound_is_below_the_log_likelihood(wine_model: TableVAE) -> None:
    found = wine_model.log_likelihood(WINE, n_draws=2000)
    bound = wine_model.score_samples(WINE, n_draws=512)
    assert (found.rows > bound - 0.25).all()
    assert found.mean > bound.mean()
    assert found.mean < bound.mean() + 2.0
    assert found.standard_error == pytest.approx(found.rows.std(ddof=1) / np.sqrt(len(WINE)))
    assert 0 < found.standard_error < 1
    assert (found.effective_sample_sizes >= 1 - 1e-6).all()
    assert (found.effective_sample_sizes <= 2000 + 1e-6).all()
    assert 100 < found.effective_sample_size < 2000
    assert str(found).startswith(f"{found.mean:.2f} +- {found.standard_error:.2f} nats per row (K = 2000")
    again = wine_model.log_likelihood(WINE, n_draws=2000, random_state=1)
    assert again.mean == pytest.approx(found.mean, abs=0.05)
    twice = [wine_model.log_likelihood(WINE[:9], n_draws=7).rows for _ in range(2)]
    np.testing.assert_array_equal(*twice)


def test_float32_and_float64_agree(wine_model: TableVAE) -> None:
    x32 = WINE.astype(np.float32)
    x64 = x32.astype(np.float64)
    assert wine_model.transform(x32).dtype == np.float32
    assert wine_model.transform(x64).dtype == np.float64
    np.testing.assert_allclose(wine_model.transform(x32), wine_model.transform(x64), atol=2e-5)
    for x in (x64, WINE):
        np.testing.assert_allclose(wine_model.score_samples(x32), wine_model.score_samples(x), atol=2e-4)


def test_scores_of_large_counts_are_exact_in_every_dtype() -> None:
    x = np.random.default_rng(0).negative_binomial(2, 1e-4, (40, 200))
    model = counts().fit(x)
    for score in (model.score_samples, lambda x: model.log_likelihood(x, n_draws=9).rows):
        np.testing.assert_array_equal(score(x.astype(np.float32)), score(x))


def test_log_likelihood_of_one_row_has_no_standard_error(wine_model: TableVAE) -> None:
    assert np.isnan(wine_model.log_likelihood(WINE[:1], n_draws=3).standard_error)


def test_a_well_trained_model_beats_independent_columns() -> None:
    X = WINE / WINE.std(0)
    train, test = X[::2], X[1::2]
    independent = stats.norm(train.mean(0), train.std(0)).logpdf(test).sum(1).mean()
    assert TableVAE(4, random_state=0).fit(train).score(test) > independent + 2.0


def test_a_small_effective_sample_size_is_said_in_words(wine_model: TableVAE) -> None:
    with pytest.warns(ElbowroomWarning, match=r"below 10 for 100% of the rows \(median \d\.\d of 5 draws\): read the"):
        found = wine_model.log_likelihood(WINE, n_draws=5)
    assert found.share_below == 1.0
    assert "lower bound, or take more draws" in str(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = wine_model.log_likelihood(WINE, n_draws=1000)
    assert enough.share_below <= 0.1
    assert enough.caution == ""
    assert "lower bound" not in str(enough)


@pytest.mark.parametrize(
    ("sizes", "share", "said"),
    [
        ([1.4, 1.4, 1.4], 1.0, "for 100% of the rows (median 1.4 of 50 draws)"),
        ([6.0] * 3, 1.0, "for 100% of the rows (median 6.0 of 50 draws)"),
        ([9.99] + [10.0] * 9, 0.1, ""),
        ([9.99] * 2 + [10.0] * 8, 0.2, "for 20% of the rows (median 10.0 of 50 draws)"),
        ([np.nan, 40.0, 40.0], 1 / 3, "for 33% of the rows (median 40.0 of 50 draws)"),
    ],
)
def test_a_tenth_of_the_rows_may_have_a_small_one(sizes: list[float], share: float, said: str) -> None:
    found = LogLikelihood(np.zeros(len(sizes)), np.array(sizes), 50)
    assert found.share_below == pytest.approx(share)
    assert said in found.caution
    assert bool(found.caution) == bool(said)


FAR = WINE[:12].copy()
FAR[7] *= 1e200


@pytest.mark.parametrize("method", ["score_samples", "log_likelihood", "distortion_and_rate", "diagnose", "curve"])
def test_rows_without_a_finite_score_are_counted_and_named(wine_model: TableVAE, method: str) -> None:
    model = table(beta="0.1..10", epochs=2).fit(WINE) if method == "curve" else wine_model
    with pytest.warns(
        ElbowroomWarning, match=r"^1 row has no finite (score|log-likelihood).* \(first: row 7\)"
    ) as said:
        found: Any = getattr(model, method)(FAR)
    assert all(issubclass(each.category, ElbowroomWarning) for each in said)
    if method in ("score_samples", "log_likelihood"):
        rows = getattr(found, "rows", found)
        assert rows[7] == -np.inf
        assert np.isfinite(np.delete(rows, 7)).all()


def test_latents_that_are_not_finite_are_counted_and_named(wine_model: TableVAE) -> None:
    broken = copy.deepcopy(wine_model)
    with torch.no_grad():
        broken.model_.encoder.layers[0].inner.weight[:, 0] = 1e30
    x = WINE.astype(np.float32)[:5]
    x[[2, 4], 0] = 3e38
    for act in (broken.transform, broken.reconstruct, broken.sample_posterior):
        with pytest.warns(ElbowroomWarning, match=r"rows? ha(s|ve) no finite \w+ \(first: row"):
            act(x)


def test_a_row_without_a_finite_score_is_an_outlier() -> None:
    detector = VAEDetector(table(schema="robust", epochs=2), n_draws=8, random_state=0).fit(WINE)
    assert detector.predict(FAR)[7] == -1
    assert np.isfinite(detector.score_samples(FAR)).all()  # heavy tails are computed without the square
    detector.offset_ = np.nan
    assert (detector.predict(WINE[:3]) == -1).all()


# ---- sampling


def test_samples_have_the_shape_of_the_data(wine_model: TableVAE) -> None:
    assert wine_model.sample(7, random_state=0).shape == (7, 13)
    assert images().fit(DIGITS[:40]).sample(3).shape == (3, 8, 8)
    assert images().fit(np.repeat(DIGITS[:40, ..., None], 3, -1)).sample(3).shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(wine_model.sample(7, random_state=0), wine_model.sample(7, random_state=0))
    assert not np.array_equal(wine_model.sample(7, random_state=0), wine_model.sample(7, random_state=1))
    assert not np.array_equal(wine_model.sample(7), wine_model.sample(7))


def test_samples_look_like_the_data(wine_model: TableVAE) -> None:
    drawn = wine_model.sample(4000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), WINE.mean(0), atol=0.25 * WINE.std(0).max(), rtol=0.15)
    assert ((drawn.std(0) / WINE.std(0) > 0.6) & (drawn.std(0) / WINE.std(0) < 1.5)).all()
    means = wine_model.sample(4000, mean=True, random_state=0)
    assert (means.std(0) < drawn.std(0)).all()


def test_samples_of_counts_are_counts() -> None:
    for likelihood in ("poisson", "negative_binomial", "multinomial", "binomial"):
        drawn = counts(likelihood=likelihood).fit(COUNTS).sample(50, random_state=0)
        assert (drawn == drawn.round()).all()
        assert drawn.min() >= 0


def test_posterior_draws_scatter_around_the_posterior_mean(wine_model: TableVAE) -> None:
    draws = wine_model.sample_posterior(WINE, 400, random_state=0)
    assert draws.shape == (400, len(WINE), 2)
    error = (draws.mean(0) - wine_model.transform(WINE)) / draws.std(0) * np.sqrt(400)
    assert abs(error).max() < 5
    assert 0.8 < error.std() < 1.2


def test_reconstructions_are_the_decoded_posterior_means(wine_model: TableVAE) -> None:
    out = wine_model.reconstruct(WINE)
    np.testing.assert_allclose(wine_model.inverse_transform(wine_model.transform(WINE)), out, rtol=1e-12)
    assert ((out - WINE).var(0) < 1.05 * WINE.var(0)).all()


# ---- diagnosis


@pytest.mark.parametrize("spread", [0.05, 0.3, 0.9])
def test_mutual_information_of_gaussians_has_a_closed_form(spread: float) -> None:
    """z = m + spread * noise with m ~ N(0, 1 - spread^2) in three latents: I(x; z) = -3 log(spread)."""
    mean = torch.randn(8000, 3, dtype=torch.float64) * (1 - spread**2) ** 0.5
    log_std = torch.full_like(mean, float(np.log(spread)))
    found = _mutual_information(DiagonalGaussian(mean, log_std))
    full = _mutual_information(FullGaussian(mean, torch.diag_embed(log_std.exp())))
    assert full == pytest.approx(found, rel=1e-9)
    assert found <= np.log(8000) + 1e-9
    if spread > 0.1:  # below, 8,000 rows are too few to show all of it
        assert found == pytest.approx(-3 * np.log(spread), abs=0.15)
    alone = _information_per_latent(FullGaussian(mean, torch.diag_embed(log_std.exp())))
    np.testing.assert_allclose(alone, -np.log(spread), atol=0.1)


def test_rows_that_repeat_have_independent_errors() -> None:
    """Of 4 patterns in 4,000 rows, a mean is as good as its standard error says; pattern by pattern it is known."""
    patterns, times = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([1600, 1200, 800, 400])
    x = patterns.repeat(times, 0)
    model = table(likelihood="bernoulli", beta=0.1, epochs=40).fit(x[::10])
    exact = (model.score_samples(patterns, n_draws=100_000) * times).sum() / len(x)
    distortion, rate = model._distortion_and_rate(x, n_draws=4, apart=True)
    scores = -(distortion + rate)
    assert len(np.unique(scores)) > 3000
    assert abs(scores.mean() - exact) < 4 * scores.std() / np.sqrt(len(x))
    assert abs(model.score(x) - exact) < 4 * scores.std() / np.sqrt(len(x))
    found = model.diagnose(x)
    assert abs(-(found.distortion + found.rate) - exact) < 4 * found.standard_error
    np.testing.assert_allclose(model.score_samples(x), model.score_samples(patterns).repeat(times), rtol=1e-12)


def test_an_aggregate_kl_that_rows_can_not_tell_is_nan(tmp_path: Path) -> None:
    """Where the rate is far above log(rows), rate less information is far above zero whatever the aggregate is."""
    sharp = table(n_latents=8, hidden=(64, 64), beta=0.001, epochs=150).fit(WINE)
    assert sharp.diagnosis_.rate > np.log(len(WINE)) + 5
    assert sharp.diagnosis_.saturated
    assert np.isnan(sharp.diagnosis_.aggregate_kl)
    sharp.save(tmp_path / "model")
    assert np.isnan(load(tmp_path / "model").diagnosis_.aggregate_kl)


@pytest.mark.parametrize("size", [4, 8])
def test_a_fitted_prior_is_chosen_on_rows_that_it_was_not_fitted_to(size: int) -> None:
    """Of N(0, I) itself nothing is better than N(0, I), however near two draws of a row are to each other."""
    generator = torch.Generator().manual_seed(0)
    rows = 0.95 * torch.randn(1000, size, generator=generator)
    draws = (rows + 0.3 * torch.randn(2, 1000, size, generator=generator)) / np.hypot(0.95, 0.3)
    prior = FittedPrior(size)
    prior.settle(draws, 0)
    assert not prior.settled
    apart = torch.where(torch.rand(1000, 1, generator=generator) < 0.5, -2.0, 2.0) + 0.2 * rows
    prior.settle(apart + 0.1 * torch.randn(2, 1000, size, generator=generator), 0)
    assert prior.settled


def test_the_rate_under_a_fitted_prior_is_of_rows_that_it_was_not_fitted_to() -> None:
    model = table(prior="fitted", beta=0.1, epochs=100, validation_fraction=0).fit(WINE)
    assert model.model_.prior.settled
    assert model.diagnosis_.encodings == len(WINE[::5])
    assert model.diagnosis_.rate == pytest.approx(model.diagnose(WINE[::5]).rate, rel=1e-6)


def test_the_rate_splits_by_latent_and_into_information_and_mismatch(wine_model: TableVAE) -> None:
    found = wine_model.diagnose(WINE)
    assert found.rate == pytest.approx(wine_model.distortion_and_rate(WINE)[1].mean(), rel=1e-9)
    assert found.rate_per_latent.sum() == pytest.approx(found.rate, rel=1e-6)
    assert found.mutual_information + found.aggregate_kl == pytest.approx(found.rate)
    assert 0.5 < found.mutual_information < np.log(len(WINE))
    full = table(hidden=(64, 64), epochs=150, covariance="full").fit(WINE).diagnosis_
    assert 0.5 < full.rate_per_latent.max() <= full.mutual_information + 0.1


def test_a_collapsed_posterior_is_called_so() -> None:
    found = table(beta=1000.0, epochs=100, learning_rate=1e-2).fit(WINE).diagnosis_
    assert not found.healthy
    assert found.rate < 0.05
    assert found.verdict.startswith("The posterior has collapsed: all 2 latents are off")
    assert "try beta=2.5e+02" in found.verdict


def test_latents_that_are_on_and_off_are_told_apart() -> None:
    factor = np.random.default_rng(0).normal(size=(400, 1))
    X = factor * np.ones(5) + 0.2 * np.random.default_rng(1).normal(size=(400, 5))
    model = table(n_latents=4, epochs=150, learning_rate=1e-2).fit(X)
    found = model.diagnosis_
    assert found.n_active == 1
    assert (found.rate_per_latent > 0.5).tolist() == found.active.tolist()
    assert found.verdict.startswith("1 of 4 latents is on; latents ")
    assert abs(np.corrcoef(model.transform(X)[:, found.active].T, factor.T)[0, 1]) > 0.95
    assert model.history_.verdict == found.verdict
    few = table(n_latents=1, epochs=150, learning_rate=1e-2).fit(X).diagnosis_
    assert few.verdict.startswith("The only latent is on")


def test_a_model_of_few_steps_is_not_called_collapsed(tmp_path: Path) -> None:
    model = table(epochs=1, beta=1000.0).fit(WINE)
    found = model.diagnosis_
    assert found.steps == 2
    assert not found.trained
    assert found.verdict == (
        "Not trained yet: 2 steps. Train longer: epochs='auto' aims at 4,000 steps. "
        f"{found.n_active} of 2 latents {'is' if found.n_active == 1 else 'are'} on so far."
    )
    assert model.diagnose(WINE[:9]).verdict.startswith("Not trained yet: 2 steps.")
    again = load(model.save(tmp_path / "m"))
    assert again.diagnosis_.verdict == again.diagnose(WINE).verdict == found.verdict
    assert "Not trained yet: 2 steps." in (tmp_path / "m" / "README.md").read_text()
    assert not summarise(model, WINE).healthy


def test_rows_that_are_all_the_same_do_not_say_which_latents_are_on(wine_model: TableVAE) -> None:
    for rows in (WINE[:1], np.repeat(WINE[:1], 20, axis=0)):
        found = wine_model.diagnose(rows)
        assert found.rate > 0.1
        assert found.verdict.startswith("Rows that are all equal do not show which latents are on")


def test_the_verdict_on_a_capacity_names_the_capacity() -> None:
    model = table(beta="capacity:nats=0.001,gamma=30", epochs=100).fit(WINE)
    assert np.isnan(model.diagnosis_.beta)
    assert "larger capacity" in model.diagnosis_.verdict
    assert "beta=" not in model.diagnosis_.verdict


def diagnosis(**facts: Any) -> Diagnosis:
    some = {"distortion": 1.0, "rate": 0.1, "standard_error": 0.1, "rate_per_latent": np.zeros(2), "aggregate_kl": 0.0}
    return Diagnosis(**{**some, "active": np.array([False, False]), "mutual_information": 0.0, "beta": 1.0, **facts})


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "The posterior has collapsed: all 2 latents are off"),
        ({"steps": 99}, "Not trained yet: 99 steps."),
        ({"steps": 1}, "Not trained yet: 1 step."),
        ({"steps": 100}, "The posterior has collapsed"),
        ({"steps": 500, "falls": 0.25}, "Not trained to convergence: over the last quarter of 500 steps the loss still "
         "fell by 0.25 nats per row. Train longer, with more epochs. 0 of 2 latents are on so far."),
        ({"steps": 500, "falls": 0.25, "active": np.array([True, False])}, "Not trained to convergence"),
        ({"steps": 500, "falls": 0.25, "active": np.array([True, True])}, "All 2 latents are on. The loss was still "
         "falling at the end of training: more epochs would help. For more detail"),
        ({"steps": 500, "active": np.array([True, True])}, "All 2 latents are on. For more detail"),
    ],
)  # fmt: skip
def test_the_verdict_knows_how_far_training_went(facts: dict[str, Any], said: str) -> None:
    assert diagnosis(**facts).verdict.startswith(said)


def test_a_loss_falls_at_the_end_if_it_does_so_by_more_than_noise() -> None:
    falling = np.linspace(100, 80, 40)
    moving = [{"loss": loss, "beta": beta} for loss, beta in zip(falling, np.linspace(1, 0, 40), strict=True)]
    assert fall_at_the_end(history(falling)) == pytest.approx(10 * 20 / 39)
    assert fall_at_the_end(history(100 * 0.5 ** np.arange(40))) == 0  # by much of next to nothing
    assert fall_at_the_end(history([100, 80, 60, 40, 39.9, 39.8, 39.7, 39.6])) == 0  # by little of much
    assert fall_at_the_end(history(falling[::-1])) == 0
    assert fall_at_the_end(history(falling[:7])) == 0  # not known
    assert fall_at_the_end(History(moving)) == 0  # not known
    assert fall_at_the_end(History([{**record, "held_out_loss": record["loss"]} for record in moving])) > 5


def history(losses: Any) -> History:
    return History([{"loss": float(loss), "beta": 1.0} for loss in losses])


def test_mutual_information_at_its_cap_is_no_headline() -> None:
    assert diagnosis(mutual_information=np.log(60) - 0.5, encodings=60).saturated
    assert not diagnosis(mutual_information=np.log(60) - 1.0, encodings=60).saturated
    assert not diagnosis(mutual_information=9.0).saturated  # of an older model, whose encodings are not known
    X = WINE[:40] / WINE.std(0)
    model = table(n_latents=6, beta=1e-3, epochs=300, learning_rate=1e-2).fit(X)
    assert model.diagnose(X).saturated
    named = {number.name: number for number in summarise(model, X).numbers}
    assert "40 rows can show 3.7 at most, and it is there" in named["mutual information, at least"].meaning
    assert "read the log-likelihood as a lower bound" in named["log-likelihood, at least"].meaning


# ---- images


@pytest.mark.parametrize("binarize", ["threshold", "sample"])
@pytest.mark.parametrize("scale", [1 / 16, 1.0, 15.0])
def test_binarized_images_use_the_scale_of_the_pixels(binarize: str, scale: float) -> None:
    x = DIGITS[:100] * scale
    if scale == 15.0:
        x = x.astype(np.uint8)
    model = images(binarize=binarize, epochs=1).fit(x)
    assert model.likelihood_ == "bernoulli"
    rows = model._rows(model._read(x, reset=False), None)
    seen = rows.dense(torch.arange(100)).double().mean()
    expected = (DIGITS[:100] > 8).mean() if binarize == "threshold" else DIGITS[:100].mean() / 16
    assert seen == pytest.approx(expected, abs=0.02)


def test_drawn_pixels_are_new_in_training_and_fixed_by_the_image_elsewhere() -> None:
    model = images(binarize="sample").fit(DIGITS[:60])
    scores = model.score_samples(DIGITS[:60])
    np.testing.assert_allclose(model.score_samples(DIGITS[30:60]), scores[30:], rtol=1e-5)
    latents = model.transform(DIGITS[:60])
    np.testing.assert_allclose(model.transform(DIGITS[10:11]), latents[10:11], rtol=1e-4, atol=1e-6)
    rows = model._rows(model._read(DIGITS[:60], reset=False), None)
    index = torch.arange(60)
    drawn = [rows.batch(index, torch.Generator().manual_seed(seed)).x for seed in (0, 1)]
    assert not torch.equal(drawn[0], drawn[1])
    assert set(drawn[0].unique().tolist()) == {0.0, 1.0}


def test_images_of_other_scales_or_sizes_are_refused() -> None:
    model = images(binarize="threshold").fit(DIGITS[:40])
    with pytest.raises(DataError, match="needs pixels from 0 to 16, but they range from 0 to 240"):
        model.score(DIGITS * 15)
    with pytest.raises(DataError, match=r"shape \(8, 8\) that the model was fitted on, but theirs is \(8, 7\)"):
        model.score(DIGITS[:, :, :7])


def test_breast_cancer_end_to_end() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = TableVAE(4, epochs=60, random_state=0).fit(X)
    assert model.likelihood_ == "gaussian"
    assert model.diagnosis_.healthy
    assert cross_val_score(LogisticRegression(max_iter=1000), model.transform(X), y, cv=5).mean() > 0.85
