"""Data files: what is written is read back, and what is broken is refused in three parts."""

from __future__ import annotations

import contextlib
import errno
import gzip
import importlib.util
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from small import WINE, table
from windows import pipe_at, with_its_locks

from elbowroom import load
from elbowroom.data import streams
from elbowroom.data.io import arrays
from elbowroom.data.io.readers import READERS, read, read_labels
from elbowroom.data.io.writers import WRITERS, Result, check_output, write
from elbowroom.errors import (
    ArtefactError,
    DataError,
    ElbowroomError,
    ElbowroomWarning,
    MissingDependencyError,
    ParameterError,
)
from elbowroom.utils.files import (
    ABANDONED,
    MAX_JSON,
    delete_folder,
    folder_at_once,
    held,
    parse_json,
    read_file,
    temporary_name,
    write_atomically,
)

anndata = pytest.importorskip("anndata")
Image = pytest.importorskip("PIL.Image")
TEXT = str(pd.Series(["a"]).dtype)  # "object" in pandas 2, "str" in pandas 3
NUMBERS = np.array([[0.1, -2.0, 1e-30], [3.0, 4.5, np.pi]])


def idx(values, code=0x08):
    """The bytes of an array in the format of MNIST."""
    return bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def as_array(x):
    return x.toarray() if sparse.issparse(x) else np.asarray(x.X if hasattr(x, "obsm") else x)


# ---- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [e for e in WRITERS if e not in (".png", "/")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tables_come_back_exactly(tmp_path, ending, dtype):
    path, values = str(tmp_path / f"t{ending}"), NUMBERS.astype(dtype)
    check_output(path)
    write(path, Result(values, ["a", "b, or c", 'd"']))
    data = read(path)
    np.testing.assert_array_equal(as_array(data.x).astype(dtype), values)
    if ending not in (".npy", ".npz"):
        assert list(data.names) == ["a", "b, or c", 'd"']


@pytest.mark.parametrize("ending", [e for e in WRITERS if e not in (".png", "/")])
def test_rows_have_names(tmp_path, ending):
    path = str(tmp_path / f"t{ending}")
    write(path, Result(NUMBERS, ["a", "b", "c"], rows=np.array(["x.png", "y.png"])))
    data = read(path, labels=["row"] if ending in (".csv", ".tsv", ".parquet") else [])
    np.testing.assert_array_equal(as_array(data.x), NUMBERS)


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 3)])
def test_images_come_back(tmp_path, ending, shape):
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    write(str(tmp_path / f"t{ending}"), Result(values))
    data = read(str(tmp_path / f"t{ending}"))
    assert data.kind == "image"
    assert as_array(data.x).dtype == np.uint8
    np.testing.assert_array_equal(as_array(data.x), values)


@pytest.mark.parametrize("shape", [(12, 4, 5), (12, 4, 5, 3), (12, 4, 5, 1)])
def test_pictures_come_back_from_a_folder(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    target = f"{tmp_path}/new/"
    check_output(target)
    write(target, Result(values, pixels=(0, 255)))
    data = read(target)
    assert list(data.rows[:2]) == ["00.png", "01.png"]
    np.testing.assert_array_equal(data.x, values.squeeze())
    with pytest.raises(ParameterError, match="new folder"):
        check_output(target)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_grid_shows_images_enlarged_and_says_what_it_leaves_out(tmp_path):
    path = str(tmp_path / "grid.png")
    write(path, Result(np.ones((5, 8, 8)) * 4, pixels=(0, 4)))
    picture = np.asarray(Image.open(path))
    assert picture.shape == (2 * 34 + 2, 3 * 34 + 2)
    with pytest.warns(ElbowroomWarning, match="first 400 of 401"):
        write(path, Result(np.ones((401, 2, 2)), pixels=(0, 1)))


@given(hnp.arrays(st.sampled_from([np.float64, np.float32, np.int64]), hnp.array_shapes(min_dims=2, max_dims=2)))
def test_text_is_exact(tmp_path_factory, values):
    values = np.where(np.isfinite(values.astype(float)), values, 0).astype(values.dtype)
    if values.dtype == np.int64:
        values = np.clip(values, -(2**53) + 1, 2**53 - 1)
    path = str(tmp_path_factory.mktemp("csv") / "t.csv")
    write(path, Result(values))
    np.testing.assert_array_equal(as_array(read(path).x).astype(values.dtype), values)


def test_encoded_anndata_keeps_its_annotations(tmp_path):
    adata = anndata.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame({"batch": list("aab")}, index=list("xyz")))
    path = str(tmp_path / "z.h5ad")
    write(path, Result(NUMBERS[:, :2].repeat(2, 0)[:3], obsm="X_vae", adata=adata))
    back = anndata.read_h5ad(path)
    assert back.obsm["X_vae"].shape == (3, 2)
    assert list(back.obs["batch"]) == list("aab")
    assert [p.name for p in tmp_path.iterdir()] == ["z.h5ad"]


# ---- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz", "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
def test_idx(tmp_path, name):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = idx(values)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data = read(str(tmp_path / name))
    assert data.kind == "image"
    np.testing.assert_array_equal(data.x, values)


def test_idx_of_big_endian_numbers(tmp_path):
    values = np.array([[1.5, -2], [3, 4]], ">f4")
    (tmp_path / "a.idx").write_bytes(idx(values, 0x0D))
    x = read(str(tmp_path / "a.idx")).x
    assert x.dtype.isnative
    np.testing.assert_array_equal(x, values)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_mapped_where_memory_would_not_do(tmp_path, monkeypatch, order):
    np.save(tmp_path / "x.npy", np.asarray(NUMBERS, order=order))
    assert not isinstance(read(str(tmp_path / "x.npy")).x, np.memmap)
    np.testing.assert_array_equal(read(str(tmp_path / "x.npy")).x, NUMBERS)
    monkeypatch.setattr(arrays, "_memory", lambda: 16.0)
    assert isinstance(read(str(tmp_path / "x.npy")).x, np.memmap)


def test_npz_by_name_by_custom_and_with_labels(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, a=NUMBERS, images=np.zeros((2, 4, 4)), y=np.array([7, 8]), other=np.zeros(5))
    with pytest.warns(ElbowroomWarning, match="'images' is read; others are d.npz:a"):
        data = read(str(path))
    assert data.kind == "image"
    assert list(data.columns) == ["y"]
    assert read(f"{path}:a").x.shape == (2, 3)
    np.savez(path, z=NUMBERS, label=np.array(["p", "q"]))
    assert list(read(str(path)).column("label")) == ["p", "q"]


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse(tmp_path, kind):
    matrix = sparse.random(6, 5, 0.4, format=kind, random_state=0)
    sparse.save_npz(tmp_path / "m.npz", matrix)
    data = read(str(tmp_path / "m.npz"))
    assert data.kind == "count"
    assert data.x.format == "csr"
    np.testing.assert_array_equal(data.x.toarray(), matrix.toarray())


def csv_of(tmp_path, text, name="t.csv", **options):
    content = text.encode() if isinstance(text, str) else text
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return read(str(tmp_path / name), **options)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a,b\n1,2\n3,4\n", "t.csv"),
        ("a,b\r\n1,2\r\n\r\n3,4", "t.csv"),
        ("\ufeffa, b\n1, 2\n3, 4\n", "t.csv"),
        ("a;b\n1;2\n3;4\n", "t.csv"),
        ("a\tb\n1\t2\n3\t4\n", "t.tsv"),
        ('"a","b"\n"1","2"\n"3","4"\n', "t.CSV"),
        ("a,b\n1,2\n3,4\n", "t.csv.gz"),
        ('a,b\n1,2\n3,"4"', "t.csv"),
        (",a,b\n0,1,2\n1,3,4\n", "t.csv"),  # with the index that pandas writes
        ("a,b,\n1,2,\n3,4,\n", "t.csv"),
    ],
)
def test_csv_dialects(tmp_path, text, name):
    data = csv_of(tmp_path, text, name)
    assert data.names == ["a", "b"]
    assert isinstance(data.x, pd.DataFrame)
    assert data.x.to_numpy().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ('"Height, cm";weight', ["Height, cm", "weight"]),
        ('"Height, cm, in socks"; "a ""b"", c"', ["Height, cm, in socks", 'a "b", c']),
        ('"Height,\ncm, m";weight', ["Height,\ncm, m", "weight"]),
        ('\n\nheight;"kg, g"', ["height", "kg, g"]),
    ],
)
def test_a_separator_is_one_outside_quotes(tmp_path, header, names):
    for text, mark in ((header, ";"), (header.translate(str.maketrans(",;", ";,")), ",")):
        data = csv_of(tmp_path, f"{text}\n170{mark}60\n171{mark}61\n")
        assert data.names == (names if mark == ";" else [name.replace(",", ";") for name in names])
        assert data.x.to_numpy().tolist() == [[170, 60], [171, 61]]


@pytest.mark.parametrize("hidden", [(), ("pyarrow",), ("pyarrow", "polars", "pandas")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_empty_line_is_a_missing_cell_of_a_single_column(tmp_path, monkeypatch, hidden, end):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name in hidden else find(name))
    words = ["" if i % 5 == 0 else f"{i / 7:.3f}" for i in range(60)]
    values = np.array([float(word or "nan") for word in words])
    for rows, expected in ((words, values), ([*words, "", ""], np.append(values, [np.nan, np.nan]))):
        column = csv_of(tmp_path, "".join(word + end for word in ["a", *rows])).column("a")
        np.testing.assert_array_equal(column, expected)
    np.testing.assert_array_equal(csv_of(tmp_path, end.join(["a", *words])).column("a"), values)
    assert csv_of(tmp_path, end.join(["", "a", "1", "2"])).column("a").tolist() == [1, 2]
    assert csv_of(tmp_path, end.join(["a,b", "1,2", "", "3,4", "", ""])).column("b").tolist() == [2, 4]


def test_csv_without_a_header(tmp_path):
    with pytest.warns(ElbowroomWarning, match="first line is read as a row"):
        data = csv_of(tmp_path, "1.5,2\n3,4\n")
    assert data.names is None
    assert np.asarray(data.x).tolist() == [[1.5, 2], [3, 4]]


def test_csv_whose_header_pandas_counted(tmp_path):
    pd.DataFrame(NUMBERS).to_csv(tmp_path / "t.csv", index=False)
    data = read(str(tmp_path / "t.csv"))
    assert data.names == ["0", "1", "2"]
    np.testing.assert_array_equal(np.asarray(data.x), NUMBERS)


def test_csv_words(tmp_path):
    data = csv_of(tmp_path, "a,b,c\nTrue,NA,x\nfalse,2,\n", labels=["c"])
    assert data.x["a"].dtype.kind == "b"  # so that it is written as it was read
    np.testing.assert_array_equal(np.asarray(data.x, dtype=float), [[1, np.nan], [0, 2]])
    assert list(data.column("c")) == ["x", ""]


def test_text_dates_and_holes_of_a_csv(tmp_path):
    data = csv_of(tmp_path, "a,b,c\n1,x,2020-01-02\n2,NA,2020-02-03\n,y,\n")
    assert data.x["a"].isna().tolist() == [False, False, True]
    assert data.x["b"].astype(object).where(data.x["b"].notna(), None).tolist() == ["x", None, "y"]
    assert str(data.x["c"].dtype).startswith("datetime64")
    assert data.x["c"][0] == pd.Timestamp("2020-01-02")


def test_a_column_that_turns_to_text_late_keeps_its_numbers(tmp_path):
    words = [*map(str, range(200_000)), "end"]
    data = csv_of(tmp_path, "i,a\n" + "\n".join(f"{w},1" for w in words), labels=["i"])
    assert list(data.column("i")[[7, -1]]) == ["7", "end"]


@pytest.mark.parametrize(
    ("words", "values", "dtype"),
    [
        (["1", "+2", "-0"], [1, 2, 0], "int64"),
        (["1.0", "2"], [1, 2], "int64"),
        ([str(2**60 + 1), "-3"], [2**60 + 1, -3], "int64"),
        ([str(2**64 - 1), "3"], [2**64 - 1, 3], "uint64"),
        ([str(2**64 - 1), "-3"], [str(2**64 - 1), "-3"], TEXT),
        ([str(2**60 + 1), "NA", "1"], [2**60 + 1, None, 1], "Int64"),
        ([str(2**63), "NA"], [2**63, None], "UInt64"),
        (["1", "NA"], [1.0, None], "float64"),
        (["true", "False"], [True, False], "bool"),
        (["true", "", "FALSE"], [True, None, False], "boolean"),
        (["true", "1"], ["true", "1"], TEXT),
        (["1e3", ".5"], [1000.0, 0.5], "float64"),
        (["inf", "1", "-Infinity"], [np.inf, 1.0, -np.inf], "float64"),
        (["1e400", "1"], [np.inf, 1.0], "float64"),
        (["1_000", "2"], ["1_000", "2"], TEXT),
        (["0x10", "2"], ["0x10", "2"], TEXT),
        (["٣", "2"], ["٣", "2"], TEXT),
        (["007", "8"], ["007", "8"], TEXT),
        (["0.5", "007"], ["0.5", "007"], TEXT),
        (["9" * 21, "0.5"], ["9" * 21, "0.5"], TEXT),
        (["NA", "null"], [None, None], "float64"),
        (["NA", "x "], [None, "x "], TEXT),
    ],
)
def test_words_of_a_column_are_one_thing(tmp_path, words, values, dtype):
    for beside in ("1", "x"):  # alone with numbers, or beside text
        text = "a,b\n" + "".join(f"{word},{beside}\n" for word in words)
        column = csv_of(tmp_path, text).x["a"]
        assert [None if pd.isna(value) else value for value in column] == values
        assert str(column.dtype) == dtype


def test_a_code_in_the_last_row_makes_text_of_all(tmp_path):
    codes = [f"{i % 500:06}" for i in range(150_000)]
    rows = "".join(f"{i % 300},{code}\n" for i, code in enumerate(codes))
    found = csv_of(tmp_path, f"user,item\n{rows}7,00X\n")
    assert found.kind == "interactions"
    assert sorted(set(found.x["item"])) == [*sorted(set(codes)), "00X"]
    assert found.x["user"].dtype == np.int64
    assert set(csv_of(tmp_path, f"a,b\n{rows}", features=["a", "b"]).x["b"]) == set(codes)


def test_a_frame_of_polars_where_pandas_is_not_installed(tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    for hidden in (("pandas",), ("pandas", "polars")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, hidden=hidden: name not in hidden and find(name))
        found = csv_of(tmp_path, f"n,f,c,d\n{2**60 + 1},true,x,2020-01-02\nNA,NA,NA,NA\n").x
        assert type(found).__module__.split(".")[0] == ("polars" if "polars" not in hidden else "pyarrow")
        rows = found.rows() if "polars" not in hidden else [tuple(row.values()) for row in found.to_pylist()]
        assert rows[0][:3] == (2**60 + 1, True, "x")
        assert str(rows[0][3])[:10] == "2020-01-02"
        assert rows[1] == (None, None, None, None)


def test_a_file_is_read_as_the_model_that_is_to_use_it(tmp_path):
    found = csv_of(tmp_path, "zip,n\n12345,1\n,2\n", features=["zip", "n"], texts=["zip"])
    assert found.x["zip"][0] == "12345"
    assert found.x["zip"].isna().tolist() == [False, True]
    assert found.x["n"].tolist() == [1, 2]


def test_labels_are_kept_aside(tmp_path):
    text = "a,class,b,name\n1,0,2,x\n3,1,4,y\n"
    data = csv_of(tmp_path, text, labels=["class", "name"])
    assert data.names == ["a", "b"]
    assert data.spare == ["class", "name"]
    assert data.column("class").tolist() == [0, 1]
    assert data.column("class").dtype.kind == "i"


def test_features_are_taken_by_name(tmp_path):
    data = csv_of(tmp_path, "name,b,a\nx,2,1\ny,4,3\n", features=["a", "b"])
    assert list(data.x.columns) == ["a", "b"]
    assert data.spare == ["name"]
    with pytest.raises(DataError, match=r"no column 'weigth'.*Did you mean 'weight'"):
        csv_of(tmp_path, "weight\n1\n", features=["weigth"])


def test_parquet(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", "y"], "d": [True, False]}, index=[5, 6])
    frame.to_parquet(tmp_path / "t.parquet")
    data = read(str(tmp_path / "t.parquet"), labels=["c"])
    assert data.names == ["a", "b", "d"]
    np.testing.assert_array_equal(data.x.to_numpy(dtype=float), [[1, 0.5, 1], [2, np.nan, 0]])


def test_h5ad(tmp_path):
    adata = anndata.AnnData(sparse.csr_matrix(np.eye(3, dtype=np.float32)))
    adata.var_names, adata.obs["donor"] = ["g1", "g2", "g3"], ["p", "q", "q"]
    adata.write_h5ad(tmp_path / "c.h5ad")
    data = read(str(tmp_path / "c.h5ad"), labels=["donor"])
    assert data.kind == "count"
    assert list(data.column("donor")) == ["p", "q", "q"]
    some = read(str(tmp_path / "c.h5ad"), features=["g3", "g1"])
    assert some.x.X.toarray().tolist() == [[0, 1], [0, 0], [1, 0]]
    with pytest.raises(DataError, match="no column 'g4'"):
        read(str(tmp_path / "c.h5ad"), features=["g1", "g4"])


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [(mode, (2, 3, 4), "uint8") for mode in ("1", "L", "LA")]
    + [(mode, (2, 3, 4, 3), "uint8") for mode in ("P", "RGB", "RGBA")]
    + [("I;16", (2, 3, 4), "uint16")],
)
def test_pictures_of_all_modes(tmp_path, mode, shape, dtype):
    for name in "ba":
        Image.new(mode, (4, 3)).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    data = read(str(tmp_path))
    assert data.x.shape == shape
    assert data.x.dtype == dtype
    assert list(data.rows) == ["a.png", "b.png"]


def test_pictures_in_subfolders_are_labelled(tmp_path):
    for name in ("dog/1.png", "cat/1.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.new("L" if "cat" in name else "RGB", (4, 3)).save(tmp_path / name)
    data = read(str(tmp_path))
    assert data.x.shape == (2, 3, 4, 3)
    assert list(data.column("folder")) == ["cat", "dog"]


def test_hidden_and_linked_folders_of_pictures_are_left_out(tmp_path):
    for name in ("a.png", ".a.png", ".hidden/a.png", "b/c.png", "b.png/d.PNG"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / "x" / name)
    (tmp_path / "y").symlink_to(tmp_path / "x")
    assert list(read(str(tmp_path / "y")).rows) == ["a.png", "b/c.png", "b.png/d.PNG"]
    (tmp_path / "x" / "b" / "up").symlink_to("..")
    (tmp_path / "x" / "e.png").symlink_to("a.png")
    with pytest.warns(ElbowroomWarning, match=r"links to folders are not followed: .*x/b/up$"):
        assert list(read(str(tmp_path / "x")).rows) == ["a.png", "b/c.png", "b.png/d.PNG", "e.png"]


def test_pictures_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("L", (4, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert read(str(tmp_path)).x.shape == (1, 4, 3)


def test_labels_from_another_file(tmp_path):
    np.save(tmp_path / "x.npy", NUMBERS)
    data = read(str(tmp_path / "x.npy"))
    np.save(tmp_path / "y.npy", np.array(["a", "b"]))
    np.savez(tmp_path / "y.npz", y=[3, 4])
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(np.array([5, 6], np.uint8)))
    found = [read_labels(str(tmp_path / name), data).tolist() for name in ("y.npy", "y.npz", "labels-idx1-ubyte")]
    assert found == [["a", "b"], [3, 4], [5, 6]]
    np.save(tmp_path / "y.npy", np.zeros(3))
    for name in ("y.npy", "z.npy", "nothing"):
        with pytest.raises(DataError):
            read_labels(str(tmp_path / name), data)


# ---- what is refused -----------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (Path("pwned").write_text, ("x",))


def bad(name, content, expected, **options):
    return pytest.param(name, content, expected, options, id=f"{name}: {expected}")


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(f"{member}.npy", content)
    return buffer.getvalue()


def lying(size):
    """An .npy whose header announces more than follows."""
    return npy(np.zeros((2, 3))).replace(b"(2, 3)", f"({size},3)".encode().ljust(6))[: 128 + 48]


def broken_sparse():
    matrix = sparse.csr_matrix(np.eye(3))
    matrix.indices[1] = 10**6
    buffer = io.BytesIO()
    sparse.save_npz(buffer, matrix)
    return buffer.getvalue()


SMALL = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
BAD = [
    bad("x.npy", npy(np.array([Evil(), 1], dtype=object), allow_pickle=True), "pickled objects"),
    bad("x.npy", pickle.dumps(Evil()), "begins with"),
    bad("x.npy", npz(x=npy(NUMBERS)), "perhaps an .npz"),
    bad("x.npy", npy(NUMBERS)[:-8], "announces 48 bytes of values and 40 follow"),
    bad("x.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
    bad("x.npy", b"", "is empty"),
    bad("x.npy", npy(np.array([["a", "b"]])), "holds <U1"),
    bad("x.npy", npy(np.zeros((2, 2), complex)), "holds complex128"),
    bad("x.npy", npy(np.arange(5)), r"shape \(5,\)"),
    bad("x.npy", npy(np.zeros((0, 5))), "shape 0 x 5"),
    bad("x.npz", npy(NUMBERS), "not a zip file"),
    bad("x.npz", npz(x=npy(NUMBERS))[:-30], "cannot be read"),
    bad("x.npz", npz(x=npy(np.array([Evil()], dtype=object), allow_pickle=True)), "an array of rows of numbers"),
    bad("x.npz", npz(x=lying(10**9)), "announces"),
    bad("x.npz", npz(y=npy(np.arange(3))), "an array of rows of numbers"),
    bad("x.npz", npz(), "no array"),
    bad("x.npz:z", npz(data=npy(NUMBERS)), "no array 'z'"),
    bad("x.npz:dta", npz(data=npy(NUMBERS)), "Did you mean .*x.npz:data"),
    bad("x.npz", broken_sparse(), "x.npz has a value in column 1000000 of 3"),
    bad("x.idx", b"\x01\x02\x03\x04" + bytes(20), "begins with"),
    bad("x.idx", idx(SMALL)[:-1], "announces 24 bytes of values and 23 follow"),
    bad("x.idx", idx(SMALL) + b"x", "25 follow"),
    bad("x.idx", b"\0\0\x08\x03" + b"\xff" * 12, "announces"),
    bad("x-ubyte.gz", gzip.compress(idx(SMALL))[:-9], "cannot be read"),
    bad("x-ubyte.gz", idx(SMALL), "Not a gzipped file"),
    bad("x.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-12], "cannot be read"),
    bad("x.csv", "a,b\n1,2\n1,2,3\n", "line 3 has 3 values, not 2"),
    bad("x.csv", "a,b\n1\n", "line 2 has 1 value, not 2"),
    bad("x.csv", "a,a\n1,2\n", "two are called 'a'"),
    bad("x.csv", "a,b\n", "shape 0 x 2"),
    bad("x.csv", "\n", "shape 0 x 0"),
    bad("x.csv", b"\xff\xfe\x00a", "UTF-8"),
    bad("x.csv", 'a,b\n1,"x, y"\n"2\n2",y\n3,"z\n4,u\n', "a quote is opened in line 5 and never closed"),
    bad("x.csv", 'a,"b\n1,2\n', "a quote is opened in line 1 and never closed"),
    bad("x.csv", "a\n" + '"' + "x" * 10**6, "a quote may never be closed"),
    bad("x.csv", "a,b\n1,2\n", "no column 'c'", labels=["c"]),
    bad("x.csv", "a\n1\n", "shape 0 x 0", labels=["a"]),
    bad("x.parquet", b"PAR1 nonsense", "cannot be read"),
    bad("x.h5ad", b"nonsense", "cannot be read"),
    bad("x.pkl", pickle.dumps(Evil()), "ends in .npy, .npz"),
    bad("x.png", b"x", "Name the folder"),
]


@pytest.mark.parametrize(("name", "content", "expected", "options"), BAD)
def test_broken_files(tmp_path, monkeypatch, name, content, expected, options):
    monkeypatch.chdir(tmp_path)
    Path(name.split(":")[0]).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=expected) as raised:
        read(name, **options)
    assert raised.value.do
    assert "\n" not in str(raised.value)
    assert not Path("pwned").exists()


def test_a_missing_file_has_neighbours(tmp_path):
    np.save(tmp_path / "digits.npy", NUMBERS)
    with pytest.raises(DataError, match=r"does not exist. Did you mean .*digits.npy\?"):
        read(str(tmp_path / "digit.npy"))
    with pytest.raises(DataError, match=r"does not exist. Check the path"):
        read(str(tmp_path / "nowhere" / "x.npy"))


def test_folders_that_are_no_images(tmp_path):
    with pytest.raises(DataError, match="must hold images"):
        read(str(tmp_path))
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    Image.new("L", (5, 3)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b.png is 5x3, while a.png is 4x3"):
        read(str(tmp_path))
    (tmp_path / "b.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"b.png must be an image"):
        read(str(tmp_path))


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "PACKED", 2**16)
    zeros = np.zeros((1000, 1000), np.uint8)
    (tmp_path / "b-ubyte.gz").write_bytes(gzip.compress(idx(zeros)))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * 10**6))
    np.savez_compressed(tmp_path / "b.npz", zeros)
    for name in ("b-ubyte.gz", "b.csv.gz", "b.npz"):
        with pytest.raises(DataError, match="must unpack to a usual size"):
            read(str(tmp_path / name))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("L", (5, 3)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="must be an image"):
        read(str(tmp_path))


@pytest.mark.parametrize("how", ["longer", "rewritten", "deleted"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, how):
    path = tmp_path / "x.npy"
    np.save(path, NUMBERS)
    os.utime(path, (0, 0))  # long ago: clocks of files are coarse

    def read_and_change(path):
        found = arrays.read_npy(path)
        if how == "longer":
            path.write_bytes(path.read_bytes() + b"x")
        path.rename(tmp_path / "old") if how == "deleted" else np.save(path, NUMBERS)
        return found

    monkeypatch.setitem(READERS, ".npy", read_and_change)
    with pytest.raises(DataError, match=r"x\.npy was changed"):
        read(str(path))


def test_what_the_system_refuses_is_said(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", NUMBERS)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "x.npy")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"x\.npy: Permission denied\. Check path and permissions"):
        read(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("name", "package"), [("x.parquet", "pyarrow"), ("x.h5ad", "anndata"), ("x.png", "pillow"), ("folder", "pillow")]
)
def test_missing_packages(tmp_path, monkeypatch, name, package):
    import importlib.util

    for module in ("pyarrow", "polars", "anndata", "PIL"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=f"needs the package '{package}'.*pip install {package}"):
        check_output(str(tmp_path / name) if "." in name else f"{tmp_path}/{name}/")
    path = tmp_path / name
    if name == "x.png":
        return
    path.mkdir() if name == "folder" else path.write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=f"needs the package '{package}'.*pip install {package}"):
        read(str(path))


def test_csv_needs_the_core_only(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    data = csv_of(tmp_path, "a,b\n1,2\n")
    assert isinstance(data.x, np.ndarray)
    assert data.names == ["a", "b"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("x.npx", "must end in .npy, .*Did you mean x.npz"),
        ("x", "must end in"),
        ("x.pt", "must end in"),
        ("nowhere/x.npy", "nowhere does not exist"),
        ("file/x.npy", "file is a file"),
        ("folder.npy", "is a folder"),
        ("full/", "is there"),
    ],
)
def test_outputs_are_refused_before_any_work(tmp_path, monkeypatch, target, expected):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    Path("folder.npy").mkdir()
    Path("full").mkdir()
    Path("full/x").write_text("x")
    with pytest.raises(ParameterError, match=expected):
        check_output(target)
    with pytest.raises(ParameterError, match="only images"):
        check_output("x.png", images=False)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    import os

    for ending in WRITERS:
        target = f"{tmp_path}/t{ending}"
        if ending != "/":
            Path(target).write_text("old")

        def fail(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            patch.setattr(Path, "rename", fail)
            with pytest.raises(OSError, match="No space"):
                write(target, Result(np.ones((2, 3, 3)) if ending in ("/", ".png") else NUMBERS))
        if ending != "/":
            assert Path(target).read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"t{e}" for e in WRITERS if e != "/")


def test_a_folder_has_its_name_when_it_is_whole(tmp_path):
    place = tmp_path / "made"
    with folder_at_once(place) as fresh:
        (fresh / "a").write_text("old")
        assert not place.exists()
    with contextlib.suppress(RuntimeError), folder_at_once(place) as fresh:
        raise RuntimeError
    with pytest.raises(OSError, match=r"not empty|exists"), folder_at_once(place) as fresh:
        (fresh / "a").write_text("new")
    assert (place / "a").read_text() == "old"
    delete_folder(place)
    assert not list(tmp_path.iterdir())


def test_what_killed_writers_left_is_deleted_by_the_next_one_and_nothing_else(tmp_path):
    old = time.time() - 2 * ABANDONED
    names = [temporary_name(tmp_path / name).name for name in ("a.csv", "b", "a.csv", "c.csv")]
    (tmp_path / names[0]).write_text("half")
    (tmp_path / names[1]).mkdir()
    (tmp_path / names[1] / "x").write_text("half")
    others = [names[2], names[3], ".a.csv.tmp", ".a.csv.0123.tmp", "a.csv.0123456789abcdef.tmp", ".b"]
    for name in others:
        (tmp_path / name).write_text("being written, or somebody's")
    for name in {*names, *others} - {names[2]}:  # which is new
        os.utime(tmp_path / name, (old, old))
    write_atomically(tmp_path / "a.csv", "whole")
    with folder_at_once(tmp_path / "b"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b", *others}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a device", "too large"])
def test_what_might_never_end_is_not_read(tmp_path, kind):
    place = tmp_path / "x.json"
    if kind == "pipe":
        pipe_at(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "too large":
        place.write_bytes(bytes(9))
    else:
        place.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=r"it is not a regular file|it has 9 bytes, more than the 8 allowed"):
        read_file("/dev/zero" if kind == "device" else place, 8)
    (tmp_path / "whole").write_bytes(b"12345678")
    (tmp_path / "link").symlink_to("whole")
    assert read_file(tmp_path / "link", 8) == b"12345678"


@pytest.mark.parametrize(
    "text",
    ["", "[", "nothing", "[" * 10**6, '{"a":' * 10**6, "[" + "[]," * 10**7 + "1]", "1," * 10**7, '{"a": 1, "a": 2}',
     '[{"b": {"a": 1, "c": 1, "a": 1}}]', "9" * 5000, b"\xff\xfe", " " * MAX_JSON + "1"],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_json_that_is_broken_or_would_fill_memory_is_refused(text):
    with pytest.raises(ValueError, match=r"it holds too many|nested|twice|Expecting|Exceeds|decode|in range"):
        parse_json(text)


def test_every_reader_is_tested():
    tested = {param.values[0].split(":")[0].removeprefix("x") for param in BAD}
    assert set(READERS) - tested <= {".tsv", ".tsv.gz", ".idx.gz", "-ubyte"}
    assert issubclass(DataError, ElbowroomError)


@given(st.binary(max_size=200), st.sampled_from([".npy", ".npz", ".csv", ".csv.gz", ".idx", "-ubyte.gz", ".tsv"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, ending):
    magic = {".npy": b"\x93NUMPY\x01\x00", ".idx": b"\0\0\x08", ".csv.gz": b"\x1f\x8b\x08"}.get(ending, b"")
    path = tmp_path_factory.mktemp("any") / f"x{ending}"
    path.write_bytes(magic + content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ElbowroomWarning)
        with contextlib.suppress(DataError):
            assert len(read(str(path))) > 0


def test_a_word_among_numbers_is_said(tmp_path: Path) -> None:
    words = ["unknown" if i == 3 else str(i) for i in range(100)]
    (tmp_path / "a.csv").write_text("age,zip,n\n" + "".join(f"{w},{i:03d},{i}\n" for i, w in enumerate(words)))
    with pytest.warns(
        ElbowroomWarning, match=r"column 'age' .* 1 word in 100 rows \(first: row 3, 'unknown'\)"
    ) as caught:
        columns = read(str(tmp_path / "a.csv")).columns
    assert len(caught) == 1  # zip codes are digits, and text by their zeros
    assert columns["age"].tolist() == words
    assert columns["zip"][7] == "007"
    assert columns["n"].dtype == np.int64


# ---- locks -----------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
import pytest
from elbowroom.utils.files import held
from windows import pipe_at, with_its_locks
if sys.argv[2]:
    with_its_locks(pytest.MonkeyPatch(), Path(sys.argv[2]))
with held(sys.argv[1], wait=True) as sure:
    print(sure, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["of this system", "of Windows"])
def locks(request, monkeypatch, tmp_path_factory):
    """The folder of the locks, "" where there is none."""
    if request.param == "of this system":
        return ""
    pytest.importorskip("fcntl")
    folder = tmp_path_factory.mktemp("locks")
    with_its_locks(monkeypatch, folder)
    return str(folder)


def kinds_of_paths(folder):
    (folder / "file").write_text("text")
    (folder / "folder").mkdir()
    return folder / "file", folder / "folder"


def test_what_is_held_is_held_once(tmp_path, locks):
    for path in kinds_of_paths(tmp_path):
        with held(path) as sure:
            assert sure is True
            with pytest.raises(BlockingIOError), held(path):
                pass
            with held(tmp_path):  # another path is free
                pass
            (tmp_path / "link").symlink_to(path)
            with pytest.raises(BlockingIOError), held(tmp_path / "link"):
                pass
            (tmp_path / "link").unlink()
            assert (tmp_path / "file").read_text() == "text"
        with held(path, wait=True) as sure:
            assert sure is True
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder"]


def test_what_is_not_there_can_not_be_held(tmp_path, locks):
    for wait in (False, True):
        with pytest.raises(FileNotFoundError), held(tmp_path / "none", wait):
            pass


def test_an_error_within_lets_go(tmp_path, locks):
    with pytest.raises(KeyError), held(tmp_path):
        raise KeyError
    with held(tmp_path) as sure:
        assert sure


def test_a_lock_dies_with_its_process(tmp_path, locks):
    words = [sys.executable, "-c", HOLDER, str(tmp_path), locks]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}) as process:
        try:
            assert process.stdout.readline() == "True\n"
            with pytest.raises(BlockingIOError), held(tmp_path):
                pass
            threading.Timer(0.3, process.kill).start()
            begun = time.monotonic()
            with held(tmp_path, wait=True) as sure:
                assert sure
            assert time.monotonic() - begun > 0.2
        finally:
            process.kill()


def test_what_is_deleted_during_the_wait_is_not_there(tmp_path, locks):
    path = tmp_path / "m"
    path.mkdir()
    begun = threading.Event()

    def hold():
        with held(path):
            begun.set()
            time.sleep(0.2)
            path.rmdir()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    with pytest.raises(FileNotFoundError), held(path, wait=True):
        pass
    thread.join()


def test_where_windows_has_no_locks_nothing_is_held(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    with_its_locks(monkeypatch, tmp_path)
    monkeypatch.setattr(sys.modules["msvcrt"], "locking", refuse)
    with held(tmp_path) as sure:
        assert sure is False


def test_models_are_saved_and_trained_under_the_locks_of_windows(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    (tmp_path / "locks").mkdir()
    with_its_locks(monkeypatch, tmp_path / "locks")
    model = table(epochs=2).fit(WINE, checkpoint=tmp_path / "run")
    threads = [threading.Thread(target=model.save, args=(tmp_path / "m",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(load(tmp_path / "m").transform(WINE), model.transform(WINE))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["locks", "m", "run"]
    with held(tmp_path / "run"), pytest.raises(ArtefactError, match="one run at a time"):
        table(epochs=2).fit(WINE, checkpoint=tmp_path / "run")
