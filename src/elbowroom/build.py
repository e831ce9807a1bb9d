"""From choices to a model: the likelihood that was asked for or fits the data, the parts around it, epochs and rows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from elbowroom import specs
from elbowroom.beta import LogUniform
from elbowroom.data.choose import Choice, Facts, look
from elbowroom.data.rows import Rows
from elbowroom.devices import standard_defaults
from elbowroom.dial import Dial
from elbowroom.errors import ParameterError, unknown
from elbowroom.guests import guest_likelihood
from elbowroom.latents import LATENTS, PRIORS, FittedPrior, StandardPrior, VampPrior
from elbowroom.likelihood_tables import Ordinal
from elbowroom.likelihoods import LIKELIHOODS, Likelihood, Mixed, Table
from elbowroom.randomness import drawing_from, generator_at
from elbowroom.vae import VAE

ENOUGH = 20_000  # rows that units and marginals are learned from
MANY = 2**24  # values that these rows may have together
DIAGNOSED, VALUES = 10_000, 2**26  # rows, and values of them all, that a trained model is diagnosed on
FEWEST = 20  # rows, below which none are held out
STEPS = 4000  # what epochs="auto" aims at, within MIN_EPOCHS and MAX_EPOCHS
MIN_EPOCHS, MAX_EPOCHS = 10, 400
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
    likelihood: nn.Module
    complete: str | dict[str, list[int]]
    why = "as asked for"
    if isinstance(wanted, str) and wanted == "auto":
        wanted, why = choose(look(rows))
    if isinstance(wanted, nn.Module):
        likelihood, complete = guest_likelihood(wanted, rows.features), type(wanted).__name__
    elif isinstance(wanted, Mapping):
        likelihood, complete = _mixed(wanted, rows, columns)
    else:
        likelihood, complete = _make(wanted, rows, None)
    check_rows(likelihood, rows, columns)
    return likelihood, complete, why


def _mixed(
    wanted: Mapping[str, Sequence[Any]], rows: Rows, columns: Sequence[str] | None
) -> tuple[Likelihood, dict[str, list[int]]]:
    """A likelihood for groups of columns, and the complete text forms of their likelihoods."""
    groups = {text: column_indices(text, group, rows.features, columns) for text, group in wanted.items()}
    named = Counter(c for group in groups.values() for c in group)
    for column in range(rows.features):
        if named[column] != 1:
            name = column if columns is None else columns[column]
            raise ParameterError(
                "likelihood={...} must name every column once",
                f"column {name!r} is in {named[column] or 'none'} of the groups",
                "Put it into one of them.",
            )
    parts, complete = [], defaultdict[str, list[int]](list)
    for text, group in groups.items():
        part, form = _make(text, rows, group)
        parts.append(part)
        complete[form] += group
    return Mixed(parts, list(groups.values())), dict(complete)


def table_likelihood(cells: Mapping[str, str]) -> tuple[Table, dict[str, list[str]]]:
    """The likelihood of a table's cells, from the text form of each, and the names of the cells by text form.

    Whole numbers over ranges of different lengths share one part: a step costs by the part, not by the column.
    """
    forms, groups = defaultdict[str, list[str]](list), defaultdict[tuple[str, ...], list[int]](list)
    for place, (name, text) in enumerate(cells.items()):
        forms[text].append(name)
        kind, _, options = text.partition(":")
        groups[(kind,) if kind == "ordinal" and "open" in options else (kind, options)].append(place)
    texts, parts = list(cells.values()), []
    for key, places in groups.items():
        if len(key) > 1:
            parts.append(specs.make(texts[places[0]], LIKELIHOODS, "likelihood", len(places)))
        else:
            each = [specs.parse(texts[place], LIKELIHOODS, "likelihood")[1] for place in places]
            levels, floors = ([options.get(name) for options in each] for name in ("levels", "floor"))
            parts.append(Ordinal(len(places), levels, open=True, floor=floors))  # type: ignore[arg-type]
    return Table(parts, list(groups.values())), dict(forms)


@standard_defaults()
def check_rows(likelihood: nn.Module, rows: Rows, columns: Sequence[str] | None) -> None:
    """Raise `DataError` with the first cell of the rows that does not fit the likelihood."""
    if not hasattr(likelihood, "check"):
        return
    size = rows.at_once
    for i, batch in enumerate(rows.in_order(size)):
        likelihood.check(batch.x, columns, size * i)  # type: ignore[operator]


def _make(text: str, rows: Rows, columns: list[int] | None) -> tuple[Likelihood, str]:
    family = {name: kind for name, kind in LIKELIHOODS.items() if not issubclass(kind, Mixed)}
    name, options = specs.parse(text, family, "likelihood")
    batches = (batch.x if columns is None else batch.x[:, columns] for batch in rows.in_order(rows.at_once))
    options = family[name].learn_options(batches, options)
    complete = specs.text_form(name, options)
    return specs.make(complete, family, "likelihood", rows.features if columns is None else len(columns)), complete


def column_indices(text: str, group: Any, features: int, names: Sequence[str] | None) -> list[int]:
    """The positions of a group of columns that are given by name or by position."""
    if not isinstance(text, str):
        do = "Write {'gaussian': [0, 1, ...]} with positions or names."
        raise ParameterError("likelihood={...} maps each likelihood to a list of columns", f"{text!r} is no name", do)
    if isinstance(group, str) or not isinstance(group, Iterable) or not (columns := list(group)):
        raise ParameterError(
            "likelihood={...} maps each likelihood to a list of columns",
            f"{text!r} has {group!r}",
            f"Write {{{text!r}: [0, 1, ...]}} with positions or names.",
        )
    return [column_index(column, features, names) for column in columns]


def column_index(column: Any, features: int, names: Sequence[str] | None) -> int:
    """The position of a column that is given by name or by position."""
    if isinstance(column, str):
        if names is None:
            raise ParameterError(
                "likelihood={...} names columns as X does",
                f"the columns of X have no names, so that {column!r} is none",
                "Give positions, or pass a data frame.",
            )
        if column not in names:
            raise unknown("a column of likelihood={...}", column, names)
        return list(names).index(column)
    if not isinstance(column, int | np.integer) or isinstance(column, bool) or not 0 <= column < features:
        raise ParameterError(
            f"a column of likelihood={{...}} must be from 0 to {features - 1}",
            f"it is {column!r}",
            "Give positions that X has.",
        )
    return int(column)


@standard_defaults()
def build(
    likelihood: nn.Module,
    bodies: Callable[[int, int, int, int], tuple[nn.Module, nn.Module]],
    n_latents: int,
    covariance: str,
    prior: str,
    rows: Rows,
    seed: int,
    span: LogUniform | None = None,
) -> VAE:
    """A model for rows, its weights drawn from `seed`, with a dial for a span of beta if one is given.

    `bodies` makes encoder and decoder from their inputs and outputs, their context and how much of it says beta.
    """
    if covariance not in LATENTS:
        raise unknown("covariance", covariance, LATENTS)
    with drawing_from(generator_at(seed, "weights")):
        labels = 0 if rows.context is None else rows.context.shape[1]
        if labels and isinstance(likelihood, Likelihood):
            likelihood.expect_contexts(labels)
        moved = getattr(likelihood, "n_moved", 0)
        dial = None if span is None else Dial(span.low, span.high, n_latents, moved)
        code = 0 if dial is None else Dial.width
        encoder, decoder = bodies(likelihood.n_inputs, likelihood.n_outputs, code + labels, code)  # type: ignore[arg-type]
        latent = LATENTS[covariance](encoder.width, n_latents)  # type: ignore[arg-type]
        name, _ = specs.parse(prior, PRIORS, "prior")
        sizes = (n_latents, likelihood.n_inputs) if PRIORS[name] is VampPrior else (n_latents,)
        told = () if issubclass(PRIORS[name], StandardPrior | FittedPrior) else (code,)
        model = VAE(encoder, latent, specs.make(prior, PRIORS, "prior", *sizes, *told), decoder, likelihood, dial)
    model.initialise(rows.spread(enough(rows.features)), generator_at(seed, "initialise"))
    if labels and isinstance(likelihood, Likelihood):
        _fit_context_totals(likelihood, rows)
    return model


def _fit_context_totals(likelihood: Likelihood, rows: Rows) -> None:
    batches = [(likelihood.row_total(batch.x), batch.context) for batch in rows.in_order(rows.at_once)]
    totals, contexts = zip(*batches, strict=True)
    if totals[0] is not None:
        likelihood.fit_context_totals(torch.cat(totals), torch.cat(contexts))


def enough(features: int) -> int:
    """How many rows units and marginals are learned from: fewer where rows are so wide that they would fill memory."""
    return min(ENOUGH, max(ENOUGH // 10, MANY // features))


def looked_at(features: int) -> int:
    """How many training rows a diagnosis looks at: of a million items each, a few tell as much as there is time for."""
    return min(DIAGNOSED, max(DIAGNOSED // 20, VALUES // features))


def split(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows | None]:
    """Training rows, and held-out rows where there are enough to have any."""
    held = int(len(rows) * fraction)
    if held < 1 or len(rows) < FEWEST:
        return rows, None
    order = torch.randperm(len(rows), generator=generator_at(seed, "split"))
    return rows.take(order[held:].sort().values), rows.take(order[:held].sort().values)


def epochs_for(rows: int, batch_size: int) -> int:
    """What epochs="auto" means for so many rows."""
    return min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(STEPS / math.ceil(rows / batch_size))))
