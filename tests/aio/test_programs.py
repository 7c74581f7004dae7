"""Whole programs: an ORM below ``run()``, and the examples."""

import asyncio
import os
import re
import subprocess
import sys
import time

import psycopg2
import psycopg2.extras
import pytest

from greenwait import aio
from tests.lab import orm as orm_program
from tests.lab.bounds import bound
from tests.lab.programs import ROOT

# -- ORM


@pytest.mark.parametrize("pool", orm_program.POOLS)
def test_sqlalchemy_below_run(run, dsn, pool):
    async def main(engine):
        began = time.monotonic()
        calls = [aio.run(orm_program.write_and_read, engine, n) for n in range(20)]
        assert await asyncio.gather(*calls) == list(range(20))
        assert time.monotonic() - began < bound(6)  # 8 s and more one after the other

    with orm_program.engine(dsn, **orm_program.POOLS[pool]) as engine:
        run(main(engine))


def test_execute_values_below_run(run, dsn):
    async def main():
        began = time.monotonic()
        calls = [aio.run(orm_program.insert_many, dsn, n) for n in range(1, 21)]
        assert await asyncio.gather(*calls) == list(range(1, 21))
        assert time.monotonic() - began < bound(6)

    run(main())


# -- The examples


@pytest.fixture(scope="module")
def database_of_the_examples(own_server):
    """Their connection string, without a server's name, is for this."""
    conn = psycopg2.connect(own_server.dsn("unix"))
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("create role postgres login password 'secret'")
        cur.execute("create database test owner postgres")
    conn.close()
    conn = psycopg2.connect(own_server.dsn("unix", dbname="test", user="postgres"))
    with conn, conn.cursor() as cur:
        cur.execute("create table users (id int, name text)")
        cur.execute("insert into users values (1, 'Ada'), (2, 'Grace')")
    conn.close()
    where = psycopg2.extensions.parse_dsn(own_server.dsn("unix"))
    return {"PGHOST": where["host"], "PGPORT": where["port"]}


@pytest.mark.parametrize("name", ["fetch_data.py", "fetch_data_idiomatic.py"])
def test_example(database_of_the_examples, name):
    script = (ROOT / "examples" / name).read_text()
    if sys.version_info >= (3, 14):
        script = re.sub(r"(?m)^loop = .*\n.*", "asyncio.run(main())", script)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **database_of_the_examples},
        capture_output=True,
        text=True,
        timeout=bound(40),
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"'name'[,:] '(\w+)'", done.stdout) == ["Ada", "Grace"]
