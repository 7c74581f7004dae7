"""Several greenlets and threads on one connection: they wait their turn."""

import codecs
import contextlib
import gc
import io
import signal
import threading
import time
from concurrent.futures import CancelledError

import greenlet
import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_SERIALIZABLE, set_wait_callback

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.asleep import wait_until_asleep, when_asleep
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_refusal
from tests.lab.queries import assert_usable, one
from tests.lab.random_moments import interrupted

pytestmark = pytest.mark.patient

CURSORS = [
    psycopg2.extensions.cursor,
    psycopg2.extras.DictCursor,
    psycopg2.extras.RealDictCursor,
    psycopg2.extras.NamedTupleCursor,
    greenwait.Cursor,
]
METHODS = {
    "commit": lambda conn: conn.commit(),
    "rollback": lambda conn: conn.rollback(),
    "close": lambda conn: conn.close(),
    "reset": lambda conn: conn.reset(),
    "set_session": lambda conn: idle(conn).set_session(readonly=True),
    "autocommit": lambda conn: setattr(idle(conn), "autocommit", True),
    "isolation_level": lambda conn: setattr(
        idle(conn), "isolation_level", ISOLATION_LEVEL_SERIALIZABLE
    ),
    "readonly": lambda conn: setattr(idle(conn), "readonly", True),
    "deferrable": lambda conn: setattr(idle(conn), "deferrable", True),
    "set_isolation_level": lambda conn: conn.set_isolation_level(ISOLATION_LEVEL_SERIALIZABLE),
    "set_client_encoding": lambda conn: conn.set_client_encoding("LATIN1"),
    "tpc_begin": lambda conn: idle(conn).tpc_begin(conn.xid(1, "one", "two")),
    "tpc_recover": lambda conn: conn.tpc_recover(),
    "lobject": lambda conn: large_object(conn),
    "with conn": lambda conn: leave_block(conn),
    "execute": lambda conn: one(conn, "select 1"),
    "executemany": lambda conn: conn.cursor().executemany("select %s", [(1,), (2,)]),
    "callproc": lambda conn: conn.cursor().callproc("now"),
    "named": lambda conn: named(conn),
    "named, iterated": lambda conn: list(named_cursor(conn)),
    "copy_expert": lambda conn: copied(conn),
    "execute_values": lambda conn: psycopg2.extras.execute_values(
        conn.cursor(), "select * from (values %s) v", [(1,), (2,)]
    ),
    "dealloc": lambda conn: drop_cursors(conn),
}


def idle(conn):
    conn.rollback()
    return conn


def leave_block(conn):
    with conn:
        pass


def named_cursor(conn):
    cur = conn.cursor("named")
    cur.itersize = 2
    cur.execute("select generate_series(1, 5)")
    return cur


def named(conn):
    with named_cursor(conn) as cur:
        cur.fetchone()
        cur.fetchmany(2)
        cur.scroll(1)
        cur.fetchall()


def drop_cursors(conn):
    for _ in range(3):
        conn.cursor()
    gc.collect()


def large_object(conn):
    lob = conn.lobject(mode="wb")
    lob.write(b"kept")
    lob.seek(0)
    lob.close()
    assert conn.lobject(lob.oid, "rb").read() == b"kept"


def copied(conn):
    file = io.BytesIO()

    def copy():
        conn.cursor().copy_expert("copy (select 1) to stdout", file)

    if FAST_PATHS["COPY"] == "on":
        copy()
        assert file.getvalue() == b"1\n"
    else:
        with pytest.raises(psycopg2.ProgrammingError, match="libpq's functions"):
            copy()


@pytest.fixture
def shared(callback, connect):
    return connect(connection_factory=greenwait.Connection)


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("method", METHODS)
def test_method_waits_for_the_query_of_another_greenlet(shared, method, cursor):
    if method == "execute" and cursor is psycopg2.extras.RealDictCursor:
        pytest.skip("its rows have no first column")
    shared.cursor_factory = cursor

    def query():
        with shared.cursor() as cur:
            cur.execute("select pg_sleep(0.05)")

    with greenwait.Hub() as hub:
        began = time.monotonic()
        job = hub.spawn(query)
        hub.sleep(0.01)
        METHODS[method](shared)
        took = time.monotonic() - began
        job.result(timeout=20)
    assert took >= 0.05 or method == "dealloc"


def test_who_comes_first_is_served_first(shared):
    order = []

    def work(number):
        one(shared, "select pg_sleep(0.002)")
        order.append(number)

    with greenwait.Hub() as hub:
        for number in range(20):
            hub.spawn(work, number)
    assert order == list(range(20))


def test_answers_are_never_mixed_up(shared):
    def work(number):
        for i in range(50):
            assert one(shared, "select %s", f"{number} {i}") == f"{number} {i}"

    with no_leaked_descriptors():
        greenwait.gather(*[lambda number=number: work(number) for number in range(10)])


def test_greenlets_share_one_cursor(shared):
    """It keeps one result only, but nobody is stopped for ever."""
    cur = shared.cursor()
    greenwait.gather(*[lambda: cur.execute("select pg_sleep(0.01)")] * 5)
    assert one(shared, "select 1") == 1


def test_cursor_takes_its_options_by_position_as_psycopg2s(callback, shared):
    cur = shared.cursor("kept", None, True, False)
    assert (cur.withhold, cur.scrollable) == (True, False)


def test_method_may_call_another(callback, connect):
    class Own(psycopg2.extensions.cursor):
        def execute(self, query, vars=None):
            super().execute("select 1")
            self.fetchone()
            self.connection.commit()
            one(self.connection, "select 1")
            return super().execute(query, vars)

    def one(conn, query):
        with conn.cursor(cursor_factory=psycopg2.extensions.cursor) as cur:
            cur.execute(query)
            return cur.fetchone()[0]

    def twice(conn):
        with conn.cursor() as cur:
            cur.execute("select 2")
        return one(conn, "select 2")

    conn = connect(connection_factory=greenwait.Connection, cursor_factory=Own)
    assert greenwait.gather(*[lambda: twice(conn)] * 3) == [2] * 3


@needs_refusal
def test_interrupts_at_random_moments_cost_no_turn(shared):
    def use_it():
        shared.rollback()
        shared.cursor().execute("select 1")
        shared.autocommit  # noqa: B018

    assert interrupted(use_it, microseconds=290) > 100
    with greenwait.timeout(5):
        shared.rollback()
        assert one(shared, "select 1") == 1


def test_threads_and_greenlets_share_one(shared):
    failures = []

    def work(number):
        for i in range(50):
            if one(shared, "select %s", f"{number} {i}") != f"{number} {i}":
                failures.append(number)
            if i % 10 == 0:
                shared.commit()

    def run_hub(number):
        greenwait.gather(*[lambda i=i: work(f"{number} {i}") for i in range(5)])

    first = threading.Thread(target=work, args=("first",), daemon=True)
    first.start()  # it opens what all threads keep
    first.join(20)
    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(3)]
    threads += [threading.Thread(target=run_hub, args=(i,), daemon=True) for i in (3, 4)]
    with no_leaked_descriptors():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
            assert not thread.is_alive()
    assert failures == []


def test_threads_share_one_without_any_callback(connect):
    set_wait_callback(None)
    shared = connect(connection_factory=greenwait.Connection)
    answers = []

    def work(number):
        for _ in range(20):
            answers.append(one(shared, "select %s", number) == number)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [True] * 100


@pytest.mark.parametrize("method", ["commit", "rollback", "execute", "close", "reset"])
def test_signal_handler_in_its_own_query_is_told_so(shared, watcher, method):
    caught = []
    stop = f"select pg_cancel_backend({shared.info.backend_pid})"

    def handler(*_):
        try:
            METHODS[method](shared)
        except psycopg2.ProgrammingError as exc:
            caught.append(str(exc))

    def act():
        signal.raise_signal(signal.SIGALRM)
        give_up = time.monotonic() + 20
        while not caught:
            assert time.monotonic() < give_up
            time.sleep(0.001)
        one(watcher, stop)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with (
            when_asleep(watcher, shared, act),
            pytest.raises(psycopg2.errors.QueryCanceled),
        ):
            one(shared, "select pg_sleep(40)")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(caught) == 1
    assert caught[0].startswith(f"{method}(): this connection is at work for the very greenlet")
    shared.rollback()
    assert one(shared, "select 1") == 1


def test_cancel_does_not_wait(shared, watcher):
    pid = shared.info.backend_pid
    watcher.autocommit = True
    with greenwait.Hub() as hub:
        job = hub.spawn(one, shared, "select pg_sleep(20)")
        wait_until_asleep(watcher, pid)
        began = time.monotonic()
        greenwait.cancel(shared, timeout=20)
        with pytest.raises(psycopg2.errors.QueryCanceled):
            job.result(timeout=20)
        assert time.monotonic() - began < 10
    shared.rollback()


def test_one_that_is_cancelled_in_the_queue_leaves_it(shared):
    shared.autocommit = True  # a cancel that finds it at work is to end no transaction
    with no_leaked_descriptors(), greenwait.Hub() as hub:
        first = hub.spawn(one, shared, "select 'first' from pg_sleep(0.2)")
        hub.sleep(0.02)
        queued = [hub.spawn(one, shared, "select 'queued'") for _ in range(3)]
        hub.sleep(0.02)
        queued[1].cancel()
        assert first.result() == "first"
        assert [job.result() for job in queued[::2]] == ["queued", "queued"]
        assert queued[1].done()
    assert one(shared, "select 1") == 1


@needs_refusal
def test_cancels_in_the_queue_at_every_moment(shared):
    """The turn that was given to one that has gone is given on."""
    with no_leaked_descriptors(), greenwait.Hub() as hub:
        for number in range(300):
            jobs = [hub.spawn(one, shared, "select 1") for _ in range(4)]
            for _ in range(number % 7):
                hub.sleep(0)
            jobs[number % 4].cancel()
            for job in jobs:
                with contextlib.suppress(CancelledError, psycopg2.Error):
                    job.result(timeout=20)
            shared.rollback()
    assert one(shared, "select 1") == 1


def test_deadline_in_the_queue(shared):
    def hurried():
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.05):
            one(shared, "select 1")

    with greenwait.Hub() as hub:
        slow = hub.spawn(one, shared, "select 'slow' from pg_sleep(3)")
        hub.sleep(0.02)
        hub.spawn(hurried).result()
        assert not slow.done()
        assert slow.result() == "slow"


def test_killed_greenlet_gives_its_turn_back(shared):
    with greenwait.Hub() as hub:
        job = hub.spawn(one, shared, "select pg_sleep(20)")
        hub.sleep(0.05)
        other = hub.spawn(lambda: (shared.rollback(), one(shared, "select 'mine'"))[1])
        hub.sleep(0.05)
        job.cancel()
        assert other.result(timeout=5) == "mine"


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cls: cls.__name__)
def test_cursors_are_of_the_class_asked_for(shared, cursor):
    cur = shared.cursor(cursor_factory=cursor)
    assert isinstance(cur, cursor)
    assert type(cur).__name__ == cursor.__name__
    assert type(shared.cursor(cursor_factory=cursor)) is type(cur)


def test_named_cursors_have_their_options(shared):
    cur = shared.cursor("named", withhold=True, scrollable=True)
    assert (cur.name, cur.withhold, cur.scrollable) == ("named", True, True)
    assert type(cur) is greenwait.Cursor


@pytest.mark.parametrize("autocommit", [False, True])
def test_block_of_a_named_cursor_raises_why_it_could_not_be_declared(shared, autocommit):
    shared.autocommit = autocommit
    options = {"withhold": autocommit}  # without a transaction there is no other
    deadline = greenwait.timeout(0.1)
    with pytest.raises(greenwait.QueryTimeout), deadline, shared.cursor("slow", **options) as cur:
        cur.execute("select pg_sleep(30)")
        cur.fetchone()
    shared.rollback()
    with pytest.raises(psycopg2.errors.SyntaxError), shared.cursor("missing", **options) as cur:
        cur.execute("selec 1")
    shared.rollback()
    assert_usable(shared)


def test_close_of_a_named_cursor_raises_what_costs_the_transaction(shared):
    cur = shared.cursor("closed")
    cur.execute("select 1")
    one(shared, "select 1")
    shared.cursor().execute("close closed")
    with pytest.raises(psycopg2.errors.InvalidCursorName):
        cur.close()
    shared.rollback()
    assert_usable(shared)


def test_cursor_factory_that_is_a_function_is_left_alone(shared):
    cur = shared.cursor(cursor_factory=lambda conn, name: greenwait.Cursor(conn, name))
    assert type(cur) is greenwait.Cursor


def test_greenwait_cursor_on_a_connection_of_psycopg2(callback, connect):
    conn = connect(cursor_factory=greenwait.Cursor)
    with conn.cursor() as cur:
        cur.execute("select 1")
        assert cur.fetchall() == [(1,)]


def test_dict_rows(shared):
    with shared.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cur:
        cur.execute("select 1 as one")
        assert cur.fetchone() == {"one": 1}
        cur.execute("select generate_series(1, 2) as n")
        assert [row["n"] for row in cur] == [1, 2]


def test_subclass_of_somebody_s_own(callback, connect):
    class Own(greenwait.Connection):
        def commit(self):
            commits.append(1)
            super().commit()

    class OwnCursor(psycopg2.extensions.cursor):
        def execute(self, query, vars=None):
            queries.append(query)
            return super().execute(query, vars)

    commits, queries = [], []
    conn = connect(connection_factory=Own, cursor_factory=OwnCursor)
    with conn, conn.cursor() as cur:
        cur.execute("select 1")
    assert (commits, queries) == ([1], ["select 1"])


def test_greenlet_that_dies_in_its_turn_is_not_waited_for_for_ever(shared):
    """A raw greenlet that is thrown away: its exit runs the finally blocks."""
    inner = greenlet.greenlet(lambda: one(shared, "select 1"))
    inner.switch()
    assert one(shared, "select 1") == 1


# -- While psycopg2 decodes, with its mutex held, and where it calls Python code without


@pytest.fixture
def decoding(shared):
    """Return a function: what it is given is called, once, while a text with "a_" is decoded."""
    calls = []

    def decode(text, errors="strict"):
        while calls and b"a_" in text:
            calls.pop()()
        return codecs.latin_1_decode(text, errors)

    def find(name):
        return codecs.CodecInfo(codecs.latin_1_encode, decode) if name == "of_a_test" else None

    codecs.register(find)
    before = psycopg2.extensions.encodings["LATIN9"]
    psycopg2.extensions.encodings["LATIN9"] = "of_a_test"
    shared.autocommit = True
    shared.set_client_encoding("LATIN9")
    yield calls.append
    psycopg2.extensions.encodings["LATIN9"] = before
    codecs.unregister(find)


DECODED = {
    "notice": "do $$ begin raise notice 'a_notice'; end $$",
    "notification": "listen itself; notify itself, 'a_payload'",
    "column": "select 1 as a_column",
}


@pytest.mark.parametrize("by", ["signal handler", "finalizer"])
@pytest.mark.parametrize("decoded", DECODED)
@pytest.mark.parametrize(
    "method", ["commit", "rollback", "execute", "close", "reset", "set_client_encoding", "named"]
)
def test_method_while_something_is_decoded_is_told_so(
    shared, decoding, on_signal, method, decoded, by
):
    if by == "finalizer" and method == "named":
        pytest.skip("as the others")
    caught = []

    def call(*_):
        try:
            METHODS[method](shared)
        except psycopg2.ProgrammingError as exc:
            caught.append(str(exc))

    class Late:
        def __init__(self):
            self.itself = self

        def __del__(self):
            call()

    if by == "finalizer":
        Late()
        decoding(gc.collect)
    else:
        on_signal(signal.SIGALRM, call)
        decoding(lambda: signal.raise_signal(signal.SIGALRM))
    with shared.cursor() as cur:
        cur.execute(DECODED[decoded])
    assert len(caught) == 1
    assert "this connection is at work for the very greenlet or thread that calls" in caught[0]
    assert one(shared, "select 1") == 1
    if decoded == "notice":
        assert shared.notices == ["NOTICE:  a_notice\n"]
    elif decoded == "notification":
        assert [each.payload for each in shared.notifies] == ["a_payload"]


class Looked:
    """A parameter that is looked up on the connection whose statement it is for."""

    def __conform__(self, protocol):
        return self

    def prepare(self, conn):
        self.conn = conn

    def getquoted(self):
        return b"%d" % one(self.conn, "select 42")


def looked_up(value, cur):
    return one(cur.connection, "select 43") if value is not None else None


@pytest.mark.parametrize("name", [None, "named"])
def test_adapter_and_typecaster_may_query_the_connection_that_asks_them(shared, name):
    kind = psycopg2.extensions.new_type((23,), "LOOKED_UP", looked_up)
    with shared.cursor(name) as cur:
        psycopg2.extensions.register_type(kind, cur)
        cur.execute("select %s", (Looked(),))
        assert cur.fetchall() == [(43,)]
        assert cur.query.endswith(b"select 42")


def test_parameters_of_executemany_may_come_from_a_cursor_of_the_same_connection(shared):
    shared.cursor().execute("create temporary table numbers (number int)")
    with shared.cursor("source") as source, shared.cursor() as cur:
        source.itersize = 2
        source.execute("select generate_series(1, 5)")
        cur.executemany("insert into numbers values (%s)", source)
    assert one(shared, "select sum(number) from numbers") == 15


def test_block_of_a_second_hub_job_says_what_is_going_on(callback, connect):
    """It is a ProgrammingError, the first job's block goes on, and its transaction is whole."""
    conn = connect(connection_factory=greenwait.Connection)
    conn.cursor().execute("create temp table shared (n int)")
    conn.commit()

    def first():
        with conn:
            conn.cursor().execute("insert into shared select 1 from pg_sleep(0.2)")
            hub.sleep(0.1)
            conn.cursor().execute("insert into shared values (2)")

    def second():
        hub.sleep(0.05)
        with conn:
            raise AssertionError("it was entered")

    with greenwait.Hub() as hub:
        job, other = hub.spawn(first), hub.spawn(second)
        with pytest.raises(psycopg2.ProgrammingError) as info:
            other.result()
        assert not job.done()
        job.result()
    assert str(info.value).startswith(
        "a with block of this connection is open already, in this task, greenlet or thread, or in "
        "another one that shares it."
    )
    assert "use a connection for each" in str(info.value)
    cur = conn.cursor()
    cur.execute("select n from shared order by n")
    assert cur.fetchall() == [(1,), (2,)]
