"""How does each context run jobs at the same time, and interrupt them?

``play()`` returns when all have ended. The framework's module is imported by the process that
is to use it, and by no other.
"""

import contextlib
import random
import signal
import threading
import time
import warnings
from collections import deque
from typing import Any

from greenlet import GreenletExit

import greenwait
from tests.random_moments import Interrupted

LONGEST = 50  # seconds that a round may take; the watchdog waits longer


class Context:
    """What they have in common."""

    # What an interrupt is, for the code that is interrupted,
    interrupts: tuple[type[BaseException], ...] = ()
    timeouts: tuple[type[BaseException], ...] = ()  # and one of the framework's own limits
    limits: tuple[Any, ...] = (greenwait.timeout,)
    has_hub = False  # may there be a hub of ours?
    has_native = False  # are there jobs that await?
    has_signals = False  # do interrupts come between any two bytecodes?

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    install = staticmethod(greenwait.install)

    def play(self, jobs):
        """Run these at the same time, and interrupt them at their moments."""
        raise NotImplementedError

    def pause(self, seconds):
        """Let pass so much time, in which the framework does what it has to."""
        time.sleep(seconds)

    def quietly(self, job):
        """Run it; it keeps all but what interrupts it, and that is no news."""
        with contextlib.suppress(*self.interrupts):
            job()

    def call(self, function):
        """Return what *function* returns in this context."""
        results = []
        self.play([_Call(lambda: results.append(function()))])
        return results[0]


class _Call:
    """What is no job, and is not interrupted."""

    moments = ()
    is_native = False
    conn = None
    is_over = False

    def __init__(self, function):
        self.function = function

    def __call__(self):
        self.function()


class Threads(Context):
    """The main thread, struck by signals, and some others, whose queries are cancelled."""

    interrupts = (Interrupted,)
    has_hub = has_signals = True

    def play(self, jobs):
        share = max(1, len(jobs) // 4)
        for job in jobs[share:]:
            job.is_surely_interrupted = False
        others = deque(jobs[share:])
        threads = [threading.Thread(target=self._work, args=(others,)) for _ in range(6)]
        threads.append(threading.Thread(target=self._cancel, args=(jobs[share:],)))
        for thread in threads:
            thread.daemon = True
            thread.start()
        for job in jobs[:share]:
            self._alarmed(job)
        for thread in threads:
            thread.join(LONGEST)
            assert not thread.is_alive(), "a thread has not ended"

    def _work(self, jobs):
        with contextlib.suppress(IndexError):
            while True:
                jobs.popleft()()

    def _cancel(self, jobs):
        """Cancel by hand what is to be, and is at work on a connection that nobody else gets."""
        for job in jobs:
            if job.moments and job.way == "new":
                job.was_canceled = True
                time.sleep(job.moments[0])
                if job.conn is not None and not job.is_over and not job.conn.closed:
                    with contextlib.suppress(Exception):
                        greenwait.cancel(job.conn)

    def _alarmed(self, job):
        def handler(*_):
            raise Interrupted

        before = signal.signal(signal.SIGALRM, handler)
        try:
            for moment in job.moments:
                signal.setitimer(signal.ITIMER_REAL, max(moment, 1e-6))
            job()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            pass
        finally:
            while True:
                with contextlib.suppress(Interrupted):
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    break
            signal.signal(signal.SIGALRM, before)


class Hub(Context):
    """Jobs of greenwait's own hub, cancelled by others of it."""

    interrupts = (GreenletExit, Interrupted)
    has_hub = True

    def pause(self, seconds):
        with greenwait.Hub() as hub:
            hub.sleep(seconds)

    def play(self, jobs):
        with greenwait.Hub() as hub:
            for job in jobs:
                spawned = hub.spawn(self.quietly, job)
                for moment in job.moments:
                    hub.spawn(_cancel_later, hub, moment, spawned)


def _cancel_later(hub, seconds, job):
    hub.sleep(seconds)
    job.cancel()


class Gevent(Context):
    """gevent's greenlets, killed, or struck by its Timeout; some rounds in a thread besides."""

    def __init__(self, rng):
        super().__init__(rng)
        import gevent

        from greenwait.gevent import patch_psycopg

        self.gevent, self.install = gevent, patch_psycopg
        self.interrupts = (gevent.GreenletExit, Interrupted)
        self.timeouts = (gevent.Timeout,)
        self.limits = (greenwait.timeout, gevent.Timeout)

    def pause(self, seconds):
        self.gevent.sleep(seconds)

    def play(self, jobs):
        half = len(jobs) // 2 if self.rng.random() < 0.2 else 0
        thread = threading.Thread(target=self._play_in_thread, args=(jobs[:half],), daemon=True)
        if half:
            thread.start()
        self._play(jobs[half:])
        if half:
            while thread.is_alive():
                self.gevent.sleep(0.01)

    def _play_in_thread(self, jobs):
        try:
            self._play(jobs)
        finally:
            self.gevent.get_hub().destroy(destroy_loop=True)

    def _play(self, jobs):
        spawned = []
        for job in jobs:
            greenlet = self.gevent.spawn(self.quietly, job)
            spawned.append(greenlet)
            for moment in job.moments:
                kind = self.rng.choice(self.interrupts)
                spawned.append(self.gevent.spawn_later(moment, greenlet.kill, kind, block=False))
        self.gevent.joinall(spawned, timeout=LONGEST)
        assert all(each.ready() for each in spawned), "a greenlet has not ended"


class Eventlet(Context):
    """eventlet's green threads, killed, or struck by its Timeout."""

    def __init__(self, rng):
        super().__init__(rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import eventlet

            from greenwait.eventlet import patch_psycopg

        self.eventlet, self.install = eventlet, patch_psycopg
        self.interrupts = (GreenletExit, Interrupted)
        self.timeouts = (eventlet.Timeout,)
        self.limits = (greenwait.timeout, eventlet.Timeout)

    def pause(self, seconds):
        self.eventlet.sleep(seconds)

    def play(self, jobs):
        spawned = []
        for job in jobs:
            greenlet = self.eventlet.spawn(self.quietly, job)
            spawned.append(greenlet)
            for moment in job.moments:
                kind = self.rng.choice(self.interrupts)
                spawned.append(
                    self.eventlet.spawn_after(moment, self.eventlet.kill, greenlet, kind)
                )
        with self.eventlet.Timeout(LONGEST, AssertionError("a green thread has not ended")):
            for each in spawned:
                with contextlib.suppress(*self.interrupts):  # it had not begun
                    each.wait()


class Asyncio(Context):
    """Tasks, cancelled, of code that is synchronous and of code that awaits."""

    has_native = True

    def __init__(self, rng):
        super().__init__(rng)
        import asyncio

        from greenwait import aio

        self.asyncio, self.aio = asyncio, aio
        self.interrupts = (asyncio.CancelledError,)
        self.loop = self.new_loop()

    def new_loop(self):
        return self.asyncio.new_event_loop()

    def pause(self, seconds):
        self.loop.run_until_complete(self.asyncio.sleep(seconds))

    def play(self, jobs):
        self.loop.run_until_complete(self._play(jobs))

    def create_pool(self, dsn, **options):
        """Return a pool of connections whose methods are awaited."""
        return self.loop.run_until_complete(self.aio.create_pool(dsn, **options))

    def close_pool(self, pool):
        self.loop.run_until_complete(pool.close())

    async def _play(self, jobs):
        tasks = []
        for job in jobs:
            begun = job.natively() if job.is_native else self.aio.run(job)
            tasks.append(self.loop.create_task(begun))
            for moment in job.moments:
                self.loop.call_later(moment, tasks[-1].cancel)
        _, pending = await self.asyncio.wait(tasks, timeout=LONGEST)
        assert not pending, pending
        for task in tasks:
            if not task.cancelled():
                task.result()


class Uvloop(Asyncio):
    """The same on uvloop."""

    def new_loop(self):
        import uvloop

        return uvloop.new_event_loop()


class Trio(Context):
    """trio's tasks, in cancel scopes; each round has a trio.run() of its own."""

    def __init__(self, rng):
        super().__init__(rng)
        import trio

        from greenwait.trio import run

        self.trio, self.run = trio, run
        self.interrupts = (trio.Cancelled,)

    def pause(self, seconds):
        self.trio.run(self.trio.sleep, seconds)

    def play(self, jobs):
        self.trio.run(self._play, jobs)

    async def _play(self, jobs):
        with self.trio.fail_after(LONGEST):
            async with self.trio.open_nursery() as nursery:
                for job in jobs:
                    nursery.start_soon(self._one, job)

    async def _one(self, job):
        with self.trio.CancelScope() as scope:
            if job.moments:
                scope.deadline = self.trio.current_time() + job.moments[0]
            await self.run(job)


CONTEXTS = {
    kind.__name__.lower(): kind for kind in (Threads, Hub, Gevent, Eventlet, Asyncio, Uvloop, Trio)
}
