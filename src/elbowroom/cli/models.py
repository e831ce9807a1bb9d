"""Saved models as the commands open them, beside the data that they are used on."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import elbowroom
from elbowroom.cli.runs import check_model, rows_for
from elbowroom.data.readers import Data, read, split_key
from elbowroom.errors import ParameterError
from elbowroom.sweep_folder import is_sweep
from elbowroom.sweeps import Sweep

if TYPE_CHECKING:
    from elbowroom.base import BaseVAE


def trained(path: str) -> BaseVAE | Sweep:
    """What training left in a folder: a model, or a sweep of models."""
    if is_sweep(path):
        return Sweep.load(path)
    check_model(path)
    return elbowroom.load(path)


def data_for(model: BaseVAE | Sweep, file: str) -> tuple[Data, Any]:
    """A file, and its rows as a model wants them."""
    estimator = model.first if isinstance(model, Sweep) else model
    if not isinstance(estimator, elbowroom.InteractionVAE):
        data = read(file, features=names_of(estimator))
        return data, rows_for(type(estimator).__name__, data)
    data = read(file, interactions=True)
    users = users_of(estimator, data)
    return replace(data, rows=None if users is None else users.astype(str)), data.x


def users_of(estimator: elbowroom.InteractionVAE, data: Data) -> np.ndarray | None:
    """The users of a file of interactions, in the order of the rows that a model makes of it; a matrix has no ids."""
    return np.unique(estimator.reading.columns(data.x)[0]) if data.interactions else None


def names_of(estimator: BaseVAE) -> list[str] | None:
    """Names of the features, where they have any."""
    return None if estimator._names is None else [str(name) for name in estimator._names]


def check_not_input(out: str | None, file: str) -> None:
    """Refuse to write over what is read."""
    if out is not None and os.path.exists(out) and os.path.realpath(out) == os.path.realpath(split_key(file)[0]):
        raise ParameterError("the output must be another file", f"{out} is the input", "Choose another name.")
