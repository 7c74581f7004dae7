"""COPY, replication and large objects where libpq's functions can't be called: ``DSN``."""

import io
import os
import sys

os.environ["GREENWAIT_NO_LIBPQ"] = "1"

import psycopg2

import greenwait

DSN = sys.argv[1]
greenwait.install(cancel_grace=20)
watcher = psycopg2.connect(DSN)
watcher.autocommit = True


def last_change(conn):
    """Return what the server has last heard of the connection, and when."""
    with watcher.cursor() as cur:
        cur.execute(
            "select query, query_start, state, state_change from pg_stat_activity where pid = %s",
            (conn.info.backend_pid,),
        )
        return cur.fetchall()


def refused(conn, method, *args, then="show server_version"):
    before = last_change(conn)
    try:
        getattr(conn.cursor(), method)(*args)
    except psycopg2.ProgrammingError as exc:
        assert "libpq's functions" in str(exc), exc
        assert method.removesuffix("_expert") in str(exc), exc
    else:
        raise AssertionError(f"{method} was not refused")
    assert conn.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
    assert last_change(conn) == before
    with conn.cursor() as cur:
        cur.execute(then)
        assert len(cur.fetchall()) == 1
    conn.rollback()


conn = greenwait.connect(DSN)
refused(conn, "copy_from", io.StringIO("1\n"), "t")
refused(conn, "copy_to", io.StringIO(), "t")
refused(conn, "copy_expert", "copy (select 1) to stdout", io.StringIO())
plain = psycopg2.connect(DSN, cursor_factory=greenwait.Cursor)
refused(plain, "copy_expert", "copy (select 1) to stdout", io.StringIO())

for factory, args in (
    (greenwait.LogicalReplicationConnection, ("slot",)),
    (greenwait.PhysicalReplicationConnection, ()),
):
    stream = psycopg2.connect(DSN, connection_factory=factory)
    refused(stream, "start_replication", *args, then="IDENTIFY_SYSTEM")
    refused(stream, "start_replication_expert", "START_REPLICATION 0/0", then="IDENTIFY_SYSTEM")
    stream.close()

lob = conn.lobject(0, "wb")
assert lob.write(b"x" * 3_000_000) == 3_000_000
lob.close()
assert conn.lobject(lob.oid, "rb").read() == b"x" * 3_000_000
conn.rollback()
for each in (conn, plain, watcher):
    each.close()
print("well")
