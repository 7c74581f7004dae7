from collections.abc import Callable
from typing import Any, final

from greenwait._greenlets.local import Worker
from greenwait._waiter import Adapter

__all__ = ["TrioAdapter", "TrioWorker"]

class TrioWorker(Worker):
    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None: ...
    def outcome(self) -> Any: ...

@final
class TrioAdapter(Adapter): ...
