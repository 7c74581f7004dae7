"""The pool's places, which are neither lost nor lent twice, and what is relied on of SQLAlchemy."""

import threading
import time

import pytest
import sqlalchemy
from psycopg2.extensions import set_wait_callback
from sqlalchemy import event, exc
from sqlalchemy.event import attr

import greenwait
from greenwait._connections.semaphore import pause
from greenwait.sqlalchemy import AsyncFairQueuePool, Dialect, FairQueuePool
from greenwait.sqlalchemy._places import Mutex, Places
from tests.lab.queries import one


class Unlucky:
    """A creator of connections, of which each but the first fails."""

    def __init__(self, connect):
        self.connect, self.calls = connect, 0

    def __call__(self):
        self.calls += 1
        if self.calls > 1:
            raise OSError("no luck")
        return self.connect()


@pytest.fixture(autouse=True)
def _callback():
    set_wait_callback(greenwait.wait)


def test_place_is_given_back_when_no_connection_can_be_made(connect):
    pool = FairQueuePool(Unlucky(connect), pool_size=1, max_overflow=1, timeout=5)
    first = pool.connect()
    for _ in range(5):
        with pytest.raises(OSError, match="no luck"):
            pool.connect()
    first.close()
    pool.connect().close()
    assert (pool.checkedout(), pool.checkedin()) == (0, 1)
    pool.dispose()


def test_waiting_for_a_place_ends_when_somebody_elses_connection_cannot_be_made(connect):
    """SQLAlchemy's own queue waits for ``timeout`` seconds then, though there is a place."""
    has_begun, may_go_on = threading.Event(), threading.Event()

    class Slow(Unlucky):
        def __call__(self):
            if self.calls == 0:
                self.calls += 1
                has_begun.set()
                may_go_on.wait(20)
                raise OSError("no luck")
            return self.connect()

    pool = FairQueuePool(Slow(connect), pool_size=1, max_overflow=0, timeout=30)
    ends = []

    def fail():
        with pytest.raises(OSError, match="no luck"):
            pool.connect()

    def succeed():
        pool.connect().close()
        ends.append(time.monotonic())

    failing, waiting = threading.Thread(target=fail), threading.Thread(target=succeed)
    failing.start()
    assert has_begun.wait(20)
    waiting.start()
    began = time.monotonic()
    time.sleep(0.2)
    may_go_on.set()
    waiting.join(25)
    failing.join(25)
    assert ends[0] - began < 10
    pool.dispose()


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"pool_size": 2, "max_overflow": 1}, 3),
        ({"pool_size": 2, "max_overflow": 0}, 2),
        ({"pool_size": 2, "max_overflow": -1}, None),
        ({"pool_size": 0}, None),
    ],
)
def test_limit(new_engine, options, limit):
    engine = new_engine(pool_timeout=0.01, **options)
    taken = [engine.connect() for _ in range(limit or 8)]
    if limit is not None:
        with pytest.raises(exc.TimeoutError) as caught:
            engine.connect()
        assert caught.value.code == "3o7r"
    for conn in taken:
        conn.close()
    assert engine.pool.checkedout() == 0


def test_invalidated_and_detached_connections_take_no_place(new_engine):
    engine = new_engine(pool_size=1, max_overflow=0, pool_timeout=1)
    for _ in range(3):
        with engine.connect() as conn:
            conn.invalidate()
        with engine.connect() as conn:
            conn.detach()
        with pytest.raises(exc.InterfaceError), engine.connect() as conn:
            conn.exec_driver_sql("select 1")
            conn.connection.dbapi_connection.close()  # it can't be rolled back
    with engine.connect() as conn:
        assert conn.scalar(sqlalchemy.text("select 1")) == 1
    assert engine.pool.checkedout() == 0


def test_first_come_first_served(new_engine):
    engine = new_engine(pool_size=1, max_overflow=0)
    order = []

    def work(number):
        with engine.connect() as conn:
            order.append(number)
            conn.exec_driver_sql("select pg_sleep(0.01)")

    greenwait.gather(*[lambda n=n: work(n) for n in range(30)])
    assert order == list(range(30))


def test_who_waits_while_the_engine_is_disposed_of_gets_a_connection(new_engine):
    engine = new_engine(pool_size=1, max_overflow=0, pool_timeout=20)
    with engine.connect() as conn:
        found = []
        waiting = threading.Thread(target=lambda: found.append(engine.connect()))
        waiting.start()
        time.sleep(0.1)
        engine.dispose()
        conn.exec_driver_sql("select 1")
    waiting.join(20)
    assert found[0].scalar(sqlalchemy.text("select 1")) == 1
    found[0].close()


def test_places():
    places = Places(1)
    assert places.take(None, lambda: "first") == "first"
    began = time.monotonic()
    assert places.take(0.05, lambda: "second") is None
    assert places.take(0, lambda: "second") is None
    assert time.monotonic() - began < 5

    def fail(record):
        raise OSError(record)

    with pytest.raises(OSError, match="lost"):
        places.give_back(fail, "lost")
    assert places.take(0, lambda: "third") == "third"


def test_mutex_lets_the_others_of_its_thread_run():
    mutex, inside, seen = Mutex(), [], []

    def work(number):
        with mutex:
            inside.append(number)
            seen.append(list(inside))
            pause(0.01)
            inside.remove(number)

    greenwait.gather(*[lambda n=n: work(n) for n in range(5)])
    assert seen == [[n] for n in range(5)]


def test_after_a_fork_the_child_disposes_of_the_engine(run_program):
    assert run_program("sqlalchemy_fork").strip() == "well"


def test_events_of_users_go_on_working(new_engine, connect):
    engine = new_engine()
    seen = []

    def listen(name):
        def listener(*args):
            seen.append(name)

        event.listen(engine, name, listener)

    for name in ("first_connect", "connect", "checkout", "checkin"):
        listen(name)
    for _ in range(2):
        with engine.connect() as conn:
            conn.exec_driver_sql("select 1")
    assert seen == ["first_connect", "connect", "checkout", "checkin", "checkout", "checkin"]


def test_what_is_relied_on_is_there(new_engine):
    engine = new_engine()
    listeners = engine.pool.dispatch.connect.for_modify(engine.pool.dispatch)
    assert isinstance(listeners._exec_once_mutex, Mutex)
    rolled_back = []
    roll_back = engine.dialect.do_rollback

    def note_and_roll_back(conn):
        rolled_back.append(type(conn))
        roll_back(conn)

    engine.dialect.do_rollback = note_and_roll_back
    with engine.connect():
        assert rolled_back[-1].__name__ == "_AdhocProxiedConnection"
    engine.dispose()
    listeners = engine.pool.dispatch.connect.for_modify(engine.pool.dispatch)
    assert isinstance(listeners._exec_once_mutex, Mutex)
    assert "_exec_once_mutex" in attr._CompoundListener.__slots__
    for cls in (FairQueuePool, AsyncFairQueuePool):
        assert issubclass(cls, sqlalchemy.QueuePool)
        assert {"_do_get", "_do_return_conn"} <= set(vars(sqlalchemy.QueuePool))
    assert engine.pool._pool.maxsize == 5
    assert engine.pool._max_overflow == 10
    assert engine.pool._timeout == 30
    assert isinstance(engine.dialect, Dialect)
    with engine.connect() as conn:
        assert one(conn._dbapi_connection.dbapi_connection, "select 1") == 1


def test_interrupted_two_phase_transaction_is_not_left_prepared(new_engine, monkeypatch):
    """In a thread, where the interrupt can't wait."""
    engine = new_engine(pool_size=1, max_overflow=0)
    prepare = greenwait.Connection.tpc_prepare
    with engine.connect() as conn:
        transaction = conn.begin_twophase("greenwait")
        conn.exec_driver_sql("select 1")

        def prepare_and_strike(self):
            prepare(self)
            raise KeyboardInterrupt

        monkeypatch.setattr(greenwait.Connection, "tpc_prepare", prepare_and_strike)
        with pytest.raises(KeyboardInterrupt):
            transaction.prepare()
        transaction.rollback()
    with engine.connect() as conn:
        query = "select count(*) from pg_prepared_xacts where gid = 'greenwait'"
        assert conn.exec_driver_sql(query).scalar() == 0
