"""Whether target rates and distortions are met, from both sides, without oscillation.

    python benchmarks/targets.py
    python benchmarks/targets.py --data digits counts

For every data set a model at beta = 1 is trained first; the targets are 0.5 and 1.5 times its rate, its distortion plus
half of its rate, its distortion minus a fifth of its rate, and a rate that is out of reach. All figures are of the
training rows. "turns" is the number of changes of beta's direction by more than 5 % over the epochs.

    python benchmarks/targets.py --fixed

trains short runs at fixed betas instead, takes the distortion of one of them as a target, and prints the beta of the
controller and the largest fixed beta that meets the target.
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

# Short runs, in which distortions lag: estimator, settings, and the fixed beta whose distortion is the target.
FIXED: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    "coins": ("TableVAE", {"n_latents": 2, "epochs": 30}, (0.1, 0.5)),
    "digits": ("ImageVAE", {"n_latents": 4, "body": "mlp", "hidden": (128,), "epochs": 20}, (0.5, 2)),
    "digits, 156 steps": ("ImageVAE", {"n_latents": 8, "body": "mlp", "hidden": (128,), "epochs": 12}, (0.5, 2)),
    "counts": ("CountVAE", {"n_latents": 4, "hidden": (64,), "likelihood": "poisson", "epochs": 30}, (0.5, 2)),
}
GRID = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)


def short_rows(name: str) -> np.ndarray:
    """Rows of the short runs: fair coins, digits, counts with three factors."""
    generator = np.random.default_rng(0)
    if name == "coins":
        return generator.integers(0, 2, (2000, 8)).astype(float)
    if name == "counts":
        return generator.poisson(np.exp(generator.normal(size=(1000, 3)) @ generator.normal(size=(3, 30)) * 0.5 + 0.5))
    return datasets.rows("digits", "test")[0]


def compare_with_fixed() -> None:
    """Print the betas for target distortions, and the largest fixed betas that meet them."""
    import elbowroom

    names = ("target", "largest", "found", "ratio", "distortion", "off", "rate")
    print(f"{'data':>18} " + " ".join(f"{name:>{n}}" for name, n in zip(names, (9, 8, 8, 6, 10, 7, 7), strict=True)))
    for name, (kind, settings, chosen) in FIXED.items():
        x = short_rows(name.split(",")[0])

        def trained(beta: Any, kind: str = kind, settings: dict[str, Any] = settings, x: np.ndarray = x) -> Any:
            return getattr(elbowroom, kind)(**settings, beta=beta, random_state=0).fit(x)

        fixed = {beta: trained(beta).diagnosis_.distortion for beta in GRID}
        for beta in chosen:
            nats = fixed[beta]
            largest = max(b for b, distortion in fixed.items() if distortion <= nats)
            model = trained(f"targetdistortion:nats={nats:.6g}")
            found, state = model.history_.final_beta, model.diagnosis_
            print(
                f"{name:>18} {nats:9.3f} {largest:8.3g} {found:8.3g} {found / largest:6.2f} {state.distortion:10.3f} "
                f"{(state.distortion - nats) / (found * state.rate):+7.3f} {state.rate:7.2f}",
                flush=True,
            )


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
    parser.add_argument("--fixed", action="store_true", help="short runs beside fixed betas")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    if options.fixed:
        compare_with_fixed()
        return
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
