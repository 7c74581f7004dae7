from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, final

__all__ = ["deadline_after", "timeout"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

def deadline_after(option: str, seconds: float | None) -> float | None: ...

@final
class timeout:  # noqa: N801, used like a function
    def __new__(cls, seconds: float | None, /) -> timeout: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def expired(self) -> bool: ...
    def __call__(self, function: _Function, /) -> _Function: ...
    def __enter__(self) -> timeout: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        exc: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> None: ...
