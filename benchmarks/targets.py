"""Are target rates and target distortions met, from both sides, without swinging?

    python benchmarks/targets.py
    python benchmarks/targets.py --data digits counts

For every data set a model at beta = 1 is trained first; the targets are 0.5 and 1.5 times its rate, its distortion plus
half of its rate, its distortion minus a fifth of its rate, and a rate that no model of this size can have. All figures
are of the training rows. "turns" counts how often beta changed its direction by more than 5 % over the run's epochs.
"""

import argparse
import os
import warnings
from typing import Any

import numpy as np

from harness import datasets

MODELS: dict[str, dict[str, Any]] = {
    "digits": {"n_latents": 10, "body": "mlp", "epochs": 100},
    "mnist": {"n_latents": 20, "body": "mlp", "hidden": (300, 300), "binarize": "sample", "epochs": 10},
    "counts": {"n_latents": 8, "epochs": 60},
}


def rows(name: str) -> np.ndarray:
    """Training rows: images, or counts of 5,000 cells and 200 genes with five factors and a library size."""
    if name != "counts":
        return datasets.rows(name, "test")[0]
    generator = np.random.default_rng(0)
    signal = generator.normal(size=(5000, 5)) @ generator.normal(size=(5, 200)) * 0.4
    return generator.poisson(np.exp(signal + generator.normal(0, 0.3, (5000, 1)) + generator.normal(0, 1, 200)))


def fit(name: str, x: np.ndarray, beta: Any) -> Any:
    """A model of this data at a beta."""
    import elbowroom

    kind = elbowroom.CountVAE if name == "counts" else elbowroom.ImageVAE
    return kind(**MODELS[name], beta=beta, random_state=0).fit(x)


def turns(betas: list[float]) -> int:
    """Changes of direction of log beta that are larger than 5 %."""
    found, way, edge = 0, 0, np.log(betas[0])
    for place in np.log(betas):
        if way and (place - edge) * way < -0.05:
            found, way, edge = found + 1, -way, place
        elif abs(place - edge) > 0.05 or (place - edge) * way > 0:
            way, edge = way or int(np.sign(place - edge)), place
    return found


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(f"{'data':>8} {'target':>32} {'found':>8} {'error':>8} {'beta':>9} {'turns':>5}  beta over the run")
    for name in options.data:
        if not datasets.there(name):
            print(f"{name:>8} skipped: it is not in {datasets.folder()} (set ELBOWROOM_DATA)")
            continue
        x = rows(name)
        base = fit(name, x, 1.0).diagnosis_
        goals = [("rate", 0.5 * base.rate), ("rate", 1.5 * base.rate), ("rate", 50 * base.rate)]
        goals += [("distortion", base.distortion + share * base.rate) for share in (0.5, -0.2)]
        for kind, nats in goals:
            model = fit(name, x, f"target{kind}:nats={nats:.4g}")
            found, betas = getattr(model.diagnosis_, kind), model.history_["beta"]
            way = " ".join(f"{beta:.3g}" for beta in betas[:: max(1, len(betas) // 8)])
            said = "" if not model.history_.notes else "  note: " + model.history_.notes[-1]
            print(
                f"{name:>8} {f'{kind} {nats:.4g}':>32} {found:8.4g} {100 * (found / nats - 1):7.2f}% "
                f"{betas[-1]:9.4g} {turns(betas):5d}  {way}{said}",
                flush=True,
            )


if __name__ == "__main__":
    main()
