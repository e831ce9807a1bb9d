"""Scores of rows: the evidence lower bound at beta = 1, and the importance-weighted log-likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elbowroom.data.dataset import Batch, Rows, joined
from elbowroom.data.sparse import SparseBatch
from elbowroom.errors import counted, warn
from elbowroom.models.vae import VAE
from elbowroom.objectives.terms import distortion_of
from elbowroom.utils.devices import keep_memory
from elbowroom.utils.randomness import Occurrences, generator_at, normal_by_row
from elbowroom.utils.settings import standard_defaults

AT_ONCE = 2**19  # decoder outputs in memory at once for a bound; with more, each batch faults in its memory anew
SHARED = 2**21  # the same for importance sampling, where the noise is drawn by batch
LEAST_SIZE = 10  # an effective sample size below which importance sampling gives no more than a lower bound
MOST_ROWS = 0.1  # share of the rows that may be below it without a caution


@dataclass(frozen=True)
class LogLikelihood:
    """log p(x) of rows by importance sampling with K draws (Burda et al. 2016), in nats per row.

    It is a lower bound in expectation, and rises to log p(x) with K. If the effective sample size of a row is below 10,
    a few draws have nearly all of the weight and more draws would change the estimate: `caution` reports this if it
    applies to more than a tenth of the rows.
    """

    rows: np.ndarray
    effective_sample_sizes: np.ndarray
    draws: int

    @property
    def mean(self) -> float:
        """Mean over rows."""
        return float(self.rows.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over rows; NaN for one row."""
        return standard_error(self.rows)

    @property
    def effective_sample_size(self) -> float:
        """Median over rows of (sum w)^2 / sum w^2, between 1 and `draws`: near 1, q is a poor proposal."""
        known = self.effective_sample_sizes[np.isfinite(self.effective_sample_sizes)]
        return float(np.median(known)) if len(known) else math.nan

    @property
    def share_below(self) -> float:
        """Share of the rows whose effective sample size is below 10."""
        return float((~(self.effective_sample_sizes >= LEAST_SIZE)).mean())

    @property
    def caution(self) -> str:
        """Why the mean is only a lower bound, and what to do about it; empty if the estimate is reliable."""
        if self.share_below <= MOST_ROWS:
            return ""
        return (
            f"the effective sample size is below {LEAST_SIZE} for {self.share_below:.0%} of the rows (median "
            f"{self.effective_sample_size:.1f} of {counted(self.draws, 'draw')}): read the log-likelihood as a lower "
            "bound, or take more draws"
        )

    def __str__(self) -> str:
        caution = f"; {self.caution}" if self.caution else ""
        return (
            f"{self.mean:.2f} +- {self.standard_error:.2f} nats per row "
            f"(K = {self.draws}, effective sample size {self.effective_sample_size:.0f}{caution})"
        )


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean of values (n,); NaN for one value, and if not all are finite."""
    with np.errstate(invalid="ignore"):
        return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def warn_non_finite(values: np.ndarray, what: str, stacklevel: int = 3) -> None:
    """Warn of rows, the first axis of `values`, whose values are not all finite: how many, and which is the first."""
    broken = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if broken.any():
        message = (
            f"{counted(int(broken.sum()), 'row has', 'rows have')} no finite {what} (first: row "
            f"{int(np.argmax(broken))}): look for values there that are far beyond those of training"
        )
        warn(message, stacklevel)


@standard_defaults()
@torch.no_grad()
def distortion_and_rate(model: VAE, rows: Rows, draws: int = 16, apart: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """-log p(x|z) averaged over draws of z, and KL(q || p), of every row (n,), in nats.

    The noise of a row depends on its content only, so that its values are batch-invariant. With `apart`, equal rows
    have different noise: the standard error of a mean over rows needs independent errors.
    """
    keep_memory()
    counter = Occurrences() if apart else None
    batches = rows.in_order(_batch_size(model, AT_ONCE // draws))
    terms = (_terms(model, batch, draws, counter) for batch in batches)
    distortion, rate = joined(terms, len(rows), 1).double().numpy()
    return distortion, rate


def _terms(model: VAE, batch: Batch, draws: int, counter: Occurrences | None) -> Tensor:
    noise = noise_of(batch.x, draws, model, counter)
    outcome = model(batch.x, batch.context, noise)
    rate = outcome.rate if outcome.rate.dim() == 1 else outcome.rate.mean(0)
    return torch.stack((distortion_of(outcome, batch.x).mean(0), rate))


def noise_of(x: Tensor | SparseBatch, draws: int, model: VAE, counter: Occurrences | None = None) -> Tensor:
    """Standard normal noise (draws, n, d) that depends on the rows' content only, in antithetic pairs.

    The content is taken in float32, so that a row has the same noise in every dtype. With a counter of rows, equal rows
    have different noise.
    """
    content = x.to(torch.float32).csr() if isinstance(x, SparseBatch) else x.float().numpy()
    half = torch.from_numpy(normal_by_row(content, (draws + 1) // 2, model.n_latents, counter))
    noise = torch.cat([half, -half])[:draws]
    return noise.to(next(model.parameters()).dtype)


@standard_defaults()
@torch.no_grad()
def log_likelihood(model: VAE, rows: Rows, draws: int = 1000, seed: int = 0) -> LogLikelihood:
    """Importance-weighted log-likelihood of every row; each row is encoded once."""
    keep_memory()
    size = max(1, min(256, _batch_size(model, SHARED)))
    found = (
        _importance(model, batch, draws, generator_at(seed, "importance", i))
        for i, batch in enumerate(rows.in_order(size))
    )
    values, sizes = joined(found, len(rows), 1).numpy()
    return LogLikelihood(values, sizes, draws)


def _importance(model: VAE, batch: Batch, draws: int, generator: torch.Generator) -> Tensor:
    x, context = batch.x, batch.context
    q, prior, total = model.encode(x, context), model.prior_distribution(), model.likelihood.row_total(x)  # type: ignore[operator]
    at_once = max(1, _batch_size(model, SHARED) // len(x))
    weights = []
    for start in range(0, draws, at_once):
        k = min(at_once, draws - start)
        z = q.rsample(torch.randn(k, *q.mean.shape, generator=generator, dtype=q.mean.dtype))
        p = model.decode(z, context, total)
        weights.append((p.log_kernel(x) + prior.log_prob(z) - q.log_prob(z)).double())
    log_w = torch.cat(weights)
    ess = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()
    return torch.stack((log_w.logsumexp(0) - math.log(draws) + p.log_base(x).double(), ess))


def _batch_size(model: VAE, outputs: int) -> int:
    likelihood: Any = model.likelihood
    return max(1, min(4096, outputs // max(1, int(likelihood.n_outputs), int(likelihood.features))))
