"""What is written is read: frames of ids, texts and whole numbers of 64 bits come back as docs/tables.md says."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elbowroom import InteractionVAE, Reading, TableVAE, load
from elbowroom.data import words
from elbowroom.data.frames import native
from elbowroom.data.io import csv
from elbowroom.data.io.readers import read
from elbowroom.data.io.tables import write_frame
from elbowroom.data.io.writers import write_columns
from elbowroom.errors import DataError, ElbowroomWarning

ODD = [
    *("", "NA", "null", "nan", "None", "?", "007", "-01", "00", "1e3", "1_000", "1.50", "+1", "-0", "inf", "-Infinity"),
    *(" x", "x ", 'a"b', '"', "a,b", "a;b", "a\tb", "a\nb", "a\r\nb", "\r", "\ufeffa", "true", "False", "0x10"),
    *("2020-01-01", "2020-02-31", str(2**53 + 1), str(2**63), str(2**64), "9" * 30, "٣", "é", "１"),
]
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")  # which no text file has in it
TEXT = st.one_of(st.sampled_from(ODD), st.text(LETTERS, max_size=5), st.integers(-(2**65), 2**65).map(str))
SIGNED = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53 + 1, -(2**53) - 1, 0, 2**63 - 1]))
UNSIGNED = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([2**63, 2**64 - 1]))
ENDINGS = st.sampled_from([".csv", ".csv.gz", ".tsv"])
HIDDEN = st.sampled_from([(), ("pyarrow",), ("pyarrow", "polars")])


@st.composite
def tables(draw: Any) -> pd.DataFrame:
    """A text column with and one without missing cells, and whole numbers, signed, unsigned and with missing ones."""
    n = draw(st.integers(1, 5))
    few = draw(st.lists(TEXT, min_size=1, max_size=2))
    column = {
        "text": st.sampled_from(few) if draw(st.booleans()) else TEXT,
        "gaps": st.one_of(st.none(), TEXT),
        "signed": SIGNED,
        "unsigned": UNSIGNED,
        "beside": st.one_of(st.none(), SIGNED),
    }
    values = {name: draw(st.lists(of, min_size=n, max_size=n)) for name, of in column.items()}
    dtypes = {"signed": "int64", "unsigned": "uint64", "beside": "Int64"}
    return pd.DataFrame({name: pd.Series(v, dtype=dtypes.get(name, object)) for name, v in values.items()})


def in_file(frame: pd.DataFrame, folder: Path, ending: str) -> Path:
    path = folder / f"t{ending.removesuffix('.gz')}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        write_frame(str(path), frame)
    if ending.endswith(".gz"):
        (folder / f"t{ending}").write_bytes(gzip.compress(path.read_bytes()))
    return folder / f"t{ending}"


def without(*packages: str) -> Any:
    """A context in which packages are not installed, and every column is read in the way of long ones or of short."""
    find, patch = importlib.util.find_spec, pytest.MonkeyPatch()
    patch.setattr(importlib.util, "find_spec", lambda name, *_: None if name in packages else find(name))
    return patch


def as_documented(column: list[str]) -> list[Any]:
    """What docs/tables.md says that the words of a column of a text file are, None for missing ones."""
    gone = [word.strip().lower() in ("", "na", "n/a", "nan", "null", "none", "<na>", "#n/a", "?") for word in column]
    known = [word.strip() for word, no in zip(column, gone, strict=True) if not no]
    whole = all(re.fullmatch(r"[+-]?[0-9]+", word) for word in known)
    number = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?"
    values: list[Any]
    if known and all(word.lower() in ("true", "false") for word in known):
        values = [word.lower() == "true" for word in known]
    elif all(re.fullmatch(number, word.lower()) for word in known) and not any(
        re.fullmatch(r"[+-]?(0[0-9]+|[0-9]{21,})", word) for word in known
    ):
        values = [int(word) if whole else float(word) for word in known]
        low, high = min(values, default=0), max(values, default=0)
        if whole and (low < -(2**63) or high >= 2**64 or (low < 0 and high >= 2**63)):
            values = [word for word, no in zip(column, gone, strict=True) if not no]
    else:
        values = [word for word, no in zip(column, gone, strict=True) if not no]
        if all(re.fullmatch(r"\d{4}-\d\d-\d\d", word) for word in values) and "2020-02-31" not in values:
            values = [pd.Timestamp(word) for word in values]
    left = iter(values)
    return [None if no else next(left) for no in gone]


def listed(column: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in column.tolist()]


def with_objects(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of pandas 3 with its text as pandas 2 has it: objects, None for a missing one."""
    texts = {name: frame[name].astype(object) for name in frame if frame[name].dtype == "str"}
    return frame.assign(**{name: column.where(column.notna(), None) for name, column in texts.items()})


def test_text_of_a_model_of_pandas_3_has_its_holes_in_pandas_2_too():
    found = native(np.array(["a", None, "None"], dtype=object), "str", "pandas")
    assert listed(found) == ["a", None, "None"]
    assert found.dtype == pd.Series(["a"]).dtype


# ---- tables ----------------------------------------------------------------------------------------------------------


@given(tables(), st.sampled_from([pd.DataFrame, pl.DataFrame]))
def test_a_parquet_file_is_the_frame(tmp_path_factory, frame, library):
    given_frame = frame if library is pd.DataFrame else pl.DataFrame(frame.to_dict("list"), strict=False, schema=SCHEMA)
    path = in_file(given_frame, tmp_path_factory.mktemp("t"), ".parquet")
    whole = frame if frame["beside"].isna().any() else frame.astype({"beside": "int64"})
    pd.testing.assert_frame_equal(with_objects(read(str(path)).x), whole)


SCHEMA = {"text": pl.String, "gaps": pl.String, "signed": pl.Int64, "unsigned": pl.UInt64, "beside": pl.Int64}


@given(tables(), ENDINGS, HIDDEN, st.booleans())
def test_a_text_file_is_the_frame_by_its_rule(tmp_path_factory, frame, ending, hidden, long):
    path = in_file(frame, tmp_path_factory.mktemp("t"), ending)
    patch = without(*hidden)
    patch.setattr(words, "SHORT", -1 if long else 10)
    try:
        back = read(str(path)).x
    finally:
        patch.undo()
    assert list(back) == list(frame)
    for name in frame:
        found = listed(back[name])
        expected = as_documented(["" if value is None or value is pd.NA else str(value) for value in frame[name]])
        assert found == expected
        assert [type(value) is bool for value in found] == [type(value) is bool for value in expected]
    assert str(back["signed"].dtype) == "int64"
    assert str(back["unsigned"].dtype) == ("uint64" if frame["unsigned"].max() >= 2**63 else "int64")


PIECES = [",", "\n", "\r\n", '"', " ", "0", "1", "2", ".", "e", "-", "+", "x", "NA", "true", "inf", "é", "\ufeff", "\r"]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.sampled_from(["", "a\n", "a,b\n"]))
@settings(max_examples=200)
@example(",101\r\n0\n,0,", "a,b\n")  # polars fills up the second row, and takes the third one
@example("\ufeff,1", "a,b\n")  # pyarrow skips the mark
@example("a,b\r1,2\n3,4\n", "")
@example("\n1\n\n2\n\n", "a\n")  # NumPy skips empty lines, which are missing cells
@example("\n1\r\n\r\n2", "")
def test_all_ways_to_read_text_give_the_same(tmp_path_factory, text, header):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_bytes((header + text).encode())
    answers = []
    for hidden, short in itertools.product([(), ("pyarrow",), ("pyarrow", "polars")], [-1, 10]):
        patch = without(*hidden)
        patch.setattr(words, "SHORT", short)
        try:
            answers.append(all_of(path))
        finally:
            patch.undo()
    assert all(answer == answers[0] for answer in answers)


def all_of(path: Path) -> str:
    """All that the text reader says of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ElbowroomWarning)
        try:
            table = csv.read_delimited(path)
            found = table.words()
            columns = table.columns()
        except DataError as error:
            return str(error)
    for name, column in found.items():  # numbers that NumPy read at once are those of the words
        value = words.values_of(column)
        assert value.dtype == columns[name].dtype
        assert repr(value.tolist()) == repr(columns[name].tolist())
    return repr([(n, found[n].texts().tolist(), c.dtype, c.tolist(), ids(found[n])) for n, c in columns.items()])


def ids(column: words.Words) -> Any:
    try:
        return words.ids_of_words(column, "it").tolist()
    except DataError as error:
        return str(error)


def test_text_that_a_text_file_can_not_hold_is_said(tmp_path):
    frame = pd.DataFrame({"zip": ["12", "34"], "code": ["NA", "x"], "plain": ["a", "b"], "empty": ["", "x"]})
    with pytest.warns(ElbowroomWarning, match="text in 'zip', 'code', 'empty' looks like .*parquet file keeps it"):
        write_frame(str(tmp_path / "t.csv"), frame)
    back = read(str(tmp_path / "t.csv"), texts=["zip"]).x
    assert back["zip"].tolist() == ["12", "34"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_frame(str(tmp_path / "t.parquet"), frame)
    pd.testing.assert_frame_equal(read(str(tmp_path / "t.parquet")).x, frame)


def test_a_table_keeps_whole_numbers_beside_missing_cells_when_it_is_filled():
    large = pd.Series([2**60 + 1, None, 2**60 + 3] * 20, dtype="Int64")
    frame = pd.DataFrame({"n": large, "c": ["a", "b", None] * 20})
    full = TableVAE(2, hidden=(8,), epochs=1, random_state=0).fit(frame).impute(frame)
    assert full["n"].dtype == "Int64"
    assert full["n"][large.notna()].tolist() == large.dropna().tolist()
    assert not full.isna().any().any()


def test_text_that_a_text_file_would_break_is_refused(tmp_path):
    for word in ("a\0", "x" * 200_000):
        frame = pd.DataFrame({"a": [word, "b"]})
        with pytest.raises(DataError, match=r"is none. Write .parquet"):
            write_frame(str(tmp_path / "t.csv"), frame)
        assert not (tmp_path / "t.csv").exists()
        write_frame(str(tmp_path / "t.parquet"), frame)
        assert read(str(tmp_path / "t.parquet")).x["a"].tolist() == [word, "b"]
    (tmp_path / "t.csv").write_text(f"a,b\n{word},1\n")
    for hidden in ((), ("pyarrow",), ("pyarrow", "polars")):
        patch = without(*hidden)
        with pytest.raises(DataError, match="a cell has more than"):
            read(str(tmp_path / "t.csv"))
        patch.undo()


# ---- interactions ----------------------------------------------------------------------------------------------------

IDS = st.one_of(
    st.lists(TEXT, min_size=1, max_size=6),
    st.lists(SIGNED, min_size=1, max_size=6),
    st.lists(UNSIGNED, min_size=1, max_size=6),
    st.lists(st.sampled_from(["007", "07", "7", "1e3", "1000", "NA", "null", "NaN"]), min_size=1, max_size=6),
)


def in_text(given_ids: list[Any]) -> list[Any]:
    """The different ids that a text file of these has."""
    texts = list(map(str, given_ids))
    if all(re.fullmatch(r"0|-?[1-9][0-9]*", text) for text in texts):
        low, high = min(map(int, texts)), max(map(int, texts))
        if low >= -(2**63) and high < 2**64 and (low >= 0 or high < 2**63):
            return sorted(set(map(int, texts)))
    return sorted(set(texts))


@given(IDS, IDS, st.sampled_from([".csv", ".csv.gz", ".tsv", ".parquet"]), HIDDEN)
def test_ids_are_those_that_were_written(tmp_path_factory, users, items, ending, hidden):
    n = max(len(users), len(items))
    users, items = (list(itertools.islice(itertools.cycle(of), n)) for of in (users, items))
    folder = tmp_path_factory.mktemp("i")
    path = folder / f"t{ending.removesuffix('.gz')}"
    write_columns(str(path), {"user": words.objects_of(users), "item": words.objects_of(items)})
    if ending.endswith(".gz"):
        path = folder / "t.csv.gz"
        path.write_bytes(gzip.compress((folder / "t.csv").read_bytes()))
    patch = without(*(hidden if ending != ".parquet" else ()))
    try:
        if ending != ".parquet" and "" in (*users, *items):
            with pytest.raises(DataError, match=r"has an empty value \(row"):
                read(str(path))
            return
        found = Reading().learn(read(str(path)).x)
    finally:
        patch.undo()
    for known, written in ((found.users, users), (found.items, items)):
        assert known.ids.tolist() == (sorted(set(written)) if ending == ".parquet" else in_text(written))
    assert found.matrix.nnz == len(set(zip(map(str, users), map(str, items), strict=True)))


SETS = {
    "18 digits": [10**18 + i for i in range(12)],
    "unsigned": [2**64 - 1 - i for i in range(12)],
    "codes": [f"{i:0{width}}" for width in (1, 2, 4) for i in range(4)],
    "words": ["NA", "null", "nan", "1e3", "1000", "1_000", "true", "?", " x", 'a"b', "a,b", "x\ny"],
    "long": ["x" * 5000, *(f"u{i}" for i in range(11))],
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_model_knows_the_users_and_items_of_its_file(tmp_path, name, ending):
    path, given_ids = tmp_path / f"t{ending}", SETS[name]
    pairs = [(u, i) for u in given_ids for i in given_ids if hash((str(u), len(str(i)), i == u)) % 2 or u == i]
    users, items = (words.objects_of(part) for part in zip(*pairs, strict=True))
    write_columns(str(path), {"user": users, "item": items})
    model = InteractionVAE(2, hidden=(4,), epochs=1, random_state=0).fit(read(str(path)).x)
    assert model.users_.tolist() == model.items_.tolist() == sorted(given_ids)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.users_.tolist() == sorted(given_ids)
    assert again.users_.dtype == model.users_.dtype
    lists, scores = again.recommend(given_ids, N=12)
    assert lists.shape == (12, 12)
    for user, row, score in zip(given_ids, lists.tolist(), scores, strict=True):
        had = {i for u, i in pairs if u == user}
        assert set(row[: int(np.isfinite(score).sum())]) == set(given_ids) - had
