"""Every fault at every step: nothing hangs, no result is wrong, no descriptor is lost.

What a step may come to: its result, the right one; a QueryTimeout, and the connection goes on;
or an OperationalError, and the connection is closed. And a commit is never a plain failure
when it was committed.
"""

import contextlib
import os
import signal
import time

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import greenwait
from greenwait._sleep import POLLERS
from greenwait.connection import Connection
from tests.lab.fault_proxy import Fault, FaultProxy, skip_without_tls
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import cancels_through_the_proxy
from tests.lab.queries import assert_usable
from tests.lab.steps import (
    BOUND,
    CALLBACKS,
    DEADLINE,
    FAULTS,
    GRACE,
    STEPS,
    Outcome,
    no_leaked_descriptors_of,
    wait_too_long,
)


@pytest.fixture(params=CALLBACKS)
def chosen(request):
    psycopg2.extensions.set_wait_callback(CALLBACKS[request.param])


# -- The faults: what is injected when a step begins. Counts are of bytes from then on.


def assert_usable_but_for(strays, conn):
    """At most so many signals of cancel requests may come late; return how many may now."""
    while True:
        try:
            assert_usable(conn)
            return strays
        except psycopg2.errors.QueryCanceled:
            strays -= 1
            assert strays >= 0


def play(laboratory, step, make_faults, sslmode, deadline=DEADLINE):
    proxy = laboratory.proxy
    proxy.clear()
    with no_leaked_descriptors_of(proxy):
        conn = psycopg2.connect(proxy.dsn(sslmode=sslmode), connection_factory=Connection)
        proxied = proxy.connections[-1]
        with contextlib.closing(conn):
            prepared = STEPS[step](conn)
            next(prepared)
            proxy.inject(*make_faults(proxied))
            outcome = Outcome(conn, prepared, deadline)
            proxy.clear()
            if not conn.closed:
                assert_usable(conn)
        prepared.close()
    return outcome


@cancels_through_the_proxy
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_fault_at_a_step(chosen, laboratory, step, fault):
    is_slow = fault in ("trickle", "delay") and step in ("begin", "wait", "rollback")
    outcome = play(laboratory, step, FAULTS[fault], "disable", 20 if is_slow else DEADLINE)
    if step == "wait_too_long":
        assert outcome.exception is not None
    if is_slow:
        assert outcome.exception is None  # and nothing worse
    if fault.startswith(("cut", "reset")) and outcome.exception is not None:
        assert outcome.is_timeout or outcome.took < DEADLINE + GRACE + 4


@cancels_through_the_proxy
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["wait", "wait_too_long", "stream"])
def test_fault_at_a_step_under_tls(laboratory, step, fault):
    psycopg2.extensions.set_wait_callback(CALLBACKS["poll"])
    play(laboratory, step, FAULTS[fault], "require")


@cancels_through_the_proxy
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_a_commit_is_never_a_plain_failure_of_what_was_committed(
    chosen, laboratory, fault
):
    proxy = laboratory.proxy
    proxy.clear()
    laboratory.number += 1
    tag = f"{os.getpid()} {laboratory.number}"
    with no_leaked_descriptors_of(proxy):
        conn = psycopg2.connect(proxy.dsn(), connection_factory=Connection)
        pid = conn.info.backend_pid
        proxied = proxy.connections[-1]
        with contextlib.closing(conn):
            conn.cursor().execute("insert into kept values (%s)", (tag,))
            proxy.inject(*FAULTS[fault](proxied))

            def commit():
                conn.commit()
                yield None, None

            outcome = Outcome(conn, commit())
            proxy.clear()
        # Then it is known: the server process is through with it, and gone.
        while laboratory.ask("select count(*) from pg_stat_activity where pid = %s", pid):
            time.sleep(0.002)
        committed = laboratory.ask("select count(*) from kept where tag = %s", tag) == 1
    if outcome.exception is None:
        assert committed
    elif not isinstance(outcome.exception, greenwait.CommitInDoubt):
        assert not committed


CANCEL_FAULTS = {
    f"{kind} {direction} after {count}": [
        Fault(kind, direction, count, only=lambda each: each.index > 0)
    ]
    for kind in ("stall", "cut", "reset", "half_close")
    for direction in ("to_client", "to_server")
    for count in (0, 1, 8, 15)
} | {
    "trickle": [Fault("trickle", only=lambda each: each.index > 0)],
    "delay": [Fault("delay", None, 0.02, only=lambda each: each.index > 0)],
    "ignored": [Fault("ignore", only=lambda each: each.index > 0)],
    "refused": [Fault("refuse")],
}


@cancels_through_the_proxy
@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize("fault", CANCEL_FAULTS)
def test_fault_at_the_cancel_itself(own_server, fault, sslmode):
    """The connection is fine; whether it can be kept depends on whether the cancel came."""
    is_slow = fault in ("trickle", "delay") and sslmode == "disable"
    grace = 20 if is_slow else GRACE
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=grace))
    with FaultProxy(own_server) as proxy, no_leaked_descriptors_of(proxy):
        conn = psycopg2.connect(proxy.dsn(sslmode=sslmode))
        with contextlib.closing(conn):
            prepared = wait_too_long(conn)
            next(prepared)
            proxy.inject(*CANCEL_FAULTS[fault])
            outcome = Outcome(conn, prepared)
            assert outcome.exception is not None
            assert outcome.is_timeout or not is_slow
            if outcome.is_timeout:
                proxy.clear()
                # Where the proxy hangs up before the server does, a request is under way yet. Each
                # may send two signals: see again_until().
                requests = len(proxy.connections) - 1
                strays = 2 * requests if fault.endswith("to_client after 0") else 0
                for _ in range(3):
                    strays = assert_usable_but_for(strays, conn)


CONNECTING = [
    (kind, direction, count)
    for kind in ("stall", "cut", "reset", "half_close")
    for direction, counts in (
        ("to_client", (0, 1, 2, 9, 14, 100, 330)),
        ("to_server", (0, 4, 8, 40)),
    )
    for count in counts
]


@pytest.mark.parametrize("sslmode", ["disable", "require", "prefer"])
@pytest.mark.parametrize(("kind", "direction", "count"), CONNECTING)
def test_fault_while_connecting(laboratory, kind, direction, count, sslmode):
    psycopg2.extensions.set_wait_callback(CALLBACKS[POLLERS[count % len(POLLERS)]])
    proxy = laboratory.proxy
    proxy.clear()
    proxy.inject(Fault(kind, direction, count))
    with no_leaked_descriptors_of(proxy):
        began = time.monotonic()
        conn = None
        try:
            with greenwait.timeout(DEADLINE):
                conn = psycopg2.connect(proxy.dsn(sslmode=sslmode))
        except psycopg2.OperationalError as exc:
            is_timeout = isinstance(exc, greenwait.QueryTimeout)
            assert is_timeout or kind != "stall"
        assert time.monotonic() - began < BOUND
        proxy.clear()
        if conn is not None:
            with contextlib.closing(conn), contextlib.suppress(psycopg2.OperationalError):
                assert_usable(conn)
    proxy.clear()
    psycopg2.connect(proxy.dsn(sslmode=sslmode)).close()


# -- What happens to the server's process


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
@pytest.mark.parametrize("fault", ["frozen", "terminated", "frozen and terminated"])
@pytest.mark.parametrize("step", STEPS)
def test_fault_of_the_server_process_at_a_step(laboratory, own_server, step, fault, transport):
    if transport == "tls":
        skip_without_tls(own_server)
    psycopg2.extensions.set_wait_callback(CALLBACKS["poll"])
    with no_leaked_descriptors():
        conn = psycopg2.connect(own_server.dsn(transport), connection_factory=Connection)
        pid = conn.info.backend_pid
        with contextlib.closing(conn):
            prepared = STEPS[step](conn)
            next(prepared)
            if "frozen" in fault:
                os.kill(pid, signal.SIGSTOP)
            if "terminated" in fault:
                laboratory.ask("select pg_terminate_backend(%s)", pid)
            try:
                outcome = Outcome(conn, prepared)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            assert outcome.exception is not None
            assert conn.closed
        prepared.close()


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
def test_server_process_that_thaws_in_the_grace_costs_nothing(laboratory, own_server, transport):
    """The deadline passes, the cancel waits for it, and the answer is its error."""
    if transport == "tls":
        skip_without_tls(own_server)
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=20))
    conn = psycopg2.connect(own_server.dsn(transport))
    pid = conn.info.backend_pid
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGCONT))
    try:
        with contextlib.closing(conn):
            conn.cursor().execute("select 1")
            os.kill(pid, signal.SIGSTOP)
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
                conn.cursor().execute("select pg_sleep(20)")
            assert_usable(conn)
    finally:
        signal.signal(signal.SIGALRM, before)


# -- Sequences of faults, at random


SEQUENCES = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(sorted(FAULTS))),
    min_size=1,
    max_size=5,
)


@cancels_through_the_proxy
@settings(
    max_examples=15,
    deadline=None,
    print_blob=True,  # what repeats a failure, and the plugin prints the seed
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequence=SEQUENCES)
def test_sequence_of_faults(laboratory, sequence):
    """On one connection as long as it lives, then on another."""
    psycopg2.extensions.set_wait_callback(CALLBACKS["poll"])
    proxy = laboratory.proxy
    proxy.clear()
    with no_leaked_descriptors_of(proxy), contextlib.ExitStack() as stack:
        conn = None
        for step, fault in sequence:
            if conn is None or conn.closed:
                conn = psycopg2.connect(proxy.dsn(), connection_factory=Connection)
                proxied = proxy.connections[-1]
                stack.callback(conn.close)
            prepared = STEPS[step](conn)
            next(prepared)
            proxy.inject(*FAULTS[fault](proxied))
            Outcome(conn, prepared)
            prepared.close()
            proxy.clear()
            if not conn.closed:
                assert_usable(conn)


def test_interrupted_and_abandoned_connections_leave_no_query_behind(laboratory, own_server):
    psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=20))
    pids = []
    for _ in range(10):
        conn = psycopg2.connect(own_server.dsn("unix"))
        pids.append(conn.info.backend_pid)
        with contextlib.suppress(greenwait.QueryTimeout), greenwait.timeout(0.01):
            conn.cursor().execute("select pg_sleep(20)")
        conn.close()
    give_up = time.monotonic() + 10
    while laboratory.ask("select count(*) from pg_stat_activity where pid = any(%s)", pids):
        assert time.monotonic() < give_up
