"""Deadlines, times on the monotonic clock at which a wait is over; and ``timeout()``."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, final

__all__ = ["deadline_after", "timeout"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

def deadline_after(option: str, seconds: float | None) -> float | None:
    """Return the ``time.monotonic()`` at which *seconds* from now are over; None for None."""

@final
class timeout:  # noqa: N801, used like a function
    """A ``with`` block whose waits for the server, all together, end by a deadline.

    As a decorator it puts each call of a function, or of an async one, into such a block.

    :param seconds: the time from entering the block to the deadline; None sets no limit. With 0
        the first wait is over at once, unless the answer is there.
    :raises ValueError: *seconds* is negative or not finite.
    :raises TypeError: *seconds* is not a number.
    :raises RuntimeError: on entering the block, it was entered before.

    When the deadline has passed, the query under way is cancelled on the server, and the
    call that waited for it raises ``greenwait.QueryTimeout``; the connection stays open, and
    is usable after ``rollback()``. Statements that had succeeded by then stand. Neither a
    ``commit()`` nor a ``rollback()`` is cancelled: its outcome is waited for (see
    ``greenwait.CommitInDoubt``). Time spent on other things counts too, and the next wait
    notices.

    Blocks nest; the nearest deadline wins, and only its own block has ``expired``. By a
    context variable they apply to the thread, greenlet or task that entered them, and to
    those that run in a copy of its context. A signal is handled as in any wait.

    It needs greenwait's callback to be registered: other callbacks ignore deadlines. If
    another callback, or psycopg2 itself, has waited in the block, leaving it issues a warning,
    once for each line.
    """
    def __new__(cls, seconds: float | None, /) -> timeout: ...
    @property
    def seconds(self) -> float | None:
        """Seconds that the block may take, or None."""
    @property
    def expired(self) -> bool:
        """Whether this block's deadline has ended a wait."""
    def __call__(self, function: _Function, /) -> _Function: ...
    def __enter__(self) -> timeout: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
