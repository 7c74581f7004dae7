from collections.abc import Callable
from typing import Any, TypeVar, final

__all__ = ["Turn", "cursor_in_turn", "in_turn"]

_Result = TypeVar("_Result")

@final
class Turn:
    @property
    def is_taken(self) -> bool: ...
    def run(
        self,
        conn: Any,
        what: str,
        function: Callable[..., _Result],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> _Result: ...

def in_turn(own: Callable[..., Any], name: str) -> Any: ...
def cursor_in_turn(own: Callable[..., Any], name: str, *, only_named: bool = ...) -> Any: ...
