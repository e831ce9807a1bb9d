"""Counts as of single cells: three types of cells of two donors, and latents that leave the donor out."""

import importlib.util

import numpy as np
from matplotlib.ticker import FormatStrFormatter

from tutorial import BLUE, GREEN, GREY, INK, ORANGE, YELLOW, Tutorial, figure_of, table

tutorial = Tutorial("cells")


# [generate]
def cells(
    n: int, genes: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Negative binomial counts (n, genes), with log-normal totals; types and donors."""
    types, donors = random.integers(0, 3, n), random.integers(0, 2, n)
    base = random.normal(0, 1.0, genes)
    # a fifth of the genes are markers of types
    of_type = random.normal(0, 1.0, (3, genes)) * (random.random(genes) < 0.2)
    of_donor = random.normal(0, 0.7, (2, genes)) * (random.random(genes) < 0.5)
    share = np.exp(base + of_type[types] + of_donor[donors])
    mean = (
        share / share.sum(1, keepdims=True) * random.lognormal(np.log(500), 0.5, (n, 1))
    )
    return random.poisson(random.gamma(2.0, mean / 2.0)), types, donors


counts, types, donors = cells(
    600 if tutorial.quick else 2000, 200, np.random.default_rng(0)
)
# [end of generate]
tutorial.say(
    f"{counts.shape[0]} cells, {counts.shape[1]} genes, {counts.mean():.1f} counts a cell and gene"
)

# [fit]
from elbowroom import CountVAE

train = np.arange(len(counts)) % 4 > 0  # three quarters
epochs = 2 if tutorial.quick else 60
settings = {"n_latents": 8, "epochs": epochs, "random_state": 0}
plain = CountVAE(**settings).fit(counts[train])
corrected = CountVAE(**settings).fit(counts[train], context=donors[train])
# [end of fit]
tutorial.say(f"likelihood: {plain.likelihood_}, since {plain.likelihood_reason_}")

# [latents]
latents = {
    "without context": plain.transform(counts),
    "donor as context": corrected.transform(counts, context=donors),
}
# [end of latents]

from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

logs = np.log1p(counts / counts.sum(1, keepdims=True) * 500)
latents = {
    "PCA of log counts": PCA(8, random_state=0).fit(logs[train]).transform(logs)
} | latents
rows = []
for name, z in latents.items():
    accuracy = [
        KNeighborsClassifier(15)
        .fit(z[train], labels[train])
        .score(z[~train], labels[~train])
        for labels in (types, donors)
    ]
    rows.append((name, *(f"{each:.1%}" for each in accuracy)))
tutorial.say(table(["15 neighbours find, of new cells", "type", "donor"], rows))
scores = (
    plain.score(counts[~train]),
    corrected.score(counts[~train], context=donors[~train]),
)
tutorial.say(f"ELBO of new cells without context: {scores[0]:.1f} nats per cell")
tutorial.say(f"ELBO of new cells given the donor: {scores[1]:.1f} nats per cell")

# [swap]
some = counts[~train & (donors == 0)]
as_first = corrected.reconstruct(some, context=0)
z = corrected.transform(some, context=0)
as_second = corrected.inverse_transform(
    z, context=1
)  # the same cells, as those of the other donor
# [end of swap]
targets = np.log(counts[~train & (donors == 1)].mean(0) + 0.1)
rows = {
    "as cells of the first donor": as_first,
    "as cells of the second donor": as_second,
}
for name, made in rows.items():
    error = np.sqrt(((np.log(made.mean(0) + 0.1) - targets) ** 2).mean())
    tutorial.say(
        f"log means of genes, {name}, differ from those of the second donor by {error:.2f}"
    )

# [anndata]
if importlib.util.find_spec("anndata"):
    import anndata
    import pandas as pd

    obs = pd.DataFrame(
        {"donor": np.array(["first", "second"])[donors]},
        index=[f"cell {i}" for i in range(len(counts))],
    )
    adata = anndata.AnnData(counts, obs=obs)
    CountVAE(**settings, batch_key="donor").fit(adata).encode_to(adata, "X_vae")
    tutorial.say(f"AnnData: {adata.obsm['X_vae'].shape[1]} latents in .obsm['X_vae']")
# [end of anndata]

figure, panels = figure_of(7.2, 4.6, 3, 2)
for (name, z), (above, below) in zip(latents.items(), panels.T, strict=True):
    points = PCA(2, random_state=0).fit_transform(z)[~train]
    for axes, labels, colors in (
        (above, types[~train], (BLUE, ORANGE, GREEN)),
        (below, donors[~train], (INK, YELLOW)),
    ):
        for label, color in enumerate(colors):
            word = "type" if axes is above else "donor"
            some = points[labels == label]
            axes.scatter(
                some[:, 0],
                some[:, 1],
                8,
                color=color,
                alpha=0.6,
                lw=0,
                label=f"{word} {label + 1}",
            )
        axes.set(xticks=[], yticks=[])
    above.set_title(name)
for axes in panels[:, 0]:
    axes.set_ylabel("second component")
for axes in panels[:, 2]:
    axes.legend(
        loc="lower left", fontsize=8, markerscale=2, handletextpad=0.1, borderpad=0.1
    )
for axes in panels[1]:
    axes.set_xlabel("first component of the latents")
tutorial.save(figure, "latents")

figure, panels = figure_of(7.2, 2.9, 2, sharex=True, sharey=True)
for axes, (name, made) in zip(panels, rows.items(), strict=True):
    axes.scatter(np.exp(targets) - 0.1, made.mean(0), 9, color=ORANGE, alpha=0.7, lw=0)
    axes.plot([0.05, 50], [0.05, 50], color=GREY, lw=1, ls=":")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="mean in cells of the second donor",
        title=name,
    )
    axes.grid()
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
panels[0].set_ylabel("mean in reconstructions")
tutorial.save(figure, "donors")
