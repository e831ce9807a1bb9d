"""The model card: what was trained on what, how good it is, how to use it."""

from __future__ import annotations

from typing import Any

from elbowroom.artefact import libraries


def card(estimator: Any) -> str:
    """The card of a fitted estimator, in Markdown."""
    best, diagnosis = estimator.history_.best, estimator.diagnosis_
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
        "| | training rows | held-out rows |",
        "|---|---|---|",
        f"| distortion | {best['distortion']:.3f} | {_number(best, 'held_out_distortion')} |",
        f"| rate | {best['rate']:.3f} | {_number(best, 'held_out_rate')} |",
        "",
        f"Active latents: {diagnosis.n_active} of {len(diagnosis.active)}. {diagnosis.verdict}",
        "",
        *(f"- {note}" for note in estimator.history_.notes),
        "",
        "Made with " + ", ".join(f"{name} {version}" for name, version in libraries().items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def facts(estimator: Any) -> dict[str, str]:
    """What there is to say about a fitted estimator, by name."""
    history = estimator.history_
    beta = estimator.beta_
    parameters = sum(p.numel() for p in estimator.model_.parameters())
    return {
        "estimator": type(estimator).__name__,
        "features": " x ".join(map(str, getattr(estimator, "image_shape_", (estimator.model_.likelihood.features,)))),
        "likelihood": f"{estimator.likelihood_} ({estimator.likelihood_reason_})",
        "latents": f"{estimator.n_latents}, {estimator.covariance} covariance, {estimator.prior} prior",
        "beta": f"{beta} (from {history['beta'][0]:.3g} to {history['beta'][-1]:.3g})",
        "objective": str(estimator.objective),
        "epochs": f"{len(history)} of {estimator.epochs_}, best {history.best['epoch']:.0f}",
        "batch size": str(estimator.batch_size),
        "parameters": f"{parameters:,}",
        "training time": f"{history['seconds'][-1]:.1f} s",
        "seed": str(estimator.seed_),
    }


def _number(record: dict[str, float], name: str) -> str:
    return f"{record[name]:.3f}" if name in record else "-"
