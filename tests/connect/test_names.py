"""Names are looked up in a thread, and each of their addresses has its turn."""

import asyncio
import functools
import socket
import threading
import time

import psycopg2
import psycopg2.extras
import pytest

import greenwait
import greenwait.aio
from tests.lab.connecting import CONNECTS, SLOW_NAME, connected, dsn_of, fails, name_server, port_of
from tests.lab.silence import silence


def test_name_is_looked_up_in_a_thread(callback, live, monkeypatch):
    with name_server(monkeypatch, db="127.0.0.1") as asked:
        conn = greenwait.connect(dsn_of(live, host="db.invalid"))
    assert [host for host, _ in asked] == ["db.invalid"]
    assert asked[0][1] != threading.get_ident()
    assert conn.info.host == "db.invalid"
    assert port_of(conn) == live


def test_address_is_not_looked_up(callback, server, live, monkeypatch):
    with name_server(monkeypatch) as asked:
        assert port_of(greenwait.connect(dsn_of(live))) == live
        greenwait.connect(server.dsn("unix")).close()
    assert asked == []


def test_each_address_of_a_name_has_its_turn(callback, live, monkeypatch):
    with name_server(monkeypatch, db=["127.0.0.3", "127.0.0.1"]):
        began = time.monotonic()
        assert port_of(greenwait.connect(dsn_of(live, host="db.invalid"))) == live
        assert time.monotonic() - began < 5


def test_name_that_has_no_address_is_passed_over(callback, live, monkeypatch):
    with name_server(monkeypatch, db="127.0.0.1"):
        dsn = dsn_of(live, live, host="none.invalid,db.invalid")
        assert port_of(greenwait.connect(dsn)) == live


def test_names_without_any_address_are_all_named(callback, monkeypatch):
    with name_server(monkeypatch), fails(0) as info:
        greenwait.connect(dsn_of(1, 2, host="none.invalid,nor.invalid"))
    for name in ("none", "nor"):
        assert f'could not translate host name "{name}.invalid" to address' in str(info.value)


def test_what_can_be_no_name(callback):
    with fails(0, match="could not translate host name"):
        greenwait.connect(dsn_of(1, host="." + "x" * 70 + "\u00e9"))


def test_own_function_in_the_place_of_getaddrinfo_is_asked(callback, live, monkeypatch):
    """Though it passes itself off as the one that it replaces."""
    asked = []
    real = socket.getaddrinfo

    @functools.wraps(real)
    def getaddrinfo(host, *args, **keywords):
        asked.append(host)
        return real("127.0.0.1", *args, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert port_of(greenwait.connect(dsn_of(live, host="db.invalid"))) == live
    assert asked == ["db.invalid"]


NUL = {
    "dsn": (("host=127.0.0.1\0.invalid user=x",), {}),
    "dsn, its end": (("host=127.0.0.1 user=x\0",), {}),
    "uri": (("postgresql://127.0.0.1\0.invalid/x",), {}),
    "host": ((), {"host": "127.0.0.1\0.invalid", "user": "x"}),
    "name": ((), {"host": "localhost\0.invalid", "user": "x"}),
    "second host": ((), {"host": "localhost,127.0.0.1\0.invalid", "user": "x"}),
    "hostaddr": ((), {"host": "x.invalid,y.invalid", "hostaddr": "127.0.0.1,127.0.0.2\0"}),
    "user": (("host=localhost,localhost",), {"user": "x\0y"}),
    "password": (("host=localhost,localhost",), {"password": "x\0y"}),
    "service": ((), {"service": "x\0y"}),
}


async def _aio_connect(*args, **keywords):
    await greenwait.aio.connect(*args, **keywords)


def _lend(*args, **keywords):
    with greenwait.Pool(*args, **keywords, timeout=5) as pool, pool.connection():
        pass


@pytest.mark.parametrize(
    "function",
    [
        greenwait.connect,
        lambda *args, **keywords: asyncio.run(_aio_connect(*args, **keywords)),
        _lend,
    ],
    ids=["connect", "aio.connect", "Pool"],
)
@pytest.mark.parametrize("case", NUL)
def test_nul_in_a_connection_string_is_refused_as_psycopg2_refuses_it(
    callback, function, case, monkeypatch
):
    """C's strings end there: libpq would go to another host than the one that is named."""
    args, keywords = NUL[case]
    with name_server(monkeypatch) as asked:
        for each in (CONNECTS["psycopg2"], function):
            with pytest.raises(ValueError, match=r"^embedded null character$"):
                each(*args, **keywords)
    assert asked == []


def test_slow_name_server_has_the_connect_timeout(callback, live, monkeypatch):
    with name_server(monkeypatch, slow=30, db="127.0.0.1"):
        began = time.monotonic()
        dsn = dsn_of(live, live, host="slow.invalid,db.invalid", connect_timeout=1)
        assert port_of(connected(greenwait.connect, dsn, live, 1.9)) == live
        assert time.monotonic() - began >= 1
        with pytest.raises(psycopg2.OperationalError, match=r"no answer within 1 s"):
            greenwait.connect(dsn_of(live, host="slow.invalid", connect_timeout=1))


def test_timeout_for_statements_is_not_for_looking_up(callback, live, monkeypatch):
    with name_server(monkeypatch, slow=30, db="127.0.0.1"), greenwait.installed(timeout=0.2):
        dsn = dsn_of(live, live, host="slow.invalid,db.invalid", connect_timeout=1)
        conn = connected(greenwait.connect, dsn, live)
    assert port_of(conn) == live


def test_other_threads_run_while_a_name_is_looked_up(callback, live, monkeypatch):
    for _ in range(3):  # on a busy machine the best one counts
        with (
            name_server(monkeypatch, slow=30),
            silence() as others,
            pytest.raises(psycopg2.OperationalError, match="no answer within 2 s"),
        ):
            greenwait.connect(dsn_of(live, host=SLOW_NAME, connect_timeout=2))
        if others.longest < 1 + others.machine:
            break
    assert others.longest < 1 + others.machine


def test_localhost_is_all_its_addresses(callback, live):
    """The server listens at one of them; the others refuse."""
    assert port_of(greenwait.connect(dsn_of(live, host="localhost"))) == live
