"""Django's connections of a job, call, greenlet or thread.

``django.db.connections`` keeps one ``DatabaseWrapper`` for each database and thread. Jobs would
share it, and so one's save would land in the transaction of another. ``Connections`` takes the
place of what it keeps them in.
"""

from importlib import import_module
from typing import Any

from greenlet import getcurrent

from greenwait._greenlets.local import local
from greenwait.django._test_case import shared_wrappers

__all__ = ["Connections", "replace"]


class Connections:
    """The connections of the job, call, greenlet or thread that asks, by their aliases.

    While a ``TestCase`` has a transaction open, jobs, calls and greenlets get its connection:
    else they would not see its rows. A plain thread has its own, as with Django's backend.
    """

    _own: local

    def __init__(self) -> None:
        object.__setattr__(self, "_own", local(on_end=_end))

    def __getattr__(self, alias: str) -> Any:
        if shared_wrappers and alias in shared_wrappers and getcurrent().parent is not None:
            return shared_wrappers[alias]
        return getattr(self._own, alias)

    def __setattr__(self, alias: str, wrapper: Any) -> None:
        setattr(self._own, alias, wrapper)

    def __delattr__(self, alias: str) -> None:
        delattr(self._own, alias)


def _end(wrappers: dict[str, Any]) -> None:
    """Close the connections of what has ended, or give them back; without waiting."""
    for wrapper in wrappers.values():
        if wrapper.connection is None or wrapper.allow_thread_sharing:
            continue  # it is another thread's now
        if hasattr(wrapper, "end"):
            wrapper.end()
        else:
            # Another backend's. Not close(), which is refused in an event loop's thread.
            wrapper._close()
            wrapper.connection = None


def replace() -> None:
    """Put ``Connections`` in the place of what Django has, with this thread's connections."""
    handler: Any = import_module("django.db").connections
    before = handler._connections
    if isinstance(before, Connections):
        return
    after = Connections()
    if import_module("django.conf").settings.configured:
        for alias in handler:
            if hasattr(before, alias):
                setattr(after, alias, getattr(before, alias))
    handler._connections = after
