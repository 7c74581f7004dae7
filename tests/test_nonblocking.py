"""Connections that were opened before the callback: blocking in libpq, until it has seen them."""

import textwrap

import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from tests.lab.marks import needs_epoll

# A server process that has been stopped takes nothing in. What is sent to it blocks: in
# libpq, where no signal is heard, or in the callback, where the handler ends it.
SEND_TO_STOPPED_SERVER = """
import os, signal, sys
os.environ["GREENWAIT_NO_LIBPQ"] = ""  # whatever path this run is about
import psycopg2, greenwait

conn = psycopg2.connect(sys.argv[1])
conn.autocommit = True
cur = conn.cursor()
pid = conn.info.backend_pid
BEFORE

class Heard(Exception):
    pass

def handler(*_):
    raise Heard

signal.signal(signal.SIGALRM, handler)
os.kill(pid, signal.SIGSTOP)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    cur.execute("select length(%s)", ("x" * 20_000_000,))
except Heard:
    print("heard")
finally:
    os.kill(pid, signal.SIGCONT)
"""


@pytest.mark.parametrize(
    "before",
    [
        "greenwait.install(); cur.execute('select 1')",
        pytest.param(
            "greenwait.install(poller='epoll'); cur.execute('select 1')", marks=needs_epoll
        ),
        "greenwait.install(); conn.autocommit = False",  # BEGIN is a wait of its own
        "greenwait.install(); cur.execute('select 1'); greenwait.uninstall(); "
        "cur.execute('select 1'); greenwait.install()",
    ],
)
def test_large_statement_is_sent_from_the_callback(run_python, transport, before):
    script = textwrap.dedent(SEND_TO_STOPPED_SERVER).replace("BEFORE", before)
    assert run_python(script, transport=transport, timeout=20) == "heard\n"


def test_connection_stays_usable_when_the_callback_is_gone(connect, transport):
    conn = connect(transport)
    set_wait_callback(greenwait.wait)
    cur = conn.cursor()
    cur.execute("select 1")
    set_wait_callback(None)
    cur.execute("select length(%s)", ("x" * 20_000_000,))
    assert cur.fetchone() == (20_000_000,)
