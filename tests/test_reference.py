"""The API reference names all that is public, and the docstrings it shows say what to pass."""

import ast
import importlib
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import greenwait
from greenwait._types import InstallOptions, Unpack
from tests.lab.public import MODULES

ROOT = Path(__file__).parent.parent
PAGES = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
IN_REFERENCE = [module for module in MODULES if module != "greenwait.sqlalchemy"]
# Where a name is documented once, and found in two modules.
SHOWN_AS = {
    "greenwait.connection.Connection": "greenwait.Connection",
    "greenwait.connection.Cursor": "greenwait.Cursor",
}
PUBLIC = {
    SHOWN_AS.get(f"{module}.{name}", f"{module}.{name}"): getattr(
        importlib.import_module(module), name
    )
    for module in IN_REFERENCE
    for name in importlib.import_module(module).__all__
}


def functions_of_eventlet():
    """Yield what is public there, without the import: eventlet warns of each fork after that."""
    tree = ast.parse((ROOT / "src" / "greenwait" / "eventlet.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            node.body = node.body[:1]  # the docstring
            found: dict[str, Any] = {"Any": Any, "WaitCallback": greenwait.WaitCallback}
            found |= {"InstallOptions": InstallOptions, "Unpack": Unpack}
            exec(compile(ast.Module([node], []), "eventlet.py", "exec"), found)
            yield f"greenwait.eventlet.{node.name}", found[node.name]


PUBLIC.update(functions_of_eventlet())


def documented():
    """Yield what people call: functions, classes but those that others make, their methods."""
    for name, item in PUBLIC.items():
        if inspect.isclass(item):
            if f":: {name}(" not in PAGES:  # a page has no signature of its own for it
                yield name, item
            for method, own in vars(item).items():
                if not method.startswith("_") and callable(own) and own.__doc__:
                    yield f"{name}.{method}", own
        elif callable(item) and not isinstance(item, PUBLIC["greenwait.WaitCallback"]):
            yield name, item


DOCUMENTED = dict(documented())


def parameters_of(item):
    if str(getattr(inspect.unwrap(item), "__module__", "")).startswith("psycopg2"):
        return []  # its own, which are documented there
    parameters = inspect.signature(item).parameters.values()
    return [each.name for each in parameters if each.name not in ("self", "args")]


def test_all_that_is_public_is_on_a_page():
    on_page = re.findall(r"^\.\. (?:auto\w+|py:data):: ([\w.]+)", PAGES, re.MULTILINE)
    assert sorted(on_page) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_a_docstring(name):
    assert inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_of_the_module_that_users_import(name):
    item = PUBLIC[name]
    if hasattr(item, "__qualname__") and not name.startswith("greenwait.eventlet."):
        assert f"{item.__module__}.{item.__qualname__}" == name
        assert pickle.loads(pickle.dumps(item)) is item


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_names_every_parameter(name):
    described = re.findall(r":param (\w+):", DOCUMENTED[name].__doc__ or "")
    assert set(parameters_of(DOCUMENTED[name])) <= set(described)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_describes_no_parameter_that_is_not_there(name):
    described = re.findall(r":param (\w+):", DOCUMENTED[name].__doc__ or "")
    assert set(described) <= {*parameters_of(DOCUMENTED[name]), "dsn", "args"}


def test_table_of_options_has_all_of_them_with_their_defaults():
    page = (ROOT / "docs" / "getting-started.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE)
    options = list(inspect.signature(greenwait.WaitCallback).parameters.values())
    options.append(inspect.signature(greenwait.install).parameters["trace"])
    assert dict(rows) == {each.name: repr(each.default).replace("'", '"') for each in options}
