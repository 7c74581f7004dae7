"""The folders of the package: each stands on those below it, and on no other.

And no module of tests stands on another: what two of them need is in tests/lab or in a conftest.py.
"""

import graphlib
import re
from pathlib import Path

import pytest

import greenwait

PACKAGE = Path(greenwait.__file__).parent
TESTS = Path(__file__).parent
SOURCES = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx", ".pxd", ".pyi")]

# From below. What stands on the same floor does not know of each other.
FLOORS = (
    {"_system"},
    {"_psycopg"},
    {""},
    {"_greenlets", "_connections"},
    {"aio", "gevent", "trio", "eventlet"},
    {"connection"},
    {"django", "opentelemetry", "sqlalchemy"},
    {"__init__"},
    {"__main__"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

# At any depth: an import may be a lazy one. Type checkers have a floor of their own.
_IMPORT = re.compile(
    r"^\s*(?:from\s+(greenwait[\w.]*)\s+c?import\s+\(?\s*(\w+)|c?import\s+(greenwait[\w.]*))",
    re.MULTILINE,
)

# The default of a type variable, for instance; never run.
_FOR_CHECKERS = re.compile(r"^if TYPE_CHECKING:\n(?:(?: .*)?\n)+", re.MULTILINE)


def room(module):
    """Return where it lives: a folder, a module of the face, or "" for the rest."""
    first = module[0] if module else "__init__"
    if first in FLOOR_OF:
        return first
    assert len(module) == 1, f"{'.'.join(module)} is in a folder that FLOORS does not know"
    return ""


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path, text=None):
    """Return the modules that a file imports; those of the package, without its name."""
    for match in _IMPORT.finditer(path.read_text(encoding="utf-8") if text is None else text):
        module, name, plain = match.groups()
        parts = tuple((module or plain).split(".")[1:])
        is_module = any(PACKAGE.joinpath(*parts).glob(f"{name}.p*")) if module else False
        yield (*parts, name) if is_module else parts


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    here = room(module_of(path))
    for module in imported(path):
        there = room(module)
        assert there == here or FLOOR_OF[there] < FLOOR_OF[here], f"it imports {module}"


def test_no_module_imports_itself_through_others():
    graph = graphlib.TopologicalSorter[tuple[str, ...]]()
    for path in SOURCES:
        here = module_of(path)
        run = _FOR_CHECKERS.sub("", path.read_text(encoding="utf-8"))
        graph.add(here, *(module for module in imported(path, run) if module != here))
    graph.prepare()  # raises CycleError


def test_compiled_modules_have_stubs():
    """All that have a name for Python code."""
    visible = re.compile(r"^(?:__all__|(?:(?:async )?def|class) (?!_)|cpdef)", re.MULTILINE)
    without = [
        path.name
        for path in PACKAGE.rglob("*.pyx")
        if visible.search(path.read_text(encoding="utf-8"))
        and not path.with_suffix(".pyi").exists()
    ]
    assert without == []


def test_no_module_imports_a_module_of_tests():
    imported = re.compile(r"^\s*(?:from|import) .*\b(?:test_\w+|conftest)\b", re.MULTILINE)
    guilty = [
        path.name
        for path in TESTS.rglob("*.py")
        if path != Path(__file__) and imported.search(path.read_text(encoding="utf-8"))
    ]
    assert guilty == []
