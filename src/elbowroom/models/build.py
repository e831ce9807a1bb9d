"""Building a model from its parts, and initialising it from data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from elbowroom.beta.conditioning import BetaConditioning
from elbowroom.beta.policies import LogUniform
from elbowroom.data.dataset import Rows
from elbowroom.errors import ParameterError, unknown
from elbowroom.latents.posteriors import LATENTS
from elbowroom.latents.priors import build_prior
from elbowroom.likelihoods.base import Likelihood
from elbowroom.models.vae import VAE
from elbowroom.nn.custom import first_line
from elbowroom.utils.randomness import drawing_from, generator_at
from elbowroom.utils.settings import standard_defaults

ENOUGH = 20_000  # rows that units and marginals are learned from
MANY = 2**24  # values that these rows may have in total


@standard_defaults()
def build(
    likelihood: nn.Module,
    bodies: Callable[[int, int, int, int], tuple[nn.Module, nn.Module]],
    n_latents: int,
    covariance: str,
    prior: Any,
    rows: Rows,
    seed: int,
    span: LogUniform | None = None,
) -> VAE:
    """A model for rows, its weights drawn from `seed`, with beta conditioning if a range of beta is given.

    `bodies` builds encoder and decoder from the widths of inputs, outputs and context, and of the code of beta in it.
    """
    if covariance not in LATENTS:
        raise unknown("covariance", covariance, LATENTS)
    with drawing_from(generator_at(seed, "weights")):
        labels = 0 if rows.context is None else rows.context.shape[1]
        if labels and isinstance(likelihood, Likelihood):
            likelihood.expect_contexts(labels)
        shifts = getattr(likelihood, "n_shifts", 0)
        conditioning = None if span is None else BetaConditioning(span.low, span.high, n_latents, shifts)
        code = 0 if conditioning is None else BetaConditioning.width
        encoder, decoder = bodies(likelihood.n_inputs, likelihood.n_outputs, code + labels, code)  # type: ignore[arg-type]
        latent = LATENTS[covariance](encoder.width, n_latents)  # type: ignore[arg-type]
        made = build_prior(prior, n_latents, likelihood.n_inputs, code)  # type: ignore[arg-type]
        model = VAE(encoder, latent, made, decoder, likelihood, conditioning)  # type: ignore[arg-type]
    if not isinstance(prior, str):
        _check_prior(model)
    model.initialise(rows.spread(enough(rows.features)), generator_at(seed, "initialise"))
    if labels and isinstance(likelihood, Likelihood):
        _fit_context_totals(likelihood, rows)
    return model


@torch.no_grad()
def _check_prior(model: VAE) -> None:
    """Evaluate a user-supplied prior at two draws, and refuse it if it fails or has other shapes."""
    d, do = model.n_latents, "See docs/howto/priors-and-objectives.md."
    expected = f"a prior must give log_prob (n,) of z (n, {d}), and sample(n, generator) z (n, {d})"
    try:
        p = model.prior_distribution()
        shapes = tuple(p.log_prob(torch.zeros(2, d)).shape), tuple(p.sample(2, generator_at(0, "prior")).shape)
    except Exception as error:
        raise ParameterError(expected, f"it fails: {first_line(error)}", do) from error
    if shapes != ((2,), (2, d)):
        raise ParameterError(expected, f"for n = 2 the shapes are {shapes[0]} and {shapes[1]}", do)


def _fit_context_totals(likelihood: Likelihood, rows: Rows) -> None:
    batches = [(likelihood.row_total(batch.x), batch.context) for batch in rows.in_order(rows.at_once)]
    totals, contexts = zip(*batches, strict=True)
    if totals[0] is not None:
        likelihood.fit_context_totals(torch.cat(totals), torch.cat(contexts))


def enough(features: int) -> int:
    """How many rows units and marginals are learned from: fewer where rows are wide, to limit memory."""
    return min(ENOUGH, max(ENOUGH // 10, MANY // features))
