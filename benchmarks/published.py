"""What of the benchmark is in the docs? Results that were kept, their plots and their tables.

    python -m benchmarks.published keep one-core report.json   # into benchmarks/results/
    python -m benchmarks.published draw docs/figures           # from there, the plots

``docs/performance.md`` and the README call the functions below by cog, which puts the tables there.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.callbacks import BLOCKING, Contestant
from benchmarks.figures import digits
from benchmarks.measure import Spread
from benchmarks.plots import client_bars, panels, ratio_text, write_svg

__all__ = ["NAMES", "facts", "in_short", "many_at_once", "many_at_once_ratios", "ratios"]

_RESULTS = Path(__file__).parent / "results"

#: What is kept: compare.py's with client and server on one core, and left free; concurrency.py's.
NAMES = ("one-core", "two-cores", "many-at-once")
_PLOTTED = ("select-1-unix", "select-1-tls", "rows-200k", "rows-200k-busy")


class _Kept:
    """One workload of a result, for a plot."""

    def __init__(self, workload: dict[str, Any]) -> None:
        self.title: str = workload["title"]
        self._entries = workload["contestants"]
        self.contestants = [
            Contestant(name, entry["title"], entry["kind"], None)
            for name, entry in self._entries.items()
        ]

    def ratio(self, name: str) -> Spread:
        return Spread(**self._entries[name]["ratio_to_blocking"])


def keep(name: str, path: Path) -> None:
    """Keep a benchmark's JSON file as *name*, without the samples."""
    found = json.loads(path.read_text(encoding="utf-8"))
    groups = found.get("workloads", [found])
    for group in groups:
        for entry in (group.get("contestants") or group["clients"]).values():
            del entry["samples"]
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (_RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def _load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def draw(directory: Path) -> None:
    """Write the plots to *directory*."""
    result = _load("one-core")
    by_name = {each["name"]: _Kept(each) for each in result["workloads"]}
    figure = panels(
        [by_name[name] for name in _PLOTTED],
        "Time per query, as a multiple of blocking psycopg2's",
        "Bars are medians, lines span the 10th to the 90th percentile; shorter is better.\n"
        f"Client and server on one core · {result['machine']['CPU']}",
        most_columns=2,
    )
    write_svg(figure, directory / "one-query.svg")
    result = _load("many-at-once")
    bars = [
        (each["title"], each["cpu_seconds"]["median"], each["is_greenwait"])
        for each in _by_cpu(result)
    ]
    figure = client_bars(bars, int(result["settings"]["connections"]))
    write_svg(figure, directory / "many-at-once.svg")


# -- Tables, in Markdown


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _bold(title: str, is_bold: bool) -> str:
    return f"**{title}**" if is_bold else title


def _doubt(machine: dict[str, str]) -> str:
    """Return a word of warning where the machine was busy."""
    cpus = int(machine["CPUs"].split(",")[0])
    return (
        ", **a busy machine: the figures are rough**"
        if float(machine["load before"]) > cpus / 2
        else ""
    )


def facts(name: str) -> str:
    """Return a paragraph that says when, where and with what *name* was measured."""
    result = _load(name)
    machine, versions, settings = result["machine"], result["versions"], result["settings"]
    virtual = " of a virtual machine" if machine["virtual machine"] == "yes" else ""
    parts = [
        f"{machine['date']}, {machine['CPU']}, {machine['CPUs']} CPUs{virtual}, "
        f"{machine['system']}, load {machine['load before']} before{_doubt(machine)}",
        ", ".join(f"{title} {version}" for title, version in versions.items()),
        ", ".join(f"{title} {value}" for title, value in settings.items() if title != "seed"),
    ]
    return "\n".join(f"{part}{'.' if part is parts[-1] else ';'}" for part in parts) + "\n"


def ratios(name: str) -> str:
    """Return a table of compare.py's: medians of the time as a multiple of blocking psycopg2's."""
    workloads = _load(name)["workloads"]
    everybody = workloads[0]["contestants"].items()
    # Ours first: a narrow page shows only the first columns of a wide table.
    ordered = sorted(everybody, key=lambda item: item[1]["kind"] != "greenwait")
    entries = {key: each for key, each in ordered if key != BLOCKING}
    headings = [_bold(each["title"], each["kind"] == "greenwait") for each in entries.values()]
    rows = [
        [
            each["title"],
            *(
                ratio_text(each["contestants"][key]["ratio_to_blocking"]["median"])
                for key in entries
            ),
        ]
        for each in workloads
    ]
    return _table(["", *headings], rows)


def in_short() -> str:
    """Return the README's table: what decides, of those callbacks that most programs have."""
    names = ("wait_select", "psycogreen", "greenwait-poll")
    headings: list[str] = []
    rows = []
    for result, cores in (("one-core", "one core for both"), ("two-cores", "two cores")):
        for each in _load(result)["workloads"]:
            if each["name"] in ("select-1-unix", "rows-200k-busy"):
                entries = [each["contestants"][name] for name in names]
                headings = [_bold(one["title"], one["kind"] == "greenwait") for one in entries]
                cells = [ratio_text(one["ratio_to_blocking"]["median"]) for one in entries]
                rows.append([f"{each['title']}; {cores}", *cells])
    return _table(["", *headings], rows)


def _by_cpu(result: dict[str, Any]) -> list[dict[str, Any]]:
    clients: list[dict[str, Any]] = list(result["clients"].values())
    return sorted(clients, key=lambda client: float(client["cpu_seconds"]["median"]))


def many_at_once() -> str:
    """Return the table of concurrency.py's clients, the least CPU first."""
    rows = []
    for client in _by_cpu(_load("many-at-once")):
        cpu = Spread(**client["cpu_seconds"])
        spread = f"{digits(cpu.p10 * 1e6)} to {digits(cpu.p90 * 1e6)}"
        per_second = f"{client['queries_per_second']['median']:,.0f}"
        title = _bold(client["title"], client["is_greenwait"])
        rows.append([title, f"{digits(cpu.median * 1e6)} µs", spread, per_second])
    return _table(["client", "CPU per query", "8 of 10 rounds", "queries/s"], rows)


def many_at_once_ratios() -> str:
    """Return the table of what concurrency.py compares with its goals."""
    rows = [[each["title"], each["cpu"], each["goal"]] for each in _load("many-at-once")["ratios"]]
    return _table(["CPU per query, as a multiple", "", "goal"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep a result, or draw the plots."""
    parser = argparse.ArgumentParser(description="Keep results of the benchmark, and draw them.")
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="keep a JSON file without its samples")
    keeping.add_argument("name", choices=NAMES)
    keeping.add_argument("file", type=Path)
    drawing = commands.add_parser("draw", help="draw the plots of what was kept")
    drawing.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "keep":
        keep(options.name, options.file)
    else:
        draw(options.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
