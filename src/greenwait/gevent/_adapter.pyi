"""The adapter of gevent: waits of greenlets, while their hub runs others.

gevent's loop watches one descriptor: that of our own set, in which those of the connections
stay from one wait to the next. libpq may close a connection's at any time, and libev ends the
process when it finds that a descriptor it watches is closed. Where a set has no descriptor
the loop watches the connection's after all, for the time of a wait.
"""

from typing import final

from greenwait._waiter import Adapter

__all__ = ["GeventAdapter"]

@final
class GeventAdapter(Adapter):
    """The adapter of gevent, for all threads that run one of its hubs."""
