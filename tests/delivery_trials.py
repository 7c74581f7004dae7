"""A process that interrupts statements in one context, and counts what is lost of that.

    python -m tests.delivery_trials CONTEXT DSN [--tries N] [--seed N]

``tools/delivery_table.py`` starts one for each context. Each try interrupts one statement when
the server has answered already, or at a random moment of one that ignores that it is cancelled.
Standard output gets a line of JSON: for each answer and event the numbers of a cell.
"""

import argparse
import asyncio
import contextlib
import contextvars
import faulthandler
import functools
import json
import os
import random
import select
import signal
import socket
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from traceback import format_exception
from typing import Any, ClassVar

import psycopg2
from greenlet import GreenletExit

import greenwait
from greenwait import aio

ANSWERS = ("plain", "notice", "notify", "two statements", "own error", "commit")
EVENTS = ("interrupt", "deadline")

_MESSAGES = 3  # of each kind, in the answers that have them
_STUBBORN = 5.0  # seconds that a statement sleeps unless it is cancelled, which it ignores
_COMMIT = 0.06  # seconds that a commit takes
_LATEST = 0.03  # seconds after which it is interrupted, at the latest
_LONGEST = 30.0  # seconds that a try may take before the stacks are dumped

_SET_UP = f"""
    create temp sequence executions;
    create temp sequence next_statements;
    create temp table committed (token text, seconds float8);
    create function pg_temp.tell(token text, notices int, notifications int) returns text
    language plpgsql as $$begin
        for i in 1..notices loop raise notice 'greenwait: %', token; end loop;
        for i in 1..notifications loop
            perform pg_notify('greenwait_' || pg_backend_pid(), token || ' ' || i);
        end loop;
        return token;
    end$$;
    create function pg_temp.answer(
        seconds float8, token text, notices int, notifications int, fails bool
    ) returns text language plpgsql as $$begin
        perform nextval('pg_temp.executions');
        if seconds > 0 then
            begin perform pg_sleep(seconds); exception when query_canceled then null; end;
        end if;
        perform pg_temp.tell(token, notices, notifications);
        if fails then raise exception 'mine: %', token; end if;
        perform set_config('greenwait.done', token, false);
        return token;
    end$$;
    create function pg_temp.commit() returns trigger language plpgsql as $$begin
        perform nextval('pg_temp.executions');
        perform pg_sleep(new.seconds);
        perform pg_temp.tell(new.token, {_MESSAGES}, 0);
        return null;
    end$$;
    create constraint trigger commit after insert on committed
        deferrable initially deferred for each row execute function pg_temp.commit();
"""
_COUNT = (
    "select coalesce(current_setting('greenwait.done', true), ''),"
    " (select case when is_called then last_value else 0 end from pg_temp.executions),"
    " (select case when is_called then last_value else 0 end from pg_temp.next_statements)"
)
_NEXT = "select nextval('pg_temp.next_statements')"
_LONG_NEXT = f"{_NEXT} from pg_sleep({_STUBBORN})"


_cursor = psycopg2.extensions.cursor


class Interrupt(Exception):
    """What interrupts a thread that gets no signals."""


class _Struck:
    """What connections have to which something is to happen in a wait."""

    on_fileno: Callable[[int], None] | None = None
    executions = next_statements = 0

    def fileno(self) -> int:
        fd: int = super().fileno()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        happens, self.on_fileno = self.on_fileno, None
        if happens is not None:
            happens(fd)
        return fd


class _Plain(_Struck, psycopg2.extensions.connection):
    pass


class _Own(_Struck, greenwait.Connection):
    pass


class _Awaited(_Struck, aio.AsyncConnection):  # type: ignore[misc]  # as aio.AsyncConnection is
    pass


@dataclass
class Try:
    """One statement, one interrupt or deadline, and what has come of it."""

    new_conn: Callable[[], Any]
    answer: str
    event: str
    token: str
    #: Seconds after which it happens; None: when the answer is there.
    moment: float | None
    is_whole: bool  # all of the answer, to ReadyForQuery; else the first byte is enough
    many: bool  # executemany(), where the code is a method
    comes_last: bool  # the messages are those of a statement of their own

    #: Seconds to a deadline that passes beside the answer; more where that has proved too short.
    patience: ClassVar[float] = 0.01

    #: Set by the context; returns False when there is nothing any more to interrupt.
    strike: Callable[[], object] = field(init=False)
    raised: BaseException | None = field(default=None, init=False)
    is_back: bool = field(default=False, init=False)  # the first statement has returned
    was_late: bool = field(default=False, init=False)  # the interrupt has come after that
    #: The deadline, which was to pass beside the answer, had done so before that was waited for.
    was_early: bool = field(default=False, init=False)
    has_result: bool = field(default=False, init=False)
    began: float = field(default_factory=time.monotonic, init=False)
    cancels: int = field(default_factory=lambda: greenwait.stats().cancels, init=False)

    def __str__(self) -> str:
        how = "as it was answered" if self.is_whole else "as it began to be answered"
        if self.moment is not None:
            how = f"after {self.moment:.6f} s"
        how += f", {time.monotonic() - self.began:.3f} s in all"
        how += f", {greenwait.stats().cancels - self.cancels} cancels"
        return f"{self.answer}, {self.event} {how}, {type(self.conn).__name__}: {self.raised!r}"

    def __post_init__(self) -> None:
        notices = 0 if self.answer in ("plain", "notify") else _MESSAGES
        notifications = _MESSAGES if self.answer in ("notify", "two statements") else 0
        seconds = 0.0 if self.moment is None else _STUBBORN
        tell = f"; select pg_temp.tell('{self.token}', {notices}, {notifications})"
        if self.answer in ("notice", "notify") and self.comes_last:
            notices = notifications = 0
        self.query = (
            f"select pg_temp.answer({seconds}, '{self.token}', {notices}, {notifications}, "
            f"{self.answer == 'own error'})"
        )
        if self.answer == "two statements":
            self.query += f"; select '{self.token}'"
        elif self.answer in ("notice", "notify") and self.comes_last:
            self.query += tell
        self.next = _NEXT if self.event == "interrupt" else _LONG_NEXT
        self.conn: Any = None
        self.cur: Any = None
        self.passes_at = 0.0

    # -- What a context calls; all of it is synchronous code

    def prepare(self) -> None:
        """Have the connection in the state in which the try begins."""
        conn = self.conn = self.new_conn()
        del conn.notices[:], conn.notifies[:]
        conn.autocommit = self.answer != "commit"
        self.cur = conn.cursor()
        if self.answer == "commit":
            self.cur.execute(
                "insert into committed values (%s, %s);"
                "select pg_temp.tell(%s, 0, %s);"
                "select set_config('greenwait.done', %s, false)",
                (self.token, 0.0 if self.moment is None else _COMMIT, self.token, _MESSAGES,
                 self.token),
            )  # fmt: skip
        if self.moment is None:
            self.was_early = True
            conn.on_fileno = self._wait_for_answer

    def _wait_for_answer(self, fd: int) -> None:
        self.was_early = self.event == "deadline" and time.monotonic() >= self.passes_at
        _wait_until_readable(fd, self.is_whole)
        if self.event == "interrupt":
            self.strike()
        else:
            time.sleep(max(0.0, self.passes_at - time.monotonic()) + 0.0005)

    def deadline(self) -> "greenwait.timeout":
        """Return the block in which all of it is to be."""
        seconds = None
        if self.event == "deadline":
            seconds = self.patience if self.moment is None else self.moment
        self.passes_at = time.monotonic() + (seconds or 0.0)
        return greenwait.timeout(seconds)

    def strike_if_in_time(self) -> None:
        """Interrupt it, unless the statement has returned already, or what has called it ended."""
        self.was_late = self.is_back or self.strike() is False

    @contextlib.contextmanager
    def observed(self) -> Generator[None, None, None]:
        """Keep what is raised in the block; an interrupt goes on."""
        try:
            yield
        except psycopg2.Error as exc:
            self.raised = exc
        except BaseException as exc:
            self.raised = exc
            raise

    def code(self, arm: Callable[["Try"], None]) -> None:
        """Run two statements, the code that is interrupted."""
        with self.observed():
            self.arm(arm)
            if self.answer == "commit":
                self.conn.commit()
            else:
                self.cur.execute(self.query)
            self.has_returned()
            self.has_result = self.answer == "commit" or self.is_result(self.cur.fetchall())
            self.cur.execute(self.next)

    async def awaiting_code(self, arm: Callable[["Try"], None]) -> None:
        """Do the same where methods are awaited."""
        with self.observed():
            self.arm(arm)
            if self.answer == "commit":
                await self.conn.commit()
            else:
                await self.cur.execute(self.query)
            self.has_returned()
            self.has_result = self.answer == "commit" or self.is_result(await self.cur.fetchall())
            await self.cur.execute(self.next)

    def arm(self, arm: Callable[["Try"], None]) -> None:
        """Have *arm* see to it that the interrupt comes, if it comes at a moment."""
        if self.event == "interrupt" and self.moment is not None:
            arm(self)

    def has_returned(self) -> None:
        """Note that the first statement has; the next one's wait is not to stand still for it."""
        self.is_back = True
        self.conn.on_fileno = None

    def method(self) -> tuple[Any, ...]:
        """Return a method that the context is to call, with its arguments."""
        if self.answer == "commit":
            return (self.conn.commit,)
        if self.many:
            return self.cur.executemany, self.query, [(), ()]
        return self.cur.execute, self.query

    def next_method(self) -> tuple[Any, ...]:
        return self.cur.execute, self.next

    def method_returned(self) -> None:
        """Note that the method has, which was called in this try."""
        self.has_returned()
        if self.many or self.answer == "commit":
            self.has_result = True
        else:
            self.has_result = self.is_result(_cursor.fetchall(self.cur))

    def is_result(self, rows: object) -> bool:
        return rows == [(self.token,)]

    # -- Judging it

    @property
    def seconds(self) -> float:
        """After how many it is to be interrupted."""
        return self.moment or 0.0

    @property
    def has_answer(self) -> bool:
        """Was it there as it happened? Then no cancel has struck the statement itself."""
        return self.moment is None and self.is_whole

    def judge(
        self,
        counts: Counter[str],
        problems: list[str],
        kinds: tuple[type[BaseException], ...],
    ) -> None:
        """Add what has come of it to *counts*; *kinds* are those of the interrupt."""
        conn = self.conn
        conn.on_fileno = None
        is_done, executions, next_statements = True, 1, 0
        if conn.closed:
            counts["closed"] += 1
        else:
            conn.rollback()
            with conn.cursor() as cur:
                cur.execute(_COUNT)
                ((done, *found),) = cur.fetchall()
            conn.rollback()
            is_done = done == self.token
            executions = found[0] - conn.executions
            next_statements = found[1] - conn.next_statements
            conn.executions, conn.next_statements = found
        if self.was_early:
            Try.patience *= 2
        if self.was_late or self.was_early:
            return
        own = self._own_error(self.raised)
        counts["tries"] += 1
        counts["successes"] += is_done
        counts["answered"] += self.has_answer and self.answer != "own error"
        counts["after"] += next_statements + max(0, executions - 1)
        if not self._is_right(kinds, is_done, own):
            counts["lost"] += 1
            raised = "" if self.raised is None else "".join(format_exception(self.raised))
            problems.append(f"{self}; it was done: {is_done}\n{raised}")
        if is_done or own is not None:
            counts["messages"] += self._messages_lost()

    def _own_error(self, exc: BaseException | None) -> BaseException | None:
        while exc is not None and not isinstance(exc, psycopg2.errors.RaiseException):
            exc = exc.__context__
        return exc

    def _is_right(
        self, kinds: tuple[type[BaseException], ...], is_done: bool, own: BaseException | None
    ) -> bool:
        if self.event == "interrupt":
            # That of a job is not shown to who asks for its result.
            is_hidden = isinstance(self.raised, CancelledError)
            needs_own = self.answer == "own error" and self.has_answer and not is_hidden
            return isinstance(self.raised, kinds) and (own is not None or not needs_own)
        if self.is_back:  # the result stands, and the next statement hears of the deadline
            return self.has_result and isinstance(self.raised, greenwait.QueryTimeout)
        if self.answer == "own error" and self.has_answer:
            return own is self.raised
        is_failure = isinstance(self.raised, greenwait.QueryTimeout) or own is not None
        return is_failure and not is_done

    def _messages_lost(self) -> int:
        notices = sum(self.token in text for text in self.conn.notices)
        payloads = Counter(each.payload for each in self.conn.notifies)
        notifications = sum(payloads[f"{self.token} {n}"] for n in range(1, _MESSAGES + 1))
        awaited = {
            "plain": (0, 0),
            "notice": (_MESSAGES, 0),
            "notify": (0, _MESSAGES),
            "two statements": (_MESSAGES, _MESSAGES),
            "own error": (_MESSAGES, 0),
            "commit": (_MESSAGES, _MESSAGES),
        }[self.answer]
        return abs(awaited[0] - notices) + abs(awaited[1] - notifications)


def _wait_until_readable(fd: int, is_whole: bool) -> None:
    """Wait until there is an answer, and if it is to be whole, the ReadyForQuery at its end."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        give_up = time.monotonic() + _LONGEST
        while True:
            assert select.select([fd], [], [], _LONGEST)[0]
            found = sock.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            is_encrypted = found[:1] == b"\x17"  # TLS's application data: there is no telling
            if is_encrypted or not is_whole or found[-6:-1] == b"Z\0\0\0\5":
                return
            assert time.monotonic() < give_up
            time.sleep(0.0002)


# -- Contexts


class Context:
    """Where the code runs, and what interrupts it there."""

    kinds: tuple[type[BaseException], ...]
    classes: tuple[type[Any], ...] = (_Plain, _Own)
    way = "function"  # or "method", or "await"

    def __init__(self, way: str = "function") -> None:
        self.way = way

    def run(self, trials: "Trials") -> None:
        """Run all of them in this context."""
        greenwait.install(cancel_grace=10)
        self.play_all(trials)

    def play_all(self, trials: "Trials") -> None:
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

    def run(self, trials: "Trials") -> None:
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

    def run(self, trials: "Trials") -> None:
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

    def run(self, trials: "Trials") -> None:
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

    def run(self, trials: "Trials") -> None:
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
            self.eventlet.sleep(_LONGEST)
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
            self.classes = (_Awaited,)

    def run(self, trials: "Trials") -> None:
        greenwait.install(cancel_grace=10)
        loop = self.new_loop()
        try:
            loop.run_until_complete(self._play_all(trials))
        finally:
            loop.close()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    async def _play_all(self, trials: "Trials") -> None:
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

    def run(self, trials: "Trials") -> None:
        _run_in_thread(super().run, trials)


class InUvloop(InAsyncio):
    """The same on uvloop."""

    def new_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop


class InTrio(Context):
    """A cancel scope of trio's, cancelled."""

    def run(self, trials: "Trials") -> None:
        import trio

        from greenwait.trio import run

        self.trio, self.call, self.kinds = trio, run, (trio.Cancelled,)
        greenwait.install(cancel_grace=10)
        trio.run(self._play_all, trials)

    async def _play_all(self, trials: "Trials") -> None:
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


# -- All of a context's


class Trials:
    """An iterator of tries, whose results are in ``counts`` when the next one is asked for."""

    def __init__(self, context: Context, dsn: str, tries: int, rng: random.Random) -> None:
        self.context, self.dsn, self.rng, self.tries = context, dsn, rng, tries
        self.cells: dict[str, dict[str, Counter[str]]] = {}
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._conns: dict[type[Any], Any] = {}

    def __iter__(self) -> Generator[Try, None, None]:
        number = 0
        for answer in ANSWERS:
            for event in EVENTS:
                self.counts = self.cells.setdefault(answer, {})[event] = Counter()
                while self.counts["tries"] < self.tries:
                    number += 1
                    faulthandler.dump_traceback_later(_LONGEST, exit=True)
                    yield self._new(number, answer, event)
        faulthandler.cancel_dump_traceback_later()
        for conn in self._conns.values():
            conn.close()

    def _new(self, number: int, answer: str, event: str) -> Try:
        turn = self.counts["tries"]  # one that does not count is made again
        kind = self.rng.choice(self.context.classes)
        is_method = self.context.way == "method"
        if is_method and answer == "commit":
            kind = self.context.classes[-1]  # psycopg2's own would be told by a line of Python
        may_be_many = is_method and event == "interrupt" and answer != "commit"
        return Try(
            functools.partial(self._connection, kind),
            answer,
            event,
            f"try {number}.",
            None if turn % 2 else self.rng.random() * _LATEST,
            is_whole=self.rng.random() < 0.75,
            many=may_be_many and self.rng.random() < 0.5,
            comes_last=turn // 2 % 2 == 0,
        )

    def _connection(self, kind: type[Any]) -> Any:
        conn = self._conns.get(kind)
        if conn is None or conn.closed:
            conn = self._conns[kind] = psycopg2.connect(self.dsn, connection_factory=kind)
            conn.autocommit = True
            cur = conn.cursor()
            cur.execute(_SET_UP)
            cur.execute(f"listen greenwait_{conn.info.backend_pid}")
        return conn


def main() -> None:
    """Run the tries of a context."""
    parser = argparse.ArgumentParser(prog="python -m tests.delivery_trials")
    parser.add_argument("context", choices=CONTEXTS)
    parser.add_argument("dsn")
    parser.add_argument("--tries", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", default="0", help="of the random moments")
    options = parser.parse_args()
    context = CONTEXTS[options.context]()
    rng = random.Random(f"{options.seed}-{options.context}")
    trials = Trials(context, options.dsn, options.tries, rng)
    context.run(trials)
    json.dump({"cells": trials.cells, "problems": trials.problems}, sys.stdout)


if __name__ == "__main__":
    main()
