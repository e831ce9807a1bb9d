"""HDF5 files may name other files, and libraries that unpack them: those that do are refused before they are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from elbowroom.data.streams import check_ratio, regular
from elbowroom.errors import DataError

FILTERS = (1, 2, 3, 4, 5, 6, 32000)  # of HDF5 and h5py: deflate, shuffle, fletcher32, szip, nbit, scaleoffset, lzf


def check_hdf5(path: Path) -> None:
    """Refuse an HDF5 file that is not complete in itself, leads in a circle, or is far larger than its bytes.

    Nothing is read but what the file says of its groups and arrays.

    Raises
    ------
    DataError
        If it has links that are not to its own objects, arrays that lie in other files, groups that are reached twice,
        or filters that are not HDF5's own.
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


def _address(item: Any) -> tuple[int, ...]:
    """Where an object is, by whatever name."""
    import h5py

    return tuple(h5py.h5g.get_objinfo(item.id).objno)


def _refused(path: Path, why: str) -> DataError:
    do = "If you trust it, open it with anndata and write it again: read_h5ad(path).write_h5ad(other)."
    return DataError(f"{path} must hold all of its data, as anndata writes it", why, do)
