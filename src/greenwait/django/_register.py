"""Registering greenwait's wait callback, where a program has registered none."""

import importlib
import sys

from greenwait._install import install
from greenwait._psycopg.psycopg2 import get_wait_callback

__all__ = ["register_if_none"]

_FRAMEWORKS = (
    ("gevent", "gevent.monkey", "is_module_patched"),
    ("eventlet", "eventlet.patcher", "is_monkey_patched"),
)


def register_if_none() -> None:
    """Register the callback that fits the process, unless one is registered."""
    if get_wait_callback() is not None:
        return
    for name, module, is_patched in _FRAMEWORKS:
        if module in sys.modules and getattr(sys.modules[module], is_patched)("socket"):
            importlib.import_module(f"greenwait.{name}").patch_psycopg()
            return
    install()
