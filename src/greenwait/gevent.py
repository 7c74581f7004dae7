"""psycopg2 in gevent programs: its waits let other greenlets go on.

A drop-in for ``psycogreen.gevent``. It works with gevent's monkey patching and without.
"""

from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent

from greenwait._callback import WaitCallback
from greenwait._install import install
from greenwait._waiter import READ, WRITE, Adapter, adopt

__all__ = ["patch_psycopg"]

_EV_READ, _EV_WRITE = 1, 2  # libev's


class _TooLate(BaseException):
    """A wait's deadline has passed; never leaves it."""


class _Gevent(Adapter):
    instead = "use gevent.spawn() and gevent.joinall(), or gevent.pool.Pool"

    def is_here(self) -> bool:
        # A thread without a hub sleeps by itself, and so does a callback of the hub's own.
        hub = get_hub_if_exists()
        return hub is not None and getcurrent() is not hub

    def wait(self, fd: int, events: int, seconds: float | None, known: Any) -> int:
        hub = gevent.get_hub()
        watcher = None
        if known is not None and known.kept is not None and known.kept[:3] == (hub, fd, events):
            watcher = known.kept[3]
        if watcher is None:
            wanted = (_EV_READ if events & READ else 0) | (_EV_WRITE if events & WRITE else 0)
            watcher = hub.loop.io(fd, wanted)
            if known is not None:
                known.kept = (hub, fd, events, watcher)
        if seconds is None:
            hub.wait(watcher)
            return events
        too_late = _TooLate()
        timer = gevent.Timeout.start_new(seconds, too_late)
        try:
            hub.wait(watcher)
        except _TooLate as exc:
            if exc is not too_late:
                raise
            return 0
        finally:
            timer.close()
        return events


_adapter = _Gevent()


def patch_psycopg(**options: Any) -> WaitCallback:
    """Have psycopg2's waits step aside for gevent's other greenlets, in the whole process.

    :param options: as for ``greenwait.WaitCallback``.
    :returns: the callback that is registered now; ``greenwait.uninstall()`` puts back the
        one that was.

    ``gevent.Timeout``, ``kill()`` and whatever else is thrown into a greenlet that waits:
    its query is cancelled on the server, the exception raised as it is, and the connection
    stays usable. Threads without a hub of gevent's sleep by themselves.
    """
    adopt(_adapter)
    return install(**options)
