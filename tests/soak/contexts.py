"""How does each context run jobs at the same time, and interrupt them?

``play()`` returns when all have ended. The framework's module is imported by the process that
is to use it, and by no other.
"""

import contextlib
import queue
import random
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from concurrent.futures import CancelledError
from typing import Any

from greenlet import GreenletExit

import greenwait
from tests.lab.random_moments import Interrupted

_SIGNALS = {
    Interrupted: signal.SIGALRM,
    KeyboardInterrupt: signal.SIGINT,
    SystemExit: signal.SIGTERM,
}
LONGEST = 50  # seconds that a round may take; the watchdog waits longer


class Context:
    """What they have in common."""

    # What an interrupt is, for the code that is interrupted,
    interrupts: tuple[type[BaseException], ...] = ()
    timeouts: tuple[type[BaseException], ...] = ()  # and one of the framework's own limits
    limits: tuple[Any, ...] = (greenwait.timeout,)
    has_hub = False  # may there be a hub of ours?
    has_native = False  # are there jobs that await?
    signals: tuple[type[BaseException], ...] = ()  # what a handler may raise between two bytecodes

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    install = staticmethod(greenwait.install)

    def play(self, jobs):
        """Run these at the same time, and interrupt them at their moments."""
        raise NotImplementedError

    def end(self):
        """Let go of what is kept from one play to the next."""

    def pause(self, seconds):
        """Let pass so much time, in which the framework does what it has to."""
        time.sleep(seconds)

    # Pairs of interrupts, pairs.py

    def is_interruptible(self, job) -> bool:
        """Can *job* interrupt itself?"""
        return True

    def kinds(self):
        """Return the classes of what may interrupt a job."""
        return self.interrupts

    def armed(self, job, pair, seconds, kind):
        """Return a block in which *job* is interrupted after *seconds*, which *pair* is told."""
        raise NotImplementedError

    def quietly(self, job):
        """Run it; it keeps all but what interrupts it, and that is no news."""
        with contextlib.suppress(*self.interrupts):
            job()

    def call(self, function):
        """Return what *function* returns in this context."""
        results = []
        self.play([_Call(lambda: results.append(function()))])
        return results[0]


def _signal_main_thread(number):
    """Have it handled before that thread sets another handler; another might get the process's."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, number)


def throw_at(job, exc):
    """Note that *exc*, or one of that class, is thrown at a job that has begun, and is not over."""
    if not job.is_over and getattr(job, "thrown", None) is not None:
        job.thrown.append(exc)


def contexts_of(exc):
    """Return *exc* and what it was raised in; a CommitInDoubt has the interrupt as its cause."""
    found: list[BaseException] = []
    while exc is not None and exc not in found:
        found.append(exc)
        for each in getattr(exc, "exceptions", ()):  # of a group
            found += contexts_of(each)
        found += contexts_of(exc.__cause__)
        exc = exc.__context__
    return found


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
    signals = (Interrupted, KeyboardInterrupt, SystemExit)
    has_hub = True

    def is_interruptible(self, job):
        return threading.current_thread() is threading.main_thread()

    def kinds(self):
        return self.signals

    @contextlib.contextmanager
    def armed(self, job, pair, seconds, kind):
        number = _SIGNALS[kind]
        over, is_struck = threading.Event(), False

        def strike():
            over.wait(seconds)
            while not (over.is_set() or is_struck):
                _signal_main_thread(number)
                over.wait(0.002)

        def handler(_, frame):
            nonlocal is_struck
            # Raised elsewhere, it would go anywhere; in a finalizer it would be forgotten.
            if is_struck or not pair.is_open or frame.f_code not in pair.code:
                return
            is_struck = True
            exc = kind()
            pair.throws(exc)
            raise exc

        before = signal.signal(number, handler)
        thread = threading.Thread(target=strike)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            signal.signal(number, before)

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
    """Jobs of greenwait's own hub, cancelled by others of it; some rounds struck by two signals."""

    interrupts = (GreenletExit, Interrupted)
    has_hub = True

    def pause(self, seconds):
        with greenwait.Hub() as hub:
            hub.sleep(seconds)

    def kinds(self):
        return (GreenletExit,)

    def play(self, jobs):
        if self._may_be_struck(jobs) and self.rng.random() < 0.1:
            self._play_struck(jobs)
        else:
            self._play(jobs)

    def _may_be_struck(self, jobs):
        return all(getattr(job, "may_be_struck", False) for job in jobs)

    def _play(self, jobs):
        with greenwait.Hub() as self.hub:
            for job in jobs:
                job.spawned = self.hub.spawn(self.quietly, job)
                for moment in job.moments:
                    self.hub.spawn(self._cancel_later, moment, job)
            for job in jobs:
                try:
                    job.spawned.result()
                except CancelledError:  # it may have ended before it has heard of that
                    if hasattr(job, "swallowed"):
                        job.swallowed.append(GreenletExit())

    def _cancel_later(self, seconds, job):
        self.hub.sleep(seconds)
        throw_at(job, GreenletExit)
        job.spawned.cancel()

    @contextlib.contextmanager
    def armed(self, job, pair, seconds, kind):
        def strike():
            self.hub.sleep(seconds)
            if not is_over:
                pair.throws(kind)
                throw_at(job, kind)
                job.spawned.cancel()

        is_over = False
        self.hub.spawn(strike)
        try:
            yield
        finally:
            is_over = True

    def _play_struck(self, jobs):
        """Strike where the hub was entered: the higher one comes out, whatever came first."""
        for job in jobs:
            job.is_surely_interrupted, job.was_struck_twice = False, True
        raised: list[BaseException] = []

        def handler(number, _):
            if is_over:
                return  # raised now, it would come too late
            raised.append(SystemExit() if number == signal.SIGTERM else Interrupted())
            raise raised[-1]

        is_over = False
        numbers = [signal.SIGTERM, signal.SIGALRM]
        self.rng.shuffle(numbers)
        before = [(number, signal.signal(number, handler)) for number in numbers]
        first = self.rng.random() * 0.1
        timers = [
            threading.Timer(first, _signal_main_thread, (numbers[0],)),
            threading.Timer(first + 0.02 * self.rng.random(), _signal_main_thread, (numbers[1],)),
        ]
        found: BaseException | None = None
        struck: list[BaseException] = []
        try:
            for timer in timers:
                timer.start()
            self._play(jobs)
            is_over = True
        except BaseException as exc:
            is_over = True  # no call before that, at which a signal could strike
            found = exc
            struck += raised
        finally:
            for timer in timers:
                timer.cancel()
                if timer.is_alive():  # the first may have struck as the second was started
                    timer.join()
            for number, handled in before:
                signal.signal(number, handled)
        # A handler that runs in the Python code of a job is that one's.
        struck = [exc for exc in struck if _is_raised_by_hub(exc)]
        for job in jobs:
            job.moments.append(0.0)  # it was struck, whenever that was
            job.thrown = None  # the block that was struck has asked for no results
            if any(each in raised for each in contexts_of(job.exception)):
                job.exception = None
        if found is not None and not any(each in raised for each in contexts_of(found)):
            raise found
        assert all(each in contexts_of(found) for each in struck), f"{struck}, but {found!r}"
        if any(isinstance(each, SystemExit) for each in struck):
            assert isinstance(found, SystemExit), f"{struck}, but {found!r} was raised"


def _is_raised_by_hub(exc):
    """Has the handler that raised it run in the hub's sleep?"""
    names = [each.filename for each in traceback.extract_tb(exc.__traceback__)]
    return any(name.endswith("scheduler.pyx") for name in names)


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
        self.handed = None  # to the other thread

    def pause(self, seconds):
        self.gevent.sleep(seconds)

    def play(self, jobs):
        half = len(jobs) // 2 if self.rng.random() < 0.2 else 0
        done = self._play_in_thread(jobs[:half]) if half else None
        self._play(jobs[half:])
        while done is not None and not done.is_set():
            self.gevent.sleep(0.01)

    def end(self):
        if self.handed is not None:
            self.handed.put(None)
            self.handed = None

    def _play_in_thread(self, jobs):
        """Play them in a thread that has a hub of its own; return an event that says it is over."""
        if self.rng.random() < 0.02:  # gevent keeps some kB of each hub
            self.end()
        if self.handed is None:
            self.handed = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(self.handed,), daemon=True).start()
        done = threading.Event()
        self.handed.put((jobs, done))
        return done

    def _serve(self, handed):
        for jobs, done in iter(handed.get, None):
            try:
                self._play(jobs)
            finally:
                jobs.clear()  # this frame keeps them until the next ones come
                done.set()
        self.gevent.get_hub().destroy(destroy_loop=True)

    def _play(self, jobs):
        spawned = []
        for job in jobs:
            greenlet = self.gevent.spawn(self.quietly, job)
            spawned.append(greenlet)
            for moment in job.moments:
                exc = self.rng.choice(self.interrupts)()
                spawned.append(self.gevent.spawn_later(moment, self._kill, job, greenlet, exc))
        self.gevent.joinall(spawned, timeout=LONGEST)
        assert all(each.ready() for each in spawned), "a greenlet has not ended"

    def _kill(self, job, greenlet, exc):
        # kill() does the same a turn of the loop later, by which the job may be through.
        self.gevent.get_hub().loop.run_callback(self._throw, job, greenlet, exc)

    def _throw(self, job, greenlet, exc):
        if not greenlet.started:
            greenlet.kill(exc, block=False)
        elif not greenlet.dead:
            throw_at(job, exc)
            greenlet.throw(exc)

    def kinds(self):
        return (*self.interrupts, *self.timeouts)

    @contextlib.contextmanager
    def armed(self, job, pair, seconds, kind):
        def strike():  # in gevent's hub, as a Timeout does
            exc = kind()
            pair.throws(exc)
            throw_at(job, exc)
            here.throw(exc)

        here = self.gevent.getcurrent()
        timer = self.gevent.get_hub().loop.timer(seconds)
        timer.start(strike)
        try:
            yield
        finally:
            timer.close()


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
                exc = self.rng.choice(self.interrupts)()
                spawned.append(self.eventlet.spawn_after(moment, self._kill, job, greenlet, exc))
        with self.eventlet.Timeout(LONGEST, AssertionError("a green thread has not ended")):
            for each in spawned:
                with contextlib.suppress(*self.interrupts):  # it had not begun
                    each.wait()

    def _kill(self, job, greenlet, exc):
        throw_at(job, exc)
        self.eventlet.kill(greenlet, exc)

    def kinds(self):
        return (*self.interrupts, *self.timeouts)

    @contextlib.contextmanager
    def armed(self, job, pair, seconds, kind):
        def strike():  # in eventlet's hub, as a Timeout does
            exc = kind()
            pair.throws(exc)
            throw_at(job, exc)
            here.throw(exc)

        here = self.eventlet.getcurrent()
        timer = self.eventlet.hubs.get_hub().schedule_call_global(seconds, strike)
        try:
            yield
        finally:
            timer.cancel()


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
            job.task = self.loop.create_task(begun)
            tasks.append(job.task)
            for moment in job.moments:
                self.loop.call_later(moment, self._cancel, job)
        _, pending = await self.asyncio.wait(tasks, timeout=LONGEST)
        assert not pending, pending
        for job in jobs:
            if not job.task.cancelled():
                job.task.result()
            elif hasattr(job, "swallowed"):  # it may have ended before it has heard of that
                job.swallowed.append(self.asyncio.CancelledError())

    def _cancel(self, job):
        throw_at(job, self.asyncio.CancelledError)
        job.task.cancel()

    @contextlib.contextmanager
    def armed(self, job, pair, seconds, kind):
        def strike():
            pair.throws(kind)
            self._cancel(job)

        handle = self.loop.call_later(seconds, strike)
        try:
            yield
        finally:
            handle.cancel()


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
            async with self.trio.open_nursery() as self.nursery:
                for job in jobs:
                    self.nursery.start_soon(self._one, job)

    async def _one(self, job):
        with self.trio.CancelScope() as job.scope:
            if job.moments:
                job.scope.deadline = self.trio.current_time() + job.moments[0]
            await self.run(job)
            try:
                await self.trio.lowlevel.checkpoint()
            except self.trio.Cancelled as exc:  # it has ended before it has heard of that
                if hasattr(job, "swallowed"):
                    job.swallowed.append(exc)
                raise

    @contextlib.contextmanager
    def armed(self, job, pair, seconds, kind):
        async def strike():
            with disarmed:
                await self.trio.sleep(seconds)
                pair.throws(kind)
                throw_at(job, kind)
                job.scope.cancel()

        disarmed = self.trio.CancelScope()
        self.nursery.start_soon(strike)
        try:
            yield
        finally:
            disarmed.cancel()


CONTEXTS = {
    kind.__name__.lower(): kind for kind in (Threads, Hub, Gevent, Eventlet, Asyncio, Uvloop, Trio)
}
