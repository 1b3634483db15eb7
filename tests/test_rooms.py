"""The walls: which room a module lies in, what it may import, and that one public name means one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/callboard"

ROOMS = (
    *("core", "params", "results", "experiments", "data", "features", "model"),
    *("scoring", "training", "pseudo", "analysis", "reports", "commands"),
)
"""A room imports only rooms before it."""

STRANGERS = ({"data", "experiments"},)
"""Rooms that do not import each other in either direction."""

WITHOUT_TORCH = {"core", "params", "results", "experiments", "data"}
TORCH = {"torch", "torchaudio", "torchvision", "timm"}

NOT_FOR_STAGES = {"analysis", "reports", "commands"}

HANDLERS = {"add", "show"}
"""Names that several subcommands have: the one of the protocol, and a usual one for what it does."""


def module_name(path: Path) -> str:
    """Dotted, without the package's name: `results.git`; a room's `__init__` is the room."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names of everything that a module imports, also inside functions and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(tree: ast.Module) -> set[str]:
    """Modules of the package that a module imports, named as in TREES."""
    names = {name.removeprefix("callboard.") for name in imported(tree) if name.startswith("callboard.")}
    return {name if name in TREES else name.rpartition(".")[0] for name in names}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def definitions(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Every public top-level name that a module defines, with its code; aliases of types and type variables
    by their text, so that equal ones are one thing, all else as something of the module's own.
    """
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, ""
        elif isinstance(node, ast.Assign):
            is_type = isinstance(node.value, ast.Subscript) or "TypeVar(" in ast.unparse(node.value)
            yield from (
                (name.id, ast.unparse(node.value) if is_type else "")
                for target in node.targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name)
            )
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ""


def bound_names(tree: ast.Module) -> set[str]:
    """Every name that a module defines, assigns or imports."""
    nodes = list(ast.walk(tree))
    aliases = [
        alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    ]
    return (
        {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        | {alias.asname or alias.name for alias in aliases}
    )


def names_of_two_things(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Public names that are not one thing in the whole package, with the modules that define them."""
    meanings: dict[str, dict[str, str]] = defaultdict(dict)
    for module, tree in trees.items():
        for name, text in definitions(tree):
            if not name.startswith("_"):
                meanings[name][text or module] = module
    return {name: sorted(found.values()) for name, found in meanings.items() if len(found) > 1}


def circle(edges: set[tuple[str, str]]) -> list[str]:
    """Modules that import each other in a ring; empty where there is none."""
    graph: dict[str, set[str]] = defaultdict(set)
    for importer, name in edges:
        graph[importer].add(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


EDGES = {(module, name) for module, tree in TREES.items() for name in imported_modules(tree)}


def test_nothing_lies_loose_beside_the_rooms() -> None:
    there = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert there == {*ROOMS, "__init__.py", "__init__.pyi", "cli.py", "py.typed"}


def test_a_room_says_its_contract_and_nothing_else() -> None:
    for path in PACKAGE.glob("*/**/__init__.py"):
        tree = ast.parse(path.read_text("utf-8"))
        said = ast.get_docstring(tree) or ""
        assert len(tree.body) == bool(said), f"{path}: expected a docstring and no code"
        assert said or path.parent.parent != PACKAGE, f"{path}: a room has a contract"
        assert len(said.splitlines()) <= 3, f"{path}: one or two lines are enough"


def test_a_room_imports_only_rooms_above_it() -> None:
    order = {room: place for place, room in enumerate((*ROOMS, "cli"))}
    wrong = [
        f"{importer} imports {name}"
        for importer, name in sorted(EDGES)
        if order[room_of(name)] > order[room_of(importer)] or {room_of(importer), room_of(name)} in STRANGERS
    ]
    assert not wrong


def test_the_package_imports_no_stage() -> None:
    for module, tree in TREES.items():
        assert not [name for name in imported(tree) if room_of(name) == "stages"], module


def test_the_first_rooms_do_without_torch() -> None:
    for module, tree in TREES.items():
        if room_of(module) in WITHOUT_TORCH:
            assert not {room_of(name) for name in imported(tree)} & TORCH, module


def test_a_stage_renders_nothing_and_only_track_speaks_to_mlflow() -> None:
    for path in (ROOT / "stages").glob("*.py"):
        modules = imported_modules(ast.parse(path.read_text("utf-8")))
        assert not {room_of(name) for name in modules} & NOT_FOR_STAGES, path.name
        assert path.stem == "track" or not [name for name in modules if name.startswith("results.mlflow")]


def test_benchmarks_import_only_names_that_exist() -> None:
    """No other test runs them, and mypy does not read them."""
    scripts = {path.name: ast.parse(path.read_text("utf-8")) for path in (ROOT / "benchmarks").glob("*.py")}
    for script, tree in scripts.items():
        for name in imported(tree):
            module, _, item = name.removeprefix("callboard.").rpartition(".")
            if name.startswith("callboard.") and f"{module}.{item}" not in TREES:
                assert item in bound_names(TREES[module]), f"{script}: {name}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert not circle(EDGES)


def test_a_public_name_has_one_meaning() -> None:
    found = names_of_two_things(TREES)
    in_commands = {
        name for name in HANDLERS if all(room_of(module) == "commands" for module in found.get(name, []))
    }
    assert {name: found[name] for name in found.keys() - in_commands} == {}


def test_the_walls_would_notice() -> None:
    assert circle({("a", "b"), ("b", "c"), ("c", "a")})
    texts = {
        "a": "N = 1\nT = TypeVar('T')\nX = list[int]",
        "b": "def N(): ...\nT = TypeVar('T')\nX = list[str]",
    }
    trees = {module: ast.parse(text) for module, text in texts.items()}
    assert names_of_two_things(trees) == {"N": ["a", "b"], "X": ["a", "b"]}
    late = ast.parse("def f():\n    from callboard.results import git\n    import callboard.core.errors")
    assert imported_modules(late) == {"results.git", "core.errors"}
