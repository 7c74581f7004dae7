"""SQLAlchemy and Django take greenwait's classes as arguments of their connections."""

import psycopg2
import psycopg2.extras
import pytest

import greenwait

SQLALCHEMY = """
import sys
import greenwait, sqlalchemy
from psycopg2.extensions import parse_dsn
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

greenwait.install()
for pool in (QueuePool, NullPool):
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://",
        connect_args={
            **parse_dsn(sys.argv[1]),
            "connection_factory": greenwait.Connection,
            "cursor_factory": greenwait.Cursor,
        },
        poolclass=pool,
        **({"pool_size": 20} if pool is QueuePool else {}),
    )

    def work(number):
        with Session(engine) as session, session.begin():
            query = sqlalchemy.text("select cast(:n as int), pg_sleep(0.05)")
            found = session.execute(query, {"n": number}).scalar_one()
            raw = session.connection().connection.dbapi_connection
            assert type(raw) is greenwait.Connection
            assert type(raw.cursor()) is greenwait.Cursor
            return found

    engine.connect().close()  # the first one holds a lock, which would stop the thread
    assert list(greenwait.map(work, range(20), concurrency=20)) == list(range(20))
    # Jobs that share a session's connection wait their turn.
    with engine.connect() as conn:
        raw = conn.connection.dbapi_connection
        def query(number):
            with raw.cursor() as cur:
                cur.execute("select %s from pg_sleep(0.01)", (number,))
                return cur.fetchone()[0]
        assert list(greenwait.map(query, range(5))) == list(range(5))
    engine.dispose()
print("well")
"""

DJANGO = """
import sys
from concurrent.futures import ThreadPoolExecutor
sys.modules["psycopg"] = None  # it would be preferred
import greenwait
from psycopg2.extensions import parse_dsn
import django
from django.conf import settings

options = parse_dsn(sys.argv[1])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": options["dbname"],
    "USER": options["user"],
    "HOST": options["host"],
    "PORT": options["port"],
    "OPTIONS": {"connection_factory": greenwait.Connection, "cursor_factory": greenwait.Cursor},
}}, USE_TZ=True)
django.setup()
from django.db import connection, transaction

greenwait.install()

def work(number):
    try:
        with transaction.atomic(), connection.cursor() as cur:
            cur.execute("select %s from pg_sleep(0.05)", [number])
            assert type(connection.connection) is greenwait.Connection
            assert isinstance(cur.cursor, greenwait.Cursor)
            return cur.fetchone()[0]
    finally:
        connection.close()

assert work(42) == 42
# It keeps a connection for each thread, which jobs would share, and its transaction with it.
with ThreadPoolExecutor(10) as threads:
    assert list(threads.map(work, range(10))) == list(range(10))
print("well")
"""


@pytest.mark.parametrize("script", [SQLALCHEMY, DJANGO], ids=["SQLAlchemy", "Django"])
def test_program(run_python, script):
    assert run_python(script).strip() == "well"


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
        bases += (kind,)
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
