"""The design held by tests: imports point down, functions stay short, public things are documented."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest
from house import FOLDERS

import elbowroom

ROOT = Path(elbowroom.__file__).parent

MOST_IN_FUNCTION = 40  # lines: more are a reason to look again

KINDS_OF_COLUMNS = ["Binary", "Category", "Count", "Datetime", "Measured", "Ordinal", "Positive", "Real"]
ESTIMATORS = ["CountVAE", "ImageVAE", "InteractionVAE", "TableVAE", "VAEDetector", "VAEImputer"]
RECOMMENDERS = ["EASE", "Fold", "ItemKNN", "Popularity", "RatingMeans", "Reading", "Split", "evaluate"]
OTHERS = ["Schema", "Sweep", "__version__", "beta_from", "load", "quality", "sweep"]
PUBLIC = sorted([*ESTIMATORS, *KINDS_OF_COLUMNS, *RECOMMENDERS, *OTHERS])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = [
    f"elbowroom.{name.replace('/', '.').removesuffix('__init__')}".rstrip(".")
    for name in FILES
    if name.split("/")[-1] != "__main__"
]
each_file = pytest.mark.parametrize("name", FILES)
each_module = pytest.mark.parametrize("module", MODULES)


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text())


# ---- layers ----------------------------------------------------------------------------------------------------------


def imported(name: str) -> Iterator[tuple[str, int]]:
    """The files of the package that a file imports, and the lines where it does."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            if module.split(".")[0] == "elbowroom":
                yield file_of(module), node.lineno


def file_of(module: str) -> str:
    """The file that a dotted name comes from: a module's, or that of the package that defines the name."""
    parts = module.split(".")[1:]
    for end in range(len(parts), -1, -1):
        for candidate in ("/".join(parts[:end]), "/".join([*parts[:end], "__init__"])):
            if candidate in FILES:
                return candidate
    raise AssertionError(f"{module} is not in the package")


def folder_of(name: str) -> str:
    return "errors" if name == "_version" else name.split("/")[0]


def test_every_folder_has_its_place() -> None:
    assert {folder_of(name) for name in FILES} == set(FOLDERS)


@each_file
def test_imports_point_down(name: str) -> None:
    own = FOLDERS.index(folder_of(name))
    for target, line in imported(name):
        assert FOLDERS.index(folder_of(target)) <= own, f"{name}.py:{line} imports {target}, which is of a later folder"


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Inside a folder too imports are free of circles, wherever they stand."""
    below = {name: {target for target, _ in imported(name) if not target.endswith("__init__")} for name in FILES}
    order = TopologicalSorter(below)
    assert len(list(order.static_order())) == len(FILES)  # CycleError names the circle


def test_the_import_reader_reads() -> None:
    assert dict(imported("beta/policies")).keys() == {"utils/specs", "errors"}
    assert file_of("elbowroom.data.dataset.Rows") == "data/dataset"
    assert file_of("elbowroom.TableVAE") == "__init__"


# ---- functions -------------------------------------------------------------------------------------------------------

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(name: str) -> Iterator[tuple[str, int]]:
    """Every function of a file with its lines of code: without docstring, comments, blank lines and decorators."""
    text = FILES[name].read_text().splitlines()

    def visit(node: ast.AST, inside: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield f"{name}:{inside}{child.name}", length(child, text)
            deeper = isinstance(child, Function | ast.ClassDef)
            yield from visit(child, f"{inside}{child.name}." if deeper else inside)  # type: ignore[attr-defined]

    yield from visit(tree(name), "")


def length(function: Function, text: list[str]) -> int:
    lines = set(range(function.lineno, function.end_lineno + 1))  # type: ignore[operator]
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= set(range(first.lineno, first.end_lineno + 1))  # type: ignore[operator]
    return sum(bool(text[line - 1].strip()) and not text[line - 1].strip().startswith("#") for line in lines)


@each_file
def test_functions_are_short(name: str) -> None:
    for function, lines in functions(name):
        assert lines <= MOST_IN_FUNCTION, f"{function} has {lines} lines of code"


def test_no_file_says_where_it_was_made() -> None:
    for path in FILES.values():
        assert not re.search(r"/(home|Users|root|tmp)/", path.read_text()), path


# ---- public things ---------------------------------------------------------------------------------------------------


def test_public_names() -> None:
    """A snapshot: change it on purpose, with a line in the changelog."""
    assert sorted(elbowroom.__all__) == PUBLIC
    assert all(hasattr(elbowroom, name) for name in PUBLIC)
    assert set(dir(elbowroom)) >= set(PUBLIC)


def undocumented(module: ModuleType) -> Iterator[str]:
    """Public functions, classes and methods that say nothing about themselves."""
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__
        if name.startswith("_") or not own or not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        if not thing.__doc__ or thing.__doc__.startswith(f"{name}("):  # a dataclass writes its signature there
            yield name
        if inspect.isclass(thing):
            yield from (f"{name}.{method}" for method in vars(thing) if not documented(thing, method))


def documented(owner: type, method: str) -> bool:
    """Whether a public method says what it does, itself or in a base of ours; or follows a base that is not torch's."""
    member = vars(owner)[method]
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    if method.startswith("_") or not (inspect.isfunction(function) or isinstance(member, property)):
        return True
    bases = [base for base in owner.__mro__ if method in vars(base) and not base.__module__.startswith("torch.")]
    return any(vars(base)[method].__doc__ or not base.__module__.startswith("elbowroom") for base in bases)


@each_module
def test_public_things_have_docstrings(module: str) -> None:
    loaded = importlib.import_module(module)
    code = Path(loaded.__file__ or "").read_text()
    assert loaded.__doc__ or len(code.splitlines()) <= 1, f"{module} has no docstring"
    assert not list(undocumented(loaded))


@each_module
def test_examples_in_docstrings_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [t for m in MODULES for t in finder.find(importlib.import_module(m)) if t.examples]
    assert len(examples) >= 10
