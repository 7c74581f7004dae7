from collections.abc import Callable
from typing import Any, TypeVar, final

__all__ = ["FairLock", "block_alone", "block_end", "cursor_with_lock", "with_lock"]

_Result = TypeVar("_Result")

@final
class FairLock:
    @property
    def is_taken(self) -> bool: ...
    @property
    def is_left_open(self) -> bool: ...
    def is_idle(self, conn: Any) -> bool: ...
    def run(
        self,
        conn: Any,
        what: str,
        function: Callable[..., _Result],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> _Result: ...

def block_alone(base_method: Callable[..., Any]) -> Any: ...
def block_end(base_method: Callable[..., Any]) -> Any: ...
def with_lock(base_method: Callable[..., Any], name: str) -> Any: ...
def cursor_with_lock(
    base_method: Callable[..., Any], name: str, *, nameless: Callable[..., Any] | None = ...
) -> Any: ...
