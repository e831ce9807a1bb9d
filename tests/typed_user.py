"""What a program of somebody else's knows of the public types. `make types` checks it, as strictly as mypy can.

Each line with an ignored error is one that a type checker has to refuse. Parameters that an estimator lacks are not
refused: scikit-learn's base classes have no types, and may have any.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import elbowroom
from elbowroom import (
    EASE,
    CountVAE,
    Fold,
    ImageVAE,
    InteractionVAE,
    Positive,
    Reading,
    Real,
    Schema,
    Split,
    Sweep,
    TableVAE,
    VAEDetector,
    VAEImputer,
    beta_from,
    evaluate,
    load,
    quality,
    sweep,
)


def table(X: NDArray[np.float64], folder: Path) -> float:
    """Fit, look, save."""
    model = TableVAE(n_latents=3, hidden=(32,), epochs=20, beta="0.1..10", random_state=0, verbose=True).fit(X)
    assert_type(model, TableVAE)
    assert_type(model.at(2.0), TableVAE)
    assert_type(model.transform(X), np.ndarray)
    assert_type(model.score_samples(X, n_draws=4), np.ndarray)
    assert_type(model.score(X), float)
    assert_type(model.save(folder / "model"), Path)
    assert_type(model.save("model"), Path)
    assert_type(model.report(X, folder / "report.html"), Path)
    assert_type(model.history_.best["loss"], float)
    assert_type(model.diagnosis_.rate, float)
    curve = model.curve(X, [0.5, 1.0])
    assert_type(curve.rate, np.ndarray)
    assert_type(curve.knee(), float)
    assert_type(model.pick(X, "rate:nats=5"), float)
    distortion, rate = model.distortion_and_rate(X)
    return float((distortion + rate).mean())


def schema(frame: Any) -> TableVAE:
    """The kinds of columns, some of them chosen."""
    found = Schema.infer(frame)
    assert_type(found, Schema)
    found["income"] = Positive(low=0.0)
    income = found["income"]
    if isinstance(income, Real):
        assert_type(income.low, float | None)
    return TableVAE(schema=found).fit(frame)


def others(counts: NDArray[np.int64], images: NDArray[np.uint8], folder: str) -> None:
    """Other kinds of data, other models, and wrappers."""
    assert_type(CountVAE(batch_key="batch").fit(counts), CountVAE)
    assert_type(ImageVAE(likelihood="bernoulli").fit(images).sample(3), Any)
    found = sweep(TableVAE(), counts, [0.5, 2], folder, jobs=2)
    assert_type(found, Sweep)
    assert_type(found.betas, list[float])
    assert_type(Sweep.load(folder), Sweep)
    assert_type(load(folder).score(counts), float)
    assert_type(VAEDetector().fit(counts).predict(counts), np.ndarray)
    assert_type(VAEImputer().fit(counts), VAEImputer)
    assert_type(beta_from("pytorch-vae", 0.00025, features=784), float)
    assert_type(quality(counts, counts).report(), Path)


def recommend(clicks: Any) -> None:
    """Interactions."""
    split = Split.strong(clicks, random_state=0)
    assert_type(split, Split)
    model = InteractionVAE(reading=Reading(user="user", item="item"), epochs=2).fit(split.train)
    assert_type(model, InteractionVAE)
    assert_type(EASE().fit(split.train), EASE)
    assert_type(split.valid, Fold)
    assert_type(str(evaluate(model, split.valid)), str)


def refused(X: NDArray[np.float64]) -> None:
    """What a type checker has to find."""
    elbowroom.TabelVAE()  # type: ignore[attr-defined]
    TableVAE(n_latents="three")  # type: ignore[arg-type]
    TableVAE().fit(X).transform(X, labels=X)  # type: ignore[call-arg]
    TableVAE().fit(X).score_samples(X, n_draws="many")  # type: ignore[arg-type]
    sweep(TableVAE(), X, 0.5)  # type: ignore[arg-type]
