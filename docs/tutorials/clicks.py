"""Recommendations: the bundled visits to www.microsoft.com, beside popularity, item-kNN and EASE."""

import numpy as np

from tutorial import BLUE, GREEN, GREY, INK, ORANGE, Tutorial, figure_of, table

tutorial = Tutorial("clicks")

# [data]
from elbowroom import Split
from elbowroom.data.datasets import msweb

clicks = msweb()  # sparse: 32,710 visitors, 285 areas of the site
split = Split.strong(clicks[:3000] if tutorial.quick else clicks, random_state=0)
# [end of data]
tutorial.say(
    f"{clicks.shape[0]} visitors, {clicks.shape[1]} areas, {clicks.nnz} visits"
)
tutorial.say(
    f"{split.train.shape[0]} visitors to train on, {len(split.valid)} to choose on, {len(split.test)} to test on"
)

# [fit]
from elbowroom import InteractionVAE

epochs = 1 if tutorial.quick else 30
model = InteractionVAE(
    n_latents=50,
    hidden=(200,),
    beta="0.01..1",
    dropout=0.3,
    learning_rate=3e-3,
    epochs=epochs,
    random_state=0,
).fit(split.train)
# [end of fit]

# [pick]
from elbowroom import EASE, ItemKNN, Popularity, evaluate

betas = [0.01, 0.03, 0.1, 0.3, 1.0]
tried = {beta: evaluate(model.at(beta), split.valid, ["ndcg@10"]) for beta in betas}
beta = max(betas, key=lambda each: tried[each]["ndcg@10"])
# [end of pick]
tutorial.say(f"beta with the highest NDCG@10 on the visitors to choose on: {beta:g}")

# [evaluate]
recommenders = {
    "InteractionVAE": model.at(beta),
    "EASE": EASE.choose(split.train, split.valid, "ndcg@10"),
    "item-kNN": ItemKNN.choose(split.train, split.valid, "ndcg@10"),
    "popularity": Popularity().fit(split.train),
}
metrics = ["ndcg@10", "recall@20[plain]", "coverage@20"]
results = {
    name: evaluate(each, split.test, metrics) for name, each in recommenders.items()
}
ahead = results["InteractionVAE"].compare(results["EASE"], "ndcg@10")
# [end of evaluate]
rows = [
    (
        name,
        f"{each['ndcg@10']:.4f} +- {each.standard_error('ndcg@10'):.4f}",
        *(f"{each[m]:.4f}" for m in metrics[1:]),
    )
    for name, each in results.items()
]
tutorial.say(table(["", *metrics], rows))
tutorial.say(
    f"\nNDCG@10 of InteractionVAE less that of EASE, paired over visitors: {ahead}\n"
)

# [lists]
best = model.at(beta)
# a visitor of areas 1 and 3, and one of whom nothing is known
ids, scores = best.recommend([[1, 3], []], N=5)
why = best.explain([1, 3], int(ids[0][0]))
# [end of lists]
for history, areas, values in zip(("areas 1 and 3", "none"), ids, scores, strict=True):
    shares = ", ".join(
        f"{area} ({np.exp(value):.1%})"
        for area, value in zip(areas, values, strict=True)
    )
    tutorial.say(f"history {history}: area {shares}")
parts = ", ".join(
    f"{value:.2f} nats by area {area}" for area, value in zip(*why, strict=True)
)
tutorial.say(f"why area {ids[0][0]} for the first: {parts}")

figure, (left, right) = figure_of(7.2, 3.0, 2)
values, errors = zip(
    *((each["ndcg@10"], each.standard_error("ndcg@10")) for each in tried.values()),
    strict=True,
)
left.errorbar(
    betas, values, errors, fmt="-o", color=ORANGE, ms=4, label="InteractionVAE"
)
styles = {
    name: {"color": color, "ls": dash, "lw": 1.5, "label": name}
    for name, color, dash in zip(
        recommenders, (ORANGE, BLUE, GREEN, GREY), ("-", "--", "-.", ":"), strict=True
    )
}
for name in ("EASE", "item-kNN", "popularity"):
    left.axhline(
        evaluate(recommenders[name], split.valid, ["ndcg@10"])["ndcg@10"],
        **styles[name],
    )
left.set(xscale="log", xlabel="beta", ylabel="NDCG@10", title="Visitors to choose on")
left.set_xticks(betas, [f"{each:g}" for each in betas])
left.legend(loc="lower left", bbox_to_anchor=(0, 0.12), fontsize=8.5)
left.grid(axis="y")

visits = np.asarray(split.train.sum(axis=0)).ravel()
order = np.argsort(-visits)
rank = np.arange(1, len(order) + 1)
right.plot(
    rank, np.cumsum(visits[order]) / visits.sum(), color=INK, lw=1.5, label="visits"
)
for name, each in recommenders.items():
    lists = np.bincount(each.rank(split.test.fold_in, 20).ravel(), minlength=len(order))
    right.plot(rank, np.cumsum(lists[order]) / lists.sum(), **styles[name])
right.set(
    xscale="log",
    xlabel="areas, most visited first",
    ylabel="share of all",
    title="Lists of 20 for new visitors",
)
right.set_xticks([1, 10, 100], ["1", "10", "100"])
right.legend(fontsize=8.5)
right.grid(axis="y")
tutorial.save(figure, "lists")
