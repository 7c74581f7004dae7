from typing import Literal, Protocol, final

__all__ = ["POLLERS", "EpollWaitCallback", "WaitCallback", "wait"]

class _Pollable(Protocol):
    """What a wait needs of a connection: psycopg2's are the usual ones."""

    def fileno(self) -> int: ...
    def poll(self) -> int: ...

POLLERS: tuple[str, ...]

def wait(conn: _Pollable, /) -> None: ...

@final
class WaitCallback:
    def __new__(cls, *, poller: Literal["poll", "epoll"] = ...) -> WaitCallback: ...
    @property
    def poller(self) -> Literal["poll", "epoll"]: ...
    def __call__(self, conn: _Pollable, /) -> None: ...

EpollWaitCallback: WaitCallback
