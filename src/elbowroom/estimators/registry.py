"""All estimators by name, and `load`, which opens what any of them saved."""

from __future__ import annotations

import os

from elbowroom.data import validation
from elbowroom.estimators.base import BaseVAE
from elbowroom.estimators.count import CountVAE
from elbowroom.estimators.image import ImageVAE
from elbowroom.estimators.recommender import InteractionVAE
from elbowroom.estimators.table import TableVAE
from elbowroom.persistence.estimator import restore

ESTIMATORS: dict[str, type[BaseVAE]] = {kind.__name__: kind for kind in (TableVAE, ImageVAE, CountVAE, InteractionVAE)}


def load(path: str | os.PathLike[str]) -> BaseVAE:
    """Load a fitted estimator from the folder that its `save` wrote.

    Raises
    ------
    ArtefactError
        If the folder is missing, broken, foreign, hostile or from another version. Nothing in it is run.
    """
    return restore(ESTIMATORS, validation.path_of(path, "path"))
