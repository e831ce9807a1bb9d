"""Contracts of every likelihood: they run over the family dict, so that a new member is tested by existing."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Generator, Tensor

from elbowroom import distributions as d
from elbowroom import likelihoods as kinds
from elbowroom.data.dataset import Rows
from elbowroom.distributions import base
from elbowroom.errors import DataError, ParameterError
from elbowroom.likelihoods.auto import choose_counts, look
from elbowroom.likelihoods.base import Likelihood
from elbowroom.likelihoods.counts import LARGE
from elbowroom.likelihoods.discrete import MAX_CLASSES
from elbowroom.likelihoods.discrete import Ordinal as OrdinalLikelihood
from elbowroom.likelihoods.mixed import Mixed
from elbowroom.likelihoods.registry import LIKELIHOODS
from elbowroom.utils import specs

VARIANTS = {
    "binomial": ["total=16"],
    "gaussian": ["scale=feature", "scale=shared"],
    "student_t": ["scale=feature", "scale=shared"],
    "poisson": ["library=false", "library=true"],
    "negative_binomial": ["library=false", "library=true"],
    "categorical": ["classes=4"],
    "discretized_logistic": ["levels=16"],
    "warped": ["", "space=log"],
    "ordinal": ["levels=5", "levels=5,open=true", "levels=5,open=true,floor=0"],
}
ALONE = [f"{name}:{options}" for name in LIKELIHOODS if name != "mixed" for options in VARIANTS.get(name, [""])]
ALL = [*ALONE, "mixed"]
over_all = pytest.mark.parametrize("case", ALL)
over_alone = pytest.mark.parametrize("case", ALONE)

# What is documented to give another centre than E[x|z]: the most likely code, the centre of the logistic, the median.
OTHER_CENTRE = (kinds.Categorical, kinds.Ordinal)


END = torch.tensor([1e4], dtype=torch.float64)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_noise_is_the_same_without_the_private_function(dtype: torch.dtype) -> None:
    shapes = torch.logspace(-3, 3, 500, dtype=dtype)
    ours, plain, before = seeded(3), seeded(3), torch.get_rng_state()
    for _ in range(2):  # the generator moves on as well
        assert torch.equal(base.plain_gamma(shapes, ours), torch._standard_gamma(shapes, generator=plain))
    assert torch.equal(ours.get_state(), plain.get_state())
    assert torch.equal(torch.get_rng_state(), before)
    drawn = base.plain_gamma(shapes)
    torch.set_rng_state(before)
    assert torch.equal(drawn, torch._standard_gamma(shapes))


def test_samples_are_the_same_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = d.NegativeBinomial(torch.zeros(5, 3), torch.ones(3))
    expected = counts.sample(seeded())
    monkeypatch.setattr(base, "_gamma", base.plain_gamma)
    assert torch.equal(counts.sample(seeded()), expected)


def name_of(case: str) -> str:
    return case.partition(":")[0]


def make(case: str, features: int = 3) -> Likelihood:
    """A likelihood with parameters off their start; "mixed" is all others together, their columns interleaved."""
    if case == "mixed":
        parts = [make(other, features) for other in ALONE]
        return Mixed(parts, [range(i, len(parts) * features, len(parts)) for i in range(len(parts))])
    likelihood: Likelihood = specs.make(case, LIKELIHOODS, "likelihood", features)
    with torch.no_grad():
        for p in likelihood.parameters():
            p += 0.3 * torch.randn(p.shape, generator=seeded(1))
        if hasattr(likelihood, "totals"):
            likelihood.totals.copy_(torch.linspace(5, 30, len(likelihood.totals)).round())
        if isinstance(likelihood, kinds.Ordinal):
            cutpoints = torch.arange(likelihood.cutpoints.shape[1], dtype=torch.float64) - 0.5
            likelihood.cutpoints[:] = cutpoints if likelihood.open else torch.cat([-END, cutpoints[1:-1], END])
            likelihood.tail_spacing[:] = 1
        if hasattr(likelihood, "unit_scale"):
            likelihood.unit_loc += 3
            likelihood.unit_scale *= 0.5
    return likelihood


def outputs(likelihood: Likelihood, *lead: int, seed: int = 2) -> Tensor:
    dtype = next(likelihood.parameters()).dtype
    return torch.randn(*lead, likelihood.n_outputs, generator=seeded(seed), dtype=dtype)


def rows(likelihood: Likelihood, n: int = 50, seed: int = 3) -> Tensor:
    """Data that fits, drawn from the likelihood itself."""
    with torch.no_grad():
        p = likelihood(outputs(likelihood, n, seed=seed), likelihood.draw_total(n, seeded(seed)))
        return p.sample(seeded(seed + 1))


def parts_of(likelihood: Likelihood) -> list[tuple[Likelihood, Any]]:
    """Every part with its columns."""
    if isinstance(likelihood, Mixed):
        return list(zip(likelihood.parts, likelihood.columns, strict=True))  # type: ignore[arg-type]
    return [(likelihood, slice(None))]


# ---- densities -------------------------------------------------------------------------------------------------------


def support(likelihood: Likelihood, total: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points (m, D) of the support and their weights (m,): found by asking the likelihood itself."""
    if total is not None:
        points = torch.cartesian_prod(*likelihood.features * [torch.arange(500, dtype=torch.float64)])
        drawn = likelihood(outputs(likelihood, 100), total).sample(seeded())
        if bool((drawn.sum(-1) == total[0, 0]).all()):  # a distribution given the total
            points = points[points.sum(-1) == total[0, 0]]
        return points, torch.ones(len(points), dtype=torch.float64)

    def fits(values: Tensor) -> Tensor:
        found = likelihood.misfit(values[:, None])
        return torch.ones(len(values), dtype=torch.bool) if found is None else ~found[1][:, 0]

    half, negative, high = fits(torch.tensor([0.5, -0.5, 1.5], dtype=torch.float64)).tolist()
    if not half:
        points = torch.arange(-500, 5000, dtype=torch.float64)
        points = points[fits(points)]
        return points[:, None], torch.ones(len(points), dtype=torch.float64)
    if negative:  # the line, by x = sinh(t): the trapezoid rule is exact but for the tails
        t = torch.linspace(-40, 40, 16_001, dtype=torch.float64)
        return 3 + t.sinh()[:, None], t.cosh() * (t[1] - t[0])
    if high:  # the half-line, by x = exp(t)
        t = torch.linspace(-60, 60, 16_001, dtype=torch.float64)
        return t.exp()[:, None], t.exp() * (t[1] - t[0])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    return torch.from_numpy((nodes[:, None] + 1) / 2), torch.from_numpy(weights / 2)


def small(case: str) -> tuple[Likelihood, Tensor | None]:
    """The smallest likelihood of a family with an enumerable support, with a total if it needs one."""
    one = make(case, 1).double()
    return (make(case, 2).double(), torch.full((1, 1), 7.0, dtype=torch.float64)) if one.uses_total else (one, None)


@over_alone
@torch.no_grad()
def test_sums_or_integrates_to_one(case: str) -> None:
    likelihood, total = small(case)
    points, weights = support(likelihood, total)
    for seed in range(5):
        p = likelihood(2 * outputs(likelihood, 1, seed=seed), total)
        assert float(p.log_prob(points).exp() @ weights) == pytest.approx(1, abs=1e-9)


@over_alone
@torch.no_grad()
def test_samples_have_the_law_that_is_scored(case: str) -> None:
    """The mean and the spread of log p(x) over samples are those over the whole support: tails would show."""
    likelihood, total = small(case)
    points, weights = support(likelihood, total)
    for seed in range(3):
        h, n = outputs(likelihood, 1, seed=seed), 100_000
        p = likelihood(h, total)
        found = p.log_prob(likelihood(h.expand(n, -1), total).sample(seeded(seed)))
        log_p = p.log_prob(points)
        mean = (log_p.exp() * log_p).nan_to_num() @ weights
        spread = (log_p.exp() * (log_p - mean).square()).nan_to_num() @ weights
        assert abs(float(found.mean() - mean)) < 4.5 * math.sqrt(float(spread) / n) + 1e-9
        squares = (found - mean).square()
        assert abs(float(squares.mean() - spread)) < 4.5 * float(squares.std()) / math.sqrt(n) + 1e-9


def logits_of(p: Any) -> np.ndarray:
    return p.logits.numpy()


def logistic_bins(p: Any, x: np.ndarray) -> np.ndarray:
    law = stats.logistic(p.location.numpy(), p.log_scale.exp().numpy())
    low, high = np.where(x <= 0, -np.inf, x - 0.5), np.where(x >= p.levels - 1, np.inf, x + 0.5)
    return np.log(np.where(x < law.mean(), law.cdf(high) - law.cdf(low), law.sf(low) - law.sf(high)))


def ordered_bins(p: Any, x: np.ndarray) -> np.ndarray:
    """Thresholds at -1/2, 1/2, ... of a logistic, which `make` sets."""
    law = stats.logistic(p.location.numpy(), p.log_scale.exp().numpy())
    low, high = x - 0.5, x + 0.5
    if p.floors is not None:
        low = np.where(x <= p.floors.numpy(), -np.inf, low)
    else:
        low, high = np.where(x == 0, -np.inf, low), np.where(x == 4, np.inf, high)
    return np.log(np.where(x < law.mean(), law.cdf(high) - law.cdf(low), law.sf(low) - law.sf(high)))


def warped(p: Any, x: np.ndarray) -> np.ndarray:
    """The warp of `make` is the identity."""
    std = p.log_std.exp().numpy()
    return (
        stats.lognorm.logpdf(x, std, scale=p.location.exp().numpy()) if p.log else stats.norm.logpdf(x, p.location, std)
    )


def poisson(p: Any, x: np.ndarray) -> np.ndarray:
    """Independent counts; with a library size given their total, which is Poisson with the sum of their means."""
    cells = stats.poisson.logpmf(x, p.mean)
    if not isinstance(p, d.Multinomial):
        return cells
    totals = stats.poisson.logpmf(x.sum(-1), p.mean.sum(-1))
    return (cells.sum(-1) - totals)[..., None]


JUDGES: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "bernoulli": lambda p, x: stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-logits_of(p)))),
    "binomial": lambda p, x: stats.binom.logpmf(x, 16, 1 / (1 + np.exp(-logits_of(p)))),
    "gaussian": lambda p, x: stats.norm.logpdf(x, p.mean, p.scale * p.log_std.exp()),
    "student_t": lambda p, x: stats.t.logpdf(x, p.df, p.mean, p.scale * p.log_std.exp()),
    "poisson": lambda p, x: poisson(p, x),
    "negative_binomial": lambda p, x: stats.nbinom.logpmf(
        x, p.log_dispersion.exp(), 1 / (1 + (p.log_rate - p.log_dispersion).exp())
    ),
    "multinomial": lambda p, x: np.stack(
        [
            [stats.multinomial(int(row.sum()), q).logpmf(row) for row, q in zip(x, draw, strict=True)]
            for draw in p.log_probs.exp().numpy()
        ]
    )[..., None],
    "categorical": lambda p, x: torch.distributions.Categorical(logits=p.log_probs).log_prob(torch.from_numpy(x)),
    "discretized_logistic": logistic_bins,
    "continuous_bernoulli": lambda p, x: torch.distributions.ContinuousBernoulli(logits=p.logits).log_prob(
        torch.from_numpy(x)
    ),
    "warped": warped,
    "ordinal": ordered_bins,
}


def test_every_likelihood_has_an_outside_judge() -> None:
    assert {*JUDGES, "mixed"} == set(LIKELIHOODS)


@over_alone
@torch.no_grad()
def test_log_prob_agrees_with_an_outside_judge(case: str) -> None:
    likelihood = make(case).double()
    x = rows(likelihood)
    p = likelihood(outputs(likelihood, 2, len(x)), likelihood.row_total(x))
    judged = torch.as_tensor(np.asarray(JUDGES[name_of(case)](p, x.numpy()))).sum(-1)
    torch.testing.assert_close(p.log_prob(x), judged, rtol=1e-9, atol=1e-6)


@over_all
@torch.no_grad()
def test_kernel_and_base_make_the_log_prob(case: str) -> None:
    likelihood = make(case)
    x = rows(likelihood)
    total = likelihood.row_total(x)
    p = likelihood(outputs(likelihood, 4, len(x)), total)
    assert p.log_prob(x).shape == (4, len(x))
    torch.testing.assert_close(p.log_kernel(x) + p.log_base(x), p.log_prob(x))
    other = likelihood(torch.zeros(1, likelihood.n_outputs))
    assert torch.equal(p.log_base(x).expand(len(x)), other.log_base(x).expand(len(x)))


@over_all
@torch.no_grad()
def test_float32_is_near_float64(case: str) -> None:
    likelihood = make(case)
    x, h = rows(likelihood), outputs(likelihood, 50)
    narrow = likelihood(h, likelihood.row_total(x)).log_prob(x)
    likelihood.double()
    wide = likelihood(h.double(), likelihood.row_total(x)).log_prob(x.double())
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-4)


@over_all
@torch.no_grad()
def test_the_dtype_of_the_data_does_not_matter(case: str) -> None:
    likelihood = make(case)
    values = rows(likelihood).double().round().clamp(0, 1)
    for part, columns in parts_of(likelihood):
        values[:, columns] += getattr(part, "space", "") == "log"
    p = likelihood(outputs(likelihood, len(values)), likelihood.row_total(values))
    for dtype in (torch.uint8, torch.int32, torch.int64, torch.float32):
        same = values.to(dtype)
        torch.testing.assert_close(p.log_prob(same).double(), p.log_prob(values).double(), rtol=1e-5, atol=1e-5)
        seen = likelihood.inputs(same)
        assert seen.dtype == torch.float32
        assert seen.shape == (len(values), likelihood.n_inputs)
        torch.testing.assert_close(seen, likelihood.inputs(values))
        likelihood.check(same)


# ---- samples and means -----------------------------------------------------------------------------------------------


@over_all
@torch.no_grad()
def test_the_mean_is_the_mean_of_samples(case: str) -> None:
    likelihood = make(case).double()
    n = 40_000
    total = likelihood.draw_total(1, seeded(8))
    p = likelihood(outputs(likelihood, 1).expand(n, -1), None if total is None else total.expand(n, -1))
    x = p.sample(seeded(5))
    assert x.shape == p.mean.shape == (n, likelihood.features)
    error = x.std(0) / math.sqrt(n) + 1e-9
    off = (x.mean(0) - p.mean[0]).abs() / error
    for part, columns in parts_of(likelihood):
        if not isinstance(part, OTHER_CENTRE):
            assert bool((off[columns] < 4.5).all()), (part, off[columns])


@torch.no_grad()
def test_the_centre_of_codes_is_the_most_likely_one() -> None:
    likelihood = make("categorical:classes=4")
    p = likelihood(outputs(likelihood, 1).expand(20_000, -1))
    torch.testing.assert_close(p.sample(seeded()).mode(0).values, p.mean[0], atol=0, rtol=0)


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_the_mean_of_levels_is_their_sum_by_probability(levels: int) -> None:
    locations = torch.tensor([-1000.0, -50, -0.5, 0, 0.3, 1, 7.7, 128, 200.2, 254.5, 255, 256, 400, 2000])
    location, log_scale = torch.meshgrid(locations.double(), torch.linspace(-4, 8, 25).double(), indexing="ij")
    p = d.DiscretizedLogistic(location.reshape(1, -1), log_scale.reshape(1, -1), levels)
    x = torch.arange(levels, dtype=torch.float64)[:, None].expand(-1, location.numel())
    torch.testing.assert_close(p.mean[0], (p.kernel_cells(x).exp() * x).sum(0), atol=1e-6, rtol=0)


def test_the_mean_of_a_wide_logistic_is_not_its_clamped_location() -> None:
    p = d.DiscretizedLogistic(torch.tensor([[400.0]]), torch.tensor([[8.0]]), 256)
    assert p.mean.item() == pytest.approx(133.32, abs=0.01)


def test_uniform_noise_is_open_and_reaches_the_ends() -> None:
    u = d.uniform(torch.zeros(1_000_000), seeded())
    assert 0 < float(u.min()) < 1e-5
    assert 1e-5 > 1 - float(u.max()) > 0


@over_all
@torch.no_grad()
def test_sampling_is_a_function_of_the_generator(case: str) -> None:
    likelihood = make(case)
    p = likelihood(outputs(likelihood, 2, 20), likelihood.draw_total(20, seeded(1)))
    before = torch.get_rng_state()
    first, again, other = p.sample(seeded(0)), p.sample(seeded(0)), p.sample(seeded(1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 20, likelihood.features)


@over_all
@torch.no_grad()
def test_samples_fit_the_likelihood(case: str) -> None:
    likelihood = make(case)
    likelihood.fit_marginals(rows(likelihood, 37).double())
    likelihood.check(rows(likelihood, 500))


# ---- gradients and extremes ------------------------------------------------------------------------------------------


@over_all
def test_gradients_reach_every_parameter(case: str) -> None:
    likelihood = make(case)
    x = rows(likelihood)
    h = outputs(likelihood, 4, len(x)).requires_grad_()
    likelihood(h, likelihood.row_total(x)).log_prob(x).sum().backward()
    assert bool((h.grad != 0).any(0).any(0).all())  # type: ignore[union-attr]
    for name, p in likelihood.named_parameters():
        assert p.grad is not None, name
        assert bool((p.grad != 0).all()), name


@over_all
def test_one_row_of_parameters_serves_many_rows(case: str) -> None:
    likelihood = make(case)
    x = rows(likelihood)
    h, total = outputs(likelihood, 1), likelihood.row_total(x)
    one, each = h.clone().requires_grad_(), h.expand(len(x), -1).clone().requires_grad_()
    torch.testing.assert_close(likelihood(one, total).log_prob(x), likelihood(each, total).log_prob(x))
    likelihood(one, total).log_prob(x).sum().backward()
    likelihood(each, total).log_prob(x).sum().backward()
    torch.testing.assert_close(one.grad[0], each.grad.sum(0), rtol=1e-4, atol=1e-4)  # type: ignore[index, union-attr]


@over_all
def test_gradients_are_the_slopes(case: str) -> None:
    likelihood = make(case, 2).double()
    x = rows(likelihood, 4)
    h = outputs(likelihood, 2, 4).clamp(-1.4, 1.4).requires_grad_()  # beyond a limit, gradients lead back only
    total = likelihood.row_total(x)
    torch.autograd.gradcheck(lambda h: likelihood(h, total).log_prob(x), h)
    torch.autograd.gradcheck(lambda *_: likelihood(h, total).log_prob(x), tuple(likelihood.parameters()))


def extreme_rows(likelihood: Likelihood) -> Tensor:
    """One row for each of these values, where it fits, else the nearest value of a sample."""
    values = [0.0, 1.0, 3.0, 15.0, 1e6, -1e6, 1e-6, 0.5]
    x = rows(likelihood, len(values)).double()
    for part, columns in parts_of(likelihood):
        for i, value in enumerate(values):
            row = torch.full_like(x[i : i + 1, columns], value)
            found = part.misfit(row)
            if found is None or not bool(found[1].any()):
                x[i, columns] = value
    return x


@over_all
@pytest.mark.parametrize("size", [-1e4, -100.0, 0.0, 100.0, 1e4])
@pytest.mark.parametrize("mixed_signs", [False, True])
def test_extremes_stay_finite(case: str, size: float, mixed_signs: bool) -> None:
    likelihood = make(case)
    x = extreme_rows(likelihood).float()
    h = torch.full((len(x), likelihood.n_outputs), size)
    if mixed_signs:
        h[:, ::2] *= -1
    h.requires_grad_()
    total = likelihood.row_total(x)
    p = likelihood(h, total)
    value = p.log_prob(x)
    value.mean().backward()
    assert bool(value.isfinite().all())
    assert bool(h.grad.isfinite().all())  # type: ignore[union-attr]
    for name, parameter in likelihood.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name  # type: ignore[union-attr]
    with torch.no_grad():
        assert bool(p.mean.isfinite().all())
        assert bool(p.sample(seeded()).isfinite().all())
        assert bool(likelihood.inputs(x).isfinite().all())


@pytest.mark.parametrize("case", ["poisson:library=false", "negative_binomial:library=false"])
def test_a_run_comes_back_from_an_absurd_rate(case: str) -> None:
    h = torch.full((1, 3), 1e3, requires_grad=True)
    make(case)(h).log_prob(torch.ones(1, 3)).sum().backward()
    assert bool((h.grad < 0).all())  # type: ignore[operator]


# ---- the continuous Bernoulli and other digits -----------------------------------------------------------------------

NEAR = [0.0, 1e-30, 1e-8, 1e-4, 0.01, 0.1, 0.29, 0.31, 1.0, 3.0, 10.0, 30.0, 100.0]
LOGITS = [*NEAR, *(-value for value in NEAR[1:])]
SHARES = [0.0, 1e-3, 0.3, 0.5, 0.999, 1.0]


def exact_continuous_bernoulli(logit: float, x: float) -> tuple[float, float, float]:
    """log p(x), its slope in the logit, and the mean, with 120 digits."""
    with mpmath.workdps(120):
        big = mpmath.mpf(logit)
        if big == 0:
            return 0.0, x - 0.5, 0.5
        norm = mpmath.log((mpmath.exp(big) - 1) / big)
        mean = 1 / (1 - mpmath.exp(-big)) - 1 / big
        return float(mpmath.mpf(x) * big - norm), float(mpmath.mpf(x) - mean), float(mean)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 5e-7), (torch.float64, 1e-10)])
@pytest.mark.parametrize("x", SHARES)
def test_continuous_bernoulli_is_right_in_every_digit(x: float, dtype: torch.dtype, digits: float) -> None:
    logits = torch.tensor(LOGITS, dtype=dtype)[:, None].requires_grad_()
    share = torch.full_like(logits, x)
    p = d.ContinuousBernoulli(logits)
    value = p.log_prob(share)
    value.sum().backward()
    exact = [exact_continuous_bernoulli(a, b) for a, b in zip(logits[:, 0].tolist(), share[:, 0].tolist(), strict=True)]
    expected = torch.tensor(exact, dtype=torch.float64).T
    torch.testing.assert_close(value.double(), expected[0], rtol=digits, atol=digits)
    torch.testing.assert_close(logits.grad[:, 0].double(), expected[1], rtol=4 * digits, atol=2 * digits)  # type: ignore[index]
    torch.testing.assert_close(p.mean[:, 0].double(), expected[2], rtol=4 * digits, atol=2 * digits)


def test_negative_binomial_slopes_are_right_for_large_counts() -> None:
    x = torch.tensor([[1e6], [1e5], [1e4]])
    slopes = []
    for dtype in (torch.float32, torch.float64):
        log_rate = (x.log() + 0.1).to(dtype).requires_grad_()
        d.NegativeBinomial(log_rate, torch.zeros(1, dtype=dtype)).log_prob(x.to(dtype)).sum().backward()
        slopes.append(log_rate.grad.double())  # type: ignore[union-attr]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "multinomial"])
def test_large_counts_keep_their_digits(name: str) -> None:
    """The terms of a row are 1e10 nats, which float32 rounds to thousands; their sum is tens of nats."""
    x = torch.poisson(torch.full((100, 3), 1e9, dtype=torch.float64), generator=seeded())
    likelihood: Likelihood = specs.make(name, LIKELIHOODS, "likelihood", 3)
    likelihood.fit_marginals(x)
    h = torch.zeros(100, 3)
    p = likelihood(h, likelihood.row_total(x))
    exact = copy.deepcopy(likelihood).double()
    expected = exact(h.double(), exact.row_total(x)).log_prob(x)
    torch.testing.assert_close((p.log_kernel(x) + p.log_base(x).float()).double(), expected, atol=0.5, rtol=0.01)
    assert p.log_prob(x).dtype == p.mean.dtype == p.sample(seeded()).dtype == torch.float32
    assert bool(((p.sample(seeded()) / p.mean - 1).abs() < 1).all())


@torch.no_grad()
def test_the_largest_count_is_within_reach_and_larger_ones_are_refused() -> None:
    for name in ("poisson", "negative_binomial:library=false"):
        likelihood: Likelihood = specs.make(name, LIKELIHOODS, "likelihood", 1)
        assert float(likelihood(torch.tensor([[100.0]])).mean) > d.MAX_COUNT
        likelihood.check(torch.tensor([[d.MAX_COUNT]], dtype=torch.float64))
        with pytest.raises(DataError, match=r"whole numbers from 0 to 1e12.*2e\+12"):
            likelihood.check(torch.tensor([[2e12]], dtype=torch.float64))
    assert d.MAX_COUNT == 1e12


def test_counts_that_are_too_large_are_real_numbers() -> None:
    x = torch.tensor([[0.0], [d.MAX_COUNT], [2 * d.MAX_COUNT]], dtype=torch.float64)
    assert choose_counts(look(Rows(x[:2]))).likelihood == "negative_binomial:library=false"
    choice = choose_counts(look(Rows(x)))
    assert choice == ("gaussian", "counts up to 2e+12 are too large to be modelled as counts")


@pytest.mark.parametrize("rows_of_dispersion", [1, 4])
def test_a_negative_binomial_may_have_a_dispersion_for_every_row(rows_of_dispersion: int) -> None:
    x = torch.tensor([[0.0, 3, 1], [2, 0, 0], [5, 1, 7], [0, 0, 4]])
    log_rate, log_dispersion = torch.randn(2, 4, 3), torch.randn(rows_of_dispersion, 3)
    found = d.NegativeBinomial(log_rate, log_dispersion).log_prob(x)
    r = log_dispersion.exp().double().expand(4, 3).numpy()
    expected = stats.nbinom.logpmf(x.numpy(), r, r / (r + log_rate.double().exp().numpy())).sum(-1)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("case", ["poisson:library=true", "multinomial", "negative_binomial:library=true"])
def test_what_counts_are_given_is_what_their_chances_sum_over(case: str) -> None:
    likelihood, total = make(case).double(), 20
    rows = torch.tensor([(i, j, total - i - j) for i in range(total + 1) for j in range(total + 1 - i)]).double()
    h = outputs(likelihood, 1).expand(len(rows), -1)
    chance = likelihood(h, likelihood.row_total(rows)).log_prob(rows).exp().sum()
    unnormalised = "not normalised over the rows of a total" in likelihood.given
    assert likelihood.given.startswith("the totals of the rows")
    assert unnormalised == case.startswith("negative")
    assert unnormalised or chance.item() == pytest.approx(1, abs=1e-9)
    assert not unnormalised or chance.item() < 0.5


@pytest.mark.parametrize("total", [1e3, 1e5, 1e6])
@pytest.mark.parametrize("log_dispersion", [-4.0, 0.0, 6.0])
def test_large_counts_lose_no_nats_in_float32(total: float, log_dispersion: float) -> None:
    log_rate = torch.randn(16, 30, generator=seeded()).log_softmax(-1) + math.log(total)
    log_r = torch.full((30,), log_dispersion)
    x = d.NegativeBinomial(log_rate.double(), log_r.double()).sample(seeded(1))
    found = d.NegativeBinomial(log_rate, log_r).log_prob(x)
    r = log_r.double().exp().numpy()
    expected = stats.nbinom.logpmf(x.numpy(), r, r / (r + log_rate.double().exp().numpy())).sum(-1)
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)


def test_a_row_of_exactly_the_limit_is_computed_as_a_large_one() -> None:
    likelihood = make("negative_binomial:library=true", 2)
    likelihood.fit_marginals(torch.tensor([[LARGE - 1, 1.0], [3.0, 4.0]], dtype=torch.float64))  # type: ignore[operator]
    assert likelihood.large


def test_an_outlier_of_a_student_t_is_finite_in_float32() -> None:
    residual = torch.tensor([[0.0, 1e-4, 1.0, 1e20, 3e38]], requires_grad=True)
    zero, df = torch.zeros(5), torch.full((5,), 3.0)
    found = d.StudentT(residual, zero, df, zero, zero + 1).kernel_cells(torch.zeros(1, 5))
    expected = stats.t.logpdf(residual.detach().double().numpy(), 3)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    exact = residual.detach().double()
    np.testing.assert_allclose(residual.grad, -4 * exact / (3 + exact**2), rtol=1e-5)


@pytest.mark.parametrize("codes", [20, 20_000])
def test_every_one_of_many_ordered_codes_has_its_probability(codes: int) -> None:
    likelihood = OrdinalLikelihood(1, levels=codes)
    likelihood.fit_marginals(torch.arange(codes, dtype=torch.float64)[:, None])
    x = torch.arange(codes)[:, None]
    for location in (0.0, 3.0):
        h = torch.tensor([[location, 0.0]])
        found = likelihood(h.expand(codes, 2)).kernel_cells(x).detach()
        exact = likelihood.double()(h.double().expand(codes, 2)).kernel_cells(x).detach()
        likelihood.float()
        assert bool(found.isfinite().all())
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)
        assert found.double().exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_a_student_t_of_many_degrees_of_freedom_is_a_gaussian() -> None:
    likelihood = make("student_t", 2)
    with torch.no_grad():
        likelihood.raw_df.fill_(30)  # type: ignore[operator]
    x, h = rows(likelihood), torch.zeros(50, 2)
    p = likelihood(h)
    p.log_prob(x).sum().backward()
    judged = stats.t.logpdf(x, p.df.detach(), p.mean.detach(), p.scale * p.log_std.exp().detach()).sum(-1)
    torch.testing.assert_close(p.log_prob(x).detach(), torch.from_numpy(judged), atol=1e-3, rtol=0)
    assert bool((p.df > 300).all())
    assert bool((likelihood.raw_df.grad.abs() < 1e-3).all())  # type: ignore[union-attr]


# ---- marginals -------------------------------------------------------------------------------------------------------


@over_all
@torch.no_grad()
def test_a_decoder_that_says_nothing_gives_the_marginals(case: str) -> None:
    likelihood = make(case)
    x = rows(likelihood, 2000).double()
    for part, columns in parts_of(likelihood):
        if isinstance(part, kinds.Ordinal):
            x[:, columns] = x[:, columns].clamp(0, 4)
    likelihood.fit_marginals(x)
    p = likelihood(torch.zeros(len(x), likelihood.n_outputs), likelihood.row_total(x))
    found = p.mean.double().mean(0)
    for part, columns in parts_of(likelihood):
        seen = x[:, columns]
        expected = seen.mean(0)
        if isinstance(part, kinds.StudentT | kinds.Ordinal):
            expected = seen.quantile(0.5, dim=0)
        if isinstance(part, kinds.Categorical):
            expected = seen.mode(0).values
        if isinstance(part, kinds.DiscretizedLogistic):  # whose tails are cut: the mean of the data is its location
            found[columns] = part(torch.zeros(1, part.n_outputs)).location[0].double()
        if getattr(part, "space", "") == "log":  # a heavy tail: its mean hangs on a few values
            continue
        share = 0.01 if isinstance(part, kinds.Warped) else 1e-3  # a warp is a smooth curve through quantiles
        assert bool(((found[columns] - expected).abs() < share * seen.std(0) + 1e-3).all()), (
            part,
            found[columns],
            expected,
        )


@torch.no_grad()
@pytest.mark.parametrize("floor", [0, -3])
def test_whole_numbers_with_a_floor_have_no_mass_below_it(floor: int) -> None:
    likelihood = kinds.Ordinal(2, levels=[4, 6], open=True, floor=floor).double()
    likelihood.fit_marginals(torch.tensor([[0.0, 1.0], [1.0, 5.0], [3.0, 0.0], [0.0, 0.0]]))
    p = likelihood(torch.tensor([[-2.0, 0.5, 1.5, 1.0]], dtype=torch.float64))
    codes = torch.arange(floor, 400, dtype=torch.float64)[:, None].expand(-1, 2)
    mass = p.kernel_cells(codes).exp()
    torch.testing.assert_close(mass.sum(0), torch.ones(2, dtype=torch.float64))
    assert bool((p.kernel_cells(torch.full((1, 2), floor - 1.0)).exp() == 0).all())
    drawn = kinds.Ordinal(2, levels=[4, 6], open=True, floor=floor).double()
    drawn.load_state_dict(likelihood.state_dict())
    draws = drawn(torch.full((50, 4), -30.0, dtype=torch.float64)).sample(torch.Generator().manual_seed(0))
    assert bool((draws == floor).all())


@torch.no_grad()
def test_what_was_not_in_training_has_a_probability_and_is_never_drawn() -> None:
    p = make("categorical:classes=4,unseen=true", 1)(torch.tensor([[0.0, 1.0, 0.0, 5.0]]).expand(2000, -1))
    shares = p.log_probs[0, 0].exp()
    assert shares[3] > 0.9
    torch.testing.assert_close(p.log_prob(torch.full((1, 1), 3.0)).exp(), shares[3].expand(2000))
    drawn = p.sample(torch.Generator().manual_seed(0))[:, 0].long().bincount(minlength=4) / 2000
    expected = torch.cat([shares[:3] / shares[:3].sum(), torch.zeros(1)])
    torch.testing.assert_close(drawn, expected, atol=0.04, rtol=0)
    assert p.mean[0, 0] == shares[:3].argmax()


@torch.no_grad()
def test_categories_start_at_their_frequencies() -> None:
    likelihood = make("categorical:classes=4", 2)
    x = rows(likelihood, 500)
    likelihood.fit_marginals(x.double())
    start = likelihood(torch.zeros(1, likelihood.n_outputs)).log_probs.exp()[0]
    seen = torch.stack([(x == code).float().mean(0) for code in range(4)], -1)
    torch.testing.assert_close(start, seen, atol=3e-3, rtol=0)


@over_all
@torch.no_grad()
def test_constant_columns_can_be_fitted(case: str) -> None:
    likelihood = make(case)
    x = torch.zeros(30, likelihood.features, dtype=torch.float64)
    x[:, ::2] = 1
    for part, columns in parts_of(likelihood):
        x[:, columns] += getattr(part, "space", "") == "log"
    likelihood.fit_marginals(x)
    p = likelihood(torch.zeros(30, likelihood.n_outputs), likelihood.row_total(x))
    assert bool(p.log_prob(x).isfinite().all())
    assert bool(likelihood.inputs(x).isfinite().all())
    assert bool(p.sample(seeded()).isfinite().all())


@torch.no_grad()
def test_units_of_real_features() -> None:
    x = torch.randn(500, 3, generator=seeded(), dtype=torch.float64) * torch.tensor([1e-6, 1e-6, 0.0]) + 5
    own, shared = kinds.Gaussian(3), kinds.Gaussian(3, "shared")
    for likelihood in (own, shared):
        likelihood.fit_marginals(x)
    assert own.unit_scale.tolist() == pytest.approx([1e-6, 1e-6, 1], rel=0.1)
    assert shared.unit_scale.tolist() == pytest.approx(3 * [1e-6 * math.sqrt(2 / 3)], rel=0.1)


@torch.no_grad()
def test_sorted_rows_do_not_mislead_the_student_t() -> None:
    likelihood = kinds.StudentT(1)
    likelihood.fit_marginals(torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None])
    assert float(likelihood.unit_loc) == pytest.approx(0.5, abs=1e-3)


@torch.no_grad()
def test_drawn_totals_are_totals_of_the_data() -> None:
    likelihood = make("multinomial")
    x = torch.tensor([[0.0, 0, 0], [1, 2, 0], [5, 5, 3], [40, 2, 1]], dtype=torch.float64)
    likelihood.fit_marginals(x)
    drawn = likelihood.draw_total(200, seeded())
    assert set(drawn.round().flatten().tolist()) == {0, 3, 13, 43}  # type: ignore[union-attr]
    sampled = likelihood(torch.zeros(200, 3), drawn).sample(seeded())
    assert torch.equal(sampled.sum(-1), drawn[:, 0].round())  # type: ignore[index]


# ---- what fits -------------------------------------------------------------------------------------------------------

BREAKS: dict[str, list[float]] = {
    "bernoulli": [0.5, 2, -1],
    "binomial": [0.5, 17, -1],
    "gaussian": [],
    "student_t": [],
    "poisson": [0.5, -1],
    "negative_binomial": [0.5, -1],
    "multinomial": [0.5, -1],
    "categorical": [0.5, 4, -1],
    "discretized_logistic": [0.5, 16, -1],
    "continuous_bernoulli": [1.01, -0.01],
    "warped": [],
    "ordinal": [0.5],
}


def test_every_likelihood_says_what_breaks_it() -> None:
    assert {*BREAKS, "mixed"} == set(LIKELIHOODS)


@over_alone
def test_misfits_are_found_and_told(case: str) -> None:
    likelihood = make(case)
    for value in [*BREAKS[name_of(case)], math.nan, math.inf, -math.inf]:
        x = rows(likelihood).double()
        likelihood.check(x)
        x[[7, 30], 1] = value
        _, mask = likelihood.misfit(x)  # type: ignore[misc]
        assert mask.nonzero().tolist() == [[7, 1], [30, 1]]
        with pytest.raises(DataError) as caught:
            likelihood.check(x, ["a", "price", "c"], first=100)
        text = str(caught.value)
        assert text.startswith(f"likelihood={name_of(case)!r} needs ")
        assert "2 values are not (first: row 107, column 'price'" in text
        with pytest.raises(DataError, match=r"but 1 value is not \(row 30, column 1, "):
            likelihood.check(x[8:], first=8)


def test_misfits_of_mixed_columns_are_told_by_their_own_place() -> None:
    likelihood = make("mixed", 2)
    x = rows(likelihood).double()
    likelihood.check(x)
    first = likelihood.columns[ALONE.index("bernoulli:")][1]  # type: ignore[index, union-attr]
    x[4, first] = 0.5
    with pytest.raises(DataError, match=rf"'bernoulli'.*row 4, column {first}, 0.5"):
        likelihood.check(x)
    with pytest.raises(DataError, match=f"column 'c{first}'"):
        likelihood.check(x, [f"c{i}" for i in range(x.shape[1])])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("binomial:total=0", "total"),
        ("binomial:total=2.5", "2.5"),
        ("categorical:classes=1", "classes"),
        ("discretized_logistic:levels=1", "levels"),
        ("gaussian:scale=fature", "Did you mean 'feature'"),
        ("poisson:library=maybe", "'maybe'"),
        ("poison", "Did you mean 'poisson'"),
        ("bernoulli:total=3", "'total'"),
    ],
)
def test_bad_options_are_refused(text: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        specs.make(text, LIKELIHOODS, "likelihood", 3)


@over_alone
def test_options_that_are_learned_fit_the_data(case: str) -> None:
    """Without options, a likelihood takes what it needs from the data, and then the data fits."""
    x = rows(make(case)).double()
    kind = LIKELIHOODS[name_of(case)]
    made = kind(3, **kind.learn_options(iter(x.split(7)), {"open": True} if "open" in case else {}))
    made.check(x)


def test_options_that_are_given_are_not_learned() -> None:
    def unread() -> Iterator[Tensor]:
        raise AssertionError("the rows were read")
        yield

    for name, options in {"binomial": {"total": 3}, "categorical": {"classes": 3}, "gaussian": {}}.items():
        assert LIKELIHOODS[name].learn_options(unread(), options) == options


def test_constructor_arguments_are_kept_as_attributes() -> None:
    for name, kind in LIKELIHOODS.items():
        made = make(next(case for case in ALL if name_of(case) == name))
        assert all(hasattr(made, argument) for argument in inspect.signature(kind).parameters)


def test_categories_are_not_taken_from_absurd_codes() -> None:
    assert kinds.Categorical.learn_options([torch.tensor([[1e12]])], {})["classes"] <= MAX_CLASSES


# ---- mixed -----------------------------------------------------------------------------------------------------------

PARTS = ["bernoulli", "gaussian:scale=shared", "poisson:library=true", "categorical:classes=3", "student_t"]


@given(st.permutations(range(10)), st.lists(st.sampled_from(range(1, 4)), min_size=5, max_size=5))
def test_mixed_is_the_sum_of_its_parts_in_any_order(order: list[int], sizes: list[int]) -> None:
    order = [column for column in order if column < sum(sizes)]
    order += [column for column in range(sum(sizes)) if column not in order]
    edges = np.cumsum([0, *sizes]).tolist()
    columns = [order[a:b] for a, b in pairwise(edges)]
    parts = [make(text, size) for text, size in zip(PARTS, sizes, strict=True)]
    mixed = Mixed(parts, columns)
    x = rows(mixed, 6).double()
    h, totals = outputs(mixed, 6), mixed.row_total(x)
    p = mixed(h, totals)
    pieces = h.split([part.n_outputs for part in parts], -1)
    singles = [part(o, part.row_total(x[:, c])) for part, o, c in zip(parts, pieces, columns, strict=True)]
    expected = sum(q.log_prob(x[:, c]).double() for q, c in zip(singles, columns, strict=True))
    torch.testing.assert_close(p.log_prob(x).double(), expected, rtol=1e-6, atol=1e-5)
    for q, c in zip(singles, columns, strict=True):
        torch.testing.assert_close(p.mean[:, c].double(), q.mean.double())
    seen = torch.cat([part.inputs(x[:, c]) for part, c in zip(parts, columns, strict=True)], -1)
    torch.testing.assert_close(mixed.inputs(x), seen)


@pytest.mark.parametrize("columns", [[[0, 1], [1]], [[0], [1, 3]], [[0, 1]], [[0, 1], [-1]]])
def test_mixed_columns_are_named_once_each(columns: list[list[int]]) -> None:
    parts = [kinds.Bernoulli(2), kinds.Gaussian(1)][: len(columns)] if len(columns) > 1 else [kinds.Bernoulli(3)]
    with pytest.raises(ParameterError, match="every column once"):
        Mixed(parts, columns)


@torch.no_grad()
def test_time_stamps_keep_their_digits() -> None:
    """Seconds since 1970 with a spread of minutes: float32 alone would lose them."""
    likelihood = kinds.Gaussian(1)
    x = 1.7e9 + torch.randn(200, 1, generator=seeded(), dtype=torch.float64) * 60
    likelihood.fit_marginals(x)
    assert float(likelihood.inputs(x).std(correction=0)) == pytest.approx(1, abs=1e-5)
    p = likelihood(torch.zeros(1, 1))
    expected = stats.norm.logpdf(x.numpy(), x.mean(), x.std(correction=0)).sum(-1)
    torch.testing.assert_close(p.log_prob(x), torch.from_numpy(expected), atol=1e-5, rtol=0)
