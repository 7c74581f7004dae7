from collections.abc import Callable
from contextlib import AbstractContextManager
from types import GenericAlias, TracebackType
from typing import Any, Generic, final, overload

from psycopg2.extensions import connection
from typing_extensions import Self, TypeVar

from greenwait._connections.connection import Connection
from greenwait._connections.pool_stats import PoolStats

__all__ = ["Pool", "empty_pool", "fill", "give_up"]

_Connection = TypeVar("_Connection", bound=connection, default=Connection)

@final
class Pool(Generic[_Connection]):
    @overload
    def __new__(
        cls,
        dsn: str | None = ...,
        *,
        min_size: int = ...,
        max_size: int = ...,
        timeout: float = ...,
        max_idle: float | None = ...,
        max_lifetime: float | None = ...,
        check: Callable[[Connection], object] | None = ...,
        configure: Callable[[Connection], object] | None = ...,
        reset: Callable[[Connection], object] | None = ...,
        connection_factory: None = ...,
        **kwargs: Any,
    ) -> Pool[Connection]: ...
    @overload
    def __new__(
        cls,
        dsn: str | None = ...,
        *,
        min_size: int = ...,
        max_size: int = ...,
        timeout: float = ...,
        max_idle: float | None = ...,
        max_lifetime: float | None = ...,
        check: Callable[[_Connection], object] | None = ...,
        configure: Callable[[_Connection], object] | None = ...,
        reset: Callable[[_Connection], object] | None = ...,
        connection_factory: Callable[..., _Connection],
        **kwargs: Any,
    ) -> Pool[_Connection]: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def connection(
        self, timeout: float | None = ...
    ) -> AbstractContextManager[_Connection, None]: ...
    def getconn(self, timeout: float | None = ...) -> _Connection: ...
    def putconn(self, conn: connection, *, close: bool = ...) -> None: ...
    def stats(self) -> PoolStats: ...
    def close(self, timeout: float = ...) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def empty_pool(dsn: str | None = ..., *, min_size: int = ..., **options: Any) -> Pool[Any]: ...
def fill(pool: Pool[Any]) -> None: ...
def give_up(pool: Pool[Any], conn: Any) -> None: ...
