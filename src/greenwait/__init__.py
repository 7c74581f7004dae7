"""greenwait: the wait callback that makes psycopg2's green mode fast and safe.

import greenwait, psycopg2.extensions
psycopg2.extensions.set_wait_callback(greenwait.wait)
"""

from greenwait._install import install, installed, uninstall
from greenwait._poll import EpollWaitCallback, WaitCallback, wait
from greenwait._stats import Stats, stats
from greenwait._version import __version__

__all__ = [
    "EpollWaitCallback",
    "Stats",
    "WaitCallback",
    "__version__",
    "install",
    "installed",
    "stats",
    "uninstall",
    "wait",
]
