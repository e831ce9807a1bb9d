"""Every tutorial runs and makes the pictures of its page; every picture in the docs has the command that makes it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = sorted(page.stem for page in TUTORIALS.glob("*.md") if page.stem != "index")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)\n\n(.*?)\n\n", flags=re.DOTALL)
COMMAND = re.compile(r"`python (docs/\S+\.py) --out (\S+)`")
MOST_BYTES = 60_000


def pictures(page: Path) -> list[tuple[str, Path, str]]:
    """The alternative text, the file and the caption of every picture of a page."""
    text = page.read_text() + "\n\n"
    found = [(alt, (page.parent / path).resolve(), caption) for alt, path, caption in PICTURE.findall(text)]
    assert len(found) == text.count("![") + text.count("{figure}") + text.count("<img"), (
        f"{page}: one without a caption"
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_makes_its_pictures(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(TUTORIALS / f"{name}.py"), "--quick", "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    made = {path.name for path in tmp_path.iterdir()}
    wanted = {path.name for _, path, _ in pictures(TUTORIALS / f"{name}.md")}
    assert wanted, "a tutorial has pictures"
    assert made == wanted | {f"{name}.txt"}, "all that it makes is on the page, and the other way round"
    assert all((tmp_path / each).stat().st_size <= MOST_BYTES for each in made)
    assert (tmp_path / f"{name}.txt").read_text().split() == run.stdout.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_are_there_and_say_how_they_are_made(page: Path) -> None:
    for alt, path, caption in pictures(page):
        assert len(alt) > 10, f"{path.name} needs words for those who do not see it"
        assert 0 < path.stat().st_size <= MOST_BYTES
        command = COMMAND.search(" ".join(caption.split()))
        assert command, f"the caption of {path.name} needs the command"
        script, folder = command.groups()
        assert (ROOT / script).exists()
        assert (ROOT / folder).resolve() == path.parent


def test_no_picture_is_left_over() -> None:
    shown = {path for page in PAGES for _, path, _ in pictures(page)}
    assert shown == set((ROOT / "docs").rglob("*.png")) | set((ROOT / "docs").rglob("*.svg"))


@pytest.mark.parametrize("name", NAMES)
def test_pages_show_parts_that_scripts_have(name: str) -> None:
    page = (TUTORIALS / f"{name}.md").read_text()
    blocks = re.findall(r"```\{literalinclude\} (\S+)\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for file, options in blocks:
        text = (TUTORIALS / file).read_text()
        marks = re.findall(r':(?:start-at|start-after|end-before): "?(.*?)"?\n', options)
        assert all(mark in text for mark in marks), (file, marks)
