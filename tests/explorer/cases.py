"""What is explored: the events, the phases of a wait, and a case, which has one and some."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import errors

from tests.lab.bounds import bound
from tests.lab.step_proxy import Message, StepProxy

GRACE = 20.0  # seconds, of a server that answers
SHORT_GRACE = 0.03  # of one that does not; longer where it ends before that falls silent
MARGIN = bound(8)  # on a machine that is busy with other tests


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
    proxy: StepProxy
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
