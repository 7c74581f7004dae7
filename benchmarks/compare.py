"""Compare the ways to wait for PostgreSQL: psycopg2's own, people's callbacks, greenwait's.

python benchmarks/compare.py --quick --report report.html
"""

import argparse
import contextlib
import fnmatch
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

# Run as a script, from wherever: the benchmark's modules and tools/ are found from
# the root of the repository. greenwait itself is the installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from rich.console import Console
    from rich.markup import escape

    from benchmarks import headline, report
    from benchmarks.callbacks import BLOCKING, DEFAULT, FEW, NAMES, contestants
    from benchmarks.figures import console, positive, print_facts, step
    from benchmarks.leading import Leading
    from benchmarks.machine import Cores, Pinning, is_busy, machine, versions
    from benchmarks.measure import measure
    from benchmarks.page import page
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
_QUICK_SECONDS = 5.0  # for a workload, on a slow or busy machine too


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


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[ExternalServer | Server]:
    """Run the server that is measured."""
    if options.dsn:
        yield ExternalServer(options.dsn)
        return
    server = Server()
    with contextlib.ExitStack() as cleanup:
        with step("starting a PostgreSQL for the run"):
            cleanup.enter_context(server)
        yield server


def _lead(parts: Leading, terminal: Console) -> dict[str, Any]:
    """Measure what the report leads with, and print its tables."""
    found: dict[str, Any] = {"behaviour": parts.behaviour()}
    terminal.print(report.behaviour_table(found["behaviour"]), "")
    found["many_at_once"], tables = parts.many_at_once()
    for table in tables:
        terminal.print(table, "")
    found["busy"] = parts.busy()
    found["spin"] = parts.spin()
    for workload in filter(None, (*found["busy"], found["spin"])):
        terminal.print(report.workload_table(workload), "")
    return found


def _compare(
    options: argparse.Namespace, chosen: Sequence[tuple[Workload, int]], terminal: Console
) -> dict[str, Any]:
    """Measure, print the tables, and return every figure."""
    cores = Cores(options.cores)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    rng = random.Random(seed)
    everybody = contestants({BLOCKING, *(options.only or DEFAULT)})
    here = machine()
    if is_busy(here):
        print("the machine is busy: expect a wide spread", file=sys.stderr)
    # Rounds that were asked for by number are run, however long they take.
    most_seconds = _QUICK_SECONDS if options.quick and not options.rounds else math.inf
    measured: list[dict[str, Any]] = []
    leading: dict[str, Any] = {}
    with _server(options) as server:
        with connected(server.dsn(server.transports[0]), None) as conn:
            with_what = versions(conn)
        started = time.monotonic()
        # Somebody's own server can't be frozen; and who asks for a part gets that.
        if isinstance(server, Server) and not (options.workload or options.only):
            leading = _lead(Leading(server, rng, is_quick=options.quick), terminal)
        terminal.print(report.EXPLANATION, "")
        for workload, rounds in chosen:
            entries = everybody
            if options.quick and not options.only and workload.most_queries == 1:
                entries = [each for each in everybody if each.name in FEW]
            with step(f"{workload.title}: {len(entries)} ways to wait") as told:
                found = measure(
                    workload,
                    entries,
                    server.dsn(workload.transport),
                    rounds,
                    rng,
                    most_seconds=most_seconds,
                    cores=cores,
                    told=told,
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
        "leading": leading,
        "workloads": measured,
    }
    if sentences := [*headline.sentences(document)]:
        terminal.print("[bold]In short[/]")
        for sentence in sentences:
            terminal.print("-", escape(str(sentence)))
        terminal.print()
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
        options.report.write_text(page(document, terminal.export_text()), encoding="utf-8")
    for path in filter(None, (options.json, options.report)):
        print("written:", path.resolve())


if __name__ == "__main__":
    main()
