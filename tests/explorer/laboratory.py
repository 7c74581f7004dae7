"""The laboratory: it runs a case between a client and its server, and judges what came of it."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions
from psycopg2 import errors

import greenwait
import greenwait.aio
from tests.explorer.cases import (
    GRACE,
    HARMLESS,
    INTERRUPTS,
    LOST,
    MARGIN,
    NOTICE,
    NOTIFICATION,
    SHORT_GRACE,
    STRONG,
    Case,
    Events,
    Phase,
    is_the,
    reachable,
)
from tests.explorer.contexts import CONTEXTS, SETTLE, WAIT, Drive
from tests.lab.postgres import Server
from tests.lab.step_proxy import TIMEOUT, Link, Message, StepProxy


class Finding(NamedTuple):
    """What cases have in common that come to the same."""

    raised: str
    context: str
    connection: str
    server: str

    def __str__(self) -> str:
        return "; ".join(self)


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
        case = Case(phase, self.number, self.proxy, events, at_once)
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
            many = interrupts > 1 and not self.context.drains_always
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
