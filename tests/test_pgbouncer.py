"""Through a PgBouncer: an interrupt sends few cancels, and is raised where it meets a success."""

import contextlib
import threading

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_INERROR

import greenwait
from tests.lab.interrupts import Limit
from tests.lab.marks import needs_refusal
from tests.lab.pgbouncer import HOW_TO_INSTALL, POOL_MODES, find_program, pooled
from tests.lab.postgres import Server
from tests.lab.queries import one
from tests.lab.struck import Own, Plain, assert_raised

pytestmark = pytest.mark.patient

THREADS, QUERIES = 5, 6
# It takes 15 ms to end when it was cancelled, and those are not made shorter by another cancel.
SLOW_TO_END = """
    do $$begin perform pg_sleep(30);
    exception when query_canceled then
        for i in 1..15 loop
            begin perform pg_sleep(0.001); exception when query_canceled then null; end;
        end loop;
        raise;
    end$$
"""


@pytest.fixture(scope="module", params=POOL_MODES)
def pooler(request):
    """The connection string of one that keeps twenty connections to a server of its own."""
    program = find_program()
    if program is None:
        pytest.skip(f"there is no PgBouncer here: {HOW_TO_INSTALL}")
    with Server() as server, pooled(program, server, request.param) as dsn:
        yield dsn


def test_interrupted_query_sends_two_cancels_at_most_on_average(pooler, callback):
    for _ in range(3):  # on a busy machine the best one counts
        cancels = cancels_of_interrupted_queries(pooler)
        if cancels <= 2 * THREADS * QUERIES:
            break
    assert cancels <= 2 * THREADS * QUERIES


def cancels_of_interrupted_queries(pooler):
    before = greenwait.stats()
    problems: list[BaseException] = []

    def work():
        try:
            with contextlib.closing(psycopg2.connect(pooler)) as conn:
                for _ in range(QUERIES):
                    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.05):
                        conn.cursor().execute(SLOW_TO_END)
                    conn.rollback()
                assert one(conn, "select 1") == 1
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert greenwait.stats().timeouts - before.timeouts == THREADS * QUERIES
    return greenwait.stats().cancels - before.cancels


@needs_refusal
@pytest.mark.parametrize("kind", [Plain, Own], ids=lambda kind: kind.__name__)
def test_interrupt_that_meets_a_success_is_raised(pooler, callback, kind):
    with contextlib.closing(psycopg2.connect(pooler, connection_factory=kind)) as conn:
        assert one(conn, "select 1") == 1
        raised = conn.strike()
        assert_raised(conn, raised, conn.cursor().execute, "select 2")
        assert conn.info.transaction_status == TRANSACTION_STATUS_INERROR
        conn.rollback()
        conn.cursor().execute("create temp table pooled (n int) on commit drop")
        raised = conn.strike()
        with pytest.raises(Limit) as info:
            conn.commit()
        assert info.value is raised
        assert one(conn, "select 3") == 3
        conn.rollback()
