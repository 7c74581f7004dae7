"""Two interrupts at moments that nobody has chosen: none is lost, and the higher one is raised."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import CancelledError

import pytest
from greenlet import GreenletExit

import greenwait
import greenwait.aio
from greenwait._psycopg.libpq import FAST_PATHS
from tests.explorer.cases import reachable
from tests.lab.freezers import frozen
from tests.lab.interrupts import Limit
from tests.lab.marks import needs_refusal
from tests.lab.postgres import Server

SEED = int(os.environ.get("GREENWAIT_TEST_SEED", "19"))


@pytest.fixture
def own_backend(server):
    if not isinstance(server, Server):
        pytest.skip("the server's processes are not ours to stop")


@pytest.fixture
def _no_collections():
    """What the garbage collector calls, hypothesis's function for one, forgets exceptions."""
    gc.disable()
    yield
    gc.enable()


def send_when(has_begun, number):
    """Send this process a signal as soon as that has begun."""

    def run():
        give_up = time.monotonic() + 20
        while not has_begun():
            if time.monotonic() > give_up:
                return
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), number)

    threading.Thread(target=run, daemon=True).start()


@pytest.mark.usefixtures("own_backend")
@pytest.mark.parametrize("first", ["SIGTERM", "SIGALRM"])
def test_signal_that_ends_the_program_outranks_a_limit_in_either_order(connect, on_signal, first):
    """The server is frozen: the first interrupt is waited for, and the second ends that."""
    numbers = [signal.SIGTERM, signal.SIGALRM]
    if first == "SIGALRM":
        numbers.reverse()
    raised = {signal.SIGTERM: SystemExit("told to stop"), signal.SIGALRM: Limit()}

    def handler(number, _):
        if number == numbers[0]:
            send_when(lambda: greenwait.stats().cancels > before.cancels, numbers[1])
        raise raised[number]

    for number in numbers:
        on_signal(number, handler)
    conn = connect()
    with greenwait.installed(cancel_grace=30), frozen(conn.info.backend_pid):
        before = greenwait.stats()
        send_when(lambda: greenwait.stats().waits > before.waits, numbers[0])
        began = time.monotonic()
        with pytest.raises(SystemExit) as info:
            conn.cursor().execute("select pg_sleep(5)")
    assert info.value is raised[signal.SIGTERM]
    assert info.value.__context__ is raised[signal.SIGALRM]
    assert conn.closed
    assert time.monotonic() - began < 20


# -- gevent and eventlet


@needs_refusal
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_random_pairs_of_a_kill_and_a_timeout(run_program, name):
    assert "none was lost" in run_program("kills_and_timeouts", str(SEED), name, timeout=100)


@pytest.mark.timeout(200)
def test_killall_ends_greenlets_with_timeouts_within_two_seconds(run_program):
    """Each has a query that a Timeout has just struck, or is about to strike."""
    took = []
    for number in range(6):  # on a busy machine the best one counts
        alive, seconds = run_program("killall", str(SEED + number), timeout=50).split()
        assert int(alive) == 0
        took.append(float(seconds))
        if took[-1] < 2:
            break
    assert min(took) < 2, took


# -- The hub, asyncio


@pytest.mark.usefixtures("_no_collections")
def test_random_pairs_of_a_job_s_cancel_and_a_signal(connect, on_signal):
    """The job ends by the one, and whoever has entered the hub by the other.

    Unless Python runs the handler between lines of the job's, or of what its wait calls: then it is
    an interrupt of that.
    """
    generator = random.Random(SEED)
    conn = connect(connection_factory=greenwait.Connection)
    limits = []

    def handler(*_):
        limits.append(Limit())
        raise limits[-1]

    def pair(number, conn):
        ends, was_there_to_cancel = [], []

        def work():
            try:
                conn.cursor().execute("select pg_sleep(0.004)")
                hub.sleep(20)
            except BaseException as exc:
                ends.append(exc)
                raise

        def cancel():
            hub.sleep(generator.uniform(0, 0.008))
            was_there_to_cancel.append(job.cancel())

        caught = None
        try:
            with greenwait.Hub() as hub:
                job = hub.spawn(work)
                canceller = hub.spawn(cancel)
                hub.sleep(0)
                signal.setitimer(signal.ITIMER_REAL, generator.uniform(0.0005, 0.008))
                canceller.result()
                with contextlib.suppress(CancelledError):
                    job.result()
                while len(limits) == number:
                    hub.sleep(0.001)
        except Limit as exc:
            caught = exc
        assert len(ends) == 1, (SEED, number)
        chain = reachable(ends[0])
        assert caught is limits[number] or limits[number] in chain, (SEED, number, chain)
        if was_there_to_cancel == [False]:  # the signal had ended it
            assert ends[0] is limits[number], (SEED, number)
            assert not any(isinstance(each, GreenletExit) for each in chain), (SEED, number, chain)
        else:  # by the canceller, or whoever has left the hub's block
            told = SEED, number, was_there_to_cancel, caught, chain
            assert isinstance(ends[0], GreenletExit), told
        return caught is limits[number]

    on_signal(signal.SIGALRM, handler)
    struck = 0
    with greenwait.installed(cancel_grace=20):
        for number in range(200):
            if conn.closed:  # leaving the block is a second cancel
                conn = connect(connection_factory=greenwait.Connection)
            conn.autocommit = True
            struck += pair(number, conn)
    assert struck > 100


@pytest.mark.usefixtures("_no_collections")
@pytest.mark.skipif(
    sys.version_info[:2] == (3, 14),
    reason="asyncio's own blocks are left open there, cpython issue 148874",
)
@needs_refusal
def test_random_pairs_of_a_task_s_cancel_and_ctrl_c(connect, on_signal):
    """Ctrl-C leaves the event loop where it is; run again, it ends the task in order.

    Unless Python runs the handler between lines of what the task's own wait calls: then it is
    the second interrupt of that, which costs the connection.
    """
    generator = random.Random(SEED)
    conn = connect(connection_factory=greenwait.Connection)
    interrupts = []

    def handler(*_):
        interrupts.append(KeyboardInterrupt())
        raise interrupts[-1]

    def pair(number, conn):
        ends, cancels = [], []

        def work():
            try:
                conn.cursor().execute("select pg_sleep(0.004)")
            except BaseException as exc:
                ends.append(exc)
                raise

        def cancel(task):
            was_first = len(interrupts) == number
            if task.cancel():
                cancels.append("first" if was_first else "second")

        async def begin():
            task = asyncio.ensure_future(greenwait.aio.run(work))
            loop.call_later(generator.uniform(0, 0.006), cancel, task)
            return task

        async def until_both_have_come():
            while not task.done() or len(interrupts) == number:
                await asyncio.sleep(0.001)

        caught = None
        task = loop.run_until_complete(begin())
        try:
            signal.setitimer(signal.ITIMER_REAL, generator.uniform(0.0005, 0.008))
            loop.run_until_complete(until_both_have_come())
        except KeyboardInterrupt as exc:
            caught = exc
        # Anew: asyncio may have lost the callback that it was about to call. Or its loop, which was
        # struck as it ended, still believes that it is to stop, and does: a RuntimeError.
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt, RuntimeError):
                loop.run_until_complete(until_both_have_come())
        assert task.done(), (SEED, number)
        failure = None if task.cancelled() else task.exception()
        chain = reachable(ends[0]) if ends else []
        assert caught is interrupts[number] or interrupts[number] in chain, (SEED, number, chain)
        told = SEED, number, cancels, caught, failure, chain
        assert failure in (None, interrupts[number]), told
        if failure is not None and failure is not ends[0]:  # the handler struck as it passed
            assert ends[0] in reachable(failure), told
        elif cancels == ["first"] or (cancels and interrupts[number] not in chain):
            assert task.cancelled(), told
        elif cancels:  # the handler had struck the task's own wait, which then was cancelled
            assert failure is interrupts[number], told
            assert any(isinstance(each, asyncio.CancelledError) for each in chain), told
        if FAST_PATHS["interrupt"] == "on":
            assert not conn.closed or interrupts[number] in chain, (SEED, number, chain)
        return caught is interrupts[number]

    on_signal(signal.SIGALRM, handler)
    loop = asyncio.new_event_loop()
    left_the_loop = 0
    with (
        greenwait.installed(cancel_grace=20),
        warnings.catch_warnings(),
        contextlib.closing(loop),
    ):
        # Ctrl-C may come when the coroutine is made and nobody awaits it yet.
        warnings.simplefilter("ignore", RuntimeWarning)
        for number in range(200):
            if conn.closed:
                conn = connect(connection_factory=greenwait.Connection)
            conn.autocommit = True
            left_the_loop += pair(number, conn)
        interrupts.clear()
        gc.collect()
    assert left_the_loop > 100
