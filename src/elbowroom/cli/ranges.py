"""Commands for several betas: the curve of a range or a sweep, picking a beta, and training a sweep."""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from elbowroom.cli.console import Answer, as_json
from elbowroom.cli.model_info import facts_of
from elbowroom.cli.models import check_not_input, data_for, same_file, trained
from elbowroom.cli.runs import Run, check_model_place, estimator_of, read_for, rows_for, shown, typed
from elbowroom.data.io.writers import Result, check_output, check_place, write
from elbowroom.errors import ElbowroomError, ParameterError, counted, warn
from elbowroom.estimators.sweep import sweep as train
from elbowroom.estimators.sweep_folder import betas_of_sweep, is_sweep
from elbowroom.tasks.curve import Curve
from elbowroom.utils import specs
from elbowroom.utils.devices import keep_all_memory
from elbowroom.utils.files import write_atomically

TABLES, DRAWN = (".csv", ".tsv", ".parquet", ".npy", ".npz", ".json"), (".png", ".svg", ".pdf")
DOTS = 200  # per inch of a figure


def curve(model: str, file: str, betas: Sequence[float] | None, others: list[str], out: str | None) -> Answer:
    """Print the curve of a model, and perhaps write it, together with those of other models."""
    if out is not None:
        _check_curve_output(out, file)
    curves: dict[str, Curve] = {}
    for path in dict.fromkeys([model, *others]):
        opened = trained(path)
        data, rows = data_for(opened, file)
        curves[path] = opened.curve(rows, betas if path == model else None)
    n = curves[model].rates.shape[1]
    facts: dict[str, Any] = {"model": model, "rows": n, "unit": "nats per row", **curves[model].columns()}
    if others:
        facts["with"] = {path: curves[path].columns() for path in others}
    tables = [str(of) if len(curves) == 1 else f"{path}\n{of}" for path, of in curves.items()]
    head = f"{counted(n, 'user' if data.interactions else 'row')}, in nats per row +- standard error"
    text = "\n\n".join([head, *tables])
    if out is not None:
        _write_curves(out, curves, facts)
        facts["out"], text = out, f"{text}\n\nwrote {shown(Path(out))}"
    return Answer(facts, text)


def _check_curve_output(out: str, file: str) -> None:
    """Raise if a curve cannot be written to a path."""
    ending = Path(out).suffix.lower()
    if ending not in TABLES + DRAWN:
        known = ", ".join(TABLES + DRAWN)
        raise ParameterError(f"the name of a curve must end in {known}", f"{out} does not", "Write curve.csv.")
    if ending in TABLES and ending != ".json":
        check_output(out)
    check_place(Path(out))
    if Path(out).is_dir():
        raise ParameterError("the output must be a file", f"{out} is a folder", "Name a file in it.")
    check_not_input(out, file)
    if ending in DRAWN:
        importlib.import_module("elbowroom.report.model_figures")  # raises if matplotlib is missing


def _write_curves(out: str, curves: Mapping[str, Curve], facts: Mapping[str, Any]) -> None:
    ending = Path(out).suffix.lower()
    if ending in DRAWN:
        write_atomically(out, _drawn(curves, ending[1:]))
    elif ending == ".json":
        write_atomically(out, as_json(facts) + "\n")
    else:
        tables = [np.column_stack([*of.columns().values()]) for of in curves.values()]
        names = [*next(iter(curves.values())).columns()]
        rows = np.repeat(np.array([*curves], dtype=object), [len(table) for table in tables])
        write(out, Result(np.concatenate(tables), names, "curve", rows if len(tables) > 1 else None))


def _drawn(curves: Mapping[str, Curve], form: str) -> bytes:
    """A figure of curves; the same curves give the same bytes."""
    import matplotlib

    from elbowroom.report import model_figures, style

    buffer = io.BytesIO()
    undated = {"Date": None} if form == "svg" else {"CreationDate": None} if form == "pdf" else {}
    with matplotlib.rc_context({"svg.hashsalt": "elbowroom"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure = model_figures.rate_distortion(curves)
        figure.savefig(buffer, format=form, dpi=DOTS, facecolor=style.PAPER, metadata=undated)
    return buffer.getvalue()


def pick(model: str, file: str, task: str, betas: Sequence[float] | None, out: str | None, overwrite: bool) -> Answer:
    """Print the beta that is best for a task, and perhaps save the model at it."""
    if out is not None:
        out = out.rstrip("/") or out
        if same_file(out, model):
            do = "Choose another name: the other betas of the range would be lost."
            raise ParameterError("the model at a beta must be saved to another folder", f"{out} is the model", do)
        check_model_place(out, overwrite)
    opened = trained(model)
    data, rows = data_for(opened, file)
    beta = opened.pick(rows, task, betas)
    facts = {"model": model, "interactions" if data.interactions else "rows": len(data), "task": task, "beta": beta}
    text = specs.value_form(beta)
    if out is not None:
        opened.at(beta).save(out)
        facts["out"], text = out, f"{text}\n\nsaved the model at this beta to {shown(Path(out))}"
    return Answer(facts, text)


def sweep(
    file: str,
    out: str,
    jobs: int,
    warm_start: bool,
    kind: str,
    labels: list[str],
    parameters: dict[str, Any],
    verbose: bool,
) -> Answer:
    """Train a model for each beta, or resume an unfinished sweep."""
    out = out.rstrip("/") or out
    betas = betas_of_sweep(parameters.pop("beta", ()))
    check_place(Path(out))
    data = read_for(kind, file, labels, parameters)
    estimator = estimator_of(Run(file, out, kind, labels, parameters), data, verbose)
    if jobs == 1:
        keep_all_memory()  # the process is that of this command
    try:
        rows = rows_for(type(estimator).__name__, data)
        result = train(estimator, rows, betas, out, jobs=jobs, warm_start=warm_start, names=data.names)
    except BaseException as error:
        if is_sweep(out) and not isinstance(error, ElbowroomError):
            warn("what was trained is kept; run the same command to continue", 2)
        raise
    models = [{"beta": beta, **_ended(os.path.join(out, f"beta-{specs.value_form(beta)}"))} for beta in betas]
    facts = {"sweep": out, "file": data.source, "rows": len(data), "seed": result.first.seed_, "models": models}
    look = f"look at it: elbowroom curve {typed(Path(out))} {quote(data.source)}"
    text = f"{counted(len(data), 'row')}, seed {result.first.seed_}\n\n{_table(models)}\n\n"
    return Answer(facts, f"{text}saved to {shown(Path(out))}; {look}")


def _ended(model: str) -> dict[str, Any]:
    """The results of a model, on held-out rows if there were any."""
    facts = facts_of(model)
    best, part = facts["best"], "held_out_" if "held_out_rate" in facts["best"] else ""
    numbers = {name: best[f"{part}{name}"] for name in ("rate", "distortion")}
    return {"model": model, "rows": "held out" if part else "training", **numbers, "verdict": facts["verdict"]}


def _table(models: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'beta':>8} {'rate':>10} {'distortion':>12} {'ELBO':>12}   nats per row, {models[0]['rows']}"]
    for of in models:
        elbo = -of["rate"] - of["distortion"]
        lines.append(f"{of['beta']:8.4g} {of['rate']:10.2f} {of['distortion']:12.2f} {elbo:12.2f}")
    return "\n".join(lines)
