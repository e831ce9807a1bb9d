"""Test log-likelihood on dynamically binarised MNIST, beside the published figures of the same model.

    python benchmarks/mnist.py --prior standard
    python benchmarks/mnist.py --prior vamp:components=500

The model is the gated MLP 784-300-300-40 of the VampPrior paper (Tomczak & Welling 2018, table 1: 84.45 nats with the
standard prior, 82.43 with the Vamp prior, after up to 2,000 epochs). Training images are binarised anew in every
epoch, test images once with a fixed seed. Nothing is tuned on test rows.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("ELBOWROOM_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with mnist/mnist.npz (default: %(default)s)")
    parser.add_argument("--prior", default="standard")
    parser.add_argument("--beta", default="warmup:fraction=0.2")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--objective", default="elbo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000, help="test rows that are scored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path)
    return parser.parse_args()


def cpu_minutes() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) / 60


def main() -> None:
    """Train, score and print one JSON line."""
    options = parse()
    import torch
    from elbowroom import ImageVAE

    torch.set_num_threads(options.threads)
    path = options.data / "mnist" / "mnist.npz"
    if not path.exists():
        print(f"skipped: {path} is not there (set ELBOWROOM_DATA)")
        return
    with np.load(path) as arrays:
        train, test = arrays["x_train"], arrays["x_test"]
    test = 255 * (np.random.default_rng(0).random(test.shape) < test / 255).astype(np.uint8)
    model = ImageVAE(
        40,
        body="mlp",
        hidden=(300, 300),
        gated=True,
        binarize="sample",
        prior=options.prior,
        beta=options.beta,
        objective=options.objective,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        validation_fraction=1 / 6,
        random_state=options.seed,
        verbose=True,
    )
    started, cpu = time.perf_counter(), cpu_minutes()
    model.fit(train, checkpoint=options.checkpoint)
    trained, cpu_trained = time.perf_counter(), cpu_minutes()
    result = model.log_likelihood(test[: options.rows], n_draws=options.draws)
    print(
        json.dumps(
            {
                **{k: str(v) for k, v in vars(options).items() if k not in ("data", "checkpoint")},
                "best_epoch": model.history_.best["epoch"],
                "test_elbo": round(float(model.score_samples(test[: options.rows].astype(np.float32)).mean()), 3),
                "test_nll": round(-result.mean, 3),
                "standard_error": round(result.standard_error, 3),
                "effective_sample_size": round(result.effective_sample_size, 1),
                "active_units": model.diagnosis_.n_active,
                "train_minutes": round((trained - started) / 60, 2),
                "train_cpu_minutes": round(cpu_trained - cpu, 2),
                "score_minutes": round((time.perf_counter() - trained) / 60, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
