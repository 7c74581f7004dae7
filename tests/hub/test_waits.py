"""What jobs wait for, and who is not starved by whom."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import greenlet
import psycopg2
import pytest
from psycopg2.extensions import POLL_OK, POLL_READ

import greenwait
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.queries import one, sleep_and_say
from tests.lab.waiting import takes

pytestmark = pytest.mark.patient

NOTIFY = """
import sys, psycopg2
conn = psycopg2.connect(sys.argv[1])
conn.cursor().execute("select pg_notify('jobs', 'first')")
conn.commit()
"""


def test_large_answer_does_not_starve_others(conns):
    own = conns(2)
    late = []

    def read():
        with own[0].cursor() as cur:
            cur.execute("select repeat('x', 1000) from generate_series(1, 60000)")

    def look():
        while not reading.done():
            began = time.monotonic()
            one(own[1], "select 1")
            late.append(time.monotonic() - began)

    for _ in range(5):  # on a busy machine the best one counts
        late.clear()
        with greenwait.Hub() as hub:
            reading = hub.spawn(read)
            hub.spawn(look)
        if len(late) > 5:
            break
    assert len(late) > 5  # and not once, at the end


def test_job_that_is_always_ready_does_not_starve_others(conns):
    own = conns(3)

    def ask(conn):
        while not waiting.done():
            one(conn, "select 1")

    with takes(0.1, 10), greenwait.Hub() as hub:
        waiting = hub.spawn(sleep_and_say, own[0], 0.1)
        for conn in own[1:]:
            hub.spawn(ask, conn)
        timer = hub.spawn(hub.sleep, 0.05)
        timer.result(timeout=10)


def test_jobs_that_only_sleep_for_nothing_do_not_starve_queries(conns):
    (conn,) = conns(1)

    def spin():
        while not waiting.done():
            hub.sleep(0)

    with takes(0.05, 10), greenwait.Hub() as hub:
        waiting = hub.spawn(sleep_and_say, conn, 0.05)
        hub.spawn(spin)


def test_large_statements_and_answers(conns, transport):
    own = conns(4, transport)

    def call(conn, size):
        return len(one(conn, "select %s || 'y'", "x" * size))

    sizes = [10, 100_000, 3_000_000, 1]
    calls = [lambda c=conn, s=size: call(c, s) for conn, size in zip(own, sizes, strict=True)]
    for _ in range(3):
        assert greenwait.gather(*calls) == [size + 1 for size in sizes]


def test_connecting_in_jobs(callback, server, transport):
    def call(number):
        with contextlib.closing(psycopg2.connect(server.dsn(transport))) as conn:
            return one(conn, "select %s", number)

    with no_leaked_descriptors():
        assert list(greenwait.map(call, range(60), concurrency=10)) == list(range(60))


def test_silent_hosts_time_out_beside_each_other(callback):
    def call(port):
        with pytest.raises(psycopg2.OperationalError, match="connect_timeout"):
            psycopg2.connect(host="127.0.0.1", port=port, user="x", connect_timeout=1)

    with silent_listener() as port, no_leaked_descriptors(), takes(1, 4.5):
        greenwait.gather(*[lambda: call(port) for _ in range(5)])


def test_descriptor_that_is_closed_under_a_wait(conns):
    own = conns(2)

    def close():
        hub.sleep(0.1)
        number = os.open("/dev/null", os.O_RDONLY)
        os.close(own[0].fileno())
        os.close(number)

    with takes(0, 5), greenwait.Hub() as hub:
        job = hub.spawn(one, own[0], "select pg_sleep(20)")
        hub.spawn(close)
        with pytest.raises(psycopg2.OperationalError, match="closed while greenwait waited"):
            job.result()
        assert one(own[1], "select 1") == 1
    own[0].close()


def test_jobs_wait_for_one_connection_s_notifications(conns):
    conn, sender = conns(2)
    conn.autocommit = sender.autocommit = True
    conn.cursor().execute("listen jobs")

    def listen():
        found = []
        for each in greenwait.notifies(conn, timeout=20):
            if each.payload == "the end":
                return found
            found.append(int(each.payload))
        raise AssertionError(found)

    def send():
        for payload in [*range(20), "the end", "the end", "the end"]:
            one(sender, "select pg_notify('jobs', %s)", str(payload))

    *found, _ = greenwait.gather(listen, listen, listen, send)
    assert sorted(number for each in found for number in each or ()) == list(range(20))


def test_listener_finds_what_another_greenlet_has_read(conns, server):
    (conn,) = conns(1)
    dsn = server.dsn(server.transports[0])
    conn.autocommit = True
    conn.cursor().execute("listen jobs")

    class Reader:
        """It reads just before the hub sees that there is something to read."""

        polls = 0

        def fileno(self):
            return conn.fileno()

        def poll(self):
            self.polls += 1
            if self.polls == 1:
                return POLL_READ
            subprocess.run([sys.executable, "-c", NOTIFY, dsn], check=True, timeout=20)
            conn.poll()
            return POLL_OK

    with greenwait.Hub() as hub:
        job = hub.spawn(lambda: next(greenwait.notifies(conn, timeout=20)).payload)
        hub.sleep(0.05)
        greenwait.wait(Reader())
        assert [each.payload for each in conn.notifies] == ["first"]
        assert job.result(timeout=5) == "first"


def test_listener_finds_what_was_read_without_a_wait(conns, server):
    """Within a second: nobody is told of it."""
    (conn,) = conns(1)
    conn.autocommit = True
    conn.cursor().execute("listen jobs")
    with greenwait.Hub() as hub:
        job = hub.spawn(lambda: next(greenwait.notifies(conn, timeout=20)).payload)
        hub.sleep(0.05)
        dsn = server.dsn(server.transports[0])
        subprocess.run([sys.executable, "-c", NOTIFY, dsn], check=True, timeout=20)
        while not conn.notifies:
            conn.poll()
        assert job.result(timeout=10) == "first"


def test_listener_whose_notification_another_one_takes_goes_on_listening(conns):
    conn, sender = conns(2)
    conn.autocommit = sender.autocommit = True
    conn.cursor().execute("listen jobs")
    one(sender, "select pg_notify('jobs', 'first')")  # there before anybody waits: each gives way
    began = time.monotonic()

    def listen():
        found = []
        for each in greenwait.notifies(conn, timeout=20):
            found.append(each.payload)
            if each.payload == "last":
                return found
        raise AssertionError(found)

    def send():
        for _ in range(2):
            time.sleep(0.05)  # so that the first of it is there when the hub looks
            one(sender, "select pg_notify('jobs', 'last')")

    *found, _ = greenwait.gather(listen, listen, send)
    assert sorted(each for payloads in found for each in payloads or ()) == [
        "first",
        "last",
        "last",
    ]
    assert time.monotonic() - began < 10


def test_connection_that_is_lost_costs_only_its_own_job(conns, watcher):
    own = conns(3)
    with greenwait.Hub() as hub:
        jobs = [hub.spawn(sleep_and_say, own[0], 20)]
        jobs += [hub.spawn(sleep_and_say, conn, 0.3, "here") for conn in own[1:]]
        hub.sleep(0.1)
        one(watcher, "select pg_terminate_backend(%s)", own[0].info.backend_pid)
        with pytest.raises(psycopg2.OperationalError):
            jobs[0].result()
        assert [job.result() for job in jobs[1:]] == ["here", "here"]


def test_signal_handler_may_query_meanwhile(conns):
    own = conns(3)
    free = conns(20)
    answers = []

    def handler(*_):
        if not free:  # the server stands still
            return
        conn = free.pop()
        answers.append(sleep_and_say(conn, 0.02, "handled"))
        free.append(conn)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(5):  # on a busy machine the best one counts
            answers.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            results = greenwait.gather(
                *[lambda conn=conn: sleep_and_say(conn, 0.4, "job") for conn in own]
            )
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert results == ["job"] * 3
            if len(answers) > 2:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(answers) > 2


def test_signal_handler_that_queries_as_a_job_has_ended_comes_to_its_end(conns):
    """Nobody would wait for it in the greenlet in which jobs run, once there is no job."""
    (conn,) = conns(1)
    begun, answers = [], []

    def handler(*_):
        begun.append(True)
        answers.append(sleep_and_say(conn, 0.3, "handled"))

    was_in_time = False
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(5):  # on a busy machine the sleep may be over before the signal comes
            begun.clear()
            answers.clear()
            with greenwait.Hub() as hub:
                hub.spawn(signal.setitimer, signal.ITIMER_REAL, 0.05)
                hub.sleep(0.15)
                was_in_time = bool(begun)
            if was_in_time:
                assert answers == ["handled"]
                break
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert was_in_time
    assert sleep_and_say(conn, 0, "fit") == "fit"


def test_query_in_a_greenlet_of_somebody_else_s(conns):
    """A generator that is made of a greenlet, say: it waits too, and can't be cancelled."""
    own = conns(2)

    def nested():
        inner = greenlet.greenlet(lambda: sleep_and_say(own[0], 0.05, "inner"))
        return inner.switch()

    assert greenwait.gather(nested, lambda: sleep_and_say(own[1], 0.1, "outer")) == [
        "inner",
        "outer",
    ]


def test_async_connections_are_waited_for_too(callback, server):
    def call(number):
        conn = psycopg2.connect(server.dsn(server.transports[0]), async_=1)
        with contextlib.closing(conn):
            greenwait.wait(conn)
            cur = conn.cursor()
            cur.execute("select %s from pg_sleep(0.8)", (number,))
            greenwait.wait(conn)
            return cur.fetchall()[0][0]

    with takes(0.8, 3.9):  # one by one: 4
        assert greenwait.gather(*[lambda i=i: call(i) for i in range(5)]) == list(range(5))


def test_look_for_closed_descriptors_disturbs_no_open_one(conns):
    """It is once a second; os.fstat() takes no socket on Windows."""
    results = greenwait.map(lambda conn: sleep_and_say(conn, 1.5, 7), conns(2))
    assert list(results) == [7, 7]


def test_waits_end_in_the_order_of_their_deadlines(callback, server):
    """Also beside those that end before theirs, which leave the timers from anywhere."""
    order = []
    count = 40
    steps = [number * 17 % count for number in range(count)]
    began = time.monotonic()

    def sleep_until(step):
        hub.sleep(max(0.001, began + 0.2 + step * 0.01 - time.monotonic()))
        order.append(step)

    with greenwait.Pool(server.dsn("unix"), max_size=1) as pool, greenwait.Hub() as hub:

        def borrow():
            with pool.connection():
                hub.sleep(0.002)

        for step in steps:
            hub.spawn(sleep_until, step)
            hub.spawn(borrow)  # its deadline is far behind all of them
    assert order == sorted(steps)
    assert pool.stats().timeouts == 0
