"""Training step, memory and top-20 lists on clicks, beside a dense Mult-VAE and NumPy. See README.md beside this file.

    python benchmarks/clicks.py
    python benchmarks/clicks.py --items 1000000 --users 50000 --width 64 --only "small memory" lists

100,000 simulated users with about 100 clicks each on 20,000 items. The reference is Mult-VAE (Liang et al. 2018) as
usually written in PyTorch: dense batches, a softmax over all items against a dense target, `torch.optim.Adam`. Both
have 20000-600-200-600-20000, tanh, dropout .5, batch 500; each runs in its own process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

LATENTS, BATCH, TOP = 200, 500, 20


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=600, help="of the hidden layers")
    parser.add_argument("--steps", type=int, default=40, help="of the reference, after 5 that are not counted")
    parser.add_argument("--ranked", type=int, default=10_000, help="users whose lists are timed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)  # one of JOBS and a file, in a process of its own
    return parser.parse_args()


def clicks(users: int, items: int, seed: int = 0):
    """Simulated clicks (users, items): half by popularity (Zipf), half by popularity within a user's group of items."""
    from scipy import sparse

    random = np.random.default_rng(seed)
    reach = np.cumsum(1 / np.arange(1, items + 1) ** 0.8)
    sizes = np.clip(random.lognormal(np.log(85), 0.6, users), 5, items // 4).astype(int)
    rank = np.searchsorted(reach, random.random(sizes.sum()) * reach[-1])
    orders = np.stack([random.permutation(items) for _ in range(50)])  # the order of items in each of 50 groups
    group = np.repeat(random.integers(0, len(orders), users), sizes)
    item = np.where(random.random(len(rank)) < 0.5, rank, orders[group, rank])
    rows = np.repeat(np.arange(users), sizes)
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, item)), (users, items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def train_ours(file: Path, options: argparse.Namespace, **settings) -> dict:
    """Two epochs of InteractionVAE; the second one counts."""
    from elbowroom import InteractionVAE
    from elbowroom.utils.devices import keep_all_memory
    from scipy import sparse

    keep_all_memory()
    X = sparse.load_npz(file)
    begun = megabytes()
    model = InteractionVAE(LATENTS, hidden=(options.width,), batch_size=BATCH, epochs=2, random_state=0, **settings)
    first, second = model.fit(X).history_["seconds"]
    return {"step_seconds": (second - first) / -(-X.shape[0] // BATCH), "begun": begun}


def train_reference(file: Path, options: argparse.Namespace) -> dict:
    """Steps of the dense reference."""
    import torch
    from scipy import sparse
    from torch import nn
    from torch.nn import functional

    X = sparse.load_npz(file)
    items, width, begun = X.shape[1], options.width, megabytes()
    encoder = nn.Sequential(nn.Linear(items, width), nn.Tanh(), nn.Linear(width, 2 * LATENTS))
    decoder = nn.Sequential(nn.Linear(LATENTS, width), nn.Tanh(), nn.Linear(width, items))
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    order = np.random.default_rng(0).permutation(X.shape[0])
    started, counted = 0.0, min(options.steps, len(order) // BATCH - 5)
    for step in range(counted + 5):
        if step == 5:
            started = time.perf_counter()
        x = torch.from_numpy(X[order[step * BATCH : (step + 1) * BATCH]].toarray())
        mean, log_variance = encoder(functional.dropout(functional.normalize(x), 0.5)).chunk(2, -1)
        logits = decoder(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
        distortion = -(functional.log_softmax(logits, 1) * x).sum(1).mean()
        rate = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        loss = distortion + 0.2 * rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()
    return {"step_seconds": (time.perf_counter() - started) / counted, "begun": begun}


def megabytes() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rank(file: Path, options: argparse.Namespace) -> dict:
    """Top lists of users: ours, and NumPy's argpartition, over the same dense scores and as a whole."""
    import torch
    from elbowroom import InteractionVAE
    from elbowroom.tasks.recommend.topk import best
    from scipy import sparse

    X = sparse.load_npz(file)[: options.ranked]
    settings = {
        "likelihood": "multinomial:sampled=4096",
        "average": False,
        "tied": True,
    }  # quick, as the weights do not matter
    model = InteractionVAE(LATENTS, hidden=(options.width,), epochs=1, random_state=0, **settings).fit(X)
    scores = torch.randn(BATCH, X.shape[1])
    table = scores.numpy()
    repeats = max(1, len(range(0, X.shape[0], BATCH)))
    ours, mine = _timed(lambda: [best(scores, TOP)[1] for _ in range(repeats)])
    numpys, theirs = _timed(lambda: [_argpartition(table) for _ in range(repeats)])
    results = (np.take_along_axis(table, columns, 1) for columns in (mine[0].numpy(), theirs[0]))
    if not np.array_equal(*results):  # ties may be in any order
        raise SystemExit("the lists differ")
    whole, _ = _timed(lambda: model.recommend(X, TOP))
    return {"ours": ours, "numpy": numpys, "whole": whole, "users": X.shape[0]}


def _argpartition(scores: np.ndarray) -> np.ndarray:
    """The columns of the highest scores in descending order, as usually written."""
    best = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), 1), 1)


def _timed(work) -> tuple[float, list]:
    work()
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


JOBS = {
    "elbowroom": train_ours,
    "elbowroom, bfloat16": partial(train_ours, precision="bfloat16"),
    "elbowroom, 4,096 items sampled": partial(train_ours, likelihood="multinomial:sampled=4096"),
    "small memory": partial(train_ours, likelihood="multinomial:sampled=4096", tied=True, average=False),
    "dense reference": train_reference,
    "lists": rank,
}


def carry_out(name: str, file: Path, options: argparse.Namespace) -> None:
    """Run one job, and print its results and the peak memory as a JSON line."""
    import torch

    torch.set_num_threads(options.threads)
    results = JOBS[name](file, options)
    print(json.dumps(results | {"megabytes": megabytes()}))


def main() -> None:
    """Simulate clicks, run the jobs in sequence, and print the table."""
    options = parse()
    if options.job:
        carry_out(options.job[0], Path(options.job[1]), options)
        return
    from scipy import sparse

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clicks.npz"
        matrix = clicks(options.users, options.items)
        sparse.save_npz(file, matrix, compressed=False)
        print(f"{matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {matrix.nnz / matrix.shape[0]:.0f} clicks a user")
        results = {name: [] for name in options.only}
        for _ in range(options.rounds):
            for name in options.only:
                line = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--job", name, str(file)],
                    check=True, stdout=subprocess.PIPE, text=True,
                ).stdout  # fmt: skip
                results[name].append(json.loads(line.splitlines()[-1]))
    show(results)


def show(results: dict[str, list[dict]]) -> None:
    """Print the results: medians over the rounds."""
    lists = results.pop("lists", [])
    base = results.get("dense reference", [{}])
    for name, rounds in results.items():
        step, size, begun = (
            float(np.median([one[key] for one in rounds])) for key in ("step_seconds", "megabytes", "begun")
        )
        ratios = ""
        if base[0]:
            times = np.median([b["step_seconds"] / r["step_seconds"] for b, r in zip(base, rounds, strict=True)])
            whole, part = (np.median([b["megabytes"] - less * b["begun"] for b in base]) for less in (0, 1))
            ratios = f"  {times:5.2f}x as fast  {size / whole:5.2f} and {(size - begun) / part:5.2f} of its memory"
        print(f"{name:32} {1000 * step:7.0f} ms a step  {size:6,.0f} MB, {size - begun:6,.0f} to train{ratios}")
    for one in lists:
        print(
            f"top {TOP} of {one['users']:,} users: {one['ours']:.2f} s, NumPy's argpartition {one['numpy']:.2f} s "
            f"({one['numpy'] / one['ours']:.1f}x); with the scores {one['whole']:.2f} s"
        )


if __name__ == "__main__":
    main()
