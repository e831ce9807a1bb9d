"""Forged models and checkpoints, whose checksums are right: each works, or is refused by one clear error.

A case is a name of `TARGETS` and a seed: the first function writes a forged one into an empty folder, and the second
opens it and tries it on a row, as in `fuzzing`. To try one case, run this file:
python tests/test_fuzz_saved.py FOLDER NAME SEED
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from forging import Files, forge, opened
from fuzzing import BATCH, LONG, SHORT, Targets, Watch, asked, check, run_here
from scipy import sparse
from small import DIGITS, WINE, counts, images, table
from torch import Tensor

import elbowroom
from elbowroom import InteractionVAE
from elbowroom.cli.model_info import facts_of
from elbowroom.persistence import artefact
from elbowroom.training import trainer

# ---- what is forged --------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {
        "age": np.arange(60) % 7 * 11.5,
        "visits": np.arange(60) % 5,
        "country": pd.Categorical(np.where(np.arange(60) % 3, "de", "fr")),
        "when": pd.date_range("2024-01-01", periods=60).where(np.arange(60) % 4 > 0),
        "smoker": np.arange(60) % 2 == 0,
    }
)
CLICKS = pd.DataFrame({"user": [f"u{i % 20}" for i in range(100)], "item": [f"i{i * i % 13}" for i in range(100)]})
FEW = {"epochs": 1, "hidden": (4,)}


@functools.cache
def fitted(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """A model, a row to try it on, and further arguments."""
    labels = {"context": np.array(list("ab") * 30)}
    X: Any
    if name == "range":
        return table(**FEW, beta="0.1..10", prior="vamp:components=3").fit(WINE), WINE[:1], {}
    if name == "schema":
        return table(**FEW, covariance="full").fit(FRAME), FRAME[:1], {}
    if name == "images":
        return images(epochs=1, body="residual").fit(DIGITS[:60]), DIGITS[:1], {}
    if name == "counts":
        X = sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, (60, 5)))
        return counts(**FEW, prior="mixture:components=3").fit(X, **labels), X[:1], {"context": "a"}
    model = InteractionVAE(n_latents=2, random_state=0, **FEW).fit(CLICKS)
    return model, CLICKS[:3], {}


@functools.cache
def saved(name: str) -> tuple[bytes, Files]:
    """The configuration and the other files of a model."""
    with tempfile.TemporaryDirectory() as folder:
        config, files = opened(fitted(name)[0].save(f"{folder}/m"))
    return json.dumps(config).encode(), files


NASTY: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 13, 10**6, 10**9, 3_000_000, 2**31, 2**63, 10**18, 10**400, -(10**9)),
    *(0.5, -0.0, 1e300, float("nan"), float("inf"), "", "x", "os.system", "auto", "\ud800", "\x1b[31m", "x" * 10**5),
    *([], {}, [[]], [1] * 10_000, [10**9] * 3, [1] * 300_000, ["a", 1], {"class": "VAE"}, {"class": "MLP"}, {"a": {}}),
    {"class": "StandardPrior", "size": 2},
    {"class": "MLP", "inputs": 2, "hidden": [1] * 100_000},
    {"class": "ImageEncoder", "shape": [1, 8, 8], "channels": [4], "blocks": 10**9},
    functools.reduce(lambda inner, _: [inner], range(400), 1),
    functools.reduce(lambda inner, _: {"class": "Mixed", "parts": [inner], "columns": [[0]]}, range(100), 1),
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All containers and keys within a value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def changed(value: Any, random: Random) -> None:
    """Change something within a value of JSON, in place."""
    roots = [part for part in value.values() if isinstance(part, dict | list) and part] or [value]
    found = list(places(random.choice([*roots, value])))
    (inside, key), (other, there) = random.choice(found), random.choice(found)
    how = random.randrange(7)
    if how < 3:
        inside[key] = copy.deepcopy(random.choice(NASTY))
    elif how == 3 and isinstance(inside[key], int | float):
        inside[key] += random.choice((1, -1, inside[key]))
    elif how == 4:
        inside.pop(key)
    elif how == 5 and isinstance(inside[key], list):
        inside[key] += copy.deepcopy(inside[key][:1] or [0])
    else:
        inside[key] = copy.deepcopy(other[there])


def in_config(config: Any, files: Files, random: Random) -> None:
    changed(config, random)


def in_model(config: Any, files: Files, random: Random) -> None:
    changed(config["model"], random)


def in_fitted(config: Any, files: Files, random: Random) -> None:
    changed(config[random.choice(("fitted", "parameters", "diagnosis"))], random)


def in_history(config: Any, files: Files, random: Random) -> None:
    history = json.loads(files[artefact.HISTORY])
    changed(history, random)
    files[artefact.HISTORY] = json.dumps(history).encode()


def in_tensors(config: Any, files: Files, random: Random) -> None:
    name = random.choice([name for name in files if name.endswith(".safetensors")])
    tensors = safetensors.torch.load(files[name])
    retensored(tensors, random)
    files[name] = safetensors.torch.save(tensors)


DTYPES = (torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.float64)


def retensored(tensors: dict[str, Tensor], random: Random) -> None:
    """Change a tensor of several, in place."""
    name = random.choice(sorted(tensors))
    tensor = tensors[name]
    values = random.choice((float("nan"), float("inf"), 0.0, -1.0, 1e38, 2.0**31))
    choices: list[Callable[[], Any]] = [
        lambda: tensors.pop(name),
        lambda: tensors.update({name: tensor.flatten()[:1].clone()}),
        lambda: tensors.update({name: tensor.unsqueeze(0).clone()}),
        lambda: tensors.update({name: tensor.to(random.choice(DTYPES))}),
        lambda: tensors.update({name: torch.full_like(tensor, values) if tensor.is_floating_point() else tensor - 1}),
        lambda: tensors.update({name: tensor[: len(tensor) // 2].clone() if tensor.ndim else tensor + 1}),
        lambda: tensors.update({f"{name}.more": tensor.clone()}),
        lambda: tensors.update({f"t{i}": torch.zeros(0) for i in range(30_000)}),
        lambda: tensors.update({name: tensor.flip(0).clone() if tensor.ndim else -tensor}),
    ]
    random.choice(choices)()


def in_header(config: Any, files: Files, random: Random) -> None:
    name = random.choice([name for name in files if name.endswith(".safetensors")])
    content = files[name]
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    changed(header, random)
    text = json.dumps(header).encode()
    claimed = random.choice((len(text), len(text), len(text), 2**40, 2**63, 0))
    files[name] = claimed.to_bytes(8, "little") + text + content[8 + size :]


def in_text(config: Any, files: Files, random: Random) -> None:
    text = random.choice((b"[" * 10**5, b'{"a":' * 10**5, b"[" + b"[]," * 10**6 + b"1]", b"9" * 10**6, b"", b"null"))
    files[artefact.HISTORY] = random.choice((text, files[artefact.HISTORY].replace(b'"beta"', b'"rate"')))


FORGERS = [in_config, in_model, in_model, in_model, in_fitted, in_fitted, in_history, in_tensors, in_header, in_text]


def model(name: str) -> Callable[[Path, Random], Path]:
    """What writes a forged model of a kind."""

    def make(folder: Path, random: Random) -> Path:
        config, files = saved(name)
        path = folder / "m"
        path.mkdir()
        for file, content in ((artefact.CONFIG, config), *files.items()):
            digest = hashlib.sha256(content).hexdigest()
            where = file if file == artefact.CONFIG else artefact.content_name(file, digest)
            (path / where).write_bytes(content)

        def edit(config: Any, files: Files) -> None:
            for forger in random.sample(FORGERS, random.choice((1, 1, 1, 2))):
                with contextlib.suppress(Exception):  # what the first has left may not be what the second looks for
                    forger(config, files, random)

        forge(path, edit)
        if random.random() < 0.1:
            replaced(random.choice(sorted(path.iterdir())), random)
        return path

    return make


def replaced(path: Path, random: Random) -> None:
    """A file that is none any more."""
    path.unlink()
    if random.random() < 0.5:
        os.mkfifo(path)
    else:
        path.symlink_to(random.choice(("/dev/null", ".", path.name)))


def try_model(name: str) -> Callable[[Path], None]:
    """What opens a model of a kind and tries it."""

    def use(path: Path) -> None:
        found = elbowroom.load(path)
        _, row, arguments = fitted(name)
        Z = found.transform(row, **arguments)
        found.score_samples(row, **arguments)
        found.inverse_transform(Z, **arguments)
        found.reconstruct(row, **arguments)
        repr(found.history_), found.diagnosis_.verdict, facts_of(str(path))

    return use


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def train(folder: Path) -> Any:
    """Train for a few steps, from a checkpoint if there is one."""
    return table(**FEW | {"epochs": 2}).fit(WINE[:40], checkpoint=folder)


@functools.cache
def checkpoint() -> bytes:
    """A checkpoint of such a run after its first epoch."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Run, "ended", property(lambda run: run.epoch >= 1))
        train(Path(folder))
        content = next(Path(folder).glob("step-*")).read_bytes()
    size = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + size].replace(b'\\"complete\\": true', b'\\"complete\\": false')
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def make_checkpoint(folder: Path, random: Random) -> Path:
    content = checkpoint()
    size = int.from_bytes(content[:8], "little")
    facts = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["facts"])
    tensors = safetensors.torch.load(content)
    how = random.randrange(4)
    if how < 2:
        changed(facts if how else {"facts": facts}, random)
    elif how == 2:
        retensored(tensors, random)
    content = safetensors.torch.save(tensors, metadata={"facts": json.dumps(facts)})
    if how == 3:
        files = {"x.safetensors": content}
        in_header({}, files, random)
        content = files["x.safetensors"]
    return put(folder, random.choice((1, 10**9)), content)


def put(folder: Path, step: int, content: bytes) -> Path:
    """A checkpoint in a folder, under its right name."""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    (folder / f"step-{step:012d}-{digest}.safetensors").write_bytes(content)
    return folder


KINDS = ("range", "schema", "images", "counts", "interactions")
TARGETS: Targets = {
    **{name: (model(name), try_model(name)) for name in KINDS},
    "checkpoint": (make_checkpoint, train),
}


def main(root: Path, cases: Sequence[tuple[str, int]]) -> None:
    """Run cases of saved models, after each kind was tried as it is, so that all that is imported is there."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in TARGETS:
        whole = root / f"whole {name}"
        if name == "checkpoint":
            whole.mkdir()
            put(whole, 4, checkpoint())
        else:
            fitted(name)[0].save(whole)
        TARGETS[name][1](whole)
    (root / "canary").write_bytes(bytes(100))
    run_here(root, cases, TARGETS, Watch([root / "canary"]))


def test_forged_models_work_or_are_refused(tmp_path: Path) -> None:
    check(tmp_path, 0, SHORT, TARGETS, __file__)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 1000 + LONG, BATCH))
def test_many_forged_models_work_or_are_refused(tmp_path: Path, first: int) -> None:
    check(tmp_path, first, BATCH, TARGETS, __file__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), asked(sys.argv[2:]))
