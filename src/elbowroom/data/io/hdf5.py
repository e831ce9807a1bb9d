"""Check HDF5 files before they are read: they may refer to other files and load filter libraries."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from elbowroom.data.streams import broken, check_ratio, regular
from elbowroom.errors import DataError

DEFLATE, SHUFFLE = 1, 2
FILTERS = (1, 2, 3, 4, 5, 6, 32000)  # of HDF5 and h5py: deflate, shuffle, fletcher32, szip, nbit, scaleoffset, lzf


def check_hdf5(path: Path) -> None:
    """Raise if an HDF5 file is not self-contained, is circular, or would be far larger in memory than its size.

    Only the metadata of groups and arrays is read.

    Raises
    ------
    DataError
        If it has external or soft links, arrays in other files, groups that are reached twice, or filters that are not
        built in.
    """
    import h5py

    size, total = regular(path).st_size, 0
    with h5py.File(path, "r") as file:
        groups, seen = [file["/"]], {_address(file["/"])}
        while groups:
            group = groups.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise _refused(path, f"{name!r} in {group.name} is a link to another place")
                item = group[name]
                if isinstance(item, h5py.Dataset):
                    _check_dataset(path, item)
                    _check_texts(path, item, size)
                    total += math.prod(item.shape or ()) * item.dtype.itemsize
                    check_ratio(path, size, total)
                elif isinstance(item, h5py.Group):
                    if _address(item) in seen:
                        raise _refused(path, f"the group {item.name} is in it twice")
                    seen.add(_address(item))
                    groups.append(item)


def _check_dataset(path: Path, item: Any) -> None:
    if item.is_virtual or item.external:
        raise _refused(path, f"the values of {item.name} are in another file")
    made = item.id.get_create_plist()
    for code, _, _, name in (made.get_filter(i) for i in range(made.get_nfilters())):
        if code not in FILTERS:
            raise _refused(path, f"{item.name} is packed by the filter {code} ({name.decode('utf-8', 'replace')})")


def _check_texts(path: Path, item: Any, size: int) -> None:
    """Raise if a string claims to be longer than the file: HDF5 allocates memory before it checks this."""
    import h5py

    kind = item.id.get_type()
    text = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
    if not text and kind.get_class() != h5py.h5t.VLEN:
        return
    width = 8 + item.file.id.get_create_plist().get_sizes()[0]  # a length, an address and a number
    for stored in _stored(path, item, width):
        places = np.frombuffer(stored, np.uint8, len(stored) // width * width).reshape(-1, width)
        lengths = places[:, :4].copy().view("<u4")
        if lengths.max(initial=0) > size:
            got = f"a text in {item.name} announces {lengths.max():,} bytes, and the file has {size:,}"
            raise broken(path, "an AnnData file", got)
        check_ratio(path, size, int(lengths.sum(dtype=np.int64)))


def _stored(path: Path, item: Any, width: int) -> Iterator[bytes]:
    """The stored bytes of an array of references of `width` bytes, in one piece or chunk by chunk.

    Chunks compressed by filters that anndata does not use are skipped.
    """
    start, count = item.id.get_offset(), math.prod(item.shape or ())
    if start is not None:
        with path.open("rb") as file:
            file.seek(start)
            yield file.read(min(count * width, path.stat().st_size))
    if item.chunks is None:
        return
    made = item.id.get_create_plist()
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    for chunk in (item.id.get_chunk_info(i) for i in range(item.id.get_num_chunks())):
        content = item.id.read_direct_chunk(chunk.chunk_offset)[1]
        if DEFLATE in filters:
            content = zlib.decompressobj().decompress(content, math.prod(item.chunks) * width)
        if SHUFFLE in filters:
            content = np.frombuffer(content, np.uint8).reshape(width, -1).T.tobytes()
        if {*filters} <= {DEFLATE, SHUFFLE}:
            yield content


def _address(item: Any) -> tuple[int, ...]:
    """The address of an object, which is independent of its name."""
    import h5py

    return tuple(h5py.h5g.get_objinfo(item.id).objno)


def _refused(path: Path, why: str) -> DataError:
    do = "If you trust it, open it with anndata and write it again: read_h5ad(path).write_h5ad(other)."
    return DataError(f"{path} must hold all of its data, as anndata writes it", why, do)
