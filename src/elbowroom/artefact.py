"""Saved models: a folder of data (JSON, safetensors, a card), checksummed, written at once or not at all.

Nothing in the folder is code. Class names are looked up in the families, the shapes that the configuration implies
are compared with the weights before anything is allocated, and every surprise is an `ArtefactError`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from elbowroom._version import __version__
from elbowroom.bodies import BODIES
from elbowroom.dial import Dial
from elbowroom.errors import ArtefactError, ElbowroomError
from elbowroom.files import folder_at_once
from elbowroom.latents import LATENTS, PRIORS
from elbowroom.likelihood_items import ITEM_LIKELIHOODS
from elbowroom.likelihoods import LIKELIHOODS, Table
from elbowroom.vae import VAE

SCHEMA = 3
CONFIG, WEIGHTS, HISTORY, CARD, CHECKSUMS = (
    "config.json",
    "model.safetensors",
    "history.json",
    "README.md",
    "checksums.json",
)
DATA = "data.safetensors"  # only of models that keep some of their data
MAX_JSON = 64 * 2**20
PARTS: dict[str, type[nn.Module]] = {
    part.__name__: part
    for part in (
        VAE,
        Dial,
        *ITEM_LIKELIHOODS.values(),
        Table,
        *BODIES.values(),
        *LATENTS.values(),
        *PRIORS.values(),
        *LIKELIHOODS.values(),
    )
}


@dataclass(frozen=True)
class Artefact:
    """What a folder holds: `config` describes the estimator and its model, `weights` are the model's tensors.

    `data` are tensors that the estimator keeps beside its model, such as the histories of users.
    """

    config: dict[str, Any]
    history: dict[str, Any]
    weights: dict[str, Tensor]
    card: str
    data: dict[str, Tensor] = field(default_factory=dict)


def write(artefact: Artefact, path: str | os.PathLike[str]) -> Path:
    """Write a folder; one that is already there is replaced if it is a saved model, and refused if it is not.

    Raises
    ------
    ArtefactError
        If the path can not be used. Nothing is left half written.
    """
    path = Path(path)
    place = Path(os.path.realpath(path))  # what a link stands for is written, not the link
    _check_target(path, place)
    config = {"format": "elbowroom", "schema": SCHEMA, **artefact.config, "libraries": libraries()}
    files = {
        CONFIG: _dump(config),
        WEIGHTS: _bytes(artefact.weights),
        HISTORY: _dump(artefact.history),
        CARD: artefact.card.encode(),
    } | ({DATA: _bytes(artefact.data)} if artefact.data else {})
    files[CHECKSUMS] = _dump({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    try:
        _write_folder(place, files)
    except OSError as error:
        raise ArtefactError(
            f"the model must be written to {path}", f"that failed ({error})", "Free space, or choose another folder."
        ) from error
    return path


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it is a saved model, whole or not."""
    try:
        config = _object(_read_file(Path(path) / CONFIG), Path(path))
    except (OSError, ArtefactError):
        return False
    return config.get("format") == "elbowroom" and (Path(path) / CHECKSUMS).is_file()


def _check_target(shown: Path, path: Path) -> None:
    """Refuse a path that is neither new nor a saved model and nothing else: what is there would be lost."""
    there = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if path.is_dir() and (not there or is_model(path)):
        if strange := sorted(there - {CONFIG, WEIGHTS, HISTORY, CARD, CHECKSUMS, DATA}):
            raise ArtefactError(
                "a saved model is replaced with its folder",
                f"{shown} also holds {strange[0]!r}",
                "Move that away, or choose another path.",
            )
        return
    if path.exists():
        raise ArtefactError("a model is saved to a new folder", f"{shown} is something else", "Choose another path.")
    if not path.absolute().parent.is_dir():
        raise ArtefactError(
            "a model is saved into a folder that exists",
            f"{path.absolute().parent} does not",
            "Create it, or choose another.",
        )


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder beside the old one, then swap their names."""
    with folder_at_once(path, replace=True) as fresh:
        for name, content in files.items():
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())


def read(path: str | os.PathLike[str]) -> Artefact:
    """Read a folder and check that it is whole; no code in it is run, and no model is built.

    Raises
    ------
    ArtefactError
        If the folder is missing, broken, truncated, foreign or from another version.
    """
    path = Path(path)
    if not path.is_dir():
        raise ArtefactError(
            "a saved model is a folder",
            f"{path} {'is a file' if path.exists() else 'does not exist'}",
            "Check the path.",
        )
    try:
        names = (CONFIG, WEIGHTS, HISTORY, CARD, CHECKSUMS, *((DATA,) if (path / DATA).exists() else ()))
        content = {name: _read_file(path / name) for name in names}
    except OSError as error:
        raise ArtefactError(
            f"the folder {path} must hold a saved model",
            f"{error.filename} can not be read ({error.strerror})",
            "Save it again.",
        ) from error
    _check_sums(path, content)
    config = _object(content[CONFIG], path / CONFIG)
    _check_version(config, path)
    history = _object(content[HISTORY], path / HISTORY)
    weights, data = (_tensors(path / name, content[name]) if name in content else {} for name in (WEIGHTS, DATA))
    return Artefact(config, history, weights, content[CARD].decode(errors="replace"), data)


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except Exception as error:  # safetensors raises its own kinds, and KeyError for unknown dtypes
        raise _broken(path, f"its tensors can not be read ({error})") from error


def _read_file(path: Path) -> bytes:
    if path.suffix == ".json" and path.stat().st_size > MAX_JSON:
        raise _broken(path, f"it has {path.stat().st_size:,} bytes")
    return path.read_bytes()


def _check_sums(path: Path, content: Mapping[str, bytes]) -> None:
    sums = _object(content[CHECKSUMS], path / CHECKSUMS)
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name != CHECKSUMS}
    if _dump(sums) != content[CHECKSUMS] or set(sums) != set(expected):
        raise _broken(path / CHECKSUMS, "it is not as it was written")
    for name, digest in expected.items():
        if sums[name] != digest:
            raise _broken(path / name, "its checksum differs")


def _check_version(config: Mapping[str, Any], path: Path) -> None:
    if config.get("format") != "elbowroom" or type(config.get("schema")) is not int:
        raise _broken(path / CONFIG, "it is not a configuration of Elbowroom")
    if config["schema"] != SCHEMA:
        older = config["schema"] < SCHEMA
        raise ArtefactError(
            f"this version of Elbowroom ({__version__}) reads saved models of schema {SCHEMA}",
            f"{path} has schema {config['schema']}",
            f"Fit it again; its settings are in {CONFIG}." if older else "Install the version that saved it.",
        )


def _object(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _broken(path, f"it holds a {type(value).__name__}, not an object")
    return value


def _dump(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=True, sort_keys=True).encode()


def _broken(path: Path, why: str) -> ArtefactError:
    return ArtefactError("a saved model must be whole", f"{path} is broken: {why}", "Copy or save the model again.")


def config_of(part: nn.Module) -> dict[str, Any]:
    """The configuration of a part: its class and its constructor's arguments, parts within included.

    Raises
    ------
    ArtefactError
        If the part is not one of Elbowroom's: its code would have to travel with it.
    """
    name = type(part).__name__
    if PARTS.get(name) is not type(part):
        raise ArtefactError(
            "a model is saved if all its parts are Elbowroom's",
            f"{type(part).__module__}.{name} is not",
            "Keep the estimator with pickle or joblib, whose files must be trusted like programs.",
        )
    arguments = {key: _plain(getattr(part, key)) for key in inspect.signature(type(part)).parameters}
    return {"class": name, **arguments}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that a model is saved by; what has two names in it is there once."""
    once = {*dict(model.named_parameters()), *dict(model.named_buffers())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in once}


def _plain(value: Any) -> Any:
    if isinstance(value, nn.ModuleList):
        return [config_of(part) for part in value]
    if isinstance(value, nn.Module):
        return config_of(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def part_from(config: Any) -> Any:
    """The part, or list of parts, or plain value that a configuration describes."""
    if isinstance(config, list):
        return [part_from(item) for item in config]
    if not isinstance(config, dict):
        if not isinstance(config, str | int | float | bool | None) or (
            isinstance(config, float) and not math.isfinite(config)
        ):
            raise ValueError(f"{config!r} is no configuration")
        return config
    arguments = dict(config)
    name = arguments.pop("class", None)
    if name not in PARTS:
        raise ValueError(f"{name!r} is no part of Elbowroom")
    return PARTS[name](**{key: part_from(value) for key, value in arguments.items()})


def model_from(artefact: Artefact, path: str | os.PathLike[str]) -> VAE:
    """Build the model of an artefact, after its shapes were found to be those of the weights.

    Raises
    ------
    ArtefactError
        If the configuration describes no model, or another one than the weights belong to.
    """
    config = artefact.config.get("model")
    try:
        with torch.device("meta"):
            outline = part_from(config)
        if not isinstance(outline, VAE):
            raise ValueError(f"it describes a {type(outline).__name__}, not a VAE")
        expected = {name: (tuple(t.shape), t.dtype) for name, t in weights_of(outline).items()}
        found = {name: (tuple(t.shape), t.dtype) for name, t in artefact.weights.items()}
        if expected != found:
            names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            raise ValueError(f"the weights do not belong to it (for example {names[0]!r})")
        for name, tensor in artefact.weights.items():
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{name!r} holds values that are not finite")
        with torch.random.fork_rng(devices=[]):
            model = part_from(config)
        model.load_state_dict(artefact.weights, strict=False)  # all are there: a tied one has two names
    except (ElbowroomError, TypeError, ValueError, RuntimeError, OverflowError, RecursionError, MemoryError) as error:
        raise _broken(Path(path) / CONFIG, f"it describes no model ({str(error).splitlines()[0][:200]})") from error
    return model.eval()


def libraries() -> dict[str, str]:
    """Versions of what a model was made with."""
    import numpy
    import sklearn

    return {
        "elbowroom": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }
