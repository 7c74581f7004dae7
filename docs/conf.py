"""How is the site made of these pages? Sphinx's settings; ``make docs`` builds it."""

import inspect
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import griffe
from sphinx.util.inspect import stringify_signature

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import greenwait  # noqa: E402, this checkout's, or the one on PYTHONPATH

project = "greenwait"
author = "The greenwait developers"
release = version = greenwait.__version__
html_title = f"greenwait {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["figures"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated")

html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_copyright = False

# What is compiled has its docstrings at run time, but its types in the stubs; and a type as it
# is written, TypeVars and all, is easier to read than what Python makes of it.
_WRITTEN = griffe.load("greenwait", search_paths=[str(ROOT / "src")], allow_inspection=False)


def _written(name: str) -> Any:
    """Return what griffe has read of the function *name*, or of the class's constructor."""
    try:
        found = _WRITTEN[name.removeprefix("greenwait.")]
        if found.is_class:
            found = found.members.get("__init__") or found.members["__new__"]
    except (KeyError, griffe.AliasResolutionError):
        return None
    return found if found.is_function else None


def _type(annotation: object) -> str:
    """Return a type without the underscore of the module's own names."""
    return re.sub(r"\b_(?=[A-Z])", "", str(annotation))


def typed_signature(
    _app: Any, what: str, name: str, obj: Any, _options: Any, signature: str | None, _returns: Any
) -> tuple[str, str | None] | None:
    """Give a signature the types that are written in the source, or in the stub."""
    written = _written(name)
    if written is None or signature is None:
        return None
    names = {each.name for each in written.parameters} - {"self", "cls"}
    if any(each not in signature for each in names):
        return None  # the page has one of its own
    types = {each.name: _type(each.annotation) for each in written.parameters if each.annotation}
    found = inspect.signature(obj)
    parameters = [
        each.replace(annotation=types.get(each.name, each.empty))
        for each in found.parameters.values()
        if each.name != "self"
    ]
    text = stringify_signature(
        found.replace(parameters=parameters, return_annotation=found.empty), short_literals=True
    )
    return text, _type(written.returns) if what != "class" and written.returns else None


def setup(app: Any) -> None:
    """Connect to what Sphinx tells of."""
    app.connect("autodoc-process-signature", typed_signature)
