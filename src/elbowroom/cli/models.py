"""Saved models as the commands open them, beside the data that they are used on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

import elbowroom
from elbowroom.cli.runs import check_model, rows_for
from elbowroom.data.interactions.ids import as_texts, is_text
from elbowroom.data.interactions.matrix import Vocabulary
from elbowroom.data.io.readers import Data, read, split_key
from elbowroom.data.words import CANONICAL, objects_of, whole_numbers
from elbowroom.errors import ArtefactError, DataError, ParameterError
from elbowroom.estimators.sweep import Sweep
from elbowroom.estimators.sweep_folder import is_sweep
from elbowroom.tasks.recommend.lists import report_unknown

if TYPE_CHECKING:
    from elbowroom.estimators.base import BaseVAE


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
        data = read(file, features=names_of(estimator), texts=texts_of(getattr(estimator, "schema_", None) or {}))
        check_context(estimator, data)
        return data, rows_for(type(estimator).__name__, data)
    data = _with_known_ids(estimator, read(file, interactions=True, reading=estimator.reading))
    users = users_of(estimator, data)
    return replace(data, rows=None if users is None else as_texts(users)), data.x


def texts_of(schema: Mapping[str, Any]) -> list[str]:
    """The columns of a schema whose categories are text: they are that in every file, whatever its words look like."""
    categories = {name: getattr(kind, "categories", None) or () for name, kind in schema.items()}
    return [name for name, known in categories.items() if any(isinstance(one, str) for one in known)]


def _with_known_ids(estimator: elbowroom.InteractionVAE, data: Data) -> Data:
    """A file of interactions whose ids are numbers or texts as those are that the model knows.

    A text file does not say which they are, and a part of one may have nothing but numbers.
    """
    if not data.interactions:
        return data
    frame = nw.from_native(data.x, eager_only=True)
    roles = estimator.reading.roles(data.x)
    for name, known in ((roles.user, estimator.users_), (roles.item, estimator.items_)):
        if frame[name].dtype.is_integer() and is_text(known):
            frame = frame.with_columns(frame[name].cast(nw.String))
    if frame[roles.item].dtype == nw.String and not is_text(estimator.items_):
        frame = _with_numbers(frame, roles.item, estimator.unknown_items == "refuse")
    return replace(data, x=frame.to_native())


def _with_numbers(frame: Any, item: str, refuse: bool) -> Any:
    """A frame of interactions without the rows whose items can not be known to a model of numbers; they are said."""
    words = frame[item].to_list()
    numbers = [CANONICAL.fullmatch(str(word)) is not None for word in words]
    ids = whole_numbers([objects_of(int(word) for word, number in zip(words, numbers, strict=True) if number)])
    if ids is None or not len(ids):
        return frame
    report_unknown(np.unique([word for word, number in zip(words, numbers, strict=True) if not number]), refuse)
    column = nw.new_series(item, ids, backend=frame.implementation)
    return frame.filter(numbers).drop(item).with_columns(column).select(frame.columns)


def check_context(estimator: BaseVAE, data: Data) -> None:
    """Refuse a file without the labels that a model was fitted with: only an .h5ad has them."""
    key = getattr(estimator, "batch_key", None)
    if estimator.context_categories_ is None or (key is not None and hasattr(data.x, "obs")):
        return
    if key is None:
        do = "Use Python: elbowroom.load(MODEL).score(X, context=labels)."
        raise DataError("rows must come with their labels", "the model was fitted with context in Python", do)
    got = f"{data.source} has no columns of labels"
    do = f"Name an .h5ad file with the column {key!r} in .obs."
    raise DataError(f"rows must come with their labels, as the model was fitted with --batch-key {key}", got, do)


def users_of(estimator: elbowroom.InteractionVAE, data: Data) -> np.ndarray | None:
    """The users of a file of interactions, in the order of the rows that a model makes of it; a matrix has no ids."""
    return Vocabulary.learn(estimator.reading.columns(data.x)[0])[0].ids if data.interactions else None


def names_of(estimator: BaseVAE) -> list[str] | None:
    """Names of the features, where they have any."""
    return None if estimator._names is None else [str(name) for name in estimator._names]


def check_not_input(out: str | None, file: str) -> None:
    """Refuse to write over what is read."""
    if out is not None and same_file(out, split_key(file)[0]):
        raise ParameterError("the output must be another file", f"{out} is the input", "Choose another name.")


def same_file(one: str, other: str | Path) -> bool:
    """Whether two paths are there and the same; what can be no path is not there."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def check_table(estimator: Any, model: str, what: str) -> None:
    """Refuse a model that is none of a table, for what only tables have."""
    if not isinstance(estimator, elbowroom.TableVAE):
        got = f"{model} is of the kind {type(estimator).__name__}"
        raise ArtefactError(f"{what} needs a model of a table", got, "Train one: elbowroom fit FILE --out MODEL")
