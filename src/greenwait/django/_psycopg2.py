"""Django's backend for PostgreSQL on psycopg2, where psycopg 3 is installed, too.

Django's base and its ``psycopg_any`` each import psycopg 3 where they can, and remember what they
have got. So it is hidden while both are imported: if only one were to miss it, connections of
the one would get the adapters of the other.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

from django.core.exceptions import (  # pyright: ignore[reportMissingTypeStubs]  # Django has no types
    ImproperlyConfigured,
)

__all__ = ["require_psycopg2"]


def require_psycopg2() -> None:
    """Import Django's backend, on psycopg2.

    :raises django.core.exceptions.ImproperlyConfigured: it was imported before, on psycopg 3.
    """
    with _hidden("psycopg"):
        # In this order: a base could not be imported on a psycopg_any of psycopg 3.
        for name in ("psycopg_any", "base"):
            if import_module(f"django.db.backends.postgresql.{name}").is_psycopg3:
                raise ImproperlyConfigured(
                    "greenwait.django needs psycopg2, and Django has already imported its backend "
                    "for PostgreSQL on psycopg 3, which never calls greenwait: "
                    "'django.contrib.postgres' imports it, for instance. Write 'import "
                    "greenwait.django' at the top of your settings, or uninstall psycopg"
                )


@contextmanager
def _hidden(name: str) -> Generator[None]:
    """Make ``import name`` fail in the block."""
    modules = cast("dict[str, Any]", sys.modules)
    missing = object()
    before = modules.get(name, missing)
    modules[name] = None
    try:
        yield
    finally:
        if before is missing:
            del modules[name]
        else:
            modules[name] = before
