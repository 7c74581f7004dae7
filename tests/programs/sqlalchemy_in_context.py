"""SQLAlchemy's engines, sessions and pools in one of the contexts: ``DSN CONTEXT CASE``."""

import contextlib
import os
import sys
import threading
import time
from functools import partial
from typing import Any

import pytest
import sqlalchemy
from psycopg2.extensions import parse_dsn
from sqlalchemy import event, exc, orm

import greenwait
from tests.lab.contexts import CONTEXTS

DSN, CONTEXT, CASE = sys.argv[-3:]
SLEEP = sqlalchemy.text("select pg_backend_pid() from pg_sleep(0.1)")
HANG = sqlalchemy.text("select pg_sleep(20)")


class Base(orm.DeclarativeBase):
    """What SQLAlchemy knows of the tables."""


class Thing(Base):
    """A row."""

    __tablename__ = f"greenwait_things_{os.getpid()}"
    number: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    owner: orm.Mapped[str]


def new_engine(**options):
    connect_args = parse_dsn(DSN) | {"application_name": f"sqlalchemy {os.getpid()}"}
    return sqlalchemy.create_engine("postgresql+greenwait://", connect_args=connect_args, **options)


def pid_after_sleep(engine):
    with engine.connect() as conn:
        return conn.scalar(SLEEP)


def pid_of(engine):
    with engine.connect() as conn:
        return conn.scalar(sqlalchemy.text("select pg_backend_pid()"))


def running(engine):
    """Return how many long statements of this program run on the server."""
    query = (
        "select count(*) from pg_stat_activity where query like 'select pg_sleep(20)%' "
        "and state = 'active' and application_name = current_setting('application_name')"
    )
    with engine.connect() as conn:
        return conn.scalar(sqlalchemy.text(query))


def checked_out(engine: Any) -> int:
    found: int = engine.pool.checkedout()
    return found


# -- The cases


def first_connections(context):
    for options in ({}, {"poolclass": sqlalchemy.NullPool}, {"poolclass": sqlalchemy.QueuePool}):
        engine = new_engine(**options)
        for _ in range(2):  # after dispose() there is another pool
            pids = context.together([partial(pid_after_sleep, engine)] * 5)
            assert len(pids) == len(set(pids)) == 5
            engine.dispose()


def fifty_on_fifteen_places(context):
    engine = new_engine(pool_size=15, max_overflow=0, pool_timeout=20)
    began = time.monotonic()
    pids = context.together([partial(pid_after_sleep, engine)] * 50)
    assert (len(pids), len(set(pids))) == (50, 15)
    assert time.monotonic() - began < 5
    assert engine.pool.status().startswith("Pool size: 15  Connections in pool: 15")
    engine.dispose()


def exhausted(context):
    """Who waits in vain is told so, while the others go on."""
    engine = new_engine(pool_size=1, max_overflow=0, pool_timeout=0.2)
    context.run(partial(pid_of, engine))
    told = []

    def hold():
        give_up = time.monotonic() + 20
        turns = 0
        with engine.connect() as conn:
            while len(told) < 3:
                assert time.monotonic() < give_up
                conn.execute(sqlalchemy.text("select pg_sleep(0.01)"))
                turns += 1
        return turns

    def wait():
        with pytest.raises(exc.TimeoutError, match="limit of size 1 overflow 0 reached"):
            while True:  # trio may have begun this one first
                began = time.monotonic()
                pid_of(engine)
        assert time.monotonic() - began > 0.15
        told.append(True)

    turns = context.together([hold, wait, wait, wait])[0]
    assert turns > 3
    assert context.run(partial(pid_of, engine))
    assert checked_out(engine) == 0
    engine.dispose()


def own_transactions(context):
    engine = new_engine(pool_size=2)
    Base.metadata.create_all(engine)
    steps = {name: threading.Event() for name in ("a added", "b committed")}
    seen = {}

    def reached(name):
        give_up = time.monotonic() + 20
        while not steps[name].is_set():
            assert time.monotonic() < give_up
            with engine_of_others.connect() as conn:
                conn.exec_driver_sql("select pg_sleep(0.01)")  # others run

    def roll_back():
        with orm.Session(engine) as session:
            session.add(Thing(number=1, owner="a"))
            session.flush()
            steps["a added"].set()
            reached("b committed")
            session.rollback()

    def commit():
        reached("a added")
        with orm.Session(engine) as session:
            seen["by b"] = session.scalars(sqlalchemy.select(Thing)).all()
            session.add(Thing(number=2, owner="b"))
            session.commit()
        steps["b committed"].set()

    engine_of_others = new_engine(pool_size=2)
    try:
        context.together([roll_back, commit])
        with orm.Session(engine) as session:
            rows = [thing.owner for thing in session.scalars(sqlalchemy.select(Thing))]
        assert seen["by b"] == []
        assert rows == ["b"]
    finally:
        Base.metadata.drop_all(engine)
        engine.dispose()
        engine_of_others.dispose()


def interrupted(context, stop, expected):
    """Interrupt a query, and check that its connection is kept and the pool whole."""
    engine = new_engine(pool_size=1, max_overflow=0)
    before = context.run(partial(pid_of, engine))
    invalidated = []
    event.listen(engine, "invalidate", lambda *args: invalidated.append(args))
    caught = []

    def hang():
        with engine.connect() as conn:
            try:
                conn.execute(HANG)
            except BaseException as stopped:
                caught.append(stopped)
                raise

    with contextlib.suppress(BaseException):  # of the context's own
        stop(hang)
    assert isinstance(caught[0], expected), caught
    assert context.run(partial(pid_of, engine)) == before
    assert not invalidated
    assert context.run(partial(running, engine)) == 0
    assert checked_out(engine) == 0
    engine.dispose()


def deadline(context):
    def stop(hang):
        def within():
            with contextlib.suppress(exc.OperationalError), greenwait.timeout(0.3):
                hang()

        context.run(within)

    interrupted(context, stop, exc.OperationalError)


def killed(context):
    interrupted(context, lambda hang: context.kill(hang, 0.3), context.killed_by)


def hooks_exception(context):
    """An exception of an event hook gives the connection up, as with other dialects."""
    engine = new_engine(pool_size=1, max_overflow=0)
    before = context.run(partial(pid_of, engine))

    def hook(conn, cursor, statement, *rest):
        if "pg_sleep" in statement:
            raise KeyboardInterrupt

    event.listen(engine, "after_cursor_execute", hook)

    def work():
        try:
            pid_after_sleep(engine)
        except KeyboardInterrupt:
            return "raised"

    assert context.run(work) == "raised"
    assert context.run(partial(pid_of, engine)) != before
    engine.dispose()


def scoped_sessions(context):
    engine = new_engine()
    make_session = orm.scoped_session(orm.sessionmaker(engine), scopefunc=greenwait.scope)

    def work(number):
        try:
            make_session.execute(sqlalchemy.text("select pg_sleep(0.05)"))
            found = make_session.scalar(sqlalchemy.text(f"select {number}"))
            return found, make_session.registry()
        finally:
            make_session.remove()

    found = context.many(work, 20, 5)
    assert [number for number, _ in found] == list(range(20))
    assert len({id(session) for _, session in found}) == 20
    assert checked_out(engine) == 0
    engine.dispose()


if __name__ == "__main__":
    globals()[CASE](CONTEXTS[CONTEXT](cancel_grace=10))
    print("well")
