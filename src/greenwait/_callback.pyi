from typing import Literal, Protocol, TypedDict, final, type_check_only

__all__ = [
    "EpollWaitCallback",
    "WaitCallback",
    "wait",
    "wait_at_most",
]

class _Pollable(Protocol):
    """The methods that a wait needs; usually those of a psycopg2 connection."""

    def fileno(self) -> int: ...
    def poll(self) -> int: ...

@type_check_only
class Options(TypedDict, total=False):
    """The options of WaitCallback, for functions that pass them on."""

    poller: Literal["poll", "epoll"]
    timeout: float | None
    spin: float | Literal["auto"]
    slow: float | None
    cancel_grace: float
    on_event_loop: Literal["warn", "raise"] | None

def wait(conn: _Pollable, /) -> None: ...

@final
class WaitCallback:
    def __new__(
        cls,
        *,
        poller: Literal["poll", "epoll"] = ...,
        timeout: float | None = ...,
        spin: float | Literal["auto"] = ...,
        slow: float | None = ...,
        cancel_grace: float = ...,
        on_event_loop: Literal["warn", "raise"] | None = ...,
    ) -> WaitCallback: ...
    @property
    def poller(self) -> Literal["poll", "epoll"]: ...
    @property
    def spin(self) -> float | Literal["auto"]: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def cancel_grace(self) -> float: ...
    @property
    def slow(self) -> float | None: ...
    @property
    def on_event_loop(self) -> Literal["warn", "raise"] | None: ...
    def __call__(self, conn: _Pollable, /) -> None: ...

EpollWaitCallback: WaitCallback

def wait_at_most(
    conn: _Pollable, seconds: float | None, /, *, hears_blocks: bool = ...
) -> bool: ...
