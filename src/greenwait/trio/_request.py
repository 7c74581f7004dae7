"""The requests to wait that a call below ``greenwait.trio.run()`` makes of its task."""

from typing import NamedTuple

__all__ = ["CHECKPOINT", "Request"]


class Request(NamedTuple):
    """A request to wait for a descriptor."""

    fd: int
    events: int
    #: The longest time to wait; None: no limit.
    seconds: float | None
    #: It waits for the end of a query that was interrupted: it must not be interrupted again.
    draining: bool


#: The request to wait for nothing: has the task been cancelled?
CHECKPOINT = Request(-1, 0, 0.0, False)
