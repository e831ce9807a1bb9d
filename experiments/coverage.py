"""Do 95 % intervals cover 95 % of the time? Simulations whose truth is known.

    python experiments/coverage.py                             # scores, curves and comparisons (minutes)
    python experiments/coverage.py imputation --repeats 200    # multiple imputation (an hour)

Scores and curves: a model is trained once, and its mean over 200,000 new rows of the law that the rows come from is the
truth. 1,000 samples of 400 rows each give an estimate and a standard error; "covered" is the share of samples whose
estimate +- 1.96 standard errors holds the truth. Comparisons: two recommenders, evaluated for all users of a log;
samples of 400 of them.

Imputation: y = x + w + noise, w = x / 2 + noise, 300 rows; w is missing more often where y is large. Every repeat draws
new rows, makes 5 imputations, fits the regression of y on x and w to each, and pools (Rubin 1987). "one model" are
`impute(rows, n=5)`; "bootstrap" fits a model to a bootstrap of the rows for each imputation. "complete" is the
regression on the rows before any cell was missing, "complete rows" that on the rows without a missing cell. Models are
trained for 100 epochs, and have all other settings at their defaults.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

SAMPLES, SIZE, POPULATION = 1000, 400, 200_000
IMPUTATIONS, ROWS = 5, 300
TRUTH = {"x": 1.0, "w": 1.0}


def coins(n: int, generator: np.random.Generator) -> np.ndarray:
    """Rows (n, 6) of two factors behind coins: 64 patterns, so that rows repeat."""
    logits = generator.normal(size=(n, 2)) @ np.array([[2.0, 2, 2, 0, 0, 0], [0, 0, 0, 2, 2, 2]])
    return (generator.random((n, 6)) < 1 / (1 + np.exp(-logits))).astype(float)


def numbers(n: int, generator: np.random.Generator) -> np.ndarray:
    """Rows (n, 5) of two factors with Gaussian noise."""
    return generator.normal(size=(n, 2)) @ np.linspace(-1, 1, 10).reshape(2, 5) + generator.normal(size=(n, 5))


LAWS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {"coins": coins, "numbers": numbers}


def share_covered(values: np.ndarray, truth: float, generator: np.random.Generator) -> float:
    """The share of samples of values (n,) whose interval holds the truth."""
    from elbowroom.tasks.score import standard_error

    samples = (values[generator.choice(len(values), SIZE, replace=False)] for _ in range(SAMPLES))
    return float(np.mean([abs(sample.mean() - truth) < 1.96 * standard_error(sample) for sample in samples]))


def anew(sample: int, content: np.ndarray, *more: Any) -> np.ndarray:
    """Noise of rows as it would be if their numbers were others: it depends on them alone, in all samples."""
    from elbowroom.utils.randomness import normal_by_row

    found: np.ndarray = normal_by_row(content + np.float32(1000 * (sample + 1)), *more)
    return found


def scores() -> Iterator[tuple[str, float]]:
    """Coverage of the errors of a model's score and of a range's curve, on samples scored by themselves."""
    from elbowroom import TableVAE

    for name, law in LAWS.items():
        generator = np.random.default_rng(0)
        model = TableVAE(2, epochs=60, random_state=0).fit(law(2000, generator))
        ranged = TableVAE(2, epochs=60, beta="0.1..4", random_state=0).fit(law(2000, generator))
        everybody = law(POPULATION, generator)
        truth = model.score(everybody)
        curve = ranged.curve(everybody, [0.1, 1.0, 4.0])
        inside, along = 0, np.zeros((2, 3))
        for i in range(SAMPLES):
            sample = law(SIZE, generator)
            with patch("elbowroom.tasks.score.normal_by_row", partial(anew, i)):
                found, columns = model.diagnose(sample), ranged.curve(sample, [0.1, 1.0, 4.0]).columns()
            inside += abs(-found.distortion - found.rate - truth) < 1.96 * found.standard_error
            for j, part in enumerate(("rate", "distortion")):
                along[j] += np.abs(columns[part] - getattr(curve, part)) < 1.96 * np.array(columns[f"{part}_error"])
        yield f"{name}: score", inside / SAMPLES
        for i, part in enumerate(("rate", "distortion")):
            for beta, covered in zip(curve.betas, along[i] / SAMPLES, strict=True):
                yield f"{name}: {part} at beta {beta:g}", covered


def comparisons() -> Iterator[tuple[str, float]]:
    """Coverage of paired differences of two recommenders over users: the truth is that of all users held out."""
    from elbowroom import ItemKNN, Popularity, Split
    from elbowroom import evaluate as evaluated
    from elbowroom.data.datasets import msweb

    split = Split.strong(msweb(), held_out=10_000, random_state=0)
    found = [
        evaluated(model.fit(split.train), split.test, ["ndcg@10", "recall@20[plain]"])
        for model in (ItemKNN(), Popularity())
    ]
    generator = np.random.default_rng(0)
    for metric in found[0].values:
        difference = found[0].values[metric] - found[1].values[metric]
        yield f"clicks: difference of {metric}", share_covered(difference, float(difference.mean()), generator)


def regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and their variances of y on the columns of x and a constant, without that of the constant."""
    design = np.column_stack([np.ones(len(x)), x])
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ y
    residual = y - design @ found
    return found[1:], (np.diag(inverse) * (residual @ residual) / (len(x) - design.shape[1]))[1:]


def pooled(estimates: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and half widths of 95 % intervals from m analyses (m, k) by Rubin's rules."""
    from scipy import stats

    m, within = len(estimates), variances.mean(0)
    between = estimates.var(0, ddof=1)
    total = within + (1 + 1 / m) * between
    freedom = (m - 1) * (1 + within / ((1 + 1 / m) * between)) ** 2
    return estimates.mean(0), stats.t.ppf(0.975, freedom) * np.sqrt(total)


def table(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 3) of x, w and y, complete, and with cells of w missing more often where y is large (40 % of all)."""
    x = generator.normal(size=n)
    w = 0.5 * x + generator.normal(size=n)
    rows = np.column_stack([x, w, TRUTH["x"] * x + TRUTH["w"] * w + generator.normal(size=n)])
    holes = rows.copy()
    holes[generator.random(n) < 1 / (1 + np.exp(0.5 - rows[:, 2])), 1] = np.nan
    return rows, holes


def repeat(seed: int) -> dict[str, list[tuple[bool, float, float]]]:
    """Of both coefficients by every way: whether its interval holds the truth, its estimate and half its width."""
    import torch

    from elbowroom import TableVAE

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    generator = np.random.default_rng(seed)
    rows, holes = table(ROWS, generator)

    def fitted(data: np.ndarray, state: int) -> Any:
        return TableVAE(2, schema="infer", epochs=100, random_state=state).fit(data)

    def bootstrapped(state: int) -> np.ndarray:
        again = holes[generator.integers(0, ROWS, ROWS)]
        found: np.ndarray = fitted(again, state).impute(holes, n=1, random_state=state)[0]
        return found

    def of_many(tables: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return pooled(*map(np.array, zip(*(regression(t[:, :2], t[:, 2]) for t in tables), strict=True)))

    def of_one(complete: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        estimate, variance = regression(complete[:, :2], complete[:, 2])
        return estimate, 1.96 * np.sqrt(variance)

    ways = {
        "complete": of_one(rows),
        "complete rows": of_one(holes[~np.isnan(holes).any(1)]),
        "one model": of_many(fitted(holes, seed).impute(holes, n=IMPUTATIONS, random_state=seed)),
        "bootstrap": of_many([bootstrapped(IMPUTATIONS * seed + i) for i in range(IMPUTATIONS)]),
    }
    truth = np.array([*TRUTH.values()])
    return {
        way: [(bool(abs(e - t) < h), float(e), float(h)) for e, h, t in zip(estimate, half, truth, strict=True)]
        for way, (estimate, half) in ways.items()
    }


def imputation(repeats: int, jobs: int) -> None:
    """Print coverage, mean estimate and mean half width of pooled intervals."""
    with ProcessPoolExecutor(jobs) as pool:
        found = list(pool.map(repeat, range(repeats)))
    names = ("imputation", "coefficient", "covered", "estimate", "half width")
    print(" ".join(f"{name:>14}" for name in names) + f"   ({repeats} repeats)")
    for way in found[0]:
        for i, name in enumerate(TRUTH):
            covered, estimate, half = np.array([each[way][i] for each in found]).mean(0)
            print(f"{way:>14} {name:>14} {covered:14.3f} {estimate:14.3f} {half:14.3f}")


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=("errors", "imputation"), default="errors")
    parser.add_argument("--repeats", type=int, default=200, help="of the simulation of imputation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.simplefilter("ignore")
    if "errors" in options.what:
        print(f"{'interval of':>40} {'covered':>8}   ({SAMPLES} samples of {SIZE} rows)")
        for part in (scores, comparisons):
            for name, covered in part():
                print(f"{name:>40} {covered:8.3f}", flush=True)
    if "imputation" in options.what:
        imputation(options.repeats, options.jobs)


if __name__ == "__main__":
    main()
