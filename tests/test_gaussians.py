"""Distributions over latents: closed forms against Monte Carlo, outside judges and grids; posteriors and priors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from elbowroom.distributions.gaussian import DiagonalGaussian, FullGaussian, GaussianMixture, StandardGaussian
from elbowroom.errors import ParameterError
from elbowroom.latents.posteriors import LATENTS
from elbowroom.latents.priors import PRIORS, CompositePrior, Posterior, Prior

F64 = torch.float64


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def diagonal(*lead: int, d: int = 3, seed: int = 1) -> DiagonalGaussian:
    return DiagonalGaussian(noise(*lead, d, seed=seed), 0.5 * noise(*lead, d, seed=seed + 1) - 0.5)


def full(*lead: int, d: int = 3, seed: int = 1) -> FullGaussian:
    lower = 0.5 * noise(*lead, d, d, seed=seed + 1).tril(-1)
    return FullGaussian(
        noise(*lead, d, seed=seed), lower + torch.diag_embed(0.3 + noise(*lead, d, seed=seed + 2).abs())
    )


MAKE: dict[str, Callable[..., Any]] = {"diagonal": diagonal, "full": full}
every_posterior = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())


def outside(q: Posterior) -> Any:
    """The same distribution in torch."""
    if isinstance(q, FullGaussian):
        return MultivariateNormal(q.mean, scale_tril=q.cholesky)
    return Independent(Normal(q.mean, q.log_std.exp()), 1)


def test_every_posterior_is_tested_here() -> None:
    assert set(MAKE) == set(LATENTS)


@every_posterior
def test_agrees_with_torch(make: Callable[..., Posterior]) -> None:
    q, z = make(4), noise(5, 4, 3, seed=9)
    judge = outside(q)
    torch.testing.assert_close(q.log_prob(z), judge.log_prob(z))
    torch.testing.assert_close(q.variance, judge.variance)
    torch.testing.assert_close(q.mean, judge.mean)
    standard = outside(DiagonalGaussian(torch.zeros(3, dtype=F64), torch.zeros(3, dtype=F64)))
    if isinstance(q, FullGaussian):
        standard = MultivariateNormal(torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64))
    torch.testing.assert_close(q.kl_to_standard().sum(-1), kl_divergence(judge, standard))


@every_posterior
def test_draws_have_the_moments(make: Callable[..., Posterior]) -> None:
    q = make()
    z = q.rsample(noise(200_000, 3, seed=5))
    error = z.std(0) / math.sqrt(len(z))
    assert ((z.mean(0) - q.mean).abs() < 4.5 * error).all()
    covariance = torch.cov(z.mT)
    expected = torch.diag(q.variance) if isinstance(q, DiagonalGaussian) else q.cholesky @ q.cholesky.mT
    torch.testing.assert_close(covariance, expected, rtol=0.02, atol=0.02 * float(expected.diagonal().max()))


@every_posterior
def test_kl_is_its_monte_carlo_estimate(make: Callable[..., Posterior]) -> None:
    q = make(2)
    z = q.rsample(noise(200_000, 2, 3, seed=6))
    estimate, _ = q.kl_to(GaussianMixture(unit(1), torch.zeros(1, dtype=F64)), z)
    exact, _ = q.kl_to(StandardGaussian(3, q.mean), z)
    error = estimate.std(0) / math.sqrt(len(z))
    assert ((estimate.mean(0) - exact).abs() < 4.5 * error).all()


def unit(k: int, d: int = 3) -> DiagonalGaussian:
    return DiagonalGaussian(torch.zeros(k, d, dtype=F64), torch.zeros(k, d, dtype=F64))


def test_rate_parts_exist_where_both_factorise() -> None:
    standard = StandardGaussian(3, torch.zeros((), dtype=F64))
    rate, parts = diagonal(4).kl_to(standard, noise(4, 3))
    assert parts is not None
    torch.testing.assert_close(parts.sum(-1), rate)
    assert full(4).kl_to(standard, noise(4, 3))[1] is None
    assert diagonal(4).kl_to(GaussianMixture(unit(2), torch.zeros(2)), noise(4, 3))[1] is None


@every_posterior
def test_pairs_equal_the_loop(make: Callable[..., Posterior]) -> None:
    q, z = make(4), noise(2, 5, 3, seed=9)
    loop = torch.stack([torch.stack([outside(q).log_prob(point) for point in row]) for row in z])
    assert loop.shape == (2, 5, 4)
    torch.testing.assert_close(q.log_prob_pairs(z), loop)


@every_posterior
def test_pairs_hold_for_sharp_components_in_float32(make: Callable[..., Posterior]) -> None:
    d, k = 8, 50
    mean = noise(k, d, dtype=torch.float32)
    scale = torch.full((k, d), -6.0)
    q: Posterior = DiagonalGaussian(mean, scale)
    wide: Posterior = DiagonalGaussian(mean.double(), scale.double())
    if make is full:
        q, wide = (
            FullGaussian(mean, torch.diag_embed(scale.exp())),
            FullGaussian(mean.double(), torch.diag_embed(scale.exp()).double()),
        )
    z = q.rsample(noise(k, d, seed=3, dtype=torch.float32))
    assert q.log_prob_pairs(z).dtype == torch.float32
    exact = wide.log_prob_pairs(z.double()).diagonal()
    torch.testing.assert_close(q.log_prob_pairs(z).diagonal().double(), exact, rtol=0, atol=1e-3)


@every_posterior
def test_a_mixture_in_one_dimension_integrates_to_one(make: Callable[..., Posterior]) -> None:
    mixture = GaussianMixture(make(4, d=1), noise(4, seed=4))
    grid = torch.linspace(-20, 20, 40_001, dtype=F64)
    density = mixture.log_prob(grid[:, None]).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-10)
    torch.testing.assert_close(torch.trapezoid(density * grid, grid), mixture.mean[0])


@every_posterior
def test_a_mixture_draws_what_it_scores(make: Callable[..., Posterior]) -> None:
    mixture = GaussianMixture(make(3, d=2), torch.tensor([0.0, 1.0, -1.0], dtype=F64))
    z = mixture.sample(100_000, seeded(0))
    assert ((z.mean(0) - mixture.mean).abs() < 4.5 * z.std(0) / math.sqrt(len(z))).all()
    box = (z.abs() < 1).all(-1).double().mean()
    axis = torch.linspace(-1, 1, 401, dtype=F64)
    density = mixture.log_prob(torch.cartesian_prod(axis, axis)).exp().view(401, 401)
    mass = torch.trapezoid(torch.trapezoid(density, axis), axis)
    assert abs(float(box - mass)) < 4.5 * math.sqrt(float(mass * (1 - mass)) / len(z))


@every_posterior
def test_detached_posteriors_have_no_graph(make: Callable[..., Posterior]) -> None:
    q = make(4)
    q.mean.requires_grad_()
    assert not q.detach().log_prob(noise(4, 3)).requires_grad


# ---- latents: features to posteriors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LATENTS)
def test_latents_give_posteriors_over_any_leading_axes(name: str) -> None:
    latent = LATENTS[name](5, 3)
    q = latent(noise(2, 4, 5, dtype=torch.float32))
    assert q.mean.shape == q.variance.shape == (2, 4, 3)
    q.log_prob(q.rsample(torch.randn(2, 4, 3, generator=seeded(0)))).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in latent.parameters())


@pytest.mark.parametrize("name", LATENTS)
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_extreme_features_stay_finite(name: str, size: float) -> None:
    latent = LATENTS[name](5, 3)
    h = torch.full((4, 5), size, requires_grad=True)
    q = latent(h)
    z = q.rsample(noise(7, 4, 3, dtype=torch.float32))
    total = q.kl_to_standard().sum() + q.log_prob(z).sum()
    total.backward()
    assert bool(total.isfinite())
    assert bool(h.grad.isfinite().all())  # type: ignore[union-attr]
    assert all(bool(p.grad.isfinite().all()) for p in latent.parameters())


@pytest.mark.parametrize("size", [1e3, -1e3])
def test_a_posterior_comes_back_from_an_absurd_spread(size: float) -> None:
    latent = LATENTS["diagonal"](5, 3)
    with torch.no_grad():
        latent.head.bias[3:] += size
    latent(torch.zeros(1, 5)).kl_to_standard().sum().backward()
    assert bool((latent.head.bias.grad[3:] * size > 0).all())


def test_a_full_posterior_starts_at_the_standard_prior() -> None:
    latent = LATENTS["full"](5, 3)
    torch.nn.init.zeros_(latent.head.weight)
    torch.nn.init.zeros_(latent.head.bias)
    q = latent(torch.zeros(1, 5))
    torch.testing.assert_close(q.cholesky[0], torch.eye(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", LATENTS)
def test_bfloat16_networks_keep_densities_in_float32(name: str) -> None:
    latent = LATENTS[name](5, 3)
    h = noise(4, 5, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        q = latent(h.bfloat16())
        z = q.rsample(noise(4, 3, seed=2, dtype=torch.float32))
        exact = q.rsample(noise(4, 3, seed=2))
        found = GaussianMixture(q, torch.zeros(4)).log_prob(z)
        kl = q.kl_to_standard()
    torch.testing.assert_close(z.double(), exact, rtol=1e-5, atol=1e-5)
    assert q.mean.dtype == z.dtype == found.dtype == kl.dtype == torch.float32
    torch.testing.assert_close(found, GaussianMixture(q, torch.zeros(4)).log_prob(z))


# ---- priors ----------------------------------------------------------------------------------------------------------


def prior_named(name: str, d: int = 2, features: int = 4) -> Prior:
    options = {"components": 6} if "components" in PRIORS[name].__init__.__code__.co_varnames else {}
    sizes = (d, features) if name == "vamp" else (d,)
    return PRIORS[name](*sizes, **options)


@pytest.mark.parametrize("name", PRIORS)
def test_priors_integrate_to_one_learn_and_sample(name: str) -> None:
    prior = prior_named(name, d=1).double()
    latent = LATENTS["diagonal"](4, 1).double()
    prior.initialise(noise(50, 4), seeded(0))
    p = prior(latent)
    grid = torch.linspace(-30, 30, 60_001, dtype=F64)
    density = p.log_prob(grid[:, None]).exp()
    torch.testing.assert_close(torch.trapezoid(density, grid), torch.ones((), dtype=F64), atol=1e-9, rtol=0)
    for parameter in prior.parameters():
        (slope,) = torch.autograd.grad(p.log_prob(noise(20, 1)).sum(), parameter, retain_graph=True)
        assert bool(slope.abs().sum() > 0)
    before = torch.get_rng_state()
    z = p.sample(50_000, seeded(3))
    assert torch.equal(z, p.sample(50_000, seeded(3)))
    assert torch.equal(before, torch.get_rng_state())
    assert z.shape == (50_000, 1)
    assert bool((z.mean(0) - p.mean).abs() < 4.5 * z.std(0) / math.sqrt(len(z)))


def test_the_vamp_prior_is_the_mixture_of_its_posteriors() -> None:
    prior, latent = prior_named("vamp").double(), LATENTS["diagonal"](4, 2).double()
    prior.initialise(noise(50, 4), seeded(0))
    z = noise(10, 2, seed=8)
    parts = torch.stack([outside(latent(u)).log_prob(z) for u in prior.pseudo_inputs])  # type: ignore[union-attr]
    torch.testing.assert_close(prior(latent).log_prob(z), parts.logsumexp(0) - math.log(6))


def test_the_vamp_prior_starts_at_training_rows() -> None:
    prior, features = prior_named("vamp"), 100 * torch.arange(8.0)[:, None].expand(8, 4)
    prior.initialise(features, seeded(0))
    nearest = (prior.pseudo_inputs[:, None] - features).abs().sum(-1).min(1).values  # type: ignore[operator]
    spread = float(features.std(0, correction=0)[0])
    assert bool((nearest < 4 * 0.5 * spread).all())
    assert bool((nearest > 0).all())


@every_posterior
def test_the_composite_prior_is_a_mixture_with_an_older_posterior(make: Callable[..., Posterior]) -> None:
    prior, previous, z = CompositePrior(3).double(), make(7), noise(5, 7, 3, seed=8)
    standard, far = (Independent(Normal(torch.zeros(3, dtype=F64), scale), 1) for scale in (1.0, math.exp(5)))
    shares = torch.tensor([0.15, 0.75, 0.1], dtype=F64)[:, None, None]
    densities = torch.stack([p.log_prob(z).expand(5, 7) for p in (standard, outside(previous), far)]).exp()
    torch.testing.assert_close(prior.beside(previous).log_prob(z).exp(), (shares * densities).sum(0))
    q = make(7, seed=20)
    rate, parts = q.kl_to(prior.beside(previous), z[0])
    torch.testing.assert_close(rate, q.log_prob(z[0]) - prior.beside(previous).log_prob(z[0]))
    assert parts is None
    assert isinstance(prior(lambda x: x), StandardGaussian)  # to score and to sample


@pytest.mark.parametrize("options", [{"old": 0.9}, {"wide": 0.0}, {"old": "most"}, {"log_variance": 99}])
def test_shares_that_are_none_are_refused(options: Any) -> None:
    with pytest.raises(ParameterError, match="shares of a composite prior"):
        CompositePrior(2, **options)


@pytest.mark.parametrize("components", [0, -1, 2.5, True, "many"])
def test_a_bad_number_of_components_is_refused(components: Any) -> None:
    for name in ("mixture", "vamp"):
        with pytest.raises(ParameterError, match="components"):
            PRIORS[name](*((2, 4) if name == "vamp" else (2,)), components=components)


@every_posterior
def test_the_rate_to_a_mixture_is_unbiased(make: Callable[..., Posterior]) -> None:
    q, prior = make(d=1), GaussianMixture(diagonal(3, d=1, seed=7), noise(3, seed=4))
    grid = torch.linspace(-20, 20, 40_001, dtype=F64)[:, None]
    log_q = q.log_prob(grid)
    exact = torch.trapezoid(log_q.exp() * (log_q - prior.log_prob(grid)), grid[:, 0])
    z = q.rsample(noise(200_000, 1, seed=2))
    estimate, _ = q.kl_to(prior, z)
    assert abs(float(estimate.mean() - exact)) < 4.5 * float(estimate.std()) / math.sqrt(len(z))
