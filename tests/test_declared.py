"""Whatever is imported is declared in pyproject.toml, and tests share what they share by files of helpers."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import elbowroom

TESTS, SOURCE = Path(__file__).parent, Path(elbowroom.__file__).parent
PROJECT = TESTS.parent / "pyproject.toml"
MODULES = {"scikit-learn": "sklearn", "pillow": "PIL"}  # of packages that have another name
OPTIONAL = {"_typeshed", "polars", "pythae", "autoencoders", "scvi"}  # where installed, or types only
OURS = {"elbowroom", *(path.stem for path in TESTS.glob("*.py"))}


def declared(*extras: str) -> set[str]:
    """The modules of the dependencies, and of those of extras, which may name others."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    found, todo = set(), [*project["dependencies"], *(f"elbowroom[{extra}]" for extra in extras)]
    for one in todo:
        name, within = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", one).groups()  # type: ignore[union-attr]
        if name == "elbowroom":
            todo += [line for extra in within.split(",") for line in project["optional-dependencies"][extra]]
        else:
            found.add(MODULES.get(name, name))
    return found


def imported(path: Path) -> Iterator[str]:
    """The first names of all modules that a file imports, or asks pytest for."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("importorskip"):
            modules = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []  # type: ignore[list-item]
        else:
            continue
        yield from (module.split(".")[0] for module in modules)


@pytest.mark.skipif(not PROJECT.exists(), reason="these tests are not beside their project")
@pytest.mark.parametrize(("folder", "extra"), [(TESTS, "test"), (SOURCE, "all")])
def test_what_is_imported_is_declared(folder: Path, extra: str) -> None:
    known = declared(extra) | OURS | OPTIONAL | sys.stdlib_module_names
    unknown = {f"{path.name}: {name}" for path in folder.rglob("*.py") for name in imported(path) if name not in known}
    assert not unknown


@pytest.mark.skipif(not PROJECT.exists(), reason="these tests are not beside their project")
def test_the_citation_is_of_this_version() -> None:
    assert f"version: {elbowroom.__version__}\n" in (PROJECT.parent / "CITATION.cff").read_text(encoding="utf-8")


def test_no_test_file_imports_another() -> None:
    for path in TESTS.glob("*.py"):
        assert not [name for name in imported(path) if name.startswith("test_")], path.name
