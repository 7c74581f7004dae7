"""Contexts: where the code runs, and what interrupts it there."""

import asyncio
import contextlib
import contextvars
import functools
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

from greenlet import GreenletExit

import greenwait
from greenwait import aio
from tests.delivery_trials.tries import LONGEST, Awaited, Interrupt, Own, Plain, Trials, Try


class Context:
    """Where the code runs, and what interrupts it there."""

    kinds: tuple[type[BaseException], ...]
    classes: tuple[type[Any], ...] = (Plain, Own)
    way = "function"  # or "method", or "await"

    def __init__(self, way: str = "function") -> None:
        self.way = way

    def run(self, trials: Trials) -> None:
        """Run all of them in this context."""
        greenwait.install(cancel_grace=10)
        self.play_all(trials)

    def play_all(self, trials: Trials) -> None:
        for one in trials:
            one.prepare()
            self.play(one)
            one.judge(trials.counts, trials.problems, self.kinds)

    def play(self, one: Try) -> None:
        """Run its code, and interrupt that."""
        raise NotImplementedError

    def methods(self, one: Try, call: Callable[..., object]) -> None:
        """Have *call* run its methods, with no Python code of ours around them."""
        with one.observed():
            call(*one.method())
            one.method_returned()
            if one.event == "deadline":
                call(*one.next_method())


class MainThread(Context):
    """Ctrl-C in the main thread; at random moments it is SIGALRM, of which the same is made."""

    kinds = (KeyboardInterrupt,)

    def play(self, one: Try) -> None:
        def on_signal(*_: object) -> None:
            if one.is_back:
                one.was_late = True
            else:
                raise KeyboardInterrupt

        one.strike = functools.partial(signal.raise_signal, signal.SIGINT)
        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGALRM, on_signal)
        with contextlib.suppress(KeyboardInterrupt), one.deadline():
            one.code(self._arm)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _arm(self, one: Try) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, one.seconds))


def _run_in_thread(function: Callable[..., None], *args: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function, *args).result()


class OtherThread(Context):
    """A thread that gets no signals: what interrupts it is raised by the connection."""

    kinds = (Interrupt,)

    def run(self, trials: Trials) -> None:
        _run_in_thread(super().run, trials)

    def play(self, one: Try) -> None:
        one.strike = self._raise
        with contextlib.suppress(Interrupt), one.deadline():
            one.code(self._arm)

    def _raise(self) -> None:
        raise Interrupt

    def _arm(self, one: Try) -> None:
        def strike(fd: int) -> None:
            time.sleep(one.seconds)
            one.strike()

        one.conn.on_fileno = strike


class InHub(Context):
    """A job of greenwait's own hub, cancelled by another one."""

    kinds = (GreenletExit, CancelledError)  # the second one is the result()'s

    def run(self, trials: Trials) -> None:
        greenwait.install(cancel_grace=10)
        with greenwait.Hub() as self.hub:
            self.play_all(trials)

    def play(self, one: Try) -> None:
        with contextlib.suppress(CancelledError), one.deadline():
            if self.way == "function":
                self._call(one, one.code, self._arm)
            else:
                one.arm(self._arm)
                self.methods(one, functools.partial(self._call, one))

    def _call(self, one: Try, *call: Any) -> None:
        job = self.hub.spawn(*call)
        one.strike = job.cancel
        job.result()

    def _arm(self, one: Try) -> None:
        self.hub.spawn(self._strike_later, one)

    def _strike_later(self, one: Try) -> None:
        self.hub.sleep(one.seconds)
        one.strike_if_in_time()


class InGevent(Context):
    """A greenlet of gevent's, killed."""

    kinds = (GreenletExit,)

    def run(self, trials: Trials) -> None:
        import gevent

        from greenwait.gevent import patch_psycopg

        self.gevent = gevent
        patch_psycopg(cancel_grace=10)
        self.play_all(trials)

    def play(self, one: Try) -> None:
        with contextlib.suppress(GreenletExit), one.deadline():
            if self.way == "function":
                self._call(one, one.code, self._arm)
            else:
                one.arm(self._arm)
                self.methods(one, functools.partial(self._call, one))

    def _call(self, one: Try, *call: Any) -> None:
        spawned = self.gevent.spawn(*_in_this_context(*call))

        def kill() -> bool:
            if spawned.dead:
                return False
            # It comes in the loop's next turn, right after this has looked.
            self.gevent.get_hub().loop.run_callback(look)
            spawned.kill(block=False)
            return True

        def look() -> None:
            one.was_late = one.was_late or one.is_back

        one.strike = kill
        found = spawned.get()
        if isinstance(found, GreenletExit):
            raise found

    def _arm(self, one: Try) -> None:
        self.gevent.spawn_later(one.seconds, one.strike_if_in_time)


class InEventlet(Context):
    """A green thread of eventlet's, killed."""

    kinds = (GreenletExit,)

    def run(self, trials: Trials) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # eventlet advises against itself
            import eventlet

            from greenwait.eventlet import patch_psycopg

        self.eventlet: Any = eventlet
        patch_psycopg(cancel_grace=10)
        self.play_all(trials)

    def play(self, one: Try) -> None:
        with contextlib.suppress(GreenletExit), one.deadline():
            if self.way == "function":
                self._call(one, one.code, self._arm)
            else:
                one.arm(self._arm)
                self.methods(one, functools.partial(self._call, one))

    def _call(self, one: Try, *call: Any) -> None:
        spawned = self.eventlet.spawn(*_in_this_context(*call))
        one.strike = functools.partial(self._kill, spawned)
        spawned.wait()

    def _kill(self, spawned: Any) -> bool:
        if spawned.dead:
            return False
        if self.eventlet.getcurrent() is spawned:  # it would go on, and be killed later
            self.eventlet.spawn_after(0, self.eventlet.kill, spawned)
            self.eventlet.sleep(LONGEST)
        self.eventlet.kill(spawned)
        return True

    def _arm(self, one: Try) -> None:
        self.eventlet.spawn_after(one.seconds, one.strike_if_in_time)


def _in_this_context(function: Any, *args: Any) -> tuple[Any, ...]:
    """Return a call in a copy of this context: the deadline's block holds for it."""
    return contextvars.copy_context().run, function, *args


class InAsyncio(Context):
    """A task of asyncio's, cancelled."""

    kinds = (asyncio.CancelledError,)

    def __init__(self, way: str) -> None:
        super().__init__(way)
        if way == "await":
            self.classes = (Awaited,)

    def run(self, trials: Trials) -> None:
        greenwait.install(cancel_grace=10)
        loop = self.new_loop()
        try:
            loop.run_until_complete(self._play_all(trials))
        finally:
            loop.close()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    async def _play_all(self, trials: Trials) -> None:
        for one in trials:
            await aio.run(one.prepare)
            with one.deadline():
                task = asyncio.ensure_future(self._code(one))
                one.strike = task.cancel
                await asyncio.wait([task])
            if not task.cancelled():
                task.result()
            await aio.run(one.judge, trials.counts, trials.problems, self.kinds)

    async def _code(self, one: Try) -> None:
        if self.way == "await":
            await one.awaiting_code(self._arm)
        elif self.way == "function":
            await aio.run(one.code, self._arm)
        else:
            with one.observed():
                one.arm(self._arm)
                await aio.run(*one.method())
                one.method_returned()
                await aio.run(*one.next_method())

    def _arm(self, one: Try) -> None:
        asyncio.get_running_loop().call_later(one.seconds, one.strike_if_in_time)


class InAsyncioThread(InAsyncio):
    """The same in another thread than the main one."""

    def run(self, trials: Trials) -> None:
        _run_in_thread(super().run, trials)


class InUvloop(InAsyncio):
    """The same on uvloop."""

    def new_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop


class InTrio(Context):
    """A cancel scope of trio's, cancelled."""

    def run(self, trials: Trials) -> None:
        import trio

        from greenwait.trio import run

        self.trio, self.call, self.kinds = trio, run, (trio.Cancelled,)
        greenwait.install(cancel_grace=10)
        trio.run(self._play_all, trials)

    async def _play_all(self, trials: Trials) -> None:
        for one in trials:
            await self.call(one.prepare)
            async with self.trio.open_nursery() as self.nursery:
                with one.deadline(), self.trio.CancelScope() as scope:
                    one.strike = scope.cancel
                    await self._code(one)
                self.nursery.cancel_scope.cancel()
            await self.call(one.judge, trials.counts, trials.problems, self.kinds)

    async def _code(self, one: Try) -> None:
        if self.way == "function":
            await self.call(one.code, self._arm)
            return
        with one.observed():
            one.arm(self._arm)
            await self.call(*one.method())
            one.method_returned()
            await self.call(*one.next_method())

    def _arm(self, one: Try) -> None:
        self.nursery.start_soon(self._strike_later, one)

    async def _strike_later(self, one: Try) -> None:
        await self.trio.sleep(one.seconds)
        one.strike_if_in_time()


CONTEXTS: dict[str, Callable[[], Context]] = {
    "main thread": MainThread,
    "other thread": OtherThread,
    "hub, function": functools.partial(InHub, "function"),
    "hub, method": functools.partial(InHub, "method"),
    "asyncio, await": functools.partial(InAsyncio, "await"),
    "asyncio, run(method)": functools.partial(InAsyncio, "method"),
    "asyncio, run(function)": functools.partial(InAsyncio, "function"),
    "asyncio in a thread, await": functools.partial(InAsyncioThread, "await"),
    "asyncio in a thread, run(method)": functools.partial(InAsyncioThread, "method"),
    "asyncio in a thread, run(function)": functools.partial(InAsyncioThread, "function"),
    "uvloop, await": functools.partial(InUvloop, "await"),
    "uvloop, run(method)": functools.partial(InUvloop, "method"),
    "uvloop, run(function)": functools.partial(InUvloop, "function"),
    "gevent, function": functools.partial(InGevent, "function"),
    "gevent, method": functools.partial(InGevent, "method"),
    "eventlet, function": functools.partial(InEventlet, "function"),
    "eventlet, method": functools.partial(InEventlet, "method"),
    "trio, function": functools.partial(InTrio, "function"),
    "trio, method": functools.partial(InTrio, "method"),
}
