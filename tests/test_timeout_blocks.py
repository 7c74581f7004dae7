"""Blocks of ``timeout()``: nested, entered again, left, and of their own context."""

import asyncio
import contextlib
import contextvars
import gc
import pickle
import socket
import sys
import threading
import time
import warnings

import greenlet
import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import POLL_OK, POLL_READ, set_wait_callback

import greenwait
from greenwait import aio
from tests.lab.interrupts import timed_out
from tests.lab.queries import assert_usable, one

pytestmark = pytest.mark.patient


# -- Blocks


def test_nearest_of_nested_deadlines_wins_and_is_the_one_that_expires(callback, connect):
    conn = connect()
    with pytest.raises(greenwait.QueryTimeout) as info:  # noqa: SIM117
        with greenwait.timeout(0.1) as outer, greenwait.timeout(20) as inner:
            conn.cursor().execute("select pg_sleep(10)")
    assert (outer.expired, inner.expired) == (True, False)
    assert info.value.timeout is outer
    conn.rollback()
    with greenwait.timeout(20) as outer:
        with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(0.1) as inner:
            conn.cursor().execute("select pg_sleep(10)")
        assert (outer.expired, inner.expired) == (False, True)
        assert info.value.timeout is inner
        assert_usable(conn)


def test_block_without_a_limit_keeps_the_outer_one(callback, connect):
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1), greenwait.timeout(None):
        connect().cursor().execute("select pg_sleep(10)")


def test_nothing_is_left_of_a_block_after_its_end(callback, connect):
    conn = connect()
    with greenwait.timeout(0.01):
        pass
    assert one(conn, "select 1 from pg_sleep(0.05)") == 1


def test_copy_of_the_context_outlives_the_block_without_its_deadline(callback, connect):
    conn = connect()
    with greenwait.timeout(0.05):
        context = contextvars.copy_context()
        with pytest.raises(greenwait.QueryTimeout):
            context.run(conn.cursor().execute, "select pg_sleep(10)")
        conn.rollback()
    time.sleep(0.05)
    assert context.run(one, conn, "select 1 from pg_sleep(0.01)") == 1


def test_block_is_of_its_own_thread(callback, connect):
    conn = connect()
    answers = []
    with greenwait.timeout(0.01):
        thread = threading.Thread(
            target=lambda: answers.append(one(conn, "select 3 from pg_sleep(0.1)")), daemon=True
        )
        thread.start()
        thread.join(20)
    assert answers == [3]


def test_block_is_of_its_own_greenlet(callback, connect):
    conn = connect()

    def enter():
        with greenwait.timeout(0.01):
            parent = greenlet.getcurrent().parent
            assert parent
            parent.switch()

    job = greenlet.greenlet(enter)
    job.switch()
    assert one(conn, "select 3 from pg_sleep(0.1)") == 3
    job.switch()


def test_block_can_not_be_entered_twice():
    block = greenwait.timeout(1)
    with block, pytest.raises(RuntimeError, match="make another"):
        block.__enter__()
    with pytest.raises(RuntimeError, match="make another"), block:
        pass


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 10**400, -(10**400)])
def test_seconds_that_are_no_time_are_a_value_error(seconds):
    with pytest.raises(ValueError, match="must be 0 or more seconds, or None"):
        greenwait.timeout(seconds)


def sleep_in_hub(seconds):
    with greenwait.Hub() as hub:
        hub.spawn(hub.sleep, 0).result(timeout=seconds)
        hub.sleep(seconds)


@pytest.mark.parametrize(
    "ask",
    [
        lambda seconds: greenwait.WaitCallback(timeout=seconds),
        lambda seconds: greenwait.WaitCallback(spin=seconds),
        lambda seconds: greenwait.WaitCallback(slow=seconds),
        lambda seconds: greenwait.WaitCallback(cancel_grace=seconds),
        lambda seconds: greenwait.install(timeout=seconds),
        lambda seconds: greenwait.Pool(timeout=seconds),
        lambda seconds: greenwait.Pool(max_idle=seconds),
        lambda seconds: greenwait.Pool(max_lifetime=seconds),
        lambda seconds: greenwait.Pool().getconn(seconds),
        lambda seconds: greenwait.Pool().close(seconds),
        lambda seconds: greenwait.notifies(None, seconds),
        lambda seconds: asyncio.run(anext(aio.notifies(None, seconds))),
        sleep_in_hub,
    ],
)
def test_seconds_that_no_float_can_hold_are_a_value_error_everywhere(callback, ask):
    with pytest.raises(ValueError, match="must be 0 or more seconds"):
        ask(10**400)


def test_connect_timeout_that_no_float_can_hold_is_the_longest_there_is(callback):
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        greenwait.connect(f"host=localhost port=1 connect_timeout={10**400}")


@pytest.mark.parametrize("seconds", ["1", True, [1]])
def test_seconds_of_another_type_are_a_type_error(seconds):
    with pytest.raises(TypeError, match="seconds must be a number of seconds, or None"):
        greenwait.timeout(seconds)


def test_block_says_what_it_is():
    assert repr(greenwait.timeout(1.5)) == "greenwait.timeout(1.5)"
    assert greenwait.timeout(2).seconds == 2.0
    assert greenwait.timeout(None).seconds is None


def test_exception_can_be_pickled(callback, connect):
    exc, _ = timed_out(connect(), 0.01)
    again = pickle.loads(pickle.dumps(exc))
    assert type(again) is greenwait.QueryTimeout
    assert (str(again), again.pgcode, again.pgerror) == (str(exc), "57014", exc.pgerror)


def test_stub_is_bounded_too(callback):
    class Stub:
        state = POLL_READ

        def poll(self):
            return self.state

        def fileno(self):
            return reading.fileno()

    stub = Stub()
    reading, writing = socket.socketpair()
    with reading, writing:
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.05):
            callback(stub)
        stub.state = POLL_OK
        with greenwait.timeout(0):
            callback(stub)


def test_timeouts_are_counted(callback, connect):
    conn = connect()
    greenwait.stats(reset=True)
    timed_out(conn, 0.01)
    assert greenwait.stats().timeouts == 1
    assert greenwait.stats().cancels >= 1
    conn.rollback()
    one(conn, "select 1")
    assert greenwait.stats().timeouts == 1


# -- A block that was left leaves nothing


class Ready:
    """What is waited for without waiting."""

    def poll(self):
        return POLL_OK

    def fileno(self):
        return 0


class Silent(Ready):
    """What nothing ever comes from."""

    def poll(self):
        return POLL_READ


def seconds_of_a_wait():
    """Return the best of many."""
    best = float("inf")
    for _ in range(50):
        began = time.perf_counter()
        greenwait.wait(Ready())
        best = min(best, time.perf_counter() - began)
    return best


def blocks_alive():
    """Return how many there are: no collector sees them, but the allocator does."""
    gc.collect()
    return sys.getallocatedblocks()


def generations(count, *, overlap):
    """Enter so many blocks, each in a copy of the context that the one before was entered in.

    *overlap*: the next one is entered before this one is left. Returns the last context.
    """
    context = contextvars.copy_context()
    entered = []
    for _ in range(count):
        block = greenwait.timeout(50)
        context.run(block.__enter__)
        following = context.copy()
        entered.append((context, block))
        if len(entered) > overlap:
            last, block = entered.pop(0)
            last.run(block.__exit__, None, None, None)
        context = following
    for last, block in entered:
        last.run(block.__exit__, None, None, None)
    return context


@pytest.mark.parametrize("overlap", [0, 1, 5])
def test_work_that_reschedules_itself_from_within_blocks_costs_the_same(callback, overlap):
    first = contextvars.copy_context()
    before = blocks_alive()
    last = first
    for _ in range(100):
        last = last.run(generations, 1000, overlap=overlap)
    assert blocks_alive() - before < 200

    def seconds_of_generations():
        began = time.thread_time()
        generations(1000, overlap=overlap)
        return time.thread_time() - began

    # In turns, and the best of each: other programs can only make it slower, and slow both.
    took = [[copy.run(seconds_of_generations) for copy in (first, last)] for _ in range(20)]
    early, late = map(min, zip(*took, strict=True))
    assert late < 5 * early  # after 100,000 blocks
    with greenwait.timeout(50):  # or no wait looks for blocks
        took = [[copy.run(seconds_of_a_wait) for copy in (first, last)] for _ in range(5)]
    early, late = map(min, zip(*took, strict=True))
    assert late < 5 * early


def test_copy_of_the_context_of_a_block_that_was_left_keeps_no_other():
    outer, inner = greenwait.timeout(5), greenwait.timeout(4)
    # By hand: the frame of a with statement of CPython 3.14's keeps what it has left for a while.
    outer.__enter__()
    inner.__enter__()
    copied = contextvars.copy_context()
    inner.__exit__()
    outer.__exit__()
    with_copy = sys.getrefcount(outer), sys.getrefcount(inner)
    del copied
    without = sys.getrefcount(outer), sys.getrefcount(inner)
    assert [before - after for before, after in zip(with_copy, without, strict=True)] == [0, 1]


def test_copy_of_the_context_of_a_block_that_was_left_is_still_within_the_others(callback):
    with greenwait.timeout(0) as outer:
        with greenwait.timeout(5), greenwait.timeout(6):
            copied = contextvars.copy_context()
        with pytest.raises(greenwait.QueryTimeout) as info:
            copied.run(greenwait.wait, Silent())
        assert info.value.timeout is outer
    copied.run(greenwait.wait, Ready())


def test_inner_block_holds_on_when_the_outer_one_is_left_first(callback):
    outermost, outer, inner = greenwait.timeout(0), greenwait.timeout(5), greenwait.timeout(6)
    for block in (outermost, outer, inner):
        block.__enter__()
    outer.__exit__(None, None, None)
    with pytest.raises(greenwait.QueryTimeout) as info:
        greenwait.wait(Silent())
    assert info.value.timeout is outermost
    inner.__exit__(None, None, None)
    outermost.__exit__(None, None, None)
    greenwait.wait(Ready())


def test_long_chain_of_blocks_is_freed_without_overflowing_the_stack(run_python):
    script = """
import contextvars, greenwait
def enter():
    for _ in range(200_000):
        greenwait.timeout(5).__enter__()
context = contextvars.copy_context()
context.run(enter)
del context
print("freed")
"""
    assert run_python(script) == "freed\n"


def test_block_that_was_abandoned_is_over_when_it_is_freed(callback):
    context = contextvars.copy_context()
    context.run(greenwait.timeout(0).__enter__)
    with pytest.raises(greenwait.QueryTimeout):
        context.run(greenwait.wait, Silent())
    del context
    greenwait.wait(Ready())


def test_generator_that_ends_in_another_context_leaves_its_block(callback):
    def numbers():
        with greenwait.timeout(0):
            yield 1

    generator = numbers()
    entered_in = contextvars.copy_context()
    assert entered_in.run(next, generator) == 1
    generator.close()  # here
    entered_in.run(greenwait.wait, Ready())


def test_async_generator_that_its_event_loop_ends_leaves_its_block(callback):
    async def numbers():
        with greenwait.timeout(5):
            yield 1

    async def main():
        async for _ in numbers():
            break
        await asyncio.sleep(0)
        greenwait.wait(Ready())

    asyncio.run(main())


# -- A block that nobody hears


@pytest.mark.parametrize("registered", [None, psycopg2.extras.wait_select])
@pytest.mark.parametrize("query", ["select pg_sleep(0.02)", "select pg_sleep(0.2)"])
def test_block_whose_query_another_callback_waits_for_warns_once_for_its_line(
    connect, registered, query
):
    set_wait_callback(registered)
    conn = connect()
    program = """
for _ in range(3):
    with timeout(0.1):
        conn.cursor().execute(query)
"""
    names = {"timeout": greenwait.timeout, "conn": conn, "query": query}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exec(compile(program, f"a program with {query}", "exec"), names)
    assert [(each.category, each.filename, each.lineno) for each in told] == [
        (RuntimeWarning, f"a program with {query}", 3)
    ]
    assert "call greenwait.install()" in str(told[0].message)


def test_warning_that_is_an_error_hides_no_other(connect):
    with pytest.raises(ZeroDivisionError), greenwait.timeout(0):
        _ = 1 / 0
    with pytest.raises(RuntimeWarning, match="psycopg2 has no wait callback"):  # noqa: SIM117
        with greenwait.timeout(0):
            pass


def test_async_connection_that_is_waited_for_by_hand_warns_of_nothing(connect):
    blocking = connect()
    conn = connect(async_=True)
    with greenwait.timeout(20):
        greenwait.wait(conn)
        cur = conn.cursor()
        cur.execute("select pg_sleep(0.05)")
        greenwait.wait(conn)
    assert not blocking.closed


def test_callback_that_passes_on_to_greenwait_warns_of_nothing(connect):
    set_wait_callback(lambda conn: greenwait.wait(conn))
    conn = connect()
    with greenwait.timeout(20):
        conn.cursor().execute("select pg_sleep(0.05)")
    with greenwait.timeout(20):
        time.sleep(0.001)  # and the connection sleeps too


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_blocks_of_greenwaits_own_warn_of_nothing(server, name):
    with contextlib.suppress(psycopg2.OperationalError):
        greenwait.connect(host=name, port=1, connect_timeout=1)
    with greenwait.Pool(server.dsn(server.transports[0])) as pool, pool.connection() as conn:
        assert list(greenwait.notifies(conn, timeout=0.05)) == []


def test_block_without_queries_warns_of_nothing():
    for _ in range(100):
        with greenwait.timeout(5), contextlib.ExitStack() as stack:
            stack.enter_context(greenwait.timeout(4))
