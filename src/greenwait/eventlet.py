"""psycopg2 in eventlet programs: its waits let other green threads run.

A drop-in for ``psycogreen.eventlet``. Eventlet itself advises against its use in new programs.
"""

from typing import Any

import eventlet  # pyright: ignore[reportMissingTypeStubs]  # there are none
from eventlet import hubs, patcher  # pyright: ignore[reportMissingTypeStubs]
from eventlet.greenthread import GreenThread  # pyright: ignore[reportMissingTypeStubs]
from greenlet import getcurrent

from greenwait._callback import WaitCallback
from greenwait._elsewhere import missing_name
from greenwait._greenlets.local import tell_ends
from greenwait._install import check_names, install, is_registered
from greenwait._ranks import time_limits
from greenwait._types import InstallOptions, Unpack
from greenwait._waiter import READ, WRITE, Adapter, register

__all__ = ["patch_psycopg"]


class _Eventlet(Adapter):
    _instead = "use eventlet.GreenPool"

    def is_active(self) -> bool:
        hub = getattr(hubs._threadlocal, "hub", None)  # pyright: ignore[reportPrivateUsage]
        return hub is not None and hub.greenlet is not getcurrent()

    def is_hub_itself(self) -> bool:
        hub = getattr(hubs._threadlocal, "hub", None)  # pyright: ignore[reportPrivateUsage]
        return hub is not None and hub.greenlet is getcurrent()

    def wait(self, fd: int, events: int, seconds: float | None) -> int:
        hub = hubs.get_hub()
        current = getcurrent()
        listeners: list[Any] = []
        timer = None
        too_late: Any = _TOO_LATE
        try:
            for wanted, kind in ((READ, hub.READ), (WRITE, hub.WRITE)):
                if events & wanted and fd in hub.listeners[kind]:
                    # Another green thread waits on the descriptor: poll it every 10 ms.
                    seconds, too_late = min(seconds or 0.01, 0.01), None
                elif events & wanted:
                    listeners.append(hub.add(kind, fd, current.switch, current.throw, lambda: None))
            if seconds is not None:
                timer = hub.schedule_call_global(seconds, current.switch, too_late)
            return 0 if hub.switch() is _TOO_LATE else events
        finally:
            for listener in listeners:
                hub.remove(listener)
            if timer is not None:
                timer.cancel()


_TOO_LATE = object()
time_limits.append(eventlet.Timeout)
tell_ends(
    GreenThread,
    lambda thread, function: thread.link(function),  # pyright: ignore[reportUnknownMemberType]
)
_adapter = _Eventlet()


def patch_psycopg(*args: Any, **options: Unpack[InstallOptions]) -> WaitCallback:
    """Make psycopg2's waits yield to other eventlet green threads, in the whole process.

    :param options: as for ``greenwait.install()``.
    :returns: the callback now registered; ``greenwait.uninstall()`` restores the one before it.

    When ``eventlet.Timeout``, ``kill()`` or anything else raises an exception in a green thread
    that waits, its query is cancelled on the server, the exception is raised unchanged, and the
    connection stays usable. Threads without an eventlet hub sleep by themselves.

    It may be called before ``eventlet.monkey_patch()`` or after it.
    """
    check_names("patch_psycopg", args)
    register(_adapter)
    callback = install(**options)
    # Otherwise monkey_patch() would replace our callback with eventlet's.
    patched: dict[str, Any] = patcher.already_patched  # pyright: ignore[reportUnknownMemberType]
    patched.setdefault("psycopg", _UnlessReplaced())
    return callback


class _UnlessReplaced:
    """A flag for ``eventlet.monkey_patch()``, true while our callback is registered."""

    def __bool__(self) -> bool:
        return is_registered()


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name)
