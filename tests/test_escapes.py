"""Text from data and file names is escaped for terminals, pages and JSON."""

from __future__ import annotations

import io
import json
import pickle
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elbowroom.cli.app import run
from elbowroom.cli.console import as_json, listed, say
from elbowroom.errors import DataError, ElbowroomWarning, ParameterError, escaped
from elbowroom.utils.progress import Progress

NAMES = ["\x1b[31mred\x07", "\u202egnp.exe", "a\nerror: b", "[bold]c[/]", "\x9b2Jd\u2069", "$\\frac{e", "<script>f"]
QUICK = ["--epochs", "2", "--n-latents", "2", "--hidden", "8", "--random-state", "0"]


def is_printable(text: str, layout: str = "\n\t") -> bool:
    """Whether a text has no control characters or directional marks, except those of a layout."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in TURNS
                   for c in text if c not in layout)  # fmt: skip


TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@given(st.text())
def test_what_is_escaped_is_printable_and_escaped_once(text: str) -> None:
    assert is_printable(escaped(text), "")
    assert escaped(escaped(text)) == escaped(text)
    if is_printable(text, "") and not set(text) & {"\u061c", "\u200e", "\u200f"}:  # marks without a width
        assert escaped(text) == text


def test_escapes_are_pythons() -> None:
    assert escaped("\x1b[0m\n\t\x9b\x7f\u202e\u2028\udcff é") == r"\x1b[0m\n\t\x9b\x7f\u202e\u2028\udcff é"
    assert escaped("a\n\x1b", keep="\n") == "a\n\\x1b"


def test_errors_and_warnings_are_escaped_where_they_are_made() -> None:
    error = DataError("\x1b", "\u202e\n", "\x07")
    assert (error.expected, error.got, error.do) == (r"\x1b", r"\u202e\n", r"\x07")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.warns(ElbowroomWarning, match=r"^a\\x1b\\nb$"):
        warnings.warn("a\x1b\nb", ElbowroomWarning, stacklevel=1)


def test_what_is_printed_is_printable(capsys: Any) -> None:
    say(f"a{''.join(NAMES)}\tb\nc")
    out = capsys.readouterr().out
    assert is_printable(out)
    assert out.startswith(r"a\x1b[31mred\x07\u202egnp.exea")
    assert listed([("a\nb", "c\nd"), ("e", "f")]) == "a\\nb  c\\nd\ne     f"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_a_message_as_it_is(terminal: bool) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    with Progress(1, stream=stream) as shown:
        shown.say("[bold]c[/] \x07 :smile:")
    assert r"[bold]c[/] \x07 :smile:" in stream.getvalue()


@given(st.text())
def test_json_is_printable_and_says_the_same(text: str) -> None:
    line = as_json({text: [text]})
    assert is_printable(line, "")
    assert json.loads(line) == {text: [text]}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: Any) -> Path:
    """A table whose columns and labels are hostile, and a model of it."""
    import pandas as pd

    here: Path = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(40, len(NAMES))), columns=NAMES)
    frame["label\x1b["] = np.resize(["u\x1b[2J", "v\u202e", "w\nx"], 40)
    frame.to_parquet(here / "\x1b[1mx.parquet")
    assert run(["fit", str(here / "\x1b[1mx.parquet"), "--out", str(here / "m"), *QUICK, "--label", "label\x1b["]) == 0
    return here


COMMANDS = {
    "info": ["info", "m"],
    "score": ["score", "m", "X", "--draws", "2"],
    "detect": ["detect", "m", "X"],
    "quality": ["quality", "X", "X"],
    "encode": ["encode", "m", "X", "--out", "z\x1b[31m.csv"],
    "a wrong label": ["report", "m", "X", "--out", "r.html", "--labels", "labels\x1b["],
    "a wrong file": ["score", "m", "y\x1b[.parquet"],
    "a wrong flag": ["score", "m", "X", "--\x1b[31m"],
    "a traceback": ["score", "m", "y\x1b[.parquet", "--debug"],
}


@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_output_of_commands_is_printable(
    hostile: Path, capsys: Any, monkeypatch: Any, name: str, json_too: bool
) -> None:
    monkeypatch.chdir(hostile)
    words = [word.replace("X", "\x1b[1mx.parquet") for word in COMMANDS[name]]
    code = run([*words, *["--json"] * json_too])
    said = capsys.readouterr()
    assert code == (0 if name in ("info", "score", "detect", "quality", "encode") else code) <= 2
    assert is_printable(said.out + said.err)
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) <= 1
    if json_too and name == "detect":
        assert set(json.loads(said.out)["strangest"][0]["because"]) <= set(NAMES)


def test_a_page_shows_names_as_they_are(hostile: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(hostile)
    assert run(["report", "m", "\x1b[1mx.parquet", "--out", "page.html"]) == 0
    assert is_printable(capsys.readouterr().out)
    page = Path("page.html").read_text("utf-8")
    assert is_printable(page)
    assert "<script>" not in page
    assert "&lt;script&gt;f" in page
    assert "$\\frac{e" in page  # and no formula


def test_names_of_images_that_are_no_text(tmp_path: Path) -> None:
    import os

    from PIL import Image

    from elbowroom.data.io.readers import read
    from elbowroom.data.io.writers import Result, write

    for name in (b"a\xff.png", b"b\n.png"):
        Image.new("L", (4, 3)).save(tmp_path / os.fsdecode(name))
    data = read(str(tmp_path))
    assert list(data.rows) == ["a\\udcff.png", "b\n.png"]  # type: ignore[arg-type]
    write(str(tmp_path / "z.csv"), Result(np.ones((2, 1)), rows=data.rows))
    assert read(str(tmp_path / "z.csv")).column("row").tolist() == ["a\\udcff.png", "b\n.png"]


def test_parts_of_an_error_are_for_people(tmp_path: Path) -> None:
    from elbowroom.data.io.writers import check_output

    with pytest.raises(ParameterError) as caught:
        check_output(f"{tmp_path}/\x1b[31m/x.csv")
    assert r"\x1b[31m does not exist" in str(caught.value)
