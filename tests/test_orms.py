"""SQLAlchemy and Django take greenwait's classes as arguments of their connections."""

import psycopg2
import psycopg2.extras
import pytest

import greenwait


@pytest.mark.parametrize(
    "program", ["with_sqlalchemy", "with_django"], ids=["SQLAlchemy", "Django"]
)
def test_program(run_program, program):
    assert run_program(program).strip() == "well"


@pytest.mark.parametrize(
    "cursor",
    [
        psycopg2.extensions.cursor,
        psycopg2.extras.DictCursor,
        psycopg2.extras.RealDictCursor,
        psycopg2.extras.NamedTupleCursor,
        psycopg2.extras.LoggingCursor,
        psycopg2.extras.MinTimeLoggingCursor,
        greenwait.Cursor,
    ],
    ids=lambda cls: cls.__name__,
)
def test_every_cursor_class_of_psycopg2(callback, connect, cursor, tmp_path):
    """Those that log want a connection of psycopg2's with that; greenwait's goes with it."""
    bases: tuple[type, ...] = (greenwait.Connection,)
    if issubclass(cursor, psycopg2.extras.LoggingCursor):
        kind = (
            psycopg2.extras.MinTimeLoggingConnection
            if cursor is psycopg2.extras.MinTimeLoggingCursor
            else psycopg2.extras.LoggingConnection
        )
        bases = (kind, *bases)
    conn = connect(connection_factory=type("Own", bases, {}), cursor_factory=cursor)
    with (tmp_path / "log").open("w+") as log:
        if len(bases) > 1:
            conn.initialize(log)

        def work(number):
            with conn.cursor() as cur:
                cur.execute("select %s as n from pg_sleep(0.01)", (number,))
                assert isinstance(cur, cursor)
                return tuple(cur.fetchone())

        expected = [("n",) if cursor is psycopg2.extras.RealDictCursor else (n,) for n in range(5)]
        assert greenwait.gather(*[lambda n=n: work(n) for n in range(5)]) == expected
        log.seek(0)
        assert (log.read().count("pg_sleep") == 5) == (len(bases) > 1)
