"""Objectives: the bounds against exact answers, and their gradients against naive ones, within measured errors."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal

import elbowroom
from elbowroom.data.dataset import Batch
from elbowroom.distributions.gaussian import DiagonalGaussian, FullGaussian
from elbowroom.errors import ParameterError
from elbowroom.latents.posteriors import LATENTS
from elbowroom.latents.priors import PRIORS, VampPrior
from elbowroom.likelihoods.continuous import Gaussian
from elbowroom.likelihoods.counts import Poisson
from elbowroom.likelihoods.discrete import Bernoulli
from elbowroom.models.vae import VAE
from elbowroom.nn.mlp import MLP
from elbowroom.objectives.bounds import OBJECTIVES, Elbo, Iwae, Objective, objective_of
from elbowroom.objectives.terms import Terms, distortion_of

F64 = torch.float64
D, LATENT = 4, 2
OPTIONS = {"elbo": [""], "iwae": ["draws=1", "draws=5"]}
TEXTS = [f"{name}:{options}" for name in OBJECTIVES for options in OPTIONS.get(name, [""])]
MODELS = list(product(LATENTS, PRIORS))


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def model_of(covariance: str = "diagonal", prior: str = "standard", likelihood: nn.Module | None = None) -> VAE:
    """A small model in float64, off its start."""
    likelihood = likelihood if likelihood is not None else Gaussian(D)
    made = {"mixture": {"components": 3}, "vamp": {"components": 3, "features": likelihood.n_inputs}}
    model = VAE(
        MLP(likelihood.n_inputs, (6,)),  # type: ignore[arg-type]
        LATENTS[covariance](6, LATENT),
        PRIORS[prior](LATENT, **made.get(prior, {})),
        MLP(LATENT, (6,), likelihood.n_outputs),  # type: ignore[arg-type]
        likelihood,
    ).double()
    model.initialise(data(likelihood), seeded(4))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.3 * draw(*p.shape, seed=100 + i)
    return model


def data(likelihood: nn.Module, n: int = 20) -> Tensor:
    x = draw(n, D, seed=7)
    if isinstance(likelihood, Bernoulli):
        return (x > 0).double()
    return x.abs().round() if isinstance(likelihood, Poisson) else x


class Fixed(nn.Module):
    """A posterior whose parameters are those of every row: the gradient by them is one for each row."""

    def __init__(self, rows: int, covariance: str = "diagonal") -> None:
        super().__init__()
        self.size, self.covariance = LATENT, covariance
        self.mean = nn.Parameter(torch.tensor([0.4, -0.6], dtype=F64).expand(rows, -1).clone())
        spread = torch.tensor([[0.8, 0.0], [0.3, 0.5]] if covariance == "full" else [-0.5, 0.3], dtype=F64)
        self.spread = nn.Parameter(spread.expand(rows, *spread.shape).clone())

    def forward(self, h: Tensor) -> DiagonalGaussian | FullGaussian:
        kind = FullGaussian if self.covariance == "full" else DiagonalGaussian
        return kind(self.mean, self.spread)  # type: ignore[no-any-return]


class Nothing(nn.Module):
    """An encoder that passes its input on."""

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        return h


def linear_model(rows: int, covariance: str = "diagonal") -> VAE:
    """A linear Gaussian model whose posterior is free for every row."""
    likelihood = Gaussian(D)
    model = VAE(Nothing(), Fixed(rows, covariance), PRIORS["standard"](LATENT), MLP(LATENT, (), D), likelihood)
    model.double()
    with torch.no_grad():
        model.decoder.last.weight.copy_(draw(D, LATENT, seed=1))  # type: ignore[operator, union-attr]
        likelihood.raw_log_std.fill_(-0.3)
    return model


# ---- contracts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("covariance", "prior"), MODELS)
def test_terms_and_gradients(text: str, covariance: str, prior: str) -> None:
    for likelihood in (Gaussian(D), Bernoulli(D), Poisson(D)):
        model, objective = model_of(covariance, prior, likelihood), objective_of(text)
        x = data(likelihood)
        before = torch.get_rng_state()
        terms, again = (objective(model, Batch(x, None, None), seeded(3)) for _ in range(2))
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(terms.loss(2.0), again.loss(2.0))
        assert terms.loss(2.0).shape == (len(x),)
        assert terms.distortion.shape == terms.rate.shape
        terms.loss(2.0).mean().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert bool(p.grad.abs().sum() > 0), name
            assert bool(p.grad.isfinite().all()), name


@pytest.mark.parametrize("text", TEXTS)
def test_the_known_part_of_the_distortion_changes_nothing(text: str) -> None:
    model = model_of(likelihood=Poisson(D))
    x = data(model.likelihood)
    with torch.no_grad():
        base = model.likelihood(torch.zeros(1, D, dtype=F64)).log_base(x)
    known = objective_of(text)(model, Batch(x, None, base), seeded(3)).loss(1.0)
    torch.testing.assert_close(known, objective_of(text)(model, Batch(x, None, None), seeded(3)).loss(1.0))


def test_the_elbo_is_what_it_says() -> None:
    model = model_of()
    x, noise = data(model.likelihood), draw(20, LATENT, seed=3)
    terms = Elbo()(model, Batch(x, None, None), noise)
    q = model.encode(x)
    p = model.decode(q.mean + q.log_std.exp() * noise)  # type: ignore[union-attr]
    torch.testing.assert_close(terms.distortion, -p.log_prob(x))
    torch.testing.assert_close(terms.rate, q.kl_to_standard().sum(-1))
    betas = torch.linspace(0.1, 3, 20, dtype=F64)
    torch.testing.assert_close(terms.loss(betas), terms.distortion + betas * terms.rate)
    penalised = Terms(terms.distortion, terms.rate, penalty=3.0)
    torch.testing.assert_close(penalised.loss(0.0), terms.distortion + 3)


@pytest.mark.parametrize(("covariance", "prior"), MODELS)
def test_the_gradient_of_the_elbo_is_its_slope(covariance: str, prior: str) -> None:
    model = model_of(covariance, prior)
    x, noise = data(model.likelihood)[:3], draw(3, LATENT, seed=3)
    parameters = tuple(model.parameters())
    torch.autograd.gradcheck(lambda *_: Elbo()(model, Batch(x, None, None), noise).loss(0.7).sum(), parameters)


def test_bfloat16_networks_give_nearly_the_same_terms() -> None:
    for (covariance, prior), text in product(MODELS, TEXTS):
        model, x = model_of(covariance, prior).float(), data(nn.Identity()).float()
        terms = objective_of(text)(model, Batch(x, None, None), seeded(3))
        with torch.autocast("cpu", torch.bfloat16):
            rough = objective_of(text)(model, Batch(x, None, None), seeded(3))
        assert rough.rate.dtype == rough.distortion.dtype == torch.float32
        torch.testing.assert_close(rough.rate.mean(), terms.rate.mean(), rtol=0.03, atol=0.03)
        torch.testing.assert_close(rough.distortion.mean(), terms.distortion.mean(), rtol=0.03, atol=0.03)


# ---- importance-weighted bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_one_draw_is_the_elbo_with_a_sampled_rate(beta: float) -> None:
    model, noise = model_of(prior="mixture"), draw(20, LATENT, seed=3)
    x = data(model.likelihood)
    one = Iwae(1)(model, Batch(x, None, None), noise.unsqueeze(0)).loss(beta)
    elbo = Elbo()(model, Batch(x, None, None), noise).loss(beta)
    torch.testing.assert_close(one, elbo, rtol=1e-12, atol=1e-12)


def naive(model: VAE, x: Tensor, noise: Tensor, beta: float) -> Tensor:
    """The importance-weighted bound, with the gradient that comes of itself."""
    outcome = model(x, None, noise)
    rate = outcome.q.log_prob(outcome.z) - outcome.prior.log_prob(outcome.z)
    cost = distortion_of(outcome, x) + beta * rate
    return math.log(len(cost)) - (-cost).logsumexp(0)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("covariance", "prior"), MODELS)
def test_the_value_is_the_bound_and_the_decoder_s_gradient_the_naive_one(
    covariance: str, prior: str, beta: float
) -> None:
    model, noise = model_of(covariance, prior), draw(6, 20, LATENT, seed=3)
    x = data(model.likelihood)
    loss, plain = Iwae(6)(model, Batch(x, None, None), noise).loss(beta), naive(model, x, noise, beta)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    parts = [*model.decoder.parameters(), *model.likelihood.parameters()]
    if prior != "vamp":  # its posteriors are the encoder's
        parts += model.prior.parameters()
    found = torch.autograd.grad(loss.sum(), parts, retain_graph=True)
    for a, b in zip(found, torch.autograd.grad(plain.sum(), parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_bound_rises_with_the_draws_to_the_exact_log_likelihood() -> None:
    repeats, x = 4000, draw(1, D, seed=2)
    model = linear_model(repeats)
    p = model.decode(torch.zeros(1, LATENT, dtype=F64))
    w = model.decoder.last.weight  # type: ignore[union-attr]
    noise = torch.diag((2 * p.log_std).exp())
    exact = MultivariateNormal(p.mean[0], w @ w.mT + noise).log_prob(x).item()  # type: ignore[operator]
    means, errors = [], []
    for k in (1, 4, 16, 256):
        bound = -Iwae(k)(model, Batch(x.expand(repeats, -1), None, None), seeded(k)).loss(1.0)
        means.append(float(bound.mean()))
        errors.append(float(bound.std()) / math.sqrt(repeats))
    for (low, high), (a, b) in zip(pairwise(means), pairwise(errors), strict=True):
        assert high - low > 4 * math.hypot(a, b)
    assert all(mean < exact + 4 * error for mean, error in zip(means, errors, strict=True))
    # the gap closes like variance / 2, which is that of one bound itself (Domke & Sheldon 2018)
    assert means[-1] + repeats * errors[-1] ** 2 / 2 == pytest.approx(exact, abs=5 * errors[-1])


REPEATS = 60_000


def put_near_the_optimum(model: VAE, x: Tensor, beta: float) -> None:
    """Set the posterior close to the best one, which is proportional to p(x|z)^(1/beta) p(z)."""
    p, w = model.decode(torch.zeros(1, LATENT, dtype=F64)), model.decoder.last.weight  # type: ignore[union-attr]
    weighted = w.mT * (-2 * p.log_std).exp() / beta  # type: ignore[operator]
    precision = torch.eye(LATENT, dtype=F64) + weighted @ w
    mean = torch.linalg.solve(precision, weighted @ (x - p.mean)[0])
    best = torch.linalg.cholesky(precision.inverse())
    with torch.no_grad():
        model.latent.mean.copy_(mean + 0.02)  # type: ignore[operator]
        model.latent.spread.copy_(1.02 * best if model.latent.covariance == "full" else -0.5 * precision.diag().log())  # type: ignore[operator]


def both_gradients(beta: float, covariance: str, draws: int, near: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Ours and the naive one by each parameter of the posterior, one a repeat and with the same noise, (repeats, p)."""
    noise, x = draw(draws, REPEATS, LATENT, seed=5), draw(1, D, seed=2).expand(REPEATS, -1)
    model = linear_model(REPEATS, covariance)
    if near:
        put_near_the_optimum(model, x[:1], beta)
    parameters = (model.latent.mean, model.latent.spread)
    ours = torch.autograd.grad(Iwae(draws)(model, Batch(x, None, None), noise).loss(beta).sum(), parameters)  # type: ignore[arg-type]
    for a, b in zip(ours, torch.autograd.grad(naive(model, x, noise, beta).sum(), parameters), strict=True):  # type: ignore[arg-type]
        below = torch.ones_like(a[0]).tril().bool() if a.dim() == 3 else torch.ones_like(a[0]).bool()
        yield a[:, below], b[:, below]


@pytest.mark.parametrize("draws", [1, 8])
@pytest.mark.parametrize("covariance", LATENTS)
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_the_encoder_s_gradient_is_unbiased(beta: float, covariance: str, draws: int) -> None:
    for ours, plain in both_gradients(beta, covariance, draws):
        gap = ours - plain
        error = gap.std(0) / math.sqrt(REPEATS)
        assert bool((gap.mean(0).abs() < 4.5 * error + 1e-12).all()), (gap.mean(0) / error).tolist()
        assert bool((plain.mean(0).abs() > 20 * error).any())  # the test can see a wrong gradient


@pytest.mark.parametrize("draws", [1, 8])
@pytest.mark.parametrize(("covariance", "share"), [("full", 0.02), ("diagonal", 0.8)])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_the_encoder_s_gradient_is_calm_near_the_optimum(
    beta: float, covariance: str, share: float, draws: int
) -> None:
    """Where q can be the best posterior, nothing is left of the noise; where it can not, less."""
    for ours, plain in both_gradients(beta, covariance, draws, near=True):
        assert float(ours.var(0).sum()) < share * float(plain.var(0).sum())


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_encoder_s_gradient_is_unbiased_with_a_prior_made_of_the_encoder(beta: float) -> None:
    model = model_of(prior="vamp")
    assert isinstance(model.prior, VampPrior)
    x, gaps, slopes = data(model.likelihood)[:5].repeat(200, 1), [], []
    parameters = (*model.encoder.parameters(), *model.latent.parameters(), model.prior.pseudo_inputs)
    for seed in range(60):
        noise = draw(4, len(x), LATENT, seed=1000 + seed)
        ours = torch.autograd.grad(Iwae(4)(model, Batch(x, None, None), noise).loss(beta).mean(), parameters)
        plain = torch.autograd.grad(naive(model, x, noise, beta).mean(), parameters)
        gaps.append(torch.cat([(a - b).flatten() for a, b in zip(ours, plain, strict=True)]))
        slopes.append(torch.cat([b.flatten() for b in plain]))
    gap, slope = torch.stack(gaps), torch.stack(slopes).mean(0)
    z = gap.mean(0) / (gap.std(0) / math.sqrt(len(gap)) + 1e-12)
    assert float(z.square().mean()) < 1.5  # about 1 where the means differ by chance alone
    assert float(z.abs().max()) < 5
    assert bool((slope.abs() > 20 * gap.std(0) / math.sqrt(len(gap))).any())


def test_betas_of_rows_weigh_their_own_rows() -> None:
    model, noise = model_of(), draw(6, 20, LATENT, seed=3)
    x, betas = data(model.likelihood), torch.linspace(0.1, 3, 20, dtype=F64)
    loss = Iwae(6)(model, Batch(x, None, None), noise).loss(betas)
    found = torch.autograd.grad(loss[4], tuple(model.parameters()), allow_unused=True)
    alone = Iwae(6)(model, Batch(x[4:5], None, None), noise[:, 4:5]).loss(float(betas[4]))
    expected = torch.autograd.grad(alone.sum(), tuple(model.parameters()), allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_loss_that_was_only_looked_at_leaves_no_trace() -> None:
    """The loss at another beta, for a log or a plot, must not change the gradient of the one that is trained."""
    model, noise = model_of(), draw(6, 20, LATENT, seed=3)
    x = data(model.likelihood)
    alone = torch.autograd.grad(Iwae(6)(model, Batch(x, None, None), noise).loss(2.0).sum(), tuple(model.parameters()))
    terms = Iwae(6)(model, Batch(x, None, None), noise)
    terms.loss(0.5)
    with torch.no_grad():
        terms.loss(1.0)
    for a, b in zip(torch.autograd.grad(terms.loss(2.0).sum(), tuple(model.parameters())), alone, strict=True):
        torch.testing.assert_close(a, b)


# ---- free bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free_bits", "charged"), [(0.0, [True, True]), (0.15, [False, True]), (9.0, [False, False])])
def test_free_bits_switch_the_gradient_off_below_the_floor(free_bits: float, charged: list[bool]) -> None:
    model = linear_model(10)
    with torch.no_grad():
        model.decoder.last.weight.zero_()  # type: ignore[operator, union-attr]
        model.latent.mean.copy_(torch.tensor([0.3, 0.9]))  # type: ignore[operator]
        model.latent.spread.fill_(-0.3)  # type: ignore[operator]
    x, beta = draw(10, D), 3.0
    terms = Elbo(free_bits)(model, Batch(x, None, None), seeded(3))
    parts = model.encode(x).kl_to_standard()
    torch.testing.assert_close(terms.rate, parts.sum(-1))
    assert (parts.mean(0) > free_bits).tolist() == charged
    terms.loss(beta).sum().backward()
    expected = beta * model.latent.mean.detach() * torch.tensor(charged)  # type: ignore[operator]
    torch.testing.assert_close(model.latent.mean.grad, expected)


@pytest.mark.parametrize(("covariance", "prior"), [("full", "standard"), ("diagonal", "mixture")])
def test_free_bits_are_one_floor_where_the_rate_does_not_split(covariance: str, prior: str) -> None:
    model, noise = model_of(covariance, prior), draw(20, LATENT, seed=3)
    x = data(model.likelihood)
    parameters = tuple(model.latent.parameters())
    plain = Elbo()(model, Batch(x, None, None), noise)
    rate = plain.rate.mean().item()
    for free_bits, beta in ((rate / LATENT * 0.9, 3.0), (rate / LATENT * 1.1, 0.0)):
        terms = Elbo(free_bits)(model, Batch(x, None, None), noise)
        torch.testing.assert_close(terms.rate, plain.rate)
        found = torch.autograd.grad(terms.loss(3.0).sum(), parameters)
        expected = torch.autograd.grad(plain.loss(beta).sum(), parameters, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


# ---- where beta meets the rate ---------------------------------------------------------------------------------------


def words(node: ast.AST) -> set[str]:
    """The names and attributes in an expression, cut at underscores."""
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    names += [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)]
    return {word for name in names for word in name.lower().strip("_").split("_")}


def products(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Pairs of factors, however the product is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.MatMult):
            yield node.left, node.right
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Mult):
            yield node.target, node.value
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.strip("_") in {"mul", "multiply", "addcmul", "dot", "prod", "einsum", "lerp", "add", "sub"}:
                whole = [*([node.func.value] if isinstance(node.func, ast.Attribute) else []), *node.args]
                whole += [keyword.value for keyword in node.keywords]
                yield from product(whole, whole)


def meetings(tree: ast.AST) -> list[str]:
    """The functions in which a beta is multiplied with a rate."""
    found = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for left, right in products(function):
                a, b = words(left), words(right)
                if ("beta" in a and {"rate", "kl"} & b) or ("beta" in b and {"rate", "kl"} & a):
                    found.append(function.name)
    return found


def test_the_search_for_meetings_can_find() -> None:
    for code in (
        "d + beta * t.rate",
        "(kl * 2) * self.beta_.final",
        "torch.add(d, rate, alpha=beta)",
        "rate.mul(beta)",
    ):
        assert meetings(ast.parse(f"def f():\n    return {code}")), code
    assert not meetings(ast.parse("def f():\n    return rate * 2 + beta * 3"))


def test_beta_meets_the_rate_in_one_place() -> None:
    folder = Path(elbowroom.__file__).parent
    places = {
        (str(path.relative_to(folder)), function)
        for path in folder.rglob("*.py")
        for function in meetings(ast.parse(path.read_text()))
    }
    assert places == {("objectives/terms.py", "loss")}


# ---- text forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [Elbo(), Elbo(0.1), Elbo(1 / 3), Iwae(), Iwae(50)])
def test_text_form_round_trip(objective: Objective) -> None:
    assert objective_of(str(objective)) == objective
    assert objective_of(objective) is objective


def test_every_objective_has_a_text_form() -> None:
    for name, kind in OBJECTIVES.items():
        make: Callable[[], Any] = kind
        assert str(make()).startswith(name)
        assert objective_of(name) == make()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("elbo:free_bits=-1", "-1"),
        ("elbo:free_bits=much", "'much'"),
        ("elbo:free_bits=true", "True"),
        ("iwae:draws=0", "0"),
        ("iwae:draws=2.5", "2.5"),
        ("iwae:draw=2", "Did you mean 'draws'"),
        ("ewae", "Did you mean 'iwae'"),
    ],
)
def test_bad_objectives_are_refused(text: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        objective_of(text)
