from collections.abc import Callable, Hashable
from typing import Any, Generic, overload

from psycopg2.extensions import connection
from psycopg2.pool import AbstractConnectionPool
from typing_extensions import TypeVar

from greenwait._connections.connection import Connection

__all__ = ["ThreadedConnectionPool"]

_Connection = TypeVar("_Connection", bound=connection, default=Connection)

class ThreadedConnectionPool(AbstractConnectionPool, Generic[_Connection]):
    @overload
    def __init__(
        self: ThreadedConnectionPool[Connection],
        minconn: int,
        maxconn: int,
        dsn: str | None = ...,
        connection_factory: None = ...,
        cursor_factory: Callable[..., Any] | None = ...,
        **kwargs: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        minconn: int,
        maxconn: int,
        dsn: str | None = ...,
        *,
        connection_factory: Callable[..., _Connection],
        cursor_factory: Callable[..., Any] | None = ...,
        **kwargs: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        minconn: int,
        maxconn: int,
        dsn: str | None,
        connection_factory: Callable[..., _Connection],
        cursor_factory: Callable[..., Any] | None = ...,
        **kwargs: Any,
    ) -> None: ...
    def getconn(self, key: Hashable | None = ...) -> _Connection: ...
    def putconn(
        self, conn: connection | None = ..., key: Hashable | None = ..., close: bool = ...
    ) -> None: ...
    def closeall(self) -> None: ...
