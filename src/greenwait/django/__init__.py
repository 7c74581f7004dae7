"""psycopg2 in Django programs: each job, call, greenlet and thread has its own connection.

DATABASES = {"default": {"ENGINE": "greenwait.django", "NAME": "shop"}}

The ORM runs at once in jobs of ``greenwait.gather()``, below ``greenwait.aio.run()`` in an async
view, in gevent and eventlet greenlets and in threads, isolated from each other.

Importing it makes Django use psycopg2, where psycopg 3 is installed, too.
"""

from greenwait._system.identity import publish
from greenwait.django._psycopg2 import require_psycopg2

require_psycopg2()  # first of all, before anything imports Django's backend

from greenwait.django._view import view  # noqa: E402

__all__ = ["view"]

publish(__name__, [globals()[name] for name in __all__])
