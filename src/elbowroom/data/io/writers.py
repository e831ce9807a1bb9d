"""Writing results: the format is that of the extension, paths are checked before any work, and writes are atomic."""

from __future__ import annotations

import csv
import difflib
import importlib.util
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from elbowroom.data.images import Layout, channels_last
from elbowroom.data.io import image_files
from elbowroom.data.words import whole_numbers
from elbowroom.errors import DataError, ParameterError, missing
from elbowroom.utils.files import folder_at_once, write_atomically

AT_ONCE = 2**18  # values of a text file


@dataclass(frozen=True)
class Result:
    """A result to write.

    Parameters
    ----------
    values : array (n, ...)
    names : sequence of str or None
        Names of the columns.
    key : str
        The name of the array in an .npz.
    rows : array of str (n,) or None
        Names of the rows.
    pixels : (float, float)
        The values of black and white pixels.
    layout : str
        Layout of images: "channels_last" or "channels_first".
    obsm : str
        The key in the `.obsm` of an .h5ad; if empty, the values are its `.X`.
    adata : AnnData or None
        The other contents of an .h5ad: all of them if the values have its variables or go to `.obsm`, else `.obs`.
    labels : mapping of str to array (n,)
        Further columns, such as ids, which come first in tables.
    """

    values: np.ndarray
    names: Sequence[str] | None = None
    key: str = "X"
    rows: np.ndarray | None = None
    pixels: tuple[float, float] = (0.0, 1.0)
    layout: Layout = "channels_last"
    obsm: str = ""
    adata: Any = None
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def flat(self) -> np.ndarray:
        """The values as (n, columns)."""
        return self.values.reshape(len(self.values), -1)

    @property
    def header(self) -> list[str]:
        """A name for every column of `flat`."""
        return list(self.names) if self.names is not None else [f"x{i}" for i in range(self.flat.shape[1])]

    @property
    def first(self) -> dict[str, np.ndarray]:
        """The columns of a table before the values."""
        named = {} if self.rows is None else {"row": self.rows}
        return named | {name: column for name, column in self.labels.items() if name not in self.header}


def check_output(target: str, images: bool = True) -> None:
    """Raise if a path cannot be written to.

    Parameters
    ----------
    target : str
        A path; images go to a .png, or to a folder if it ends in /.
    images : bool
        Whether images may be written.

    Raises
    ------
    ParameterError, MissingDependencyError
        If the extension is unknown, requires a missing package or is not for this result; if the folder does not exist
        or is not writable.
    """
    ending = ending_of(target)
    if ending in PICTURES and not images:
        raise ParameterError("only images are written as pictures", f"{target} is to be one", "Write an .npy or .csv.")
    path = Path(target)
    if ending == "/":
        check_place(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ParameterError("pictures are written to a new folder", f"{target} is there", "Choose another name.")
    else:
        check_file_place(path)
    if ending in PICTURES:
        image_files.pillow()
    if ending == ".h5ad" and not importlib.util.find_spec("anndata"):
        raise missing("anndata", "an .h5ad file")
    if ending == ".parquet" and _frames() is None:
        raise missing("pyarrow", "a .parquet file")


def ending_of(target: str) -> str:
    """The extension of a target."""
    if target.endswith(("/", os.sep)):
        return "/"
    ending = next((ending for ending in WRITERS if target.lower().endswith(ending)), None)
    if ending is None:
        near = difflib.get_close_matches(Path(target).suffix, WRITERS, n=1)
        do = f"Did you mean {Path(target).stem}{near[0]}?" if near else "Choose one, for example .npy."
        known = f"{', '.join(e for e in WRITERS if e != '/')}, or in / for a folder of pictures"
        raise ParameterError(f"the name of an output must end in {known}", f"{target} does not", do)
    return ending


def check_place(path: Path) -> None:
    """Raise if the folder of a path is missing or not writable."""
    folder = path.absolute().parent
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        got = f"{path}: {error.strerror if isinstance(error, OSError) else error}"
        raise ParameterError("an output must have a name that the system takes", got, "Choose another.") from error
    if not os.path.isdir(folder):
        state = "is a file" if os.path.exists(folder) else "does not exist"
        raise ParameterError("an output is written to a folder that exists", f"{folder} {state}", "Create it.")
    if not os.access(folder, os.W_OK):
        raise ParameterError("an output needs a folder to write to", f"{folder} is read-only", "Choose another.")


def check_file_place(path: Path) -> None:
    """Raise if a path cannot become a file."""
    check_place(path)
    if os.path.isdir(path):
        raise ParameterError("the output must be a file", f"{path} is a folder", "Name a file in it.")


def write(target: str, result: Result) -> None:
    """Write a result to a path checked by `check_output`."""
    WRITERS[ending_of(target)](Path(target), result)


def write_columns(target: str, columns: Mapping[str, np.ndarray]) -> None:
    """Write a table with columns of any type to a .csv, .tsv or .parquet checked by `check_output`.

    Raises
    ------
    ParameterError
        If the extension is another one.
    """
    check_table(target)
    path = Path(target)
    if ending_of(target) == ".parquet":
        write_atomically(path, _parquet(columns))
        return
    lists = {name: column.tolist() for name, column in columns.items()}
    buffer = io.StringIO()
    writer = text_writer(buffer, path, chain(lists, *lists.values()))
    writer.writerow(lists)
    writer.writerows(zip(*lists.values(), strict=True))
    write_atomically(path, buffer.getvalue())


def text_writer(buffer: io.StringIO, path: Path, words: Iterable[Any]) -> Any:
    """A csv writer for a .csv or .tsv with these words, quoted so that they are read back unchanged.

    Raises
    ------
    DataError
        If a word cannot be read back.
    """
    odd = False
    for word in words:
        if isinstance(word, str):
            odd |= word.startswith(" ") or "\r" in word
            if "\0" in word or len(word) > csv.field_size_limit():
                expected = f"text in a table as text has no NUL, and at most {csv.field_size_limit():,} characters"
                raise DataError(expected, f"{word[:40]!r} is none", "Write .parquet.")
    return csv.writer(
        buffer,
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL,
    )


def check_table(target: str) -> None:
    """Raise if an extension is not that of a table with columns of any type."""
    if ending_of(target) not in TABLES:
        raise ParameterError(
            f"a table of ids is written to {', '.join(TABLES)}", f"{target} is none", "Write .parquet."
        )


def _parquet(columns: Mapping[str, Any]) -> bytes:
    import narwhals.stable.v2 as nw

    buffer = io.BytesIO()
    plain = {name: _plain(column) for name, column in columns.items()}
    nw.from_dict(plain, backend=_frames()).write_parquet(buffer)
    return buffer.getvalue()


def _plain(column: Any) -> Any:
    """A column of objects with a dtype that data frame libraries take directly."""
    if not isinstance(column, np.ndarray) or column.dtype.kind != "O":
        return column
    whole = whole_numbers([column]) if all(type(value) is int for value in column) else None
    return column.tolist() if whole is None else whole


def write_npy(path: Path, result: Result) -> None:
    """Write one array."""
    buffer = io.BytesIO()
    np.save(buffer, result.values, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def write_npz(path: Path, result: Result) -> None:
    """Write the array, and the names of columns and rows, if known."""
    named = {"columns": result.names, "rows": result.rows}
    arrays: dict[str, Any] = {result.key: result.values}  # any name: savez also has options of other types
    arrays |= {name: np.asarray(value, dtype=str) for name, value in named.items() if value is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def write_text(path: Path, result: Result) -> None:
    """Write a table with a header, numbers in their shortest exact form."""
    first = {name: column.tolist() for name, column in result.first.items()}
    names = [*first, *result.header]
    buffer = io.StringIO()
    writer = text_writer(buffer, path, chain(names, *first.values()))
    writer.writerow(names)
    values = result.flat
    size = max(1, AT_ONCE // max(1, values.shape[1]))
    for start in range(0, len(values), size):
        words = _words(values[start : start + size]).tolist()
        beside = zip(*(column[start : start + size] for column in first.values()), strict=True) if first else repeat(())
        writer.writerows([*some, *row] for some, row in zip(beside, words, strict=False))
    write_atomically(path, buffer.getvalue())


def _words(values: np.ndarray) -> np.ndarray:
    """Numbers as text in their shortest exact form, integers without a point."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all():
        values = values.astype(np.int64) if np.abs(values).max(initial=0) < 2**53 else values
    return values.astype(str).astype(object)


def write_parquet(path: Path, result: Result) -> None:
    """Write a table."""
    columns: dict[str, Any] = {
        name: [*map(str, column.tolist())] if name == "row" else column for name, column in result.first.items()
    }
    columns |= {name: np.ascontiguousarray(column) for name, column in zip(result.header, result.flat.T, strict=True)}
    write_atomically(path, _parquet(columns))


def _frames() -> Any:
    return next((name for name in ("pyarrow", "polars") if importlib.util.find_spec(name)), None)


def write_h5ad(path: Path, result: Result) -> None:
    """Write an AnnData: the given one with the values in `.obsm` or `.X`, or a new one."""
    import anndata

    obs = None if result.adata is None else result.adata.obs
    if result.obsm:
        data = result.adata if obs is not None else anndata.AnnData(shape=(len(result.values), 0))
        data.obsm[result.obsm] = result.flat
    elif obs is not None and list(result.adata.var_names) == result.header:
        data = result.adata
        data.X = result.flat
    else:
        data = anndata.AnnData(result.flat, obs=obs)
        data.var_names = result.header
    if result.rows is not None and obs is None:
        data.obs_names = result.rows
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name[:40]}.") as folder:
        fresh = Path(folder) / path.name
        data.write_h5ad(fresh)
        os.replace(fresh, path)


def write_grid(path: Path, result: Result) -> None:
    """Write one picture of many images."""
    images = image_files.eight_bit(channels_last(result.values[: image_files.GRID + 1], result.layout), result.pixels)
    write_atomically(path, image_files.png_bytes(image_files.grid(images, len(result.values))))


def write_folder(path: Path, result: Result) -> None:
    """Write a folder with a picture of every image."""
    images = image_files.eight_bit(channels_last(result.values, result.layout), result.pixels)
    with folder_at_once(path) as fresh:
        for name, image in zip(image_files.numbered(len(images)), images, strict=True):
            (fresh / name).write_bytes(image_files.png_bytes(image))


PICTURES = (".png", "/")
TABLES = (".csv", ".tsv", ".parquet")
WRITERS: dict[str, Callable[[Path, Result], None]] = {
    ".npy": write_npy,
    ".npz": write_npz,
    ".csv": write_text,
    ".tsv": write_text,
    ".parquet": write_parquet,
    ".h5ad": write_h5ad,
    ".png": write_grid,
    "/": write_folder,
}
