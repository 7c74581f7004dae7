"""A table of what is lost where an interrupt or a deadline meets an answer, in every context.

    python -m tests.delivery_trials.table [--tries N] [--seed N] [--only CONTEXT] [--parallel N]

Each cell has four numbers: tries / lost / messages lost / statements run after. An interrupt is
lost that the interrupted code does not raise, as itself; a deadline that neither the statement nor
the next one hears of, or that costs the result of a statement that has succeeded. A message is a
notice or a notification of an answer. What runs after is the next statement of the interrupted
code, on the server. Half of the tries strike when the success is there already.

The exit status is 1 when a number is not 0 that should be, or a connection was closed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.delivery_trials.contexts import CONTEXTS
from tests.delivery_trials.tries import ANSWERS, EVENTS
from tests.lab.postgres import running

_ROOT = Path(__file__).parents[2]
_EVENTS = {"interrupt": "Ctrl-C, cancel or kill", "deadline": "deadline"}

Cells = dict[str, dict[str, dict[str, int]]]


def cells_of(context: str, dsn: str, tries: int, seed: str = "0") -> tuple[Cells, list[str]]:
    """Run the tries of a context in a process of its own; return its counts, and what was lost.

    :raises RuntimeError: the process has failed; the text has its output.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.delivery_trials", context, dsn),
            *("--tries", str(tries), "--seed", seed),
        ],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{context}: exit status {done.returncode}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found["cells"], found["problems"]


def faults(context: str, cells: Cells) -> Iterator[str]:
    """Yield what is wrong, a line for each cell."""
    for answer in ANSWERS:
        for event in EVENTS:
            counts = cells[answer][event]
            for what in ("lost", "messages", "after", "closed"):
                if counts.get(what, 0):
                    yield f"{context}, {answer}, {_EVENTS[event]}: {counts}"
                    break


def row(context: str, event: str, cells: Cells) -> str:
    """Return a line of the table."""
    found = [cells[answer][event] for answer in ANSWERS]
    numbers = [
        " / ".join(str(each.get(what, 0)) for what in ("tries", "lost", "messages", "after"))
        for each in found
    ]
    return " | ".join(["", context, _EVENTS[event], *numbers, ""]).strip()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.delivery_trials.table")
    parser.add_argument("--tries", type=int, default=100, help="in each cell, default: %(default)s")
    parser.add_argument("--seed", default="0", help="of the random moments")
    parser.add_argument("--only", choices=CONTEXTS, help="one context")
    parser.add_argument("--parallel", type=int, default=2, help="contexts at the same time")
    options = parser.parse_args()
    contexts = [options.only] if options.only else list(CONTEXTS)
    began = time.monotonic()
    wrong: list[str] = []
    met = tries = 0
    print("Each cell: tries / lost / messages lost / statements run after.\n")
    print(" | ".join(["| context", "event", *ANSWERS]) + " |")
    print("|---" * (2 + len(ANSWERS)) + "|", flush=True)
    with running() as server, ThreadPoolExecutor(options.parallel) as pool:
        dsn = server.dsn(server.transports[0])
        found = pool.map(lambda each: cells_of(each, dsn, options.tries, options.seed), contexts)
        for context, (cells, problems) in zip(contexts, found, strict=True):
            for event in EVENTS:
                print(row(context, event, cells), flush=True)
            wrong += [*faults(context, cells), *problems]
            for events in cells.values():
                met += sum(each.get("successes", 0) for each in events.values())
                tries += sum(each["tries"] for each in events.values())
    print(f"\n{tries} tries, of which {met} met a success, in {time.monotonic() - began:.0f} s.")
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
