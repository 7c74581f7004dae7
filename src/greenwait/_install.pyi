from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Unpack

from greenwait._callback import Options, WaitCallback

__all__ = ["check_registered", "install", "installed", "is_registered", "uninstall"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_entries: list[Any]

def install(**options: Unpack[Options]) -> WaitCallback: ...
def uninstall() -> None: ...
def is_registered() -> bool: ...
def check_registered(what: str) -> None: ...

class installed(ContextDecorator):  # noqa: N801, used like a function
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, function: _Function, /
    ) -> _Function: ...
    def __init__(self, **options: Unpack[Options]) -> None: ...
    def __enter__(self) -> WaitCallback: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
