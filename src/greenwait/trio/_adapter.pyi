from collections.abc import Callable
from typing import Any, final

from greenlet import greenlet

from greenwait._waiter import Adapter

__all__ = ["TrioAdapter", "Worker"]

class Worker(greenlet):
    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None: ...
    def outcome(self) -> Any: ...

@final
class TrioAdapter(Adapter): ...
