"""A slot and a stream of the run's server."""

import contextlib
import itertools
import os

import psycopg2
import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from tests.lab.event_loops import PATIENT

_NUMBERS = itertools.count()


@pytest.fixture
def slot(server):
    """The name of a logical slot, which is dropped after the test."""
    name = f"slot_{os.getpid()}_{next(_NUMBERS)}"
    with contextlib.closing(psycopg2.connect(server.dsn())) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        cur.execute("select pg_create_logical_replication_slot(%s, 'test_decoding')", (name,))
        yield name
        cur.execute(
            "select pg_terminate_backend(active_pid, 30000) from pg_replication_slots"
            " where slot_name = %s and active",
            (name,),
        )
        cur.execute("select pg_drop_replication_slot(%s)", (name,))


@pytest.fixture
def emit(watcher):
    """Return a function that writes words, each in a transaction of its own."""

    def emit(*words):
        for word in words:
            with watcher.cursor() as cur:
                cur.execute("select pg_logical_emit_message(true, 'words', %s)", (word,))

    return emit


@pytest.fixture
def via(server):
    """The transport; a test that matters over all of them is parametrized."""
    return server.transports[0]


@pytest.fixture
def conn(via, connect):
    """A logical replication connection."""
    set_wait_callback(PATIENT)
    return connect(via, connection_factory=greenwait.LogicalReplicationConnection)


@pytest.fixture
def streaming(conn, slot):
    """A cursor that streams."""
    cur = conn.cursor()
    cur.start_replication(slot, decode=True)
    return cur
