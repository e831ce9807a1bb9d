"""A linear Gaussian VAE against its closed form, in its weights and at every beta."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from closed_form import SETTINGS, Optimum, optimum, spectrum_of, table
from sklearn.decomposition import PCA
from torch import Tensor

from elbowroom import TableVAE
from elbowroom.likelihoods.continuous import Gaussian

F64 = torch.float64
# ---- the model, exactly ----------------------------------------------------------------------------------------------


class Exact(NamedTuple):
    """What a fitted linear model is, from its weights: x ~ b + W z + noise; q(z|x) of every row."""

    weights: Tensor
    offset: Tensor
    variance: float
    mean: Tensor
    std: Tensor

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """log p(x) of every row."""
        covariance = self.weights @ self.weights.mT + self.variance * torch.eye(len(self.weights), dtype=F64)
        law = torch.distributions.MultivariateNormal(self.offset, covariance)
        return law.log_prob(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    def rate_and_distortion(self, x: np.ndarray) -> tuple[float, float]:
        """Both without any sampling."""
        rate = 0.5 * (self.mean.square() + self.std.square() - 1) - self.std.log()
        residual = torch.from_numpy(x) - self.offset - self.mean @ self.weights.mT
        spread = self.std.square() @ self.weights.square().sum(0)
        error = residual.square().sum(-1) + spread
        size = len(self.weights) * math.log(2 * math.pi * self.variance)
        return float(rate.sum(-1).mean()), float(0.5 * (size + error.mean() / self.variance))


@torch.no_grad()
def exact(fitted: TableVAE, x: np.ndarray) -> Exact:
    """The model in the units of the data."""
    model = fitted.model_
    likelihood = model.likelihood
    unit = likelihood.unit_scale
    q = model.encode(torch.as_tensor(x, dtype=torch.float32))
    return Exact(
        unit[:, None] * model.decoder.last.weight.double(),
        likelihood.unit_loc + unit * likelihood.bias.double(),
        float((unit[0] * likelihood.log_std()[0].double().exp()) ** 2),
        q.mean.double(),
        q.variance.double().sqrt(),
    )


# ---- the bars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "latents"), [("wine", 3), ("breast cancer", 5)])
def test_the_log_likelihood_is_that_of_probabilistic_pca(name: str, latents: int) -> None:
    x = table(name)
    bar = PCA(n_components=latents).fit(x).score(x)
    fitted = TableVAE(latents, **SETTINGS).fit(x)
    truth = exact(fitted, x)
    rows = truth.log_likelihood(x)
    assert rows.mean() == pytest.approx(bar, abs=0.05)
    assert rows.mean() < bar + 0.01  # nothing is better than the best
    elbo = -sum(truth.rate_and_distortion(x))
    assert rows.mean() - 0.05 < elbo < rows.mean()
    assert fitted.score(x) == pytest.approx(elbo, abs=0.15)  # its 16 draws a row have a standard error of 0.03
    estimate = fitted.log_likelihood(x, n_draws=1000)
    assert abs(estimate.mean - bar) < estimate.standard_error
    # Row by row the error is that of the draws alone; the mean of log of a mean is low by half its variance.
    gap = estimate.rows - rows
    error = gap.std() / math.sqrt(len(gap))
    assert abs(gap.mean() + 0.5 * gap.var()) < 4 * error
    assert error < 0.01


def check_against(best: Optimum, fitted: TableVAE, x: np.ndarray, beta: float) -> None:
    """Active units, rate, distortion and loss are those of the closed form."""
    truth = exact(fitted, x)
    rate, distortion = truth.rate_and_distortion(x)
    assert fitted.diagnosis_.n_active == best.active
    assert int((truth.mean.var(0, correction=0) > 0.01).sum()) == best.active
    assert rate == pytest.approx(best.rate, rel=0.015)
    assert distortion == pytest.approx(best.distortion, rel=0.01)
    assert best.loss - 1e-3 < distortion + beta * rate < best.loss + 0.05
    assert truth.variance == pytest.approx(best.variance, rel=0.01)
    found_distortion, found_rate = fitted.distortion_and_rate(x, n_draws=64)
    assert float(found_rate.mean()) == pytest.approx(rate, abs=1e-4)
    error = found_distortion.std() / math.sqrt(len(x))
    assert abs(float(found_distortion.mean()) - distortion) < error


# Betas with all, some and few latents on, and no direction near the level.
BETAS = [("wine", 6, (0.5, 1.0, 2.5)), ("breast cancer", 8, (0.5, 3.0, 6.0))]


@pytest.mark.parametrize(
    ("name", "latents", "beta"),
    [(name, latents, beta) for name, latents, betas in BETAS for beta in betas],
)
def test_rate_and_distortion_are_reverse_water_filling(name: str, latents: int, beta: float) -> None:
    x = table(name)
    spectrum = spectrum_of(x)
    best = optimum(spectrum, latents, beta)
    level = beta * best.variance
    assert np.abs(np.log(spectrum[:latents] / level)).min() > 0.2, "a direction on the edge would need an endless run"
    assert best.active == int((spectrum[:latents] > level).sum())
    check_against(best, TableVAE(latents, beta=beta, **SETTINGS).fit(x), x, beta)


@pytest.mark.parametrize("active", [1, 2, 5])
def test_with_a_fixed_noise_beta_and_the_noise_are_one_dial(active: int) -> None:
    """The level is beta * sigma^2, here in the middle between two directions of the data."""
    x, latents, variance = table("wine"), 6, 0.4
    spectrum = spectrum_of(x)
    beta = math.sqrt(spectrum[active - 1] * spectrum[active]) / variance
    likelihood = Gaussian(x.shape[1], scale="shared")
    likelihood.raw_log_std.data.fill_(0.5 * math.log(variance))
    likelihood.raw_log_std.data += (
        likelihood.raw_log_std.data - likelihood.log_std()[0].detach()
    )  # the soft floor's part
    likelihood.raw_log_std.requires_grad_(False)
    best = optimum(spectrum, latents, beta, float((2 * likelihood.log_std()[0]).exp()))
    assert best.active == active
    check_against(best, TableVAE(latents, beta=beta, **SETTINGS | {"likelihood": likelihood}).fit(x), x, beta)


def test_the_active_latents_span_the_principal_directions() -> None:
    x, beta = table("wine"), 2.5
    active = optimum(spectrum_of(x), 6, beta).active
    weights = exact(TableVAE(6, beta=beta, **SETTINGS).fit(x), x).weights
    found = torch.linalg.svd(weights).U[:, :active]
    principal = torch.from_numpy(PCA(active).fit(x).components_)
    cosines = torch.linalg.svdvals(principal @ found)
    assert float(cosines.min()) > 0.99


def test_a_full_covariance_is_as_good_as_a_diagonal_one() -> None:
    x = table("wine")
    bar = PCA(n_components=3).fit(x).score(x)
    fitted = TableVAE(3, covariance="full", **SETTINGS).fit(x)
    assert exact(fitted, x).log_likelihood(x).mean() == pytest.approx(bar, abs=0.05)
