"""Saved models taken apart and put together again with right checksums, as a forger would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elbowroom.persistence import artefact

Files = dict[str, bytes]


def file_of(folder: Path, name: str) -> Path:
    """Where a file of a saved model is, by what it is called in the index."""
    if name in (artefact.CONFIG, artefact.CARD):
        return folder / name
    listed = json.loads((folder / artefact.CONFIG).read_bytes())["files"]
    return folder / artefact.content_name(name, listed[name]["sha256"])


def opened(folder: Path) -> tuple[dict[str, Any], Files]:
    """The configuration of a saved model, and its other files."""
    config = json.loads((folder / artefact.CONFIG).read_bytes())
    return config, {name: file_of(folder, name).read_bytes() for name in config["files"]}


def sealed(folder: Path, config: Any, files: Files) -> None:
    """Write a saved model whose checksums are right, whatever it says."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / artefact.content_name(name, _digest(content))).write_bytes(content)
    if isinstance(config, dict):
        sums = {name: {"sha256": _digest(content), "bytes": len(content)} for name, content in files.items()}
        config = {k: v for k, v in config.items() if k != "checksum"} | {"files": sums}
        config = artefact.dump(config | {"checksum": _digest(artefact.dump(config))})
    (folder / artefact.CONFIG).write_bytes(config)


def forge(folder: Path, edit: Callable[[dict[str, Any], Files], Any]) -> Path:
    """Change the configuration or the other files of a saved model in place, and put the checksums right."""
    config, files = opened(folder)
    edit(config, files)
    sealed(folder, config, files)
    return folder


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
