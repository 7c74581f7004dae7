"""psycopg2 in gevent programs: its waits let other greenlets go on.

A drop-in for ``psycogreen.gevent``. It works with gevent's monkey patching and without.
"""

from typing import TYPE_CHECKING

from greenwait._callback import WaitCallback
from greenwait._install import install
from greenwait._waiter import register
from greenwait.gevent._adapter import GeventAdapter

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from greenwait._callback import Options

__all__ = ["patch_psycopg"]

_adapter = GeventAdapter()


def patch_psycopg(**options: "Unpack[Options]") -> WaitCallback:
    """Have psycopg2's waits step aside for gevent's other greenlets, in the whole process.

    :param options: as for ``greenwait.WaitCallback``.
    :returns: the callback that is registered now; ``greenwait.uninstall()`` puts back the
        one that was.

    ``gevent.Timeout``, ``kill()`` and whatever else is thrown into a greenlet that waits:
    its query is cancelled on the server, the exception raised as it is, and the connection
    stays usable. Threads without a hub of gevent's sleep by themselves.
    """
    register(_adapter)
    return install(**options)
