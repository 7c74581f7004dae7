"""greenwait: the wait callback that makes psycopg2's green mode fast and safe.

import greenwait, psycopg2.extensions
psycopg2.extensions.set_wait_callback(greenwait.wait)
"""

import importlib
from typing import Any

from greenwait._callback import EpollWaitCallback, WaitCallback, wait
from greenwait._cancel import cancel
from greenwait._connections.connect import connect
from greenwait._connections.notifies import notifies
from greenwait._connections.pool import Pool
from greenwait._connections.pool_stats import PoolStats
from greenwait._connections.replication import (
    LogicalReplicationConnection,
    PhysicalReplicationConnection,
    ReplicationCursor,
)
from greenwait._connections.threaded_pool import ThreadedConnectionPool
from greenwait._counts import Stats
from greenwait._deadline import timeout
from greenwait._elsewhere import missing_name
from greenwait._errors import CommitInDoubt, PoolTimeout, QueryTimeout
from greenwait._greenlets.gather import gather, map  # noqa: A004, the fixed name
from greenwait._greenlets.hub import Hub, Job
from greenwait._greenlets.local import local, scope
from greenwait._install import install, installed, uninstall
from greenwait._stats import stats
from greenwait._system.identity import publish
from greenwait._trace import start_from_environment as _start_trace
from greenwait._trace import trace
from greenwait._version import __version__
from greenwait.connection import Connection, Cursor

__all__ = [
    "CommitInDoubt",
    "Connection",
    "Cursor",
    "EpollWaitCallback",
    "Hub",
    "Job",
    "LogicalReplicationConnection",
    "PhysicalReplicationConnection",
    "Pool",
    "PoolStats",
    "PoolTimeout",
    "QueryTimeout",
    "ReplicationCursor",
    "Stats",
    "ThreadedConnectionPool",
    "WaitCallback",
    "__version__",
    "cancel",
    "connect",
    "gather",
    "install",
    "installed",
    "local",
    "map",
    "notifies",
    "scope",
    "stats",
    "timeout",
    "trace",
    "uninstall",
    "wait",
]


def __getattr__(name: str) -> Any:
    """Import ``greenwait.aio`` and ``.opentelemetry`` where they are first used."""
    if name == "aio":
        return importlib.import_module("greenwait.aio")
    if name == "opentelemetry":
        try:
            return importlib.import_module("greenwait.opentelemetry")
        except ImportError as exc:
            raise AttributeError(str(exc)) from exc
    if name in ("django", "eventlet", "gevent", "sqlalchemy", "trio"):
        raise AttributeError(f"greenwait.{name} is a module: import greenwait.{name} first")
    raise missing_name("greenwait", name)


publish(__name__, [globals()[name] for name in __all__])

_start_trace()
