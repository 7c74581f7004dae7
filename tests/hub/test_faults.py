"""Every fault of the laboratory with fifty jobs in flight: the others do not notice."""

import contextlib
from functools import partial

import psycopg2
import pytest

import greenwait
from greenwait.connection import Connection
from tests.lab.marks import cancels_through_the_proxy
from tests.lab.queries import assert_usable
from tests.lab.steps import CALLBACKS, FAULTS, STEPS, Outcome, no_leaked_descriptors_of

IN_FLIGHT = 50


@cancels_through_the_proxy
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_with_fifty_jobs_in_flight(laboratory, own_server, fault):
    proxy = laboratory.proxy
    proxy.clear()
    psycopg2.extensions.set_wait_callback(CALLBACKS["poll"])
    with no_leaked_descriptors_of(proxy), contextlib.ExitStack() as stack:

        def connect(dsn):
            conn = psycopg2.connect(dsn, connection_factory=Connection)
            stack.callback(conn.close)
            return conn

        struck = [connect(proxy.dsn()) for _ in range(IN_FLIGHT // 2)]
        proxied = proxy.connections[-len(struck) :]
        others = [connect(own_server.dsn("unix")) for _ in range(IN_FLIGHT // 2)]
        steps = []
        for number, conn in enumerate(struck):
            steps.append(STEPS[list(STEPS)[number % len(STEPS)]](conn))
            next(steps[-1])

        def be_struck(conn, step):
            Outcome(conn, step)
            return True

        def go_on(conn):
            for number in range(5):
                with conn.cursor() as cur:
                    cur.execute("select %s from pg_sleep(0.01)", (number,))
                    assert cur.fetchone() == (number,)
            return True

        proxy.inject(*[each for target in proxied for each in FAULTS[fault](target)])
        calls = [partial(be_struck, *each) for each in zip(struck, steps, strict=True)]
        calls += [partial(go_on, conn) for conn in others]
        assert greenwait.gather(*calls) == [True] * len(calls)
        proxy.clear()
        for conn in struck + others:
            if not conn.closed:
                assert_usable(conn)
        assert not any(conn.closed for conn in others)
        for step in steps:
            step.close()
