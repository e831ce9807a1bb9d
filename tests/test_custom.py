"""Custom networks and likelihoods, global state, and Ctrl-C."""

from __future__ import annotations

import copy
import random
import signal
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from small import COUNTS, DIGITS, WINE, counts, images, table
from torch import Tensor, distributions, nn

from elbowroom.errors import ElbowroomWarning, ParameterError
from elbowroom.likelihoods.continuous import Gaussian

# ---- custom parts


class Scaled(nn.Module):
    """A custom likelihood with only `forward` and its number of inputs."""

    n_outputs = 26

    def forward(self, h: Tensor) -> distributions.Distribution:
        mean, log_std = h.chunk(2, -1)
        return distributions.Independent(distributions.Normal(mean, log_std.clamp(-5, 5).exp()), 1)


class Plain(nn.Module):
    """One with a parameter of its own, whose distribution is by feature."""

    def __init__(self) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(13))

    def forward(self, h: Tensor) -> distributions.Distribution:
        return distributions.Normal(h, self.log_std.exp())


class Counting(nn.Module):
    """A custom encoder that counts calls and rows over all of its copies."""

    calls, rows = 0, 0

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(8)

    def forward(self, x: Tensor) -> Tensor:
        Counting.calls += 1
        Counting.rows += len(x)
        return self.linear(x).tanh()


class WithContext(nn.Module):
    """A custom network with context."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(outputs)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.linear(torch.cat([x, x.new_zeros(len(x), 3) if context is None else context], -1))


CUSTOM: dict[str, Callable[[], dict[str, Any]]] = {
    "likelihood": lambda: {"likelihood": Scaled()},
    "likelihood by feature, iwae": lambda: {"likelihood": Plain(), "objective": "iwae:draws=3"},
    "likelihood of our own": lambda: {"likelihood": Gaussian(13, scale="shared")},
    "encoder": lambda: {"encoder": nn.Sequential(nn.Linear(13, 9), nn.Tanh())},
    "decoder, iwae": lambda: {
        "decoder": nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 13)),
        "objective": "iwae:draws=3",
    },
    "all, vamp": lambda: {
        "encoder": Counting(),
        "decoder": nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 26)).double(),
        "likelihood": Scaled(),
        "prior": "vamp:components=3",
    },
}


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_parts_work_like_any(name: str) -> None:
    X = (WINE - WINE.mean(0)) / WINE.std(0)
    model = table(**CUSTOM[name](), epochs=150, learning_rate=1e-2).fit(X)
    independent = stats.norm().logpdf(X).sum(1).mean()
    assert model.score(X) > independent + 1.0
    assert model.log_likelihood(X, n_draws=50).mean > model.score(X)
    assert model.transform(X).shape == (178, 2)
    assert model.reconstruct(X).shape == model.sample(178).shape == X.shape
    np.testing.assert_array_equal(model.sample(3, random_state=0), model.sample(3, random_state=0))
    np.testing.assert_allclose(model.score_samples(X[5:9]), model.score_samples(X)[5:9], rtol=1e-12)
    assert model.score(X.astype(np.float32)) == pytest.approx(model.score(X), abs=1e-3)


class Cast(Plain):
    """One whose inputs for the encoder are always float32, whatever the model computes in."""

    n_inputs = 26

    def inputs(self, x: Tensor) -> Tensor:
        return torch.cat([x, x**2], -1).float()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_of_a_custom_likelihood_have_the_dtype_of_the_model(dtype: type) -> None:
    X = ((WINE - WINE.mean(0)) / WINE.std(0)).astype(dtype)
    model = table(likelihood=Cast()).fit(X)
    assert np.isfinite(model.log_likelihood(X, n_draws=5).mean)  # scores are computed in float64


def test_custom_parts_are_copied_with_their_weights() -> None:
    encoder = nn.Linear(13, 4)
    before = copy.deepcopy(encoder.state_dict())
    model = table(encoder=encoder).fit(WINE)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not torch.equal(model.model_.encoder.module.weight, encoder.weight)


def test_custom_parts_with_context() -> None:
    batch = np.arange(len(WINE)) % 3
    model = table(encoder=WithContext(8), decoder=WithContext(13), objective="iwae:draws=2").fit(WINE, context=batch)
    assert np.isfinite(model.score(WINE, context=batch))
    assert model.sample(2, context=1).shape == (2, 13)
    with pytest.raises(ParameterError, match=r"encoder must take the context too: forward\(rows, context\)"):
        table(encoder=nn.Linear(13, 4)).fit(WINE, context=batch)


def test_custom_convolutions_for_images() -> None:
    encoder = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.Flatten())
    model = images(encoder=encoder).fit(DIGITS[:50])
    assert model.reconstruct(DIGITS[:50]).shape == (50, 8, 8)
    assert type(model.model_.decoder).__name__ == "ImageDecoder"


def test_scoring_encodes_each_row_once() -> None:
    model = table(encoder=Counting()).fit(WINE)
    for score, batches in (
        (lambda: model.score_samples(WINE), 1),
        (lambda: model.log_likelihood(WINE, n_draws=100), 1),
        (lambda: model.reconstruct(WINE), 1),
        (lambda: model.sample_posterior(WINE, 10), 1),
        (lambda: model.sample(10), 0),
    ):
        Counting.calls = Counting.rows = 0
        score()
        assert (Counting.calls, Counting.rows) == (batches, batches * len(WINE))


# ---- nothing outside of the model changes


def test_global_random_numbers_and_threads_are_left_alone() -> None:
    batch = np.arange(len(WINE)) % 2

    def everything() -> None:
        for model in (table(likelihood=Scaled(), epochs=2), table(prior="vamp:components=4", random_state=None)):
            model.fit(WINE, context=batch)
            model.score(WINE, context=batch), model.log_likelihood(WINE, context=batch, n_draws=3)
            model.sample(3, context=0), model.sample_posterior(WINE, 2, context=batch)
            model.diagnose(WINE, context=batch)
        for binarize in (None, "sample"):
            model = images(binarize=binarize).fit(DIGITS[:30])
            model.score(DIGITS[:30]), model.sample(2), model.reconstruct(DIGITS[:30])
        counts().fit(COUNTS).sample(3)

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    precision = torch.backends.mkldnn.matmul.fp32_precision
    everything()
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert torch.backends.mkldnn.matmul.fp32_precision == precision
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: table(prior="mixture:components=3", objective="iwae:draws=2", patience=2, epochs=9), WINE),
        (lambda: images(binarize="sample", body="residual"), DIGITS[:60]),
        (lambda: counts(prior="vamp:components=3", covariance="full"), COUNTS),
        (lambda: table(encoder=nn.Sequential(nn.Linear(13, 5), nn.Dropout(0.5)), random_state=3), WINE),
    ],
)
def test_the_same_seed_gives_the_same_bits(make: Callable[[], Any], x: np.ndarray) -> None:
    model = make()
    first, second = clone(model).fit(x), clone(model).fit(x)
    for (name, a), b in zip(first.model_.state_dict().items(), second.model_.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    other = clone(model).set_params(random_state=99).fit(x)
    assert any(not torch.equal(a, b) for a, b in zip(first.model_.parameters(), other.model_.parameters(), strict=True))


def test_fits_in_threads_give_the_bits_of_fits_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    models = [table(epochs=3, random_state=seed) for seed in range(4)]
    models += [table(epochs=3, encoder=nn.Sequential(nn.Linear(13, 5), nn.Dropout(0.5)))]
    alone = [clone(model).fit_transform(WINE) for model in models]
    torch.set_rng_state(before)
    together = joblib.Parallel(n_jobs=5, backend="threading")(
        joblib.delayed(clone(model).fit_transform)(WINE) for model in models
    )
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)


# ---- interruption


class Interrupting(nn.Module):
    """A network that presses Ctrl-C at its nth call."""

    left = 0

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(8)

    def forward(self, x: Tensor) -> Tensor:
        Interrupting.left -= 1
        if Interrupting.left == 0:
            signal.raise_signal(signal.SIGINT)
        return self.linear(x).tanh()


def test_control_c_keeps_the_model_trained_so_far() -> None:
    Interrupting.left = 25
    model = table(encoder=Interrupting(), epochs=1000)
    with pytest.warns(ElbowroomWarning, match="interrupted in epoch"):
        model.fit(WINE)
    assert 0 < len(model.history_) < 25
    assert not model.history_.complete
    assert "is kept" in model.history_.notes[-1]
    assert np.isfinite(model.score(WINE))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_before_the_first_epoch_is_an_interruption() -> None:
    Interrupting.left = 3
    model = table(encoder=Interrupting(), epochs=1000, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(WINE)
    assert not hasattr(model, "model_")
