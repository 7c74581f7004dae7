"""Large objects in one of the contexts: ``DSN CONTEXT CASE``."""

import os
import signal
import sys
import tempfile
import time
from functools import partial

import psycopg2

import greenwait
from tests.lab.contexts import CONTEXTS
from tests.lab.queries import one

DSN, CONTEXT, CASE = sys.argv[-3:]
TEXT = "é" * 1_500_000  # 3 MB
BYTES = bytes(range(256)) * 12_000


def made(conn, data=BYTES):
    """Return the OID of a new object with this content, which is committed."""
    lob = conn.lobject(0, "wb")
    assert lob.write(data) == len(data)
    lob.close()
    conn.commit()
    return lob.oid


def read(lob):
    return lob.read()


def write(lob):
    return lob.write(BYTES)


def export(lob):
    return lob.export(os.devnull)


def truncate(lob):
    return lob.truncate(1000)


class Blocked:
    """A call of an object that waits for another transaction's lock, until it is stopped."""

    def __init__(self, call):
        self.call, self.caught = call, None
        self.conn, self.other = greenwait.connect(DSN), greenwait.connect(DSN)
        self.oid = made(self.conn)
        self.lob = self.conn.lobject(self.oid, "rwb")
        self.other.cursor().execute("lock table pg_catalog.pg_largeobject")
        self.pid = self.conn.info.backend_pid

    def block(self, seconds=None):
        began = time.monotonic()
        try:
            with greenwait.timeout(seconds):
                self.call(self.lob)
        except BaseException as exc:
            self.caught = exc
        assert time.monotonic() - began < 15

    def is_blocked(self):
        query = "select wait_event_type from pg_stat_activity where pid = %s"
        return one(self.other, query, self.pid) == "Lock"

    def cancel(self):
        """Have the server end the statement that is blocked."""
        give_up = time.monotonic() + 15
        while not self.is_blocked():
            assert time.monotonic() < give_up
            one(self.other, "select pg_sleep(0.01)")  # others run
        greenwait.cancel(self.conn)

    def check(self, expected):
        """Check what was raised, and that the connection and the object are as they were."""
        assert type(self.caught) is expected, (self.call, self.caught)
        assert not self.conn.closed
        self.other.rollback()
        self.conn.rollback()
        assert self.conn.lobject(self.oid, "rb").read() == BYTES
        self.conn.lobject(self.oid, "n").unlink()
        self.conn.commit()
        self.conn.close()
        self.other.close()


# -- The cases


def written_and_read(context):
    conn = greenwait.connect(DSN)
    for data, size, kind in ((TEXT, 3_000_000, "t"), (BYTES, len(BYTES), "b")):
        lob = conn.lobject(0, "w" + kind)
        assert lob.write(data) == size
        conn.commit()
        lob = conn.lobject(lob.oid, "r" + kind)
        assert lob.read() == data
        assert lob.read() == data[:0]
        assert lob.tell() == size
        lob.unlink()
        conn.commit()
    conn.close()


def exported_and_imported(context):
    conn = greenwait.connect(DSN)
    with tempfile.TemporaryDirectory() as folder:
        there, back = os.path.join(folder, "there"), os.path.join(folder, "back")
        with open(there, "wb") as file:
            file.write(BYTES)
        lob = conn.lobject(new_file=there)
        lob.export(back)
        with open(back, "rb") as file:
            assert file.read() == BYTES
    conn.rollback()
    conn.close()


def many_at_once(context):
    def work(number):
        conn = greenwait.connect(DSN)
        data = b"%d," % number * 300_000
        oid = made(conn, data)
        assert conn.lobject(oid, "rb").read() == data
        conn.lobject(oid, "n").unlink()
        conn.commit()
        conn.close()
        return number

    assert context.many(work, 20, 20) == list(range(20))


CALLS = (read, write, export, truncate)


def deadline(context):
    for call in CALLS:
        blocked = context.run(partial(Blocked, call))
        context.run(partial(blocked.block, 0.3))
        context.run(partial(blocked.check, greenwait.QueryTimeout))


def killed(context):
    for call in CALLS:
        blocked = context.run(partial(Blocked, call))
        context.kill(blocked.block, 0.3)
        context.run(partial(blocked.check, context.killed_by))


def cancelled(context):
    for call in CALLS:
        blocked = context.run(partial(Blocked, call))
        context.together([blocked.block, blocked.cancel])
        context.run(partial(blocked.check, psycopg2.errors.QueryCanceled))


IN_THE_CONTEXT = (written_and_read, exported_and_imported)
CASES = (*IN_THE_CONTEXT, many_at_once, deadline, killed, cancelled)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    context = CONTEXTS[CONTEXT](cancel_grace=20)
    (case,) = [each for each in CASES if each.__name__ == CASE]
    if case in IN_THE_CONTEXT:
        context.run(partial(case, context))
    else:
        case(context)
    print("well")


if __name__ == "__main__":
    main()
