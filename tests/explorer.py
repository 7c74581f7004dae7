"""Every event at every step of a wait: what is raised, and what becomes of the connection.

A step is a message between the client and its server, in either direction, cancel requests
among them: a proxy passes them on one at a time, and does something in between while the client
is asleep. So each case is the same each time, and none depends on a clock; a deadline that has
passed too early, on a busy machine, is set again.

    python -m tests.explorer hub                          # all of a context's cases
    python -m tests.explorer hub commit cancel@2 silent@3  # one of them
    python -m tests.explorer --keep                        # what all of them come to
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions
from greenlet import GreenletExit
from psycopg2 import errors

import greenwait
import greenwait.aio
from tests.readable import Readable
from tests.step_proxy import TIMEOUT, Link, Message, StepProxy
from tests.stopping_table import KEPT, Kept, entry
from tools.postgres import Server

GRACE = 20.0  # seconds, of a server that answers
SHORT_GRACE = 0.03  # of one that does not; longer where it ends before that falls silent
MARGIN = 8.0  # on a machine that is busy with other tests


class Limit(Exception):
    """What a signal handler raises, or a framework's time limit."""


# -- Events

#: What interrupts a wait.
STRONG = ("ctrl-c", "cancel", "kill")  # they end a greenlet, a task or the program
WEAK = ("limit", "timeout", "deadline")
INTERRUPTS = STRONG + WEAK
#: What happens to the connection: messages, another's cancel, a server that ends or falls silent.
HARMLESS = ("notice", "notification")
LOST = ("terminated", "lost", "closed")

Events = tuple[tuple[str, int], ...]  # each with the step at which it happens


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


NOTICE = _message(b"N", b"SNOTICE\0VNOTICE\0C00000\0Mforged\0\0")
NOTIFICATION = _message(b"A", struct.pack("!I", 1) + b"forged\0payload\0")


# -- Phases


@dataclass(frozen=True)
class Phase:
    """What is done in a wait, and what of it is right."""

    name: str
    statement: str  # of which the server says what has become of it
    act: Callable[[Any, Any, int], Any]
    value: Callable[[int], Any] = lambda number: None
    prepare: Callable[[Any, Any, int], None] = lambda conn, cur, number: None
    autocommit: bool = True
    error: type[BaseException] | None = None  # its own
    rows: int | None = None  # that it leaves, if it is not interrupted
    pairs_at: tuple[int, ...] | None = None  # the steps of a first of two events; None: each
    closed_at: int = 0  # the step of a closed descriptor, where it takes a second to be noticed
    is_endless: bool = False  # if nothing happens


def query(statement: str) -> Callable[[Any, Any, int], Any]:
    """Return what executes it, and fetches a value if there is one."""

    def act(conn: Any, cur: Any, number: int) -> Any:
        cur.execute(statement.replace("$n", str(number)))
        return cur.fetchone()[0] if cur.description else None

    return act


def insert(conn: Any, cur: Any, number: int) -> None:
    cur.execute(f"insert into effects values ({number})")


def executemany(conn: Any, cur: Any, number: int) -> None:
    cur.executemany("insert into effects values (%s)", [(number,), (-number,)])


SLEEP = "do $$begin raise notice 'asleep'; perform pg_sleep(60); end$$"
DEAF = """
do $$begin
    raise notice 'asleep'; perform pg_sleep(60);
exception when query_canceled then null;
end$$"""
INSERT = "insert into effects values ($n) returning n"

PHASES = {
    phase.name: phase
    for phase in [
        Phase("connect", "", lambda conn, cur, number: None),
        Phase("transaction", "insert", query(INSERT), lambda n: n, autocommit=False, rows=0,
              pairs_at=(1, 3)),
        Phase("query", "insert", query(INSERT), lambda n: n, rows=1, pairs_at=(1, 2, 5),
              closed_at=2),
        Phase("sleep", "do", query(SLEEP), is_endless=True, pairs_at=(2,)),
        Phase("deaf", "\ndo", query(DEAF), is_endless=True, pairs_at=(2,)),
        Phase("failing", "select", query("select 1/0"), error=errors.DivisionByZero,
              pairs_at=(2,)),
        Phase("answer", "select", query("select repeat('x', 120000)"), lambda n: "x" * 120000,
              pairs_at=(4,)),
        Phase("statement", "select", query(f"select 1 --{'x' * 400000}"), lambda n: 1,
              pairs_at=(1,), closed_at=1),
        Phase("messages", "do", query("do $$begin raise notice 'own'; notify own; end$$"),
              prepare=lambda conn, cur, number: cur.execute("listen own"), pairs_at=(4,)),
        Phase("copy", "copy", query("copy (select 1) to stdout"), error=psycopg2.ProgrammingError,
              pairs_at=(2, 6)),
        Phase("copy-in", "copy", query("copy effects from stdin"), error=psycopg2.ProgrammingError,
              pairs_at=(3,)),
        Phase("executemany", "insert", executemany, rows=2, pairs_at=(3,)),
        Phase("commit", "COMMIT", lambda conn, cur, number: conn.commit(),
              prepare=insert, autocommit=False, rows=1, closed_at=2),
        Phase("rollback", "ROLLBACK", lambda conn, cur, number: conn.rollback(),
              prepare=insert, autocommit=False, rows=0, pairs_at=(1, 3), closed_at=1),
    ]
}  # fmt: skip


# -- One case


@dataclass
class Case:
    """One run of a phase, what has happened in it, and what it has come to."""

    phase: Phase
    number: int
    events: Events = ()
    at_once: bool = False  # the message is there when the client learns of the event
    is_counting: bool = False
    steps: list[Message] = field(default_factory=list)
    struck: list[tuple[str, BaseException | type[BaseException]]] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    forged: dict[str, int] = field(default_factory=dict)
    deadline: float | None = None
    is_early: bool = False  # the deadline has passed before its step
    is_answered: bool = False  # the client has an answer, if not its end
    conn: Any = None
    block: Any = None
    value: Any = None
    raised: BaseException | None = None
    seconds: float = 0
    complaints: list[str] = field(default_factory=list)
    is_open: bool = False
    received: dict[str, int] = field(default_factory=dict)
    rows: int = 0

    def at(self, step: int) -> list[str]:
        """Return the events of a step."""
        return [event for event, when in self.events if when == step]

    def is_of(self, message: Message) -> bool:
        """Is it a step?"""
        return (
            self.is_counting
            and message.kind != "S"
            and (message.to_client or message.kind != "end")
        )

    def complain(self, text: str) -> None:
        """Note what is not as it must be."""
        self.complaints.append(text)

    @property
    def server(self) -> str:
        """What the server has done with the statement, as far as it has said."""
        found = "not sent"
        own = b"Q...", b"Q"
        for message in self.steps:
            if message.link.is_cancel:
                continue
            text = message.data[5 : 6 + len(self.phase.statement)].decode("ascii", "replace")
            if not message.to_client and message.kind.encode() in own:
                if text.startswith(self.phase.statement) and found in ("not sent", "done"):
                    found = "not known"
            elif message.to_client and found == "not known":
                if message.kind == "C":
                    found = "done"
                elif message.kind == "E":
                    found = FATES.get(sqlstate(message.data), "failed")
        return found


FATES = {"57014": "cancelled", "57P01": "ended"}


def sqlstate(data: bytes) -> str:
    """Return that of an ErrorResponse."""
    return next(each[1:].decode() for each in data[5:].split(b"\0") if each[:1] == b"C")


def reachable(exc: BaseException | None) -> list[BaseException]:
    """Return an exception, its contexts and causes, and theirs."""
    found: list[BaseException] = []
    left = [exc]
    while left:
        each = left.pop()
        if each is not None and not any(each is other for other in found):
            found.append(each)
            left += [each.__context__, each.__cause__]
    return found


def is_the(exc: BaseException, wanted: BaseException | type[BaseException]) -> bool:
    """Is it that exception, or where it is not known beforehand, of that class?"""
    return exc is wanted or (isinstance(wanted, type) and isinstance(exc, wanted))


# -- Contexts: each runs the subject, drives the proxy, and interrupts in its own way

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
    is_patient = False
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
                        lab_of(case).proxy.read(1)
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
                    greenwait.wait(Readable(lab_of(case).proxy.fileno()))
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
    is_patient = True

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()

    def run(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        self.loop.run_until_complete(self.main(subject, drive, case))

    async def main(self, subject: Callable[[], None], drive: Drive, case: Case) -> None:
        proxy = lab_of(case).proxy
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
                self.gevent.socket.wait_read(lab_of(case).proxy.fileno())
            else:
                for _ in range(5):
                    self.gevent.sleep(0)
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

    is_patient = True

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


# -- The laboratory


class Finding(NamedTuple):
    """What cases have in common that come to the same."""

    raised: str
    context: str
    connection: str
    server: str

    def __str__(self) -> str:
        return "; ".join(self)


_current: list["Laboratory"] = []


def lab_of(case: Case) -> "Laboratory":
    """Return the laboratory in which a case is run."""
    return _current[-1]


class Laboratory:
    """A server, the proxy in front of it, and a context."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.number = 0
        self.limit = 0.02  # seconds to the deadline, of the cases that have one
        self.grace = SHORT_GRACE
        self.conn: Any = None

    def __enter__(self) -> "Laboratory":
        self._stack = contextlib.ExitStack()
        self.proxy = self._stack.enter_context(StepProxy(self.server))
        self.context = CONTEXTS[self.name]()
        self._stack.callback(self.context.close)
        psycopg2.extensions.set_wait_callback(None)
        self._stack.callback(psycopg2.extensions.set_wait_callback, None)
        self.watcher = psycopg2.connect(self.server.dsn("unix"))
        self._stack.callback(self.watcher.close)
        self.watcher.autocommit = True
        self.ask("create table if not exists effects (n int); truncate effects; select 1")
        _current.append(self)
        self._stack.callback(_current.pop)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.drop()
        self._stack.close()

    def ask(self, query: str) -> Any:
        """Ask the server, beside the proxy."""
        before = psycopg2.extensions.get_wait_callback()
        psycopg2.extensions.set_wait_callback(None)
        try:
            with self.watcher.cursor() as cur:
                cur.execute(query)
                row = cur.fetchone()
                assert row is not None
                return row[0]
        finally:
            psycopg2.extensions.set_wait_callback(before)

    def drop(self) -> None:
        """Close the connection, and what the proxy has of it."""
        if self.conn is not None:
            self.conn.close()
        self.conn = None
        for link in list(self.proxy.links):
            if link.backend:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(link.backend, signal.SIGTERM)
            self.proxy.close(link)
        self.proxy.queue.clear()

    def run(self, phase: Phase, events: Events, at_once: bool = False) -> Case:
        """Run a case, as often as its deadline comes too early."""
        while True:
            case = self.run_once(phase, events, at_once)
            if not case.is_early:
                self.limit = max(0.02, self.limit * 0.9)
                self.grace = max(SHORT_GRACE, self.grace * 0.9)
                return case
            if case.deadline is not None:
                self.limit *= 2
            self.grace *= 2
            assert self.limit < 20, "the machine is too busy"
            assert self.grace < 20, "the machine is too busy"

    def run_once(self, phase: Phase, events: Events, at_once: bool) -> Case:
        self.number += 1
        case = Case(phase, self.number, events, at_once)
        names = [event for event, _ in events]
        is_short = "silent" in names
        self.grace = grace = max(self.grace, 2 * self.limit if "deadline" in names else 0)
        psycopg2.extensions.set_wait_callback(
            greenwait.WaitCallback(cancel_grace=grace if is_short else GRACE)
        )
        self.proxy.is_silent = False
        self.proxy.held_back = 0
        self.proxy.has_cancels_wait = not (phase.is_endless or phase.name == "copy-in")
        if phase.name == "connect":
            self.drop()
        self.is_done = False

        def subject() -> None:
            try:
                self.act(case, "deadline" in names)
            finally:
                case.is_counting = False
                self.is_done = True
                self.proxy.wake()

        try:
            self.context.run(subject, self.drive(case), case)
        finally:
            psycopg2.extensions.set_wait_callback(None)
        if case.raised is not None:
            case.raised.__traceback__ = None  # it has the connection
        if phase.rows is not None:
            # Whatever is still under way is over first.
            if not case.is_open:
                self.drop()
                self.wait_until_gone(case)
            case.rows = self.ask(
                f"select count(*) from effects where n in ({case.number}, -{case.number})"
            )
        if not case.is_open:
            self.drop()
        self.judge(case)
        return case

    def wait_until_gone(self, case: Case) -> None:
        """Wait until the server has ended what was left to it."""
        for link in {message.link.backend for message in case.steps if message.link.backend}:
            give_up = time.monotonic() + TIMEOUT
            while Path(f"/proc/{link}").exists():
                assert time.monotonic() < give_up
                time.sleep(0.001)

    # -- The subject

    def act(self, case: Case, has_deadline: bool) -> None:
        """Prepare, and do what the case is about; then see what is left."""
        phase = case.phase
        if self.conn is None and phase.name != "connect":
            self.conn = self.connect()
        cur = None
        if phase.name != "connect":
            assert self.conn is not None
            self.conn.autocommit = phase.autocommit
            cur = self.conn.cursor()
            phase.prepare(self.conn, cur, case.number)
            self.conn.notices.clear()
            self.conn.notifies.clear()
        block = greenwait.timeout(self.limit if has_deadline else None)
        began = time.monotonic()
        try:
            case.is_answered = False
            case.is_counting = True
            with block:
                case.deadline = time.monotonic() + self.limit if has_deadline else None
                if phase.name == "connect":
                    self.conn = self.connect()
                else:
                    case.value = phase.act(self.conn, cur, case.number)
        except BaseException as exc:
            case.raised = exc
        finally:
            case.is_counting = False
        case.seconds = time.monotonic() - began
        try:
            psycopg2.OperationalError("of the program's own")
        except BaseException as exc:
            case.complain(f"psycopg2 was left with {exc!r}")
        if case.deadline is not None and "deadline" not in case.happened:
            case.is_early = time.monotonic() >= case.deadline
        if "silent" in dict(case.events) and "silent" not in case.happened and cur is not None:
            # The grace was over before?
            case.is_early = case.is_early or case.seconds >= self.grace
        case.block = block
        self.proxy.is_silent = False
        if self.conn is None or self.conn.closed:
            return
        if any(event in case.happened for event in LOST):
            return
        try:
            self.conn.rollback()
            for wanted in (case.number, case.number + 1):
                with self.conn.cursor() as cur:
                    cur.execute("select %s", (wanted,))
                    if cur.fetchone() != (wanted,):
                        case.complain("the next query has got another's answer")
            self.conn.rollback()
            case.is_open = True
        except BaseException as exc:
            case.complain(f"the connection is open, and not usable: {exc!r}")
        case.received = {
            "notice": sum("forged" in each for each in self.conn.notices),
            "notification": sum(each.channel == "forged" for each in self.conn.notifies),
        }
        if phase.name == "messages":
            case.received["own notice"] = sum("own" in each for each in self.conn.notices)
            case.received["own notification"] = sum(
                each.channel == "own" for each in self.conn.notifies
            )

    def connect(self) -> Any:
        """Connect through the proxy."""
        return psycopg2.connect(self.proxy.dsn(), connection_factory=self.context.connection)

    # -- The driver

    def drive(self, case: Case) -> Drive:
        """Pass messages on, and have happen what is to happen between them."""
        while not self.is_done:
            yield WAIT
            self.proxy.read()
            while (message := self.proxy.next()) is not None:
                if case.is_of(message):
                    yield from self.step(case, message)
                if message.to_client and message.kind == "C" and case.is_counting:
                    case.is_answered |= not self.proxy.is_silent
                self.proxy.forward(message)
                if "terminated" in case.happened:
                    yield SETTLE  # what the server has left comes by itself, and not in a race
                self.proxy.read()

    def step(self, case: Case, message: Message) -> Drive:
        case.steps.append(message)
        for event in case.at(len(case.steps)):
            yield SETTLE
            if not case.is_counting:
                return
            self.inject(case, event, message.link)
            if not case.at_once:
                yield SETTLE

    def inject(self, case: Case, event: str, link: Link) -> None:
        """Have it happen."""
        if event == "deadline":
            assert case.deadline is not None
            case.happened.append(event)  # first: in another thread it may be over then
            case.is_early = time.monotonic() >= case.deadline
            while time.monotonic() <= case.deadline + 0.001:
                time.sleep(0.0005)
            return
        if event in INTERRUPTS:
            self.context.strike(event, case)
            case.happened.append(event)
            return
        if link.is_cancel:
            link = next(each for each in self.proxy.links if not each.is_cancel)
        case.happened.append(event)
        if event in HARMLESS:
            case.forged[event] = case.forged.get(event, 0) + 1
            self.proxy.say(link, NOTICE if event == "notice" else NOTIFICATION)
        elif event == "silent":
            self.proxy.is_silent = True
        elif event == "error":
            while self.proxy.has_cancels_wait and self.proxy.is_busy:
                self.proxy.read(TIMEOUT)  # it is too late, as the client's own
            os.kill(link.backend, signal.SIGINT)
        elif event == "terminated":
            self.proxy.terminate(link)
        elif event == "closed":
            os.close(self.conn.fileno())
            self.context.look()
        elif event == "lost":
            self.proxy.close(link)
        else:
            raise AssertionError(event)

    # -- The rules

    def judge(self, case: Case) -> None:
        """Note which rules the case has violated."""
        if case.is_early:
            return
        raised, phase = case.raised, case.phase
        others = reachable(raised)
        wanted = list(case.struck)
        expired = bool(case.block is not None and case.block.expired)
        is_lost = any(event in case.happened for event in LOST)
        is_silent = "silent" in case.happened
        is_right = case.raised is None and case.value == phase.value(case.number)
        is_commit = phase.name == "commit"

        # The highest is raised, the first of equals; none is lost.
        strong = [each for each in wanted if each[0] in STRONG]
        if wanted:
            first = (strong or wanted)[0]
            timed_out_first = (
                not strong
                and expired
                and case.happened.index("deadline") < case.happened.index(first[0])
            )
            # What has become of a commit is more important.
            is_doubt = is_commit and isinstance(raised, greenwait.CommitInDoubt)
            if raised is None or not (
                is_doubt
                or (
                    isinstance(raised, greenwait.QueryTimeout)
                    if timed_out_first
                    else is_the(raised, first[1])
                )
            ):
                case.complain(f"{raised!r} was raised in the place of {first[0]}")
            for name, exc in wanted:
                if not any(is_the(each, exc) for each in others):
                    case.complain(f"{name} was lost")
        elif expired or "deadline" in case.happened:
            # A deadline ends in a QueryTimeout, or the result stands.
            if isinstance(raised, greenwait.QueryTimeout):
                if not expired or raised.timeout is not case.block or is_commit:
                    case.complain("a QueryTimeout that says what is not so")
            elif not (
                is_right
                or (phase.error is not None and isinstance(raised, phase.error))
                or ((is_lost or is_silent) and isinstance(raised, psycopg2.OperationalError))
                or ("error" in case.happened and isinstance(raised, errors.QueryCanceled))
            ):
                case.complain(f"a deadline: {raised!r}")
        elif is_lost:
            if not (is_right or isinstance(raised, psycopg2.Error)):
                case.complain(f"the connection was lost: {raised!r}")
        elif "error" in case.happened and isinstance(raised, errors.QueryCanceled):
            pass
        elif not (is_right or (phase.error is not None and isinstance(raised, phase.error))):
            case.complain(f"nothing has interrupted it: {raised!r}")

        # One interrupt does not cost the connection; a server that is silent does.
        interrupts = len(wanted) + ("deadline" in case.happened)
        is_closed = self.conn is None or bool(self.conn.closed)
        if phase.name == "connect":
            if raised is not None and not is_closed:
                case.complain("there is a connection though connecting has failed")
        elif is_closed:
            many = interrupts > 1 and not self.context.is_patient
            if not (is_lost or is_silent or many):
                case.complain("the connection was closed")
        elif self.proxy.held_back:
            case.complain("the connection is open, and its answer has not come")

        # A commit is never cancelled; it is in doubt exactly when nobody has heard of its end.
        if is_commit:
            doubt = [each for each in others if isinstance(each, greenwait.CommitInDoubt)]
            if any(message.kind == "cancel" for message in case.steps):
                case.complain("the commit was cancelled")
            if doubt and not is_closed:
                case.complain("the commit is in doubt, and the connection open")
            if is_closed and not doubt and not (case.rows == 1 and case.is_answered):
                case.complain("nobody can know of the commit, and it is not said")
            if not is_closed and case.rows != 1:
                case.complain("it was not committed")
        elif any(isinstance(each, greenwait.CommitInDoubt) for each in others):
            case.complain("what is no commit is in doubt")

        # The server has done what the caller was told.
        if phase.rows is not None and not is_commit and not is_closed:
            if phase.name == "executemany":
                if not case.rows <= 2 or (raised is not None and case.rows == 2 and not wanted):
                    case.complain(f"there are {case.rows} rows")
            else:
                done = phase.rows if case.server == "done" else 0
                if case.rows != done:
                    case.complain(f"there are {case.rows} rows, and not {done}")
        if is_right and not is_closed and phase.statement and case.server != "done":
            case.complain(f"it was {case.server}, and the caller does not know")

        # Messages arrive whatever happens, if the connection stays.
        if not is_closed and not is_lost:
            for event, count in case.forged.items():
                if case.received[event] != count:
                    case.complain(f"{case.received[event]} of {count} {event}s have arrived")
            if phase.name == "messages" and case.server == "done":
                for event in ("own notice", "own notification"):
                    if case.received[event] != 1:
                        case.complain(f"{case.received[event]} of 1 {event}")

        # It ends in time.
        if case.seconds > (self.grace if is_silent else 0) + self.limit + MARGIN:
            case.complain(f"it took {case.seconds:.1f} s")


# -- All cases of a context and a phase


def spelled(events: Events) -> str:
    """Return events as they are written on the command line."""
    return " ".join(f"{event}@{step}" for event, step in events) or "-"


def find(case: Case) -> Finding:
    """Return what is to be known of it."""
    raised = case.raised
    return Finding(
        name_of(raised),
        ", ".join(sorted({name_of(each) for each in reachable(raised)[1:]})) or "-",
        "open" if case.is_open else "closed",
        case.server if case.phase.statement else "-",
    )


def name_of(exc: BaseException | None) -> str:
    return "-" if exc is None else type(exc).__name__


def explore(lab: Laboratory, phase: Phase) -> Iterator[Case]:
    """Run all cases of a phase."""
    if phase.is_endless:
        steps = range(2, 3)  # when it sleeps
    else:
        lab.run(phase, ())  # the first of a connection may have more to say
        base = lab.run(phase, ())
        steps = range(1, len(base.steps) + 1)
        yield base
    for step in steps:
        has_pairs = phase.pairs_at is None or step in phase.pairs_at
        for case in explore_first(lab, phase, step):
            yield case
            if case.events and not case.at_once and has_pairs:
                for events in pairs(lab, case, step):
                    yield lab.run(phase, events)


def explore_first(lab: Laboratory, phase: Phase, step: int) -> Iterator[Case]:
    """Run those in which one thing happens."""
    for event in lab.context.interrupts:
        yield lab.run(phase, ((event, step),))
        if lab.context.has_at_once:
            yield lab.run(phase, ((event, step),), True)
    if lab.context.is_beside:
        return
    wire: list[str] = []
    # A server that has not said who it is says nothing else, and nobody can cancel or end it.
    if phase.is_endless:
        wire = ["error", "terminated"]
    elif phase.name != "connect" or step > 3:
        wire = [*HARMLESS, "error", "terminated"]
    # Nobody but psycopg2 has the descriptor of a connection that is being made.
    if phase.name != "connect" and (lab.context.has_quick_look or step == phase.closed_at):
        wire.append("closed")
    for event in (*wire, "lost"):
        yield lab.run(phase, ((event, step),))


#: Within an answer: what comes at one of these finds the library as it does at the next.
WITHIN = ("T", "D", "d", "c")
#: What happens to a connection after something else has happened.
AFTER = (*HARMLESS, "error", "silent", "terminated", "lost", "closed")


def pairs(lab: Laboratory, case: Case, step: int) -> Iterator[Events]:
    """Return the pairs of what has happened in a case, and of something that does so later."""
    first = case.events[0][0]
    others = [
        (number, message)
        for number, message in enumerate(case.steps, 1)
        if number == step or (number > step and message.kind not in WITHIN)
    ]
    for other, _ in others:
        for second in seconds(lab, case, first, other):
            yield (first, step), (second, other)


def seconds(lab: Laboratory, case: Case, first: str, other: int) -> Iterator[str]:
    """Return what may happen after *first*, at a step.

    What happens to the connection does so at each step after one of the context's interrupts,
    and after each of them at some; and the other way round.
    """
    phase, interrupts = case.phase, lab.context.interrupts
    if first == "error" or first == HARMLESS[other % 2]:
        yield interrupts[other // 2 % len(interrupts)]
    if first not in INTERRUPTS:
        return
    yield from (second for one, second in lab.context.pairs if one == first)
    if lab.context.is_beside:
        return
    for order, second in enumerate(AFTER):
        if phase.name == "connect" and second not in ("silent", "lost"):
            continue
        if second == "closed":
            # A cancel request would get its number.
            if any(message.link.is_cancel for message in case.steps[other - 1 :]):
                continue
            if not lab.context.has_quick_look and (phase.name, other) != ("commit", 2):
                continue
        is_always = first == interrupts[0] and second in ("terminated", "lost")
        if is_always or first == interrupts[(other + order) % len(interrupts)]:
            yield second


#: What is explored: some phases are the same in contexts that differ little.
COMBINATIONS = [
    (context, phase)
    for context in CONTEXTS
    for phase in {
        "plain-own": ("transaction", "commit", "rollback"),
        "hub-main": ("connect", "query", "deaf", "commit", "rollback"),
        "hub-signals": ("connect", "transaction", "query", "commit"),  # a signal ends none
        "asyncio-signals": ("connect", "transaction", "query", "commit"),
    }.get(context, tuple(PHASES))
]


def key_of(case: Case) -> str:
    """Return what has happened in it."""
    return " + ".join(case.happened) or "nothing"


def load() -> Kept:
    """Return what was found before."""
    found: Kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def entries(kept: Kept) -> set[tuple[str, str, str]]:
    """Return all that the page says."""
    return {
        entry(phase, events, finding, context)
        for phase, by_events in kept.items()
        for events, findings in by_events.items()
        for finding, contexts in findings.items()
        for context in contexts
    }


def wrong(name: str, case: Case, known: set[tuple[str, str, str]]) -> list[str]:
    """Return what is wrong, each line with the case as it can be run alone."""
    complaints = list(case.complaints)
    found = entry(case.phase.name, key_of(case), str(find(case)), name)
    if found not in known:
        complaints.append(f"the page does not say so (make explore): {found}")
    command = f"python -m tests.explorer {name} {case.phase.name} {spelled(case.events)}"
    return [f"{command}{' --at-once' * case.at_once}: {each}" for each in complaints]


def keep() -> None:
    """Explore everything, each context in a process of its own, and keep what is found as well.

    Once what was found before is not so any more, delete the file first.
    """
    kept = load() if KEPT.exists() else {phase: {} for phase in PHASES}
    for context in CONTEXTS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.explorer", context, "--json"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        for phase, key, finding in json.loads(done.stdout):
            contexts = kept[phase].setdefault(key, {}).setdefault(finding, [])
            if context not in contexts:
                contexts.append(context)
    blocks = []
    for phase, found in kept.items():
        lines = [
            f"  {json.dumps(key)}: {json.dumps(found[key], sort_keys=True)}"
            for key in sorted(found)
        ]
        blocks.append(f" {json.dumps(phase)}: {{\n" + ",\n".join(lines) + "\n }")
    KEPT.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


def show(lab: Laboratory, case: Case) -> None:
    """Print a case in full."""
    print(*case.steps)
    print(key_of(case), find(case), *case.complaints, sep="\n")
    print(repr(case.raised), *map(repr, reachable(case.raised)[1:]), sep="\n  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("context", nargs="?", choices=CONTEXTS)
    parser.add_argument("phase", nargs="?", choices=PHASES)
    parser.add_argument("events", nargs="*", help="such as limit@3")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--json", action="store_true", help="print what is found")
    parser.add_argument("--keep", action="store_true", help="explore all, and keep what is found")
    options = parser.parse_args()
    if options.keep:
        keep()
        return
    events = tuple(
        (event, int(step)) for event, _, step in (each.partition("@") for each in options.events)
    )
    with Server() as server, Laboratory(server, options.context) as lab:
        if options.phase and (events or options.events):
            show(lab, lab.run(PHASES[options.phase], events, options.at_once))
            return
        found: list[tuple[str, str, str]] = []
        count, known = 0, set() if options.json else entries(load())
        for context, phase in COMBINATIONS:
            if context == options.context and options.phase in (None, phase):
                for case in explore(lab, PHASES[phase]):
                    count += 1
                    found.append((phase, key_of(case), str(find(case))))
                    if options.json:
                        assert not case.complaints, (spelled(case.events), case.complaints)
                    else:
                        print(
                            *(f"{each}\n" for each in wrong(context, case, known)),
                            sep="",
                            end="",
                            flush=True,
                        )
        print(json.dumps(found) if options.json else f"{count} cases")


if __name__ == "__main__":
    main()
