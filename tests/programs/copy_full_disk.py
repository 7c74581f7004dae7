"""A server whose disk is full in the middle of a COPY: ``DISK``, tmpfs or limit.

A small file system, mounted in a mount namespace of this process's own, so that it goes with it; or
the limit of a file's size. Prints what blocking psycopg2 and greenwait's pollers see, in JSON.
"""

import contextlib
import ctypes
import io
import json
import re
import resource
import subprocess
import sys
from typing import Any

import psycopg2
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait._sleep import POLLERS
from tests.lab.postgres import Server

DISK = sys.argv[-1]
DATA = b"".join(b"%d\t%s\n" % (number, b"x" * 1000) for number in range(24_000))
LIMIT = 17_000_000  # a file of the WAL has 16 MB
CLONE_NEWNS = 0x20000  # unshare(2)


def may_mount():
    """Enter a mount namespace of our own, with the server that will be started; may we?"""
    return (
        ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        and subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0
    )


def make_small_disk(server):
    """Have a small file system for temporary tables."""
    place = server.directory / "small"
    place.mkdir()
    owner = server.directory.stat()
    options = f"size=8m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    with contextlib.closing(psycopg2.connect(server.dsn())) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        cur.execute(f"create tablespace small location '{place}'")
        cur.execute("alter role current_user set temp_tablespaces = 'small'")


def observe(conn):
    """Return what is seen of a COPY for which the disk is too small, twice."""
    conn.cursor().execute("create temp table t (id int, data text)")
    conn.commit()
    seen = []
    for _ in range(2):
        cur = conn.cursor()
        try:
            cur.copy_from(io.BytesIO(DATA), "t")
        except psycopg2.Error as exc:
            text = re.sub(r"\d+", "N", str(exc.pgerror))
            seen.append([type(exc).__name__, exc.pgcode, text])
        seen.append([conn.closed, conn.status, cur.rowcount])
        conn.rollback()
        cur.execute("select count(*) from t")
        seen.append(cur.fetchall())
        conn.rollback()
    return seen


def main():
    if DISK == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    elif not may_mount():
        print("null")
        return
    outcomes = []
    with Server() as server:
        if DISK == "tmpfs":
            make_small_disk(server)
        set_wait_callback(None)
        for poller in (None, *POLLERS):
            connect: Any = psycopg2.connect
            if poller is not None:
                greenwait.install(poller=poller, cancel_grace=20)
                connect = greenwait.connect
            with contextlib.closing(connect(server.dsn())) as conn:
                outcomes.append(observe(conn))
    print(json.dumps(outcomes))


main()
