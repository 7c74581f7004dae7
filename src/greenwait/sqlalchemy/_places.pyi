"""What SQLAlchemy's pools wait for: a place, and the first connection of an engine.

SQLAlchemy has threading's locks there, which stop a thread, and with it the greenlet that is to
release the lock. In these greenlets of any framework, tasks and threads wait their turn.

They are compiled since neither an interrupt nor another thread must come between two of their
steps: a place would be lost for ever.
"""

from collections.abc import Callable
from typing import Any, TypeVar, final

from typing_extensions import Self

__all__ = ["Idle", "Mutex", "Places"]

_Result = TypeVar("_Result")
_Record = TypeVar("_Record")

@final
class Places:
    """The places of a pool, *limit* of them; None: as many as are asked for."""
    def __new__(cls, limit: int | None) -> Self: ...
    def take(self, timeout: float | None, function: Callable[[], _Result]) -> _Result | None:
        """Wait for a place, for at most *timeout* seconds, and return what the function returns.

        :returns: None if there was no place in time.

        The place is given back if the function raises.
        """
    def give_back(self, function: Callable[[_Record], None], record: _Record) -> None:
        """Call the function with what was taken, and give the place back."""

@final
class Idle:
    """The connections of a pool that nobody uses: *maxsize* of them at most, if not 0.

    It has the methods of ``sqlalchemy.util.queue.Queue``. None waits: who has a place need not.
    """
    @property
    def maxsize(self) -> int: ...
    @property
    def use_lifo(self) -> bool: ...
    def __new__(cls, maxsize: int = 0, use_lifo: bool = False) -> Self: ...
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take one, or raise Empty."""
    def put(self, record: Any, block: bool = True, timeout: float | None = None) -> None:
        """Keep one, or raise Full."""
    def get_nowait(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take one, or raise Empty."""
    def put_nowait(self, record: Any, block: bool = True, timeout: float | None = None) -> None:
        """Keep one, or raise Full."""
    def qsize(self) -> int:
        """Return how many there are."""
    def empty(self) -> bool:
        """Return whether it is empty."""
    def full(self) -> bool:
        """Return whether no more are kept."""

@final
class Mutex:
    """A lock, in a ``with`` block."""
    def __enter__(self) -> bool: ...
    def __exit__(self, kind: object, exc: object, traceback: object) -> None: ...
