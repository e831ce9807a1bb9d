"""Missing values given the known ones: conditional draws by importance sampling."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from elbowroom.data.dataset import Rows
from elbowroom.distributions.gaussian import normal
from elbowroom.errors import DataError
from elbowroom.models.vae import VAE
from elbowroom.tasks.score import noise_of
from elbowroom.utils.randomness import generator_at
from elbowroom.utils.settings import standard_defaults

AT_ONCE = 2**19  # decoder outputs held at once
LEAST = 4096  # draws for samples with given values


class Proposal(NamedTuple):
    """Draws of z for n rows, (k, n, d), and the logarithm of their weights, (k, n): sum(w) / k estimates p(x)."""

    z: Tensor
    log_weights: Tensor

    def resample(self, n: int, generator: Generator) -> Tensor:
        """Draws (n, rows, d), resampled with the weights as probabilities."""
        chances = self.log_weights.softmax(0).T.double()
        at = torch.multinomial(chances, n, replacement=True, generator=generator).T
        return self.z.gather(0, at.unsqueeze(-1).expand(-1, -1, self.z.shape[-1]))

    @property
    def impossible(self) -> list[int]:
        """The rows that have no probability under any draw."""
        return (~self.log_weights.isfinite().any(0)).nonzero()[:, 0].tolist()

    @property
    def effective_sizes(self) -> Tensor:
        """(sum w)^2 / sum w^2 of every row, (n,)."""
        w = self.log_weights.double()
        return (2 * w.logsumexp(0) - (2 * w).logsumexp(0)).exp()


def propose(model: VAE, x: Tensor, context: Tensor | None, noise: Tensor, free: Tensor) -> Proposal:
    """Draws of z given the known values of rows x (n, D): from q(z|x) by `noise` (k, n, d), and `free` (m, d).

    `free` are draws from the prior, the same for all rows. All are weighted by the balance heuristic (Veach & Guibas
    1995), so that they are good if the encoder was trained on rows with such missing values, and otherwise no worse
    than m draws from the prior.
    """
    q, prior = model.encode(x, context), model.prior_distribution()
    z = torch.cat([q.rsample(noise), free.to(noise.dtype).unsqueeze(1).expand(-1, len(x), -1)])
    log_p, log_q = prior.log_prob(z).double(), q.log_prob(z).double()
    share = len(free) / len(z)
    log_mixture = torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))
    return Proposal(z, joint(model, z, x, context) + log_p - log_mixture)


def free_draws(model: VAE, draws: int, generator: Generator) -> Tensor:
    """Half of the draws of z, from the prior, (draws // 2, d)."""
    return model.prior_distribution().sample(draws // 2, generator)


def joint(model: VAE, z: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """log p(x|z) of rows (n, D) and draws (k, n, d), up to a constant of the row, float64, (k, n)."""
    at_once = max(1, AT_ONCE // max(1, int(model.likelihood.n_outputs) * len(x)))  # type: ignore[arg-type]
    return torch.cat([model.decode(part, context).log_kernel(x).double() for part in z.split(at_once)])


@standard_defaults()
@torch.no_grad()
def completions(model: VAE, rows: Rows, keep: int, draws: int, seed: int) -> Tensor:
    """Completed rows: `keep` draws from p(x_missing | x_known) of every row, (keep, n, D).

    Raises
    ------
    DataError
        If the known values of a row have no probability in the model.
    """
    size = max(1, min(256, AT_ONCE // max(1, draws * int(model.likelihood.n_outputs))))  # type: ignore[arg-type]
    found, free = [], free_draws(model, draws, generator_at(seed, "free"))
    for i, batch in enumerate(rows.in_order(size)):
        generator = generator_at(seed, "complete", i)
        noise = normal((draws - draws // 2, len(batch.x), model.n_latents), generator, free)
        proposal = propose(model, batch.x, batch.context, noise, free)
        if proposal.impossible:
            place = size * i + proposal.impossible[0]
            got = f"row {place if rows.index is None else int(rows.index[place])} has one that is too far away"
            do = "Correct it, or leave the cell empty."
            raise DataError("known values must be within reach of the training rows", got, do)
        z = proposal.resample(keep, generator)
        drawn = model.decode(z, batch.context).sample(generator)
        found.append(torch.where(batch.x.isnan(), drawn.double(), batch.x.double()))
    return torch.cat(found, 1)


@standard_defaults()
@torch.no_grad()
def sample_given(model: VAE, x: Tensor, context: Tensor | None, n: int, generator: Generator) -> tuple[Tensor, float]:
    """n rows from the model given known values of one row x (1, D) and a context (n, c), and an effective sample size.

    The latter is that of the draws of z; if contexts differ, the smallest of any context.
    """
    if context is None:
        return _given(model, x, None, n, generator)
    kinds, which = context.unique(dim=0, return_inverse=True)
    rows, sizes = x.new_empty(n, x.shape[1]), []
    for kind, one in enumerate(kinds):
        at = (which == kind).nonzero()[:, 0]
        rows[at], size = _given(model, x, one[None], len(at), generator)
        sizes.append(size)
    return rows, min(sizes)


def _given(model: VAE, x: Tensor, context: Tensor | None, n: int, generator: Generator) -> tuple[Tensor, float]:
    free = free_draws(model, max(LEAST, 8 * n), generator)
    noise = normal((len(free), 1, model.n_latents), generator, free)
    found = propose(model, x, context, noise, free)
    if found.impossible:
        got = "the model gives it no probability"
        raise DataError("what is given must be within reach of the training rows", got, "Give values nearer to them.")
    z = found.resample(n, generator)[:, 0]
    drawn = torch.cat([_decoded(model, part, context).sample(generator) for part in z.split(1024)]).double()
    return torch.where(x.isnan(), drawn, x.double()), float(found.effective_sizes[0])


def _decoded(model: VAE, z: Tensor, context: Tensor | None) -> Any:
    return model.decode(z, None if context is None else context.expand(len(z), -1))


@standard_defaults()
@torch.no_grad()
def surprises(model: VAE, rows: Rows, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """log p(x) of every row (n,), and -log p(cell | the rest of its row) of every cell (n, D), in nats.

    From the same draws: p(x_c | x_rest) is the harmonic mean of p(x_c | z) under the weights of the whole row. Both
    depend on the content of a row only.
    """
    size = max(1, min(256, AT_ONCE // max(1, draws * int(model.likelihood.n_outputs))))  # type: ignore[arg-type]
    whole, cells, free = [], [], free_draws(model, draws, generator_at(seed, "free"))
    for batch in rows.in_order(size):
        found = propose(model, batch.x, batch.context, noise_of(batch.x, draws - len(free), model), free)
        p = model.decode(found.z, batch.context)
        kernel, base = p.kernel_cells(batch.x).double(), p.base_cells(batch.x).double().expand(batch.x.shape)
        total = found.log_weights.logsumexp(0)
        whole.append(total - math.log(draws) + base.sum(-1))
        rest = (found.log_weights.unsqueeze(-1) - kernel).logsumexp(0)
        cells.append(rest - total.unsqueeze(-1) - base)
    return torch.cat(whole), torch.cat(cells)
