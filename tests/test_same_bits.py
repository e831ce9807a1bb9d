"""The same seed gives the same bits, whatever else the program does: other threads, other defaults of torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from small import COUNTS, DIGITS, WINE, counts, images, table
from torch import nn

from elbowroom import InteractionVAE, VAEDetector, VAEImputer
from elbowroom.latents.posteriors import DiagonalLatent
from elbowroom.latents.priors import MixturePrior
from elbowroom.likelihoods.items import ItemMultinomial
from elbowroom.nn.layers import Conv2d, Linear, SparseLinear
from elbowroom.nn.mlp import MLP
from elbowroom.utils.randomness import drawing_from, module_generator

CLICKS = sparse.random(200, 40, 0.15, format="csr", random_state=0, data_rvs=np.ones)
PEOPLE = pd.DataFrame({"age": [30.5, 41.25, np.nan, 28] * 20, "job": ["cook", "nurse", None, "cook"] * 20})


def clicks(**settings: Any) -> InteractionVAE:
    small = {"n_latents": 3, "hidden": (8,), "epochs": 3, "batch_size": 64, "random_state": 0}
    return InteractionVAE(**{**small, **settings})


FITS: dict[str, tuple[Callable[..., Any], Any]] = {
    "table": (table, WINE),
    "mixture": (lambda **more: table(prior="mixture:components=3", beta="0.1..10", **more), WINE),
    "table of any columns": (lambda **more: table(schema="infer", **more), PEOPLE),
    "images": (lambda **more: images(body="residual", **more), DIGITS[:100]),
    "binarised images": (lambda **more: images(body="mlp", binarize="sample", **more), DIGITS[:100]),
    "counts": (counts, COUNTS),
    "interactions": (clicks, CLICKS),  # with dropout
    "sampled items": (lambda **more: clicks(likelihood="multinomial:sampled=10", init="random", **more), CLICKS),
}
each_fit = pytest.mark.parametrize("name", FITS)


def weights(estimator: Any) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in estimator.model_.state_dict().values()])


@contextmanager
def noise() -> Iterator[None]:
    """Another thread, which draws from torch's global stream and seeds it all the time."""
    ended = threading.Event()

    def draw() -> None:
        while not ended.is_set():
            torch.rand(3)
            torch.manual_seed(7)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@each_fit
def test_other_threads_that_draw_change_nothing(name: str) -> None:
    make, X = FITS[name]
    alone = weights(make().fit(X))
    with noise():
        assert torch.equal(weights(make().fit(X)), alone)


@each_fit
def test_a_fit_leaves_the_global_stream_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, X = FITS[name]
    before = torch.get_rng_state()
    for changed in ("manual_seed", "set_rng_state"):
        monkeypatch.setattr(torch.random, changed, None)  # not even to put it back
    make().fit(X)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("names", [("interactions", "interactions"), ("table", "images")])
def test_two_fits_at_once_are_as_each_alone(names: tuple[str, str]) -> None:
    def fit(place: int) -> None:
        make, X = FITS[names[place]]
        found[place] = weights(make(random_state=place).fit(X))

    found: dict[int, torch.Tensor] = {}
    for place in (0, 1):
        fit(place)
    alone = dict(found)
    threads = [threading.Thread(target=fit, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[place], alone[place]) for place in (0, 1))


def test_dropout_of_custom_modules_has_a_stream_of_its_own() -> None:
    def fitted() -> torch.Tensor:
        torch.manual_seed(0)
        return weights(table(encoder=nn.Sequential(nn.Linear(13, 8), nn.Dropout(0.5))).fit(WINE))

    first = fitted()
    torch.rand(5)
    assert torch.equal(fitted(), first)


# ---- first weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (lambda: Linear(300, 200), lambda: nn.Linear(300, 200)),
        (lambda: Conv2d(20, 30, 3), lambda: nn.Conv2d(20, 30, 3)),
    ],
)
def test_first_weights_are_those_of_torch(ours: Callable[[], nn.Module], torchs: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    expected = list(torchs().parameters())
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(ours().parameters(), expected, strict=True))
    with drawing_from(torch.Generator().manual_seed(3)):
        again = list(ours().parameters())
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MLP(5, (4,), 3, gated=True),
        lambda: SparseLinear(5, 4),
        lambda: DiagonalLatent(5, 2),
        lambda: MixturePrior(2, components=3),
        lambda: ItemMultinomial(9, 4),
        lambda: Conv2d(2, 3, 3),
    ],
)
def test_modules_draw_from_the_generator_that_is_named(make: Callable[[], nn.Module]) -> None:
    def made(seed: int) -> torch.Tensor:
        with drawing_from(torch.Generator().manual_seed(seed)):
            return torch.cat([p.detach().flatten() for p in make().parameters()])

    before = torch.get_rng_state()
    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert module_generator() is None


def test_dropout_leaves_out_a_share_and_keeps_the_mean() -> None:
    body = MLP(100_000, (), None, dropout=0.3)
    ones = torch.ones(1, 100_000)
    with drawing_from(torch.Generator().manual_seed(0)):
        thinned = body(ones)
    assert set(thinned.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.7))}
    assert abs(float((thinned == 0).float().mean()) - 0.3) < 4 * (0.3 * 0.7 / 100_000) ** 0.5
    assert torch.equal(body.eval()(ones), ones)


# ---- torch's defaults ------------------------------------------------------------------------------------------------


@contextmanager
def other_defaults() -> Iterator[None]:
    """float64, and a device that new tensors have no values on."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        yield
        assert torch.empty(1).dtype == torch.float64
        assert torch.empty(1).device.type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def answers(name: str) -> list[Any]:
    """What a new model says, in all tasks."""
    make, X = FITS[name]
    model = make(validation_fraction=0.1).fit(X)
    if isinstance(model, InteractionVAE):
        more = [model.recommend(X[:5], 4), model.recommend([0, 1], 4, thompson=True, random_state=0)]
        more += [model.similar_items(3), model.explain(0, 5), model.transform(X), model.score_samples(X[:20])]
        more += [model.sample(3, random_state=0).toarray(), model.partial_fit(X[:50], epochs=1).transform(X[:5])]
        return [weights(model).numpy(), *more]
    some = X[:20]
    found = [weights(model).numpy(), model.transform(some), model.reconstruct(some), model.score_samples(some)]
    found += [model.sample(5, random_state=0), model.sample_posterior(some, 3, random_state=0)]
    found += [model.inverse_transform(model.transform(some)), model.log_likelihood(some, n_draws=10).rows]
    found += [model.diagnose(some).rate_per_latent]
    if name == "mixture":
        found += [model.curve(some).rates, model.at(0.5).transform(some)]
    if name == "table of any columns":
        found += [model.impute(some), model.impute(some, 2)[1], model.sample(5, given={"job": "cook"}, random_state=0)]
    return found


@each_fit
def test_other_defaults_of_torch_change_nothing(name: str) -> None:
    expected = answers(name)
    with other_defaults():
        found = answers(name)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, other, check_exact=True)
        else:
            for a, b in zip(np.atleast_1d(one), np.atleast_1d(other), strict=True):
                np.testing.assert_array_equal(a, b)


def test_other_defaults_with_custom_modules_and_context() -> None:
    def found() -> np.ndarray:
        encoder = nn.Sequential(nn.Linear(13, 6, device="cpu"), nn.Tanh())
        with torch.no_grad():
            encoder[0].weight.copy_(torch.linspace(-1, 1, 78, device="cpu", dtype=torch.float32).view(6, 13))
            encoder[0].bias.zero_()
        labels = np.arange(len(WINE)) % 3
        own = table(encoder=encoder).fit(WINE).score_samples(WINE)
        return np.stack([own, table().fit(WINE, context=labels).score_samples(WINE, context=labels)])

    expected = found()
    with other_defaults():
        np.testing.assert_array_equal(found(), expected)


def test_other_defaults_with_imputer_and_detector() -> None:
    def found() -> np.ndarray:
        detector = VAEDetector(table(schema="robust", epochs=2), random_state=0, n_draws=4).fit(X)
        gaps = np.where(np.arange(X.size).reshape(X.shape) % 17 == 0, np.nan, X)
        filled = VAEImputer(table(schema="infer", epochs=2), random_state=0).fit_transform(gaps)
        return np.concatenate([detector.score_samples(X), detector.contributions(X).ravel(), filled.ravel()])

    X = WINE[:50, :5]

    expected = found()
    with other_defaults():
        np.testing.assert_array_equal(found(), expected)
