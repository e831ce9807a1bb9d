"""Tables of mixed columns in files: types of text columns when read, and writing of frames."""

from __future__ import annotations

import datetime
import importlib.util
import io
from collections.abc import Collection, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data.frames import native
from elbowroom.data.io.writers import check_output, ending_of, text_writer
from elbowroom.data.words import MISSING, MOMENT, Words, values_of
from elbowroom.errors import MissingDependencyError, ParameterError, warn
from elbowroom.utils.files import write_atomically

TABLES = (".csv", ".tsv", ".parquet")


# dtypes that hold integers and booleans beside missing values
NULLABLE = {
    "pandas": {int: "Int64", bool: "boolean"},
    "polars": {int: "Int64", bool: "Boolean"},
    "pyarrow": {int: "int64", bool: "bool"},
}
UNSIGNED = {"pandas": "UInt64", "polars": "UInt64", "pyarrow": "uint64"}


def frame_of_columns(columns: Mapping[str, np.ndarray], ids: Collection[str] = ()) -> Any:
    """The columns of a text file as a data frame of pandas, polars or pyarrow; as an array if none is installed.

    In columns of `ids`, no word means a missing value, and none is a date.
    """
    library: Any = next((name for name in NULLABLE if importlib.util.find_spec(name)), None)
    if library is None or not columns:
        text = next((name for name, column in columns.items() if column.dtype == object), None)
        if text is not None:
            raise MissingDependencyError(
                "a table with columns of text needs the package 'pandas' or 'polars'",
                f"neither is installed, and column {text!r} is of text",
                "Run: pip install pandas",
            )
        return array_of_columns(columns)
    plain = {name: column for name, column in columns.items() if column.dtype != object}
    others = {n: c.tolist() if n in ids else _typed(c, library) for n, c in columns.items() if c.dtype == object}
    return nw.from_dict({name: (plain | others)[name] for name in columns}, backend=library).to_native()


def array_of_columns(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The columns (n,) as an array (n, columns)."""
    return np.column_stack(list(columns.values())) if columns else np.empty((0, 0))


def _typed(column: np.ndarray, library: str) -> Any:
    """A column of objects with a frame's dtype: text, dates, or one of `NULLABLE`."""
    first = next((value for value in column if value is not None), None)
    if isinstance(first, str):
        return typed_text(column)
    large = not isinstance(first, bool) and max((v for v in column if v is not None), default=0) >= 2**63
    dtype = UNSIGNED[library] if large else NULLABLE[library][type(first)]
    return native(column, dtype, library)


def typed_text(column: np.ndarray) -> list[Any]:
    """The words of a text column, with None for missing values, and dates parsed if all are dates."""
    words = [None if word.strip().lower() in MISSING else word for word in column.tolist()]
    known = [word for word in words if word is not None]
    if known and all(MOMENT.fullmatch(word) for word in known):
        try:
            return [word and datetime.datetime.fromisoformat(word.removesuffix("Z")) for word in words]
        except ValueError:  # a 31st of February is text
            pass
    return words


def pandas_of(table: Any) -> Any:
    """A pyarrow table as a pandas frame, in which integers and booleans beside missing values stay exact."""
    import pandas as pd
    import pyarrow as pa

    names = {f"{sign}int{size}": f"{sign.upper()}Int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)}
    names["bool"] = "boolean"
    nullable = {pa.type_for_alias(name): pd.api.types.pandas_dtype(dtype) for name, dtype in names.items()}
    columns = {
        name: table[name].to_pandas(types_mapper=nullable.get if table[name].null_count else None)
        for name in table.column_names
    }
    return pd.DataFrame(columns)


def check_table_output(target: str) -> None:
    """Raise if a table with text cannot be written to a path."""
    check_output(target, images=False)
    if ending_of(target) not in TABLES:
        got = f"{target} would be an array of numbers"
        raise ParameterError(f"a table is written to {', '.join(TABLES)}", got, f"Write {Path(target).stem}.csv.")


def write_frame(target: str, frame: Any) -> None:
    """Write a data frame to a path checked by `check_table_output`."""
    table, path = nw.from_native(frame, eager_only=True), Path(target)
    if ending_of(target) == ".parquet":
        whole = io.BytesIO()
        table.write_parquet(whole)
        write_atomically(path, whole.getvalue())
        return
    lists = {str(name): _words(table[name]) for name in table.columns}
    changed = [name for name in table.columns if _is_misread(table[name])]
    if changed:
        listed = ", ".join(map(repr, changed))
        message = f"text in {listed} looks like numbers, dates or missing values, and is read as such from a text file"
        warn(f"{message}, a .parquet file keeps it as text", 2)
    text = io.StringIO()
    writer = text_writer(text, path, chain(lists, *lists.values()))
    writer.writerow(lists)
    writer.writerows(zip(*lists.values(), strict=True))
    write_atomically(path, text.getvalue())


def _is_misread(column: Any) -> bool:
    """Whether a column of text would be read back from a text file as another type."""
    if column.dtype not in (nw.String, nw.Categorical, nw.Enum, nw.Object):
        return False
    words = column.drop_nulls().to_list()
    if not words or not all(isinstance(word, str) for word in words):
        return False
    values = values_of(Words(packed=[words]))
    return not isinstance(values[0], str) or typed_text(values) != words


def _words(column: Any) -> list[str]:
    """The cells of a column as text: dates without times if none has one, integers without a point."""
    missing, values = column.is_null().to_list(), column.to_list()
    if column.dtype == nw.Datetime:
        values = [
            None if is_missing else value.isoformat(" ") for value, is_missing in zip(values, missing, strict=True)
        ]
        days = all(is_missing or value.endswith(" 00:00:00") for value, is_missing in zip(values, missing, strict=True))
        values = [value and value[:10] if days else value for value in values]
    return ["" if is_missing else _word(value) for value, is_missing in zip(values, missing, strict=True)]


def _word(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else str(value)
