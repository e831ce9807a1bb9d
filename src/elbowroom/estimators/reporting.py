"""What a report shows of a fitted estimator on some rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA

from elbowroom.beta.policies import Capacity, Constant, LogUniform, PerRow, Schedule, TargetDistortion, TargetRate
from elbowroom.data import validation
from elbowroom.data.dataset import evenly
from elbowroom.data.frames import series_of
from elbowroom.data.images import drawable
from elbowroom.errors import DataError, counted
from elbowroom.persistence.card import facts
from elbowroom.report.page import Along, Number, Report
from elbowroom.tasks.curve import Curve, betas_of
from elbowroom.tasks.diagnose import Diagnosis

SCORED, WEIGHTED, DRAWS = 5000, 300, 200
SHOWN_IMAGES, SHOWN_SAMPLES = 36, 60
SHOWN_BETAS = 7  # of a range, at which rows are made
SHOWN_ROWS, SHOWN_COLUMNS, MAPPED = 2000, 12, 5000


def summarise(estimator: Any, X: Any, labels: Any = None, label_name: str = "label", context: Any = None) -> Report:
    """The report of a fitted estimator on rows X; labels (n,) colour the latent map."""
    n = len(estimator._open(X, context)[0])
    X = (
        X
        if validation.frame_kind(X) or sparse.issparse(X) or validation.is_anndata(X)
        else np.asarray(validation.as_array(X))
    )
    labels = None if labels is None else np.asarray(labels)
    if labels is not None and labels.shape != (n,):
        raise DataError(
            f"labels must be one for each row ({counted(n, 'row')})",
            f"their shape is {labels.shape}",
            "Leave them out, or pass as many.",
        )
    diagnosis = estimator.diagnose(**_some(X, context, n, SCORED))
    points, axes = latent_map(estimator.transform(**_some(X, context, n, MAPPED)))
    shown = _images if hasattr(estimator, "image_shape_") else _table
    originals, reconstructions, samples, columns = shown(estimator, X, context, n)
    return Report(
        title=type(estimator).__name__,
        facts={"rows": f"{n:,}", **facts(estimator)},
        numbers=_numbers(estimator, X, context, n, diagnosis),
        verdict=diagnosis.verdict,
        healthy=diagnosis.trained and diagnosis.healthy,
        history=trajectory(estimator),
        rate_per_latent=diagnosis.rate_per_latent,
        active=diagnosis.active,
        originals=originals,
        reconstructions=reconstructions,
        samples=samples,
        columns=columns,
        latent_map=points,
        latent_axes=axes,
        labels=None if labels is None else labels[evenly(n, MAPPED).numpy()],
        label_name=label_name,
        notes=estimator.history_.notes,
        training_remark=remark(estimator.beta_),
        held_out_name=held_out_name(estimator.beta_),
        along=_along(estimator, X, context, n),
    )


# ---- what beta does --------------------------------------------------------------------------------------------------


def trajectory(estimator: Any) -> dict[str, list[float]]:
    """The history's columns that say something, and what rate or distortion were to be."""
    policy, history = estimator.beta_, estimator.history_
    columns = history.columns()
    if isinstance(policy, LogUniform):
        del columns["beta"]  # the mean of what was drawn
    if isinstance(policy, TargetRate):
        columns["target_rate"] = [policy.nats] * len(history)
    if isinstance(policy, TargetDistortion):
        columns["target_distortion"] = [policy.nats] * len(history)
    if isinstance(policy, Capacity):
        del columns["loss"]  # with beta it changes its sign
        steps = estimator.epochs_ * columns["step"][0]
        columns["target_rate"] = [policy.capacity((step - 1) / max(steps - 1, 1)) for step in columns["step"]]
    return columns


def remark(policy: Any) -> str:
    """What a policy does to the curves of training."""
    if isinstance(policy, Schedule):
        moving = "The training loss uses each epoch's own beta, so it can rise while beta rises."
        return f"The loss is at beta = {policy.value:g}." if isinstance(policy, Constant) else moving
    words: dict[type, str] = {
        PerRow: "Every row has its own beta, which the loss uses; the panel of beta shows the mean.",
        LogUniform: "All values are means over the range of beta; the betas of training rows reach beyond its ends.",
        TargetRate: "Beta moves until the rate of the training rows is at its target, the dashed line.",
        TargetDistortion: "Beta moves until the distortion of the training rows is at its target, the dashed line.",
        Capacity: "The rate is pulled to a capacity that grows, the dashed line: beta is +gamma above it and -gamma "
        "below. The panel of beta shows the mean of an epoch. The loss changes its sign with beta, and is left out.",
    }
    return words.get(type(policy), "")


def held_out_name(policy: Any) -> str:
    """What the legend calls held-out rows; their loss is at the end of a schedule."""
    moves = isinstance(policy, Schedule) and not isinstance(policy, Constant)
    return f"held out (loss at beta = {policy.final:g})" if moves else "held out"


def _along(estimator: Any, X: Any, context: Any, n: int) -> Along | None:
    """The curve of a model that knows a range of beta, and what it makes of the shown rows along it."""
    conditioning = estimator.model_.conditioning
    if conditioning is None:
        return None
    grid = betas_of(estimator.model_, None)
    grid += [] if np.isclose(grid, conditioning.beta, rtol=1e-6).any() else [conditioning.beta]
    curve = estimator.curve(**_some(X, context, n, SCORED), betas=grid)
    betas = betas_of(estimator.model_, None, SHOWN_BETAS)
    shown = _images if hasattr(estimator, "image_shape_") else _table
    made = [shown(estimator.at(beta), X, context, n) for beta in betas]
    return Along(
        f"{conditioning.low:g}..{conditioning.high:g}",
        conditioning.beta,
        curve,
        _picked(curve, conditioning.beta),
        betas,
        np.stack([reconstructions for _, reconstructions, _, _ in made]),
        np.stack([samples for _, _, samples, _ in made]),
    )


def _picked(curve: Curve, beta: float) -> dict[str, float]:
    found = {"this page": beta, "knee": curve.knee()}
    return found | {"highest ELBO": float(curve.betas[np.argmax(curve.elbo)])}


# ---- rows and numbers ------------------------------------------------------------------------------------------------


def _some(X: Any, context: Any, n: int, most: int) -> dict[str, Any]:
    """At most `most` rows, evenly spaced, in the caller's own kind, and their context."""
    at = evenly(n, most).numpy()
    return {"X": validation.rows_at(X, at), "context": None if context is None else np.asarray(context)[at]}


def _numbers(estimator: Any, X: Any, context: Any, n: int, diagnosis: Diagnosis) -> list[Number]:
    scored, some = min(n, SCORED), _some(X, context, n, WEIGHTED)
    elbo = -(diagnosis.distortion + diagnosis.rate)
    weighted = estimator._log_likelihood(**some, n_draws=DRAWS)
    gap = weighted.rows - estimator.score_samples(**some)  # of the same rows: it varies less than its two parts
    gap_error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
    beyond = Number(
        "aggregate KL, at most",
        diagnosis.aggregate_kl,
        meaning="KL(q(z) || p(z)): how far the latents of all rows are from the prior that samples come from",
    )
    return [
        Number(
            "ELBO",
            elbo,
            error=diagnosis.standard_error,
            meaning=f"evidence lower bound at beta = 1, {counted(scored, 'row')}",
        ),
        Number(
            "log-likelihood" + ", at least" * bool(weighted.caution),
            elbo + float(gap.mean()),
            error=float(np.hypot(diagnosis.standard_error, gap_error)),
            meaning=f"the bound's gap by importance sampling of {counted(len(gap), 'row')}, K = {DRAWS}: "
            + (weighted.caution or f"effective sample size {weighted.effective_sample_size:.0f}"),
        ),
        Number("distortion", diagnosis.distortion, meaning="-log p(x|z): what the latents can not tell about the row"),
        Number("rate", diagnosis.rate, meaning="KL(q(z|x) || p(z)): what the latents tell about the row"),
        Number(
            "mutual information" + ", at least" * diagnosis.saturated,
            diagnosis.mutual_information,
            meaning=f"of row and latents; {counted(scored, 'row')} can show {np.log(scored):.1f} at most"
            + ", and it is there: more rows would show more" * diagnosis.saturated,
        ),
        *([] if diagnosis.saturated else [beyond]),
        Number(
            "active latents", diagnosis.n_active, unit=f"of {len(diagnosis.active)}", meaning="posterior mean varies"
        ),
    ]


def latent_map(z: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Two coordinates of the posterior means: both latents if there are two, else their principal components."""
    if z.shape[1] <= 2 or len(z) < 3:
        return z[:, :2], ("latent 0", "latent 1")
    pca = PCA(2).fit(z)
    shares = pca.explained_variance_ratio_
    return pca.transform(z), (f"PC 1 ({shares[0]:.0%})", f"PC 2 ({shares[1]:.0%})")


Shown = tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]


def _images(estimator: Any, X: Any, context: Any, n: int) -> Shown:
    """Originals, reconstructions and samples with values 0..1."""
    some = _some(X, context, n, SHOWN_IMAGES)
    made = estimator.reconstruct(**some), _samples(estimator, some, SHOWN_SAMPLES, mean=True)
    layout = estimator._layout
    originals = drawable(some["X"], layout, estimator.pixel_range_)
    reconstructions, samples = (drawable(images, layout, estimator._black_and_white) for images in made)
    return originals, reconstructions, samples, []


def _table(estimator: Any, X: Any, context: Any, n: int) -> Shown:
    """Originals, reconstructions and samples: of the first columns, or of those that vary most where there are many."""
    some = _some(X, context, n, SHOWN_ROWS)
    originals, names = _values(estimator._unpack(some["X"], None)[0])
    plain = originals.dtype != object
    chosen = np.sort(np.argsort(-originals.std(0), kind="stable")[:SHOWN_COLUMNS]) if plain else np.arange(0)
    if originals.shape[1] <= 2 * SHOWN_COLUMNS or not plain:
        chosen = np.arange(originals.shape[1])[:SHOWN_COLUMNS]
    reconstructions = _values(estimator.reconstruct(**some))[0]
    samples = _values(_samples(estimator, some, len(originals), mean=False))[0]
    names = estimator._names or names
    return originals[:, chosen], reconstructions[:, chosen], samples[:, chosen], [str(names[i]) for i in chosen]


def _samples(estimator: Any, some: dict[str, Any], n: int, mean: bool) -> Any:
    """Rows drawn from the model, with the context of the rows shown where it was fitted with context."""
    context = estimator._unpack(some["X"], some["context"])[1]
    context = None if context is None else np.resize(context, n)
    return estimator.sample(n, mean=mean, context=context, random_state=0)


def _values(X: Any) -> tuple[np.ndarray, list[str]]:
    if validation.frame_kind(X) is not None and validation.is_mixed(X):
        columns = series_of(X)
        return np.column_stack([s.shown.astype(object) for s in columns.values()]), list(columns)
    values = X.toarray() if sparse.issparse(X) else np.asarray(validation.numeric_frame(X))
    return values.astype(float), [f"column {i}" for i in range(values.shape[1])]
