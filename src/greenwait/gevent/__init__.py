"""psycopg2 in gevent programs: its waits let other greenlets run.

A drop-in for ``psycogreen.gevent``. It works with gevent's monkey patching and without.
"""

from typing import Any

from greenwait._callback import WaitCallback
from greenwait._elsewhere import missing_name
from greenwait._install import check_names, install
from greenwait._types import InstallOptions, Unpack
from greenwait._waiter import register
from greenwait.gevent._adapter import GeventAdapter

__all__ = ["patch_psycopg"]

_adapter = GeventAdapter()


def patch_psycopg(*args: Any, **options: Unpack[InstallOptions]) -> WaitCallback:
    """Make psycopg2's waits yield to other gevent greenlets, in the whole process.

    :param options: as for ``greenwait.install()``.
    :returns: the callback now registered; ``greenwait.uninstall()`` restores the one before it.

    When ``gevent.Timeout``, ``kill()`` or anything else raises an exception in a greenlet that
    waits, its query is cancelled on the server, the exception is raised unchanged, and the
    connection stays usable. Threads without a gevent hub sleep by themselves.
    """
    check_names("patch_psycopg", args)
    register(_adapter)
    return install(**options)


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name)
