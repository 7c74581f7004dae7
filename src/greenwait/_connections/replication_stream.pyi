"""A replication stream: the COPY BOTH that START_REPLICATION leaves open.

libpq's functions are called with the GIL held, and never block: so two threads can't call them
at the same time, and there is no mutex. psycopg2 does not know of the stream. While it is in a
method of the connection, which is guarded by the connection's lock, the stream waits for that.

The rules of feedback are psycopg2's (``pq_read_replication_message``): one message in each
status interval, one for each request of the server; and where the program has confirmed all that
it got, the server's keepalives confirm what needed no message.
"""

from collections.abc import Callable
from typing import Any, final

from psycopg2.extras import ReplicationMessage

from greenwait._connections.lock import FairLock

__all__ = ["CAN_REPLICATE", "Stream", "next_of_cursor"]

CAN_REPLICATE: bool

@final
class Stream:
    """The replication stream that a cursor has begun. It is waited for as a connection is."""
    def __new__(cls, cursor: Any, decode: bool, status_interval: float) -> Stream: ...
    @property
    def conn(self) -> Any: ...
    @property
    def turns(self) -> FairLock: ...
    @property
    def wal_end(self) -> int: ...
    @property
    def last_io(self) -> float:
        """When something was last received or sent, as ``time.time()`` has it."""
    @property
    def last_feedback(self) -> float:
        """When feedback was last sent; 0.0: never."""
    @property
    def is_over(self) -> bool:
        """Whether the stream has ended, and all of it was taken."""
    def set_status_interval(self, seconds: float) -> None:
        """Send feedback when *seconds* have passed since the last one."""
    def settle(self) -> None:
        """Find out whether the statement has begun the stream."""
    def fileno(self) -> int:
        """Return the connection's descriptor."""
    def poll(self) -> int:
        """Send and receive what is possible; return what is to be waited for, or POLL_OK."""
    def step(self) -> int:
        """Do what ``poll()`` does, for an owner of the lock."""
    def seconds_to_wait(self) -> float:
        """Return the longest time to wait before ``poll()`` must be called again."""
    def begin_turn(self) -> None:
        """Record that its reader has waited, and that others have run."""
    def is_turn_over(self) -> bool:
        """Return whether its reader has had the thread for long enough, without a wait."""
    def next_ready(self, cursor: Any) -> ReplicationMessage | None:
        """Return the next message if nothing has to be done before; None: nobody knows."""
    def raise_failure(self) -> None:
        """Raise what the end of the stream raises, if it has ended."""
    def consume_ready(self, cursor: Any, consume: Callable[[ReplicationMessage], object]) -> None:
        """Call *consume* with each message for as long as nothing has to be done before.

        Compiled: no signal handler strikes between a message and its consumer.
        """
    def take(self, cursor: Any) -> ReplicationMessage | None:
        """Return the message that has arrived, or None; raise what the end of the stream raises.

        The caller has called ``poll()``, and nobody else has taken the message since.
        """
    def confirm(self, write_lsn: int, flush_lsn: int, apply_lsn: int) -> None:
        """Take the positions over that are higher than before."""
    def send_feedback(self, requests_reply: bool) -> bool:
        """Send the positions; return whether something is left to send."""
    def poll_flush(self) -> int:
        """Send what is left to send; return what is to be waited for, or POLL_OK."""
    def stop(self) -> None:
        """Ask the server to end the stream. What it still sends is thrown away."""

def next_of_cursor(cursor: Any, /) -> Any:
    """Return the next message while a stream is open, else the next row."""
