"""Numbers from elsewhere: the loss as the other system computes it has the gradient of ours at the converted beta."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Multinomial, Normal, kl_divergence

import elbowroom
from elbowroom import beta_from
from elbowroom.beta.conversion import FACTS, SYSTEMS
from elbowroom.beta.policies import beta_of
from elbowroom.errors import ParameterError

PAGE = Path(__file__).parents[1] / "docs" / "beta.md"
SHAPES = [((3, 8, 8), 5), ((7,), 2), ((1, 4, 6), 9)]  # of one row, and the latents
ROWS = 6

# ---- the losses of the others, with their reductions: what(x, output, mu, logvar, number) -> loss --------------------


def kl_terms(mu: Tensor, logvar: Tensor) -> Tensor:
    """Rows x latents, as all of them write it."""
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())


def pythae(error: Callable[..., Tensor], half: float) -> Callable[..., Tensor]:
    def loss(x: Tensor, output: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
        each = half * error(output.flatten(1), x.flatten(1), reduction="none").sum(-1)
        return (each + beta * kl_terms(mu, logvar).sum(-1)).mean(0)

    return loss


def pytorch_vae(x: Tensor, output: Tensor, mu: Tensor, logvar: Tensor, kld_weight: float) -> Tensor:
    return F.mse_loss(output, x) + kld_weight * kl_terms(mu, logvar).sum(1).mean(0)


def encdr(x: Tensor, output: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    return (F.mse_loss(output, x, reduction="sum") + beta * kl_terms(mu, logvar).sum()) / len(x)


def disent(error: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def loss(x: Tensor, output: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
        q, p = Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu))
        return error(output, x, reduction="none").mean() + beta * kl_divergence(q, p).mean()

    return loss


def gaussian(output: Tensor) -> Normal:
    return Normal(output, 1.0)


def bernoulli(output: Tensor) -> Bernoulli:
    return Bernoulli(probs=output)


# Each with the name, the loss, the likelihood that it stands for, the facts that it needs, and which loss it is there.
LOSSES: dict[str, tuple[str, Callable[..., Tensor], Callable[[Tensor], Any], tuple[str, ...], dict[str, str]]] = {
    "pythae, mse": ("pythae", pythae(F.mse_loss, 0.5), gaussian, (), {}),
    "pythae, bce": ("pythae", pythae(F.binary_cross_entropy, 1.0), bernoulli, (), {}),
    "old pythae": ("pythae-before-0.1.2", pythae(F.mse_loss, 1.0), gaussian, (), {}),
    "old pythae, mse": ("pythae-before-0.1.2", pythae(F.mse_loss, 1.0), gaussian, (), {"loss": "mse"}),
    "old pythae, bce": (
        "pythae-before-0.1.2",
        pythae(F.binary_cross_entropy, 1.0),
        bernoulli,
        (),
        {"loss": "bce"},
    ),
    "PyTorch-VAE": ("pytorch-vae", pytorch_vae, gaussian, ("features",), {}),
    "autoencoders": ("autoencoders", pytorch_vae, gaussian, ("features",), {}),
    "encdr": ("encdr", encdr, gaussian, (), {}),
    "disent": ("disent", disent(F.mse_loss), gaussian, ("features", "latents"), {}),
    "disent, bce": ("disent", disent(F.binary_cross_entropy), bernoulli, ("features", "latents"), {"loss": "bce"}),
}


def leaves(shape: tuple[int, ...], latents: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Binary rows, what a decoder might say of them, and posteriors."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((ROWS, *shape), generator=generator, dtype=torch.float64).round()
    output = torch.rand((ROWS, *shape), generator=generator, dtype=torch.float64) * 0.9 + 0.05
    mu, logvar = torch.randn((2, ROWS, latents), generator=generator, dtype=torch.float64)
    return x, output.requires_grad_(), mu.requires_grad_(), logvar.requires_grad_()


def ours(log_p: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    """-log p + beta * KL, summed over features and latents, mean over rows."""
    q, prior = Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu))
    return (-log_p.flatten(1).sum(1) + beta * kl_divergence(q, prior).sum(1)).mean()


def assert_same_minimum(theirs: Tensor, canonical: Tensor, *parameters: Tensor) -> None:
    """Gradients with respect to all parameters together that differ by one factor above zero."""
    one, other = (
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)]) for loss in (theirs, canonical)
    )
    assert other.norm() > 0
    torch.testing.assert_close(one / one.norm(), other / other.norm(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("number", [None, 0.37])
@pytest.mark.parametrize(("shape", "latents"), SHAPES)
@pytest.mark.parametrize("case", LOSSES)
def test_the_gradient_is_that_of_the_canonical_loss(
    case: str, shape: tuple[int, ...], latents: int, number: float | None
) -> None:
    system, loss, likelihood, needed, named = LOSSES[case]
    known = {"features": math.prod(shape), "latents": latents}
    beta = beta_from(system, number, **{fact: known[fact] for fact in needed}, **named)
    x, output, mu, logvar = leaves(shape, latents)
    theirs = loss(x, output, mu, logvar, default(system) if number is None else number)
    assert_same_minimum(theirs, ours(likelihood(output).log_prob(x), mu, logvar, beta), output, mu, logvar)


def number_of(system: str) -> inspect.Parameter:
    return next(iter(inspect.signature(SYSTEMS[system]).parameters.values()))


def default(system: str) -> float:
    return float(number_of(system).default)


def test_a_wrong_beta_has_another_gradient() -> None:
    x, output, mu, logvar = leaves((7,), 2)
    theirs, canonical = pytorch_vae(x, output, mu, logvar, 0.1), ours(gaussian(output).log_prob(x), mu, logvar, 0.1)
    with pytest.raises(AssertionError):
        assert_same_minimum(theirs, canonical, output, mu, logvar)


def test_a_learned_variance_asks_for_the_converted_beta_divided_by_it() -> None:
    x, output, mu, logvar = leaves((7,), 2)
    std, beta = 0.3, beta_from("pytorch-vae", 0.01, features=7)
    canonical = ours(Normal(output, std).log_prob(x), mu, logvar, beta / std**2)
    assert_same_minimum(pytorch_vae(x, output, mu, logvar, 0.01), canonical, output, mu, logvar)


@pytest.mark.parametrize("factor", [None, 0.7])
def test_tvae_of_two_real_columns_and_a_category(factor: float | None) -> None:
    x, output, mu, logvar = leaves((2,), 3)
    codes, logits = torch.tensor([0, 2, 1, 1, 0, 2]), torch.randn((ROWS, 3), dtype=torch.float64, requires_grad=True)
    std = torch.tensor([0.1, 0.6], dtype=torch.float64, requires_grad=True)
    error = x - torch.tanh(output)
    parts = [
        (error**2 / 2 / std**2).sum(),
        std.log().sum() * ROWS,
        F.cross_entropy(logits, codes, reduction="sum"),
    ]
    theirs = sum(parts) * (2.0 if factor is None else factor) / ROWS + kl_terms(mu, logvar).sum() / ROWS
    real, category = Normal(output.tanh(), std).log_prob(x), Categorical(logits=logits).log_prob(codes)
    canonical = ours(torch.cat([real, category[:, None]], 1), mu, logvar, beta_from("tvae", factor))
    assert_same_minimum(theirs, canonical, output, logits, std, mu, logvar)


@pytest.mark.parametrize(("cap", "steps", "updates"), [(0.2, 200_000, 900), (0.2, 100, 900), (0.5, 0, 1), (0.1, 7, 1)])
def test_recbole_s_last_update(cap: float, steps: int, updates: int) -> None:
    x, _, mu, logvar = leaves((12,), 4)
    logits = torch.randn((ROWS, 12), dtype=torch.float64, requires_grad=True)
    anneal = math.nan
    for update in range(1, updates + 1):
        anneal = min(cap, update / steps) if steps > 0 else cap
    theirs = -(F.log_softmax(logits, 1) * x).sum(1).mean() + kl_terms(mu, logvar).sum(1).mean() * anneal
    pairs = zip(x, logits, strict=True)
    log_p = torch.stack([Multinomial(int(row.sum()), logits=each).log_prob(row) for row, each in pairs])
    canonical = ours(log_p[:, None], mu, logvar, beta_from("recbole", cap, updates=updates, steps=steps))
    assert_same_minimum(theirs, canonical, logits, mu, logvar)


@pytest.mark.parametrize("cells", [1, 9_999, 20_000, 25_000, 100_000, 1_000_000, 5_300_000, 5_400_000, 10**8])
def test_scvi_s_last_epoch(cells: int) -> None:
    epochs = max(min(round((20_000 / cells) * 400), 400), 1)
    weights = [epoch / 400 if epoch < 400 else 1.0 for epoch in range(epochs)]
    assert beta_from("scvi-tools", cells=cells) == weights[-1] == beta_from("scvi-tools", epochs=epochs)
    assert beta_from("scvi-tools", 0.5, cells=cells) == pytest.approx(weights[-1] / 2)


def test_scvi_s_warm_up_that_ends() -> None:
    assert beta_from("scvi-tools", epochs=1000) == 1
    assert beta_from("scvi-tools", epochs=21, warmup=20) == 1
    assert beta_from("scvi-tools", epochs=20, warmup=20) == 0.95
    assert beta_from("scvi-tools", 0.3, cells=10**7, warmup=0) == 0.3


@pytest.mark.parametrize(
    ("system", "facts", "expected"),
    [
        ("pythae", {}, 1),
        ("pythae-before-0.1.2", {}, 0.5),
        ("pytorch-vae", {"features": 64 * 64 * 3}, 1.536),
        ("autoencoders", {"features": 32 * 32 * 3}, 1536),
        ("encdr", {}, 0.5),
        ("tvae", {}, 0.5),
        ("disent", {"features": 64 * 64 * 3, "latents": 9}, 2.048),
        ("scvi-tools", {"cells": 25_000}, 0.7975),
        ("scvi-tools", {"cells": 100_000}, 0.1975),
        ("scvi-tools", {"cells": 1_000_000}, 0.0175),
        ("scvi-tools", {"cells": 5_400_000}, 0),
        ("recbole", {"updates": 300 * math.ceil(6040 / 2048)}, 0.0045),
    ],
)
def test_what_the_defaults_mean(system: str, facts: dict[str, int], expected: float) -> None:
    found = beta_from(system, **facts)
    assert type(found) is float
    assert found == pytest.approx(expected, rel=1e-12)


def test_the_result_is_a_beta() -> None:
    assert beta_of(beta_from("PyTorch-VAE", np.float64(1), features=np.int64(12288))).final == 6144
    assert elbowroom.beta_from is beta_from


# ---- the real systems, where they are installed ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_the_installed_pythae(kind: str) -> None:
    models = pytest.importorskip("pythae.models", exc_type=ImportError)
    x, output, mu, logvar = leaves((1, 5, 5), 3)
    model = SimpleNamespace(model_config=SimpleNamespace(reconstruction_loss=kind), beta=0.3)
    theirs = models.BetaVAE.loss_function(model, output, x, mu, logvar, None)[0]
    old = tuple(map(int, importlib.metadata.version("pythae").split(".")[:3])) < (0, 1, 2)
    beta = beta_from("pythae-before-0.1.2", 0.3, loss=kind) if old else beta_from("pythae", 0.3)
    log_p = {"mse": gaussian, "bce": bernoulli}[kind](output).log_prob(x)
    assert_same_minimum(theirs, ours(log_p, mu, logvar, beta), output, mu, logvar)


def test_the_installed_autoencoders() -> None:
    base = pytest.importorskip("autoencoders.models.base.modeling_vae", exc_type=ImportError)
    model, (x, output, mu, logvar) = base.BaseVariationalAutoencoderModel, leaves((3, 4, 4), 5)
    config = SimpleNamespace(config=SimpleNamespace(reconstruction_loss="mse", free_bits=0.0, kl_weight=0.7))
    parts = model.compute_loss(config, output, x), model.compute_kl_loss(config, mu, logvar)
    theirs = model.compute_total_loss(config, *parts)
    canonical = ours(gaussian(output).log_prob(x), mu, logvar, beta_from("autoencoders", 0.7, features=48))
    assert_same_minimum(theirs, canonical, output, mu, logvar)


def test_the_installed_scvi_tools() -> None:
    plans = pytest.importorskip("scvi.train._trainingplans", exc_type=ImportError)
    epochs_of = importlib.import_module("scvi.model._utils").get_max_epochs_heuristic
    for cells in (300, 25_000, 100_000, 1_000_000):
        weight = plans._compute_kl_weight(epochs_of(cells) - 1, 0, 400, None)
        assert beta_from("scvi-tools", cells=cells) == pytest.approx(float(weight), rel=1e-6)


# ---- the page that explains them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_page_says_what_each_system_optimises(system: str) -> None:
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{system}` "))
    said, number = (
        (SYSTEMS[system].__doc__ or "").splitlines()[0],
        next(iter(inspect.signature(SYSTEMS[system]).parameters)),
    )
    assert said.removesuffix(".") in row
    assert f"`{number}={default(system):g}`" in row


def test_the_page_s_examples_hold() -> None:
    examples = re.findall(r"`(beta_from\([^`]*\))` = ([\d.,]*\d)", PAGE.read_text())
    assert {eval(call.replace("beta_from", "name_of")) for call, _ in examples} == set(SYSTEMS)
    for call, result in examples:
        assert eval(call) == pytest.approx(float(result.replace(",", "")), rel=1e-3), call


def name_of(system: str, *_: Any, **__: Any) -> str:
    return system


def test_every_fact_is_explained() -> None:
    facts = {name for function in SYSTEMS.values() for name in list(inspect.signature(function).parameters)[1:]}
    assert facts == {*FACTS, "loss"}
    assert all(f"`{fact}`" in (beta_from.__doc__ or "") for fact in facts)


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("pyhtae",), {}, "Did you mean 'pythae'?"),
    (("ctgan",), {}, "tvae"),
    ((None,), {}, "None"),
    ((["pythae"],), {}, "pythae"),
    (("pytorch-vae",), {}, "features=..."),
    (("pytorch-vae", 1), {"feature": 3}, "Did you mean 'features'?"),
    (("disent", 1), {"features": 3}, "latents=..."),
    (("recbole",), {}, "updates=..."),
    (("encdr", 1), {"features": 3}, "features=3 was given"),
    (("pytorch-vae", 1), {"features": 3, "latents": 2}, "'latents'"),
    (("scvi-tools",), {}, "either cells or epochs"),
    (("scvi-tools",), {"cells": 5, "epochs": 5}, "epochs=5"),
    (("pythae", -1), {}, "-1"),
    (("pythae", math.nan), {}, "nan"),
    (("pythae", math.inf), {}, "inf"),
    (("pythae", 10**400), {}, "000"),
    (("pythae", True), {}, "True"),
    (("pythae", np.bool_(True)), {}, "True"),
    (("pythae", "1"), {}, "'1'"),
    (("tvae", 0), {}, "0"),
    (("tvae", 1e-40), {}, "1e+40"),
    (("autoencoders", 1), {"features": 0}, "features"),
    (("autoencoders", 1), {"features": -3}, "-3"),
    (("autoencoders", 1), {"features": 2.5}, "2.5"),
    (("autoencoders", 1), {"features": True}, "True"),
    (("autoencoders", 1), {"features": math.nan}, "nan"),
    (("autoencoders", 1), {"features": None}, "None"),
    (("autoencoders", 1), {"features": (3, 32, 32)}, "(3, 32, 32)"),
    (("autoencoders", 1e30), {"features": 10}, "5e+30"),
    (("pythae-before-0.1.2", 1), {"loss": "mes"}, "Did you mean 'mse'?"),
    (("pythae-before-0.1.2", 1), {"loss": np.zeros(3)}, "loss"),
]


@pytest.mark.parametrize(("args", "facts", "said"), BAD, ids=[f"{args}{facts}"[:50] for args, facts, _ in BAD])
def test_bad_input_gives_errors_in_three_parts(args: tuple[Any, ...], facts: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        beta_from(*args, **facts)
    error = caught.value
    assert error.expected
    assert error.got
    assert error.do.endswith((".", "?"))
    assert said in str(error)


def test_the_systems_are_fixed() -> None:
    with pytest.raises(TypeError):
        SYSTEMS["mine"] = SYSTEMS["pythae"]  # type: ignore[index]
