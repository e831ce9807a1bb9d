"""Functions of any model that a training run needs: its device, its tensors, and its identity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move a model to a device, in training mode; afterwards it is on the CPU, in its original mode."""
    training = model.training
    try:
        if device.type == "mps":  # has no float64, which some units of the data are kept in
            model.float()
        model.to(device).train()
        yield
    finally:
        model.to("cpu").train(training)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def may_draw(model: nn.Module) -> bool:
    """Whether a model in training may draw from torch's global stream: by torch's dropout, or in custom modules."""
    return any(_may_draw(module) for module in model.modules())


def _may_draw(module: nn.Module) -> bool:
    library = type(module).__module__.partition(".")[0]
    drops = "Drop" in type(module).__name__ or bool(getattr(module, "dropout", False))
    return library != "elbowroom" and (library != "torch" or drops)


def describe(model: nn.Module) -> dict[str, str]:
    """A description of every module of a model: class, settings, shapes of parameters; not their values."""
    return {f"module {name or 'model'}": _describe(module) for name, module in model.named_modules()}


def _describe(module: nn.Module) -> str:
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    settings = {name: value for name, value in own.items() if _is_plain(value)}
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters(recurse=False)}
    return f"{type(module).__name__} {settings} {shapes}"


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str)
