"""Each web site of examples/ on a real server, with clients that hang up, and deadlines.

No answer is wrong, no connection stays in use, and no query is left on the server.
"""

import asyncio
import contextlib
import os
import subprocess
import sys

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL

from tests.lab.bounds import bound
from tests.lab.waiting import until
from tests.lab.websites import EXAMPLES, serving

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the servers are those of POSIX"),
    pytest.mark.timeout(bound(100)),
]

UVICORN = ("-m", "uvicorn", "--port={port}", "--log-level=warning")
GUNICORN = (
    "-m",
    "gunicorn",
    "--bind=127.0.0.1:{port}",
    "--worker-class=gevent",
    "--log-level=warning",
)
#: How each is started, and what must be installed for it.
SITES = {
    "Django": ((*UVICORN, "django_asgi:application"), ["django", "uvicorn"]),
    "FastAPI, async engine": ((*UVICORN, "fastapi_async:app"), ["fastapi", "uvicorn"]),
    "FastAPI, sync sessions": ((*UVICORN, "fastapi_sync:app"), ["fastapi", "uvicorn"]),
    "Flask, gunicorn": ((*GUNICORN, "flask_gevent:app"), ["flask", "gevent", "gunicorn"]),
    "Flask, gevent": (("flask_gevent.py",), ["flask", "gevent"]),
}
#: What SQLAlchemy calls the dialects.
DRIVERS = {
    "FastAPI, async engine": "postgresql+greenwait_async",
    "FastAPI, sync sessions": "postgresql+greenwait",
}
#: Those that notice it when a client hangs up.
NOTICE = ["Django", "FastAPI, async engine", "FastAPI, sync sessions"]


@pytest.fixture
def database(server):
    """The DSN of a database of the test's own."""
    name = f"examples_{os.getpid()}"
    with contextlib.closing(psycopg2.connect(server.dsn(server.transports[0]))) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        cur.execute(f"create database {name}")
        yield server.dsn(server.transports[0], dbname=name)
        cur.execute(f"drop database {name} with (force)")


@pytest.fixture
def serve(database, tmp_path):
    """Return a function that serves an example: a context manager."""

    def serve(name, **environment):
        command, packages = SITES[name]
        for package in packages:
            pytest.importorskip(package)
        if name == "Django":
            make_table = [sys.executable, str(EXAMPLES / "django_asgi.py")]
            subprocess.run(make_table, check=True, env=os.environ | {"DSN": database})
        where = parse_dsn(database)
        query = {"host": where["host"], "port": where["port"]}
        driver = DRIVERS.get(name, "postgresql")
        url = URL.create(
            driver, where.get("user"), where.get("password"), database=where["dbname"], query=query
        )
        environment |= {"DSN": database, "DATABASE_URL": url.render_as_string(hide_password=False)}
        return serving(command, tmp_path / "log", **environment)

    return serve


@pytest.fixture
def under_way(database):
    """Return a function that counts the sessions that do something, or are in a transaction."""
    with contextlib.closing(psycopg2.connect(database)) as conn:
        conn.autocommit = True
        cur = conn.cursor()

        def count():
            cur.execute(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and backend_type = 'client backend' and state <> 'idle'"
                " and pid <> pg_backend_pid()"
            )
            return cur.fetchall()[0][0]

        yield count


@pytest.mark.parametrize("name", SITES)
def test_site_answers_right_and_leaves_nothing(serve, under_way, name):
    with serve(name, DEADLINE=str(bound(3))) as site:
        asyncio.run(site.open_accounts())
        asyncio.run(site.use())
        until(lambda: site.in_use() == 0)
        until(lambda: under_way() == 0)
        status, found = asyncio.run(site.ask("GET", "/report", seconds=0))
        assert (status, found) == (200, {"total": 400})


@pytest.mark.parametrize("name", NOTICE)
def test_query_ends_when_its_client_hangs_up(serve, under_way, name):
    if name == "Django" and pytest.importorskip("django").VERSION < (5,):
        pytest.skip("Django 4.2 does not notice it")
    with serve(name, DEADLINE="600") as site:

        async def hang_up():
            _, writer = await site.connect("GET", "/report", seconds=600)
            while not under_way():
                await asyncio.sleep(0.01)
            writer.close()

        asyncio.run(asyncio.wait_for(hang_up(), bound(40)))
        until(lambda: under_way() == 0)
        until(lambda: site.in_use() == 0)
