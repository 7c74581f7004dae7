"""The signatures of psycopg2's methods, which are written in C and do not tell of them.

Greenwait's methods in their place have them: for ``inspect.signature()``, ``help()`` and notebooks.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import WrapperDescriptorType
from typing import Any, Literal, Protocol, TypeAlias

from psycopg2.extensions import Xid
from psycopg2.sql import Composable

from greenwait._psycopg.psycopg2 import connection, cursor

__all__ = ["ClassSignature", "with_signature"]

_Query: TypeAlias = str | bytes | Composable
_Values: TypeAlias = Sequence[Any] | Mapping[str, Any] | None


class _Connection(Protocol):
    def close(self) -> None: ...
    def reset(self) -> None: ...
    def set_session(
        self,
        isolation_level: str | bytes | int | None = None,
        readonly: bool | Literal["default"] | None = None,
        deferrable: bool | Literal["default"] | None = None,
        autocommit: bool | None = None,
    ) -> None: ...
    def set_isolation_level(self, level: int | None, /) -> None: ...
    def set_client_encoding(self, encoding: str, /) -> None: ...
    def tpc_begin(self, xid: str | bytes | Xid, /) -> None: ...
    def tpc_prepare(self) -> None: ...
    def tpc_recover(self) -> list[Xid]: ...


class _Cursor(Protocol):
    def execute(self, query: _Query, vars: _Values = None) -> None: ...  # noqa: A002, its name
    def executemany(self, query: _Query, vars_list: Iterable[_Values]) -> None: ...
    def callproc(self, procname: str | bytes, parameters: _Values = None, /) -> Any: ...
    def fetchone(self) -> tuple[Any, ...] | None: ...
    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]: ...
    def fetchall(self) -> list[tuple[Any, ...]]: ...
    def scroll(self, value: int, mode: Literal["relative", "absolute"] = "relative") -> None: ...
    def close(self) -> None: ...


def _new_cursor(conn: connection, name: str | bytes | None = None) -> None: ...


_PROTOTYPES: dict[Any, type] = {connection: _Connection, cursor: _Cursor}


def with_signature(method: Any) -> Any:
    """Return what ``functools.update_wrapper()`` is to be given for a method.

    :param method: of any class. If it is psycopg2's own, a function is returned that looks like it.
    """
    owner = getattr(method, "__objclass__", None)
    prototype: Any = vars(_PROTOTYPES.get(owner, object)).get(method.__name__)
    if owner not in _PROTOTYPES or prototype is None:
        return method
    prototype.__doc__ = method.__doc__
    prototype.__qualname__ = method.__qualname__
    prototype.__module__ = owner.__module__
    return prototype


class ClassSignature:
    """A ``__signature__`` for a class of cursors that are made as psycopg2's."""

    def __get__(self, instance: object, owner: Any) -> Any:
        # A class in Python may take other arguments; inspect finds them by itself.
        if instance is not None or not isinstance(owner.__init__, WrapperDescriptorType):
            raise AttributeError("__signature__")
        from inspect import signature  # not before it is needed: it imports much

        return signature(_new_cursor)
