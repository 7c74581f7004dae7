from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, final

from greenwait._connections.pool_stats import PoolStats

__all__ = ["Pool", "give_up"]

@final
class Pool:
    def __new__(
        cls,
        dsn: str | None = ...,
        *,
        min_size: int = ...,
        max_size: int = ...,
        timeout: float = ...,
        max_idle: float | None = ...,
        max_lifetime: float | None = ...,
        check: Callable[[Any], object] | None = ...,
        **kwargs: Any,
    ) -> Pool: ...
    def connection(self, timeout: float | None = ...) -> AbstractContextManager[Any, None]: ...
    def getconn(self, timeout: float | None = ...) -> Any: ...
    def putconn(self, conn: Any) -> None: ...
    def stats(self) -> PoolStats: ...
    def close(self, timeout: float = ...) -> None: ...
    def __enter__(self) -> Pool: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def give_up(pool: Pool, conn: Any) -> None: ...
