"""Connections within the proxies of a library that traces: it sees the queries of awaited methods.

Such a library (ddtrace, elastic-apm, newrelic) replaces ``psycopg2.connect()``, and puts a proxy
around each connection and cursor. The proxy's methods note how long psycopg2's take; an awaited
one has returned before its query begins. So the connection is taken out of its proxy, and its
cursors go through that inside of their calls, where they wait.
"""

from typing import Any

from greenwait._psycopg.proxy import without_proxy
from greenwait.aio._call import awaited

__all__ = ["out_of_proxy", "through_proxy"]

_METHODS = ("execute", "executemany", "callproc")
_classes: dict[type, type] = {}


def out_of_proxy(found: Any) -> Any:
    """Return the connection that is in a proxy, if it is in one, and have it know the proxy."""
    conn = without_proxy(found)
    if conn is not found:
        conn._proxy = found
    return conn


def through_proxy(cls: Any) -> Any:
    """Return a subclass of the class of awaited cursors whose queries the proxy notices."""
    if cls not in _classes:
        base: Any = cls._base
        methods = {name: _method_of_proxy(getattr(base, name), name) for name in _METHODS}
        own_base: Any = type(base.__name__, (base,), methods | {"_is_in_proxy": False})
        own = {
            name: awaited(getattr(own_base, name), f"{cls.__name__}.{name}", of_cursor=True)
            for name in _METHODS
        }
        own |= {"__doc__": cls.__doc__, "__module__": cls.__module__}
        _classes[cls] = type(cls.__name__, (cls, own_base), own)
    return _classes[cls]


def _method_of_proxy(method: Any, name: str) -> Any:
    """Return a cursor's method that calls the one of its proxy, which calls *method*."""

    def through(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._is_in_proxy:
            return method(self, *args, **kwargs)

        def this_one(conn: Any, name: str | None = None) -> Any:
            return self

        options = {"withhold": self.withhold, "scrollable": self.scrollable}
        proxy = self.connection._proxy.cursor(self.name, cursor_factory=this_one, **options)
        self._is_in_proxy = True
        try:
            return getattr(proxy, name)(*args, **kwargs)
        finally:
            self._is_in_proxy = False

    return through
