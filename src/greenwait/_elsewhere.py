"""What other drivers call things, or how they use them: for errors that say what it is here."""

from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["Elsewhere", "missing_name", "refusing"]


class Elsewhere:
    """An attribute that other drivers have; it raises an AttributeError that names ours.

    In the class's dict, and not by ``__getattr__()``, which would slow down all other attributes.
    """

    def __init__(self, name: str, instead: str) -> None:
        self._owner, _, self._name = name.rpartition(".")
        self._instead = instead
        self.__doc__ = f"Not an attribute of {self._owner}: {instead}."

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise AttributeError(f"{self._owner} has no attribute {self._name!r}: {self._instead}")


def refusing(message: str) -> Callable[..., NoReturn]:
    """Return a method for a protocol that a class does not have, which raises a TypeError."""

    def refuse(self: object, *args: object) -> NoReturn:
        raise TypeError(message)

    return refuse


_POOL = "greenwait.Pool, or greenwait.aio.create_pool() in asyncio"
_ASYNCIO = "it is in asyncio programs: greenwait.aio.{}"
_TOP = {
    "AsyncConnection": _ASYNCIO.format("AsyncConnection, which greenwait.aio.connect() makes"),
    "AsyncConnectionPool": _ASYNCIO.format("create_pool()"),
    "AsyncPool": _ASYNCIO.format("AsyncPool, which greenwait.aio.create_pool() makes"),
    "ConnectionPool": f"it is {_POOL}",
    "PoolError": "a pool without a free connection raises greenwait.PoolTimeout",
    "SimpleConnectionPool": "it is greenwait.Pool, or greenwait.ThreadedConnectionPool",
    "TimeoutError": "it is greenwait.QueryTimeout",
    "await_": _ASYNCIO.format("await_()"),
    "create_pool": f"it is {_POOL}",
    "joinall": "it is greenwait.gather(), or leaving a Hub's with block",
    "monkey": "nothing is patched: greenwait.install(), or greenwait.gevent.patch_psycopg()",
    "patch_psycopg": "it is in greenwait.gevent and greenwait.eventlet; elsewhere install()",
    "run": _ASYNCIO.format("run()") + "; in trio, greenwait.trio.run()",
    "sleep": "it is the method of a hub: with greenwait.Hub() as hub: hub.sleep(1)",
    "spawn": "it is the method of a hub: with greenwait.Hub() as hub: hub.spawn(function)",
}
_AIO = {
    "AsyncConnectionPool": "it is greenwait.aio.create_pool()",
    "ConnectionPool": "it is greenwait.aio.create_pool()",
    "Pool": "it is greenwait.aio.create_pool()",
    "gather": "it is asyncio.gather(), with a connection for each",
    "install": "it is greenwait.install()",
    "timeout": "it is greenwait.timeout(), with 'with', or asyncio.timeout()",
}
_OPENTELEMETRY = {
    "Instrumentor": "it is instrument()",
    "uninstrument": "it is close() of what instrument() has returned",
}
_PATCHING = {
    "gevent_wait_callback": "patch_psycopg() registers it",
    "eventlet_wait_callback": "patch_psycopg() registers it",
    "make_psycopg_green": "it is patch_psycopg()",
    "run": "it is not needed: psycopg2's calls let other greenlets run",
}
_TRIO = {
    "await_": "that is for asyncio; await in trio, outside of greenwait.trio.run()",
    "connect": "call await greenwait.trio.run(greenwait.connect, dsn)",
    "create_pool": "use a greenwait.Pool in functions that greenwait.trio.run() calls",
    "patch_psycopg": "it is greenwait.install()",
}
_MODULES = {
    "greenwait": _TOP,
    "greenwait.aio": _AIO,
    "greenwait.eventlet": _PATCHING,
    "greenwait.gevent": _PATCHING,
    "greenwait.opentelemetry": _OPENTELEMETRY,
    "greenwait.trio": _TRIO,
}


def missing_name(module: str, name: str) -> AttributeError:
    """Return the exception for a name that a module does not have."""
    instead = _MODULES[module].get(name)
    hint = "" if instead is None else f": {instead}"
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
