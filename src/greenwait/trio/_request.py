"""What a call below ``greenwait.trio.run()`` asks its task to wait for."""

from typing import NamedTuple

__all__ = ["CHECKPOINT", "Request"]


class Request(NamedTuple):
    """What a call waits for."""

    fd: int
    events: int
    #: At most so long; None: as long as it takes.
    seconds: float | None
    #: For the end of a query that was interrupted: it must not be interrupted again.
    draining: bool


#: For nothing: has the task been cancelled?
CHECKPOINT = Request(-1, 0, 0.0, False)
