"""Large objects in green mode: what blocking psycopg2 does, and what it does not have."""

import contextlib
import re
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from psycopg2 import errors
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait import aio
from tests.lab.event_loops import LOOPS, PATIENT, runner

TEXT = "é" * 100 + "end"
BYTES = bytes(range(256)) * 10
LARGE = b"0123456789abcdef" * 200_000  # more than is sent at once


def made(conn, data=BYTES, mode="wb"):
    """Return the OID of a new object with this content."""
    lob = conn.lobject(0, mode)
    lob.write(data)
    lob.close()
    return lob.oid


def reading(conn, mode="rb", data=BYTES):
    return conn.lobject(made(conn, data), mode)


def after(conn, action, then):
    lob = reading(conn, "rwb")
    action(conn)
    return then(lob)


def in_latin1(conn, action):
    conn.set_client_encoding("LATIN1")
    return action(conn)


def imported(conn, folder, content):
    path = folder / "import"
    path.write_bytes(content)
    lob = conn.lobject(0, "r", 0, str(path))
    return lob.mode, conn.lobject(lob.oid, "rb").read() == content


def exported(conn, folder, data):
    path = folder / "export"
    lob = reading(conn, "rb", data)
    lob.read(5)
    lob.export(str(path))
    return path.read_bytes() == data, lob.tell()


def written(conn, data, mode):
    lob = conn.lobject(0, mode)
    count = lob.write(data)
    return count, lob.tell(), conn.lobject(lob.oid, "rb").read()


def in_autocommit(conn, then):
    conn.autocommit = True
    return then(conn)


def rolled_back(conn):
    oid = made(conn)
    conn.rollback()
    return conn.lobject(oid)


class Own(psycopg2.extensions.lobject):
    pass


# Each is called with a connection and a folder; what it returns or raises is compared.
SCENARIOS: dict[str, Callable[[Any, Any], Any]] = {
    "new": lambda conn, _: [(lob.mode, lob.closed, lob.oid > 0) for lob in [conn.lobject()]],
    "new by oid": lambda conn, _: conn.lobject(0, "w", 987654).oid,
    "new by oid, twice": lambda conn, _: [conn.lobject(0, "w", 987655) for _ in range(2)],
    "new, not opened": lambda conn, _: [(o.mode, o.closed) for o in [conn.lobject(0, "n")]],
    "open, not opened": lambda conn, _: [(o.mode, o.closed) for o in [reading(conn, "n")]],
    "mode r": lambda conn, _: reading(conn, "r").mode,
    "mode w": lambda conn, _: reading(conn, "w").mode,
    "mode rw": lambda conn, _: reading(conn, "rw").mode,
    "mode rb": lambda conn, _: reading(conn, "rb").mode,
    "mode wt": lambda conn, _: reading(conn, "wt").mode,
    "mode rwb": lambda conn, _: reading(conn, "rwb").mode,
    "mode empty": lambda conn, _: reading(conn, "").mode,
    "mode b": lambda conn, _: reading(conn, "b").mode,
    "mode wrong": lambda conn, _: reading(conn, "q"),
    "mode too long": lambda conn, _: reading(conn, "rbx"),
    "no such oid": lambda conn, _: conn.lobject(999999999),
    "oid of the wrong type": lambda conn, _: conn.lobject("x"),
    "read bytes": lambda conn, _: reading(conn).read(),
    "read some bytes": lambda conn, _: [reading(conn).read(n) for n in (0, 1, 10, 10_000)],
    "read in parts": lambda conn, _: [(o.read(3), o.read(3), o.tell()) for o in [reading(conn)]],
    "read text": lambda conn, _: reading(conn, "r", TEXT.encode()).read(),
    "read half a character": lambda conn, _: reading(conn, "r", TEXT.encode()).read(3),
    "read what is no text": lambda conn, _: reading(conn, "r").read(),
    "read empty": lambda conn, _: reading(conn, "rb", b"").read(),
    "read a lot": lambda conn, _: reading(conn, "rb", LARGE).read() == LARGE,
    "read more than there is": lambda conn, _: len(reading(conn, "rb", LARGE).read(5_000_000)),
    "read where it is only written": lambda conn, _: reading(conn, "w").read(),
    "read at the end": lambda conn, _: [(o.read(), o.read()) for o in [reading(conn)]],
    "write bytes": lambda conn, _: written(conn, BYTES, "wb"),
    "write text": lambda conn, _: written(conn, TEXT, "w"),
    "write text as bytes": lambda conn, _: written(conn, TEXT.encode(), "w"),
    "write nothing": lambda conn, _: written(conn, "", "w"),
    "write a lot": lambda conn, _: written(conn, LARGE, "wb")[:2],
    "write what is neither": lambda conn, _: written(conn, 42, "w"),
    "write where it is only read": lambda conn, _: reading(conn, "rb").write(b"x"),
    "write in LATIN1": lambda conn, _: in_latin1(conn, lambda c: written(c, TEXT, "w")),
    "write what LATIN1 lacks": lambda conn, _: in_latin1(conn, lambda c: written(c, "\u20ac", "w")),
    "read in LATIN1": lambda conn, _: in_latin1(conn, lambda c: reading(c, "r", b"\xe9").read()),
    "seek": lambda conn, _: [(o.seek(10), o.read(2), o.tell()) for o in [reading(conn)]],
    "seek from here": lambda conn, _: [(o.read(5), o.seek(5, 1)) for o in [reading(conn)]],
    "seek from the end": lambda conn, _: [(o.seek(-5, 2), o.read()) for o in [reading(conn)]],
    "seek before the beginning": lambda conn, _: reading(conn).seek(-1),
    "seek from nowhere": lambda conn, _: reading(conn).seek(0, 7),
    "seek by 64 bits": lambda conn, _: reading(conn).seek(1 << 33),
    "seek by a float": lambda conn, _: reading(conn).seek(1.5),
    "truncate": lambda conn, _: [(o.truncate(7), o.read()) for o in [reading(conn, "rwb")]],
    "truncate to nothing": lambda conn, _: [
        (o.truncate(), o.read()) for o in [reading(conn, "rwb")]
    ],
    "truncate to more": lambda conn, _: [
        (o.truncate(3000), len(o.read())) for o in [reading(conn, "rwb")]
    ],
    "truncate what is only read": lambda conn, _: reading(conn, "rb").truncate(1),
    "close twice": lambda conn, _: [(o.close(), o.close(), o.closed) for o in [reading(conn)]],
    "read closed": lambda conn, _: [(o.close(), o.read()) for o in [reading(conn)]],
    "unlink": lambda conn, _: [
        (o.unlink(), o.closed, conn.lobject(o.oid)) for o in [reading(conn)]
    ],
    "unlink twice": lambda conn, _: [(o.unlink(), o.unlink()) for o in [reading(conn)]],
    "after commit": lambda conn, _: after(conn, lambda c: c.commit(), lambda o: o.read()),
    "after rollback": lambda conn, _: after(conn, lambda c: c.rollback(), lambda o: o.tell()),
    "after reset": lambda conn, _: after(conn, lambda c: c.reset(), lambda o: o.write(b"x")),
    "after a block": lambda conn, _: after(conn, lambda c: c.__exit__(None, None, None), len),
    "closed after commit": lambda conn, _: after(
        conn, lambda c: c.commit(), lambda o: (o.closed, o.close(), o.closed)
    ),
    "unlinked after commit": lambda conn, _: after(
        conn, lambda c: c.commit(), lambda o: (o.unlink(), o.closed)
    ),
    "after a new encoding": lambda conn, _: after(
        conn, lambda c: c.set_client_encoding("LATIN1"), lambda o: o.read()
    ),
    "after a prepared transaction": lambda conn, _: (
        conn.tpc_begin("x")
        or after(conn, lambda c: (c.tpc_prepare(), c.tpc_rollback()), lambda o: o.read())
    ),
    "while a transaction is prepared": lambda conn, _: (
        conn.tpc_begin("y"),
        conn.tpc_prepare(),
        conn.lobject(),
    ),
    "closed connection": lambda conn, _: after(conn, lambda c: c.close(), lambda o: o.read()),
    "of a closed connection": lambda conn, _: (conn.close(), conn.lobject()),
    "in autocommit mode": lambda conn, _: in_autocommit(conn, lambda c: c.lobject()),
    "in a failed transaction": lambda conn, _: (
        contextlib.suppress(psycopg2.Error).__enter__(),
        _fail(conn),
        conn.lobject(),
    ),
    "rolled back": lambda conn, _: rolled_back(conn),
    "import": lambda conn, folder: imported(conn, folder, BYTES),
    "import a lot": lambda conn, folder: imported(conn, folder, LARGE),
    "import nothing": lambda conn, folder: imported(conn, folder, b""),
    "import no file": lambda conn, folder: conn.lobject(0, "w", 0, str(folder / "none")),
    "export": lambda conn, folder: exported(conn, folder, BYTES),
    "export a lot": lambda conn, folder: exported(conn, folder, LARGE),
    "export nowhere": lambda conn, folder: reading(conn).export(str(folder / "no" / "file")),
    "own class": lambda conn, _: isinstance(conn.lobject(lobject_factory=Own), Own),
    "wrong class": lambda conn, _: conn.lobject(lobject_factory=lambda *_: 1),
    "keywords": lambda conn, _: conn.lobject(oid=0, mode="wb", new_oid=876543).mode,
    "is psycopg2's": lambda conn, _: isinstance(conn.lobject(), psycopg2.extensions.lobject),
}


def _fail(conn):
    with contextlib.suppress(psycopg2.Error):
        conn.cursor().execute("select 1/0")


def outcome(scenario, conn, folder):
    """Return what the scenario returns, or the class of what it raises."""
    try:
        found = scenario(conn, folder)
    except psycopg2.OperationalError as exc:
        # psycopg2 does not raise the classes of the SQLSTATEs, which some of ours are.
        return "OperationalError", re.sub(r"\d+", "N", str(exc)).split("\n")[0]
    except SystemError:  # blocking psycopg2 forgets some errors of the server on their way
        return "OperationalError", None
    except (psycopg2.Error, ValueError) as exc:
        return type(exc).__name__, str(exc)
    except TypeError:  # Python's words
        return "TypeError", None
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_is_as_in_blocking_psycopg2(name, server, tmp_path):
    outcomes: list[Any] = []
    for callback, factory in ((None, None), (PATIENT, greenwait.Connection)):
        set_wait_callback(callback)
        conn = psycopg2.connect(server.dsn(), connection_factory=factory)
        try:
            outcomes.append(outcome(SCENARIOS[name], conn, tmp_path))
        finally:
            if not conn.closed:
                with contextlib.suppress(psycopg2.Error):
                    conn.tpc_rollback()
                conn.rollback()
            conn.close()
    theirs, ours = outcomes
    if theirs == ("OperationalError", None):
        assert ours[0] == "OperationalError"
    else:
        assert ours == theirs


@pytest.fixture
def shared(connect):
    set_wait_callback(PATIENT)
    return connect(connection_factory=greenwait.Connection)


def test_error_has_its_sqlstate(shared):
    with pytest.raises(psycopg2.OperationalError) as caught:
        shared.lobject(999999999)
    assert caught.value.pgcode == "42704"
    assert isinstance(caught.value.__cause__, errors.UndefinedObject)


def test_deadline_keeps_the_connection(shared, connect):
    oid = made(shared)
    shared.commit()
    other = connect()
    other.cursor().execute("lock table pg_catalog.pg_largeobject")
    lob = shared.lobject(oid, "rb")
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.3):
        lob.read()
    other.rollback()
    shared.rollback()
    assert shared.lobject(oid, "rb").read() == BYTES


def test_other_typecasters_do_not_matter(shared):
    for name in ("bytea", "int8"):
        oids = psycopg2.BINARY.values if name == "bytea" else (20, 23, 26)
        own = psycopg2.extensions.new_type(oids, name, lambda value, _: "other")
        psycopg2.extensions.register_type(own, shared)
    lob = shared.lobject(made(shared), "rb")
    assert lob.read() == BYTES
    assert lob.tell() == len(BYTES)


def test_other_threads_go_on(shared, connect):
    oid = made(shared)
    shared.commit()
    other = connect()
    other.cursor().execute("lock table pg_catalog.pg_largeobject")
    lob = shared.lobject(oid, "rb")
    thread = threading.Timer(0.2, other.rollback)
    thread.start()
    assert lob.read() == BYTES
    thread.join()


@pytest.mark.parametrize("method", ["read", "write", "export"])
def test_nobody_commits_within_a_method(shared, connect, tmp_path, method):
    """Where they share the connection; the next statement would find another object, or none."""
    first, second = made(shared, LARGE), made(shared, BYTES)
    shared.commit()
    lob = shared.lobject(first, "rwb")
    calls = {
        "read": lob.read,
        "write": lambda: lob.write(LARGE),
        "export": lambda: lob.export(str(tmp_path / "file")),
    }
    other = connect()
    other.cursor().execute("lock table pg_catalog.pg_largeobject")

    def read_another():
        shared.commit()
        return shared.lobject(second, "rb").read()

    with greenwait.Hub() as hub:
        jobs = [hub.spawn(calls[method])]
        hub.sleep(0.05)
        jobs.append(hub.spawn(read_another))
        hub.sleep(0.05)
        other.rollback()
        found = jobs[0].result()
        assert jobs[1].result() == BYTES
    assert found == {"read": LARGE, "write": len(LARGE), "export": None}[method]
    assert shared.lobject(first, "rb").read() == LARGE


@pytest.mark.parametrize("loop", LOOPS)
def test_in_asyncio_its_methods_are_awaited(loop, server, tmp_path):
    async def main():
        conn = await aio.connect(server.dsn())
        lob = await conn.lobject(0, "wb")
        assert await lob.write(BYTES) == len(BYTES)
        assert await lob.tell() == len(BYTES)
        assert await lob.seek(10) == 10
        await lob.close()
        assert lob.closed
        lob = await conn.lobject(lob.oid, "rwb", lobject_factory=Own)
        assert isinstance(lob, Own)
        assert await lob.read(5) == BYTES[:5]
        await lob.truncate(100)
        await lob.export(str(tmp_path / "file"))
        assert (tmp_path / "file").read_bytes() == BYTES[:100]
        await conn.rollback()
        with pytest.raises(psycopg2.ProgrammingError, match="isn't valid anymore"):
            await lob.read()

        def below(conn):
            return conn.lobject(made(conn), "rb").read()

        assert await aio.run(below, conn) == BYTES
        await conn.close()

    runner(loop)(main())
