"""psycopg2 in eventlet programs: its waits let other green threads go on.

A drop-in for ``psycogreen.eventlet``. Eventlet itself advises against its use in new programs.
"""

from typing import TYPE_CHECKING, Any

import eventlet  # pyright: ignore[reportMissingTypeStubs]  # there are none
from eventlet import hubs, patcher  # pyright: ignore[reportMissingTypeStubs]
from greenlet import getcurrent

from greenwait._callback import WaitCallback
from greenwait._install import install, is_registered
from greenwait._ranks import time_limits
from greenwait._waiter import READ, WRITE, Adapter, register

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from greenwait._callback import Options

__all__ = ["patch_psycopg"]


class _Eventlet(Adapter):
    instead = "use eventlet.GreenPool"

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
                    # Another green thread waits on it: look now and then.
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
_adapter = _Eventlet()


def patch_psycopg(**options: "Unpack[Options]") -> WaitCallback:
    """Have psycopg2's waits step aside for eventlet's other green threads, in the whole process.

    :param options: as for ``greenwait.WaitCallback``.
    :returns: the callback that is registered now; ``greenwait.uninstall()`` puts back the
        one that was.

    ``eventlet.Timeout``, ``kill()`` and whatever else is thrown into a green thread that
    waits: its query is cancelled on the server, the exception raised as it is, and the
    connection stays usable. Threads without a hub of eventlet's sleep by themselves.

    It may be called before ``eventlet.monkey_patch()`` or after it.
    """
    register(_adapter)
    callback = install(**options)
    # monkey_patch() would register a callback of eventlet's own, in place of ours.
    patched: dict[str, Any] = patcher.already_patched  # pyright: ignore[reportUnknownMemberType]
    patched.setdefault("psycopg", _UnlessReplaced())
    return callback


class _UnlessReplaced:
    """Says, to ``eventlet.monkey_patch()``, that psycopg2 is patched while it is by us."""

    def __bool__(self) -> bool:
        return is_registered()
