"""Mistakes that newcomers make: what each is made with, and how it is to be told.

A table has a row for each: the exception's class, words of its message (a regular expression), and
the function that makes the mistake. It gets a ``Lab``; what it returns is awaited if it can be.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import psycopg2.extensions
import pytest

import greenwait
from greenwait import aio

__all__ = [
    "NOT_NEGATIVE",
    "SECONDS",
    "SYNCHRONOUS",
    "Async",
    "Lab",
    "Table",
    "async_many",
    "async_one",
    "closed",
    "in_async_pool",
    "in_asyncio",
    "in_hub",
    "in_pool",
    "one",
    "tell",
    "uninstalled",
]

Table: TypeAlias = dict[str, tuple[type[BaseException], str, Callable[["Lab"], Any]]]

SYNCHRONOUS = "takes a synchronous function, and .* is an async one.*await it in asyncio"
SECONDS = "must be a number of seconds"
NOT_NEGATIVE = "it must be 0 or more seconds"


def one() -> int:
    return 1


async def async_one(*args: Any) -> int:
    return 1


async def async_many() -> Any:
    yield 1


class Async:
    async def __call__(self) -> int:
        return 1

    async def method(self) -> int:
        return 1


class Lab:
    """What a mistake is made with; untyped, since a type checker would tell most of them."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.any: Any = greenwait
        self.aio: Any = aio
        self.conn: Any = greenwait.connect(dsn)

    def pool(self, **options: Any) -> Any:
        return self.any.Pool(self.dsn, **options)

    @property
    def cur(self) -> Any:
        return self.conn.cursor()


def tell(server: Any, mistakes: Table, name: str) -> None:
    """Make a mistake, and check what is told."""
    kind, words, make = mistakes[name]
    with greenwait.installed():
        lab = Lab(server.dsn(server.transports[0]))
        with contextlib.closing(lab.conn), pytest.raises(kind, match="(?s)" + words) as caught:
            found = make(lab)
            if inspect.isawaitable(found):
                asyncio.run(_awaited(found))
        assert "__cinit__" not in str(caught.value)


async def _awaited(found: Any) -> None:
    await found


def closed(lab: Lab) -> Any:
    """Return the lab's connection, closed."""
    lab.conn.close()
    return lab.conn


def in_hub(make: Callable[[Any], Any]) -> Callable[[Lab], Any]:
    """Return a mistake with a hub that is entered."""

    def mistake(lab: Lab) -> Any:
        with greenwait.Hub() as hub:
            return make(hub)

    return mistake


def in_pool(make: Callable[[Any], Any], **options: Any) -> Callable[[Lab], Any]:
    """Return a mistake with a pool."""

    def mistake(lab: Lab) -> None:
        with lab.pool(**{"max_size": 1, **options}) as pool:
            make(pool)

    return mistake


def in_asyncio(make: Callable[[Any, Any], Any]) -> Callable[[Lab], Any]:
    """Return a mistake with an ``AsyncConnection`` and a cursor."""

    async def mistake(lab: Lab) -> None:
        conn = await aio.connect(lab.dsn)
        with contextlib.closing(conn):
            found = make(conn, conn.cursor())
            if inspect.isawaitable(found):
                await found

    return mistake


def in_async_pool(make: Callable[[Any], Any]) -> Callable[[Lab], Any]:
    """Return a mistake with an ``AsyncPool``."""

    async def mistake(lab: Lab) -> None:
        async with aio.create_pool(lab.dsn, max_size=1) as pool:
            found = make(pool)
            if inspect.isawaitable(found):
                await found

    return mistake


def uninstalled(make: Callable[[Lab], Any]) -> Callable[[Lab], Any]:
    """Return a mistake that is made without greenwait's callback."""

    async def awaited(found: Any) -> None:
        await found

    def mistake(lab: Lab) -> None:
        callback = psycopg2.extensions.get_wait_callback()
        psycopg2.extensions.set_wait_callback(None)
        try:
            found = make(lab)
            if inspect.isawaitable(found):
                asyncio.run(awaited(found))
        finally:
            psycopg2.extensions.set_wait_callback(callback)

    return mistake
