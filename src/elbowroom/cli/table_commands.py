"""Commands for tables: impute, detect, and the quality of a synthetic table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.cli.commands import check_page, opened, write_table
from elbowroom.cli.console import Answer, listed
from elbowroom.cli.models import names_of
from elbowroom.data.io.readers import Data, read
from elbowroom.data.io.tables import check_table_output
from elbowroom.data.io.writers import Result, check_output, write
from elbowroom.errors import ParameterError, counted, escaped
from elbowroom.estimators import tables
from elbowroom.report.quality_page import quality as compare
from elbowroom.utils.signals import Interrupt

SHOWN = 10  # anomalous rows that are listed
REASONS = 3  # columns that are named for each row


def impute(
    model: str, file: str, out: str, n: int | None, how: str, random_state: int | None, beta: float | None
) -> Answer:
    """Write a table with its missing cells imputed, once or n times."""
    check_table_output(out)
    estimator, data, rows = opened(model, file, out, beta, "impute")
    tables.schema_of(estimator, "impute")
    seed = 0 if random_state is None else random_state
    imputed = estimator.impute(rows, n, how, random_state=seed)
    if n is None:
        _write_full(out, imputed, estimator, data)
        return Answer(
            {"out": out, "rows": len(data)}, f"wrote {counted(len(data), 'row')} without missing values to {out}"
        )
    path = Path(out)
    names = [str(path.with_name(f"{path.stem}-{i}{path.suffix}")) for i in range(1, len(imputed) + 1)]
    with Interrupt():  # all files, or none
        for name, frame in zip(names, imputed, strict=True):
            _write_full(name, frame, estimator, data)
    return Answer({"out": names, "rows": len(data)}, f"wrote {counted(len(names), 'imputation')}: {', '.join(names)}")


def _write_full(out: str, table: Any, estimator: Any, data: Data) -> None:
    """Write an imputed table, with the file's other columns in their places."""
    if data.labels and not isinstance(table, np.ndarray):
        full = nw.from_native(table, eager_only=True)
        spare = [nw.new_series(name, of.tolist(), backend=full.implementation) for name, of in data.labels.items()]
        table = full.with_columns(*spare).select(*data.columns).to_native()
    write_table(out, table, estimator, data.labels)


def detect(model: str, file: str, out: str | None, contamination: float, beta: float | None) -> Answer:
    """List, and optionally write, the anomaly scores of rows and the columns responsible."""
    if not 0 < contamination <= 0.5:
        raise ParameterError("--contamination must be above 0 and at most 0.5", f"it is {contamination}", "Try 0.05.")
    if out is not None:
        check_output(out, images=False)
    estimator, data, rows = opened(model, file, out, beta, "detect")
    scores, cells = tables.surprises(estimator, rows, 64)
    cells = cells - cells.mean(0)
    limit = float(np.percentile(scores, 100 * contamination))
    names = names_of(estimator) or [f"x{i}" for i in range(cells.shape[1])]
    if out is not None:
        strange = scores <= limit
        columns = ["score", "outlier", *names]
        write(out, Result(np.column_stack([scores, strange, cells]), columns, "scores", data.rows, labels=data.labels))
    order = np.argsort(scores, kind="stable")[: max(1, min(SHOWN, round(contamination * len(scores))))]
    strangest: list[dict[str, Any]] = [
        {"row": int(i), "score": float(scores[i]), "because": _reasons(cells[i], names)} for i in order
    ]
    lines = [(f"row {f['row']}", f"{f['score']:10.2f}  {_because(f['because'])}") for f in strangest]
    head = f"{counted(len(scores), 'row')}; the most anomalous, log p(x) in nats, and the columns responsible\n\n"
    return Answer({"rows": len(scores), "threshold": limit, "strangest": strangest}, head + listed(lines))


def _reasons(cells: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    order = np.argsort(-cells, kind="stable")[:REASONS]
    return {names[i]: float(cells[i]) for i in order if cells[i] > 0}


def _because(reasons: dict[str, float]) -> str:
    return ", ".join(f"{name} +{nats:.1f}" for name, nats in reasons.items())


def quality(real: str, synthetic: str, test: str | None, target: str | None, out: str | None) -> Answer:
    """Print the quality of a synthetic table, and optionally write a page about it."""
    if out is not None:
        check_page(out)
    first = read(real)
    texts = [
        name
        for name, column in first.columns.items()
        if column.dtype == object and any(isinstance(v, str) for v in column)
    ]
    second, third = (None if other is None else read(other, texts=texts).x for other in (synthetic, test))
    result = compare(first.x, second, third, target)
    worst = sorted(result.pairs.items(), key=lambda item: item[1])[:5]
    facts = {
        **result.facts,
        "remarks": {name: words for name, words in result.remarks.items() if name in result.facts},
        "columns": dict(result.marginals),
        "worst_pairs": [{"columns": list(pair), "score": score} for pair, score in worst],
    }
    if out is not None:
        result.report(out)
        facts["report"] = out
    weak = "\n".join(f"  {escaped(f'{a} and {b}')}: {score:.3f}" for (a, b), score in worst)
    text = f"{result}\n\nworst pairs:\n{weak}" if worst else str(result)
    return Answer(facts, f"{text}\n\nwrote {out}" if out is not None else text)
