"""The tables of docs/when-a-query-must-stop.md, from what the explorer has found.

python -m tests.explorer.table   # print them; cog puts them there
"""

import json
from pathlib import Path

__all__ = ["KEPT", "Kept", "entry", "table"]

KEPT = Path(__file__).parents[2] / "docs" / "stopping.json"

#: The columns: some phases come to the same, but for what the query itself has to say.
COLUMNS = {
    "connecting": ("connect",),
    "a query": (
        "transaction",
        "query",
        "sleep",
        "deaf",
        "failing",
        "answer",
        "statement",
        "messages",
        "executemany",
        "copy",
        "copy-in",
    ),
    "`commit()`": ("commit",),
    "`rollback()`": ("rollback",),
}
END, LIMIT, CANCEL = "**end**", "**limit**", "**cancel**"
BESIDE = "**signal** beside"
EVENTS = {
    "ctrl-c": END,
    "kill": END,
    "cancel": END,
    "limit": LIMIT,
    "timeout": LIMIT,
    "deadline": "deadline",
    "silent": "no answer",
    "lost": "connection lost",
    "terminated": "session ended",
    "error": "another's cancel",
    "closed": "descriptor closed",
    "notice": "message",
    "notification": "message",
}
#: A signal there is for whoever waits for the job or the task.
_SIGNALS = dict.fromkeys(("limit", "ctrl-c"), BESIDE)
IN_CONTEXTS = {
    "asyncio": {"cancel": CANCEL},
    "asyncio-signals": {"cancel": CANCEL, **_SIGNALS},
    "hub-signals": _SIGNALS,
}
EXCEPTIONS = {
    "KeyboardInterrupt": END,
    "GreenletExit": END,
    "CancelledError": CANCEL,
    "Limit": LIMIT,
    "Timeout": LIMIT,
    "AdminShutdown": "OperationalError",
    "-": "",
}
#: Only these are told of where they are a context or a cause.
TOLD = (END, LIMIT, CANCEL, "QueryTimeout", "CommitInDoubt")
OWN = ("DivisionByZero", "ProgrammingError")  # of the query
ROWS = [
    (END,), (LIMIT,), (CANCEL,), ("deadline",),
    (END, LIMIT), (LIMIT, END), (END, END), (LIMIT, LIMIT), (CANCEL, CANCEL),
    ("deadline", END), ("deadline", LIMIT), ("deadline", CANCEL),
    (END, "deadline"), (LIMIT, "deadline"), (CANCEL, "deadline"),
    *(
        (first, second)
        for second in (
            "no answer", "connection lost", "descriptor closed", "session ended",
            "another's cancel",
        )
        for first in (END, LIMIT, CANCEL, "deadline")
    ),
    *(("another's cancel", second) for second in (END, LIMIT, CANCEL, "deadline")),
    ("connection lost",), ("descriptor closed",), ("session ended",), ("another's cancel",),
    (BESIDE,), (BESIDE, END), (END, BESIDE), (BESIDE, CANCEL), (CANCEL, BESIDE),
]  # fmt: skip

Kept = dict[str, dict[str, dict[str, list[str]]]]


def table() -> str:
    """Return what is raised, and what becomes of the connection, as Markdown."""
    kept: Kept = json.loads(KEPT.read_text(encoding="utf-8"))
    lines = [
        f"| what happens | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for row in ROWS:
        cells = [_cell(kept, phases, row) for phases in COLUMNS.values()]
        if any(cells):
            lines.append(f"| {', then '.join(row)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def entry(phase: str, events: str, finding: str, context: str) -> tuple[str, str, str]:
    """Return the column, the row and the text to which a finding belongs."""
    column = next(name for name, phases in COLUMNS.items() if phase in phases)
    return column, ", then ".join(_in_words(events, context)), _outcome(finding, phase)


def _cell(kept: Kept, phases: tuple[str, ...], row: tuple[str, ...]) -> str:
    """Return all that a row's events come to in some phases."""
    found = set()
    for phase in phases:
        for events, findings in kept[phase].items():
            for finding, contexts in findings.items():
                for context in contexts:
                    if _in_words(events, context) == row:
                        found.add(_outcome(finding, phase))
    return "; ".join(sorted(found))


def _in_words(events: str, context: str) -> tuple[str, ...]:
    """Return the events in the table's words."""
    of_context = IN_CONTEXTS.get(context, {})
    return tuple(of_context.get(event) or EVENTS.get(event, event) for event in events.split(" + "))


def _outcome(finding: str, phase: str) -> str:
    raised, others, connection, _ = finding.split("; ")
    name = "the query's own error" if raised in OWN else EXCEPTIONS.get(raised, raised)
    told = [EXCEPTIONS.get(each, each) for each in others.split(", ")]
    told = sorted({each for each in told if each in TOLD})
    text = f"{name} ← {', '.join(told)}" if told else name or "its result"
    return text if phase == "connect" else f"{text}, {connection}"


if __name__ == "__main__":
    print(table())
