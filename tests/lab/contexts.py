"""The seven contexts in which synchronous code waits, each for a process of its own."""

import asyncio
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import greenwait

__all__ = ["CONTEXTS", "run", "together"]

CONTEXTS = ("plain", "hub", "gevent", "eventlet", "asyncio", "uvloop", "trio")

_Job = Callable[[], Any]


def run(context: str, function: _Job) -> None:
    """Register greenwait's callback, and call the function in the context."""
    greenwait.install(cancel_grace=20)
    _RUN[context](function)


def together(context: str, jobs: Sequence[_Job]) -> list[Any]:
    """Call the jobs at the same time, in the context that runs; return their results."""
    return _TOGETHER[context](jobs)


def _run_in_hub(function: _Job) -> None:
    greenwait.gather(function)


def _run_in_gevent(function: _Job) -> None:
    import gevent

    from greenwait import gevent as adapter

    adapter.patch_psycopg(cancel_grace=20)
    gevent.spawn(function).get()


def _run_in_eventlet(function: _Job) -> None:
    warnings.simplefilter("ignore")  # eventlet advises against its use
    import eventlet

    from greenwait import eventlet as adapter

    adapter.patch_psycopg(cancel_grace=20)
    eventlet.spawn(function).wait()


def _run_in_asyncio(function: _Job) -> None:
    from greenwait import aio

    asyncio.run(aio.run(function))


def _run_in_uvloop(function: _Job) -> None:
    import uvloop

    from greenwait import aio

    uvloop.run(aio.run(function))


def _run_in_trio(function: _Job) -> None:
    import trio

    from greenwait import trio as adapter

    trio.run(adapter.run, function)


_RUN: dict[str, Callable[[_Job], object]] = {
    "plain": lambda function: function(),
    "hub": _run_in_hub,
    "gevent": _run_in_gevent,
    "eventlet": _run_in_eventlet,
    "asyncio": _run_in_asyncio,
    "uvloop": _run_in_uvloop,
    "trio": _run_in_trio,
}


def _in_threads(jobs: Sequence[_Job]) -> list[Any]:
    with ThreadPoolExecutor(len(jobs)) as executor:
        return [running.result() for running in [executor.submit(job) for job in jobs]]


def _in_hub(jobs: Sequence[_Job]) -> list[Any]:
    return list(greenwait.gather(*jobs))


def _in_gevent(jobs: Sequence[_Job]) -> list[Any]:
    import gevent

    return [job.get() for job in [gevent.spawn(job) for job in jobs]]


def _in_eventlet(jobs: Sequence[_Job]) -> list[Any]:
    import eventlet

    return [job.wait() for job in [eventlet.spawn(job) for job in jobs]]


def _in_asyncio(jobs: Sequence[_Job]) -> list[Any]:
    from greenwait import aio

    async def main() -> list[Any]:
        return await asyncio.gather(*(aio.run(job) for job in jobs))

    return aio.await_(main())


_TOGETHER: dict[str, Callable[[Sequence[_Job]], list[Any]]] = {
    "plain": _in_threads,
    "hub": _in_hub,
    "gevent": _in_gevent,
    "eventlet": _in_eventlet,
    "asyncio": _in_asyncio,
    "uvloop": _in_asyncio,
    "trio": _in_threads,  # code below greenwait.trio.run() can't open a nursery
}
