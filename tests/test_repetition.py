"""No code stands twice: a block that is repeated wants a name."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
N_LINES = 6


def code_lines(text: str) -> list[tuple[int, str]]:
    """Number and stripped text of every line but blank ones, comments, docstrings and imports."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return [
        (number, line.strip())
        for number, line in lines
        if number not in left_out and line.strip() and not line.strip().startswith("#")
    ]


def repeated_blocks(texts: dict[str, str]) -> list[list[str]]:
    """Places of every block of N_LINES consecutive lines of code that stands more than once."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, text in texts.items():
        lines = code_lines(text)
        for first in range(len(lines) - N_LINES + 1):
            block = tuple(line for _, line in lines[first : first + N_LINES])
            places[block].append(f"{name}:{lines[first][0]}")
    return [found for found in places.values() if len(found) > 1]


def test_no_block_of_six_lines_stands_twice() -> None:
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("stages/*.py")]
    texts = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}
    assert not repeated_blocks(texts)


def test_a_repeated_block_is_found_whatever_its_indentation_and_comments() -> None:
    block = [f"x{k} = {k}" for k in range(N_LINES)]
    plain = "\n".join(block)
    indented = "def f():\n" + "\n    # why\n".join(f"    {line}" for line in block)
    assert repeated_blocks({"a": plain, "b": indented}) == [["a:1", "b:2"]]
    assert not repeated_blocks({"a": plain, "b": "\n".join(block[1:])})
