"""Synchronous code as programs have it: an ORM's sessions, and psycopg2's own helpers."""

import contextlib
import os
from typing import Any

import psycopg2.extensions
import psycopg2.extras
import sqlalchemy
from sqlalchemy import orm

import greenwait

#: SQLAlchemy's pools, as arguments for ``engine()``.
POOLS: dict[str, dict[str, Any]] = {
    "QueuePool": {"pool_size": 20},
    "NullPool": {"poolclass": sqlalchemy.pool.NullPool},
}


class Base(orm.DeclarativeBase):
    """What SQLAlchemy knows of the tables."""


class Thing(Base):
    """A row."""

    __tablename__ = f"greenwait_things_{os.getpid()}"
    number: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]


@contextlib.contextmanager
def engine(dsn, **pool):
    """Yield an engine whose first connection was made, and the table; drop it at the end."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://",
        connect_args={
            **psycopg2.extensions.parse_dsn(dsn),
            "connection_factory": greenwait.Connection,
        },
        **pool,
    )
    Base.metadata.create_all(engine)
    try:
        yield engine
    finally:
        Base.metadata.drop_all(engine)
        engine.dispose()


def write_and_read(engine, number):
    """Return the number, by way of a row; wait for the server for a moment."""
    with orm.Session(engine) as session:
        session.add(Thing(number=number, name=f"thing {number}"))
        session.commit()
        session.execute(sqlalchemy.text("select pg_sleep(0.4)"))
        query = sqlalchemy.select(Thing).where(Thing.name == f"thing {number}")
        return session.scalars(query).one().number


def insert_many(dsn, number):
    """Return the number, as the sum of what ``execute_values`` has inserted."""
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute("create temporary table summands (n int, t float)")
            rows = [(1, 0.0)] * number
            psycopg2.extras.execute_values(cur, "insert into summands values %s", rows, page_size=3)
            cur.execute("select count(*), pg_sleep(0.4) from summands")
            return cur.fetchall()[0][0]
    finally:
        conn.close()
