"""Compare the ways to wait for PostgreSQL: psycopg2's own, people's callbacks, greenwait's.

    python benchmarks/compare.py --quick --report report.html

The exit code is 0 when everything was measured, 1 when the server failed or a
contestant brought a wrong answer, 2 for bad usage, and 130 after Ctrl-C.
"""

import argparse
import contextlib
import fnmatch
import importlib.util
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType

# Run as a script, from wherever: the benchmark's modules and tools/ are found from
# the root of the repository. greenwait itself is the installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    import psycopg2
    from psycopg2.extensions import make_dsn, parse_dsn
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from benchmarks import plots, report
    from benchmarks.callbacks import BLOCKING, NAMES, Contestant, contestants, unavailable
    from benchmarks.figures import positive, terminal
    from benchmarks.machine import (
        CannotPinError,
        SameCore,
        load_average,
        machine,
        transport_of,
        versions,
    )
    from benchmarks.measure import Outcome, measure
    from benchmarks.workloads import TRANSPORTS, Workload, WrongResultError, workloads
except ImportError as exc:
    print(
        f"{exc}\nThe benchmark needs pip install -e '.[binary,test,bench]'; make bench does that",
        file=sys.stderr,
    )
    sys.exit(2)

_SECONDS_BETWEEN_REFRESHES = 0.2
_CONNECT_TIMEOUT = 10
_QUICK_SECONDS = 6.5  # for a workload, on a slow or busy machine too


class UsageError(Exception):
    """The command line can't be carried out; says what to do instead."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare the ways to wait for PostgreSQL: blocking psycopg2, the wait "
        "callbacks in use, greenwait.",
        epilog=f"contestants: {', '.join(NAMES)}. "
        f"workloads: {', '.join(each.name for each in workloads(TRANSPORTS))}; with --dsn: "
        f"{', '.join(each.name for each in workloads())}.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, and one workload beside a busy thread"
    )
    parser.add_argument(
        "--same-core",
        action="store_true",
        help="pin client and server process to one core, where the ratios are stable (Linux)",
    )
    parser.add_argument(
        "--dsn",
        metavar="DSN",
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
        metavar="CONTESTANT",
        action="append",
        help=f"only this one, beside {BLOCKING}, which the ratios need; may be repeated",
    )
    parser.add_argument("--rounds", metavar="N", type=positive, help="rounds of every workload")
    parser.add_argument("--seed", metavar="N", type=int, help="of the shuffled order; printed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures and samples")
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        type=Path,
        help="write one self-contained page, and its plots as PNG beside it",
    )
    return parser


# -- What was asked for


def _check_files(options: argparse.Namespace) -> None:
    """Refuse now what would fail after minutes of measuring."""
    if options.report is not None:
        if options.report.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--report {options.report}: the name must end in .html")
        if importlib.util.find_spec("matplotlib") is None:
            raise UsageError("--report needs matplotlib: pip install 'greenwait[bench]'")
    for option, path in (("--report", options.report), ("--json", options.json)):
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{option} {path}: that is a directory; name a file")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: there is no directory {path.parent}; make it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"{option} {path}: you may not write there; name another place")


def _chosen_contestants(only: Sequence[str] | None) -> list[Contestant]:
    missing = unavailable()
    for name in only or ():
        if name not in NAMES:
            raise UsageError(f"--only {name}: no such contestant; there are {', '.join(NAMES)}")
        if name in missing:
            raise UsageError(f"--only {name}: {missing[name]}")
    names = {BLOCKING, *(only or NAMES)} - set(missing)
    return contestants(tuple(names))


def _chosen_workloads(
    patterns: Sequence[str] | None, *, quick: bool, transports: Sequence[str]
) -> list[Workload]:
    available = workloads(transports)
    if not patterns:
        return [each for each in available if each.quick_rounds or not quick]
    names = [each.name for each in available]
    wanted: set[str] = set()
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            where = "" if transports else " with --dsn, where the transport is what the DSN says"
            raise UsageError(
                f"--workload {pattern}: no such workload{where}; there are {', '.join(names)}"
            )
        wanted.update(matching)
    return [each for each in available if each.name in wanted]


# -- The server


@contextlib.contextmanager
def _dsn_by_transport(dsn: str | None) -> Iterator[Callable[[str], str]]:
    """Give the way from a transport's name to a DSN, while the server runs."""
    if dsn is not None:
        yield lambda _: dsn
        return
    try:
        from tools.postgres import NoPostgresError, Server
    except ImportError as exc:
        raise UsageError(
            f"{exc}: the server for the benchmark needs pip install 'greenwait[test]'; "
            "or name a running one with --dsn"
        ) from None
    try:
        server = Server()
    except NoPostgresError as exc:
        raise UsageError(f"{exc}; or name a running one with --dsn") from None
    with server:
        yield server.dsn


def _describe_server(dsn: str, *, own: bool) -> tuple[dict[str, str], str]:
    """Connect once, for the versions and a word on the server; the first to fail on a bad DSN."""
    try:
        if "connect_timeout" not in parse_dsn(dsn):
            dsn = make_dsn(dsn, connect_timeout=_CONNECT_TIMEOUT)
        conn = psycopg2.connect(dsn)
    except (psycopg2.Error, UnicodeError) as exc:
        if own:
            raise
        raise UsageError(
            f"--dsn: can't connect: {str(exc).strip()}\n"
            "Is the server running, and does psql connect with the same string?"
        ) from None
    with contextlib.closing(conn):
        kind = "started for this run" if own else f"of --dsn, over {transport_of(conn)}"
        return versions(conn), kind


# -- Measuring


def _warn_if_busy() -> None:
    load, cpus = load_average(), os.cpu_count() or 1
    if load > cpus / 2:
        print(
            f"the machine is busy (load {load:.1f} on {cpus} CPUs): expect a wide spread",
            file=sys.stderr,
        )


class _Interrupt:
    """Ctrl-C, noted and acted on between two blocks.

    Within a wait it would mean whatever the contestant at hand makes of it: an
    error of the server's with some, a lost connection with others. A second one
    is a KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_Interrupt":
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was one."""
        if self.asked:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)
        # In a terminal the server gets the signal too, and its end is not an error.
        if self.asked and isinstance(exc, psycopg2.Error):
            raise KeyboardInterrupt from None


def _measure_all(
    chosen: Sequence[tuple[Workload, int]],
    entries: list[Contestant],
    dsn_of: Callable[[str], str],
    same_core: SameCore | None,
    rng: random.Random,
    most_seconds: float,
) -> list[Outcome]:
    console = Console(stderr=True)
    # Refreshed by hand between the blocks: rich's own refresh is a thread, which
    # would take the GIL from whoever is being measured.
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    )
    steps = [(rounds + 2) * len(entries) for _, rounds in chosen]
    outcomes = []
    with _Interrupt() as interrupt, progress:
        task = progress.add_task("", total=sum(steps))
        refreshed = 0.0

        def tick() -> None:
            nonlocal refreshed
            interrupt.check()
            now = time.monotonic()
            due = now - refreshed >= _SECONDS_BETWEEN_REFRESHES
            progress.update(task, advance=1, refresh=due)
            refreshed = now if due else refreshed

        for number, (workload, rounds) in enumerate(chosen):
            progress.update(
                task,
                description=f"{workload.title:<31}",
                completed=sum(steps[:number]),
                refresh=True,
            )
            outcomes.append(
                measure(
                    workload,
                    entries,
                    dsn_of(workload.transport),
                    rounds,
                    rng,
                    most_seconds=most_seconds,
                    pin=same_core.pin_server if same_core else lambda conn: None,
                    tick=tick,
                )
            )
    return outcomes


def _compare(options: argparse.Namespace) -> report.Run:
    own_server = options.dsn is None
    transports = TRANSPORTS if own_server else ()
    chosen = [
        (each, options.rounds or (options.quick and each.quick_rounds) or each.rounds)
        for each in _chosen_workloads(options.workload, quick=options.quick, transports=transports)
    ]
    entries = _chosen_contestants(options.only)
    _check_files(options)
    same_core = SameCore() if options.same_core else None
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    here = machine()
    _warn_if_busy()
    with _dsn_by_transport(options.dsn) as dsn_of:
        found, server = _describe_server(dsn_of(TRANSPORTS[0]), own=own_server)
        if same_core:
            same_core.pin_client()
        started = time.monotonic()
        rng = random.Random(seed)
        # Rounds that were asked for by number are run, however long they take.
        most_seconds = _QUICK_SECONDS if options.quick and not options.rounds else math.inf
        outcomes = _measure_all(chosen, entries, dsn_of, same_core, rng, most_seconds)
        seconds = time.monotonic() - started
    pinning = f"client and server on core {same_core.core}" if same_core else "cores left free"
    settings = {
        "pinning": pinning,
        "server": server,
        "seed": str(seed),
        "rounds": str(options.rounds or ("quick" if options.quick else "full")),
        "took": f"{seconds:.0f} s",
    }
    return report.Run(outcomes, here, found, settings, {} if options.only else unavailable())


def _write(options: argparse.Namespace, run: report.Run) -> list[Path]:
    written = []
    if options.json is not None:
        report.write_json(run, options.json)
        written.append(options.json)
    if options.report is not None:
        subtitle = (
            "Bars are medians, lines span the 10th to the 90th percentile; shorter is better.\n"
            f"{run.settings['pinning']} · {run.machine['CPU']}"
        )
        drawn = plots.draw(run.outcomes, subtitle)
        written += plots.write_pngs(drawn, options.report)
        report.write_html(run, drawn, options.report)
        written.append(options.report)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write what was asked for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        run = _compare(options)
        report.print_tables(run, terminal())
        written = _write(options, run)
    except UsageError as exc:
        parser.error(str(exc))
    except CannotPinError as exc:
        parser.error(f"--same-core: {exc}; or leave --same-core out")
    except KeyboardInterrupt:
        print("interrupted, nothing written", file=sys.stderr)
        return 130
    except (psycopg2.Error, WrongResultError) as exc:
        print(f"the comparison failed: {exc}", file=sys.stderr)
        return 1
    if written:
        print("written:", ", ".join(str(path.resolve()) for path in written))
    else:
        print("no report written: --report report.html makes one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
