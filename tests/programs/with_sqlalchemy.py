"""SQLAlchemy, whose connections are of greenwait's class."""

import sys
from typing import Any

import sqlalchemy
from psycopg2.extensions import parse_dsn
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, Pool, QueuePool

import greenwait
from tests.lab.queries import one


def work(engine, number):
    with Session(engine) as session, session.begin():
        query = sqlalchemy.text("select cast(:n as int), pg_sleep(0.05)")
        found = session.execute(query, {"n": number}).scalar_one()
        raw: Any = session.connection().connection.dbapi_connection
        assert type(raw) is greenwait.Connection
        assert type(raw.cursor()) is greenwait.Cursor
        return found


def use(pool: type[Pool], **options: Any) -> None:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://",
        connect_args={
            **parse_dsn(sys.argv[1]),
            "connection_factory": greenwait.Connection,
            "cursor_factory": greenwait.Cursor,
        },
        poolclass=pool,
        **options,
    )
    engine.connect().close()  # the first one holds a lock, which would stop the thread
    found = greenwait.map(lambda n: work(engine, n), range(20), concurrency=20)
    assert list(found) == list(range(20))
    # Jobs that share a session's connection wait their turn.
    with engine.connect() as conn:
        raw = conn.connection.dbapi_connection
        found = greenwait.map(lambda n: one(raw, "select %s from pg_sleep(0.01)", n), range(5))
        assert list(found) == list(range(5))
    engine.dispose()


greenwait.install()
use(QueuePool, pool_size=20)
use(NullPool)
print("well")
