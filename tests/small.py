"""Small estimators and real data that several test files share."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits, load_wine

from elbowroom import CountVAE, ImageVAE, TableVAE

WINE = load_wine().data
NAMES = list(load_wine().feature_names)
DIGITS = load_digits().images
COUNTS = np.random.default_rng(0).poisson(2.0, (60, 5))


def table(**settings: Any) -> TableVAE:
    return TableVAE(**{"n_latents": 2, "hidden": (16,), "epochs": 5, "random_state": 0, **settings})


def counts(**settings: Any) -> CountVAE:
    return CountVAE(**{"n_latents": 2, "hidden": (16,), "epochs": 5, "random_state": 0, **settings})


def images(**settings: Any) -> ImageVAE:
    small = {"n_latents": 2, "hidden": (8,), "channels": (4,), "epochs": 2, "random_state": 0}
    return ImageVAE(**{**small, **settings})
