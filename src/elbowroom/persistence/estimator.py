"""A fitted estimator as data: to an artefact and back."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elbowroom.beta.policies import Beta, LogUniform, beta_of
from elbowroom.data.interactions.matrix import Interactions
from elbowroom.data.tables.kinds import Kind, kind_form
from elbowroom.data.tables.schema import Schema
from elbowroom.errors import ArtefactError
from elbowroom.likelihoods.auto import table_likelihood
from elbowroom.nn.layers import check_widths
from elbowroom.objectives.bounds import Elbo, Iwae, objective_of
from elbowroom.persistence import artefact
from elbowroom.persistence.artefact import Artefact
from elbowroom.persistence.card import card
from elbowroom.tasks.diagnose import Diagnosis
from elbowroom.training.history import History
from elbowroom.utils.files import parse_json
from elbowroom.utils.settings import standard_defaults


def artefact_of(estimator: Any) -> Artefact:
    """All that a fitted estimator is, as data, from which `restore` can make it again.

    Raises
    ------
    ArtefactError
        If a part of it is code of the caller's own, or if it could not be loaded again.
    """
    _check_as_fitted(estimator)
    config = {
        "estimator": type(estimator).__name__,
        "parameters": plain_parameters(estimator),
        "fitted": {name: _plain(getattr(estimator, name)) for name in FITTED if hasattr(estimator, name)},
        "diagnosis": {name: _plain(value) for name, value in asdict(estimator.diagnosis_).items()},
        "verdict": estimator.diagnosis_.verdict,
        "model": artefact.config_of(estimator.model_),
    }
    data = estimator.known_.tensors() if hasattr(estimator, "known_") else {}
    try:
        config, history = (parse_json(artefact.dump(part)) for part in (config, asdict(estimator.history_)))
        weights = _weights(estimator.model_, config["model"])
        saved = Artefact(config, history, weights, card(estimator), data)
        _opened({type(estimator).__name__: type(estimator)}, saved, estimator.model_)
    except Exception as error:
        raise ArtefactError(
            "a saved model must be one that can be loaded again",
            f"this one could not ({' '.join(str(error).split())[:200]})",
            "Undo what was changed after fit, or fit again.",
        ) from error
    return saved


def _check_as_fitted(estimator: Any) -> None:
    """Refuse an estimator whose class is the caller's own, or whose parameters are not those of its model any more."""
    kind = type(estimator)
    if not kind.__module__.startswith("elbowroom."):
        raise ArtefactError(
            "a model is saved if all its parts are Elbowroom's",
            f"its class, {kind.__module__}.{kind.__qualname__}, is your own",
            "Keep the estimator with pickle or joblib, whose files must be trusted like programs.",
        )
    now = {"n_latents": estimator.n_latents, "beta": str(beta_of(estimator.beta))}
    fitted = {"n_latents": estimator.model_.n_latents, "beta": str(estimator.beta_)}
    for name, value in now.items():
        if value != fitted[name]:
            raise ArtefactError(
                "a saved model has the parameters that it was fitted with",
                f"{name} is {value}, but it was fitted with {fitted[name]}",
                "Fit again, or set it back.",
            )


def _weights(model: Any, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a model in the dtypes in which they are loaded; a device may have kept them in others.

    Raises
    ------
    ValueError
        If digits would be lost.
    """
    weights = artefact.weights_of(model)
    expected = artefact.outline_of(config, weights)
    found = {name: tensor.detach().to("cpu", expected[name].dtype) for name, tensor in weights.items()}
    for name, tensor in found.items():
        if not torch.equal(tensor.to(weights[name].dtype), weights[name].detach().cpu()):
            raise ValueError(f"{name!r} has the dtype {weights[name].dtype}, not {tensor.dtype}")
    return found


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


def restore(families: Mapping[str, type], path: str | os.PathLike[str]) -> Any:
    """The fitted estimator that a folder holds, of one of the classes in `families`.

    Raises
    ------
    ArtefactError
        If the folder is missing, broken, foreign or hostile. Nothing in it is run.
    """
    return opened(families, artefact.read(path), path)


def opened(families: Mapping[str, type], saved: Artefact, path: str | os.PathLike[str]) -> Any:
    """The fitted estimator of an artefact that was read from a path.

    Raises
    ------
    ArtefactError
        If it describes none.
    """
    with standard_defaults():
        model = artefact.model_from(saved, path)
        try:
            return _opened(families, saved, model)
        except Exception as error:  # whatever a forged one leads to
            why = f"it is no fitted estimator ({error})"
            raise artefact.broken(Path(path) / artefact.CONFIG, why) from error


def _opened(families: Mapping[str, type], saved: Artefact, model: Any) -> Any:
    """The estimator of an artefact, around its model."""
    estimator = _estimator(families, saved.config)
    estimator.model_ = model
    estimator.history_ = History.of(saved.history)
    estimator.diagnosis_ = _diagnosis(saved.config["diagnosis"], model.n_latents)
    estimator.beta_ = beta_of(estimator.beta)
    objective_of(estimator.objective)
    _exactly(str)(saved.config["verdict"])
    if hasattr(estimator, "reading"):
        estimator.known_ = Interactions.of_tensors(saved.data)
    elif saved.data:
        raise ValueError("it keeps data that it has no use for")
    _check_agreement(estimator)
    return estimator


def _estimator(families: Mapping[str, type], config: dict[str, Any]) -> Any:
    name = config["estimator"]
    if not isinstance(name, str) or name not in families:
        raise ValueError(f"{name!r:.60} is no estimator of Elbowroom")
    parameters = config["parameters"]
    known = set(inspect.signature(families[name]).parameters)
    if not isinstance(parameters, dict) or not set(parameters) <= known:
        raise ValueError(f"the parameters of {name} are {sorted(known)}")
    # a model of an earlier version lacks what came later, whose defaults are what there was before
    estimator = families[name](**parameters)
    estimator._check_parameters()
    for key in {"hidden", "channels"} & parameters.keys():
        check_widths(key, parameters[key])
    for key, value in config["fitted"].items():
        setattr(estimator, key, FITTED[key](value))
    lacking = [key for key in (*ALWAYS, *OF.get(name, ())) if not hasattr(estimator, key)]
    if lacking:
        raise ValueError(f"{lacking[0]} is missing")
    return estimator


def _check_agreement(estimator: Any) -> None:
    """Refuse an estimator whose parts each are whole and do not belong to each other."""
    model, names = estimator.model_, estimator._names
    labels, span = estimator.context_categories_, estimator.beta_
    context = (0 if labels is None else len(labels)) + (0 if model.conditioning is None else model.conditioning.width)
    ends = (span.low, span.high) if isinstance(span, LogUniform) else None
    same = {
        "n_latents": (estimator.n_latents, model.n_latents),
        "beta": (ends, None if model.conditioning is None else (model.conditioning.low, model.conditioning.high)),
        "the width of the encoder's context": (model.encoder.context, context),
        "the width of the decoder's context": (model.decoder.context, context),
        "the number of names": (names and len(names), names and getattr(estimator, "n_features_in_", None)),
        "the number of features": (model.likelihood.features, _width(estimator)),
    }
    for what, (one, other) in same.items():
        if one != other:
            raise ValueError(f"{what} is {one!r:.40} and {other!r:.40}")
    if getattr(estimator, "schema_", None) is not None:
        with standard_defaults(), torch.device("meta"):
            wanted = artefact.config_of(table_likelihood(estimator.schema_.cells)[0])
        if wanted != artefact.config_of(model.likelihood):
            raise ValueError("the likelihood is not that of the schema")


def _width(estimator: Any) -> int:
    """How many numbers a row of the model has, from what the estimator says of its data."""
    if hasattr(estimator, "image_shape_"):
        return math.prod(estimator.image_shape_)
    features = estimator.n_features_in_
    if getattr(estimator, "schema_", None) is not None:
        names = estimator._names or [f"x{i}" for i in range(len(estimator.schema_))]
        return len(estimator.schema_.cells) if names == list(estimator.schema_) else -1
    return features if not hasattr(estimator, "known_") or features == len(estimator.known_.items) else -1


def _parameter(name: str, value: Any) -> Any:
    if isinstance(value, Beta | Elbo | Iwae):
        return str(value)
    foreign = name in ("encoder", "decoder") and value is not None
    foreign |= name in ("prior", "objective") and not isinstance(value, str)
    if isinstance(value, nn.Module) or foreign:
        raise ArtefactError(
            "a model is saved if all its parts are Elbowroom's",
            f"{name} is of your own class {type(value).__name__}",
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
    return [_plain(item) for item in value] if isinstance(value, list | tuple | range) else value


def _diagnosis(saved: dict[str, Any], n_latents: int) -> Diagnosis:
    lists = {"rate_per_latent": (float, int), "active": (bool,)}
    read: dict[str, Any] = {
        name: np.array([_exactly(*lists[name])(item) for item in _exactly(list)(value)])
        if name in lists
        else float(_exactly(float, int)(value))
        for name, value in saved.items()
    }
    if not read["rate_per_latent"].shape == read["active"].shape == (n_latents,):
        raise ValueError(f"the diagnosis is not of {n_latents} latents")
    return Diagnosis(**read)


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"{value!r:.60} is not {' or '.join(kind.__name__ for kind in kinds)}")
        return value

    return check


def _whole(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not least <= _exactly(int)(value) < 2**63:
            raise ValueError(f"{value:.6g} is no number of at least {least}")
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
    if value is None:
        return None
    kinds = {type(_exactly(str, int, float, bool)(label)) for label in _exactly(list)(value)}
    if len(kinds) != 1 or len({*value}) < len(value):
        raise ValueError("the labels of the context are not different ones of one kind")
    return np.array(value)


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(_whole(1)(size) for size in _exactly(list)(value))
    if len(shape) not in (2, 3):
        raise ValueError(f"images can not have {len(shape)} axes")
    return shape


def _frame_kind(value: Any) -> str | None:
    if value not in (None, "pandas", "polars", "pyarrow", "modin", "cudf"):
        raise ValueError(f"{value!r:.60} is no kind of data frame")
    return value


def _range(value: Any) -> tuple[float, float]:
    low, high = (_exactly(float)(end) for end in _exactly(list)(value))
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"pixels can not go from {low} to {high}")
    return low, high


def _likelihood(value: Any) -> str | dict[str, list[Any]]:
    for columns in _exactly(str, dict)(value).values() if isinstance(value, dict) else ():
        _exactly(list)(columns)
    return value


def _schema(value: Any) -> Schema | None:
    return None if value is None else Schema.of(_exactly(dict)(value)).checked()


FITTED: dict[str, Callable[[Any], Any]] = {
    "n_features_in_": _whole(1),
    "feature_names_in_": _names,
    "var_names_": lambda value: None if value is None else _names(value),
    "frame_kind_": _frame_kind,
    "image_shape_": _shape,
    "pixel_range_": _range,
    "layout_": _one_of("channels_first", "channels_last"),
    "pixels_": _one_of("binary", "whole", "real"),
    "context_categories_": _labels,
    "schema_": _schema,
    "likelihood_": _likelihood,
    "likelihood_reason_": _exactly(str),
    "seed_": _whole(0),
    "epochs_": _whole(1),
}
# Without these a loaded estimator would fail later: those of all, and those of one class.
ALWAYS = ("frame_kind_", "context_categories_", "likelihood_", "likelihood_reason_", "seed_", "epochs_")
OF = {
    "TableVAE": ("n_features_in_", "schema_"),
    "CountVAE": ("n_features_in_", "var_names_"),
    "ImageVAE": ("image_shape_", "pixel_range_"),
    "InteractionVAE": ("n_features_in_",),
}
