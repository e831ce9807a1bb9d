"""Parts from elsewhere, written as a user would write them: each is one class, and trains, scores and reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import WINE, table
from torch import Tensor, nn

from elbowroom.errors import ArtefactError, ParameterError
from elbowroom.objectives.bounds import Elbo
from elbowroom.objectives.terms import Terms


class Laplace:
    """Independent Laplace distributions of latents."""

    def __init__(self, log_scale: Tensor) -> None:
        self.log_scale = log_scale

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.log_scale)

    def log_prob(self, z: Tensor) -> Tensor:
        return -(z.abs() * (-self.log_scale).exp() + self.log_scale + math.log(2)).sum(-1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(n, len(self.log_scale), generator=generator, dtype=self.log_scale.dtype) - 0.5
        return -self.log_scale.exp() * uniform.sign() * (1 - 2 * uniform.abs()).log()


class LaplaceModule(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(size))

    def forward(self, encode: Any, context: Tensor | None = None) -> Laplace:
        return Laplace(self.log_scale)


@dataclass(frozen=True)
class LaplacePrior:
    """A prior with heavier tails than a Gaussian's and learned scales."""

    def build(self, size: int, features: int, code: int) -> nn.Module:
        return LaplaceModule(size)


@dataclass(frozen=True)
class Centred:
    """The evidence lower bound, with a penalty on posteriors whose mean over the batch is not zero."""

    weight: float = 1.0

    def __call__(self, model: Any, batch: Any, noise: Any, code: Any = None) -> Terms:
        terms = Elbo()(model, batch, noise, code)
        centre = model.encode(batch.x, batch.context, code).mean.mean(0)
        return terms._replace(penalty=self.weight * centre.square().sum())


PARTS = {"prior": LaplacePrior(), "objective": Centred(50.0)}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_from_elsewhere_trains_scores_and_reports(name: str, tmp_path: Path) -> None:
    model = table(**{name: PARTS[name]}, epochs=10).fit(WINE)
    losses = model.history_["loss"]
    assert losses[-1] < losses[0]
    assert np.isfinite(model.score_samples(WINE)).all()
    assert model.sample(3, random_state=0).shape == (3, WINE.shape[1])
    assert model.report(WINE, tmp_path / "page.html").stat().st_size > 10_000
    with pytest.raises(ArtefactError, match="of your own class"):
        model.save(tmp_path / "model")


def test_a_prior_from_elsewhere_is_trained_and_its_rate_is_estimated_with_it() -> None:
    model = table(prior=LaplacePrior(), epochs=10).fit(WINE)
    assert model.model_.prior.log_scale.abs().min() > 0
    with torch.no_grad():
        made = model.model_(torch.as_tensor(WINE[:5]), noise=torch.Generator().manual_seed(0))
        judge = torch.distributions.Laplace(0.0, model.model_.prior.log_scale.exp())
        expected = made.q.log_prob(made.z) - judge.log_prob(made.z).sum(-1)
    torch.testing.assert_close(made.rate, expected)
    assert made.rate_parts is None


def test_the_penalty_of_an_objective_from_elsewhere_is_minimised() -> None:
    def centre(weight: float) -> float:
        model = table(objective=Centred(weight), epochs=20, validation_fraction=0).fit(WINE)
        return float((model.transform(WINE).mean(0) ** 2).sum())

    assert centre(200.0) < 0.5 * centre(0.0)


def test_the_same_objective_without_penalty_has_the_bits_of_the_elbo() -> None:
    one, other = (table(objective=objective).fit(WINE) for objective in ("elbo", Centred(0.0)))
    np.testing.assert_array_equal(one.transform(WINE), other.transform(WINE))


def of_each_latent(model: Any, batch: Any, noise: Any, code: Any = None) -> Terms:
    terms = Elbo()(model, batch, noise, code)
    return terms._replace(rate=terms.rate[:, None].expand(-1, 2))


class OfEachLatent(Laplace):
    def log_prob(self, z: Tensor) -> Tensor:
        return -z.abs() - math.log(2)


def test_terms_of_another_shape_than_the_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match=r"one value for each of the \d+ rows"):
        table(objective=of_each_latent).fit(WINE)
    monkeypatch.setattr(LaplaceModule, "forward", lambda self, encode, context=None: OfEachLatent(self.log_scale))
    with pytest.raises(ParameterError, match=r"for n = 2 the shapes are \(2, 2\) and \(2, 2\)"):
        table(prior=LaplacePrior()).fit(WINE)
    monkeypatch.setattr(LaplaceModule, "forward", lambda self: None)
    with pytest.raises(ParameterError, match="it fails: TypeError"):
        table(prior=LaplacePrior()).fit(WINE)


def test_a_class_is_no_objective() -> None:
    with pytest.raises(ParameterError, match=r"Write objective=Centred\(\)"):
        table(objective=Centred).fit(WINE)


def test_a_prior_from_elsewhere_works_over_a_range_of_beta_and_for_importance_weighting() -> None:
    model = table(prior=LaplacePrior(), beta="0.1..10").fit(WINE)
    assert np.isfinite(model.curve(WINE, [0.1, 1.0, 10.0]).rates).all()
    assert np.isfinite(model.log_likelihood(WINE, n_draws=20).rows).all()
    assert np.isfinite(table(prior=LaplacePrior(), objective="iwae:draws=4").fit(WINE).score(WINE))


def test_a_prior_that_builds_no_module_is_refused() -> None:
    class Wrong:
        def build(self, size: int, features: int, code: int) -> str:
            return "standard"

    with pytest.raises(ParameterError, match="must return a module"):
        table(prior=Wrong()).fit(WINE)
    with pytest.raises(ParameterError, match="prior"):
        table(prior=3).fit(WINE)
