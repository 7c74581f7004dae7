"""The warning that Django's own backend runs on psycopg 3, which never calls greenwait.

Django chooses when it imports its backend, be it before ``install()`` or after it, and nothing
of greenwait's is called from then on. So that import is watched for.
"""

import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType

__all__ = ["unwatch", "watch"]

# Its backend and django.contrib.postgres both import it, and it tries psycopg 3 first.
_CHOICE = "django.db.backends.postgresql.psycopg_any"

_has_warned = False


class _Watch:
    """A finder of modules that finds none, and learns that Django's choice is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> None:
        # It stays in the list, through which Python's import goes at this moment.
        if name == _CHOICE and not _has_warned:
            try:
                import_module("psycopg")  # as the module itself does next
            except ImportError:
                return
            _warn()


_watch = _Watch()


def watch() -> None:
    """Warn, once, if Django has chosen psycopg 3, or else when it does."""
    chosen = sys.modules.get(_CHOICE)
    if chosen is None and _watch not in sys.meta_path:
        sys.meta_path.insert(0, _watch)
    elif getattr(chosen, "is_psycopg3", False) and not _has_warned:
        _warn()


def unwatch() -> None:
    """Warn no longer."""
    with suppress(ValueError):
        sys.meta_path.remove(_watch)


def _warn() -> None:
    global _has_warned
    _has_warned = True
    warnings.warn(
        "Django's backend for PostgreSQL runs on psycopg 3, which never calls greenwait: set "
        "ENGINE to 'greenwait.django' and import that at the top of the settings, or uninstall "
        "psycopg",
        RuntimeWarning,
        stacklevel=3,  # where install() is called, or where Django's module is imported
    )
