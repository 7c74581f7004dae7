"""Connections that were opened before the callback: blocking in libpq, until it has seen them."""

import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from tests.lab.marks import needs_epoll


@pytest.mark.parametrize(
    "before",
    [
        "poll",
        pytest.param("epoll", marks=needs_epoll),
        "begin",
        "twice",
    ],
)
def test_large_statement_is_sent_from_the_callback(run_program, transport, before):
    arguments = {"transport": transport, "timeout": 20}
    assert run_program("send_to_stopped_server", before, **arguments) == "heard\n"


def test_connection_stays_usable_when_the_callback_is_gone(connect, transport):
    conn = connect(transport)
    set_wait_callback(greenwait.wait)
    cur = conn.cursor()
    cur.execute("select 1")
    set_wait_callback(None)
    cur.execute("select length(%s)", ("x" * 20_000_000,))
    assert cur.fetchone() == (20_000_000,)
