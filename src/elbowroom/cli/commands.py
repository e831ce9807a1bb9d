"""What the commands do. The heavy libraries are imported here and in what this imports, never for --help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

import elbowroom
from elbowroom.cli.console import Answer, listed, number
from elbowroom.cli.model_info import describe, facts_of
from elbowroom.cli.models import check_not_input, check_table, data_for, names_of, trained
from elbowroom.cli.recommenders import new_histories
from elbowroom.cli.runs import begin, check_model, check_model_place, go_on, open_run, plan, shown
from elbowroom.data.io.readers import Data, read_labels
from elbowroom.data.io.tables import check_table_output, write_frame
from elbowroom.data.io.writers import Result, check_file_place, check_output, write
from elbowroom.errors import DataError, ParameterError, counted, escaped
from elbowroom.estimators import tables
from elbowroom.tasks.score import standard_error

SCORES = ("elbo", "distortion", "rate", "log_likelihood", "effective_sample_size")


def fit(
    file: str, out: str, kind: str, labels: list[str], parameters: dict[str, Any], verbose: bool, overwrite: bool
) -> Answer:
    """Train on a file."""
    out = out.rstrip("/") or out
    check_model_place(out, overwrite)
    return begin(plan(file, out, kind, labels, parameters), verbose)


def resume(folder: str, verbose: bool) -> Answer:
    """Go on with a run."""
    return go_on(open_run(folder), verbose)


def encode(model: str, file: str, out: str, beta: float | None) -> Answer:
    """Write posterior means."""
    check_output(out, images=False)
    estimator, data, rows = opened(model, file, out, beta)
    z = np.asarray(estimator.transform(rows))
    names = [str(name) for name in estimator.get_feature_names_out()]
    write(out, Result(z, names, "Z", data.rows, obsm="X_vae", adata=_adata(data), labels=data.labels))
    return written(out, z, "latents of")


def reconstruct(model: str, file: str, out: str, beta: float | None) -> Answer:
    """Write reconstructions."""
    check_output(out)
    estimator, data, rows = opened(model, file, out, beta)
    if getattr(estimator, "schema_", None) is not None:
        check_table_output(out)
        write_table(out, estimator.reconstruct(rows), estimator)
        return written(out, np.empty((len(data), len(estimator.schema_))), "reconstructions of")
    x = np.asarray(estimator.reconstruct(rows))
    write(out, Result(x, names_of(estimator), rows=data.rows, adata=_adata(data), **_as_images(estimator)))
    return written(out, x, "reconstructions of")


def sample(
    model: str,
    n: int,
    out: str,
    mean: bool,
    given: list[str],
    context: str | None,
    random_state: int | None,
    beta: float | None,
) -> Answer:
    """Write new rows."""
    check_output(out)
    estimator = _load(model, out, beta)
    if isinstance(estimator, elbowroom.InteractionVAE):
        if mean or given or context is not None:
            raise ParameterError(
                "histories are drawn as they are", f"{model} is a model of interactions", "Leave out the other options."
            )
        return new_histories(estimator, n, out, random_state)
    labels = _label(estimator, model, context)
    if given or getattr(estimator, "schema_", None) is not None:
        check_table(estimator, model, "--given")
        check_table_output(out)
        cells = tables.cells_of(tables.schema_of(estimator, "--given"), given) if given else None
        x = estimator.sample(n, mean=mean, given=cells, context=labels, random_state=random_state)
        write_table(out, x, estimator)
        return written(out, np.empty((n, len(estimator.schema_))), "new")
    x = np.asarray(estimator.sample(n, mean=mean, context=labels, random_state=random_state))
    write(out, Result(x, names_of(estimator), **_as_images(estimator)))
    return written(out, x, "new")


def score(model: str, file: str, draws: int, out: str | None, beta: float | None) -> Answer:
    """Print, and perhaps write, scores."""
    if draws < 0:
        raise ParameterError("--draws must be a whole number from 0", f"it is {draws}", "Write --draws 1000.")
    if out is not None:
        check_output(out, images=False)
    estimator, data, rows = opened(model, file, out, beta)
    distortion, rate = estimator._distortion_and_rate(rows, apart=True)
    columns, caution = [-(distortion + rate), distortion, rate], ""
    if draws:
        likelihood = estimator._log_likelihood(rows, n_draws=draws)
        columns += [likelihood.rows, likelihood.effective_sample_sizes]
        caution = likelihood.caution
    table = dict(zip(SCORES, columns, strict=False))
    if out is not None:
        values = np.column_stack(columns)
        write(out, Result(values, list(table), "scores", data.rows, adata=_adata(data), labels=data.labels))
    facts = {"rows": len(distortion), "unit": "nats per row", **_means(table), "draws": draws}
    if given := getattr(estimator.model_.likelihood, "given", ""):
        facts["given"] = given
    text = _score_text(facts, caution, "user" if data.interactions else "row")
    return Answer(facts | ({"caution": caution} if draws else {}), text)


def _means(table: dict[str, np.ndarray]) -> dict[str, float]:
    facts: dict[str, float] = {}
    for name, values in table.items():
        if name == "effective_sample_size":
            facts[name] = float(np.nanmedian(values))
        else:
            facts[name] = float(values.mean())
            facts[f"{name}_standard_error"] = standard_error(values)
    return facts


def _score_text(facts: dict[str, Any], caution: str, row: str) -> str:
    names = {"elbo": "ELBO", "distortion": "distortion", "rate": "rate", "log_likelihood": "log-likelihood"}
    found = [(words, facts[name], facts[f"{name}_standard_error"]) for name, words in names.items() if name in facts]
    lines = [(words, f"{value:12,.3f} +- {error:,.3f}") for words, value, error in found]
    text = f"{counted(facts['rows'], row)}, in {facts['unit']} +- standard error\n\n{listed(lines)}"
    text += f"\n\nlog-probabilities given {facts['given']}" if "given" in facts else ""
    if "log_likelihood" not in facts:
        return text
    size = facts["effective_sample_size"]
    text += f"\n\n{facts['draws']:,} draws, effective sample size {number(size)} (median over rows)"
    return f"{text}\nNot to be believed as it is: {caution} (--draws)." if caution else text


def check_page(out: str) -> None:
    """Refuse a place that a report can not be written to."""
    if not out.lower().endswith((".html", ".htm")):
        raise ParameterError("the name of a report must end in .html", f"{out} does not", "Write report.html.")
    check_file_place(Path(out))


def report(model: str, file: str, out: str, labels: str | None, beta: float | None) -> Answer:
    """Write a report."""
    check_page(out)
    estimator, data, rows = opened(model, file, out, beta)
    if isinstance(estimator, elbowroom.InteractionVAE):
        if labels is not None:
            raise ParameterError(
                "--labels colours rows of data", f"{model} is a model of interactions", "Leave it out."
            )
        estimator.report(rows, out)
        return Answer({"report": out, "interactions": len(data), "labels": None}, f"wrote {out}")
    values, name = None, "label"
    if labels is None and data.kind != "count":  # by the first column that does not name the rows
        labels = next((name for name in data.spare if _repeats(data.columns[name])), None)
    if labels is not None:
        values, name = read_labels(labels, data), labels if labels in data.columns else Path(labels).stem
    estimator.report(rows, out, labels=values, label_name=name)
    coloured = f", coloured by {escaped(name)}" if labels is not None else ""
    return Answer({"report": out, "rows": len(data), "labels": labels}, f"wrote {out}{coloured}")


def _repeats(values: np.ndarray) -> bool:
    """Whether values are not all different, or are numbers."""
    return values.dtype.kind == "f" or len({*values.tolist()}) < len(values)


def info(model: str) -> Answer:
    """Print what a model is."""
    check_model(model)
    facts = {"model": model, **facts_of(model)}
    made = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    rows = [("weights", f"{facts['weights']:,}"), ("made with ", made)]
    return Answer(facts, f"{describe(facts)}\n{listed(rows)}")


def _load(model: str, out: str | None, beta: float | None) -> Any:
    """A model, or that at one beta of a range or of a sweep."""
    if beta is not None:
        estimator = trained(model).at(beta)
    else:
        check_model(model)
        estimator = elbowroom.load(model)
    if out is not None and not isinstance(estimator, elbowroom.ImageVAE) and out.endswith((".png", "/")):
        raise ParameterError(
            "only images are written as pictures", f"{model} is a model of rows", "Write .npy or .csv."
        )
    return estimator


def opened(
    model: str, file: str, out: str | None, beta: float | None, of_table: str | None = None
) -> tuple[Any, Data, Any]:
    """A model, a file, and its rows as the model wants them; `of_table` is what only a model of a table can do."""
    check_not_input(out, file)
    estimator = _load(model, out, beta)
    if of_table is not None:
        check_table(estimator, model, of_table)
    return estimator, *data_for(estimator, file)


def _as_images(estimator: Any) -> dict[str, Any]:
    """What is known of the images that a model makes."""
    if not isinstance(estimator, elbowroom.ImageVAE):
        return {}
    return {"pixels": estimator._black_and_white, "layout": estimator._layout}


def _adata(data: Data) -> Any:
    """The AnnData that a file holds, if it holds one."""
    return data.x if hasattr(data.x, "obsm") else None


def _label(estimator: Any, model: str, context: str | None) -> Any:
    """A label of the context, in the type that the model knows, for all rows that it makes."""
    known = estimator.context_categories_
    if known is None and context is not None:
        got = f"{model} was fitted without context"
        raise DataError("--context is for a model that was fitted with --batch-key", got, "Leave --context out.")
    found = None if known is None else next((label for label in known.tolist() if str(label) == context), None)
    if known is not None and found is None:
        got = "it is not given" if context is None else f"it is {context!r}"
        first = ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
        expected = f"--context must be one of the labels that {model} was fitted with: {first}"
        raise DataError(expected, got, f"Add --context {quote(str(known[0]))}.")
    return found


def write_table(out: str, rows: Any, estimator: Any, labels: Mapping[str, np.ndarray] | None = None) -> None:
    """Write rows of a table: a frame as it is, an array with the names of its columns, after those of `labels`."""
    if isinstance(rows, np.ndarray):
        write(out, Result(rows, names_of(estimator), labels=labels or {}))
    else:
        write_frame(out, rows)


def written(out: str, values: np.ndarray, what: str) -> Answer:
    """What was written where."""
    facts = {"out": out, "shape": values.shape}
    sizes = " x ".join(map(str, values.shape[1:]))
    return Answer(
        facts, f"wrote {what} {counted(len(values), 'row')} of {sizes} to {shown(Path(out))}{'/' * out.endswith('/')}"
    )
