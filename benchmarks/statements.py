"""What the clients on many connections ask, and what the answer must be."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from benchmarks.workloads import WrongResultError


@dataclass(frozen=True)
class Statement:
    """A query, and its rows as each client has to return them: as Python's types."""

    title: str
    text: str
    rows: list[tuple[Any, ...]]
    queries: int  # of all connections together, in one round

    @property
    def is_single(self) -> bool:
        """Whether one row comes: that is what ``fetchone()`` is for."""
        return len(self.rows) == 1

    def check(self, answer: Any) -> None:
        """Raise WrongResultError unless *answer*, a row or a list of rows, is right."""
        got = [tuple(row) for row in (answer if isinstance(answer, list) else [answer])]
        if got != self.rows:
            raise WrongResultError(f"expected {self.rows!r:.300}, and got {got!r:.300}")


def _rows(count: int, queries: int) -> Statement:
    """Return a query for so many rows of the types that most tables have."""
    text = (
        "select n, 'name ' || n, timestamp '2026-01-01' + n * interval '1 s', "
        "(n / 100.0)::numeric(10, 2), jsonb_build_object('id', n, 'name', 'name ' || n) "
        f"from generate_series(1, {count}) as n"
    )
    rows = [
        (
            n,
            f"name {n}",
            datetime(2026, 1, 1) + timedelta(seconds=n),
            Decimal(n).scaleb(-2),
            {"id": n, "name": f"name {n}"},
        )
        for n in range(1, count + 1)
    ]
    title = "1 row" if count == 1 else f"{count:,} rows"
    return Statement(title, text, rows, queries)


#: By the name on the command line.
STATEMENTS = {
    "select-1": Statement("select 1", "select 1", [(1,)], 6400),
    "rows-1": _rows(1, 6400),
    "rows-100": _rows(100, 640),
    "rows-1000": _rows(1000, 96),
}
