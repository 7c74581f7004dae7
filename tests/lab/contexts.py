"""The seven contexts in which synchronous code waits, each for a process of its own."""

import asyncio
import atexit
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import greenlet

import greenwait

__all__ = ["CONTEXTS", "Context"]

_Job = Callable[[], Any]


class Context:
    """The main thread; others are threads beside it.

    Its methods are called by the main thread, and not by the functions that they call.

    :param options: those of the wait callback, which is registered.
    """

    killed_by: type[BaseException] = KeyboardInterrupt

    def __init__(self, **options: Any) -> None:
        greenwait.install(**options)

    def run(self, job: _Job) -> Any:
        """Call the function, and return what it returns."""
        return job()

    def together(self, jobs: Sequence[_Job], at_once: int | None = None) -> list[Any]:
        """Call the functions at the same time, at most so many; return their results, in order."""
        with ThreadPoolExecutor(at_once or len(jobs)) as executor:
            return [running.result() for running in [executor.submit(job) for job in jobs]]

    def many(self, function: Callable[[int], Any], count: int, at_once: int) -> list[Any]:
        """Call it with the numbers below *count*, and return the results, in order."""
        return self.together([_bound(function, number) for number in range(count)], at_once)

    def kill(self, job: _Job, seconds: float) -> None:
        """Call it, and kill it some time later, by what raises ``killed_by`` in it."""
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
        job()


def _bound(function: Callable[[int], Any], number: int) -> _Job:
    return lambda: function(number)


def _call(job: _Job) -> Any:
    return job()


class _Hub(Context):
    killed_by = greenlet.GreenletExit

    def run(self, job: _Job) -> Any:
        with greenwait.Hub() as hub:
            return hub.spawn(job).result()

    def together(self, jobs: Sequence[_Job], at_once: int | None = None) -> list[Any]:
        return greenwait.gather(*jobs, limit=at_once)

    def kill(self, job: _Job, seconds: float) -> None:
        with greenwait.Hub() as hub:
            spawned = hub.spawn(job)
            hub.sleep(seconds)
            spawned.cancel()
            spawned.result()


class _Gevent(Context):
    killed_by = greenlet.GreenletExit

    def __init__(self, **options: Any) -> None:
        import gevent.pool

        from greenwait.gevent import patch_psycopg

        patch_psycopg(**options)
        self.gevent: Any = gevent

    def run(self, job: _Job) -> Any:
        return self.gevent.spawn(job).get()

    def together(self, jobs: Sequence[_Job], at_once: int | None = None) -> list[Any]:
        found: list[Any] = self.gevent.pool.Pool(at_once).map(_call, jobs)
        return found

    def kill(self, job: _Job, seconds: float) -> None:
        spawned = self.gevent.spawn(job)
        self.gevent.sleep(seconds)
        spawned.kill()


class _Eventlet(Context):
    killed_by = greenlet.GreenletExit

    def __init__(self, **options: Any) -> None:
        warnings.simplefilter("ignore")  # eventlet advises against its use
        import eventlet

        from greenwait.eventlet import patch_psycopg

        patch_psycopg(**options)
        self.eventlet: Any = eventlet

    def run(self, job: _Job) -> Any:
        return self.eventlet.spawn(job).wait()

    def together(self, jobs: Sequence[_Job], at_once: int | None = None) -> list[Any]:
        return list(self.eventlet.GreenPool(at_once or len(jobs)).imap(_call, jobs))

    def kill(self, job: _Job, seconds: float) -> None:
        spawned = self.eventlet.spawn(job)
        self.eventlet.sleep(seconds)
        spawned.kill()  # it does not wait
        spawned.wait()


class _Asyncio(Context):
    """Tasks of one event loop; not by ``asyncio.run()``, which has a handler of SIGINT."""

    killed_by = asyncio.CancelledError

    def __init__(self, **options: Any) -> None:
        from greenwait import aio

        super().__init__(**options)
        self.aio = aio
        self.loop = self.new_event_loop()
        atexit.register(self.loop.close)

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def run(self, job: _Job) -> Any:
        return self.loop.run_until_complete(self.aio.run(job))

    def together(self, jobs: Sequence[_Job], at_once: int | None = None) -> list[Any]:
        gate = asyncio.Semaphore(at_once or len(jobs))

        async def call(job: _Job) -> Any:
            async with gate:
                return await self.aio.run(job)

        async def main() -> list[Any]:
            return await asyncio.gather(*map(call, jobs))

        return self.loop.run_until_complete(main())

    def kill(self, job: _Job, seconds: float) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(self.aio.run(job))
            await asyncio.sleep(seconds)
            task.cancel()
            await task

        self.loop.run_until_complete(main())


class _Uvloop(_Asyncio):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        return uvloop.new_event_loop()


class _Trio(Context):
    def __init__(self, **options: Any) -> None:
        import trio

        from greenwait import trio as adapter

        super().__init__(**options)
        self.trio, self.adapter = trio, adapter
        self.killed_by = trio.Cancelled

    def run(self, job: _Job) -> Any:
        return self.trio.run(self.adapter.run, job)

    def together(self, jobs: Sequence[_Job], at_once: int | None = None) -> list[Any]:
        results: list[Any] = [None] * len(jobs)

        async def main() -> None:
            limiter = self.trio.CapacityLimiter(at_once or len(jobs))

            async def call(number: int) -> None:
                async with limiter:
                    results[number] = await self.adapter.run(jobs[number])

            async with self.trio.open_nursery() as nursery:
                for number in range(len(jobs)):
                    nursery.start_soon(call, number)

        self.trio.run(main)
        return results

    def kill(self, job: _Job, seconds: float) -> None:
        async def main() -> None:
            with self.trio.move_on_after(seconds):
                await self.adapter.run(job)

        self.trio.run(main)


#: By their names.
CONTEXTS: dict[str, type[Context]] = {
    "plain": Context,
    "hub": _Hub,
    "gevent": _Gevent,
    "eventlet": _Eventlet,
    "asyncio": _Asyncio,
    "uvloop": _Uvloop,
    "trio": _Trio,
}
