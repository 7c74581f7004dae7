"""The parts of replication connections and their cursors that are awaited."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg2.extras import ReplicationMessage

from greenwait._connections.replication import Replicating
from greenwait.aio._call import Call, awaited, in_call
from greenwait.aio._messages import Messages

if TYPE_CHECKING:
    from psycopg2.sql import Composable

__all__ = ["AwaitedReplication", "AwaitedStream", "with_awaited_stream"]

_Class = TypeVar("_Class", bound=type)

_METHODS = (
    "create_replication_slot",
    "drop_replication_slot",
    "start_replication",
    "start_replication_expert",
    "stop_replication",
    "read_message",
    "send_feedback",
)

if TYPE_CHECKING:

    class _Methods:
        """The methods that with_awaited_stream() makes."""

        def create_replication_slot(
            self, slot_name: str, slot_type: int | None = None, output_plugin: str | None = None
        ) -> Awaitable[None]:
            """Create a slot."""
            ...

        def drop_replication_slot(self, slot_name: str) -> Awaitable[None]:
            """Drop a slot."""
            ...

        def start_replication(
            self,
            slot_name: str | None = None,
            slot_type: int | None = None,
            start_lsn: str | int = 0,
            timeline: int = 0,
            options: dict[str, Any] | None = None,
            decode: bool = False,
            status_interval: float = 10,
        ) -> Awaitable[None]:
            """Begin the stream of a slot."""
            ...

        def start_replication_expert(
            self,
            command: str | bytes | Composable,
            decode: bool = False,
            status_interval: float = 10,
        ) -> Awaitable[None]:
            """Begin a stream by a statement of one's own."""
            ...

        def stop_replication(self) -> Awaitable[None]:
            """End the stream."""
            ...

        def read_message(self) -> Awaitable[ReplicationMessage | None]:
            """Return the next message that is there, or None."""
            ...

        def send_feedback(
            self,
            write_lsn: int = 0,
            flush_lsn: int = 0,
            apply_lsn: int = 0,
            reply: bool = False,
            force: bool = False,
        ) -> Awaitable[None]:
            """Tell the server how far the stream was processed."""
            ...

else:
    _Methods = object


class AwaitedStream(_Methods):
    """The other methods of a replication cursor whose methods are awaited."""

    def consume_stream(
        self,
        consume: Callable[[ReplicationMessage], object],
        keepalive_interval: float | None = None,
    ) -> Any:
        """Call *consume* for each message, until it raises an exception; to be awaited.

        :param consume: a function or a coroutine function; otherwise as of
            ``greenwait.ReplicationCursor``.
        :param keepalive_interval: as there.
        """
        base: Any = super()
        if in_call():
            return base.consume_stream(consume, keepalive_interval)
        return self._consume(consume, keepalive_interval)

    async def _consume(self, consume: Callable[[Any], object], keepalive_interval: Any) -> None:
        cur: Any = self
        cur._begin_consuming(keepalive_interval)
        try:
            async for message in _messages(cur):
                found = consume(message)
                if found is not None and isawaitable(found):
                    await found
        finally:
            cur._is_consuming = False

    def __aiter__(self) -> AsyncIterator[Any]:
        cur: Any = self
        cur._check_open()
        base: Any = super()
        found: AsyncIterator[Any] = _messages(cur) if cur._is_streaming() else base.__aiter__()
        return found

    def __next__(self) -> Any:
        cur: Any = self
        if cur._is_streaming() and not in_call():
            raise TypeError("write 'async for message in cursor', since it waits for the server")
        base: Any = super()
        return base.__next__()


def _messages(cur: Any) -> Messages:
    return Messages(cur, cur._stream, _next_message)


async def _next_message(cur: Any) -> ReplicationMessage:
    """Wait for the next message, or raise StopAsyncIteration."""
    if cur._has_ended():
        cur._check_open()
        raise StopAsyncIteration
    stream = cur._open_stream("the replication stream")
    # A turn of the event loop costs less than a wait, and meanwhile messages arrive, if the
    # server sends them one by one.
    await asyncio.sleep(0)
    stream.begin_turn()
    message: ReplicationMessage | None = stream.next_ready(cur)
    if message is not None:
        return message
    while True:
        await Call(cur._wait_for_message, (stream,), {})
        # Here, and not in the call, where it would be lost if the task was cancelled.
        message = stream.take(cur)
        if message is not None:
            return message
        if stream.is_over:
            raise StopAsyncIteration


def with_awaited_stream(base: type) -> Callable[[_Class], _Class]:
    """Make the methods of a replication cursor's class awaited ones, which call *base*'s."""

    def change(cls: _Class) -> _Class:
        for name in _METHODS:
            full_name = f"{cls.__name__}.{name}"
            setattr(cls, name, awaited(getattr(base, name), full_name, of_cursor=True))
        return cls

    return change


class AwaitedReplication:
    """What psycopg2 takes away from replication connections, where all else is awaited."""

    autocommit: Any = vars(Replicating)["autocommit"]
    isolation_level: Any = vars(Replicating)["isolation_level"]
    set_session: Any = vars(Replicating)["set_session"]
    set_isolation_level: Any = vars(Replicating)["set_isolation_level"]
    reset: Any = vars(Replicating)["reset"]
