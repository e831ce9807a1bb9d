"""Checkpoints of a run: written atomically and named by their checksum; the newest valid one is used."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from elbowroom.data.dataset import Rows, evenly
from elbowroom.data.validation import path_of
from elbowroom.errors import ArtefactError, ParameterError, warn
from elbowroom.training.history import check_records
from elbowroom.utils.files import MAX_JSON, held, parse_json, read_file, write_atomically
from elbowroom.utils.matmul import PRODUCTS

FORMAT = 1
NAME = re.compile(r"step-(\d{12})-([0-9a-f]{32})\.safetensors")
KEEP = 2
EVERY = 30.0
SHARE = 0.05  # of the time may be spent on checkpoints, so that large models have fewer
State = tuple[dict[str, Tensor], dict[str, Any]]


class Checkpoints:
    """A folder of checkpoints of one run.

    Parameters
    ----------
    folder : path or Checkpoints
    every : float, optional
        Seconds between checkpoints, 30 by default; more if writing one takes long. 0 writes one after every step.
        Checkpoints have no effect on the training itself.
    """

    def __init__(self, folder: str | os.PathLike[str] | Checkpoints, every: float | None = None) -> None:
        given = folder if isinstance(folder, Checkpoints) else None
        self.folder: Path = given.folder if given else path_of(folder, "checkpoint")
        self.every: float = every if every is not None else given.every if given else EVERY
        if not self.every >= 0:
            raise ParameterError("every must be a number of seconds", f"it is {every!r}", "Leave it out for 30.")
        self._next = 0.0

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.folder)!r}, every={self.every:g})"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder for one run.

        Raises
        ------
        ArtefactError
            If another run uses it, or it cannot be created.
        """
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(self.folder))
            except BlockingIOError as error:
                raise ArtefactError(
                    "a folder of checkpoints can be used by one run at a time",
                    f"another run is using {self.folder}",
                    "Wait until it has ended, or choose another folder.",
                ) from error
            except OSError as error:
                raise self._unwritable(error) from error
            self._next = time.monotonic() + self.every
            yield

    def prepare(self) -> None:
        """Check that checkpoints can be written, and delete temporary files of killed processes.

        Raises
        ------
        ArtefactError
            If the folder is not writable.
        """
        try:
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            for torn in self.folder.glob(".step-*.tmp"):
                torn.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ArtefactError:
        return ArtefactError(
            "the folder for checkpoints must be writable",
            f"{self.folder} is not ({error.strerror or error})",
            "Choose another folder, or change its permissions.",
        )

    @property
    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() >= self._next

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write a checkpoint and delete all but the newest ones; if writing fails, warn and keep the old ones.

        A failure does not end the run: the model is in memory, and the next checkpoint may succeed.
        """
        start = time.monotonic()
        try:
            copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            content = safetensors.torch.save(copies, metadata={"facts": json.dumps({"format": FORMAT} | facts)})
            path = self.folder / f"step-{step:012d}-{_digest(content)}.safetensors"
            write_atomically(path, content)
            self._delete_all_but(path)
        except (OSError, MemoryError) as error:
            goes_on = "training continues, and will try again"
            after = "the model is trained nevertheless" if facts.get("complete") else goes_on
            message = f"no checkpoint could be written to {self.folder} ({error}); {after}"
            warn(message, 2)
        now = time.monotonic()
        self._next = now + max(self.every, (now - start) / SHARE if self.every else 0)

    def load(self) -> State | None:
        """The newest checkpoint whose content matches its checksum, or None if there are no checkpoints.

        Raises
        ------
        ArtefactError
            If there are checkpoints and all are corrupted, or from another version of this library.
        """
        paths = self._newest_first()
        for path in paths:
            state = _read(path)
            if state is not None:
                return state
            warn(f"checkpoint {path.name} is broken and was skipped", 2)
        if paths:
            raise ArtefactError(
                "a run's folder must hold an intact checkpoint",
                f"all {len(paths)} in {self.folder} are broken",
                "Delete the folder and train again.",
            )
        return None

    def check(self, state: State, run: Mapping[str, Tensor], steps: int) -> None:
        """Raise unless a state belongs to a run with these tensors and number of steps per epoch.

        Raises
        ------
        ArtefactError
            At the first error.
        """
        tensors, facts = state
        for name in sorted({*tensors, *run}):
            one, other = (None if name not in of else (tuple(of[name].shape), of[name].dtype) for of in (tensors, run))
            if one != other:
                raise _foreign(f"the newest in {self.folder}", f"its {name!r:.60} is {one}, not {other}")
        step, epochs = facts["step"], len(facts["records"])
        if not 0 <= step - epochs * steps <= steps:
            raise _foreign(f"the newest in {self.folder}", f"it is of step {step}, after {epochs} epochs of {steps}")

    def seed(self) -> int | None:
        """The seed of the run in the folder, or None; for callers that draw a new seed for each run."""
        state = self.load()
        return None if state is None else int(state[1]["run"]["seed"])

    def _delete_all_but(self, newest: Path) -> None:
        """Keep the newest and those before it; checkpoints of later steps must be corrupted, as they were not used."""
        step = newest.name.rpartition("-")[0]
        earlier = [path for path in self._newest_first() if path.name.rpartition("-")[0] < step]
        for path in {*self._newest_first()} - {newest, *earlier[: KEEP - 1]}:
            path.unlink()

    def _newest_first(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if NAME.fullmatch(p.name)), reverse=True)


def _read(path: Path) -> State | None:
    """The content of a checkpoint, None if it does not match the checksum in its name.

    Raises
    ------
    ArtefactError
        If it was not written by a run, or by another version of this library.
    """
    try:
        content = read_file(path, sys.maxsize)
    except (OSError, MemoryError):
        return None
    name = NAME.fullmatch(path.name)
    if name is None or _digest(content) != name[2]:
        return None
    try:
        size = int.from_bytes(content[:8], "little")
        facts = parse_json(parse_json(content[8 : 8 + min(size, MAX_JSON)])["__metadata__"]["facts"])
        if facts["format"] == FORMAT:
            _check_facts(facts)
            return safetensors.torch.load(content), facts
    except Exception as error:  # a forged file may cause any error
        raise _foreign(path, error) from error
    raise ArtefactError(
        f"a checkpoint must have format {FORMAT}", f"{path} has format {facts['format']!r:.40}", "Train again."
    )


def _check_facts(facts: dict[str, Any]) -> None:
    """Raise if the facts are not those of a run.

    Raises
    ------
    ValueError, KeyError, TypeError
        At the first error.
    """
    kinds = {"run": dict, "step": int, "records": list, "complete": bool, "backend": str, "circumstances": dict}
    for name, kind in kinds.items():
        if type(facts[name]) is not kind:
            raise ValueError(f"its {name} is {facts[name]!r:.60}")
    check_records(facts["records"])
    if not all(type(value) in (str, int) and len(str(value)) < 100 for value in facts["circumstances"].values()):
        raise ValueError(f"its circumstances are {facts['circumstances']!r:.60}")
    if facts["backend"] not in PRODUCTS or not 0 <= float(facts["seconds"]) < math.inf:
        raise ValueError(f"its backend is {facts['backend']!r:.60}, its seconds {facts['seconds']!r:.60}")
    if type(facts["run"]["seed"]) is not int or not 0 <= facts["step"] < 2**63:
        raise ValueError(f"its seed is {facts['run']['seed']!r:.60}, its step {facts['step']:.6g}")


def _foreign(path: object, why: object) -> ArtefactError:
    words = " ".join(str(why).split())[:200]
    return ArtefactError(
        "a checkpoint must be valid for the run", f"{path} is not ({words})", "Delete it, and try again."
    )


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


# ---- the identity of a run -----------------------------------------------------------------------------------

MOST = 2**26  # bytes of data that the checksum covers


def checksum(rows: Rows | None) -> str:
    """A checksum of rows: of all of them up to 64 MB, else of evenly spaced ones."""
    if rows is None:
        return "none"
    digest = hashlib.blake2b(f"{type(rows).__name__} {len(rows)} x {rows.features}".encode(), digest_size=16)
    for index in evenly(len(rows), max(4096, MOST // rows.row_bytes)).split(256):
        for values in rows.stored(index):
            digest.update(values.numpy(force=True).tobytes())
    return digest.hexdigest()
