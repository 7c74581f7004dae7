from contextlib import ContextDecorator
from types import TracebackType
from typing import Any

from typing_extensions import Unpack

from greenwait._callback import Options, WaitCallback

__all__ = ["install", "installed", "uninstall"]

_entries: list[Any]

def install(**options: Unpack[Options]) -> WaitCallback: ...
def uninstall() -> None: ...

class installed(ContextDecorator):  # noqa: N801, used like a function
    def __init__(self, **options: Unpack[Options]) -> None: ...
    def __enter__(self) -> WaitCallback: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
