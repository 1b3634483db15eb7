"""README and docs: links lead somewhere, commands parse, and those in `sh` blocks run."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.cli import build_parser
from tests.conftest import Workspace

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

LINK = re.compile(r"\]\(([^)\s]+)\)")
ELSEWHERE = ("make ", ". .venv", "callboard ui")
"""What CI runs by itself, or has tests of its own."""

PAGES_IN_ORDER = dict.fromkeys([ROOT / "README.md", ROOT / "docs/getting_started.md", *PAGES])
"""The first pages first: others read the results that their commands make."""

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or headings that do not exist."""
    broken = []
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def commands(page: Path) -> Iterator[str]:
    """Command lines of `callboard` in the blocks of a page, without comments."""
    for _, _, text in BLOCK.findall(page.read_text("utf-8")):
        for line in text.splitlines():
            for part in re.split(r"\s+#\s|&&|;", line):
                command = part.strip().removeprefix("$ ")
                if command.startswith("callboard "):
                    yield command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_ones_that_the_parser_takes(page: Path) -> None:
    for command in commands(page):
        if "<" not in command:  # a placeholder
            build_parser().parse_args(shlex.split(command)[1:])


def shell_lines(page: Path) -> list[str]:
    """Lines of the `sh` blocks of a page, without comments."""
    blocks = [text for _, language, text in BLOCK.findall(page.read_text("utf-8")) if language == "sh"]
    lines = [line.partition(" #")[0].strip() for text in blocks for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


@pytest.mark.slow
def test_commands_of_sh_blocks_and_the_notebook_run(workspace: Workspace) -> None:
    """In the toy world, whose own result is exp0051, as that of the project is."""
    lines = [line for page in PAGES_IN_ORDER for line in shell_lines(page)]
    assert len(lines) > 30
    for line in dict.fromkeys(lines):
        done = workspace.command("bash", "-c", line)
        assert done.returncode == 0, f"{line}\n{done.stdout}"
    assert all((workspace.root / f"reports/{name}.html").is_file() for name in ("exp0058", "board"))

    notebook = (ROOT / "docs/notebook.md").read_text("utf-8")
    (code,) = [text for _, language, text in BLOCK.findall(notebook) if language == "python"]
    done = workspace.command(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout


def test_the_readme_can_be_read_at_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_the_checks_would_notice(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](#a-b) [y](#c) [z](gone.md)\n```\ncallboard bored  # a typo\n```\n")
    assert broken_links(page) == ["#c", "gone.md"]
    assert list(commands(page)) == ["callboard bored"]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["bored"])
