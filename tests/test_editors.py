"""What an editor shows of a public name under the mouse: pyright's language server is asked."""

import importlib
import inspect
from pathlib import Path

import pytest

import greenwait
from greenwait._elsewhere import Elsewhere
from tests.lab.language_server import Editor, language_server
from tests.lab.public import MODULES

SOURCES = Path(greenwait.__file__).parent.parent
ALL_MODULES = [*MODULES, "greenwait.eventlet"]
pytestmark = [
    pytest.mark.skipif(language_server() is None, reason="needs make lint's basedpyright"),
    pytest.mark.timeout(300),
]


def names_of(module):
    """Yield the public names of a module, and the methods and properties that are ours."""
    if module == "greenwait.eventlet":  # it would warn of each fork that comes after its import
        yield "greenwait.eventlet.patch_psycopg"
        return
    found = importlib.import_module(module)
    for name in found.__all__:
        yield f"{module}.{name}"
        item = getattr(found, name)
        # The fields of a named tuple are described by its own docstring.
        if inspect.isclass(item) and not issubclass(item, tuple):
            yield from (f"{module}.{name}.{each}" for each in dir(item) if is_ours(item, each))


def is_ours(cls, attribute):
    """Is it public, and not psycopg2's or SQLAlchemy's? Their own stubs have no docstrings."""
    base = next(each for each in cls.__mro__ if attribute in vars(each))
    if isinstance(vars(base)[attribute], Elsewhere):  # it says what to write instead
        return False
    if attribute.startswith("_") or base.__module__.partition(".")[0] != "greenwait":
        return False
    theirs = [each for each in cls.__mro__ if each.__module__.partition(".")[0] != "greenwait"]
    is_awaited = type(vars(base)[attribute]).__name__ == "AwaitedMethod"
    return is_awaited or not any(hasattr(each, attribute) for each in theirs)


NAMES = sorted({name for module in ALL_MODULES for name in names_of(module)})


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What is shown of each name, by one server that reads the sources of this checkout."""
    folder = tmp_path_factory.mktemp("project")
    settings = f'{{"extraPaths": ["{SOURCES}"]}}'
    (folder / "pyrightconfig.json").write_text(settings)
    imports = [f"import {module}" for module in ALL_MODULES]
    program = language_server()
    assert program
    with Editor.started(program, folder) as editor:
        editor.open("\n".join([*imports, *NAMES]) + "\n")
        return {
            name: editor.hover(line, len(name) - 1) for line, name in enumerate(NAMES, len(imports))
        }


@pytest.mark.parametrize("name", NAMES)
def test_editor_shows_a_docstring(shown, name):
    declaration, _, docstring = shown[name].partition("\n\n")
    assert declaration.startswith(("(", "class "))
    assert len(docstring.split()) >= 3


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("greenwait.WaitCallback", "cancel_grace: float = 1,"),
        ("greenwait.Pool", "max_lifetime: float | None = 3600"),
        ("greenwait.cancel", "timeout: float = 1\n"),
        ("greenwait.aio.AsyncConnection.lobject", 'mode: str | None = ""'),
    ],
)
def test_editor_shows_what_the_default_is(shown, name, default):
    assert default in shown[name]
