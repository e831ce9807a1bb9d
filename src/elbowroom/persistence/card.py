"""The model card: what was trained on what, how good it is, how to use it."""

from __future__ import annotations

from typing import Any

from elbowroom.persistence.artefact import libraries


def card(estimator: Any) -> str:
    """The card of a fitted estimator, in Markdown."""
    diagnosis = estimator.diagnosis_
    here = "" if estimator.model_.conditioning is None else f" at beta = {diagnosis.beta:g}"
    lines = [
        f"# {type(estimator).__name__}",
        "",
        "A variational autoencoder trained with [Elbowroom](https://pypi.org/project/elbowroom/).",
        "",
        "```python",
        "import elbowroom",
        "",
        'model = elbowroom.load("path/to/this/folder")',
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {str(value).replace('|', ' ')} |" for name, value in facts(estimator).items()),
        "",
        "## Quality (nats per row)",
        "",
        *_quality(estimator),
        "",
        f"Active latents{here}: {diagnosis.n_active} of {len(diagnosis.active)}. {diagnosis.verdict}",
        "",
        *(f"- {note}" for note in estimator.history_.notes),
        "",
        "Made with " + ", ".join(f"{name} {version}" for name, version in libraries().items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def facts(estimator: Any) -> dict[str, str]:
    """What there is to say about a fitted estimator, by name."""
    history = estimator.history_
    conditioning, beta = estimator.model_.conditioning, history["beta"]
    stands = (
        f" (from {beta[0]:.3g} to {beta[-1]:.3g})" if conditioning is None else f", stands at {conditioning.beta:g}"
    )
    parameters = sum(p.numel() for p in estimator.model_.parameters())
    weight = getattr(estimator, "neighbour_weight", 0)
    return {
        "estimator": type(estimator).__name__,
        "features": " x ".join(map(str, getattr(estimator, "image_shape_", (estimator.model_.likelihood.features,)))),
        "likelihood": f"{estimator.likelihood_} ({estimator.likelihood_reason_})",
        "latents": f"{estimator.n_latents}, {estimator.covariance} covariance, {estimator.prior} prior",
        "beta": f"{estimator.beta_}{stands}",
        **({"lists": f"by the model, and by neighbours with a weight of {weight:g}"} if weight else {}),
        "objective": str(estimator.objective),
        "epochs": f"{len(history)} of {estimator.epochs_}, best {history.best['epoch']:.0f}",
        "batch size": str(estimator.batch_size),
        "parameters": f"{parameters:,}",
        "training time": f"{history['seconds'][-1]:.1f} s",
        "seed": str(estimator.seed_),
    }


def _quality(estimator: Any) -> list[str]:
    """Distortion and rate as a table; those of a range of beta at one, and their means over the range."""
    best, diagnosis = estimator.history_.best, estimator.diagnosis_
    columns = {
        "training rows": [f"{best[name]:.3f}" for name in ("distortion", "rate")],
        "held-out rows": [_number(best, f"held_out_{name}") for name in ("distortion", "rate")],
    }
    if estimator.model_.conditioning is not None:
        columns = {f"{name}, mean over the range": values for name, values in columns.items()}
        at_one = {f"training rows, beta = {diagnosis.beta:g}": [f"{diagnosis.distortion:.3f}", f"{diagnosis.rate:.3f}"]}
        columns = at_one | columns
    lines = ["", "distortion", "rate"], *([name, *values] for name, values in columns.items())
    head, *rows = (f"| {' | '.join(cells)} |" for cells in zip(*lines, strict=True))
    return [head, "|" + "---|" * len(lines), *rows]


def _number(record: dict[str, float], name: str) -> str:
    return f"{record[name]:.3f}" if name in record else "-"
