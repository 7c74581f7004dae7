"""Make the mistakes of one framework's programs, and print what each has raised, as JSON."""

import asyncio
import contextlib
import inspect
import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import psycopg2.extensions

import greenwait
from greenwait import aio
from tests.lab.mistakes import async_one, one

FRAMEWORK, DSN = sys.argv[1:]
PARTS = psycopg2.extensions.parse_dsn(DSN)
Mistakes = dict[str, Callable[[], Any]]


def with_gevent() -> Mistakes:
    import gevent

    module: Any = __import__("greenwait.gevent").gevent
    module.patch_psycopg()
    hub: Any = gevent.get_hub()
    hub.exception_stream = io.StringIO()

    def spawned(function: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: gevent.spawn(function).get()

    return {
        "patch_psycopg('epoll')": lambda: module.patch_psycopg("epoll"),
        "patch_psycopg(pollers=1)": lambda: module.patch_psycopg(pollers=1),
        "gevent.make_psycopg_green": lambda: module.make_psycopg_green,
        "gevent.run": lambda: module.run,
        "Hub in a greenlet": spawned(lambda: greenwait.Hub().__enter__()),
        "gather() in a greenlet": spawned(lambda: greenwait.gather(one)),
        "aio.run() in a greenlet": spawned(lambda: asyncio.run(aio.run(one))),
    }


def with_eventlet() -> Mistakes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        import eventlet

    module: Any = __import__("greenwait.eventlet").eventlet
    module.patch_psycopg()

    def spawned(function: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with contextlib.redirect_stderr(io.StringIO()):
                return eventlet.spawn(function).wait()

        return call

    return {
        "patch_psycopg('epoll')": lambda: module.patch_psycopg("epoll"),
        "eventlet.make_psycopg_green": lambda: module.make_psycopg_green,
        "gather() in a green thread": spawned(lambda: greenwait.gather(one)),
    }


def with_trio() -> Mistakes:
    import trio

    module: Any = __import__("greenwait.trio").trio
    greenwait.install()

    async def run_in_asyncio() -> None:
        await module.run(one)

    async def aio_run() -> None:
        await aio.run(one)

    async def aio_connect() -> None:
        await aio.connect(DSN)

    async def gather() -> None:
        await module.run(greenwait.gather, one)

    return {
        "run(async)": lambda: trio.run(module.run, async_one),
        "run(1)": lambda: trio.run(module.run, 1),
        "run() in asyncio": lambda: asyncio.run(run_in_asyncio()),
        "aio.run() in trio": lambda: trio.run(aio_run),
        "aio.connect() in trio": lambda: trio.run(aio_connect),
        "gather() in trio": lambda: trio.run(gather),
        "trio.connect": lambda: module.connect,
        "trio.create_pool": lambda: module.create_pool,
        "run() uninstalled": uninstalled(lambda: trio.run(module.run, one)),
    }


def with_sqlalchemy() -> Mistakes:
    import sqlalchemy
    from sqlalchemy.ext.asyncio import create_async_engine

    greenwait.install()
    for name, part in (
        ("HOST", "host"),
        ("PORT", "port"),
        ("USER", "user"),
        ("DATABASE", "dbname"),
    ):
        if part in PARTS:
            os.environ[f"PG{name}"] = PARTS[part]

    def engine(dialect: str = "greenwait", **options: Any) -> Any:
        return sqlalchemy.create_engine(f"postgresql+{dialect}://", **options)

    def connect(dialect: str = "greenwait", **options: Any) -> Callable[[], Any]:
        return lambda: engine(dialect, **options).connect()

    async def async_connect(**options: Any) -> None:
        new = create_async_engine("postgresql+greenwait_async://", **options)
        async with new.connect():
            pass

    async def awaited_connection() -> Any:
        return await aio.connect(DSN)

    async def sync_engine() -> None:
        create_async_engine("postgresql+greenwait_async://").sync_engine.connect()

    def exhausted() -> None:
        small = engine(pool_size=1, max_overflow=0, pool_timeout=0.05)
        with small.connect(), small.connect():
            pass

    def connect_with(**arguments: Any) -> Callable[[], Any]:
        return connect(connect_args=arguments)

    return {
        "create_engine(async dialect)": connect("greenwait_async"),
        "connect() of the sync_engine": sync_engine,
        "create_engine(greenwat)": lambda: engine("greenwat"),
        "pool_size='5'": connect(pool_size="5"),
        "pool_size=True": connect(pool_size=True),
        "max_overflow='x'": connect(max_overflow="x"),
        "pool_timeout='x'": connect(pool_timeout="x"),
        "pool_timeout=nan": connect(pool_timeout=float("nan")),
        "max_size=5": connect(max_size=5),
        "connect_args timeout": connect_with(timeout=1),
        "connect_args command_timeout": connect_with(command_timeout=1),
        "connect_args server_settings": connect_with(server_settings="x"),
        "connect_args conect_timeout": connect_with(conect_timeout=1),
        "connect_args AsyncConnection": connect_with(connection_factory=aio.AsyncConnection),
        "async_creator=aio.connect": lambda: async_connect(async_creator=awaited_connection),
        "QueuePool limit": exhausted,
        "uninstalled": uninstalled(async_connect),
    }


def with_django() -> Mistakes:
    from importlib import import_module

    module: Any = import_module("greenwait.django")
    django: Any = import_module("django")
    settings: Any = import_module("django.conf").settings
    greenwait.install()
    database = {
        "ENGINE": "greenwait.django",
        "NAME": PARTS["dbname"],
        "USER": PARTS.get("user", ""),
        "HOST": PARTS.get("host", ""),
        "PORT": PARTS.get("port", ""),
    }
    settings.configure(DATABASES={"default": database})
    django.setup()
    handler = import_module("django.db.utils").ConnectionHandler

    def use(**options: Any) -> Callable[[], Any]:
        def connect() -> None:
            wrapper = handler({"default": {**database, **options}})["default"]
            wrapper.ensure_connection()

        return connect

    def pool(**options: Any) -> Callable[[], Any]:
        return use(OPTIONS={"pool": options})

    return {
        "pool='yes'": use(OPTIONS={"pool": "yes"}),
        "pool=5": use(OPTIONS={"pool": 5}),
        "pool num_workers": pool(num_workers=1),
        "pool maxsize": pool(maxsize=1),
        "pool max_size=0": pool(max_size=0),
        "pool timeout='x'": pool(timeout="x"),
        "pool check=async": pool(check=async_one),
        "pool min_size > max_size": pool(min_size=3, max_size=2),
        "pool and CONN_MAX_AGE": use(OPTIONS={"pool": True}, CONN_MAX_AGE=5),
        "OPTIONS conect_timeout": use(OPTIONS={"conect_timeout": 1}),
        "OPTIONS prepare_threshold": use(OPTIONS={"prepare_threshold": 1}),
        "view(1)": lambda: module.view(1),
        "view(async)": lambda: module.view(async_one),
    }


async def awaited(found: Any) -> None:
    await found


def uninstalled(make: Callable[[], Any]) -> Callable[[], Any]:
    def mistake() -> Any:
        greenwait.uninstall()
        return make()

    return mistake


def raised(make: Callable[[], Any]) -> tuple[str, str]:
    try:
        found = make()
        if inspect.isawaitable(found):
            asyncio.run(awaited(found))
    except Exception as exc:
        return type(exc).__name__, str(exc)
    return "None", ""


mistakes: Mistakes = globals()[f"with_{FRAMEWORK}"]()
print(json.dumps({name: raised(make) for name, make in mistakes.items()}))
