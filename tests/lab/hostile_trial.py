"""What a client tries on a hostile server: a few calls, each of which must end in time."""

import random
import time
import traceback
from typing import Any

import psycopg2

import greenwait
from tests.lab.bounds import bound
from tests.lab.hostile_server import dsn

LIMIT = GRACE = 0.3  # seconds
#: For a busy machine, and for the others of the thread, whose parsing holds the GIL.
MARGIN = bound(4)
#: What psycopg2 raises of its own accord where a server sends what can't be decoded.
_OF_PSYCOPG2 = (psycopg2.Error, ValueError)


class _OwnPoll(psycopg2.extensions.connection):
    def poll(self):
        return super().poll()


class Trial:
    """A few calls, each with a time limit of its own."""

    def __init__(
        self, seed: str, port: int, *, grace: float = GRACE, margin: float = MARGIN
    ) -> None:
        self.seed = seed
        self.problems: list[str] = []
        self.outcomes: list[str] = []
        self._longest = LIMIT + grace + margin
        self._rng = random.Random(f"{seed}-client")
        self._dsn = dsn(port, sslmode=self._rng.choice(["disable", "prefer", "prefer"]))
        self._conn: Any = None

    moments: Any = ()  # as a job of the soak's has them
    is_native = is_over = False

    def __call__(self) -> None:
        try:
            self.play()
        except BaseException:
            self.problems.append(traceback.format_exc())
        self.is_over = True

    def play(self) -> None:
        try:
            self._play()
        finally:
            if self._conn is not None:
                self._do("close", self._conn.close)
            self._conn = None  # and with it all that it was notified of

    def _play(self) -> None:
        kind = self._rng.choice(["plain", "plain", "shared", "own poll", "async", "pool"])
        if kind == "pool":
            self._borrow()
            return
        if not self._do(f"connect {kind}", lambda: self._connect(kind)):
            return
        steps = [self._query, self._copy, self._listen, self._cancel, self._end]
        if kind == "async":
            steps = [self._ask_async, self._listen, self._cancel]
        for step in self._rng.choices(steps, k=4):
            if self._conn.closed:
                break
            self._do(step.__name__, step)

    def _do(self, what: str, function: Any) -> bool:
        """Do it within the limit. Returns whether that was possible."""
        outcome = "done"
        began = time.monotonic()
        try:
            with greenwait.timeout(LIMIT):
                function()
        except _OF_PSYCOPG2 as exc:
            outcome = type(exc).__name__
        seconds = time.monotonic() - began
        self.outcomes.append(f"{what}: {outcome} after {seconds:.2f} s")
        if seconds > self._longest:
            self.problems.append(f"{what} took {seconds:.1f} s")
        return outcome == "done"

    def _connect(self, kind: str) -> None:
        if kind == "async":
            self._conn = psycopg2.connect(self._dsn, async_=1)
            greenwait.wait(self._conn)
        elif kind == "own poll":
            self._conn = psycopg2.connect(self._dsn, connection_factory=_OwnPoll)
        elif kind == "shared":
            self._conn = greenwait.connect(self._dsn)
        else:
            self._conn = psycopg2.connect(self._dsn)

    def _query(self) -> None:
        with self._conn.cursor() as cur:
            cur.execute("select 1")
            cur.fetchall()

    def _ask_async(self) -> None:
        cur = self._conn.cursor()
        cur.execute("select 1")
        greenwait.wait(self._conn)
        cur.fetchall()

    def _copy(self) -> None:
        with self._conn.cursor() as cur:
            cur.execute("copy t to stdout")

    def _listen(self) -> None:
        for _ in greenwait.notifies(self._conn, timeout=0.05):
            pass

    def _cancel(self) -> None:
        greenwait.cancel(self._conn, timeout=LIMIT)

    def _end(self) -> None:
        self._conn.commit() if self._rng.random() < 0.5 else self._conn.rollback()

    def _borrow(self) -> None:
        pool = greenwait.Pool(self._dsn, max_size=1, timeout=LIMIT)

        def use() -> None:
            with pool.connection() as self._conn:
                self._query()

        for _ in range(3):
            self._do("borrow", use)
        self._do("close the pool", lambda: pool.close(timeout=0))
