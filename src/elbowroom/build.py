"""From choices to a model: the likelihood that was asked for or fits the data, and the parts around it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from elbowroom import specs
from elbowroom.data.choose import Choice, Facts, look
from elbowroom.data.rows import Rows
from elbowroom.errors import ParameterError, unknown
from elbowroom.latents import LATENTS, PRIORS, VampPrior
from elbowroom.likelihoods import LIKELIHOODS, Likelihood, Mixed
from elbowroom.randomness import generator_at, seed_of
from elbowroom.vae import VAE

ENOUGH = 20_000  # rows that units and marginals are learned from
Wanted = str | Mapping[str, Sequence[Any]] | nn.Module


def choose_likelihood(
    wanted: Wanted, rows: Rows, choose: Callable[[Facts], Choice], columns: Sequence[str] | None = None
) -> tuple[nn.Module, str | dict[str, list[int]], str]:
    """The likelihood for rows: a new module, its complete text form, and why it was chosen.

    Raises
    ------
    DataError
        If the data does not fit the likelihood that was asked for.
    """
    why = "as asked for"
    if isinstance(wanted, str) and wanted == "auto":
        wanted, why = choose(look(rows))
    if isinstance(wanted, nn.Module):
        return copy.deepcopy(wanted), type(wanted).__name__, why
    if isinstance(wanted, Mapping):
        groups = {text: [column_index(c, rows.features, columns) for c in group] for text, group in wanted.items()}
        made = {text: _make(text, rows, group) for text, group in groups.items()}
        likelihood: Likelihood = Mixed([part for part, _ in made.values()], list(groups.values()))
        complete: str | dict[str, list[int]] = {made[text][1]: group for text, group in groups.items()}
    else:
        likelihood, complete = _make(wanted, rows, None)
    for i, start in enumerate(range(0, len(rows), 4096)):
        likelihood.check(rows.dense(torch.arange(start, min(start + 4096, len(rows)))), columns, 4096 * i)
    return likelihood, complete, why


def _make(text: str, rows: Rows, columns: list[int] | None) -> tuple[Likelihood, str]:
    family = {name: kind for name, kind in LIKELIHOODS.items() if kind is not Mixed}
    name, options = specs.parse(text, family, "likelihood")
    x = rows.spread(ENOUGH)
    x = x if columns is None else x[:, columns]
    options = family[name].learn_options(x, options)
    complete = specs.text_form(name, options)
    return specs.make(complete, family, "likelihood", x.shape[1]), complete


def column_index(column: Any, features: int, names: Sequence[str] | None) -> int:
    """The position of a column that is given by name or by position."""
    if isinstance(column, str):
        if names is None or column not in names:
            raise unknown("a column of likelihood={...}", column, names if names is not None else ["(no names)"])
        return list(names).index(column)
    if not 0 <= int(column) < features:
        raise ParameterError(
            f"a column of likelihood={{...}} must be from 0 to {features - 1}",
            f"it is {column!r}",
            "Correct the column.",
        )
    return int(column)


def build(
    likelihood: nn.Module,
    bodies: Callable[[int, int], tuple[nn.Module, nn.Module]],
    n_latents: int,
    covariance: str,
    prior: str,
    rows: Rows,
    seed: int,
) -> VAE:
    """A model for rows, its weights drawn from `seed`; `bodies` makes encoder and decoder from their widths."""
    if covariance not in LATENTS:
        raise unknown("covariance", covariance, LATENTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        encoder, decoder = bodies(likelihood.n_inputs, likelihood.n_outputs)  # type: ignore[arg-type]
        latent = LATENTS[covariance](encoder.width, n_latents)  # type: ignore[arg-type]
        name, _ = specs.parse(prior, PRIORS, "prior")
        sizes = (n_latents, likelihood.n_inputs) if PRIORS[name] is VampPrior else (n_latents,)
        model = VAE(encoder, latent, specs.make(prior, PRIORS, "prior", *sizes), decoder, likelihood)
    model.initialise(rows.spread(ENOUGH), generator_at(seed, "initialise"))
    return model
