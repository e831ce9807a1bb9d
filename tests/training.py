"""A small model and small data for the tests of the training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elbowroom.beta.policies import Beta, Constant
from elbowroom.data.dataset import Rows, rows_of
from elbowroom.latents.posteriors import DiagonalLatent
from elbowroom.latents.priors import Prior, StandardPrior
from elbowroom.likelihoods.discrete import Bernoulli
from elbowroom.models.vae import VAE
from elbowroom.nn.mlp import MLP
from elbowroom.objectives.bounds import Elbo
from elbowroom.objectives.terms import Terms
from elbowroom.training.history import History
from elbowroom.training.trainer import Trainer

D = 6


def bits(n: int = 50, seed: int = 0) -> np.ndarray:
    """Zeros and ones (n, D) with something to learn: every second feature repeats the one before."""
    half = np.random.default_rng(seed).random((n, D // 2)) < 0.4
    return half.repeat(2, 1).astype(np.uint8)


def rows(n: int = 50, seed: int = 0) -> Rows:
    """The same as rows."""
    return rows_of(bits(n, seed))


def model(seed: int = 0, encoder: nn.Module | None = None, prior: Prior | None = None) -> VAE:
    """A VAE of D features and 2 latents; the global stream is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = copy.deepcopy(encoder) if encoder is not None else MLP(D, (8,))
        return VAE(body, DiagonalLatent(8, 2), prior or StandardPrior(2), MLP(2, (8,), D), Bernoulli(D))


def fit(
    trainer: Trainer,
    data: Rows | None = None,
    beta: Beta | None = None,
    encoder: nn.Module | None = None,
    prior: Prior | None = None,
    **options: Any,
) -> tuple[VAE, History]:
    """Train a new small model."""
    vae = model(encoder=encoder, prior=prior)
    return vae, trainer.fit(vae, rows() if data is None else data, Constant(1.0) if beta is None else beta, **options)


def weights(vae: nn.Module) -> Tensor:
    """All parameters and buffers, flat, copied."""
    return torch.cat([t.detach().double().flatten() for t in (*vae.parameters(), *vae.buffers())]).clone()


def without_seconds(history: History) -> list[dict[str, float]]:
    """The records of a history but for the time that they took."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def same(a: tuple[VAE, History], b: tuple[VAE, History]) -> bool:
    """Whether two runs ended alike: every bit of the weights, every record, every note."""
    histories = [(without_seconds(h), h.notes, h.complete) for _, h in (a, b)]
    return torch.equal(weights(a[0]), weights(b[0])) and histories[0] == histories[1]


class Spy:
    """The evidence lower bound, which shows `act` the number of the call and its terms, and takes what it returns."""

    def __init__(self, act: Callable[[int, Terms], Terms | None]) -> None:
        self.act, self.calls = act, 0

    def __call__(self, *args: Any) -> Terms:
        terms = Elbo()(*args)
        self.calls += 1
        return self.act(self.calls - 1, terms) or terms

    def __repr__(self) -> str:
        return "Spy()"


class Killed(BaseException):
    """What stops a run in these tests where a real SIGKILL would be slow."""


def killed_at(step: int) -> Spy:
    """The evidence lower bound, which stops its run in a step."""

    def act(call: int, terms: Terms) -> None:
        if call == step:
            raise Killed

    return Spy(act)


class CustomEncoder(nn.Module):
    """A caller's own encoder, which draws from torch's global stream, openly and not, and has running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, h: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return F.dropout(self.body(h), 0.1, self.training)


def custom_encoder() -> CustomEncoder:
    """Such an encoder, always the same; the global stream is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return CustomEncoder()
