"""Elbowroom: variational autoencoders with one canonical beta, on the data that people have.

The folders are in the order of the data flow, which is the reading order. A folder imports only from those above it.

    errors         exceptions with three parts, warnings
    utils          independent of VAEs: text forms, counter-based randomness, files, signals, devices
    data           the user's data as rows to train on; tables/, interactions/, io/
    distributions  densities of rows and of latents: log_prob, sample, mean
    nn             neural networks, from features to features
    likelihoods    p(x|z), one file per family; `auto` chooses by the data
    latents        posteriors q(z|x) and priors p(z)
    beta           beta over a run, and as an input of networks
    models         the model, built from these parts
    objectives     distortion, rate, penalty: the only line where beta multiplies the rate
    training       the trainer, controllers of beta, checkpoints
    tasks          tasks of a trained model, one file each; recommend/
    report         pages and figures
    persistence    saved models
    estimators     scikit-learn's contract
    cli            the command `elbowroom`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from elbowroom._version import __version__

if TYPE_CHECKING:
    from elbowroom.beta.conversion import beta_from
    from elbowroom.data.interactions.reading import Reading
    from elbowroom.data.interactions.splits import Fold, Split
    from elbowroom.data.tables.kinds import Binary, Category, Count, Datetime, Measured, Ordinal, Positive, Real
    from elbowroom.data.tables.schema import Schema
    from elbowroom.estimators.count import CountVAE
    from elbowroom.estimators.image import ImageVAE
    from elbowroom.estimators.recommender import InteractionVAE
    from elbowroom.estimators.registry import load
    from elbowroom.estimators.sweep import Sweep, sweep
    from elbowroom.estimators.table import TableVAE
    from elbowroom.estimators.wrappers import VAEDetector, VAEImputer
    from elbowroom.report.quality_page import quality
    from elbowroom.tasks.recommend.baselines import EASE, ItemKNN, Popularity, RatingMeans
    from elbowroom.tasks.recommend.metrics import evaluate

_HOME = {
    "EASE": "tasks.recommend.baselines",
    "ItemKNN": "tasks.recommend.baselines",
    "Popularity": "tasks.recommend.baselines",
    "RatingMeans": "tasks.recommend.baselines",
    "beta_from": "beta.conversion",
    "Fold": "data.interactions.splits",
    "Split": "data.interactions.splits",
    "Reading": "data.interactions.reading",
    "Schema": "data.tables.schema",
    "CountVAE": "estimators.count",
    "ImageVAE": "estimators.image",
    "TableVAE": "estimators.table",
    "load": "estimators.registry",
    "InteractionVAE": "estimators.recommender",
    "Sweep": "estimators.sweep",
    "sweep": "estimators.sweep",
    "VAEDetector": "estimators.wrappers",
    "VAEImputer": "estimators.wrappers",
    "evaluate": "tasks.recommend.metrics",
    "quality": "report.quality_page",
    **dict.fromkeys(
        ("Binary", "Category", "Count", "Datetime", "Measured", "Ordinal", "Positive", "Real"), "data.tables.kinds"
    ),
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


if not TYPE_CHECKING:  # a type checker is to refuse other names

    def __getattr__(name: str) -> Any:
        """Import a public name at its first use: torch takes a second, and `elbowroom --help` needs none of it."""
        if name in _HOME:
            return getattr(importlib.import_module(f"elbowroom.{_HOME[name]}"), name)
        raise AttributeError(f"module 'elbowroom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
