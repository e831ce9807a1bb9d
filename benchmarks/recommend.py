"""Recommendations beside popularity, item-kNN and EASE, on held-out interactions, with paired tests.

    python benchmarks/recommend.py --data msweb
    python benchmarks/recommend.py --data gowalla

msweb is split by users (strong generalisation), gowalla by LightGCN's split of each user's interactions. The settings
were chosen on validation interactions (`--choose` scores on these), which are cut from those of training; on msweb
those of item-kNN and EASE are chosen in each run (`EASE.choose`). EASE inverts a matrix (items, items): on gowalla it
needs 7 GB and is left out without `--ease`, which may name lambdas, to choose from.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

CHOSEN_LAMBDA = 50.0  # on gowalla, of 50, 100 and 200
MODELS: dict[str, dict[str, Any]] = {
    "msweb": {"n_latents": 50, "hidden": (200,), "beta": 0.05, "dropout": 0.3, "learning_rate": 3e-3, "epochs": 80},
    "gowalla": {
        "hidden": (400,),
        "dropout": 0.7,
        "learning_rate": 2e-3,
        "epochs": 10,
        "average": False,
        "precision": "bfloat16",
    },
}
NEIGHBOURS = {"msweb": 0.0, "gowalla": 4.0}
WEIGHTS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)  # of neighbours, to choose from
METRICS = {
    "msweb": ("ndcg@10", "recall@20[plain]", "coverage@20", "popularity@20"),
    "gowalla": ("recall@20[plain]", "ndcg@20", "coverage@20", "popularity@20"),
}


class Alone:
    """The filter of neighbours without a model."""

    def fit(self, X: Any) -> Any:
        """Learn from a CSR matrix (users, items)."""
        from elbowroom.tasks.recommend.graph_filter import Neighbours

        self.neighbours = Neighbours(X)
        return self

    def rank(self, histories: Any, n: int) -> np.ndarray:
        """Positions (users, n) of the best items that are not in CSR histories (users, items)."""
        from elbowroom.tasks.recommend.lists import lists

        return lists(self.neighbours, histories, n).positions


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=MODELS, default="msweb")
    parser.add_argument("--choose", action="store_true", help="score on validation interactions instead of test ones")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ease", type=float, nargs="*", metavar="LAMBDA", help="EASE on gowalla too")
    return parser.parse_args()


def split_of(name: str) -> Any:
    """The split of a data set, or None if its files are missing."""
    from elbowroom import Split
    from elbowroom.data.datasets import msweb
    from scipy import sparse

    if name == "msweb":
        return Split.strong(msweb(), held_out=0.1, random_state=0)
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("ELBOWROOM_DATA", beside)) / "gowalla"
    if not (folder / "train.npz").exists():
        return None
    train, test = (sparse.load_npz(folder / f"{part}.npz") for part in ("train", "test"))
    return Split.per_user(train, test, valid=0.1, random_state=0)


def main() -> None:
    """Train, evaluate, and print the table."""
    options = parse()
    import torch
    from elbowroom import EASE, InteractionVAE, ItemKNN, Popularity, evaluate
    from elbowroom.cli.recommenders import table
    from elbowroom.utils.devices import keep_all_memory

    keep_all_memory()
    torch.set_num_threads(options.threads)
    split = split_of(options.data)
    if split is None:
        print("skipped: gowalla/train.npz is not there (set ELBOWROOM_DATA)")
        return
    print(split, flush=True)
    fold = split.valid if options.choose else split.test
    known = options.data == "gowalla" and not options.choose
    train = split.test.fold_in if known else split.train  # the last run also trains on validation interactions
    settings = MODELS[options.data] | ({"epochs": options.epochs} if options.epochs else {})
    models: dict[str, Any] = {"InteractionVAE": InteractionVAE(**settings, random_state=options.seed)}
    models |= {"neighbours alone": Alone(), "Popularity": Popularity(), "ItemKNN": ItemKNN()}
    if options.data == "msweb":
        for kind in (ItemKNN, EASE):
            models[kind.__name__] = kind.choose(split.train, split.valid, "ndcg@10")
            print("chosen on validation:", models[kind.__name__], flush=True)
    elif options.ease is not None:
        models |= {f"EASE, {value:g}": EASE(value) for value in options.ease or [CHOSEN_LAMBDA]}
    evaluations = {}
    for name in list(models):
        model = models.pop(name)  # one EASE at a time
        started, cpu = time.perf_counter(), time.process_time()
        model.fit(train)
        cpu_trained = time.process_time()
        evaluations[name] = evaluate(model, fold, METRICS[options.data])
        for weight in weights(options) if name == "InteractionVAE" else ():
            model.neighbour_weight = weight
            evaluations[f"neighbours, {weight:g} x"] = evaluate(model, fold, METRICS[options.data])
        print(
            f"{name}: trained in {cpu_trained - cpu:.0f} CPU seconds, evaluated in "
            f"{time.process_time() - cpu_trained:.0f} ({time.perf_counter() - started:.0f} s in all)",
            flush=True,
        )
        del model
    rows, users = "validation" if options.choose else "test", np.size(evaluations["Popularity"].users)
    print(f"\n{settings}\n{rows}, {users:,} users")
    print(table(evaluations))


def weights(options: argparse.Namespace) -> tuple[float, ...]:
    """The weights of neighbours that are tried."""
    return WEIGHTS if options.choose else (NEIGHBOURS[options.data],) * bool(NEIGHBOURS[options.data])


if __name__ == "__main__":
    main()
