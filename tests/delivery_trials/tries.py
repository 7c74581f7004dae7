"""One statement, what interrupts it, and what is lost of that."""

import contextlib
import faulthandler
import functools
import os
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from traceback import format_exception
from typing import Any, ClassVar

import psycopg2

import greenwait
from greenwait import aio

ANSWERS = ("plain", "notice", "notify", "two statements", "own error", "commit")
EVENTS = ("interrupt", "deadline")

_MESSAGES = 3  # of each kind, in the answers that have them
_STUBBORN = 5.0  # seconds that a statement sleeps unless it is cancelled, which it ignores
_COMMIT = 0.06  # seconds that a commit takes
_LATEST = 0.03  # seconds after which it is interrupted, at the latest
LONGEST = 30.0  # seconds that a try may take before the stacks are dumped

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


class Plain(_Struck, psycopg2.extensions.connection):
    pass


class Own(_Struck, greenwait.Connection):
    pass


class Awaited(_Struck, aio.AsyncConnection):  # type: ignore[misc]  # as aio.AsyncConnection is
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
        give_up = time.monotonic() + LONGEST
        while True:
            assert select.select([fd], [], [], LONGEST)[0]
            found = sock.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            is_encrypted = found[:1] == b"\x17"  # TLS's application data: there is no telling
            if is_encrypted or not is_whole or found[-6:-1] == b"Z\0\0\0\5":
                return
            assert time.monotonic() < give_up
            time.sleep(0.0002)


class Trials:
    """An iterator of tries, whose results are in ``counts`` when the next one is asked for."""

    def __init__(
        self,
        classes: tuple[type[Any], ...],
        way: str,
        dsn: str,
        tries: int,
        rng: random.Random,
    ) -> None:
        self.classes, self.way = classes, way  # the context's
        self.dsn, self.rng, self.tries = dsn, rng, tries
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
                    faulthandler.dump_traceback_later(LONGEST, exit=True)
                    yield self._new(number, answer, event)
        faulthandler.cancel_dump_traceback_later()
        for conn in self._conns.values():
            conn.close()

    def _new(self, number: int, answer: str, event: str) -> Try:
        turn = self.counts["tries"]  # one that does not count is made again
        kind = self.rng.choice(self.classes)
        is_method = self.way == "method"
        if is_method and answer == "commit":
            kind = self.classes[-1]  # psycopg2's own would be told by a line of Python
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
