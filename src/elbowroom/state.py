"""A fitted estimator as data: to an artefact and back."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import nn

from elbowroom import artefact
from elbowroom.artefact import Artefact
from elbowroom.beta import Beta, beta_of
from elbowroom.card import card
from elbowroom.columns import Kind, kind_form
from elbowroom.data.interactions import Interactions
from elbowroom.data.schema import Schema
from elbowroom.errors import ArtefactError, ElbowroomError
from elbowroom.history import History
from elbowroom.objectives import Elbo, Iwae
from elbowroom.tasks.diagnose import Diagnosis


def artefact_of(estimator: Any) -> Artefact:
    """All that a fitted estimator is, as data.

    Raises
    ------
    ArtefactError
        If a part of it is code of the caller's own.
    """
    if estimator.model_.n_latents != estimator.n_latents:
        raise ArtefactError(
            "a saved model has the parameters that it was fitted with",
            f"n_latents is {estimator.n_latents}, but it was fitted with {estimator.model_.n_latents}",
            "Fit again, or set it back.",
        )
    config = {
        "estimator": type(estimator).__name__,
        "parameters": plain_parameters(estimator),
        "fitted": {name: _plain(getattr(estimator, name)) for name in FITTED if hasattr(estimator, name)},
        "diagnosis": {name: _plain(value) for name, value in asdict(estimator.diagnosis_).items()},
        "verdict": estimator.diagnosis_.verdict,
        "model": artefact.config_of(estimator.model_),
    }
    data: dict[str, Any] = {}
    if hasattr(estimator, "known_"):
        config["interactions"], data = estimator.known_.parts()
    weights = artefact.weights_of(estimator.model_)
    return Artefact(config, asdict(estimator.history_), weights, card(estimator), data)


def plain_parameters(estimator: Any) -> dict[str, Any]:
    """The constructor's parameters as JSON knows them.

    Raises
    ------
    ArtefactError
        If one of them is code of the caller's own.
    """
    return {name: _parameter(name, value) for name, value in estimator.get_params(deep=False).items()}


def name_features(estimator: Any, names: Sequence[str] | None) -> None:
    """Keep the names of the features also where the rows were not a data frame: they are matched by name later."""
    if names is not None and estimator._names is None:
        estimator.feature_names_in_ = np.array(names, dtype=object)


def restore(families: dict[str, type], path: str | os.PathLike[str]) -> Any:
    """The fitted estimator that a folder holds, of one of the classes in `families`.

    Raises
    ------
    ArtefactError
        If the folder is missing, broken, foreign or hostile. Nothing in it is run.
    """
    saved = artefact.read(path)
    model = artefact.model_from(saved, path)
    try:
        estimator = _estimator(families, saved.config)
        estimator.model_ = model
        estimator.history_ = _history(saved.history)
        estimator.diagnosis_ = _diagnosis(saved.config["diagnosis"], model.n_latents)
        estimator.beta_ = beta_of(estimator.beta)
        if "interactions" in saved.config:
            estimator.known_ = Interactions.of_parts(saved.config["interactions"], saved.data)
        if estimator.model_.n_latents != estimator.n_latents:
            raise ValueError(f"n_latents is {estimator.n_latents}, but the model has {estimator.model_.n_latents}")
    except (ElbowroomError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtefactError(
            "a saved model must be whole",
            f"the configuration in {path} is broken: {error}",
            "Copy or save the model again.",
        ) from error
    return estimator


def _estimator(families: dict[str, type], config: dict[str, Any]) -> Any:
    name = config["estimator"]
    if not isinstance(name, str) or name not in families:
        raise ValueError(f"{name!r} is no estimator of Elbowroom")
    parameters = config["parameters"]
    known = set(inspect.signature(families[name]).parameters)
    if not isinstance(parameters, dict) or not set(parameters) <= known:
        raise ValueError(f"the parameters of {name} are {sorted(known)}")
    # a model of an earlier version lacks what came later, whose defaults are what there was before
    estimator = families[name](**parameters)
    estimator._check_parameters()
    for key, value in config["fitted"].items():
        setattr(estimator, key, FITTED[key](value))
    names, width = estimator._names, getattr(estimator, "n_features_in_", None)
    if names is not None and width is not None and len(names) != width:
        raise ValueError(f"{len(names)} features are named, of {width}")
    return estimator


def _parameter(name: str, value: Any) -> Any:
    if isinstance(value, Beta | Elbo | Iwae):
        return str(value)
    if isinstance(value, nn.Module) or (name in ("encoder", "decoder") and value is not None):
        raise ArtefactError(
            "a model is saved if all its parts are Elbowroom's",
            f"{name} is a {type(value).__name__} of your own",
            "Keep the estimator with pickle or joblib, whose files must be trusted like programs.",
        )
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None  # what it gave is kept as seed_
    return _plain(value)


def _plain(value: Any) -> Any:
    """Numbers, text, lists and mappings, as JSON knows them."""
    if isinstance(value, Schema):
        return value.form()
    if isinstance(value, Kind):
        return kind_form(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _history(saved: dict[str, Any]) -> History:
    history = History(**saved)
    if not history.records or not all(
        isinstance(v, int | float) for record in history.records for v in record.values()
    ):
        raise ValueError("the history has no records")
    if not all(isinstance(note, str) for note in [*history.notes, history.verdict]):
        raise TypeError("the notes of the history are no texts")
    return history


def _diagnosis(saved: dict[str, Any], n_latents: int) -> Diagnosis:
    read: dict[str, Any] = {name: float(value) for name, value in saved.items() if not isinstance(value, list)}
    read["rate_per_latent"] = np.array(saved["rate_per_latent"], float)
    read["active"] = np.array(saved["active"], bool)
    if not read["rate_per_latent"].shape == read["active"].shape == (n_latents,):
        raise ValueError(f"the diagnosis is not of {n_latents} latents")
    return Diagnosis(**read)


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"{value!r} is not {' or '.join(kind.__name__ for kind in kinds)}")
        return value

    return check


def _one_of(*known: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in known:
            raise ValueError(f"{value!r} is not {' or '.join(known)}")
        return value

    return check


def _names(value: Any) -> np.ndarray:
    return np.array([_exactly(str)(name) for name in _exactly(list)(value)], dtype=object)


def _labels(value: Any) -> np.ndarray | None:
    label = _exactly(str, int, float, bool)
    return None if value is None else np.array([label(one) for one in _exactly(list)(value)])


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(_exactly(int)(size) for size in _exactly(list)(value))


def _frame_kind(value: Any) -> str | None:
    if value not in (None, "pandas", "polars", "pyarrow", "modin", "cudf"):
        raise ValueError(f"{value!r} is no kind of data frame")
    return value


def _range(value: Any) -> tuple[float, float]:
    low, high = (_exactly(float)(end) for end in _exactly(list)(value))
    if not low < high:
        raise ValueError(f"pixels can not go from {low} to {high}")
    return low, high


FITTED: dict[str, Callable[[Any], Any]] = {
    "n_features_in_": _exactly(int),
    "feature_names_in_": _names,
    "var_names_": lambda value: None if value is None else _names(value),
    "frame_kind_": _frame_kind,
    "image_shape_": _shape,
    "pixel_range_": _range,
    "layout_": _one_of("channels_first", "channels_last"),
    "pixels_": _one_of("binary", "whole", "real"),
    "context_categories_": _labels,
    "schema_": lambda value: None if value is None else Schema.of(value),
    "likelihood_": _exactly(str, dict),
    "likelihood_reason_": _exactly(str),
    "seed_": _exactly(int),
    "epochs_": _exactly(int),
}
