from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar, final

from greenlet import greenlet

__all__ = ["Worker", "call_in_scope", "local", "scope", "tell_ends"]

_Result = TypeVar("_Result")
_Greenlet = TypeVar("_Greenlet", bound=greenlet)

class Worker(greenlet):
    execution: Any

@final
class local:  # noqa: N801, named as threading.local is
    def __new__(cls, *, on_end: Callable[[dict[str, Any]], object] | None = ...) -> local: ...
    def __getattribute__(self, name: str, /) -> Any: ...
    def __setattr__(self, name: str, value: Any, /) -> None: ...
    def __delattr__(self, name: str, /) -> None: ...

def scope() -> int: ...
def call_in_scope(context: Context, function: Callable[[], _Result]) -> _Result: ...
def tell_ends(
    cls: type[_Greenlet], link: Callable[[_Greenlet, Callable[[_Greenlet], None]], object]
) -> None: ...
