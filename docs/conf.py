"""How is the site made of these pages? Sphinx's settings; ``make docs`` builds it."""

import inspect
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import griffe
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import stringify_signature

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import greenwait  # noqa: E402, this checkout's, or the one on PYTHONPATH

project = "greenwait"
author = "The greenwait developers"
release = version = greenwait.__version__
html_title = f"greenwait {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["figures"]
# Output has nothing to copy; a prompt is not copied with its command.
copybutton_selector = "div.highlight-python pre, div.highlight-console pre"
copybutton_prompt_text = "$ "
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88  # longer ones have a line for each parameter

warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated")

html_theme = "furo"
pygments_dark_style = "github-dark"
html_theme_options: dict[str, Any] = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_copyright = False

# Links to a page's source, and to its editor, as soon as it is known where the repository is.
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_REPOSITORY = _PROJECT.get("urls", {}).get("Repository")
if _REPOSITORY:
    html_theme_options |= {
        "source_repository": _REPOSITORY,
        "source_branch": "main",
        "source_directory": "docs/",
    }

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


def _types(name: str) -> dict[str, str]:
    """Return the names of the parameters, and their types as they are written."""
    found = {each.name: _type(each.annotation or "") for each in _written(name).parameters}
    if any(each.startswith("Unpack[") for each in found.values()):
        found |= _types("greenwait.WaitCallback")
    return found


def _parameters(obj: Any, types: dict[str, str]) -> list[inspect.Parameter]:
    """Return the parameters with their types; in the place of ``**options`` each of them."""
    found = []
    for each in inspect.signature(obj).parameters.values():
        if types.get(each.name, "").startswith("Unpack["):
            found += _parameters(greenwait.WaitCallback, types)
        elif each.name in types and each.name != "self":
            found.append(each.replace(annotation=types[each.name] or each.empty))
    return found


def typed_signature(
    _app: Any, what: str, name: str, obj: Any, _options: Any, signature: str | None, _returns: Any
) -> tuple[str, str | None] | None:
    """Give a signature the types that are written in the source, or in the stub."""
    written = _written(name)
    if written is None or signature is None:
        return None
    found = inspect.signature(obj)
    if any(each not in signature for each in found.parameters if each != "self"):
        return None  # the page has one of its own
    found = found.replace(parameters=_parameters(obj, _types(name)), return_annotation=found.empty)
    text = stringify_signature(found, short_literals=True)
    return text, _type(written.returns) if what != "class" and written.returns else None


def forget_overloads() -> None:
    """Have one signature shown: what a type checker is told of a call says less to a reader."""
    analyzer = ModuleAnalyzer.for_module("greenwait.aio")
    analyzer.analyze()
    analyzer.overloads.clear()


def setup(app: Any) -> None:
    """Connect to what Sphinx tells of."""
    forget_overloads()
    app.connect("autodoc-process-signature", typed_signature)
