"""Elbowroom: variational autoencoders with one canonical beta, on the data that people have.

The trip of a batch is the reading order of the package: `beta` (what beta is), `data` (what the user brings),
`bodies`, `latents`, `likelihoods`, `vae` (the model), `objectives` (where beta meets the rate), `trainer`, `tasks`,
`artefact`, `estimators`, `recommender`, `sweeps`, `cli`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from elbowroom._version import __version__

if TYPE_CHECKING:
    from elbowroom.baselines import EASE, ItemKNN, Popularity, RatingMeans
    from elbowroom.columns import Binary, Category, Count, Datetime, Measured, Ordinal, Positive, Real
    from elbowroom.converters import beta_from
    from elbowroom.data.holdout import Fold, Split
    from elbowroom.data.interactions import Reading
    from elbowroom.data.schema import Schema
    from elbowroom.estimators import CountVAE, ImageVAE, TableVAE, load
    from elbowroom.recommender import InteractionVAE
    from elbowroom.sweeps import Sweep, sweep
    from elbowroom.table_estimators import VAEDetector, VAEImputer
    from elbowroom.tasks.evaluate import evaluate
    from elbowroom.tasks.quality import quality

_HOME = {
    "TableVAE": "estimators",
    "ImageVAE": "estimators",
    "CountVAE": "estimators",
    "InteractionVAE": "recommender",
    "load": "estimators",
    "Split": "data.holdout",
    "Fold": "data.holdout",
    "Reading": "data.interactions",
    "evaluate": "tasks.evaluate",
    "Popularity": "baselines",
    "RatingMeans": "baselines",
    "ItemKNN": "baselines",
    "EASE": "baselines",
    "beta_from": "converters",
    "sweep": "sweeps",
    "Sweep": "sweeps",
    "Schema": "data.schema",
    "VAEDetector": "table_estimators",
    "VAEImputer": "table_estimators",
    "quality": "tasks.quality",
    **dict.fromkeys(("Binary", "Category", "Count", "Datetime", "Measured", "Ordinal", "Positive", "Real"), "columns"),
}
__all__ = [
    "EASE",
    "Binary",
    "Category",
    "Count",
    "CountVAE",
    "Datetime",
    "Fold",
    "ImageVAE",
    "InteractionVAE",
    "ItemKNN",
    "Measured",
    "Ordinal",
    "Popularity",
    "Positive",
    "RatingMeans",
    "Reading",
    "Real",
    "Schema",
    "Split",
    "Sweep",
    "TableVAE",
    "VAEDetector",
    "VAEImputer",
    "__version__",
    "beta_from",
    "evaluate",
    "load",
    "quality",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: torch takes a second, and `elbowroom --help` needs none of it."""
    if name in _HOME:
        return getattr(importlib.import_module(f"elbowroom.{_HOME[name]}"), name)
    raise AttributeError(f"module 'elbowroom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
