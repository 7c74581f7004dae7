"""The feedback that keeps replication streams open while the program is busy elsewhere.

A server ends a stream whose client was silent for ``wal_sender_timeout``. A program that takes
longer for a message does not wait for the next one meanwhile, in no context. So one native thread
of the process sends feedback for all streams, whatever framework the program uses. It repeats the
positions that the program has confirmed, and confirms none.
"""

from greenwait._connections.replication_stream import Stream

__all__ = ["keep_alive"]

def keep_alive(stream: Stream, seconds: float) -> None:
    """Send feedback for *stream* until it ends, if nobody else has for *seconds*."""
