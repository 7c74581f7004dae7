from types import TracebackType
from typing import final

__all__ = ["deadline_after", "timeout"]

def deadline_after(option: str, seconds: float | None) -> float | None: ...

@final
class timeout:  # noqa: N801, used like a function
    def __new__(cls, seconds: float | None, /) -> timeout: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def expired(self) -> bool: ...
    def __enter__(self) -> timeout: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        exc: BaseException | None = ...,
        traceback: TracebackType | None = ...,
    ) -> None: ...
