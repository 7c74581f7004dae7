"""Django, whose connections are of greenwait's class."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

sys.__dict__["modules"]["psycopg"] = None  # it would be preferred
import django
from django.conf import settings
from psycopg2.extensions import parse_dsn

import greenwait

options = parse_dsn(sys.argv[1])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": options["dbname"],
            "USER": options["user"],
            "HOST": options["host"],
            "PORT": options["port"],
            "OPTIONS": {
                "connection_factory": greenwait.Connection,
                "cursor_factory": greenwait.Cursor,
            },
        }
    },
    USE_TZ=True,
)
django.setup()
from django.db import connection, transaction

atomic: Any = transaction.atomic
greenwait.install()


def work(number):
    try:
        with atomic(), connection.cursor() as cur:
            cur.execute("select %s from pg_sleep(0.05)", [number])
            assert type(connection.connection) is greenwait.Connection
            assert isinstance(cur.cursor, greenwait.Cursor)
            return cur.fetchone()[0]
    finally:
        connection.close()


assert work(42) == 42
# It keeps a connection for each thread, which jobs would share, and its transaction with it.
with ThreadPoolExecutor(10) as threads:
    assert list(threads.map(work, range(10))) == list(range(10))
print("well")
