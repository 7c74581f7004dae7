from collections.abc import Callable
from typing import Any, NamedTuple, final

from greenlet import greenlet

from greenwait._waiter import Adapter

__all__ = ["CHECKPOINT", "Request", "TrioAdapter", "Worker"]

class Request(NamedTuple):
    fd: int
    events: int
    seconds: float | None
    draining: bool

CHECKPOINT: Request

class Worker(greenlet):
    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None: ...
    def outcome(self) -> Any: ...

@final
class TrioAdapter(Adapter): ...
