"""Small estimators and real data that several test files share."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.datasets import load_digits, load_wine

from elbowroom import CountVAE, ImageVAE, TableVAE

WINE = load_wine().data
NAMES = list(load_wine().feature_names)
DIGITS = load_digits().images
COUNTS = np.random.default_rng(0).poisson(2.0, (60, 5))


def mixed(n: int = 60) -> pd.DataFrame:
    """A table with a column of every kind, for what is known of its rows."""
    random = np.random.default_rng(0)
    whole = random.permutation(np.arange(n)).tolist()
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(k) for k in whole]
    clock = pd.Timestamp("2024-05-05 12:00", tz="Europe/Berlin")
    return pd.DataFrame(
        {
            "i": random.integers(0, 11, n),
            "x": random.normal(size=n),
            "income": np.exp(random.normal(9, 1, n)),
            "tenth": np.round(random.random(n) * 100) / 10,
            "many": random.integers(0, 5000, n),
            "big": [2**60 + k for k in whole],
            "short": random.normal(size=n).astype("f4"),
            "churn": random.choice(["Yes", "No"], n),
            "flag": random.random(n) < 0.5,
            "zero": random.integers(0, 2, n),
            "size": pd.Categorical(random.choice(["s", "m", "l"], n), ["s", "m", "l"], ordered=True),
            "stamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 10**15, n), "ns"),
            "seen": clock + pd.to_timedelta(random.integers(0, 80_000, n), "s"),
            "born": pd.to_datetime(days),
            "day": days,
            "cents": [Decimal(k) / 100 for k in whole],
            "gaps": np.where(np.arange(n) % 5 == 0, np.nan, random.normal(size=n)),
            "empty": pd.Series([None] * n, dtype=object),
            "a": random.normal(size=n),
            "b=c": random.normal(size=n),
            "b=c=d": random.normal(size=n),
            "word": random.choice(["x=y", "NA", "1"], n),
        }
    )


def table(**settings: Any) -> TableVAE:
    return TableVAE(**{"n_latents": 2, "hidden": (16,), "epochs": 5, "random_state": 0, **settings})


def counts(**settings: Any) -> CountVAE:
    return CountVAE(**{"n_latents": 2, "hidden": (16,), "epochs": 5, "random_state": 0, **settings})


def images(**settings: Any) -> ImageVAE:
    small = {"n_latents": 2, "hidden": (8,), "channels": (4,), "epochs": 2, "random_state": 0}
    return ImageVAE(**{**small, **settings})


def matrix(users: int = 20, items: int = 12, density: float = 0.3, seed: int = 0, high: int = 1) -> sparse.csr_matrix:
    """Random interactions, some rows without any, with whole values from 1 to `high`."""
    random = np.random.default_rng(seed)
    dense = (random.random((users, items)) < density) * random.integers(1, high + 1, (users, items))
    dense[:: max(2, users // 3)] = 0
    return sparse.csr_matrix(dense.astype(np.float32))
