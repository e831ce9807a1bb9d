"""Checkpoints of a run: written atomically, named by their own checksum, the newest good one is used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from elbowroom.errors import ArtefactError, ElbowroomWarning
from elbowroom.files import write_atomically

NAME = re.compile(r"step-(\d{12})-([0-9a-f]{32})\.safetensors")
KEEP = 2


class Checkpoints:
    """A folder of checkpoints of one run.

    Parameters
    ----------
    folder : path
    every : float
        Seconds between checkpoints. When one is taken has no effect on the training itself.
    """

    def __init__(self, folder: str | os.PathLike[str], every: float = 30.0) -> None:
        self.folder, self.every = Path(folder), every

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write a checkpoint and delete all but the newest ones."""
        copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = safetensors.torch.save(copies, metadata={"facts": json.dumps(facts)})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"step-{step:012d}-{_digest(content)}.safetensors", content)
        for old in self._newest_first()[KEEP:]:
            old.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint whose content matches its checksum, or None where there is none.

        Raises
        ------
        ArtefactError
            If there are checkpoints and all of them are broken.
        """
        found = self._newest_first()
        for path in found:
            content = path.read_bytes()
            if _digest(content) == NAME.fullmatch(path.name)[2]:  # type: ignore[index]
                return safetensors.torch.load(content), json.loads(_metadata(content)["facts"])
            warnings.warn(f"checkpoint {path.name} is broken and was skipped", ElbowroomWarning, stacklevel=2)
        if found:
            raise ArtefactError(
                "a run's folder must hold a checkpoint that is whole",
                f"all {len(found)} in {self.folder} are broken",
                "Delete the folder and train again.",
            )
        return None

    def _newest_first(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if NAME.fullmatch(p.name)), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _metadata(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]  # type: ignore[no-any-return]
