"""Reading data files by their extension; whatever is wrong raises `DataError`.

No code in a file is run: pickled objects raise an error.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import stat
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import narwhals.stable.v2 as nw
import numpy as np

from elbowroom.data.interactions.ids import are_interactions
from elbowroom.data.interactions.reading import Reading
from elbowroom.data.io import arrays
from elbowroom.data.io.arrays import Contents, check_rows
from elbowroom.data.io.csv import Delimited, read_delimited
from elbowroom.data.io.hdf5 import check_hdf5
from elbowroom.data.io.image_files import SUFFIXES, read_folder
from elbowroom.data.io.tables import array_of_columns, frame_of_columns, pandas_of
from elbowroom.data.streams import changed, check_ratio, fingerprint, regular, status, whole
from elbowroom.data.validation import check_sparse
from elbowroom.data.words import as_whole, ids_of_words, values_of
from elbowroom.errors import DataError, ElbowroomWarning, counted, missing

MOST_NAMES = 10_000  # that are compared with an unknown name


@dataclass(frozen=True)
class Data:
    """The data of a file.

    Parameters
    ----------
    source : str
        The file's name, for messages.
    x : array, sparse matrix, data frame or AnnData
        The rows, ready for an estimator.
    columns : mapping of str to array (n,)
        Columns by name, which a report can be coloured by. For a table, all of its columns.
    names : sequence of str or None
        Names of the features.
    rows : array of str (n,) or None
        Names of the rows.
    """

    source: str
    x: Any
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    names: Sequence[str] | None = None
    rows: np.ndarray | None = None
    interactions: bool = False

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def kind(self) -> str:
        """The kind of model for the data: "interactions", "image", "count" or "table"."""
        if self.interactions:
            return "interactions"
        if hasattr(self.x, "obsm") or hasattr(self.x, "tocsr"):
            return "count"
        return "image" if len(self.x.shape) in (3, 4) else "table"

    @property
    def spare(self) -> list[str]:
        """The columns that are not features."""
        return [name for name in self.columns if name not in (self.names or ())]

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The columns of a table that are not features; empty for AnnData and interactions."""
        return {} if self.interactions or hasattr(self.x, "obsm") else {name: self.columns[name] for name in self.spare}

    def column(self, name: str) -> np.ndarray:
        """A column by its name."""
        if name not in self.columns:
            raise unknown_column(name, self.columns, self.source)
        return self.columns[name]


@dataclass(frozen=True)
class Table:
    """A data frame from a file format with column types."""

    frame: Any
    named: ClassVar[bool] = True

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(nw.from_native(self.frame, eager_only=True).columns)

    def columns(self, texts: Collection[str] = ()) -> dict[str, np.ndarray]:
        """The columns by name."""
        table = nw.from_native(self.frame, eager_only=True)
        return {name: np.asarray(table[name].to_numpy()) for name in self.names}

    def select(self, names: Sequence[str]) -> Any:
        """Some of the columns as a frame."""
        return nw.from_native(self.frame, eager_only=True).select(names).to_native()


def read(
    source: str,
    labels: Sequence[str] = (),
    features: Sequence[str] | None = None,
    interactions: bool | None = None,
    reading: Reading | None = None,
    texts: Collection[str] = (),
) -> Data:
    """Read a data file.

    Parameters
    ----------
    source : str
        A path; for an array in an .npz, also `path.npz:key`.
    labels : sequence of str
        Columns of a table that are not features.
    features : sequence of str, optional
        The features that a model was fitted on, which are selected from a table or an AnnData in this order.
    interactions : bool or None
        Whether a table has a row for each interaction of a user with an item; None infers it from the column names.
    reading : Reading, optional
        How interactions are read: the columns of users and items.
    texts : collection of str
        Columns of a text file that are read as text whatever their words look like, as in training.

    Raises
    ------
    DataError
        If the file is missing, broken or empty.
    MissingDependencyError
        If its format requires a package that is not installed.
    """
    before = fingerprint(split_key(source)[0])
    data = _read(source, labels, features, interactions, reading or Reading(), texts)
    if fingerprint(split_key(source)[0]) != before:
        raise changed(split_key(source)[0])
    for label in labels:
        data.column(label)
    if 0 in data.x.shape:
        got = f"{source} has the shape {' x '.join(map(str, data.x.shape))}"
        raise DataError("data must have rows and columns", got, "Check the file.")
    return data


def _read(
    source: str,
    labels: Sequence[str],
    features: Sequence[str] | None,
    interactions: bool | None,
    reading: Reading,
    texts: Collection[str],
) -> Data:
    path, key = split_key(source)
    reader = _reader_of(path)
    with warnings.catch_warnings():  # of pandas, anndata and others
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ElbowroomWarning)
        contents = reader(path, key) if key else reader(path)
    if isinstance(contents, Contents):
        check_rows(source, contents.x)
        return Data(source, contents.x, contents.beside)
    if isinstance(contents, Table | Delimited):
        if interactions is None and features is None:
            interactions = are_interactions([name for name in contents.names if name])
        if interactions:
            return _interactions(source, contents, reading)
        return _data_of_table(source, contents, labels, features, texts)
    return _with_genes(contents, features) if features is not None and hasattr(contents.x, "obsm") else contents


def split_key(source: str) -> tuple[Path, str]:
    """Split `path.npz:key` into path and key; the key of any other path is empty."""
    if not source:  # which pathlib reads as the current folder
        raise DataError("the data must be a file or a folder", "its name is empty", "Name one.")
    path, _, key = source.rpartition(":")
    return (Path(path), key) if path.lower().endswith(".npz") else (Path(source), "")


def _reader_of(path: Path) -> Callable[..., Any]:
    """The function that reads a path; raises if it does not exist or is empty."""
    info = status(path)
    if info is None:
        raise DataError("the data must be a file or a folder", f"{path} does not exist", nearest(path))
    if stat.S_ISDIR(info.st_mode):
        return read_pictures
    regular(path)
    reader = next((READERS[ending] for ending in READERS if path.name.lower().endswith(ending)), None)
    if reader is None:
        picture = path.suffix.lower() in SUFFIXES
        do = "Name the folder of images instead." if picture else "Convert it, for example to .npy or .csv."
        expected = f"data must be a folder of images or a file whose name ends in {', '.join(READERS)}"
        raise DataError(expected, f"{path} is neither", do)
    if info.st_size == 0:
        raise DataError("a data file must hold something", f"{path} is empty", "Check where it comes from.")
    return reader


def nearest(path: Path) -> str:
    """The advice for a path that does not exist: a similar name in its folder, if any."""
    beside: list[str] = []
    with suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        beside = [entry.name for entry in islice(entries, MOST_NAMES)]
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Check the path."


def unknown_column(name: str, known: Iterable[str], source: object) -> DataError:
    """The error for an unknown column."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    do = f"Did you mean {near[0]!r}?" if near else f"Its columns are: {listed}." if names else "It has no columns."
    return DataError("a column must be in the data", f"{source} has no column {name!r}", do)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _data_of_table(
    source: str, table: Table | Delimited, labels: Sequence[str], features: Sequence[str] | None, texts: Collection[str]
) -> Data:
    """The features of a table: those that a model was fitted on, else all columns that are not labels."""
    columns = table.columns(texts)
    for label in labels:
        if label not in columns:
            raise unknown_column(label, columns, source)
    names = list(features) if features is not None and table.named else [n for n in columns if n not in labels]
    for name in names:
        if name not in columns:
            raise unknown_column(name, columns, source)
    used = {name: columns[name] for name in names}
    if isinstance(table, Table):
        x = table.select(names)
    else:
        x = frame_of_columns(used) if table.named else array_of_columns(used)
    return Data(source, x, {name: as_whole(column) for name, column in columns.items()}, names if table.named else None)


def _interactions(source: str, table: Table | Delimited, reading: Reading) -> Data:
    """A frame with a row for each interaction. In text files, users and items are ids; the rest is as in tables."""
    if isinstance(table, Table):
        return Data(source, table.frame, table.columns(), interactions=True)
    words = table.words()
    columns = {name: values_of(words[name]) for name in words}
    frame = frame_of_columns(columns)
    if isinstance(frame, np.ndarray):
        raise missing("pandas", "a text file with interactions")
    roles = reading.roles(frame)
    for name in roles[:2]:
        columns[name] = ids_of_words(words[name], f"column {name!r}")
    return Data(source, frame_of_columns(columns, roles[:2]), columns, interactions=True)


def read_parquet(path: Path) -> Table:
    """Read a Parquet file."""
    backend: Any = next((name for name in ("pyarrow", "polars") if importlib.util.find_spec(name)), None)
    if backend is None:
        raise missing("pyarrow", "a .parquet file")
    with whole(path, "a Parquet file"):
        check_ratio(path, regular(path).st_size, 8 * _cells(path, backend))
        options = {"glob": False} if backend == "polars" else {}  # [ and * in a name are not patterns
        table = nw.read_parquet(str(path), backend=backend, **options)
        table = table.select([name for name in table.columns if not name.startswith("__index_level_")])
        pandas = backend == "pyarrow" and importlib.util.find_spec("pandas")
        return Table(pandas_of(table.to_native()) if pandas else table.to_native())


def _cells(path: Path, backend: str) -> int:
    """The number of cells, from the metadata of a Parquet file."""
    if backend == "pyarrow":
        from pyarrow import parquet

        facts = parquet.read_metadata(path)
        return int(facts.num_rows * facts.num_columns)
    import polars

    table = polars.scan_parquet(path, glob=False)
    return int(table.select(polars.len()).collect().item() * len(table.collect_schema()))


# ---- the rest --------------------------------------------------------------------------------------------------------


def read_h5ad(path: Path) -> Data:
    """Read an AnnData; the columns are those of `.obs`."""
    try:
        import anndata
    except ModuleNotFoundError as error:
        raise missing("anndata", "an .h5ad file") from error
    with whole(path, "an AnnData file"):
        check_hdf5(path)
        data = anndata.read_h5ad(path)
        matrices = [data.X, None if data.raw is None else data.raw.X]
        for part in (data.layers, data.obsm, data.varm, data.obsp, data.varp):
            matrices += part.values()
        for matrix in matrices:
            check_sparse(matrix, str(path))
    columns = {str(name): np.asarray(data.obs[name]) for name in data.obs}
    return Data(str(path), data, columns, [*map(str, data.var_names)], np.asarray(data.obs_names, dtype=str))


def _with_genes(data: Data, features: Sequence[str]) -> Data:
    """The variables of an AnnData that a model was fitted on."""
    names, wanted = list(data.names or ()), list(features)
    if names == wanted:
        return data
    known = set(names)
    for name in wanted:
        if name not in known:
            raise unknown_column(name, names, data.source)
    with whole(Path(data.source), "an AnnData file whose variables have different names"):
        return replace(data, x=data.x[:, wanted].copy(), names=wanted)


def read_pictures(path: Path) -> Data:
    """Read a folder of images; the column `folder` has the names of their subfolders, if any."""
    x, names = read_folder(path)
    folders = np.array([str(Path(name).parent) for name in names])
    return Data(str(path), x, {"folder": folders} if len({*folders}) > 1 else {}, None, names)


def read_labels(source: str, data: Data) -> np.ndarray:
    """Read labels (n,) of rows: a column of the data, or an array in another file (.npy, .npz, IDX)."""
    path, key = split_key(source)
    if source in data.columns or not (os.path.exists(path) or key or path.suffix.lower() in READERS):
        return data.column(source)
    reader = _reader_of(path)
    if reader in (arrays.read_npy, arrays.read_idx):
        labels = np.asarray(reader(path).x)
    elif reader is arrays.read_npz:
        labels = arrays.read_npz(path, key or "y").x
    else:
        raise DataError("labels must be a column of the data or an array", f"{path} is neither", "Write an .npy file.")
    if labels.shape != (len(data),):
        got = f"{source} has the shape {labels.shape}"
        raise DataError(f"labels must be one for each row ({counted(len(data), 'row')})", got, "Check the file.")
    return labels


READERS: dict[str, Callable[..., Any]] = {
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".csv": read_delimited,
    ".csv.gz": read_delimited,
    ".tsv": read_delimited,
    ".tsv.gz": read_delimited,
    ".parquet": read_parquet,
    ".h5ad": read_h5ad,
    ".idx": arrays.read_idx,
    ".idx.gz": arrays.read_idx,
    "-ubyte": arrays.read_idx,
    "-ubyte.gz": arrays.read_idx,
}
