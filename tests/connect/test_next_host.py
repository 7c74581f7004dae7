"""Every host has ``connect_timeout`` seconds, and the next one its turn."""

import contextlib
import re
import time

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import make_dsn, set_wait_callback

import greenwait
import greenwait.aio
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.connecting import (
    BAD_HOSTS,
    ONE_SECOND,
    connect_in_threads,
    connected,
    dsn_of,
    fails,
    name_server,
    port_of,
)
from tests.lab.fault_proxy import FaultProxy
from tests.lab.hosts import dropping_listener, refusing_port, silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_shutdown, needs_silent_shutdown
from tests.lab.postgres import DATABASE, USER

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
