"""Conversion of other systems' KL weights to the beta of this package.

Multiplying a loss by a constant does not change its minimum. So every converter brings the loss of its system to
``-log p(x|z) + beta * KL``, in nats per row, and reads off beta. Parameters have the system's own names and defaults. A
squared error has no scale: it is read as a Gaussian with variance 1, in the units of that system's input. "Sum" and
"mean" are over the features of one row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from numbers import Real
from types import MappingProxyType
from typing import Any

from elbowroom.beta.policies import LARGEST, Constant
from elbowroom.errors import ParameterError, unknown


def pythae(beta: float = 1.0) -> float:
    """Half the summed squared error (or the summed cross-entropy) + beta * KL.

    Source: `BetaVAE.loss_function` of pythae 0.1.2.
    """
    return beta


def pythae_before(beta: float = 1.0, *, loss: str = "mse") -> float:
    """The summed squared error, not halved (or the summed cross-entropy), + beta * KL.

    Source: `BetaVAE.loss_function` of pythae 0.0.1 to 0.1.1 (2022-06 to 2023-02).
    """
    return beta / 2 if loss == "mse" else beta


def pytorch_vae(kld_weight: float = 0.00025, *, features: int) -> float:
    """The mean squared error + kld_weight * KL.

    Its validation always uses the weight 1, whatever that of training, and its checkpoints are chosen by validation.
    For its BetaVAE of type H the number is beta * kld_weight.

    Source: `experiment.py`, `run.py` and `models/vanilla_vae.py` of AntixK/PyTorch-VAE.
    """
    return features * kld_weight / 2


def autoencoders(kl_weight: float = 1.0, *, features: int) -> float:
    """The mean squared error + kl_weight * KL.

    By default its KL has 0.02 nats of free bits per latent: here `objective="elbo:free_bits=0.02"`.

    Source: `BaseVariationalAutoencoderModel` of autoencoders 0.6.8, with its default `reconstruction_loss="mse"`.
    """
    return features * kl_weight / 2


def encdr(beta: float = 1.0) -> float:
    """The summed squared error, not halved, + beta * KL.

    Source: `VariationalAutoEncoder.vae_loss` of encdr 1.2.0.
    """
    return beta / 2


def tvae(loss_factor: float = 2.0) -> float:
    """loss_factor * -log p, with a learned standard deviation for every real column, + KL.

    Source: `_loss_function` of the TVAE of ctgan 0.12.1.
    """
    if loss_factor == 0:
        raise ParameterError("loss_factor must be above 0", "it is 0", "At 0 the data would not matter to TVAE at all.")
    return 1 / loss_factor


def disent(beta: float = 0.003, *, features: int, latents: int, loss: str = "mse") -> float:
    """The mean squared error (or the mean cross-entropy) + beta * the mean over latents of the KL.

    This is for its default `loss_reduction="mean"`. With `"mean_sum"` its loss is that of "encdr".

    Source: `BetaVae`, `loss_reduction` and the default reconstruction losses of disent 0.9.3.
    """
    return beta * features / latents / (2 if loss == "mse" else 1)


def scvi_tools(
    max_kl_weight: float = 1.0, *, cells: int | None = None, epochs: int | None = None, warmup: int = 400
) -> float:
    """-log p + weight * KL; the weight grows by max_kl_weight / warmup per epoch, and large data get few epochs.

    The beta is that of the last epoch. Its number follows from the number of cells, unless `epochs` says how many
    there were. Up to 20,000 cells there are 400, and the weight ends at 0.9975; above 5.33 million there is 1, with 0.

    Source: `get_max_epochs_heuristic` and `_compute_kl_weight` of scvi-tools 1.4.2; scverse/scvi-tools#1569.
    """
    if cells is not None and epochs is None:
        epochs = max(1, min(400, round(20_000 / cells * 400)))
    elif cells is not None or epochs is None:
        raise ParameterError(
            "beta_from('scvi-tools', ...) needs either cells or epochs",
            f"cells={cells!r} and epochs={epochs!r} were given",
            "Give epochs where max_epochs was set or the run stopped early, else cells.",
        )
    return max_kl_weight * min(1.0, (epochs - 1) / warmup) if warmup else max_kl_weight


def recbole(anneal_cap: float = 0.2, *, updates: int, steps: int = 200_000) -> float:
    """-log p of the multinomial + min(anneal_cap, updates / steps) * KL.

    The beta is that of the last update. An epoch makes ceil(users / train_batch_size) of them. Its noise in z has 0.01
    of the posterior's standard deviation, so the KL there is not the rate of what is decoded.

    Source: `MultiVAE` of recbole 1.2.1; `steps` is its total_anneal_steps, 0 is without annealing.
    """
    return min(anneal_cap, updates / steps) if steps else anneal_cap


def beta_from(system: str, value: float | None = None, **facts: Any) -> float:
    """The canonical beta of a number that was set in another VAE system.

    Parameters
    ----------
    system : str
        A name in `SYSTEMS`.
    value : float, optional
        The number as it was set there. Without it, the system's own default.
    **facts : int or str
        Further inputs of the system's formula, all whole numbers except `loss`: `features`, the numbers in one row;
        `latents`, the latent dimensions; `cells` or `epochs`, and `warmup`; `updates` and `steps`; `loss`, "mse" or
        "bce". A fact that the formula does not need is refused.

    Examples
    --------
    >>> beta_from("pytorch-vae", 0.00025, features=64 * 64 * 3)
    1.536
    >>> beta_from("scvi-tools", cells=100_000)
    0.1975
    >>> beta_from("pytorch-vae", 0.00025)
    Traceback (most recent call last):
    elbowroom.errors.ParameterError: beta_from('pytorch-vae', ...) needs features, but it was not given.
    Add features=..., the numbers in one row (64 * 64 * 3 for such an image).
    """
    name = system.lower() if isinstance(system, str) else system
    if not isinstance(name, str) or name not in SYSTEMS:
        raise unknown("the system of beta_from", name, SYSTEMS)
    number, *known = inspect.signature(SYSTEMS[name]).parameters.values()
    _check_names(name, {fact.name: fact for fact in known}, facts)
    value = number.default if value is None else _number(number.name, value, 0)
    beta = SYSTEMS[name](value, **{fact: _fact(fact, given) for fact, given in facts.items()})
    return Constant(beta).at(1.0)


def _check_names(name: str, known: Mapping[str, Parameter], facts: Mapping[str, Any]) -> None:
    """Refuse facts that the formula does not use, and require those that it needs."""
    for fact in facts:
        if not known:
            got = f"{fact}={facts[fact]!r} was given"
            raise ParameterError(f"beta_from({name!r}, ...) needs no facts", got, "Leave it out.")
        if fact not in known:
            raise unknown(f"a fact of beta_from({name!r}, ...)", fact, known)
    for fact, parameter in known.items():
        if parameter.default is Parameter.empty and fact not in facts:
            expected = f"beta_from({name!r}, ...) needs {fact}"
            raise ParameterError(expected, "it was not given", f"Add {fact}=..., {FACTS[fact][1]}.")


def _fact(name: str, given: Any) -> Any:
    if name == "loss":
        if not isinstance(given, str) or given not in LOSSES:
            raise unknown("loss", given, LOSSES)
        return given
    least, meaning = FACTS[name]
    number = _number(name, given, least)
    if number != int(number):
        raise ParameterError(f"{name} must be a whole number", f"it is {given!r}", f"Give {meaning}.")
    return int(number)


def _number(name: str, given: Any, least: float) -> float:
    number = isinstance(given, Real) and not isinstance(given, bool)
    if not number or not least <= given <= LARGEST:
        meaning = FACTS[name][1] if name in FACTS else "the number as it was set there"
        expected = f"{name} must be a number from {least:g} to {LARGEST:g}"
        raise ParameterError(expected, f"it is {given!r}", f"Give {meaning}.")
    return float(given)


LOSSES = ("mse", "bce")

# The least value of each fact, and its meaning.
FACTS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "features": (1, "the numbers in one row (64 * 64 * 3 for such an image)"),
        "latents": (1, "the latent dimensions"),
        "cells": (1, "the cells in the data"),
        "epochs": (1, "the epochs of training"),
        "warmup": (0, "the n_epochs_kl_warmup, or 0 for none"),
        "updates": (1, "the updates of training: epochs * ceil(users / train_batch_size)"),
        "steps": (0, "the total_anneal_steps, or 0 for none"),
    }
)

SYSTEMS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        "pythae": pythae,
        "pythae-before-0.1.2": pythae_before,
        "pytorch-vae": pytorch_vae,
        "autoencoders": autoencoders,
        "encdr": encdr,
        "tvae": tvae,
        "disent": disent,
        "scvi-tools": scvi_tools,
        "recbole": recbole,
    }
)
