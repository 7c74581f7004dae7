"""A database of the run's own, and programs with Django in processes of their own."""

import contextlib
import os

import psycopg2
import pytest

from tests.lab import programs

PRELUDE = """
import sys
from tests.lab.django_site import configure
configure(sys.argv[1], {database!r}, **{settings!r})
from django.db import connection, connections, transaction
from tests.lab.django_site.models import Thing
import greenwait, greenwait.aio
greenwait.install()
Thing.objects.all().delete()
connection.close()
"""


@pytest.fixture(scope="session")
def database(server):
    """The DSN of a database that has the site's tables."""
    name = f"django_{os.getpid()}"
    with contextlib.closing(psycopg2.connect(server.dsn(server.transports[0]))) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        cur.execute(f"create database {name}")
        dsn = server.dsn(server.transports[0], dbname=name)
        programs.run_code(
            "import sys; from tests.lab.django_site import configure; configure(sys.argv[1])\n"
            "from django.core.management import call_command; call_command('migrate', verbosity=0)",
            dsn,
        )
        yield dsn
        cur.execute(f"drop database {name} with (force)")


@pytest.fixture
def run_django(database):
    """Return a function that runs code below ``configure()``, and returns what it printed."""

    def run(code, database_settings=None, timeout=40, **settings):
        prelude = PRELUDE.format(database=database_settings or {}, settings=settings)
        return programs.run_code(prelude + code, database, timeout=timeout)

    return run
