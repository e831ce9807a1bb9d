"""Files that are broken, or lie, with checksums that are right: each is read, or refused by one clear error.

A case is a name of `TARGETS` and a seed: `make` writes a file or a folder into an empty folder, and `read` reads it.
Many cases run in one process of their own, which watches what each does beside reading that (`fuzzing`). To add a kind
of file, add a line to `TARGETS`. To try one case, run this file: python tests/test_fuzz.py FOLDER NAME SEED
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fuzzing import BATCH, LONG, SHORT, Targets, Watch, asked, check, run_here

Mutator = Callable[[Path, Random], None]

# ---- bytes -----------------------------------------------------------------------------------------------------------


def on_bytes(change: Callable[[bytes, Random], bytes]) -> Mutator:
    return lambda path, random: void(path.write_bytes(change(path.read_bytes(), random)))


def void(_: object) -> None:
    pass


def as_it_is(path: Path, random: Random) -> None:
    pass


def flip(content: bytes, random: Random) -> bytes:
    some = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if some:
            some[random.randrange(len(some))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(some)


def cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def splice(content: bytes, random: Random) -> bytes:
    """A part of it left out, doubled or moved."""
    a, b, c = sorted(random.randrange(len(content) + 1) for _ in range(3))
    return random.choice(
        (content[:a] + content[b:], content[:b] + content[a:], content[:a] + content[b:c] + content[a:b] + content[c:])
    )


def integers(content: bytes, random: Random) -> bytes:
    """An aligned number in it replaced by one at a limit."""
    code, size = random.choice((("<I", 4), (">I", 4), ("<Q", 8), ("<H", 2)))
    if len(content) < 2 * size:
        return content
    at = random.randrange(len(content) // size - 1) * size
    limit = random.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
    return content[:at] + struct.pack(code, limit) + content[at + size :]


ANY = [on_bytes(change) for change in (flip, cut, splice, integers)]


def mutated(name: str, write: Mutator, *mutators: Mutator) -> Callable[[Path, Random], Path]:
    """What makes a valid file of this name, and breaks it: first by its structure, then perhaps by its bytes."""

    def make(folder: Path, random: Random) -> Path:
        path = folder / name
        write(path, random)
        if mutators:
            random.choice(mutators)(path, random)
        if not mutators or random.random() < 0.35:
            random.choice(ANY)(path, random)
        return path

    return make


# ---- arrays ----------------------------------------------------------------------------------------------------------

SHAPES = [
    *((10**12, 3), (-1, 3), (2**63, 2), (0, 5), (3,), (), (10**6, 10**6), (2**31, 2**31), (2, 0, 2**40), (1,) * 70),
    *((True, 3), ("a", 3), (2, None), (2, 10**400), (3, 4, 5, 6, 7)),
]  # fmt: skip
DTYPES = [
    *("|O", "<U1000000000", "|S0", "<f16", "<f2", "<M8[s]", "<m8", "|V8", "<c16", "<u8", ">i2", "|b1", "<f3", "f8,f8"),
    *([("a", "<f8"), ("b", "|O")], [("a", "<f8", (10**9,))], "(3,)f8", 7, None, ["x"]),
]
HEADERS = [
    *(
        "__import__('os').system('touch pwned')",
        "(" * 5000,
        "-" * 5000 + "1",
        "[" * 150 + "]" * 150,
        "{}",
        "",
        "\0" * 20,
    ),
    *("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), 'more': 1}", "x" * 60_000, "{'a': " * 90 + "}" * 90),
]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def array(random: Random) -> np.ndarray:
    shape = random.choice(((5, 3), (4, 6, 6), (3, 4, 4, 3), (1, 1), (9,)))
    dtype = random.choice(("f8", ">f4", "u1", "i8", "?", "f4"))
    values = np.random.default_rng(random.randrange(2**32)).integers(0, 9, shape).astype(dtype)
    return np.asfortranarray(values) if random.random() < 0.3 else values


def headed(content: bytes, random: Random) -> bytes:
    """An .npy with another header, of the right length."""
    header: Any = np.lib.format.read_array_header_1_0(io.BytesIO(content[8:]))
    facts = dict(zip(("shape", "fortran_order", "descr"), header, strict=True))
    facts["descr"] = np.lib.format.dtype_to_descr(facts["descr"])
    name = random.choice(("shape", "shape", "descr", "descr", "fortran_order", ""))
    known = {"shape": SHAPES, "descr": DTYPES, "fortran_order": [True, False, 1, "x", None]}
    facts |= {name: random.choice(known[name])} if name else {}
    text = repr(facts) if name else random.choice(HEADERS)
    values = content[10 + int.from_bytes(content[8:10], "little") :]
    major, minor = random.choice([(1, 0), (2, 0), (3, 0)] * 5 + [(9, 0), (1, 7), (0, 0)])
    length = struct.pack("<H" if major == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes((major, minor)) + length + text.encode() + b"\n" + values


def write_npy(path: Path, random: Random) -> None:
    path.write_bytes(npy(array(random)))


def write_npz(path: Path, random: Random) -> None:
    from scipy import sparse

    if random.random() < 0.5:
        matrix = sparse.random(7, 5, 0.4, random.choice(("csr", "csc", "coo", "bsr", "dia")), random_state=0)
        sparse.save_npz(path, matrix, compressed=random.random() < 0.5)
    else:
        np.savez_compressed(path, X=array(random), y=np.arange(5), names=np.array(list("abcde")))


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in parts.items():
            archive.writestr(name, content)


def npz_member(path: Path, random: Random) -> None:
    """One array of it with another header."""
    parts = members(path)
    name = random.choice(list(parts))
    parts[name] = random.choice((headed, flip, cut))(parts[name], random)
    zipped(path, parts, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))


def npz_values(path: Path, random: Random) -> None:
    """One array of it replaced: of a sparse matrix, its indices then point anywhere."""
    parts = members(path)
    name = random.choice(list(parts))
    old = np.load(io.BytesIO(parts[name]))
    far = random.choice((10**6, 2**31 - 1, 2**40, -1, -(2**31)))
    new = random.choice(
        [
            np.full_like(old, 0) + np.asarray(far, "i8") if old.dtype.kind in "iuf" else np.array("lil"),
            np.array([10**12, 10**12]),
            np.array([far, 3]),
            np.array(random.choice((b"coo", b"dia", b"bsr", b"csc", b"x" * 99, "nonsense"))),
            old.reshape(-1)[:-1] if old.size else old,
            np.array([{"a": 1}], dtype=object),
            old.astype(random.choice(("f4", "c8", "U3"))) if old.dtype.kind in "iuf" else old,
            np.zeros((3, 3, 3)),
        ]
    )
    zipped(path, parts | {name: npy(new)})


def npz_names(path: Path, random: Random) -> None:
    """Names that lead elsewhere or fake a sparse matrix, or a bomb."""
    parts = members(path)
    first = next(iter(parts.values()))
    more: dict[str, bytes] = random.choice(
        [
            {"../../pwned.npy": first},
            {"format.npy": npy(np.array(b"csr")), "shape.npy": npy(np.array([3, 3])), "data.npy": first},
            {f"{i}.npy": first for i in range(2000)},
            {"\x1b[31m\u202e.npy": first, "a\nb.npy": first},
            {"X.npy": npy(np.zeros((2**13, 2**13), np.uint8))},
        ]
    )
    zipped(path, parts | more)


def zip_fields(path: Path, random: Random) -> None:
    """Sizes, flags and methods in the directory of the archive that are lies."""
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\x01\x02")
    field, size = random.choice(((8, 2), (10, 2), (20, 4), (24, 4), (28, 2), (42, 4)))
    value = random.choice((0, 1, 8, 9, 12, 14, 99, 2**16 - 1, 2**31, 2**32 - 1)) % 2 ** (8 * size)
    if start >= 0:
        content[start + field : start + field + size] = value.to_bytes(size, "little")
    path.write_bytes(content)


def write_idx(path: Path, random: Random) -> None:
    values = np.random.default_rng(random.randrange(99)).integers(0, 255, (4, 5, 5), dtype=np.uint8)
    path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", *values.shape) + values.tobytes())


@on_bytes
def idx_header(content: bytes, random: Random) -> bytes:
    lengths = [random.choice((0, 1, 4, 5, 2**16, 2**31, 2**32 - 1)) for _ in range(random.choice((0, 1, 2, 3, 4, 255)))]
    lengths = random.choice((lengths, lengths, [4, 25], [100, 1, 1], [0, 2**32 - 1, 5], [2, 2, 5, 5]))
    code = random.choice((8, 9, 11, 12, 13, 14, 0, 255))
    return bytes([0, 0, code, len(lengths)]) + b"".join(struct.pack(">I", n) for n in lengths) + content[16:]


def packed(mutate: Mutator) -> Mutator:
    """A change of what a .gz holds; its checksum is right again."""

    def change(path: Path, random: Random) -> None:
        path.write_bytes(gzip.decompress(path.read_bytes()))
        mutate(path, random)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return change


def packing(write: Mutator) -> Mutator:
    def change(path: Path, random: Random) -> None:
        write(path, random)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return change


@on_bytes
def gz_members(content: bytes, random: Random) -> bytes:
    bomb = gzip.compress(b"1,2\n" * 2**20)
    return random.choice((content + content, content + b"\0" * 99, content + b"nonsense", bomb, content + bomb))


# ---- tables ----------------------------------------------------------------------------------------------------------

CELLS = [
    *(
        "",
        "1e999",
        "-inf",
        "nan",
        "0x10",
        "1_000",
        "١٢",
        "\x1b[2J",
        "\u202egnp.exe",
        "x" * 200_000,
        "\0",
        '"',
        '"a',
        '""',
    ),
    *("a\nb", "a\rb", "=cmd|' /C calc'!A0", "9" * 400, "2020-02-31", "2020-01-01T00:00:00Z", "true", "[1, 2]", "é"),
]


def write_csv(path: Path, random: Random) -> None:
    separator = "\t" if ".tsv" in path.name else ","
    names = separator.join(("a", "b", random.choice(("c", "user id", "", "1"))))
    rows = [separator.join(random.choice(("1", "2.5", "x", "")) for _ in range(3)) for _ in range(30)]
    path.write_text("\n".join([names, *rows]) + "\n")


@on_bytes
def csv_cells(content: bytes, random: Random) -> bytes:
    lines = [line.split(b",") for line in content.split(b"\n")]
    for _ in range(random.choice((1, 3, 20))):
        line = random.choice(lines)
        line[random.randrange(len(line))] = random.choice(CELLS).encode()
    return b"\n".join(b",".join(line) for line in lines)


@on_bytes
def csv_form(content: bytes, random: Random) -> bytes:
    """Another encoding, end of line, number of columns, or no end of a line at all."""
    text = content.decode("utf-8", "replace")
    return random.choice(
        [
            text.encode("utf-16"),
            text.encode("utf-16-be"),
            text.replace("x", "é").encode("latin-1", "replace"),
            text.replace("\n", "\r").encode(),
            text.replace("\n", random.choice(("", "\x85", "\u2028", "\n\n", "\n\x0c"))).encode(),
            b"\xef\xbb\xbf" * 2 + content,
            ",".join(f"c{i}" for i in range(3000)).encode() + b"\n" + b",".join([b"1"] * 3000) + b"\n",
            b"a,b\n" + b"1," * 10**6,
            b"a,b\n1,2\n3,\"" + b"x,1\n" * 10**5,
        ]
    )  # fmt: skip


def write_parquet(path: Path, random: Random) -> None:
    import datetime
    import decimal

    import pyarrow as pa
    from pyarrow import parquet

    n = 20
    columns = {
        "number": [random.random() for _ in range(n)],
        "text": [random.choice(("a", "b", None)) for _ in range(n)],
        "list": [[1, 2]] * n,
        "struct": [{"a": 1}] * n,
        "decimal": [decimal.Decimal("1.50")] * n,
        "binary": [b"\xff\x00"] * n,
        "duration": [datetime.timedelta(1)] * n,
        "date": [datetime.date(9999, 12, 31)] * n,
        "map": pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        "time": pa.array([2**62] * n, pa.timestamp("us")),
        "dictionary": pa.array(["u", "v"] * (n // 2)).dictionary_encode(),
        "\x1b[31mname\n": [True] * n,
        "null": [None] * n,
        "large": pa.array(["x"] * n, pa.large_string()),
    }
    chosen = random.sample(sorted(columns), random.choice((1, 2, 3, 6)))
    compression = random.choice(("none", "snappy", "gzip", "zstd"))
    parquet.write_table(pa.table({name: columns[name] for name in chosen}), path, compression=compression)


@on_bytes
def parquet_footer(content: bytes, random: Random) -> bytes:
    """Its metadata, between data and an end that is right."""
    size = int.from_bytes(content[-8:-4], "little")
    footer = random.choice((flip, flip, splice, integers))(content[-8 - size : -8], random)
    magic = random.choice((b"PAR1", b"PAR1", b"PAR1", b"PARE"))
    return content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + magic


# ---- AnnData ---------------------------------------------------------------------------------------------------------


def write_h5ad(path: Path, random: Random) -> None:
    import anndata
    import pandas as pd
    from scipy import sparse

    counts = np.random.default_rng(0).poisson(1.0, (8, 5)).astype(np.float32)
    form = random.choice((np.asarray, sparse.csr_matrix, sparse.csc_matrix))
    data = anndata.AnnData(
        form(counts), obs=pd.DataFrame({"batch": pd.Categorical(list("aabbccdd"))}, index=list("stuvwxyz"))
    )
    data.layers["counts"] = sparse.csr_matrix(counts)
    data.write_h5ad(path)


def on_hdf5(change: Callable[[Any, Random], object]) -> Mutator:
    def mutate(path: Path, random: Random) -> None:
        import h5py

        with contextlib.suppress(OSError, KeyError, ValueError), h5py.File(path, "r+") as file:
            change(file, random)

    return mutate


def places(file: Any, kind: str) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if type(item).__name__ == kind else None)
    return found


@on_hdf5
def hdf5_links(file: Any, random: Random) -> None:
    """An object replaced by a link to another file or elsewhere, or a group that is within itself."""
    import h5py

    name = random.choice([*places(file, "Dataset"), *places(file, "Group")])
    canary = str(Path(file.filename).parent.parent / CANARIES[1])
    new = random.choice(
        [h5py.ExternalLink(canary, "X"), h5py.SoftLink("/obs"), h5py.SoftLink(f"/{name}"), file["/"], file["obs"]]
    )
    with contextlib.suppress(KeyError):
        del file[name]
    file[name] = new


@on_hdf5
def hdf5_elsewhere(file: Any, random: Random) -> None:
    """Values that are in another file, missing, or packed by a filter of nobody's."""
    import h5py

    name = random.choice(places(file, "Dataset"))
    old, attributes = file[name], dict(file[name].attrs)
    shape, dtype = old.shape or (4,), "f4" if old.dtype.kind == "O" else old.dtype
    raw, hdf5 = (str(Path(file.filename).parent.parent / canary) for canary in CANARIES)
    del file[name]
    how = random.choice(("external", "virtual", "huge", "filter", "deep"))
    if how == "external":
        new = file.create_dataset(name, shape, dtype, external=[(raw, 0, h5py.h5f.UNLIMITED)])
    elif how == "virtual":
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(random.choice((hdf5, ".")), "X", shape=shape)
        new = file.create_virtual_dataset(name, layout)
    elif how == "huge":
        new = file.create_dataset(name, (10**6, 10**6), dtype, chunks=(100, 100))
    elif how == "filter":
        new = unknown_filter(file, name)
    else:
        new = file.create_dataset("/".join([name, *"x" * 2000]), data=1)
    for key, value in attributes.items():
        new.attrs[key] = value


def unknown_filter(file: Any, name: str) -> Any:
    import h5py

    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((4,))
    made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, f"{name}".encode(), h5py.h5t.IEEE_F32LE, space, made)
    return file[name]


@on_hdf5
def hdf5_values(file: Any, random: Random) -> None:
    """Numbers that point anywhere, and attributes that are not true."""
    name = random.choice(places(file, "Dataset"))
    if random.random() < 0.5 and file[name].dtype.kind in "iuf" and file[name].size:
        file[name][...] = np.array(random.choice((-1, 10**6, 2**31 - 1, 0))).astype(file[name].dtype)
        return
    owner = file[random.choice([name, *places(file, "Group")])]
    key = random.choice(list(owner.attrs) or ["shape"])
    values = (
        [10**12, 10**12],
        [-1, 2],
        "csr_matrix",
        "dataframe",
        "awkward-array",
        "categorical",
        b"\xff",
        2**40,
        "\x1b[0m",
    )
    owner.attrs[key] = random.choice(values)


# ---- images ----------------------------------------------------------------------------------------------------------

FORMS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(pwned) (w) file closefile showpage\n%%EOF\n"


def write_images(folder: Path, random: Random) -> None:
    from PIL import Image

    folder.mkdir()
    ending = random.choice(list(FORMS))
    mode = random.choice(("L", "RGB"))
    for i in range(3):
        size = (8, 8) if mode == "L" else (8, 8, 3)
        values = np.random.default_rng(i).integers(0, 255, size, dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{i}.{ending}", FORMS[ending])


def on_image(mutate: Mutator) -> Mutator:
    return lambda folder, random: mutate(random.choice([p for p in sorted(folder.iterdir()) if p.is_file()]), random)


@on_image
@on_bytes
def png_chunks(content: bytes, random: Random) -> bytes:
    """A PNG's header, or a chunk in it, with the right checksum."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    content = buffer.getvalue()
    side = random.choice((0, 1, 8, 5000, 9000, 2**16, 2**31 - 1, 2**32 - 1))
    header = struct.pack(">II", side, random.choice((1, 8, side))) + bytes(
        (random.choice((1, 2, 4, 8, 16, 99)), random.choice((0, 2, 3, 4, 6, 9)), 0, 0, random.choice((0, 1)))
    )
    rest = random.choice((content[33:], chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 10**7)) + content[33:]))
    return content[:8] + chunk(b"IHDR", header) + random.choice((rest, rest, flip(rest, random)))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@on_image
def not_an_image(path: Path, random: Random) -> None:
    """A file of another kind by the name of an image."""
    path.unlink()
    how = random.choice(("eps", "pipe", "device", "circle", "folder", "lost", "psd", "fits"))
    if how == "pipe":
        os.mkfifo(path)
    elif how in ("device", "circle", "lost"):
        path.symlink_to({"device": "/dev/zero", "circle": path, "lost": "nowhere"}[how])
    elif how == "folder":
        path.mkdir()
    else:
        path.write_bytes({"eps": EPS, "psd": b"8BPS\0\1" + bytes(40), "fits": b"SIMPLE  =" + b" " * 3000}[how])


def folders(folder: Path, random: Random) -> None:
    """Names and subfolders that are out of the ordinary."""
    (folder / random.choice(("\x1b[2J", "a\nb", "\u202egnp", ".hidden", "x" * 200, os.fsdecode(b"\xff\xfe")))).mkdir()
    deep = folder.joinpath(*["d"] * random.choice((1, 50)))
    deep.mkdir(parents=True)
    for place in (folder, deep):
        with contextlib.suppress(FileExistsError):
            (place / "link").symlink_to(random.choice((folder, folder.parent, Path("/"))))


# ---- the table -------------------------------------------------------------------------------------------------------


def read_data(path: Path) -> Any:
    from elbowroom.data.io.readers import read

    return read(str(path))


CSV = (csv_cells, csv_form)
IMAGES = (
    on_image(on_bytes(flip)),
    on_image(on_bytes(integers)),
    on_image(on_bytes(cut)),
    png_chunks,
    not_an_image,
    folders,
)
TARGETS: Targets = {
    "npy": (mutated("x.npy", write_npy, on_bytes(headed)), read_data),
    "npz": (mutated("x.npz", write_npz, npz_member, npz_values, npz_names), read_data),
    "npz directory": (mutated("x.npz", write_npz, zip_fields), read_data),
    "csv": (mutated("x.csv", write_csv, *CSV), read_data),
    "tsv": (mutated("x.tsv", write_csv, csv_form), read_data),
    "csv.gz": (mutated("x.csv.gz", packing(write_csv), *map(packed, CSV), gz_members), read_data),
    "parquet": (mutated("x.parquet", write_parquet, parquet_footer, as_it_is), read_data),
    "parquet pages": (mutated("x.parquet", write_parquet), read_data),
    "h5ad": (mutated("x.h5ad", write_h5ad, hdf5_links, hdf5_elsewhere, hdf5_values), read_data),
    "h5ad bytes": (mutated("x.h5ad", write_h5ad), read_data),
    "idx": (mutated("x.idx", write_idx, idx_header), read_data),
    "idx.gz": (mutated("x-ubyte.gz", packing(write_idx), packed(idx_header), gz_members), read_data),
    "images": (lambda folder, random: images(folder / "x", random), read_data),
}


def images(folder: Path, random: Random) -> Path:
    write_images(folder, random)
    random.choice(IMAGES)(folder, random)
    return folder


# ---- the tests -------------------------------------------------------------------------------------------------------

CANARIES = ("canary.bin", "canary.h5")  # beside the folders of the cases: nothing may open them


def main(root: Path, cases: Sequence[tuple[str, int]]) -> None:
    """Run cases of data files."""
    from elbowroom.data import streams
    from elbowroom.errors import ElbowroomError

    streams.PACKED = 2**26  # so that what unpacks to this much is too much here
    import h5py

    (root / CANARIES[0]).write_bytes(bytes(10**4))
    with h5py.File(root / CANARIES[1], "w") as file:
        file["X"] = np.ones((8, 5), np.float32)
    for name, (make, read) in TARGETS.items():  # so that what is imported when it is needed is there
        folder = root / f"first {name}"
        folder.mkdir()
        with warnings.catch_warnings(), contextlib.suppress(ElbowroomError):
            warnings.simplefilter("ignore")
            read(make(folder, Random(0)))
    run_here(root, cases, TARGETS, Watch([root / canary for canary in CANARIES]))


def test_broken_files_are_read_or_refused(tmp_path: Path) -> None:
    check(tmp_path, 0, SHORT, TARGETS, __file__)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 1000 + LONG, BATCH))
def test_many_broken_files_are_read_or_refused(tmp_path: Path, first: int) -> None:
    check(tmp_path, first, BATCH, TARGETS, __file__)


def test_the_watch_sees(tmp_path: Path) -> None:
    """A reader that starts a program, opens another file, or takes long, is found out."""
    code = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import fuzzing
canary = Path(sys.argv[2]) / "canary"
canary.write_text("x")
watch = fuzzing.Watch([canary])
with watch.over(Path(sys.argv[2]) / "folder"):
    os.close(os.open(canary, os.O_RDONLY))
    os.system("true")
print(watch.seen)
"""
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "open " in said
    assert "os.system" in said
    assert "a canary was opened" in said or not sys.platform.startswith("linux")


if __name__ == "__main__":
    main(Path(sys.argv[1]), asked(sys.argv[2:]))
