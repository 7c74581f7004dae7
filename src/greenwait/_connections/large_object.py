"""Large objects by SQL: psycopg2's own take libpq's PQfn(), which can't wait in green mode."""

import contextlib
import io
import operator
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from psycopg2 import BINARY
from psycopg2.extensions import INTEGER, LONGINTEGER, Binary, register_type
from psycopg2.extensions import lobject as _lobject

from greenwait._connections.lock import cursor_with_lock
from greenwait._copy_data import can_copy
from greenwait._psycopg.psycopg2 import (
    Error,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    encodings,
)

__all__ = ["LargeObject", "is_class_of", "large_object_class"]

# libpq/libpq-fs.h
_INV_WRITE = 0x20000
_INV_READ = 0x40000
_CHUNK = 1_000_000
# From here on COPY is faster, by 1.1 to 4 times.
_COPIED = 10_000
# What encloses one field in binary format (PostgreSQL manual, COPY): the signature, flags and
# extension, and the row's and the field's header; the file's trailer.
_COPY_HEADER = 11 + 4 + 4 + 2 + 4
_COPY_TRAILER = 2

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _whole(method: _Method) -> _Method:
    """Return the method, which holds the connection's lock until it has returned.

    If others that share the connection could commit between two of its statements, its descriptor
    would be invalid then, or another object's.
    """
    locked: _Method = cursor_with_lock(method, f"lobject.{method.__name__}")
    return locked


class LargeObject(_lobject):
    """A large object; ``Connection.lobject()`` returns it.

    Its methods are psycopg2's, and it is closed by the end of the transaction. An error of the
    server is ``psycopg2.OperationalError``, as psycopg2's is, with its SQLSTATE.
    """

    def __init__(
        self,
        conn: Any,
        oid: int = 0,
        mode: str | None = "",
        new_oid: int = 0,
        new_file: str | None = None,
    ) -> None:
        # Not super().__init__(): the object in C never learns of the connection.
        if conn.autocommit:
            raise ProgrammingError("can't use a lobject outside of transactions")
        self.connection = conn
        self._fd = -1
        self._reads, self._writes, self._is_binary = _parsed(mode or "")
        self._transaction = conn._transactions
        if oid == 0:
            self._oid = self._created(new_oid, new_file)
            self._reads, self._writes = False, True
        else:
            self._oid = operator.index(oid)
        flags = (_INV_READ if self._reads else 0) | (_INV_WRITE if self._writes else 0)
        if flags:
            self._fd = self._call("lo_open(%s, %s)", self._oid, flags)

    # -- psycopg2's attributes

    @property
    def oid(self) -> int:
        """The object's OID."""
        return self._oid

    @property
    def mode(self) -> str:
        """How it was opened: ``"r"``, ``"w"`` or ``"rw"``, with ``"t"`` or ``"b"``; or ``"n"``."""
        ways = "r" * self._reads + "w" * self._writes
        return ways + ("b" if self._is_binary else "t") if ways else "n"

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._fd < 0 or bool(self.connection.closed)

    # -- psycopg2's methods

    @_whole
    def read(self, size: int = -1, /) -> Any:
        """Return at most *size* bytes or characters' bytes, or all up to the end."""
        size = operator.index(size)
        self._check_usable()
        parts: list[bytes] = []
        left = size
        while size < 0 or left > 0:
            part = self._loaded(self._fd, _CHUNK if size < 0 else min(left, _CHUNK))
            parts.append(part)
            left -= len(part)
            if not part:
                break
        data = b"".join(parts)
        return data if self._is_binary else data.decode(self._codec())

    @_whole
    def write(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, data: Any, /
    ) -> int:
        """Write text or bytes; return the number of bytes."""
        self._check_usable()
        if isinstance(data, str):
            data = data.encode(self._codec())
        elif not isinstance(data, bytes):
            raise TypeError(f"lobject.write requires a string; got {type(data).__name__} instead")
        self._write(self._fd, data)
        return len(data)

    @_whole
    def seek(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, offset: int, whence: int = 0, /
    ) -> int:
        """Set the position; return it."""
        offset, whence = operator.index(offset), operator.index(whence)
        self._check_usable()
        found: int = self._call("lo_lseek64(%s, %s, %s)", self._fd, offset, whence)
        return found

    @_whole
    def tell(self) -> int:
        """Return the position."""
        self._check_usable()
        found: int = self._call("lo_tell64(%s)", self._fd)
        return found

    @_whole
    def truncate(self, len: int = 0, /) -> None:  # noqa: A002, psycopg2's name
        """Cut it to *len* bytes, or extend it."""
        size = operator.index(len)
        self._check_usable()
        self._call("lo_truncate64(%s, %s)", self._fd, size)

    @_whole
    def close(self) -> None:
        """Close it; it may be called again."""
        if not self.closed and not self.connection.autocommit and self._is_current():
            fd, self._fd = self._fd, -1
            self._call("lo_close(%s)", fd)

    @_whole
    def unlink(self) -> None:
        """Close it, and remove it."""
        self.close()
        self._call("lo_unlink(%s)", self._oid)

    @_whole
    def export(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, filename: str, /
    ) -> None:
        """Write all of it to a file."""
        if self.connection.autocommit:
            raise ProgrammingError("can't use a lobject outside of transactions")
        with self._opened(self._oid, _INV_READ) as fd, _file(filename, "wb") as file:
            while part := self._loaded(fd, _CHUNK):
                file.write(part)

    # -- By SQL

    def _call(self, call: str, *values: Any) -> Any:
        """Return the result of a function of the server."""
        with self.connection._plain_cursor() as cur:
            for each in (BINARY, INTEGER, LONGINTEGER):
                register_type(each, cur)  # whatever the program has registered for the types
            with _operational_errors():
                cur.execute(f"SELECT pg_catalog.{call}", values)
            ((found,),) = cur.fetchall()
        return found

    def _loaded(self, fd: int, size: int) -> bytes:
        """Return the next bytes, at most *size*."""
        if size < _COPIED or not can_copy():
            return bytes(self._call("loread(%s, %s)", fd, size))
        # As a value it would be in hexadecimal digits, twice as long.
        file = io.BytesIO()
        with self.connection._plain_cursor() as cur, _operational_errors():
            cur.copy_expert(
                f"COPY (SELECT pg_catalog.loread({fd}, {size})) TO STDOUT (FORMAT binary)", file
            )
        return file.getvalue()[_COPY_HEADER:-_COPY_TRAILER]

    def _created(self, new_oid: int, new_file: str | None) -> int:
        """Return the OID of a new object, with a file's contents if there is one."""
        if new_file is None:
            return int(self._call("lo_create(%s)::int8", new_oid))
        with _file(new_file, "rb") as file:
            oid = int(self._call("lo_create(%s)::int8", new_oid))
            with self._opened(oid, _INV_WRITE) as fd:
                while part := file.read(_CHUNK):
                    self._write(fd, part)
        return oid

    @contextlib.contextmanager
    def _opened(self, oid: int, flags: int) -> Generator[int, None, None]:
        fd: int = self._call("lo_open(%s, %s)", oid, flags)
        yield fd
        self._call("lo_close(%s)", fd)  # not after an error: it has failed the transaction

    def _write(self, fd: int, data: bytes) -> None:
        for begin in range(0, len(data), _CHUNK):
            self._call("lowrite(%s, %s)", fd, Binary(data[begin : begin + _CHUNK]))

    # -- Its state

    def _check_usable(self) -> None:
        if self.closed:
            raise InterfaceError("lobject already closed")
        if self.connection.autocommit:
            raise ProgrammingError("can't use a lobject outside of transactions")
        if not self._is_current():
            raise ProgrammingError("lobject isn't valid anymore")

    def _is_current(self) -> bool:
        """Return whether the transaction goes on in which it was opened."""
        return bool(self.connection._transactions == self._transaction)

    def _codec(self) -> str:
        return encodings.get(self.connection.encoding, "utf-8")


def _parsed(mode: str) -> tuple[bool, bool, bool]:
    """Return whether it reads, writes, and is binary, by psycopg2's rules."""
    for ways in ("rw", "r", "w", "n", ""):
        if mode.startswith(ways):
            break
    kind = mode[len(ways) :]
    if kind not in ("", "t", "b"):
        raise ValueError(f"bad mode for lobject: '{mode}'")
    return "r" in ways or not ways, "w" in ways, kind == "b"


@contextlib.contextmanager
def _file(name: str, mode: str) -> Generator[Any, None, None]:
    """Open a file; an error is libpq's."""
    try:
        file = open(name, mode)  # noqa: SIM115
    except OSError as exc:
        raise OperationalError(f'could not open file "{name}": {exc.strerror}\n') from exc
    with file:
        yield file


@contextlib.contextmanager
def _operational_errors() -> Generator[None, None, None]:
    """Turn the server's errors into those of psycopg2's large objects."""
    try:
        yield
    except OperationalError:
        raise
    except Error as exc:
        if exc.pgcode is None:
            raise
        raise _operational_error(exc) from exc


def _operational_error(exc: Any) -> Any:
    """Return the exception that psycopg2's large objects raise, with what *exc* knows."""
    error: Any = OperationalError(exc.pgerror or str(exc))
    error.__setstate__({"pgerror": exc.pgerror, "pgcode": exc.pgcode})
    return error


def is_class_of(factory: Any, base: Any) -> bool:
    """Return whether *factory* is a class that derives from *base*."""
    return isinstance(factory, type) and issubclass(factory, base)


_classes: dict[type, type] = {_lobject: LargeObject}


def large_object_class(factory: Any) -> Any:
    """Return *factory* itself, or if it is a class of psycopg2's large objects, one of ours."""
    if not is_class_of(factory, _lobject) or is_class_of(factory, LargeObject):
        return factory
    if factory not in _classes:
        own = {"__doc__": factory.__doc__, "__module__": factory.__module__}
        bases: Any = (factory, LargeObject)
        _classes[factory] = type(factory.__name__, bases, own)
    return _classes[factory]
