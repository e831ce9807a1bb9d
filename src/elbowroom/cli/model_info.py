"""Facts of a saved model, read from its folder without building it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elbowroom.cli.console import in_flags, listed, number
from elbowroom.errors import ArtefactError, counted

NUMBERS = ("distortion", "rate", "loss", "held_out_distortion", "held_out_rate", "held_out_loss")


def facts_of(model: str) -> dict[str, Any]:
    """The facts of a saved model.

    Raises
    ------
    ArtefactError
        If the folder has no model, or a corrupted one.
    """
    from elbowroom.estimators.registry import ESTIMATORS
    from elbowroom.persistence import artefact
    from elbowroom.persistence.estimator import opened

    saved = artefact.read(model)
    opened(ESTIMATORS, saved, model)  # which validates everything shown
    try:
        parameters = sum(tensor.numel() for tensor in saved.weights.values())
        return {**_facts(saved.config, saved.history), "weights": parameters, "libraries": saved.config["libraries"]}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        got = f"its description is incomplete ({error!r})"
        raise ArtefactError(f"{model} must be a complete model", got, "Save the model again.") from error


def _facts(config: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    from elbowroom.training.history import History

    history = History.of(saved)
    fitted, parameters, diagnosis = config["fitted"], config["parameters"], config["diagnosis"]
    return {
        "estimator": config["estimator"],
        "shape": fitted.get("image_shape_") or [fitted.get("n_features_in_")],
        "columns": fitted.get("feature_names_in_") or fitted.get("var_names_"),
        "context": fitted.get("context_categories_"),
        "likelihood": fitted["likelihood_"],
        "likelihood_reason": fitted["likelihood_reason_"],
        "schema": schema_lines(fitted.get("schema_")),
        "n_latents": parameters["n_latents"],
        "active_latents": sum(diagnosis["active"]),
        "prior": _prior(parameters["prior"], config["model"]["prior"]["class"]),
        "covariance": parameters["covariance"],
        "beta": parameters["beta"],
        "stands_at": None if (conditioning := config["model"].get("conditioning")) is None else conditioning["beta"],
        "objective": parameters["objective"],
        "epochs": len(history),
        "planned_epochs": fitted["epochs_"],
        "best_epoch": int(history.best["epoch"]),
        "complete": history.complete,
        "seconds": history.records[-1]["seconds"],
        "seed": fitted["seed_"],
        "best": {name: history.best[name] for name in NUMBERS if name in history.best},
        "verdict": in_flags(config["verdict"]),
        "history_notes": [in_flags(note) for note in history.notes],
    }


def schema_lines(form: Any) -> list[str]:
    """Lines on the kinds of a table's columns; empty for other data."""
    from elbowroom.data.tables.schema import Schema

    return [] if form is None else Schema.of(form).lines()


def _prior(wanted: str, part: str) -> str:
    """The prior parameter or, for "auto", the prior that was chosen."""
    from elbowroom.latents.priors import PRIORS

    return next(name for name, kind in PRIORS.items() if kind.__name__ == part) if wanted == "auto" else wanted


def describe(facts: Mapping[str, Any]) -> str:
    """The facts as text, one per line."""
    rows = f"{counted(facts['rows'], 'row')}, " if "rows" in facts else ""
    if "interactions" in facts:
        users, interactions = counted(facts["rows"], "user"), counted(facts["interactions"], "interaction")
        again = facts["events"] - facts["interactions"]
        rows = f"{users}, {interactions}{f' (and {again:,} that repeat one)' if again > 0 else ''}, "
    ended = "" if facts["complete"] else ", interrupted"
    best, over = facts["best"], "" if facts["stands_at"] is None else ", mean over the range"
    lines = [
        ("model", facts["estimator"]),
        ("data", f"{rows}{_shape(facts)}"),
        *(
            [("columns" * (i == 0), line) for i, line in enumerate(facts["schema"])]
            or [("likelihood", f"{_likelihood(facts['likelihood'])}: {facts['likelihood_reason']}")]
        ),
        ("latents", f"{facts['n_latents']}, {facts['covariance']} covariance, {facts['prior']} prior"),
        ("beta", f"{facts['beta']}{_stands(facts['stands_at'])}, objective {facts['objective']}"),
        ("epochs", f"{facts['epochs']} of {facts['planned_epochs']}{ended}, best {facts['best_epoch']}"),
        ("", f"{facts['seconds']:.1f} s, seed {facts['seed']}"),
        ("training", _quality(best, "") + over),
        *([("held out", _quality(best, "held_out_") + over)] if "held_out_rate" in best else []),
        ("verdict", facts["verdict"]),
        *(("note", note) for note in facts["history_notes"]),
    ]
    return listed(lines)


def _stands(beta: float | None) -> str:
    return "" if beta is None else f" (stands at {beta:.4g})"


def _shape(facts: Mapping[str, Any]) -> str:
    sizes = " x ".join(map(str, facts["shape"]))
    column = "item" if facts["estimator"] == "InteractionVAE" else "column"
    return f"images of {sizes}" if facts["estimator"] == "ImageVAE" else f"{sizes} {column}{'s' * (sizes != '1')}"


def _likelihood(likelihood: Any) -> str:
    if not isinstance(likelihood, Mapping):
        return str(likelihood)
    return ", ".join(f"{name} ({len(columns)})" for name, columns in likelihood.items())


def _quality(best: Mapping[str, float], part: str) -> str:
    distortion, rate = best[f"{part}distortion"], best[f"{part}rate"]
    return f"distortion {number(distortion)}, rate {number(rate)}, ELBO {number(-distortion - rate)} nats per row"
