"""The folder of a sweep: what makes it that sweep, and how it is held, left and found again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from elbowroom._version import __version__
from elbowroom.beta.policies import LARGEST, SMALLEST
from elbowroom.errors import ArtefactError, ParameterError
from elbowroom.estimators.base import BaseVAE
from elbowroom.persistence.artefact import SCHEMA
from elbowroom.persistence.estimator import plain_parameters
from elbowroom.training.checkpoints import checksum
from elbowroom.utils import specs
from elbowroom.utils.files import delete, held, read_json
from elbowroom.utils.matmul import PRODUCTS, product_backend
from elbowroom.utils.randomness import resolve_seed

SETTINGS = "sweep.json"


def is_sweep(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of a sweep, finished or not."""
    return (Path(folder) / SETTINGS).is_file()


def betas_of_sweep(betas: Any) -> list[float]:
    """The betas of a sweep, the smallest first.

    Raises
    ------
    ParameterError
        If they are not two or more positive numbers, each once.
    """
    try:
        if isinstance(betas, str):
            raise TypeError("a text is no sequence of numbers")
        found = sorted(map(float, betas))
    except (TypeError, ValueError):
        found = []
    if len(found) < 2 or len(set(found)) < len(found) or not all(SMALLEST <= beta <= LARGEST for beta in found):
        expected, got = "the betas of a sweep must be two or more numbers above 0, each once", f"they are {betas!r}"
        raise ParameterError(expected, got, "Write them as in [0.1, 1, 4].")
    return found


def place_of(folder: Path, beta: float) -> Path:
    """Where the model at a beta is, or will be; its checkpoints are beside it, in a folder that ends in .run."""
    return folder / f"beta-{specs.value_form(beta)}"


@contextmanager
def held_sweep(folder: Path) -> Iterator[None]:
    """A new folder, or that of a sweep, which no other process works on."""
    new, made = not is_sweep(folder), not folder.exists()
    with ExitStack() as stack:
        try:
            folder.mkdir(exist_ok=True)
            stack.enter_context(held(folder))
        except BlockingIOError:
            do = "Wait for it, or stop it."
            raise ArtefactError("a sweep goes on in one process", f"{folder} is used by another", do) from None
        except OSError as error:
            got = f"{folder} can not be made ({error.strerror or error})"
            raise ArtefactError(
                "a sweep is written to a folder", got, "Choose another, or create its parent."
            ) from error
        if new and any(not path.name.startswith(".") for path in folder.iterdir()):
            do = "Choose another name."
            raise ArtefactError("a sweep is written to a new folder", f"{folder} is something else", do)
        for torn in (*folder.glob(".beta-*"), *folder.glob(f".{SETTINGS}.*.tmp")):  # what was half written or deleted
            delete(torn)
        try:
            yield
        except BaseException:
            if new:
                _leave_nothing_empty(folder, made)
            raise


def _leave_nothing_empty(folder: Path, made: bool) -> None:
    """Delete the settings of a sweep of which nothing was trained, and its folder if it was made for it."""
    for run in folder.glob("beta-*.run"):
        if not any(run.iterdir()):
            run.rmdir()
    if {path.name for path in folder.iterdir()} <= {SETTINGS}:
        (folder / SETTINGS).unlink(missing_ok=True)
        if made:
            folder.rmdir()


def _checksum(estimator: BaseVAE, X: Any, context: Any) -> str:
    """A checksum of the data as the estimator sees it."""
    X, context = estimator._unpack(X, context)
    x = estimator._read(X, reset=True)
    return checksum(estimator._rows(x, estimator._encode_context(context, x.shape[0], reset=True)))


def settings_of(estimator: BaseVAE, X: Any, context: Any, betas: list[float], warm_start: bool) -> dict[str, Any]:
    """What makes a sweep that sweep, as JSON knows it."""
    ignored = {"beta", "device", "verbose"}
    parameters = {name: value for name, value in plain_parameters(estimator).items() if name not in ignored}
    settings = {
        "format": "elbowroom sweep",
        "version": __version__,
        "model schema": SCHEMA,  # a sweep can not go on from models that can not be read
        "products": product_backend(),
        "estimator": type(estimator).__name__,
        "betas": betas,
        "warm_start": bool(warm_start),
        "data": _checksum(estimator, X, context),
        "columns": estimator._names,
        "parameters": parameters,
    }
    return json.loads(json.dumps(settings))


def settings_in(folder: Path) -> dict[str, Any] | None:
    """The settings of the sweep in a folder, None if there is none."""
    path = folder / SETTINGS
    try:
        settings = read_json(path)
        if settings["format"] != "elbowroom sweep":
            raise ValueError(f"its format is {settings['format']!r}")
        if settings["products"] not in PRODUCTS:
            raise ValueError(f"its products are {settings['products']!r}")
        settings["betas"] = betas_of_sweep(settings["betas"])
        if type(settings["parameters"]["random_state"]) is not int:
            raise ValueError("its random_state is no whole number")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        do = "Train again, in another folder."
        raise ArtefactError(
            f"{path} must hold the settings of a sweep", f"it is broken ({error!s:.200})", do
        ) from error
    return settings


def seed_for(estimator: BaseVAE, before: Mapping[str, Any] | None) -> int:
    """The seed of all models; a sweep that goes on keeps its own where the estimator has none."""
    if before is not None and estimator.random_state is None:
        return before["parameters"]["random_state"]
    return resolve_seed(estimator.random_state)


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a sweep of other settings or data."""
    old, new = (
        {**of, **of["parameters"], "parameters": None, "version": None, "products": None} for of in (before, now)
    )
    for key in new:
        if old.get(key) != new[key]:
            raise ArtefactError(
                f"the sweep in {folder} must be the one that goes on",
                f"its {key} is {old.get(key)!r:.250}, not {new[key]!r:.250}",
                "Use the settings and the data of that sweep, or another folder.",
            )
