"""SQLAlchemy on psycopg2, concurrently: on the hub, on asyncio, on trio, gevent and eventlet.

    create_engine("postgresql+greenwait://localhost/shop")
    create_async_engine("postgresql+greenwait_async://localhost/shop")

SQLAlchemy finds these dialects by their names. Both have one kind of pool, in which jobs, tasks,
greenlets and threads wait their turn, and an interrupt of a query costs neither its connection.
"""

from greenwait._system.identity import publish
from greenwait.sqlalchemy._dialect import AsyncDialect, Dialect
from greenwait.sqlalchemy._pool import AsyncFairQueuePool, FairQueuePool

__all__ = ["AsyncDialect", "AsyncFairQueuePool", "Dialect", "FairQueuePool"]

publish(__name__, [globals()[name] for name in __all__])
