"""Saved models: a folder of data (JSON, safetensors, a card), checksummed, of which there is always a whole one.

Nothing in the folder is code. `config.json` is its index: it says what the model is, and the checksums of the other
files, whose names are made of them: `model.0123456789abcdef.safetensors`. A save writes new files beside the old ones
and then replaces the index, which is one step for the file system; only after that are the old files deleted. Class
names are looked up in the families, and what the configuration asks for is compared with the weights before it is made.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from elbowroom._version import __version__
from elbowroom.beta.conditioning import BetaConditioning
from elbowroom.errors import ArtefactError, warn
from elbowroom.latents.posteriors import LATENTS
from elbowroom.latents.priors import PRIORS
from elbowroom.likelihoods.items import ITEM_LIKELIHOODS
from elbowroom.likelihoods.mixed import Mixed, Table
from elbowroom.likelihoods.registry import LIKELIHOODS
from elbowroom.models.vae import VAE
from elbowroom.nn.registry import BODIES
from elbowroom.utils.files import MAX_JSON, delete, held, parse_json, read_file, write_atomically
from elbowroom.utils.randomness import drawing_from
from elbowroom.utils.settings import standard_defaults

SCHEMA = 5
CONFIG, CARD = "config.json", "README.md"
WEIGHTS, HISTORY = "model.safetensors", "history.json"
DATA = "data.safetensors"  # only of models that keep some of their data
EARLIER = {WEIGHTS, HISTORY, DATA, "checksums.json"}  # names of files up to schema 3
NAMED = r"(?:(?:model|data)\.[0-9a-f]{16}\.safetensors|history\.[0-9a-f]{16}\.json)"
OURS = re.compile(rf"{NAMED}|\.(?:{NAMED}|config\.json|README\.md)\.[0-9a-f]{{16}}\.tmp")
MAX_HEADER = 4 * 2**20  # bytes, of a file of tensors
MAX_TENSORS = 4096
ATTEMPTS = 100  # to read a model that is replaced meanwhile
FREE = {"total", "levels", "floor", "sampled"}  # whole numbers in a configuration that weights do not bound
SPARE = 8  # parts of a model that may have no tensors
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "None": (type(None),),
}
PARTS: dict[str, type[nn.Module]] = {
    part.__name__: part
    for part in (
        VAE,
        BetaConditioning,
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

    `data` are tensors that the estimator keeps beside its model, such as the histories of users. The `card` is for
    people: it is written, and not read again.
    """

    config: dict[str, Any]
    history: dict[str, Any]
    weights: dict[str, Tensor]
    card: str = ""
    data: dict[str, Tensor] = field(default_factory=dict)


# ---- writing ---------------------------------------------------------------------------------------------------------


def write(artefact: Artefact, path: str | os.PathLike[str]) -> Path:
    """Write a folder. One that is a saved model already is replaced by it, in one step; other files in it stay.

    Raises
    ------
    ArtefactError
        If the path can not be used, or can not be written to. What was there before is then as it was.
    """
    path = Path(path)
    place = Path(os.path.realpath(path))  # what a link stands for is written, not the link
    files, index = _files(artefact)
    try:
        _check_target(path, place)
        _commit(place, files, index, artefact.card.encode(errors="backslashreplace"))
    except OSError as error:
        raise ArtefactError(
            f"the model must be written to {path}",
            f"that failed ({_reason(error)}); the model in memory, and one that was there before, are as they were",
            "Free space, or choose another folder, and save again.",
        ) from error
    return path


def _files(artefact: Artefact) -> tuple[dict[str, bytes], bytes]:
    """The files of an artefact by what they are called in the folder, and its index."""
    contents = {WEIGHTS: _bytes(artefact.weights), HISTORY: dump(artefact.history)}
    contents |= {DATA: _bytes(artefact.data)} if artefact.data else {}
    sums: dict[str, dict[str, Any]] = {
        name: {"sha256": _digest(content), "bytes": len(content)} for name, content in contents.items()
    }
    config = {"format": "elbowroom", "schema": SCHEMA, **artefact.config, "libraries": libraries(), "files": sums}
    files = {content_name(name, sums[name]["sha256"]): content for name, content in contents.items()}
    return files, dump(config | {"checksum": _digest(dump(config))})


def _commit(place: Path, files: Mapping[str, bytes], index: bytes, card: bytes) -> None:
    """Write the files of a model, then its index, then delete what that does not name."""
    with _held(place) as sure:
        before, earlier = set(os.listdir(place)), _schema_in(place) < SCHEMA
        try:
            for name, content in files.items():
                write_atomically(place / name, content)
            write_atomically(place / CONFIG, index)
        except BaseException:
            if _index_in(place) != index:  # Ctrl-C may come just after it was replaced
                for name in files.keys() - before:
                    delete(place / name)
            raise
        for name in set(os.listdir(place)) - {*files, CONFIG}:
            # where nothing can be held, another process may be about to name what it has just written
            if (is_ours(name) and (sure or name in before)) or (earlier and name in EARLIER):
                delete(place / name)
        try:
            write_atomically(place / CARD, card)
        except OSError as error:
            message = f"the model is saved, but not its card ({_reason(error)})"
            warn(message, 4)


@contextmanager
def _held(place: Path) -> Iterator[bool]:
    """A folder that no other process saves to meanwhile. One that was made for it and stays empty is deleted."""
    with ExitStack() as stack:
        for attempt in range(ATTEMPTS):
            made = not place.exists()
            place.mkdir(exist_ok=True)
            try:
                sure = stack.enter_context(held(place, wait=True))
                break
            except FileNotFoundError:  # whoever held it has deleted it
                if attempt == ATTEMPTS - 1:
                    raise
        try:
            yield sure
        except BaseException:
            if made:
                with suppress(OSError):
                    place.rmdir()
            raise


def _index_in(place: Path) -> bytes:
    """The index in a folder, empty if there is none."""
    try:
        return read_file(place / CONFIG, MAX_JSON)
    except FileNotFoundError:
        return b""


def _schema_in(place: Path) -> int:
    """The schema of the model in a folder, that of today if there is none."""
    try:
        schema = parse_json(_index_in(place))["schema"]
    except (ValueError, KeyError, TypeError):
        return SCHEMA
    return schema if type(schema) is int else SCHEMA


def _check_target(shown: Path, place: Path) -> None:
    """Refuse a path that is neither new nor a saved model: what is there would be lost in between."""
    parent = place.parent
    if not is_free(place) and not is_model(place):
        raise ArtefactError("a model is saved to a new folder", f"{shown} is something else", "Choose another path.")
    if not parent.is_dir():
        raise ArtefactError(
            "a model is saved into a folder that exists", f"{parent} does not", "Create it, or choose another."
        )
    if is_model(parent):
        raise ArtefactError(
            "a model is saved beside other models", f"{parent} is one itself", "Choose a path that is not in a model."
        )


def is_free(path: str | os.PathLike[str]) -> bool:
    """Whether nothing is at a path but perhaps an empty folder, or what a save that was killed has left."""
    path = Path(path)
    if not path.is_dir():
        return not path.exists()
    return all(is_ours(name) for name in os.listdir(path))


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it is a saved model, or consists of nothing but the files of one, whole or not."""
    path = Path(path)
    try:
        names = set(os.listdir(path))
        content = read_file(path / CONFIG, MAX_JSON)
    except (OSError, ValueError):
        return False
    if any(map(is_ours, names)) and all(is_ours(name) or name in (CONFIG, CARD) for name in names):
        return True
    with suppress(ValueError, AttributeError):
        config = parse_json(content)
        return config.get("format") == "elbowroom" and ("files" in config or "checksums.json" in names)
    return False


def is_ours(name: str) -> bool:
    """Whether a name is one that only saves give: of files that an index names, and of those that are not whole yet."""
    return OURS.fullmatch(name) is not None


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Artefact:
    """Read a folder and check that it is whole; no code in it is run, and no model is built.

    No other file is read than the index and those that it names. They must be regular files, or links to such.

    Raises
    ------
    ArtefactError
        If the folder is missing, broken, truncated, foreign or from another version.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            got = f"{path} {'is a file' if path.exists() else 'does not exist'}"
            raise ArtefactError("a saved model is a folder", got, "Check the path.")
        config, content = _contents(path)
    except (OSError, MemoryError) as error:
        name = getattr(error, "filename", None) or path
        raise ArtefactError(
            f"the folder {path} must hold a saved model", f"{name} can not be read ({_reason(error)})", "Save it again."
        ) from error
    history = _object(content[HISTORY], path / HISTORY)
    weights, data = (_tensors(path / name, content[name]) if name in content else {} for name in (WEIGHTS, DATA))
    return Artefact(config, history, weights, data=data)


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The index of a folder and the files that it names, read again where they were replaced meanwhile."""
    index = b""
    for _ in range(ATTEMPTS):
        before, index = index, read_file(path / CONFIG, MAX_JSON)
        config = _index(index, path)
        try:
            return config, {name: _content(path, name, **listed) for name, listed in config["files"].items()}
        except FileNotFoundError:
            if index == before:
                raise
    raise OSError("it is replaced again and again")


def _index(content: bytes, path: Path) -> dict[str, Any]:
    """The index of a folder, which is as it was written."""
    config = _object(content, path / CONFIG)
    _check_version(config, path)
    rest = {name: value for name, value in config.items() if name != "checksum"}
    if config.get("checksum") != _digest(dump(rest)) or content != dump(config):
        raise broken(path / CONFIG, "it is not as it was written")
    files = config.get("files")
    if (
        not isinstance(files, dict)
        or not {WEIGHTS, HISTORY} <= set(files) <= {WEIGHTS, HISTORY, DATA}
        or not all(isinstance(listed, dict) and _is_listed(**listed) for listed in files.values())
    ):
        raise broken(path / CONFIG, "it does not say what its files are")
    return config


def _is_listed(sha256: Any = None, bytes: Any = None, **more: Any) -> bool:
    """Whether this is what an index says of a file."""
    return isinstance(sha256, str) and bool(re.fullmatch("[0-9a-f]{64}", sha256)) and type(bytes) is int and not more


def content_name(name: str, sha256: str) -> str:
    """What a file with a checksum is called in the folder.

    >>> content_name("model.safetensors", "0123456789abcdef" * 4)
    'model.0123456789abcdef.safetensors'
    """
    stem, dot, ending = name.rpartition(".")
    return f"{stem}.{sha256[:16]}{dot}{ending}"


def _content(path: Path, name: str, sha256: str, bytes: int) -> bytes:
    path = path / content_name(name, sha256)
    content = read_file(path, max(bytes, 0))
    if len(content) != bytes or _digest(content) != sha256:
        raise broken(path, "its checksum differs")
    return content


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    header = int.from_bytes(content[:8], "little")
    if header > MAX_HEADER:
        raise broken(path, f"its header is said to have {header:,} bytes")
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:  # safetensors raises its own kinds, and KeyError for unknown dtypes
        raise broken(path, f"its tensors can not be read ({error})") from error
    if len(tensors) > MAX_TENSORS:
        raise broken(path, f"it holds {len(tensors):,} tensors")
    return tensors


def _check_version(config: Mapping[str, Any], path: Path) -> None:
    if config.get("format") != "elbowroom" or type(config.get("schema")) is not int:
        raise broken(path / CONFIG, "it is not a configuration of Elbowroom")
    if config["schema"] != SCHEMA:
        older = config["schema"] < SCHEMA
        raise ArtefactError(
            f"this version of Elbowroom ({__version__}) reads saved models of schema {SCHEMA}",
            f"{path} has schema {config['schema']:.6g}",
            f"Fit it again; its settings are in {CONFIG}." if older else "Install the version that saved it.",
        )


def _object(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise broken(path, f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise broken(path, f"it holds a {type(value).__name__}, not an object")
    return value


def dump(value: Any) -> bytes:
    """JSON, always the same for the same value."""
    return json.dumps(value, indent=1, allow_nan=True, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def broken(path: str | os.PathLike[str], why: object) -> ArtefactError:
    """The error for a saved model that is not what was saved."""
    words = " ".join(f"{path} is broken: {why}".split())
    return ArtefactError("a saved model must be whole", words[:300], "Copy or save the model again.")


# ---- models ----------------------------------------------------------------------------------------------------------


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
        return config
    arguments = dict(config)
    return PARTS[arguments.pop("class")](**{key: part_from(value) for key, value in arguments.items()})


def check_config(config: Any, weights: Mapping[str, Tensor]) -> None:
    """Refuse what is no configuration, and one of more or wider layers than weights belong to, before it is built.

    Raises
    ------
    ValueError
        With the first fault.
    """
    layers = 0
    widest = max(sum(tensor.numel() for tensor in weights.values()), 1)
    todo: list[Any] = [config]
    while todo:
        part = todo.pop()
        name = part.get("class") if isinstance(part, dict) else None
        if not isinstance(name, str) or name not in PARTS:
            raise ValueError(f"{name if name else part!r:.60} is no part of Elbowroom")
        known = inspect.signature(PARTS[name]).parameters
        for key, value in part.items():
            if key == "class":
                continue
            if key not in known:
                raise ValueError(f"{name} has no {key!r:.60}")
            _check_value(f"{key} of {name}", value, str(known[key].annotation), math.inf if key in FREE else widest)
            todo += [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
        layers += 1 + len(part.get("hidden", ())) + len(part.get("channels", ())) * (1 + max(part.get("blocks", 0), 0))
        if layers > len(weights) + SPARE:
            raise ValueError(f"it has more layers than the {len(weights):,} tensors can be of")


def _check_value(name: str, value: Any, annotation: str, widest: float) -> None:
    """Refuse a value that is not of the type that a constructor says, or larger than all the weights together."""
    within = re.search(r"Sequence\[(.*)\]", annotation)
    if isinstance(value, list):
        if within is None or len(value) > widest:
            raise ValueError(f"{name} is a list of {len(value):,} values")
        for item in value:
            _check_value(name, item, within[1], widest)
        return
    words = {word.strip() for word in re.sub(r"Sequence\[.*\]", "", annotation).split("|")} - {""}
    kinds = tuple(kind for word in words for kind in TYPES.get(word, (dict,)))
    if type(value) not in kinds:
        raise ValueError(f"{name} is {value!r:.60}, which is of another type")
    least = -1 if math.isfinite(widest) else -math.inf
    broken = type(value) is float and not math.isfinite(value)
    if broken or (isinstance(value, int) and not least <= value <= widest):
        raise ValueError(f"{name} is {value:.6g}")


def outline_of(config: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the weights of a model must look like, from its configuration: tensors without values.

    Raises
    ------
    ValueError
        If it describes no model, or one that these weights can not be those of.
    """
    check_config(config, weights)
    with standard_defaults(), torch.device("meta"):
        outline = part_from(config)
    if not isinstance(outline, VAE):
        raise ValueError(f"it describes a {type(outline).__name__}, not a VAE")
    expected = weights_of(outline)
    names = sorted(name for name in {*expected, *weights} if _shape(expected, name) != _shape(weights, name))
    if names:
        raise ValueError(f"the weights do not belong to it (for example {names[0]!r:.60})")
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name!r} holds values that are not finite")
    return expected


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def model_from(artefact: Artefact, path: str | os.PathLike[str]) -> VAE:
    """Build the model of an artefact, after its shapes were found to be those of the weights.

    Raises
    ------
    ArtefactError
        If the configuration describes no model, or another one than the weights belong to.
    """
    config = artefact.config.get("model")
    try:
        expected = outline_of(config, artefact.weights)
        other = next((n for n, tensor in artefact.weights.items() if tensor.dtype != expected[n].dtype), None)
        if other is not None:
            raise ValueError(f"{other!r:.60} is of another dtype")
        with standard_defaults(), drawing_from(torch.Generator()):
            model = part_from(config)
        model.load_state_dict(artefact.weights, strict=False)  # all are there: a tied one has two names
        model.eval()
        _try(model)
    except Exception as error:  # whatever a forged one leads to
        raise broken(Path(path) / CONFIG, f"it describes no model ({_reason(error)})") from error
    return model


@torch.no_grad()
def _try(model: VAE) -> None:
    """Send a row through a model, whose parts may each be whole and not go together.

    Raises
    ------
    ValueError
        If what comes out has another shape. Anything else may be raised too.
    """
    likelihood: Any = model.likelihood
    groups = zip(likelihood.parts, likelihood.columns, strict=True) if isinstance(likelihood, Mixed) else ()
    x, noise = torch.zeros(1, likelihood.features), torch.zeros(1, model.n_latents)
    made = model(x, noise=noise)
    prior = model.prior_distribution().sample(1, torch.Generator().manual_seed(0))
    shapes = [tuple(found.shape) for found in (made.z, prior, made.p.mean, made.p.log_prob(x))]
    if shapes != [noise.shape, noise.shape, x.shape, (1,)] or any(part.features != len(of) for part, of in groups):
        raise ValueError("its parts do not go together")


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
