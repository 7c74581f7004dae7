"""Connecting: every host has ``connect_timeout`` seconds, and the next one its turn."""

import _socket
import asyncio
import contextlib
import functools
import gc
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import make_dsn, parse_dsn, set_wait_callback

import greenwait
import greenwait.aio
from greenwait._psycopg.conninfo import connection_options
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.fault_proxy import Fault, FaultProxy
from tests.lab.hosts import dropping_listener, refusing_port, silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_shutdown, needs_silent_shutdown
from tests.lab.readable import Readable
from tests.lab.silence import silence
from tools.postgres import DATABASE, USER, Server

CONNECTS: dict[str, Callable[..., Any]] = {
    "psycopg2": psycopg2.connect,
    "greenwait": greenwait.connect,
}
BAD_HOSTS = {
    "silent": silent_listener,
    "dropping": dropping_listener,
    "refusing": refusing_port,
}
SLOW_NAME = "slow.invalid"

#: What a host's connect_timeout of one second looks like, on a busy machine too: that it was no
#: more is seen by the time that all of it took.
ONE_SECOND = re.compile(r"timed out after [1-9]\.\d s")


@pytest.fixture(params=CONNECTS)
def connect_with(request, callback):
    """psycopg2's function and ours, under each callback."""
    return CONNECTS[request.param]


@pytest.fixture(autouse=True)
def _descriptors_are_kept(callback):
    """The first wait of a thread opens descriptors that are kept."""
    here, there = socket.socketpair()
    with here, there:
        there.send(b"x")
        callback(Readable(here.fileno()))


@pytest.fixture
def live(server):
    """Where the server is: its port."""
    if not isinstance(server, Server):
        pytest.skip("needs a server of our own")
    return server.port


def dsn_of(*ports, **options):
    """Return the connection string of these ports of this host, tried one after another."""
    own = {"host": ",".join(["127.0.0.1"] * len(ports)), "port": ",".join(map(str, ports))}
    return make_dsn(**{"user": USER, "dbname": DATABASE, "sslmode": "disable"} | own | options)


@contextlib.contextmanager
def name_server(monkeypatch, **names):
    """Look up these names: an address, or a list, or how many seconds it takes to say nothing."""
    asked = []
    answered = []
    ended = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **keywords):
        asked.append((host, threading.get_ident()))
        answer = names.get(host.partition(".")[0]) if host.endswith(".invalid") else host
        try:
            if isinstance(answer, (int, float)):
                ended.wait(answer)
                answer = None
            if answer is None:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            found = []
            for address in [answer] if isinstance(answer, str) else answer:
                found += real(address, *args, **keywords)
            return found
        finally:
            answered.append(host)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        yield asked
    finally:
        ended.set()
        give_up = time.monotonic() + 10
        while len(answered) < len(asked) and time.monotonic() < give_up:
            time.sleep(0.001)


def port_of(conn):
    """Use the connection; return where it leads."""
    with conn, conn.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
    port = conn.info.port
    conn.close()
    return port


@contextlib.contextmanager
def stalls():
    """Yield a list of the times, in seconds, for which no thread of this process could run."""
    found: list[float] = []
    done = threading.Event()

    def tick():
        last = time.monotonic()
        while not done.is_set():
            time.sleep(0.01)
            now = time.monotonic()
            if now - last > 0.1:
                found.append(now - last)
            last = now

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def connected(connect, dsn, live, seconds=float("inf")):
    """Return a connection that was made within *seconds*; on a busy machine one of three counts.

    The server, at the port *live*, or the look-up of a name that has an address, db.invalid, may
    itself not have answered within the connect_timeout.
    """
    busy = (f"port {live} timed out", '"db.invalid" to address: no answer')
    for _ in range(3):
        began = time.monotonic()
        try:
            conn = connect(dsn)
        except psycopg2.OperationalError as exc:
            if not any(text in str(exc) for text in busy):
                raise
            continue
        if time.monotonic() - began < seconds:
            return conn
        conn.close()
    return pytest.fail("it was never made in time")


@contextlib.contextmanager
def fails(seconds, *, within=0.95, match=None):
    """The block raises an OperationalError so long after it began; yields where that will be."""
    began = time.monotonic()
    with no_leaked_descriptors():
        with stalls() as stalled, pytest.raises(psycopg2.OperationalError, match=match) as info:
            yield info
        took = time.monotonic() - began
        assert seconds - 0.01 <= took < seconds + within + sum(stalled)
        info.value.__traceback__ = None
        gc.collect()


# -- A host that does not answer, and where the time comes from


def test_silent_host_fails_after_the_connect_timeout(connect_with):
    with silent_listener() as port, fails(2) as info:
        connect_with(dsn_of(port, connect_timeout=2))
    assert f'connection to server at "127.0.0.1", port {port} timed out' in str(info.value)
    assert re.search(r"timed out after [2-9]\.\d s \(connect_timeout\)", str(info.value))
    assert "waiting for the server's answer to the startup packet" in str(info.value)
    assert "There is no connection" in str(info.value)


def test_host_that_drops_packets_fails_after_the_connect_timeout(connect_with):
    with dropping_listener() as port, fails(1) as info:
        connect_with(dsn_of(port, connect_timeout=1))
    assert len(ONE_SECOND.findall(str(info.value))) == 1
    assert "waiting for the network connection" in str(info.value)


def test_same_host_twice_has_its_time_twice(callback):
    with dropping_listener() as port, fails(2) as info:
        greenwait.connect(dsn_of(port, port, connect_timeout=1))
    assert len(ONE_SECOND.findall(str(info.value))) == 2
    assert "failed" not in str(info.value)


@needs_shutdown
def test_same_host_twice_has_its_time_twice_with_psycopg2_alone(callback):
    with dropping_listener() as port, fails(2) as info:
        psycopg2.connect(dsn_of(port, port, connect_timeout=1))
    assert len(ONE_SECOND.findall(str(info.value))) == 2
    assert "failed" not in str(info.value)


@pytest.mark.parametrize("source", ["dsn", "uri", "keyword", "environment", "service"])
def test_connect_timeout_is_found_wherever_it_is(connect_with, source, monkeypatch, tmp_path):
    with silent_listener() as port, fails(1, match="connect_timeout"):
        dsn = dsn_of(port)
        if source == "dsn":
            connect_with(dsn + " connect_timeout=1")
        elif source == "uri":
            connect_with(f"postgresql://127.0.0.1:{port}/x?connect_timeout=1&sslmode=disable")
        elif source == "keyword":
            connect_with(dsn, connect_timeout=1)
        elif source == "environment":
            monkeypatch.setenv("PGCONNECT_TIMEOUT", "1")
            connect_with(dsn)
        else:
            (tmp_path / "services").write_text(
                f"[ours]\nhost=127.0.0.1\nport={port}\nconnect_timeout=1\nsslmode=disable\n"
            )
            monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
            connect_with("service=ours")


@pytest.mark.parametrize("value", ["0", "-1"])
def test_connect_timeout_of_none_waits(connect_with, live, value):
    assert port_of(connect_with(dsn_of(live, connect_timeout=value))) == live


@pytest.mark.parametrize("value", ["soon", "1.5"])
def test_connect_timeout_that_is_no_number_is_refused(connect_with, live, value):
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(psycopg2.OperationalError, match=f'"{value}" for .*"connect_timeout"'):
            connect_with(dsn_of(live, connect_timeout=value), host=host)


@pytest.mark.parametrize(
    ("step", "phase", "seconds"),
    [
        (0, "answer to the startup packet", 1),
        # AuthenticationOk is 9 bytes long, and may take its time.
        (9, "waiting for the server's settings", 2),
    ],
)
def test_host_that_falls_silent_at_a_step(connect_with, server, live, step, phase, seconds):
    with fails(seconds, match=phase), FaultProxy(server) as proxy:
        proxy.inject(Fault("stall", "to_client", step))
        connect_with(proxy.dsn(connect_timeout=seconds))


def test_silence_in_the_tls_negotiation(connect_with, server, live):
    with silent_listener() as port, fails(1, match="negotiating TLS"):
        connect_with(dsn_of(port, sslmode="require", connect_timeout=1))


def test_slow_host_that_is_in_time(connect_with, server, live):
    with FaultProxy(server) as proxy:
        proxy.inject(Fault("delay", "to_client", 0.1))
        assert port_of(connect_with(proxy.dsn(connect_timeout=3))) == proxy.port


# -- The next host


@pytest.mark.parametrize("kind", BAD_HOSTS)
def test_next_host_is_reached_in_time(callback, live, kind):
    with no_leaked_descriptors(), BAD_HOSTS[kind]() as bad:
        # If it were tried twice: 2.
        conn = connected(greenwait.connect, dsn_of(bad, live, connect_timeout=1), live, 1.9)
        assert port_of(conn) == live
        del conn


@pytest.mark.parametrize("kind", [pytest.param("dropping", marks=needs_shutdown), "refusing"])
def test_psycopg2_alone_reaches_the_next_host_unless_one_has_accepted(callback, live, kind):
    with no_leaked_descriptors(), BAD_HOSTS[kind]() as bad:
        # If it were tried twice: 2.
        conn = connected(psycopg2.connect, dsn_of(bad, live, connect_timeout=1), live, 1.9)
        assert port_of(conn) == live
        del conn


def test_psycopg2_alone_does_not_wait_for_ever_for_a_host_that_has_accepted(callback, live):
    with silent_listener() as bad, fails(1, match="connect_timeout"):
        psycopg2.connect(dsn_of(bad, live, connect_timeout=1))


@needs_silent_shutdown
def test_psycopg2_alone_says_in_time_that_it_can_not_give_up_an_attempt(callback, live):
    with dropping_listener() as bad, fails(1, match=rf"port {bad} {ONE_SECOND.pattern}"):
        psycopg2.connect(dsn_of(bad, live, connect_timeout=1))


def test_host_that_accepts_and_is_silent_about_tls(callback, server, live):
    with silent_listener() as bad:
        dsn = dsn_of(bad, live, connect_timeout=1, sslmode="prefer")
        conn = connected(greenwait.connect, dsn, live)
        assert port_of(conn) == live


def test_all_of_them_are_tried_in_turn(callback, live):
    with (
        silent_listener() as silent,
        refusing_port() as refusing,
        dropping_listener() as dropping,
        silent_listener() as last,
    ):
        began = time.monotonic()
        dsn = dsn_of(silent, refusing, dropping, last, live, connect_timeout=1)
        conn = connected(greenwait.connect, dsn, live, 6)
        assert time.monotonic() - began >= 3
        assert port_of(conn) == live


def test_message_names_each_of_them(callback):
    with (
        dropping_listener() as dropping,
        silent_listener() as silent,
        refusing_port() as refusing,
        fails(2, within=1.9) as info,
    ):
        greenwait.connect(dsn_of(dropping, silent, refusing, connect_timeout=1))
    message = str(info.value)
    assert type(info.value) is psycopg2.OperationalError
    for port in (dropping, silent, refusing):
        assert f"port {port} " in message
    assert message.index(f"{dropping} ") < message.index(f"{silent} ") < message.index("refused")
    assert len(ONE_SECOND.findall(message)) == 2


@needs_shutdown
def test_message_of_psycopg2_alone_names_each_of_them(callback):
    with (
        dropping_listener() as dropping,
        refusing_port() as refusing,
        silent_listener() as silent,
        fails(2) as info,
    ):
        psycopg2.connect(dsn_of(refusing, dropping, refusing, silent, connect_timeout=1))
    lines = str(info.value).splitlines()
    said = [line.split("port ")[1].split(".")[0] for line in lines if "port " in line]
    assert [re.sub(r"\d$", "", each) for each in said] == [
        f"{refusing} failed: Connection refused",
        f"{dropping} timed out after ",
        f"{refusing} failed: Connection refused",
        f"{silent} timed out after ",
    ]


def test_message_names_the_host_as_in_blocking_mode(callback, live):
    with refusing_port() as port:
        for dsn in (
            dsn_of(port),
            dsn_of(port, port),
            dsn_of(port, host="/nowhere"),
            dsn_of(live, user="nobody"),
            # Without libpq's functions the address is not known.
            dsn_of(port, host="localhost" if FAST_PATHS["receive"] == "on" else "127.0.0.1"),
        ):
            set_wait_callback(None)
            with pytest.raises(psycopg2.OperationalError) as blocking:
                psycopg2.connect(dsn)
            set_wait_callback(callback)
            with pytest.raises(psycopg2.OperationalError) as green:
                psycopg2.connect(dsn)
            assert str(green.value) == str(blocking.value)


def test_one_port_for_many_hosts(callback, live):
    dsn = dsn_of(live, host="127.0.0.2,127.0.0.1", connect_timeout=20)  # the server is at .1
    assert port_of(greenwait.connect(dsn)) == live


def test_host_and_hostaddr_keep_their_meaning(callback, live):
    with silent_listener() as bad:
        hosts = {"host": "one.invalid,two.invalid", "hostaddr": "127.0.0.1,127.0.0.1"}
        dsn = dsn_of(bad, live, connect_timeout=1, **hosts)
        conn = connected(greenwait.connect, dsn, live)
    assert conn.info.host == "two.invalid"  # and is never looked up
    assert port_of(conn) == live


def test_hostaddr_alone(callback, live):
    dsn = make_dsn(f"user={USER} dbname={DATABASE} port={live}", hostaddr="127.0.0.2,127.0.0.1")
    assert port_of(greenwait.connect(dsn)) == live


@pytest.mark.parametrize(
    "options",
    [{"host": "127.0.0.1,127.0.0.1", "port": "1,2,3"}, {"hostaddr": "127.0.0.1,127.0.0.1"}],
)
def test_lists_that_do_not_match_are_refused_as_ever(callback, options):
    with pytest.raises(psycopg2.OperationalError, match="could not match"):
        greenwait.connect(make_dsn(**{"host": "localhost,localhost,localhost"} | options))


def test_unix_socket_before_and_after(callback, server, live):
    with silent_listener() as bad:
        for hosts, ports in (
            (f"{server.directory},127.0.0.1", f"{live},{bad}"),
            (f"127.0.0.1,{server.directory}", f"{bad},{live}"),
        ):
            dsn = dsn_of(live, host=hosts, port=ports, connect_timeout=2)
            conn = greenwait.connect(dsn)
            assert conn.info.host == str(server.directory)
            conn.close()


# -- What libpq does with several hosts stays as it is


@pytest.fixture
def standby_like(server, live):
    """A database whose transactions are read-only, which is what libpq looks at."""
    name = "read_only"
    with contextlib.closing(psycopg2.connect(server.dsn("unix"))) as conn:
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute(f"drop role if exists {name}")
            cursor.execute(f"create role {name} login")
            cursor.execute(f"alter role {name} set default_transaction_read_only = on")
    return name


@pytest.mark.parametrize("attrs", ["read-write", "read-only", "any", "primary", "prefer-standby"])
def test_target_session_attrs_after_a_silent_host(callback, live, standby_like, attrs):
    user = standby_like if attrs == "read-only" else USER
    with silent_listener() as bad:
        dsn = dsn_of(bad, live, user=user, target_session_attrs=attrs, connect_timeout=1)
        assert port_of(connected(greenwait.connect, dsn, live)) == live


@pytest.mark.parametrize("attrs", ["read-only", "standby"])
def test_target_session_attrs_that_nobody_has(callback, live, attrs):
    with silent_listener() as bad, fails(2, within=1.95) as info:  # the server takes its time
        greenwait.connect(dsn_of(bad, live, target_session_attrs=attrs, connect_timeout=2))
    assert re.search(rf"port {bad} timed out after [2-9]\.\d s", str(info.value))
    assert f"port {live} failed" in str(info.value)


def test_primary_before_a_silent_host_is_come_back_to(callback, live):
    with silent_listener() as bad, refusing_port() as refusing:
        dsn = dsn_of(live, bad, refusing, target_session_attrs="prefer-standby", connect_timeout=1)
        assert port_of(connected(greenwait.connect, dsn, live, 2)) == live


@pytest.mark.skipif(psycopg2.extensions.libpq_version() < 160000, reason="libpq is older")
def test_load_balance_hosts_chooses_by_chance(callback, server, live):
    seen = set()
    with FaultProxy(server) as one, FaultProxy(server) as two:
        for _ in range(60):
            dsn = dsn_of(one.port, two.port, load_balance_hosts="random", connect_timeout=5)
            seen.add(port_of(greenwait.connect(dsn)))
            if len(seen) == 2:
                break
    assert seen == {one.port, two.port}


@pytest.mark.skipif(psycopg2.extensions.libpq_version() < 160000, reason="libpq is older")
def test_load_balance_hosts_and_a_silent_host(callback, live):
    """The order that was chosen is the one that is gone on with."""
    with silent_listener() as bad:
        dsn = dsn_of(live, bad, load_balance_hosts="random", connect_timeout=3)
        assert connect_in_threads(dsn, 16) == [live] * 16


def test_sslmode_prefer_falls_back(callback, server, live):
    """A server that refuses TLS is asked again without, as by libpq."""
    dsn = dsn_of(live, sslmode="allow", host="localhost", connect_timeout=5)
    conn = greenwait.connect(dsn)
    assert conn.info.ssl_in_use is False
    conn.close()
    conn = greenwait.connect(dsn_of(live, sslmode="prefer", host="localhost", connect_timeout=5))
    assert conn.info.ssl_in_use is ("tls" in server.transports)
    conn.close()


def test_name_is_verified_though_it_was_looked_up_here(callback, server, live):
    if "tls" not in server.transports:
        pytest.skip("no TLS")
    ca = server.directory / "ca.pem"
    own = {"sslmode": "verify-full", "sslrootcert": ca, "connect_timeout": 5}
    conn = greenwait.connect(dsn_of(live, host="localhost", **own))
    assert conn.info.ssl_in_use
    assert conn.info.host == "localhost"
    conn.close()


def test_name_that_is_not_in_the_certificate(callback, server, live, monkeypatch):
    if "tls" not in server.transports:
        pytest.skip("no TLS")
    own = {"sslmode": "verify-full", "sslrootcert": server.directory / "ca.pem"}
    with (
        name_server(monkeypatch, other="127.0.0.1"),
        pytest.raises(psycopg2.OperationalError, match='does not match host name "other'),
    ):
        greenwait.connect(dsn_of(live, host="other.invalid", **own))


# -- Names


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


# -- Deadlines and signals


def test_timeout_block_ends_it(connect_with):
    with silent_listener() as port, no_leaked_descriptors():
        began = time.monotonic()
        with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(0.3) as block:
            connect_with(dsn_of(port, connect_timeout=10))
        assert 0.29 <= time.monotonic() - began < 5
        info.value.__traceback__ = None
    assert block.expired
    assert info.value.pgcode == "57014"
    assert "It was still connecting; nothing is left of that" in str(info.value)


def test_timeout_block_is_for_all_hosts_together(callback):
    with (
        silent_listener() as one,
        silent_listener() as two,
        no_leaked_descriptors(),
        stalls() as stalled,
    ):
        began = time.monotonic()
        with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(1.3):
            greenwait.connect(dsn_of(one, two, connect_timeout=1))
        assert 1.29 <= time.monotonic() - began < 1.95 + sum(stalled)
        info.value.__traceback__ = None


def test_timeout_block_ends_a_look_up(callback, monkeypatch):
    with name_server(monkeypatch, slow=30):
        with (
            pytest.raises(greenwait.QueryTimeout, match="Nothing had been sent"),
            greenwait.timeout(0.2) as block,
        ):
            greenwait.connect(dsn_of(1, host=SLOW_NAME, connect_timeout=10))
        assert block.expired


class Interrupted(BaseException):
    pass


@contextlib.contextmanager
def interrupt_after(seconds, exception=Interrupted):
    def handler(number, frame):
        raise exception

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("exception", [Interrupted, KeyboardInterrupt, psycopg2.Error])
@pytest.mark.parametrize("kind", ["silent", "dropping"])
def test_interrupt_ends_it(connect_with, kind, exception):
    greenwait.stats(reset=True)
    with BAD_HOSTS[kind]() as port, no_leaked_descriptors():
        began = time.monotonic()
        with pytest.raises(exception) as info, interrupt_after(0.2, exception):
            connect_with(dsn_of(port, connect_timeout=10))
        assert time.monotonic() - began < 5
        info.value.__traceback__ = None
        gc.collect()
    assert greenwait.stats().cancels == 0


def test_interrupt_ends_a_look_up(callback, monkeypatch):
    with name_server(monkeypatch, slow=30):
        began = time.monotonic()
        with pytest.raises(Interrupted), interrupt_after(0.2):
            greenwait.connect(dsn_of(1, host=SLOW_NAME))
        assert time.monotonic() - began < 5


@pytest.mark.skipif(
    not hasattr(_socket, "socketpair"),
    reason="Python's own socketpair() loses a descriptor that an interrupt meets",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # between two lines of Python
def test_connecting_again_and_again_leaves_nothing_behind(callback, server, live):
    """Interrupts at every moment of connecting, also in the look-up's."""
    greenwait.connect(dsn_of(live, host="localhost")).close()
    done = interrupted = 0
    with no_leaked_descriptors():
        for i in range(300):
            conn = None
            try:
                with interrupt_after(0.0001 + i % 100 * 0.0001):
                    conn = greenwait.connect(dsn_of(live, host="localhost", connect_timeout=9))
                    done += 1
            except Interrupted as exc:
                interrupted += 1
                exc.__traceback__ = None
            finally:
                if conn is not None:
                    conn.close()
        del conn
        gc.collect()
    assert interrupted > 10, done


# -- connect() is psycopg2's otherwise


def test_connection_is_ours_by_default(callback, live):
    conn = greenwait.connect(dsn_of(live))
    assert type(conn) is greenwait.Connection
    conn.close()


def test_what_wraps_psycopg2_s_connect_can_change_the_factories(callback, live, monkeypatch):
    class Traced(psycopg2.extensions.cursor):
        pass

    def traced(*args, **kwargs):
        return original(*args, **kwargs | {"cursor_factory": Traced})

    async def main():
        conn = await greenwait.aio.connect(dsn_of(live))
        assert isinstance(conn.cursor(), Traced)
        await conn.close()

    original = psycopg2.connect
    monkeypatch.setattr(psycopg2, "connect", traced)
    with greenwait.Pool(dsn_of(live)) as pool, pool.connection() as conn:
        assert isinstance(conn.cursor(), Traced)
    asyncio.run(main())


def test_factories(callback, live):
    class Own(psycopg2.extensions.connection):
        pass

    cases: tuple[dict[str, Any], ...] = ({"connection_factory": Own}, {})
    for arguments in cases:
        conn = greenwait.connect(
            dsn_of(live), cursor_factory=psycopg2.extras.RealDictCursor, **arguments
        )
        assert type(conn) is arguments.get("connection_factory", greenwait.Connection)
        with conn.cursor() as cursor:
            cursor.execute("select 1 as one")
            assert cursor.fetchone() == {"one": 1}
        conn.close()
    conn = greenwait.connect(dsn_of(live), Own, psycopg2.extras.DictCursor)
    assert (type(conn), conn.cursor_factory) == (Own, psycopg2.extras.DictCursor)
    conn.close()


def test_without_any_callback(live, monkeypatch):
    set_wait_callback(None)
    with name_server(monkeypatch, db="127.0.0.1"):
        conn = greenwait.connect(dsn_of(live, host="db.invalid"))
    assert port_of(conn) == live


def test_keywords_only(callback, live):
    conn = greenwait.connect(**parse_dsn(dsn_of(live)))
    assert port_of(conn) == live


def test_async_connection_is_psycopg2s(callback, live, monkeypatch):
    """It is for the caller to wait for, and so nothing is waited for here."""
    with name_server(monkeypatch) as asked:
        flags: tuple[dict[str, Any], ...] = ({"async_": True}, {"async": 1})
        for flag in flags:
            conn = greenwait.connect(dsn_of(live, host="localhost"), **flag)
            greenwait.wait(conn)
            assert conn.async_
            conn.close()
    assert asked == []


def test_environment_only(callback, live, monkeypatch):
    own = parse_dsn(dsn_of(live))
    for name, value in own.items():
        variable = {"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}")
        monkeypatch.setenv(variable, value)
    assert port_of(greenwait.connect()) == live
    assert port_of(greenwait.connect("")) == live


@pytest.mark.parametrize(
    ("dsn", "options"),
    [("nonsense", {}), ("host", {"port": 1}), ("postgresql://[", {}), ("", {"nonsense": 1})],
)
def test_bad_connection_string_is_refused_as_by_psycopg2(callback, dsn, options):
    with pytest.raises(psycopg2.Error) as ours:
        greenwait.connect(dsn, **options)
    with pytest.raises(psycopg2.Error) as theirs:
        psycopg2.connect(dsn, **options)
    assert (type(ours.value), str(ours.value)) == (type(theirs.value), str(theirs.value))


def test_unknown_service_is_refused_as_by_psycopg2(callback):
    with pytest.raises(psycopg2.OperationalError, match='definition of service "none" not found'):
        greenwait.connect("service=none")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says how much there is")
def test_looking_at_a_connection_string_leaves_nothing_behind(live):
    """libpq's connection and its options are freed: some 20 KB."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(200):
        connection_options(dsn_of(live))
    before = resident()
    for _ in range(2000):
        assert connection_options(dsn_of(live))["port"] == str(live)
    assert resident() - before < 4_000_000


def test_special_characters_survive(callback, live, monkeypatch):
    with name_server(monkeypatch, db="127.0.0.1"):
        conn = greenwait.connect(
            dsn_of(
                live, host="db.invalid", application_name="it's \\ a 'name' = x", connect_timeout=5
            )
        )
    assert conn.info.parameter_status("application_name") == "it's \\ a 'name' = x"
    conn.close()


def test_password_file_is_looked_in_for_the_name(callback, server, live, monkeypatch, tmp_path):
    """The name stays in the connection string, beside the address."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"db.invalid:{live}:*:*:secret\n")
    passwords.chmod(0o600)
    with name_server(monkeypatch, db="127.0.0.1"):
        conn = greenwait.connect(dsn_of(live, host="db.invalid", passfile=str(passwords)))
    assert conn.info.password == "secret"
    conn.close()


def connect_in_threads(dsn, count):
    """Connect so many times at once; return where to."""
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(port_of(greenwait.connect(dsn))), daemon=True)
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def test_threads_connect_at_the_same_time(callback, live, monkeypatch):
    with name_server(monkeypatch, db="127.0.0.1"), silent_listener() as bad:
        began = time.monotonic()
        dsn = dsn_of(bad, live, host="db.invalid,db.invalid", connect_timeout=3)
        assert connect_in_threads(dsn, 8) == [live] * 8
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("context", ["plain", "hub", "asyncio"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_without_a_descriptor_it_says_so(run_program, context, host):
    said = run_program(
        "connect_without_descriptors", context, f"host={host}", transport="tcp"
    ).splitlines()
    assert len(said) == 5
    assert "Too many open files" in said[0]
    assert all("Too many open files" in each or each.endswith("connected") for each in said)
    assert said[-1] == "6 connected"
