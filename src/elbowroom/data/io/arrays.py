"""Arrays in files: .npy, .npz (also scipy's sparse matrices) and IDX, the format of MNIST."""

from __future__ import annotations

import difflib
import math
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from elbowroom.data.streams import broken, check_ratio, open_bytes, regular, whole
from elbowroom.data.validation import check_sparse
from elbowroom.errors import DataError, warn

PREFERRED = ("x", "X", "data", "images", "x_train", "X_train", "train", "arr_0")  # if an .npz has several arrays
SHARE = 0.5  # of the machine's memory that an array may use; larger ones are memory-mapped
MOST_NAMES = 6  # of arrays in messages
IDX = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Contents(NamedTuple):
    """An array, and the 1-D arrays of the same length in its file."""

    x: Any
    beside: dict[str, np.ndarray]


class Header(NamedTuple):
    """The header of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Number of bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: Path) -> Contents:
    """Read one array: into memory, or memory-mapped if it needs more than SHARE of the machine's memory.

    The rows of a mapped array are read from the file when they are needed.
    """
    with whole(path, "an .npy file"), open_bytes(path) as file:
        header = _header(path, file)
        _refuse_objects(path, header.dtype)
        size, follow = header.size, regular(path).st_size - file.tell()
        if size > follow:
            raise broken(path, "a whole .npy file", f"it announces {size:,} bytes of values and {follow:,} follow")
        if size > SHARE * _memory():
            return Contents(np.load(path, mmap_mode="r", allow_pickle=False), {})
        file.seek(0)
        return Contents(np.lib.format.read_array(file, allow_pickle=False), {})


def read_npz(path: Path, key: str = "") -> Contents:
    """Read an array from an .npz, with the 1-D arrays of its length; or a scipy sparse matrix."""
    size = regular(path).st_size
    with whole(path, "an .npz file"), zipfile.ZipFile(path) as archive:
        check_ratio(path, size, sum(member.file_size for member in archive.infolist()))
        headers = _headers(path, archive)
        if not key and {"format", "shape", "data"} <= headers.keys():
            return Contents(_sparse(path, size), {})
        key = key or _choose(path, headers)
        if key not in headers:
            raise _no_array(path, key, list(headers))
        _refuse_objects(path, headers[key].dtype)
        rows = headers[key].shape[:1]
        beside = [name for name, (shape, dtype) in headers.items() if shape == rows and not dtype.hasobject]
        with np.load(path, allow_pickle=False) as arrays:
            return Contents(arrays[key], {name: arrays[name] for name in beside if name != key})


def read_idx(path: Path) -> Contents:
    """Read an array in the format of MNIST's files."""
    with whole(path, "an IDX file"), open_bytes(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX:
            raise broken(path, "an IDX file", f"it begins with {magic!r}")
        shape, dtype = struct.unpack(f">{magic[3]}I", file.read(4 * magic[3])), np.dtype(IDX[magic[2]])
        content = file.read()  # all of it, as the header may be wrong
        size = math.prod(shape) * dtype.itemsize
        if len(content) != size:
            got = f"its header announces {size:,} bytes of values and {len(content):,} follow"
            raise broken(path, "a whole IDX file", got)
        values = np.frombuffer(content, dtype).reshape(shape)
    return Contents(values.astype(dtype.newbyteorder("="), copy=False), {})


def check_rows(source: str, x: Any) -> None:
    """Raise unless an array consists of rows of numbers."""
    if x.dtype.kind not in "biuf":
        raise DataError("an array must hold numbers", f"{source} holds {x.dtype}", "Save X.astype(float).")
    if x.ndim < 2:
        raise DataError(
            "an array must have rows: (n, columns), (n, height, width) or (n, height, width, channels)",
            f"{source} has the shape {x.shape}",
            "Reshape it, for example X.reshape(-1, 28, 28).",
        )


def _header(path: Path, file: IO[bytes]) -> Header:
    magic = file.read(6)
    if magic != b"\x93NUMPY":
        hint = " (a zip archive, perhaps an .npz)" if magic.startswith(b"PK") else ""
        raise broken(path, "an .npy file", f"it begins with {magic!r}{hint}")
    major, minor = file.read(2)
    if major not in (1, 2, 3) or minor:
        raise broken(path, "an .npy file", f"its format has the version {major}.{minor}, which is not known")
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(length < 0 for length in shape):
        raise broken(path, "an .npy file", f"its shape is {shape}")
    return Header(shape, dtype)


def _headers(path: Path, archive: zipfile.ZipFile) -> dict[str, Header]:
    headers = {}
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            with archive.open(member) as file:
                header = _header(path, file)
            if header.size > member.file_size and not header.dtype.hasobject:
                got = f"{member.filename} announces {header.size:,} bytes of values and has {member.file_size:,}"
                raise broken(path, "a whole .npz file", got)
            headers[member.filename.removesuffix(".npy")] = header
    return headers


def _refuse_objects(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise DataError(
            "an array must hold numbers",
            f"{path} holds pickled objects, which are not loaded because loading them can run code",
            "Save numbers: numpy.save(path, X.astype(float)).",
        )


def _choose(path: Path, headers: Mapping[str, Header]) -> str:
    """The most likely array: the only one with rows of numbers, one with a usual name, or the first."""
    fit = [name for name, (shape, dtype) in headers.items() if len(shape) > 1 and dtype.kind in "biuf"]
    if not fit:
        listed = [f"{name} {shape} {dtype!s:.40}" for name, (shape, dtype) in islice(headers.items(), MOST_NAMES)]
        listed += ["..."] * (len(headers) > MOST_NAMES)
        raise broken(path, "an .npz file with an array of rows of numbers", f"it has {', '.join(listed) or 'no array'}")
    chosen = next((name for name in PREFERRED if name in fit), fit[0])
    if len(fit) > 1:
        others = ", ".join([f"{path.name}:{name}" for name in fit if name != chosen][:MOST_NAMES])
        message = f"{path.name} has several arrays: {chosen!r} is read; others are {others}"
        warn(message, 2)
    return chosen


def _no_array(path: Path, key: str, known: Sequence[str]) -> DataError:
    near = difflib.get_close_matches(key, known, n=1)
    do = f"Did you mean {path}:{near[0]}?" if near else f"Known are: {', '.join(known[:MOST_NAMES]) or 'none'}."
    return DataError("an array must be in the file", f"{path} has no array {key!r}", do)


def _sparse(path: Path, size: int) -> Any:
    from scipy import sparse

    matrix = sparse.load_npz(path)
    check_sparse(matrix, str(path))
    check_ratio(path, size, 8 * matrix.shape[0])  # even an empty row has an index
    return matrix.tocsr()


def _memory() -> float:
    """Bytes of memory of the machine; infinity if unknown."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf
