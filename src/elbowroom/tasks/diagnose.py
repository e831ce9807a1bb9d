"""Diagnosis of latents: which are active, how much information they carry, and a verdict in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elbowroom.data.dataset import Rows, evenly
from elbowroom.distributions.gaussian import DiagonalGaussian
from elbowroom.errors import counted
from elbowroom.latents.posteriors import Posterior
from elbowroom.models.vae import VAE
from elbowroom.tasks.score import distortion_and_rate, standard_error, warn_non_finite
from elbowroom.training.history import History
from elbowroom.utils.randomness import generator_at
from elbowroom.utils.settings import standard_defaults

SAME = 1e-12  # variance of values that are equal up to rounding
ACTIVE = 0.01  # variance over rows of the posterior mean (Burda et al. 2016)
DRAWS = 4  # draws of z per row: enough for a mean over rows
PROBES = 1024  # rows at which the aggregate posterior is evaluated
FEWEST_STEPS = 100  # of training, below which inactive latents are no evidence about the data or beta
FALLS = (0.1, 0.02)  # nats, and share of the total decrease, in the last quarter from which a loss counts as falling


@dataclass(frozen=True)
class Diagnosis:
    """The state of a posterior, in nats per row.

    rate_per_latent is KL(q(z_j|x) || p(z_j)) where q and the prior factorise, else the information that latent j has
    about the row. The rate is the mutual information of x and z plus the KL of the aggregate posterior to the prior
    (Hoffman & Johnson 2016). Both are estimated over all rows given, since the estimate within a batch saturates at
    log(batch): the mutual information estimated from n encodings is log(n) at most, and a lower bound; the rest of the
    rate, aggregate_kl, is an upper one. Near log(n) it is `saturated`, and aggregate_kl is NaN: it would be the rate
    less log(n), whatever the latents. standard_error is that of -(distortion + rate), the evidence lower bound, over
    rows.

    encodings is n, or 1 if all rows are equal: such rows do not show which latents are active. beta is NaN if a
    capacity was set instead. steps are those of the training (0: unknown), and falls is by how many nats per row the
    loss still fell in the last quarter of it (0: it did not, or unknown).
    """

    distortion: float
    rate: float
    standard_error: float
    rate_per_latent: np.ndarray
    active: np.ndarray
    mutual_information: float
    aggregate_kl: float
    beta: float
    encodings: float = 0
    steps: float = 0
    falls: float = 0

    @property
    def saturated(self) -> bool:
        """Whether the mutual information is within log(2) of log(n), its maximum for n encodings."""
        return self.encodings > 0 and is_saturated(self.mutual_information, self.encodings)

    @property
    def trained(self) -> bool:
        """Whether training was long enough for inactive latents to be meaningful."""
        return (self.steps == 0 or self.steps >= FEWEST_STEPS) and (self.falls == 0 or bool(self.active.all()))

    @property
    def n_active(self) -> int:
        """Active units: latents whose posterior mean varies over rows."""
        return int(self.active.sum())

    @property
    def healthy(self) -> bool:
        """Whether any latent is active."""
        return self.n_active > 0

    @property
    def verdict(self) -> str:
        """The diagnosis in words."""
        d, off = len(self.active), np.flatnonzero(~self.active).tolist()
        on = f"{self.n_active} of {d} latents {'is' if self.n_active == 1 else 'are'} on"
        if self.encodings == 1:
            return "Rows that are all equal do not show which latents are on: diagnose rows that differ."
        less = "a larger capacity" if math.isnan(self.beta) else f"beta={self.beta / 4:.2g}"
        everything = f"all {d} latents are" if d > 1 else "the only latent is"
        if not self.trained:
            return f"{self._untrained} {on} so far."
        if not self.healthy:
            collapsed = f"The posterior has collapsed: {everything} off, and the model ignores the latent space."
            if math.isnan(self.beta):
                return f"{collapsed} Try {less}."
            warmup = f"a warm-up (beta='warmup:end={self.beta:g}') or " if self.beta > 0 else ""
            return f"{collapsed} The signal is below beta; try {less}, {warmup}objective='elbo:free_bits=0.1'."
        if off:
            named = ", ".join(map(str, off[:8])) + (", ..." if len(off) > 8 else "")
            names = f"latents {named} are" if len(off) > 1 else f"latent {named} is"
            below = "" if math.isnan(self.beta) else ", with a signal below beta"
            return (
                f"{on}; {names} off{below}. Nothing is wrong if the reconstructions are good enough; for more detail "
                f"try {less}."
            )
        more = "The loss was still falling at the end of training: more epochs would help. " if self.falls else ""
        other = less if math.isnan(self.beta) else "a smaller beta"
        return f"{everything.capitalize()} on. {more}For more detail, try more latents or {other}."

    @property
    def _untrained(self) -> str:
        steps = counted(int(self.steps), "step")
        if 0 < self.steps < FEWEST_STEPS:
            return f"Not trained yet: {steps}. Train longer: epochs='auto' aims at 4,000 steps."
        return (
            f"Not trained to convergence: over the last quarter of {steps} the loss still fell by {self.falls:.2g} "
            "nats per row. Train longer, with more epochs."
        )


def is_saturated(information: float, encodings: float) -> bool:
    """Whether a mutual information in nats is near its maximum for so many encodings."""
    return information > math.log(encodings) - math.log(2)


@standard_defaults()
@torch.no_grad()
def diagnose(model: VAE, rows: Rows, beta: float, history: History | None = None) -> Diagnosis:
    """Diagnose a model on rows; `beta` and the length of training are for the verdict."""
    posteriors = [model.encode(batch.x, batch.context) for batch in rows.in_order()]
    distortion, rate = distortion_and_rate(model, rows, DRAWS, apart=True)
    warn_non_finite(distortion + rate, "score", 4)
    q = posteriors[0].cat(posteriors).double()
    spread = q.mean.var(0, correction=0)
    active = (spread > ACTIVE).numpy()
    information = _mutual_information(q)
    parts = q.kl_parts(model.prior_distribution())
    per_latent = _information_per_latent(q) if parts is None else parts.mean(0)
    mean_rate = float(rate.mean())
    alike = len(rows) == 1 or (float(spread.max()) < SAME and mean_rate > ACTIVE)  # otherwise nothing is encoded
    return Diagnosis(
        float(distortion.mean()),
        mean_rate,
        standard_error(distortion + rate),
        per_latent.double().numpy(),
        active,
        information,
        math.nan if is_saturated(information, len(rows)) else max(0.0, mean_rate - information),
        beta,
        1 if alike else len(rows),
        0 if history is None else history.records[-1]["step"],
        0 if history is None else fall_at_the_end(history),
    )


def fall_at_the_end(history: History) -> float:
    """By how many nats per row the loss still fell in the last quarter of training; 0 where it did not, or is unknown.

    It is the held-out loss, else that of training, which is not comparable while beta changes.
    """
    held_out = "held_out_loss" in history.records[0]
    losses, quarter = np.array(history["held_out_loss" if held_out else "loss"]), len(history) // 4
    if quarter < 2 or (not held_out and len(set(history["beta"][-2 * quarter :])) > 1):
        return 0.0
    fell = losses[-2 * quarter : -quarter].mean() - losses[-quarter:].mean()
    least, share = FALLS
    return float(fell) if fell > max(least, share * (losses[0] - losses[-quarter:].mean())) else 0.0


def _probe(q: Posterior) -> tuple[Posterior, Tensor]:
    """Evenly spaced posteriors of a batch, and one draw from each."""
    n = len(q.mean)
    at = evenly(n, PROBES)
    some = q.at(at)
    noise = torch.randn(some.mean.shape, generator=generator_at(0, "diagnose"), dtype=torch.float64)
    return some, some.rsample(noise)


def _mutual_information(q: Posterior) -> float:
    """E[log q(z|x) - log mean_i q(z|x_i)], the mean over all rows i; between 0 and log(rows) up to noise."""
    some, z = _probe(q)
    aggregate = torch.cat([q.log_prob_pairs(part).logsumexp(-1) for part in z.split(64)]) - math.log(len(q.mean))
    return max(0.0, float((some.log_prob(z) - aggregate).mean()))


def _information_per_latent(q: Posterior) -> Tensor:
    """The same for each latent separately, (d,)."""
    log_std = 0.5 * q.variance.log()
    found = []
    for j in range(q.mean.shape[-1]):
        alone = DiagonalGaussian(q.mean[:, j : j + 1], log_std[:, j : j + 1])
        found.append(_mutual_information(alone))
    return torch.tensor(found, dtype=torch.float64)
