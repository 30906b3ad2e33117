"""The house as it is drawn: an import never goes up, and what must start fast never meets torch."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cxrtool"

FLOORS = (
    ("cli",),
    ("commands",),
    ("flow",),
    ("auditing", "reporting"),
    ("training", "explaining", "evaluation"),
    ("models",),
    ("phantom",),
    ("imaging", "data"),
    ("options",),
    ("stopping", "processors"),
    ("errors",),
)
"""From top to bottom; rooms on one floor do not know each other, but for `data`, whose readers look at arrays."""

NEIGHBOURS = {("data", "imaging")}
"""Who may look at whom on one floor."""

LIGHT_ROOMS = ("cli", "options", "data", "imaging", "evaluation", "auditing", "reporting")

TORCH = {"torch", "torchvision", "timm", "safetensors.torch"}
FAST_ROOMS = ("cli", "commands", "flow", "options", "stopping", "processors", "errors")
SLOW = TORCH | {"numpy", "cv2", "scipy", "sklearn", "skimage", "matplotlib", "rich", "pydicom", "pandas"}
"""What a command may import only once it is called."""


def name_of(path: Path) -> str:
    """The module's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The part of the package that a module lies in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def floor(module: str) -> int | None:
    return next((level for level, rooms in enumerate(FLOORS) if room(module) in rooms), None)


@cache
def imports(module: str, inside_functions: bool = True, typing: bool = True) -> frozenset[str]:
    """What a module imports; with `typing` also what only a type checker sees."""
    found = set()

    def visit(node: ast.AST) -> None:
        if not typing and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            # `from package import module` imports the module.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & MODULES.keys() or {node.module})
            found.update(names & TORCH)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    return frozenset(found)


def own(names: frozenset[str]) -> set[str]:
    return {name for name in names if name in MODULES}


def reach(module: str) -> dict[str, tuple[str, ...]]:
    """All that importing a module imports, each with the way there."""
    ways = {module: (module,)}
    waiting = [module]
    while waiting:
        here = waiting.pop()
        named = imports(here, inside_functions=False, typing=False)
        # Importing a module imports the packages that it lies in.
        for name in named | {".".join(name.split(".")[:depth]) for name in named for depth in (1, 2, 3)}:
            if name not in ways:
                ways[name] = (*ways[here], name)
                if name in MODULES:
                    waiting.append(name)
    return ways


def heavy(names, heavies) -> list[str]:
    return [name for name in names if name in heavies or name.split(".")[0] in heavies]


@pytest.mark.parametrize("module", MODULES)
def test_an_import_never_goes_up(module):
    level = floor(module)
    for name in own(imports(module)):
        other = floor(name)
        if level is None or other is None or room(name) == room(module):
            continue
        assert other > level or (room(module), room(name)) in NEIGHBOURS, f"{module} imports {name}"


def test_there_is_no_circle():
    visited, path = set(), []

    def follow(module):
        assert module not in path, "a circle: " + " > ".join([*path[path.index(module) :], module])
        if module in visited:
            return
        path.append(module)
        for name in own(imports(module)):
            if name != module:
                follow(name)
        path.pop()
        visited.add(module)

    for module in MODULES:
        follow(module)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in LIGHT_ROOMS])
def test_light_rooms_do_not_know_torch(module):
    assert heavy(imports(module, typing=False), TORCH) == []
    for name, way in reach(module).items():
        assert not heavy([name], TORCH), " > ".join(way)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in FAST_ROOMS])
def test_commands_import_what_is_slow_only_when_called(module):
    for name, way in reach(module).items():
        assert not heavy([name], SLOW), " > ".join(way)


def family(module: str) -> str:
    """The command that a module of `commands` belongs to, or nothing."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "commands" else ""


@pytest.mark.parametrize("module", [name for name in MODULES if family(name)])
def test_a_command_does_not_know_another(module):
    for name in own(imports(module)):
        assert family(name) in ("", family(module)), f"{module} imports {name}"


AGAINST_THE_WORLD = {"test_published_tables"}
"""Tests of a whole room against what others have printed."""


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
def test_a_test_mirrors_what_it_tests(path):
    parts = path.relative_to(ROOT / "tests").parts
    if len(parts) == 1 or parts[0] in ("contract", "bench", "fuzz") or path.stem in AGAINST_THE_WORLD:
        return
    folder = PACKAGE.joinpath(*parts[:-1])
    # A folder has tests of its own name and of its command line; a part of many tests has a file of its own.
    known = {folder.name, "cli", *(module.stem for module in folder.glob("*.py")), *(p.name for p in folder.iterdir())}
    pieces = path.stem.removeprefix("test_").split("_")
    heads = {"_".join(pieces[:length]) for length in range(1, len(pieces) + 1)}
    assert heads & known, f"{path} tests none of {sorted(known)}"


@pytest.mark.parametrize("module", MODULES)
def test_the_library_neither_prints_nor_asserts(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"{module}, line {node.lineno}: raise an error that tells what to do"
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
        assert called not in ("print", "eval", "exec"), f"{module}, line {node.lineno}"
