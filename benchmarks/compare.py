"""Compare the ways to wait for PostgreSQL: psycopg2's own, people's callbacks, greenwait's.

python benchmarks/compare.py --quick --report report.html
"""

import argparse
import fnmatch
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

# Run as a script, from wherever: the benchmark's modules and tools/ are found from
# the root of the repository. greenwait itself is the installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from rich.console import Console

    from benchmarks import report
    from benchmarks.callbacks import BLOCKING, DEFAULT, NAMES, contestants
    from benchmarks.figures import console, positive, print_facts
    from benchmarks.machine import Cores, Pinning, machine, versions
    from benchmarks.measure import measure
    from benchmarks.runner import connected
    from benchmarks.workloads import Workload, workloads
    from tests.lab.postgres import ExternalServer, Server
except ImportError as exc:
    print(
        f"{exc}\nThe benchmark needs pip install -e '.[binary,test,bench]'; make bench does that",
        file=sys.stderr,
    )
    sys.exit(2)

_TRANSPORTS = ("unix", "tcp", "tls")  # of a server of our own
_QUICK_SECONDS = 6.5  # for a workload, on a slow or busy machine too


def _new_file(text: str) -> Path:
    """Refuse now what would fail after minutes of measuring."""
    path = Path(text)
    try:
        path.touch()
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"it can't be written: {exc}") from None
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare the ways to wait for PostgreSQL: blocking psycopg2, the wait "
        "callbacks in use, greenwait.",
        epilog=f"workloads: {', '.join(each.name for each in workloads(_TRANSPORTS))}; with --dsn "
        "dsn is the transport's name.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, and one workload beside a busy thread"
    )
    parser.add_argument(
        "--cores",
        choices=get_args(Pinning),
        default="free",
        help="pin client and server to the same core, where the ratios are stable, or keep them "
        "apart (Linux)",
    )
    parser.add_argument(
        "--dsn",
        help="measure this database, over the one transport that DSN names; "
        "without it a server is started for the run",
    )
    parser.add_argument(
        "--workload",
        metavar="NAME",
        action="append",
        help="only this one; may be repeated, and may be a pattern: '*-busy'",
    )
    parser.add_argument(
        "--only",
        choices=NAMES,
        action="append",
        help=f"only this one, beside {BLOCKING}, which the ratios need; may be repeated",
    )
    parser.add_argument("--rounds", metavar="N", type=positive, help="rounds of every workload")
    parser.add_argument("--seed", metavar="N", type=int, help="of the shuffled order; printed")
    parser.add_argument(
        "--json", metavar="FILE", type=_new_file, help="write all figures and samples"
    )
    parser.add_argument(
        "--report", metavar="FILE.html", type=_new_file, help="write one self-contained page"
    )
    return parser


def _choose_workloads(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> list[tuple[Workload, int]]:
    """Return what is asked for, and how many rounds of it."""
    available = {
        each.name: each
        for each in workloads(ExternalServer.transports if options.dsn else _TRANSPORTS)
    }
    chosen = [
        name
        for name, each in available.items()
        if not each.by_name_only and (each.quick_rounds or not options.quick)
    ]
    if options.workload:
        matching = [fnmatch.filter(available, pattern) for pattern in options.workload]
        if not all(matching):
            parser.error(f"--workload: there are {', '.join(available)}")
        chosen = [name for name in available if any(name in names for names in matching)]
    return [
        (each, options.rounds or (options.quick and each.quick_rounds) or each.rounds)
        for each in map(available.__getitem__, chosen)
    ]


def _compare(
    options: argparse.Namespace, chosen: Sequence[tuple[Workload, int]], terminal: Console
) -> dict[str, Any]:
    """Measure, print the tables, and return every figure."""
    cores = Cores(options.cores)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    rng = random.Random(seed)
    entries = contestants({BLOCKING, *(options.only or DEFAULT)})
    here = machine()
    if float(here["load before"]) > (os.cpu_count() or 1) / 2:
        print("the machine is busy: expect a wide spread", file=sys.stderr)
    # Rounds that were asked for by number are run, however long they take.
    most_seconds = _QUICK_SECONDS if options.quick and not options.rounds else math.inf
    terminal.print(report.EXPLANATION, "")
    measured = []
    with ExternalServer(options.dsn) if options.dsn else Server() as server:
        with connected(server.dsn(server.transports[0]), None) as conn:
            with_what = versions(conn)
        started = time.monotonic()
        for workload, rounds in chosen:
            found = measure(
                workload,
                entries,
                server.dsn(workload.transport),
                rounds,
                rng,
                most_seconds=most_seconds,
                cores=cores,
            )
            measured.append(found)
            terminal.print(report.workload_table(found), "")
        seconds = time.monotonic() - started
    document: dict[str, Any] = {
        "format": 1,
        "machine": here,
        "versions": with_what,
        "settings": {
            "pinning": cores.title,
            "server": "of --dsn" if options.dsn else "started for this run",
            "seed": str(seed),
            "rounds": str(options.rounds or ("quick" if options.quick else "full")),
            "took": f"{seconds:.0f} s",
        },
        "workloads": measured,
    }
    for table in report.summaries(document):
        terminal.print(table, "")
    print_facts({name: document[name] for name in report.FACTS}, terminal)
    return document


def main() -> None:
    """Measure, print the tables, and write what was asked for."""
    parser = _parser()
    options = parser.parse_args()
    terminal = console()
    document = _compare(options, _choose_workloads(parser, options), terminal)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.report is not None:
        options.report.write_text(report.page(document, terminal), encoding="utf-8")
    for path in filter(None, (options.json, options.report)):
        print("written:", path.resolve())


if __name__ == "__main__":
    main()
