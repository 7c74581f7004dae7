"""The messages of a replication stream, for ``async for``.

A message that is there is taken without a coroutine: the awaitable of the next message returns
it at once. Only where it must wait, a coroutine does that.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, final

from psycopg2.extras import ReplicationMessage

from greenwait._connections.replication_stream import Stream

__all__ = ["Messages"]

@final
class Messages(AsyncIterator[ReplicationMessage]):
    """The iterator of an ``async for`` over a stream.

    ``wait(cursor)`` returns a coroutine that waits for the next message and returns it, or raises
    StopAsyncIteration.
    """
    def __init__(
        self,
        cursor: Any,
        stream: Stream,
        wait: Callable[[Any], Coroutine[Any, Any, ReplicationMessage]],
    ) -> None: ...
    def __aiter__(self) -> Messages: ...
    def __anext__(self) -> NextMessage: ...

@final
class NextMessage:
    """The awaitable of a stream's next message. It takes the message when it is awaited."""
    def __await__(self) -> Generator[Any, Any, ReplicationMessage]: ...
    def __iter__(self) -> NextMessage: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any) -> Any:
        """Go on; as of a coroutine."""
    def throw(self, exc: BaseException, *more: Any) -> Any:
        """Raise an exception where it waits; as of a coroutine."""
    def close(self) -> None:
        """End the wait; as of a coroutine."""
