"""A host that does not answer fails after its ``connect_timeout``."""

import re

import psycopg2
import psycopg2.extras
import pytest

import greenwait
import greenwait.aio
from tests.lab.connecting import ONE_SECOND, dsn_of, fails, port_of
from tests.lab.fault_proxy import Fault, FaultProxy
from tests.lab.hosts import dropping_listener, silent_listener
from tests.lab.marks import needs_shutdown


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
