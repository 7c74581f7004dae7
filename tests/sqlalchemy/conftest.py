"""Engines of the asynchronous dialect, on each kind of event loop."""

import contextlib
import uuid

import pytest
import sqlalchemy
from psycopg2.extensions import parse_dsn
from sqlalchemy.ext.asyncio import create_async_engine

from tests.lab.event_loops import LOOPS, runner


@pytest.fixture(params=LOOPS)
def run(request):
    """Return a function that runs a coroutine to its end, on each kind of event loop."""
    return runner(request.param)


@pytest.fixture
def arguments(server):
    """The connection's arguments for an engine; its connections have a name of the test's own."""
    name = {"application_name": f"sqlalchemy {uuid.uuid4()}"}
    return {"connect_args": parse_dsn(server.dsn(server.transports[0])) | name}


@pytest.fixture
def new_engine(arguments):
    """Return a function that makes an engine, whose connections are closed after the test."""
    made = contextlib.ExitStack()

    def new_engine(**options):
        engine = sqlalchemy.create_engine("postgresql+greenwait://", **arguments, **options)
        made.callback(engine.dispose)
        return engine

    with made:
        yield new_engine


@pytest.fixture
def new_async_engine(arguments):
    """Return a context manager: an async engine, nothing of which is in use at the end."""

    @contextlib.asynccontextmanager
    async def new_async_engine(url="postgresql+greenwait_async://", **options):
        engine = create_async_engine(url, **arguments, **options)
        yield engine
        if isinstance(engine.pool, sqlalchemy.QueuePool):
            assert engine.pool.checkedout() == 0
        await engine.dispose()

    return new_async_engine
