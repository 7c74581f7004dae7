"""``connect()`` is psycopg2's otherwise: its arguments, factories and refusals."""

import asyncio
import errno
import os
import time
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import parse_dsn, set_wait_callback

import greenwait
import greenwait.aio
from greenwait._psycopg.conninfo import connection_options
from tests.lab.connecting import connect_in_threads, dsn_of, name_server, port_of
from tests.lab.hosts import silent_listener
from tests.lab.marks import needs_flat_memory


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
    assert type(ours.value) is type(theirs.value)
    assert str(ours.value).startswith(str(theirs.value).strip())  # what to write may follow


def test_unknown_service_is_refused_as_by_psycopg2(callback):
    with pytest.raises(psycopg2.OperationalError, match='definition of service "none" not found'):
        greenwait.connect("service=none")


@needs_flat_memory
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
    assert os.strerror(errno.EMFILE) in said[0]
    assert all(os.strerror(errno.EMFILE) in each or each.endswith("connected") for each in said)
    assert said[-1] == "6 connected"
