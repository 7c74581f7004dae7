from collections.abc import Callable
from typing import Any, TypeVar, final

__all__ = ["Turn", "block_alone", "block_end", "cursor_in_turn", "in_turn"]

_Result = TypeVar("_Result")

@final
class Turn:
    @property
    def is_taken(self) -> bool: ...
    @property
    def is_left_open(self) -> bool: ...
    def run(
        self,
        conn: Any,
        what: str,
        function: Callable[..., _Result],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> _Result: ...

def block_alone(own: Callable[..., Any]) -> Any: ...
def block_end(own: Callable[..., Any]) -> Any: ...
def in_turn(own: Callable[..., Any], name: str) -> Any: ...
def cursor_in_turn(own: Callable[..., Any], name: str, *, only_named: bool = ...) -> Any: ...
