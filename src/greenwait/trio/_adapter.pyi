"""The adapter of trio: waits of tasks, while others run.

The function runs in a greenlet; where it would wait, it switches to the task's greenlet with a
``Request``, and the task waits.
"""

from collections.abc import Callable
from typing import Any, final

from greenlet import greenlet

from greenwait._waiter import Adapter

__all__ = ["TrioAdapter", "TrioWorker"]

class TrioWorker(greenlet):
    """The greenlet of one call. Switching to it returns a ``Request``, until it is dead."""
    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None: ...
    def outcome(self) -> Any:
        """Return what the function has returned, or raise what it has raised; once."""

@final
class TrioAdapter(Adapter):
    """The adapter of trio, for all threads that run it."""
