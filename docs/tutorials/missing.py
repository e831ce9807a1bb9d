"""A table with missing values: 442 diabetes patients of scikit-learn, of whose cells a fifth is removed."""

import numpy as np
import pandas as pd

from tutorial import BLUE, GREY, ORANGE, Tutorial, figure_of, table

tutorial = Tutorial("missing")

# [data]
from sklearn.datasets import load_diabetes

patients = load_diabetes(as_frame=True, scaled=False).frame
serum = ["s1", "s2", "s3", "s4", "s5", "s6"]
patients.columns = ["age", "sex", "bmi", "pressure", *serum, "progression"]
patients["sex"] = patients["sex"].map({1.0: "a", 2.0: "b"})
hidden = np.random.default_rng(0).random(patients.shape) < 0.2
incomplete = patients.mask(hidden)
# [end of data]
tutorial.say(
    f"{len(incomplete)} rows, {incomplete.isna().to_numpy().sum()} of {incomplete.size} cells missing"
)

epochs = 10 if tutorial.quick else 300

# [choose]
from itertools import product

from elbowroom import TableVAE

numbers = [name for name in patients if name != "sex"]


def error(frame, cells):
    """Root mean squared error of the numbers in `cells`, in standard deviations."""
    scale = incomplete[numbers].std(ddof=0)
    off = ((frame[numbers] - patients[numbers]) / scale).to_numpy()
    return np.sqrt((off[cells[numbers].to_numpy()] ** 2).mean())


known = incomplete.notna()
validation = known & (np.random.default_rng(1).random(known.shape) < 0.1)
candidates = {}
for hidden_layers, beta in product([(), (64,), (256, 256)], [0.5, 1.0]):
    candidate = TableVAE(
        6, hidden=hidden_layers, beta=beta, epochs=epochs, random_state=0
    )
    imputed = candidate.fit(incomplete.mask(validation)).impute(
        incomplete.mask(validation), how="mean"
    )
    candidates[hidden_layers, beta] = error(imputed, validation)
hidden_layers, beta = min(candidates, key=candidates.get)
# [end of choose]

# [fit]
model = TableVAE(6, hidden=hidden_layers, beta=beta, epochs=epochs, random_state=0).fit(
    incomplete
)
# [end of fit]
for name, kind in model.schema_.items():
    tutorial.say(f"  {name}: {type(kind).__name__}")
tutorial.say("")
tutorial.say(
    table(
        ["hidden, beta", "error on validation cells"],
        [(f"{h}, {b}", f"{v:.3f}") for (h, b), v in candidates.items()],
    )
)
tutorial.say(f"chosen: hidden={hidden_layers}, beta={beta}")

# [impute]
full = model.impute(incomplete)  # medians, and the most likely category
n = 20 if tutorial.quick else 100
tables = model.impute(incomplete, n=n)  # a hundred tables, drawn
# [end of impute]

from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

truth, given = patients[numbers].to_numpy(), incomplete[numbers].to_numpy()
removed = patients.notna() & hidden
cells = removed[numbers].to_numpy()
scale = np.nanstd(given, axis=0)
inputs = incomplete.assign(sex=incomplete["sex"].map({"a": 0.0, "b": 1.0}))[
    [*numbers, "sex"]
].to_numpy()
scaled = (inputs - np.nanmean(inputs, axis=0)) / np.nanstd(inputs, axis=0)
errors = {"TableVAE": error(model.impute(incomplete, how="mean"), removed)}
for imputer in (
    IterativeImputer(max_iter=2 if tutorial.quick else 100, random_state=0),
    KNNImputer(),
    SimpleImputer(),
):
    imputed = imputer.fit_transform(scaled)[:, :-1]
    frame = pd.DataFrame(imputed * scale + np.nanmean(given, axis=0), columns=numbers)
    errors[type(imputer).__name__] = error(frame, removed)
drawn = np.stack([each[numbers].to_numpy() for each in tables])
low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
covered = ((low <= truth) & (truth <= high))[cells].mean()
sexes = hidden[:, patients.columns.get_loc("sex")]
right = (full["sex"] == patients["sex"])[sexes].mean()
guess = patients["sex"].value_counts(normalize=True).max()
tutorial.say("")
tutorial.say(
    table(
        ["root mean squared error, in standard deviations", ""],
        [(k, f"{v:.3f}") for k, v in errors.items()],
    )
)
tutorial.say(f"90 % intervals that hold the removed number: {covered:.1%}")
tutorial.say(
    f"removed sex imputed correctly: {right:.1%}, by the most frequent one: {guess:.1%}\n"
)

# [synthetic]
from elbowroom import quality

made = model.sample(442, random_state=0)
comparison = quality(incomplete, made)
# [end of synthetic]
tutorial.say(comparison)

figure, panels = figure_of(7.2, 2.8, 3)
for axes, name in zip(panels, ("s2", "s3", "progression"), strict=True):
    column = numbers.index(name)
    some = np.flatnonzero(cells[:, column])[:40]
    middle = np.median(drawn[:, some, column], axis=0)
    ends = np.quantile(drawn[:, some, column], [0.05, 0.95], axis=0)
    axes.vlines(truth[some, column], *ends, color=ORANGE, lw=0.8, alpha=0.5)
    axes.plot(truth[some, column], middle, "o", color=ORANGE, ms=3.5)
    span = [truth[some, column].min(), truth[some, column].max()]
    axes.plot(span, span, color=GREY, lw=1, ls=":")
    axes.set(xlabel="removed value", title=name)
    axes.grid(axis="y")
panels[0].set_ylabel("median and 90 % interval")
tutorial.save(figure, "intervals")

figure, panels = figure_of(7.2, 2.9, 2, sharex=True, sharey=True)
sides = [("442 patients", patients, BLUE), ("442 synthetic rows", made, ORANGE)]
for axes, (title, frame, color) in zip(panels, sides, strict=True):
    for sex, marker, face in (("a", "o", color), ("b", "^", "none")):
        some = frame[frame["sex"] == sex]
        style = {
            "marker": marker,
            "facecolor": face,
            "edgecolor": color,
            "linewidth": 0.6,
            "alpha": 0.75,
        }
        axes.scatter(some["bmi"], some["progression"], 13, label=f"sex {sex}", **style)
    axes.set(xlabel="body mass index", title=title)
    axes.grid(axis="y")
    axes.legend(loc="lower right", fontsize=8.5)
panels[0].set_ylabel("progression after a year")
tutorial.save(figure, "synthetic")
