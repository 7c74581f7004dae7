"""Docstrings and defaults in the stubs of compiled modules: an editor shows what help() does.

``python -m tools.stub_docs --write`` has them from the extensions, as they are built; ``--check``
ends with the stubs that differ. A docstring is changed in its ``.pyx``. Only what exists at run
time is touched: a stub's own classes keep theirs.
"""

import argparse
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import docify
import libcst as cst
from libcst import metadata

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src"


class _Prepared(cst.CSTTransformer):
    """A stub without the docstrings that will be made anew, and with the defaults of the module."""

    METADATA_DEPENDENCIES = (metadata.ScopeProvider,)

    def __init__(self, module: Any) -> None:
        super().__init__()
        self._module = module

    def _found(self, node: cst.ClassDef | cst.FunctionDef) -> Any:
        """Return what has the node's name in the module, or None."""
        scope: Any = self.get_metadata(metadata.ScopeProvider, node)
        return self._object(docify.get_qualname(scope, node.name.value))

    def _object(self, qualified_name: str) -> Any:
        found = docify.get_obj(self._module, qualified_name)
        return None if found is None else found[1]

    def leave_ClassDef(  # noqa: N802, libcst's names
        self, original_node: cst.ClassDef, updated_node: cst.ClassDef
    ) -> cst.ClassDef:
        if self._found(original_node) is None:
            return updated_node
        return updated_node.with_changes(body=_without_docstring(updated_node.body))

    def leave_FunctionDef(  # noqa: N802
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef:
        found = self._found(original_node)
        if found is None:
            return updated_node
        updated_node = updated_node.with_changes(body=_without_docstring(updated_node.body))
        if original_node.name.value in ("__new__", "__init__"):
            scope: Any = self.get_metadata(metadata.ScopeProvider, original_node)
            found = self._object(scope.name)  # the class has the signature
        return updated_node.with_changes(params=_with_defaults(updated_node.params, found))


class _Documented(docify.Transformer):
    """A stub with the docstrings of the module."""

    def leave_FunctionDef(  # noqa: N802
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef:
        if original_node.name.value.startswith("__"):
            return updated_node  # what Python says of it, each version in its own words
        documented: Any = super().leave_FunctionDef(original_node, updated_node)
        return cast(cst.FunctionDef, documented)


def _without_docstring(body: cst.BaseSuite) -> cst.BaseSuite:
    if not isinstance(body, cst.IndentedBlock) or not _is_docstring(body.body[0]):
        return body
    if len(body.body) == 1:
        return cst.SimpleStatementSuite([cst.Expr(cst.Ellipsis())])
    return body.with_changes(body=body.body[1:])


def _is_docstring(statement: cst.CSTNode) -> bool:
    return (
        isinstance(statement, cst.SimpleStatementLine)
        and isinstance(statement.body[0], cst.Expr)
        and isinstance(statement.body[0].value, cst.SimpleString)
    )


def _with_defaults(parameters: cst.Parameters, function: Any) -> cst.Parameters:
    """Return the parameters with the function's defaults, of those that have one in the stub."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a property; or has none
        return parameters

    def with_default(each: cst.Param) -> cst.Param:
        there = found.get(each.name.value)
        if each.default is None or there is None or there.default is there.empty:
            return each
        return each.with_changes(default=cst.parse_expression(repr(there.default)))

    return parameters.with_changes(
        **{
            kind: [with_default(each) for each in getattr(parameters, kind)]
            for kind in ("posonly_params", "params", "kwonly_params")
        }
    )


def written_anew(stub: Path) -> str:
    """Return what the stub of a compiled module is to contain."""
    parts = stub.relative_to(SOURCES).with_suffix("").parts
    module = importlib.import_module(".".join(parts))
    tree = cst.parse_module(stub.read_text())
    tree = metadata.MetadataWrapper(tree).visit(_Prepared(module))
    if tree.body and _is_docstring(tree.body[0]):
        tree = tree.with_changes(body=tree.body[1:])
    tree = metadata.MetadataWrapper(tree).visit(_Documented(module.__name__, module, False))
    return _formatted(tree.code, stub)


def _formatted(code: str, stub: Path) -> str:
    """Return it as ruff has it: a docstring begins in its first line, and is a body."""
    ruff = Path(sys.executable).with_name("ruff")
    for step in ("check", "--quiet", "--fix-only", "--select=D212,PIE790"), ("format", "--quiet"):
        command = [ruff, *step, "--stdin-filename", stub, "-"]
        code = subprocess.run(
            command, input=code, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=60
        ).stdout
    return code


def stubs() -> Iterator[Path]:
    """Yield those of compiled modules."""
    for stub in sorted(SOURCES.rglob("*.pyi")):
        if stub.with_suffix(".pyx").exists():
            yield stub


def main() -> None:
    """Write them, or say which of them differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="change the stubs")
    what.add_argument("--check", action="store_true", help="end with 1 if one would be changed")
    options = parser.parse_args()
    changed = []
    for stub in stubs():
        text = written_anew(stub)
        if text != stub.read_text():
            changed.append(str(stub.relative_to(ROOT)))
            if options.write:
                stub.write_text(text)
    if changed and options.check:
        names = "\n".join(changed)
        sys.exit(f"{names}\npython -m tools.stub_docs --write: these differ from the extensions")


if __name__ == "__main__":
    main()
