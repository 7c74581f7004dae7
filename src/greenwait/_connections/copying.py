"""COPY for cursors: psycopg2's three methods, while greenwait's callback is registered."""

from collections.abc import Iterable
from typing import Any

import psycopg2.extensions
from psycopg2.sql import Composable

from greenwait._copy_data import check_can_copy, copy_by_callback, is_copied_by_callback
from greenwait._psycopg.psycopg2 import cursor

__all__ = ["CopyCursor"]


class CopyCursor(cursor):
    """A psycopg2 cursor whose COPY works in green mode; elsewhere its methods are psycopg2's."""

    def copy_from(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        size: int = 8192,
        columns: Iterable[str] | None = None,
    ) -> None:
        """Read data from *file*, and append it to a table.

        :param file: has a method ``read(size)`` that returns bytes or str, empty at the end.
        :param table: its name, without a schema: it is quoted.
        :param sep: the character between two columns.
        :param null: the text that stands for NULL.
        :param size: the argument of ``read()``.
        :param columns: the names of the columns; all by default.
        :raises psycopg2.errors.QueryCanceled: ``read()`` has raised the exception that is its
            ``__cause__``, or returned something else; nothing was copied.

        Deadlines, signals and cancellations are those of ``copy_expert()``.
        """
        if not is_copied_by_callback():
            super().copy_from(file, table, sep, null, size, columns)
            return
        if not hasattr(file, "read"):
            raise TypeError(
                "argument 1 must have a .read() method, as a file or io.StringIO(text) has, not "
                f"{type(file).__name__!r}"
            )
        _check_texts(table, sep, null)
        check_can_copy(self, "copy_from")
        copy_by_callback(
            _nameless(self), _statement(self, "FROM stdin", table, sep, null, columns), file, size
        )

    def copy_to(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        columns: Iterable[str] | None = None,
    ) -> None:
        """Write the rows of a table to *file*.

        :param file: has a method ``write()``, which is called with each row: with str if the
            file is an ``io.TextIOBase``, or else with bytes.
        :param table: its name, without a schema: it is quoted.
        :param sep: the character between two columns.
        :param null: the text that stands for NULL.
        :param columns: the names of the columns; all by default.
        :raises BaseException: what ``write()`` raises.

        Deadlines, signals and cancellations are those of ``copy_expert()``.
        """
        if not is_copied_by_callback():
            super().copy_to(file, table, sep, null, columns)
            return
        if not hasattr(file, "write"):
            raise TypeError(
                "argument 1 must have a .write() method, as a file or io.BytesIO() has, not "
                f"{type(file).__name__!r}"
            )
        _check_texts(table, sep, null)
        check_can_copy(self, "copy_to")
        copy_by_callback(
            _nameless(self), _statement(self, "TO stdout", table, sep, null, columns), file, 0
        )

    def copy_expert(self, sql: str | bytes | Composable, file: Any, size: int = 8192) -> None:
        """Execute a COPY statement, with *file* in the place of STDIN or STDOUT.

        :param sql: the statement.
        :param file: has the method ``read(size)`` or ``write()``, as for ``copy_from()`` and
            ``copy_to()``.
        :param size: the argument of ``read()``.
        :raises psycopg2.errors.QueryCanceled: ``read()`` has raised the exception that is its
            ``__cause__``, or returned something else; nothing was copied.
        :raises BaseException: what ``write()`` raises.
        :raises psycopg2.ProgrammingError: the statement begins a second COPY; or libpq's functions
            were not found, and nothing was sent.

        A deadline bounds the whole COPY, the time that the file takes included; but a method that
        blocks the thread must return by itself. It ends the COPY as it does any query, and so do a
        signal handler that raises, and a cancellation, in ``read()`` and ``write()`` too: the
        connection stays usable, and a COPY FROM has copied all or nothing. Rows that were written
        stay in the file.

        The connection is in use while ``read()`` and ``write()`` run. A method of a
        ``greenwait.Connection`` raises ``psycopg2.ProgrammingError`` there; ``commit()`` of
        psycopg2's own class would wait for itself for ever.
        """
        if not is_copied_by_callback():
            super().copy_expert(sql, file, size)
            return
        check_can_copy(self, "copy_expert")
        if not (hasattr(file, "read") or hasattr(file, "write")):
            raise TypeError(
                "file must be a readable file-like object for COPY FROM; a writable file-like "
                "object for COPY TO."
            )
        copy_by_callback(_nameless(self), sql, file, size)


def _nameless(cur: cursor) -> cursor:
    """Return *cur*, or if its statements are to be of a server-side cursor, one whose are not."""
    return cur if cur.name is None else cursor(cur.connection)


def _check_texts(*texts: str) -> None:
    for text in texts:
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"table, sep and null must be str, not {type(text).__name__}")
        if "\0" in text:
            raise ValueError("embedded null character")


def _statement(
    cur: cursor, what: str, table: str, sep: str, null: str, columns: Iterable[str] | None
) -> bytes:
    """Return psycopg2's COPY statement."""
    quote_ident: Any = psycopg2.extensions.quote_ident  # pyright: ignore
    names = "" if columns is None else f"({','.join(quote_ident(each, cur) for each in columns)})"
    texts: list[bytes] = []
    for text in (sep, null):
        quoted = psycopg2.extensions.QuotedString(text)
        quoted.prepare(cur.connection)
        texts.append(quoted.getquoted())
    head = f"COPY {quote_ident(table, cur)}{names} {what} WITH DELIMITER AS "
    return b"%b%b NULL AS %b" % (head.encode(quoted.encoding), *texts)
