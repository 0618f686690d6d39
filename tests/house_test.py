"""The house stays as it was built: rooms, floors, chains of imports, a short way in.

Everything is computed from the source, by the imports that it names.
"""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "mmcl_jax"
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
# from the ground up: a room may import from those before it, and from none after it
FLOORS = (
    ("errors", "types"),
    ("files", "fields", "plain_text"),
    ("ops", "parallel", "modalities"),
    ("plugins", "models"),
    ("streams", "methods"),
    ("config", "evaluation"),
    ("cli", "workdir"),
    ("training",),
    ("serving", "analysis", "planning"),
    ("report", "sweeps"),
    # programs, each with a public `python -m` name
    (
        *("main", "predict", "export", "compare", "prepare", "zeroshot"),
        *("extend", "sweep", "plan", "pretrain", "manifest", "reproduce"),
        "verify",
    ),
)
MAX_ENTRIES, MAX_CHAIN, MAX_FUNCTION, MAX_READING = 37, 17, 80, 4800


def _sources() -> dict[str, pathlib.Path]:
    """Returns the file of each module, but configs and the package itself."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "configs" and parts not in (("__init__",), ("__main__",)):
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


SOURCES = _sources()


def _name(module: str, imported: str) -> str | None:
    """Returns the module of the package that an import names."""
    inside = module.removeprefix("mmcl_jax").removeprefix(".")
    for name in (f"{inside}.{imported}".removeprefix("."), inside):
        if name in SOURCES:
            return name
    return None


@functools.cache
def _imports(name: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] == "mmcl_jax":
                found |= {_name(node.module, alias.name) for alias in node.names}
    # the literal table of methods stands for imports of their files
    if name == "methods.registry":
        table = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
        constants = (n.value for n in ast.walk(table) if isinstance(n, ast.Constant))
        found |= {f"methods.{c}" for c in constants} & SOURCES.keys()
    return {other for other in found if other not in (None, name)}


def _room(name: str) -> str:
    return name.partition(".")[0]


def test_few_entries_stand_at_the_top():
    itself = {"__pycache__", "__init__.py", "__main__.py"}
    shown = {p.name for p in PACKAGE.iterdir()} - itself
    assert len(shown) <= MAX_ENTRIES
    assert {_room(name) for name in SOURCES} == {n for floor in FLOORS for n in floor}
    assert len(FLOORS) <= 11


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_import_runs_up(name: str):
    height = {room: i for i, floor in enumerate(FLOORS) for room in floor}
    up = {
        other
        for other in _imports(name)
        if _room(other) != _room(name) and height[_room(other)] >= height[_room(name)]
    }
    assert not up


def test_chains_of_imports_are_short_and_none_is_a_cycle():
    @functools.cache
    def chain(name: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
        assert name not in above, f"a cycle: {above}"
        rest = (longest(other) for other in _imports(name))
        return (name, *max(rest, key=len, default=()))

    on_the_way: list[str] = []

    @functools.cache
    def longest(name: str) -> tuple[str, ...]:
        assert name not in on_the_way, f"a cycle: {on_the_way}"
        on_the_way.append(name)
        found = chain(name)
        on_the_way.remove(name)
        return found

    assert len(max(map(longest, SOURCES), key=len)) <= MAX_CHAIN


def _reading_list() -> list[str]:
    listed = DESIGN.partition("## Where to start reading")[2].partition("\n## ")[0]
    return re.findall(r"`([\w/]+\.py)`", listed)


def test_what_a_newcomer_reads_is_short():
    files = _reading_list()
    assert {"main.py", "training/experiment.py", "methods/comm/method.py"} <= set(files)
    lines = {f: len((PACKAGE / f).read_text().splitlines()) for f in files}
    assert sum(lines.values()) <= MAX_READING, lines
    (said,) = re.findall(r"(\d+,\d+) lines in (\d+) files", DESIGN)
    assert int(said[1]) == len(files)
    # said to the hundred, from below
    assert 0 <= int(said[0].replace(",", "")) - sum(lines.values()) < 100


@pytest.mark.parametrize("file", _reading_list())
def test_functions_of_the_main_path_are_short(file: str):
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name


def test_every_room_and_program_stands_in_the_design():
    rooms = DESIGN.partition("## Rooms")[2]
    for name in {_room(name) for name in SOURCES}:
        assert re.search(rf"\b{name}\b", rooms), name
