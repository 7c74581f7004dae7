"""What is waited for: the statements, what their answers must be, and the busy thread.

None of them needs a table, so that they run on anybody's database.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg2.extensions import cursor

_LITERAL_BYTES = 20_000_000
_MANY = 200_000


class WrongResultError(Exception):
    """The server's answer did not arrive as it was sent."""


@dataclass(frozen=True)
class Workload:
    """One statement over one transport; an ``execute()`` of it is exactly one wait."""

    name: str
    title: str
    transport: str
    statement: bytes
    check: Callable[[cursor], None]
    most_queries: int  # in a block; fewer where they take long
    rounds: int
    quick_rounds: int  # 0: not part of --quick
    busy: bool = False
    by_name_only: bool = False


def _check_rows(*wanted: tuple[object, ...]) -> Callable[[cursor], None]:
    def check(cur: cursor) -> None:
        _expect(cur.fetchall(), list(wanted))

    return check


def _check_series(count: int) -> Callable[[cursor], None]:
    def check(cur: cursor) -> None:
        rows = cur.fetchall()
        _expect(len(rows), count)
        _expect(sum(row[0] for row in rows), count * (count + 1) // 2)
        _expect({row[1] for row in rows}, {"x" * 104})

    return check


def _expect(got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongResultError(f"expected {wanted!r:.200}, and got {got!r:.200}")


def _series(count: int) -> bytes:
    # A set-returning function in the select list is streamed; in FROM its rows
    # would go through a temporary file first, and the disk would be measured.
    return f"select generate_series(1, {count}), repeat('x', 104)".encode()


def workloads(transports: Sequence[str]) -> list[Workload]:
    """Return the workloads: ``select 1`` over each of *transports*, the others over the first."""
    suffix = f", {transports[0]}"
    alone = [
        Workload(
            name=f"select-1-{transport}",
            title=f"select 1, {transport}",
            transport=transport,
            statement=b"select 1",
            check=_check_rows((1,)),
            most_queries=300,
            rounds=200,
            quick_rounds=40,
        )
        for transport in transports
    ]
    short = replace(
        alone[0],
        name="rows-100",
        title=f"100 rows{suffix}",
        statement=_series(100),
        check=_check_series(100),
        rounds=150,
        quick_rounds=30,
    )
    large = replace(
        alone[0],
        name="rows-200k",
        title=f"200,000 rows, 25 MB{suffix}",
        statement=_series(_MANY),
        check=_check_series(_MANY),
        most_queries=1,
        rounds=20,
        quick_rounds=6,
    )
    sent = replace(
        large,
        name="statement-20mb",
        title=f"20 MB statement{suffix}",
        # Bytes, so that encoding it is not part of what is measured.
        statement=b"select length('" + b"x" * _LITERAL_BYTES + b"')",
        check=_check_rows((_LITERAL_BYTES,)),
    )
    alone += [short, large, sent]
    slow = replace(
        alone[0],
        name="sleep-10ms",
        title=f"select pg_sleep(0.01){suffix}",
        statement=b"select pg_sleep(0.01)",
        check=_check_rows(("",)),
        most_queries=50,
        rounds=20,
        by_name_only=True,
    )
    return [*alone, *map(_beside_busy_thread, alone), slow]


def _beside_busy_thread(workload: Workload) -> Workload:
    return replace(
        workload,
        name=f"{workload.name}-busy",
        title=f"{workload.title}, busy",
        rounds=max(15, workload.rounds // 8),
        quick_rounds=8 if workload.name in ("select-1-unix", "select-1-dsn") else 0,
        busy=True,
    )


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """Run pure Python in another thread of this process during the ``with`` block."""
    started = threading.Event()
    done = False

    def compute() -> None:
        started.set()
        number = 1
        while not done:
            number = number * 1_103_515_245 % 2_147_483_647

    thread = threading.Thread(target=compute, name="busy", daemon=True)
    thread.start()
    started.wait()
    try:
        yield
    finally:
        done = True
        thread.join()
