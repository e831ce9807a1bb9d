"""The demos: train on bundled data, and save model, data and a report to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import elbowroom
from elbowroom.cli import recommenders
from elbowroom.cli.console import Answer
from elbowroom.cli.model_info import describe, facts_of
from elbowroom.data.datasets import msweb
from elbowroom.data.io.writers import write_columns
from elbowroom.errors import ParameterError
from elbowroom.tasks.recommend.baselines import side_by_side

DIGITS: dict[str, Any] = {"n_latents": 10, "body": "mlp", "random_state": 0}
CLICKS: dict[str, Any] = {
    "n_latents": 50,
    "hidden": (200,),
    "beta": 0.05,
    "dropout": 0.3,
    "learning_rate": 3e-3,
    "epochs": 20,
    "random_state": 0,
}
METRICS = ("ndcg@10", "recall@20[plain]", "coverage@20")


def demo(what: str, out: str, verbose: bool) -> Answer:
    """Train on bundled data and write model, data and report to a folder."""
    run, files = DEMOS[what]
    folder = Path(out)
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= files):
        raise ParameterError("the demo writes to a new folder", f"{out} has other files", "Choose another with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    return run(folder, verbose)


def digits(folder: Path, verbose: bool) -> Answer:
    """Train on images of digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = data.images.astype(np.uint8)
    model = _fitted(elbowroom.ImageVAE(**DIGITS, verbose=verbose), images, folder)
    np.savez_compressed(folder / "digits.npz", images=images, digit=data.target)
    model.report(images, folder / "report.html", labels=data.target, label_name="digit")
    facts = {"rows": len(images), **facts_of(str(folder / "model"))}
    tries = [
        f"elbowroom sample {folder / 'model'} -n 64 --mean --out {folder / 'new.png'}",
        f"elbowroom score {folder / 'model'} {folder / 'digits.npz'}",
    ]
    return _answer(folder, folder / "digits.npz", facts, describe(facts), tries)


def recommend(folder: Path, verbose: bool) -> Answer:
    """Train on clicks on the pages of a web site, and compare with baselines on new users."""
    split = elbowroom.Split.strong(msweb(), random_state=0)
    model = _fitted(elbowroom.InteractionVAE(**CLICKS, verbose=verbose), split.train, folder)
    write_columns(str(folder / "clicks.csv"), _clicks(split.test))
    model.report(split.test, folder / "report.html")
    evaluations, _, chosen = side_by_side(model, split.test, METRICS, split.valid)
    facts = {"rows": split.train.shape[0], **facts_of(str(folder / "model")), "baselines": chosen}
    text = f"{describe(facts)}\n\n{split.name}\n{chosen}\n{recommenders.table(evaluations)}"
    facts["metrics"] = {name: evaluation.columns() for name, evaluation in evaluations.items()}
    tries = [
        f"elbowroom recommend {folder / 'model'} {folder / 'clicks.csv'} -n 5 --out {folder / 'lists.csv'}",
        f"elbowroom evaluate {folder / 'model'} {folder / 'clicks.csv'}",
    ]
    return _answer(folder, folder / "clicks.csv", facts, text, tries)


def _clicks(fold: elbowroom.Fold) -> dict[str, np.ndarray]:
    pairs = (fold.fold_in + fold.held_out).tocoo()
    return {"user": pairs.row, "item": pairs.col}


def _fitted(model: Any, X: Any, folder: Path) -> Any:
    model.fit(X)
    if not model.history_.complete:
        raise KeyboardInterrupt
    model.save(folder / "model")
    return model


def _answer(folder: Path, data: Path, facts: dict[str, Any], text: str, tries: list[str]) -> Answer:
    paths = {"model": str(folder / "model"), "report": str(folder / "report.html"), "data": str(data)}
    lines = [text, "", f"Open {paths['report']} in a browser. Then try:", *(f"  {command}" for command in tries)]
    return Answer({**paths, **facts}, "\n".join(lines))


DEMOS: dict[str, tuple[Callable[[Path, bool], Answer], set[str]]] = {
    "digits": (digits, {"model", "report.html", "digits.npz"}),
    "recommend": (recommend, {"model", "report.html", "clicks.csv"}),
}
