"""Contexts: each runs the subject, drives the proxy, and interrupts in its own way."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from typing import Any

import psycopg2
import psycopg2.extensions
from greenlet import GreenletExit

import greenwait
import greenwait.aio
from tests.explorer.cases import Case
from tests.lab.interrupts import Limit
from tests.lab.readable import Readable
from tests.lab.step_proxy import TIMEOUT

WAIT, SETTLE = "wait", "settle"
Drive = Generator[str, None, None]


class Context:
    """What waits there, and how it is interrupted."""

    #: The events that interrupt a wait there.
    own: tuple[str, ...] = ()
    #: Pairs of these.
    pairs: tuple[tuple[str, str], ...] = ()
    connection: type = greenwait.Connection
    has_at_once = True
    #: A second interrupt does not end the wait for the query's end.
    drains_always = False
    #: A closed descriptor is noticed at once, and not by a look at all of them once a second.
    has_quick_look = False
    #: Signals are for another greenlet or task than the subject's; all else is as elsewhere.
    is_beside = False

    @property
    def interrupts(self) -> tuple[str, ...]:
        """Return what interrupts a wait there, deadlines among it."""
        return self.own if self.is_beside else (*self.own, "deadline")

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        """Run both."""
        raise NotImplementedError

    def strike(self, event: str, case: Case) -> None:
        """Interrupt the subject."""
        raise NotImplementedError

    def look(self) -> None:
        """Have the wait look at its descriptor, where it can be made to."""

    def close(self) -> None:
        """End."""


class Plain(Context):
    """The main thread sleeps; signals come."""

    own: tuple[str, ...] = ("limit", "ctrl-c")
    pairs: tuple[tuple[str, str], ...] = (
        ("limit", "ctrl-c"), ("ctrl-c", "limit"), ("limit", "limit"),
        ("deadline", "limit"), ("deadline", "ctrl-c"), ("limit", "deadline"),
    )  # fmt: skip
    connection = psycopg2.extensions.connection
    has_at_once = False  # nobody but the kernel could say so
    has_quick_look = True

    SIGNALS = {"limit": signal.SIGALRM, "ctrl-c": signal.SIGINT}  # noqa: RUF012
    LOOK = signal.SIGUSR1  # it interrupts poll(), and nothing else

    def __init__(self) -> None:
        self.case: Case | None = None
        self.sent = self.handled = 0
        self.thread = threading.main_thread()
        # Once, and not for each look: a descriptor that was closed behind psycopg2's back is
        # closed by psycopg2 too, whoever has its number by then.
        self.stat = os.open(f"/proc/self/task/{self.thread.native_id}/stat", os.O_RDONLY)

    def close(self) -> None:
        os.close(self.stat)

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        self.case = case
        self.sent = self.handled = 0
        failures: list[BaseException] = []

        def drive_it() -> None:
            try:
                for request in drive:
                    if request == WAIT:
                        case.proxy.read(1)
                    else:
                        self.settle()
            except BaseException as exc:
                failures.append(exc)
                raise

        before = {
            number: signal.signal(number, self.handler)
            for number in (*self.SIGNALS.values(), self.LOOK)
        }
        driver = threading.Thread(target=drive_it)
        driver.start()
        try:
            subject()
        finally:
            driver.join(TIMEOUT)
            for number, handler in before.items():
                signal.signal(number, handler)
        assert not failures

    def settle(self) -> None:
        """Wait until the main thread has handled its signals, and is asleep."""
        assert self.case is not None
        times = 0
        while self.case.is_counting and times < 2:
            time.sleep(0.0003)  # the GIL is free
            stat = os.pread(self.stat, 1024, 0)
            is_asleep = stat.rpartition(b")")[2].split()[0] == b"S"
            times = times + 1 if is_asleep and self.handled == self.sent else 0

    def strike(self, event: str, case: Case) -> None:
        self.send(self.SIGNALS[event])

    def look(self) -> None:
        self.send(self.LOOK)

    def send(self, number: int) -> None:
        self.sent += 1
        signal.pthread_kill(self.thread.ident or 0, number)

    def handler(self, number: int, frame: object) -> None:
        self.handled += 1
        assert self.case is not None
        if self.case.is_counting and number != self.LOOK:
            exc = Limit() if number == signal.SIGALRM else KeyboardInterrupt()
            self.note("limit" if number == signal.SIGALRM else "ctrl-c", exc)
            raise exc

    def note(self, event: str, exc: BaseException) -> None:
        """Say whom it is to arrive at: the subject."""
        assert self.case is not None
        self.case.struck.append((event, exc))


class PlainOwn(Plain):
    """The same with greenwait's own connection."""

    connection = greenwait.Connection


class HubMain(Plain):
    """Whoever has entered a hub; signals come."""

    connection = greenwait.Connection
    has_quick_look = False

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        with greenwait.Hub():
            Plain.run(self, subject, drive, case)


class HubJob(Context):
    """A job, which is cancelled."""

    own = ("cancel",)
    pairs = (("cancel", "cancel"), ("deadline", "cancel"), ("cancel", "deadline"))

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        with greenwait.Hub() as hub:
            self.job = hub.spawn(subject)
            for request in drive:
                if request == WAIT:
                    greenwait.wait(Readable(case.proxy.fileno()))
                else:
                    for _ in range(5):
                        hub.sleep(0)
            self.job.result()

    def strike(self, event: str, case: Case) -> None:
        case.struck.append((event, GreenletExit))
        assert self.job.cancel()


class Asyncio(Context):
    """A task of asyncio's, which is cancelled."""

    own = ("cancel",)
    pairs = HubJob.pairs
    drains_always = True

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        self.loop.run_until_complete(self.main(subject, drive, case))

    async def main(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        proxy = case.proxy
        self.task = asyncio.ensure_future(greenwait.aio.run(subject))
        for request in drive:
            if request == WAIT:
                readable = asyncio.Event()
                self.loop.add_reader(proxy.fileno(), readable.set)
                await readable.wait()
                self.loop.remove_reader(proxy.fileno())
            else:
                for _ in range(5):
                    await asyncio.sleep(0)
        await self.task

    def strike(self, event: str, case: Case) -> None:
        case.struck.append((event, asyncio.CancelledError))
        assert self.task.cancel()


class Gevent(Context):
    """A greenlet of gevent's, into which exceptions are thrown."""

    own = ("kill", "timeout")
    pairs = (("kill", "timeout"), ("timeout", "kill"), ("timeout", "timeout"), ("kill", "kill"),
             ("deadline", "kill"), ("deadline", "timeout"), ("timeout", "deadline"))  # fmt: skip

    def __init__(self) -> None:
        import gevent.socket

        from greenwait.gevent import patch_psycopg

        self.gevent = gevent
        patch_psycopg()

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        self.greenlet = self.gevent.spawn(subject)
        for request in drive:
            if request == WAIT:
                self.gevent.socket.wait_read(case.proxy.fileno())
            else:
                for _ in range(5):
                    self.gevent.sleep(0)
                if "deadline" in case.happened and not case.at_once:
                    self.gevent.sleep(0.001)  # the turns before may not look at the timers
        self.greenlet.get(timeout=TIMEOUT)

    def strike(self, event: str, case: Case) -> None:
        if event == "kill":
            case.struck.append((event, GreenletExit))
            self.greenlet.kill(block=False)
        else:
            exc = self.gevent.Timeout()
            case.struck.append((event, exc))
            self.gevent.get_hub().loop.run_callback(self.greenlet.throw, exc)


class SignalsBeside(Plain):
    """The main thread runs what can be cancelled, and signals come: they are the main program's.

    It goes on waiting when it has been told.
    """

    own = ("cancel", "limit", "ctrl-c")
    pairs = (("limit", "cancel"), ("cancel", "limit"),
             ("ctrl-c", "cancel"), ("cancel", "ctrl-c"))  # fmt: skip
    connection = greenwait.Connection
    is_beside = True

    def note(self, event: str, exc: BaseException) -> None:
        self.signals.append(exc)

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        self.signals: list[BaseException] = []
        self.told: list[BaseException] = []
        Plain.run(self, lambda: self.run_beside(subject), drive, case)
        if list(map(id, self.signals)) != list(map(id, self.told)):
            case.complain(f"signals: {self.signals}; the main program was told of {self.told}")

    def run_beside(self, subject: Callable[[], None]) -> None:
        """Run the subject, and note which exceptions of signals arrive."""
        raise NotImplementedError

    def wait_for(self, call: Callable[[], Any]) -> None:
        """Call it until it returns."""
        while True:
            try:
                call()
                return
            except (Limit, KeyboardInterrupt) as exc:
                self.told.append(exc)

    def strike(self, event: str, case: Case) -> None:
        if event == "cancel":
            self.sent += 1
            self.have_cancelled()
        else:
            Plain.strike(self, event, case)

    def have_cancelled(self) -> None:
        """Have the main thread cancel it."""
        raise NotImplementedError

    def cancelled(self, exc: type[BaseException], is_done: bool) -> None:
        """Note it."""
        assert self.case is not None
        assert not is_done
        self.case.struck.append(("cancel", exc))
        self.handled += 1


class HubSignals(SignalsBeside):
    """A job that another job cancels, while whoever has entered the hub gets signals."""

    def run_beside(self, subject: Callable[[], None]) -> None:
        self.ends = socket.socketpair()
        with greenwait.Hub() as hub, self.ends[0], self.ends[1]:
            job = hub.spawn(subject)

            def cancel() -> None:
                while True:
                    greenwait.wait(Readable(self.ends[0].fileno()))
                    self.ends[0].recv(1)
                    self.cancelled(GreenletExit, not job.cancel())

            other = hub.spawn(cancel)
            self.wait_for(job.result)
            other.cancel()
            with contextlib.suppress(CancelledError):
                other.result()

    def have_cancelled(self) -> None:
        self.ends[1].send(b"x")


class AsyncioSignals(SignalsBeside):
    """A task that is cancelled, while whoever runs the event loop gets signals."""

    drains_always = True

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()
        super().close()

    def run_beside(self, subject: Callable[[], None]) -> None:
        async def run() -> None:
            await greenwait.aio.run(subject)

        self.task = self.loop.create_task(run())
        self.wait_for(lambda: self.loop.run_until_complete(self.task))

    def have_cancelled(self) -> None:
        self.loop.call_soon_threadsafe(
            lambda: self.cancelled(asyncio.CancelledError, not self.task.cancel())
        )


CONTEXTS: dict[str, type[Context]] = {
    "plain": Plain,
    "plain-own": PlainOwn,
    "hub-main": HubMain,
    "hub": HubJob,
    "asyncio": Asyncio,
    "gevent": Gevent,
    "hub-signals": HubSignals,
    "asyncio-signals": AsyncioSignals,
}
