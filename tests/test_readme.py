"""The README's code runs as it stands, and so do its commands."""

import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from house import FOLDERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
KINDS = ("howto", "explanation")  # of pages, of which all are tested
GUIDE = (ROOT / "docs" / "guide.md").read_text()
TABLES = (ROOT / "docs" / "tables.md").read_text()
RECOMMEND = (ROOT / "docs" / "recommend.md").read_text()
RANGE = (ROOT / "docs" / "range.md").read_text()


def blocks(text, language):
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["Z"].shape == (178, 3)
    assert names["model"].likelihood_ == "gaussian"
    assert not names["full"].isna().any().any()
    assert (tmp_path / "report.html").stat().st_size > 10_000


PAGES = [ROOT / "docs" / "index.md", *sorted(p for kind in KINDS for p in (ROOT / "docs" / kind).glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem if page.stem != "index" else page.parent.name)
def test_code_of_a_page(page, tmp_path, monkeypatch):
    """The how-to guides, explanations and the first page: all blocks of a page in one program, in a new folder."""
    monkeypatch.chdir(tmp_path)
    found = blocks(page.read_text(), "python")
    if page.parent.name == "howto" and page.stem != "index":
        assert found, "a how-to guide shows how"
    names = {}
    for block in found:
        exec(compile(block, page.name, "exec"), names)


def test_the_page_of_ranges():
    names = {}
    for block in blocks(RANGE, "python"):
        exec(compile(block, "range.md", "exec"), names)
    assert names["best"].model_.conditioning.beta == names["beta"]


def test_the_page_of_recommendations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(RECOMMEND, "python"):
        exec(compile(block, "recommend.md", "exec"), names)
    assert names["ours"]["ndcg@10"] > 0
    assert (tmp_path / "recommendations.html").stat().st_size > 10_000


def test_the_page_of_tables():
    names = {"people": pd.DataFrame({"age": [1, 2, 3] * 20, "country": ["DE", "FR", None] * 20})}
    for block in blocks(TABLES, "python"):
        exec(compile(block, "tables.md", "exec"), names)
    assert type(names["model"].schema_["age"]).__name__ == "Count"


def test_the_guide(tmp_path, monkeypatch):
    anndata = pytest.importorskip("anndata")
    counts = np.random.default_rng(0).poisson(2.0, (60, 8))
    adata = anndata.AnnData(
        counts.astype(np.float32), obs=pd.DataFrame({"donor": ["a", "b"] * 30}, index=map(str, range(60)))
    )
    adata.layers["counts"] = counts
    from elbowroom import CountVAE

    names = {"adata": adata, "CountVAE": CountVAE}
    monkeypatch.chdir(tmp_path)
    short = blocks(GUIDE, "python")[0].replace("random_state=0", "random_state=0, epochs=2")
    for block in (short, *blocks(GUIDE, "python")[1:]):
        exec(compile(block, "guide.md", "exec"), names)
    assert adata.obsm["X_vae"].shape == (60, 10)


def test_commands(tmp_path, monkeypatch, capsys):
    from elbowroom.cli.app import main

    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    age = random.integers(18, 90, 200)
    country = random.choice(["DE", "FR"], 200)
    people = pd.DataFrame({"age": age, "income": 900.0 * age + random.normal(0, 5000, 200), "country": country})
    people.loc[::7, "income"] = None
    people.to_csv("people.csv", index=False)
    clicks = {"user": random.integers(0, 30, 200), "item": random.integers(0, 12, 200)}
    pd.DataFrame(clicks).to_csv("clicks.csv", index=False)
    commands = [
        line for block in blocks(README, "bash") for line in block.splitlines() if line.startswith("elbowroom ")
    ]
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command.split("#")[0])[1:]
        with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
            main(words)
        assert ended.value.code in (0, None), (command, capsys.readouterr().err)
    assert len(pd.read_csv("synthetic.csv")) == 1000
    assert list(pd.read_csv("synthetic.csv").columns) == ["age", "income", "country"]
    assert Path("report.html").exists()
    assert set(pd.read_parquet("lists.parquet")["user"]) == set(clicks["user"])
    assert set(pd.read_csv("germans.csv")["country"]) == {"DE"}
    assert not pd.read_csv("full.csv").isna().any().any()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem
)
def test_commands_have_the_flags_that_pages_name(page):
    known = {line.split()[0]: set(line.split()) for line in (ROOT / "tests" / "cli_flags.txt").read_text().splitlines()}
    for name, rest in re.findall(r"(?:`|^)elbowroom (\w+)([^`\n#]*)", page.read_text(), flags=re.MULTILINE):
        flags = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest))
        assert name in known, f"there is no command {name}"
        assert flags <= known[name] | {"--help"}, f"elbowroom {name} has no {flags - known[name]}"


def test_make_targets_exist():
    named = set(re.findall(r"`make (\w+)`", README))
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_the_tree_of_folders():
    """In the README every folder of the code has its line, in the order of imports."""
    named = re.findall(r"^      (\w+)/ +\w", README, flags=re.MULTILINE)
    folders = [path.name for path in (ROOT / "src" / "elbowroom").iterdir() if (path / "__init__.py").exists()]
    assert sorted(named) == sorted(folders)
    assert named == [name for name in FOLDERS if name in named]
