"""A server that does what it must not: each call ends in time, with an error of psycopg2's."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg2
import pytest

import greenwait
from greenwait import aio
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.bounds import bound
from tests.lab.hostile_server import ENDLESS, HostileServer, Plan, dsn

#: GREENWAIT_HOSTILE_SEED=... has other trials than those that were played before.
SEED = os.environ.get("GREENWAIT_HOSTILE_SEED", "1")
CONTEXTS = ("threads", "hub", "asyncio", "uvloop", "gevent", "eventlet", "trio")
CHUNKS, TRIALS = 2, 22  # for each context: 308 trials in all
#: A request for a cancel that is not answered takes as long as the server likes without libpq's
#: functions, and a thread for that time with a libpq before 17: docs/limits.md says so.
CANCELS = {} if FAST_PATHS["cancel"].startswith("on") else {"on_cancel": "close"}


@pytest.fixture(scope="module")
def hostile():
    with HostileServer() as server:
        yield server


def play(context, trials):
    """Play these in a process of that context's; return what is wrong with each."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "tests.programs.hostile_client"),
            *(context, json.dumps(trials)),
        ],
        capture_output=True,
        text=True,
        timeout=bound(58),
        cwd=Path(__file__).parent.parent,
        # What malloc keeps for each thread depends on chance, and is no leak.
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, f"GREENWAIT_HOSTILE_SEED={SEED}\n{done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout)
    del told["outcomes"]
    return {seed: problem for seed, problem in told.items() if problem}


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("context", CONTEXTS)
def test_each_call_to_a_hostile_server_ends_in_time_with_an_error_of_psycopg2_s(
    hostile, context, chunk
):
    seeds = [f"{SEED}-{context}-{chunk}-{number}" for number in range(TRIALS)]
    problems = play(context, [(seed, hostile.port(seed, **CANCELS)) for seed in seeds])
    assert not problems, "\n".join(
        f"GREENWAIT_HOSTILE_SEED={SEED}: {Plan.of(seed, **CANCELS) if seed in seeds else seed}\n"
        + "\n".join(problem)
        for seed, problem in problems.items()
    )


@pytest.mark.parametrize("context", CONTEXTS)
def test_connecting_ends_by_the_deadline_though_the_server_goes_on_talking(hostile, context):
    trials = []
    for stage, endless in (("settings", "settings"), ("key", "notices"), ("hello", "md5 requests")):
        port = hostile.port(
            f"{SEED} talks",
            stage=stage,
            way="endless",
            endless=endless,
            tls=False,
            authentication="md5" if stage == "hello" else "trust",
            pause=0.0,
        )
        trials += [(f"{stage} {number}", port) for number in range(3)]
    problems = play(context, trials)
    assert not problems, json.dumps(problems, indent=1)


# -- What it does, one thing at a time


@pytest.fixture
def patient(hostile):
    """Return a function that connects to a server with that plan, which takes no cancel."""
    opened = contextlib.ExitStack()

    def connect(endless, stage="query", *, sslmode="disable", **given):
        port = hostile.port(
            f"{stage} {endless} {sslmode}",
            stage=stage,
            way="endless",
            endless=endless,
            on_cancel="ignore",
            authentication="trust",
            pause=0.0,
            tls=sslmode == "require",
            **given,
        )
        conn = psycopg2.connect(dsn(port, sslmode=sslmode), connection_factory=greenwait.Connection)
        opened.callback(conn.close)
        return conn

    with greenwait.installed(cancel_grace=0.3), opened:
        yield connect


def assert_ends_with_the_grace(attempt):
    """What *attempt* returns is seconds; on a busy machine the best one counts."""
    took = []
    for _ in range(10):
        took.append(attempt())
        if took[-1] < 0.3 + 0.3 + 0.2:
            break
    assert min(took) < 0.3 + 0.3 + 0.2, took


@contextlib.contextmanager
def in_time():
    """A block that takes no longer than 0.3 s and a grace of as much, on a busy machine."""
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    assert seconds < 4, f"it took {seconds:.1f} s"


@pytest.mark.skipif(FAST_PATHS["COPY"] != "on", reason="it takes libpq's functions")
@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize("endless", [each for each in ENDLESS if "cop" in each])
def test_copy_that_begins_again_and_again_costs_the_connection_after_the_grace(
    patient, endless, sslmode
):
    conn = patient(endless, sslmode=sslmode)
    with in_time(), pytest.raises(psycopg2.Error):
        conn.cursor().execute("copy t to stdout")
    assert conn.closed


@pytest.mark.skipif(FAST_PATHS["COPY"] != "on", reason="it takes libpq's functions")
def test_signal_handler_runs_while_a_copy_begins_again_and_again(patient, on_signal):
    late = []
    for _ in range(10):  # on a busy machine the best one counts
        ran = []
        on_signal(signal.SIGALRM, lambda *_, ran=ran: ran.append(time.monotonic()))
        conn = patient("mixed copies")
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(psycopg2.Error):
            conn.cursor().execute("copy t to stdout")
        late.append(ran[0] - began - 0.1)
        if late[-1] < 0.2:
            break
    assert min(late) < 0.2, late


@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize(
    "endless", ["rows", "notices", "notifications", "described rows", "settings"]
)
def test_endless_answer_ends_by_the_deadline_and_the_grace(patient, endless, sslmode):
    def attempt():
        conn = patient(endless, sslmode=sslmode)
        began = time.monotonic()
        with in_time(), pytest.raises(psycopg2.Error), greenwait.timeout(0.3):
            conn.cursor().execute("select 1")
        return time.monotonic() - began

    if endless == "notifications":  # psycopg2 makes objects of all that have come, afterwards
        attempt()
    else:
        assert_ends_with_the_grace(attempt)


def test_endless_notifications_end_by_the_timeout_of_notifies(patient):
    conn = patient("notifications", "ready")
    with in_time():
        for _ in greenwait.notifies(conn, timeout=0.3):
            pass


def test_endless_notifications_end_by_an_outer_timeout(patient):
    conn = patient("notifications", "ready")
    with in_time(), pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.3):
        for _ in greenwait.notifies(conn):
            pass
    assert not conn.closed


def test_signal_handler_runs_while_notifications_come(patient, on_signal):
    late = []
    for _ in range(10):  # on a busy machine the best one counts
        ran = []
        on_signal(signal.SIGALRM, lambda *_, ran=ran: ran.append(time.monotonic()))
        conn = patient("notifications", "ready")
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with in_time():
            for _ in greenwait.notifies(conn):
                if ran:
                    break
        late.append(ran[0] - began - 0.1)
        if late[-1] < 0.2:
            break
    assert min(late) < 0.2, late


def test_endless_notifications_leave_other_tasks_their_turn(patient):
    conn = patient("notifications", "ready")

    async def listen():
        async for _ in aio.notifies(conn):
            pass

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(listen(), 0.3)

    with in_time():
        asyncio.run(main())


def test_connection_with_endless_notifications_is_lent_by_a_pool(hostile):
    port = hostile.port(
        "lent", stage="ready", way="endless", endless="notifications", tls=False, pause=0.0
    )
    with greenwait.installed(cancel_grace=0.3), in_time():
        pool = greenwait.Pool(dsn(port), min_size=1, max_size=1)
        conn = pool.getconn()
        assert not conn.closed
        conn.close()
        pool.putconn(conn)
        pool.close()
