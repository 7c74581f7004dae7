"""What help(), notebooks and frameworks are told of public names: signatures, types, attributes."""

import ast
import copy
import importlib
import inspect
import pickle
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import greenwait
from greenwait._elsewhere import Elsewhere
from tests.lab.bounds import bound
from tests.lab.public import MODULES

SOURCES = Path(greenwait.__file__).parent.parent
IN_ALL = {
    f"{module}.{name}": getattr(importlib.import_module(module), name)
    for module in MODULES
    for name in importlib.import_module(module).__all__
}
CLASSES = {name: item for name, item in IN_ALL.items() if inspect.isclass(item)}


def is_ours(cls):
    return cls.__module__.partition(".")[0] == "greenwait"


def is_only_refused(cls, name):
    """Does the attribute do no more than to say what to write instead?"""
    return isinstance(inspect.getattr_static(cls, name), Elsewhere)


def public_attributes(cls):
    """Yield the names and values of what the class and our base classes of it define."""
    for base in filter(is_ours, cls.__mro__):
        for name in vars(base):
            if not (name.startswith("_") or is_only_refused(cls, name)):
                yield name, getattr(cls, name)


def callables():
    for name, item in IN_ALL.items():
        if callable(item):
            yield name, item
        if inspect.isclass(item):
            for method, found in public_attributes(item):
                if callable(found):
                    yield f"{name}.{method}", found
    yield "greenwait.WaitCallback()", greenwait.WaitCallback()
    yield "greenwait.timeout()", greenwait.timeout(1)
    yield "greenwait.installed()", greenwait.installed()
    yield "greenwait.trace()", greenwait.trace("timeline.json")
    yield "greenwait.Pool().connection", greenwait.Pool("").connection


CALLABLES = dict(callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_signature_is_known(name):
    parameters = inspect.signature(CALLABLES[name]).parameters.values()
    assert all(each.name.isidentifier() for each in parameters)


@pytest.mark.parametrize("name", CALLABLES)
def test_types_are_known(name):
    item = CALLABLES[name]
    is_sqlalchemy_s = name.startswith("greenwait.sqlalchemy.")
    if inspect.isclass(item) and is_sqlalchemy_s:
        return  # SQLAlchemy's classes name types that are not there at run time
    hints = typing.get_type_hints(item)
    if not inspect.isclass(item) and not is_sqlalchemy_s:
        assert "return" in hints


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("greenwait.EpollWaitCallback", "(conn: 'Pollable', /) -> 'None'"),
        ("greenwait.Cursor", "(conn: psycopg2.extensions.connection, name: str | bytes | None"),
        ("greenwait.Cursor.fetchmany", "(self, size: int | None = None) -> list[tuple["),
        ("greenwait.Cursor.close", "(self) -> None"),
        ("greenwait.Connection.set_client_encoding", "(self, encoding: str, /) -> None"),
        ("greenwait.aio.AsyncConnection.tpc_recover", "(self) -> list[psycopg2.extensions.Xid]"),
        ("greenwait.Hub.sleep", "(self, seconds: 'float', /) -> 'None'"),
        ("greenwait.timeout()", "(function: '_Function', /) -> '_Function'"),
    ],
)
def test_signature_is_what_can_be_called(name, expected):
    assert str(inspect.signature(CALLABLES[name])).startswith(expected)


def test_bound_method_of_a_connection_has_no_self():
    with_self = inspect.signature(greenwait.Connection.set_session).parameters
    assert list(with_self)[:2] == ["self", "isolation_level"]
    bound_method = greenwait.Connection.set_session.__get__(object())
    assert next(iter(inspect.signature(bound_method).parameters)) == "isolation_level"


def test_class_with_its_own_constructor_has_the_signature_of_that():
    class Own(greenwait.Cursor):
        def __init__(self, conn, *, rows):
            super().__init__(conn)

    assert list(inspect.signature(Own).parameters) == ["conn", "rows"]


def test_types_of_a_callback_are_resolved():
    hints = typing.get_type_hints(greenwait.EpollWaitCallback)
    assert hints["return"] is type(None)
    assert hints == typing.get_type_hints(greenwait.wait)


def test_eventlet_s_function_has_both():
    script = (
        "import inspect, typing, warnings; warnings.simplefilter('ignore')\n"
        "from greenwait.eventlet import patch_psycopg as f\n"
        "print(inspect.signature(f).parameters['options'].kind, len(typing.get_type_hints(f)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=bound(40)
    )
    assert done.stdout.split()[-1] == "3", done.stderr  # args, options and return


# -- The stubs beside compiled modules

STUBS = sorted(path for path in SOURCES.rglob("*.pyi") if path.with_suffix(".pyx").exists())


def functions_of(stub):
    """Yield the functions and methods of a stub that are defined once, with what is at run time."""
    module = importlib.import_module(".".join(stub.relative_to(SOURCES).with_suffix("").parts))
    tree = ast.parse(stub.read_text())
    for node in tree.body:
        found = getattr(module, getattr(node, "name", ""), None)
        if isinstance(node, ast.FunctionDef):
            yield node, found
        elif isinstance(node, ast.ClassDef) and found is not None:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("__"):
                    yield method, inspect.getattr_static(found, method.name, None)


def without_modules(annotation):
    return (
        annotation.rpartition(".")[2] if annotation.replace(".", "").isidentifier() else annotation
    )


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: str(path.relative_to(SOURCES)))
def test_types_of_the_extension_are_those_of_the_stub(stub):
    for node, found in functions_of(stub):
        written = getattr(found, "__annotations__", None) or {}
        arguments = node.args
        each = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        each += filter(None, (arguments.vararg, arguments.kwarg))
        types = {one.arg: ast.unparse(one.annotation) for one in each if one.annotation}
        if node.returns:
            types["return"] = ast.unparse(node.returns)
        for name, annotation in written.items():
            if isinstance(annotation, str) and name in types:
                assert without_modules(types[name]) == without_modules(annotation), node.name


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: str(path.relative_to(SOURCES)))
def test_stub_has_the_docstring_of_each_public_name(stub):
    for node, found in functions_of(stub):
        if inspect.getdoc(found) and not any(
            isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list
        ):
            assert ast.get_docstring(node) == inspect.getdoc(found), node.name


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: str(path.relative_to(SOURCES)))
def test_stub_says_what_the_defaults_are(stub):
    for node in ast.walk(ast.parse(stub.read_text())):
        if isinstance(node, ast.FunctionDef):
            defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            assert "..." not in [ast.unparse(each) for each in defaults], node.name


# -- What dir() shows


def declared(cls):
    """Return the names that the stub of a compiled class has, or its source, if it has none."""
    names = set()
    for base in filter(is_ours, cls.__mro__):
        for path in SOURCES.rglob("*.py*"):
            if path.suffix == ".pyi" or (
                path.suffix == ".py" and path.parent.name != "__pycache__"
            ):
                for node in ast.walk(TREES.setdefault(path, ast.parse(path.read_text()))):
                    if isinstance(node, ast.ClassDef) and node.name == base.__name__:
                        names |= {
                            word.id if isinstance(word, ast.Name) else word.name
                            for each in ast.walk(node)
                            for word in [each]
                            if isinstance(word, (ast.FunctionDef, ast.AsyncFunctionDef))
                            or (isinstance(word, ast.Name) and isinstance(word.ctx, ast.Store))
                        }
    return names


TREES: dict[Path, ast.Module] = {}


def shown(cls):
    """Return the public names of ours in dir()."""
    theirs = set()
    for base in cls.__mro__:
        if not is_ours(base):
            theirs |= set(dir(base))
    return {
        name for name in dir(cls) if not (name.startswith("_") or is_only_refused(cls, name))
    } - theirs


@pytest.mark.parametrize("name", CLASSES)
def test_dir_shows_nothing_that_users_are_not_told_of(name):
    assert shown(CLASSES[name]) <= declared(CLASSES[name])


@pytest.mark.parametrize("name", CLASSES)
def test_what_dir_shows_has_a_docstring_of_its_own(name):
    cls = CLASSES[name]
    for attribute in shown(cls):
        value = getattr(cls, attribute)
        if value is None:  # an instance has another value
            assert f"``{attribute}``" in (cls.__doc__ or "")
        else:
            assert value.__doc__ not in (None, "", type(value).__doc__), attribute


# -- Copies, and modules


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))]
)
@pytest.mark.parametrize(
    "callback",
    [greenwait.EpollWaitCallback, greenwait.WaitCallback(timeout=2, spin="auto", slow=1.5)],
    ids=["ready-made", "own"],
)
def test_callback_is_copied_and_pickled_with_its_options(again, callback):
    assert repr(again(callback)) == repr(callback)


def attribute_in_new_process(name, *missing):
    script = f"import sys, warnings; warnings.simplefilter('ignore'); missing = {list(missing)}\n"
    script += "sys.modules.update(dict.fromkeys(missing))\nimport greenwait\n"
    script += f"print(greenwait.{name}.__name__)"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=bound(40)
    )


def test_aio_needs_no_import_of_its_own():
    assert attribute_in_new_process("aio").stdout == "greenwait.aio\n"


@pytest.mark.parametrize("name", ["django", "eventlet", "gevent", "sqlalchemy", "trio"])
def test_other_module_says_which_import_is_missing(name):
    error = attribute_in_new_process(name).stderr
    assert error.endswith(f"greenwait.{name} is a module: import greenwait.{name} first\n")
