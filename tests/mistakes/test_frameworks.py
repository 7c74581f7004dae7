"""Mistakes in the programs of frameworks, each in a process of its own; each is told what to do."""

import functools
import json
import re
from importlib.util import find_spec
from typing import Any

import pytest

from tests.lab.mistakes import SECONDS
from tests.lab.programs import run_program

BY_NAME = r"patch_psycopg\(\) takes its options by name"
POOLS = "min_size, max_size, timeout, max_idle, max_lifetime, check, configure, reset"

MISTAKES = {
    "gevent": {
        "patch_psycopg('epoll')": ("TypeError", BY_NAME),
        "patch_psycopg(pollers=1)": ("TypeError", "no option 'pollers'; it accepts: poller"),
        "gevent.make_psycopg_green": ("AttributeError", r"it is patch_psycopg\(\)"),
        "gevent.run": ("AttributeError", "it is not needed"),
        "Hub in a greenlet": ("RuntimeError", r"use gevent.spawn\(\) and gevent.joinall\(\)"),
        "gather() in a greenlet": ("RuntimeError", r"use gevent.spawn\(\) and gevent.joinall\(\)"),
        "aio.run() in a greenlet": ("RuntimeError", r"use gevent.spawn\(\)"),
    },
    "eventlet": {
        "patch_psycopg('epoll')": ("TypeError", BY_NAME),
        "eventlet.make_psycopg_green": ("AttributeError", r"it is patch_psycopg\(\)"),
        "gather() in a green thread": ("RuntimeError", "use eventlet.GreenPool"),
    },
    "trio": {
        "run(async)": ("TypeError", r"greenwait.trio.run\(\) takes a synchronous function"),
        "run(1)": ("TypeError", "takes a function, not 'int'"),
        "run() in asyncio": ("RuntimeError", r"in asyncio, use greenwait.aio.run\(\)"),
        "aio.run() in trio": ("RuntimeError", r"in trio, use greenwait.trio.run\(\)"),
        "aio.connect() in trio": ("RuntimeError", r"in trio, use greenwait.trio.run\(\)"),
        "gather() in trio": ("RuntimeError", "use a nursery"),
        "trio.connect": ("AttributeError", r"await greenwait.trio.run\(greenwait.connect, dsn\)"),
        "trio.create_pool": ("AttributeError", "use a greenwait.Pool"),
        "run() uninstalled": ("RuntimeError", r"call greenwait.install\(\) first"),
    },
    "sqlalchemy": {
        "create_engine(async dialect)": ("MissingGreenlet", r"made by create_async_engine\(\)"),
        "connect() of the sync_engine": ("MissingGreenlet", r"made by create_async_engine\(\)"),
        "create_engine(greenwat)": ("NoSuchModuleError", "postgresql.greenwat"),
        "pool_size='5'": ("TypeError", "pool_size must be a number of connections, not 'str'"),
        "pool_size=True": ("TypeError", "pool_size must be a number of connections, not 'bool'"),
        "max_overflow='x'": ("TypeError", "max_overflow must be a number of connections"),
        "pool_timeout='x'": ("TypeError", "pool_timeout " + SECONDS),
        "pool_timeout=nan": ("TypeError", "pool_timeout " + SECONDS),
        "max_size=5": ("TypeError", "'max_size' sent to create_engine"),
        "connect_args timeout": ("ProgrammingError", "it is connect_timeout"),
        "connect_args command_timeout": ("ProgrammingError", r"it is greenwait.timeout\(\)"),
        "connect_args server_settings": ("ProgrammingError", "it is options='-c"),
        "connect_args conect_timeout": ("ProgrammingError", "did you mean connect_timeout?"),
        "connect_args AsyncConnection": ("TypeError", "takes a connection .* not awaited"),
        "async_creator=aio.connect": ("TypeError", "takes a connection .* not awaited"),
        "QueuePool limit": ("TimeoutError", "QueuePool limit of size 1"),
        "uninstalled": ("RuntimeError", r"call greenwait.install\(\) first"),
    },
    "django": {
        "pool='yes'": ("ImproperlyConfigured", "is True or a dict, not 'yes'"),
        "pool=5": ("ImproperlyConfigured", "is True or a dict, not 5"),
        "pool num_workers": ("ImproperlyConfigured", "psycopg_pool's, .*" + POOLS),
        "pool maxsize": ("ImproperlyConfigured", POOLS + ": did you mean max_size?"),
        "pool max_size=0": ("ImproperlyConfigured", "max_size=0: it must be 1 or more"),
        "pool timeout='x'": ("ImproperlyConfigured", "timeout " + SECONDS),
        "pool check=async": ("ImproperlyConfigured", "check takes a synchronous function"),
        "pool min_size > max_size": ("ImproperlyConfigured", "min_size=3 is more than"),
        "pool and CONN_MAX_AGE": ("ImproperlyConfigured", "leave that at 0"),
        "OPTIONS conect_timeout": ("ProgrammingError", "did you mean connect_timeout?"),
        "OPTIONS prepare_threshold": ("ProgrammingError", "psycopg2 prepares no statements"),
        "view(1)": ("TypeError", "a view is a function, not 'int'"),
        "view(async)": ("TypeError", r"await greenwait.aio.run\(\) in it"),
    },
}


@functools.cache
def raised_in(framework: str, dsn: str) -> Any:
    printed = run_program("mistakes", framework, dsn)
    return json.loads(printed.splitlines()[-1])


@pytest.mark.parametrize(
    ("framework", "mistake"),
    [(framework, mistake) for framework, table in MISTAKES.items() for mistake in table],
)
def test_mistake(server: Any, framework: str, mistake: str) -> None:
    if find_spec(framework) is None:  # importing eventlet would warn here, and of each fork
        pytest.skip(f"needs {framework}")
    kind, words = MISTAKES[framework][mistake]
    found, message = raised_in(framework, server.dsn(server.transports[0]))[mistake]
    assert found == kind, message
    assert re.search(words, message, re.DOTALL), message
