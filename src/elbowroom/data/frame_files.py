"""Tables of any columns in files: what text columns hold when they are read, and how frames are written."""

from __future__ import annotations

import csv
import datetime
import io
import re
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data.delimited import WORDS
from elbowroom.data.writers import check_output, ending_of
from elbowroom.errors import ParameterError
from elbowroom.files import write_atomically

NOTHING = {word for word, meaning in WORDS.items() if meaning == "nan"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?Z?")
TABLES = (".csv", ".tsv", ".parquet")


def typed_column(column: np.ndarray) -> Any:
    """A column of a file as a frame holds it: words for nothing are holes, and dates are dates."""
    if column.dtype != object:
        return column
    if not all(value is None or isinstance(value, str) for value in column.tolist()):
        return column.tolist()
    words = [None if v is None or v.strip().lower() in NOTHING else v for v in column.tolist()]
    known = [word for word in words if word is not None]
    if known and all(MOMENT.fullmatch(word) for word in known):
        try:
            return [word and datetime.datetime.fromisoformat(word.removesuffix("Z")) for word in words]
        except ValueError:  # a 31st of February is text
            pass
    return words


def check_table_output(target: str) -> None:
    """Refuse a place for a table with text that can not be used."""
    check_output(target, images=False)
    if ending_of(target) not in TABLES:
        got = f"{target} would be an array of numbers"
        raise ParameterError(f"a table is written to {', '.join(TABLES)}", got, f"Write {Path(target).stem}.csv.")


def write_frame(target: str, frame: Any) -> None:
    """Write a data frame to a place that `check_table_output` found good."""
    table, path = nw.from_native(frame, eager_only=True), Path(target)
    if ending_of(target) == ".parquet":
        whole = io.BytesIO()
        table.write_parquet(whole)
        write_atomically(path, whole.getvalue())
        return
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*(_words(table[name]) for name in table.columns), strict=True))
    write_atomically(path, text.getvalue())


def _words(column: Any) -> list[str]:
    """The cells of a column as text: dates without a time where none has one, whole numbers without a point."""
    holes, values = column.is_null().to_list(), column.to_list()
    if column.dtype == nw.Datetime:
        values = [None if hole else value.isoformat(" ") for value, hole in zip(values, holes, strict=True)]
        days = all(hole or value.endswith(" 00:00:00") for value, hole in zip(values, holes, strict=True))
        values = [value and value[:10] if days else value for value in values]
    return ["" if hole else _word(value) for value, hole in zip(values, holes, strict=True)]


def _word(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else str(value)
