"""What of the benchmark is in the docs: results that were kept, their plots and their tables.

    python -m benchmarks.published keep one-core report.json   # into benchmarks/results/
    python -m benchmarks.published draw docs/figures           # from there, the plots

``docs/performance.md`` and the README call the functions below by cog, which puts the tables there.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.callbacks import BLOCKING
from benchmarks.figures import digits, ratio_text, time_text
from benchmarks.machine import is_busy
from benchmarks.plots import client_bars, panels, svg_text
from greenwait._timeline import load as load_trace
from greenwait._timeline import svg as timeline_svg

_RESULTS = Path(__file__).parent / "results"

#: What is kept: compare.py's with client and server on one core, and left free; concurrency.py's;
#: instructions.py's; behaviour.py's.
NAMES = ("one-core", "two-cores", "many-at-once", "instructions", "behaviour")
_ROWS = ("rows-1", "rows-100", "rows-1000")
_PLOTTED = ("rows-200k-busy", "select-1-unix")
_BUSY = ", busy"
#: As wide as a phone shows them without making the words small, in inches.
_WIDTH = 4.6
_TITLE = (
    "Time as a multiple of blocking psycopg2's.\n"
    "Bars are medians, lines go from the 10th to\n"
    "the 90th percentile; shorter is better."
)


def keep(name: str, path: Path) -> None:
    """Keep a benchmark's JSON file as *name*, without the samples."""
    found = json.loads(path.read_text(encoding="utf-8"))
    found.pop("leading", None)  # the report's
    for group in found.get("workloads", ()):
        for entry in (group.get("contestants") or group["clients"]).values():
            del entry["samples"]
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    _path(name).write_text(text, encoding="utf-8")


def _path(name: str) -> Path:
    return _RESULTS / f"{name}.json"


def _load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_path(name).read_text(encoding="utf-8"))
    return found


def draw(directory: Path) -> None:
    """Write the plots and the timeline to *directory*."""
    result = _load("one-core")
    by_name = {each["name"]: each for each in result["workloads"]}
    title = f"{_TITLE}\nClient and server on one core · {result['machine']['CPU']}"
    one_query = panels([by_name[name] for name in _PLOTTED], title, most_columns=1)
    result = _load("many-at-once")
    work = _work(result, "select-1")
    assert work is not None
    connections = result["settings"]["connections"]
    many_at_once = client_bars(_by_cpu(work), connections, work["title"])
    for name, figure in (("one-query", one_query), ("many-at-once", many_at_once)):
        figure.set_size_inches(_WIDTH, figure.get_size_inches()[1])
        (directory / f"plot-{name}.svg").write_text(svg_text(figure), encoding="utf-8")
    # The trace that examples/twenty_jobs.py has written.
    (directory / "timeline.svg").write_text(
        timeline_svg(load_trace(_path("timeline"))), encoding="utf-8"
    )


# -- Tables, in Markdown

_NOT_YET = "Not in the file: `make results` measures it.\n"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _title(entry: dict[str, Any]) -> str:
    """Return its title, ours in bold."""
    is_ours = entry.get("is_greenwait") or entry.get("kind") == "greenwait"
    return f"**{entry['title']}**" if is_ours else str(entry["title"])


def _ratios(workload: dict[str, Any], names: Sequence[str]) -> list[str]:
    entries = workload["contestants"]
    return [ratio_text(entries[name]["ratio_to_blocking"]["median"]) for name in names]


def facts(name: str, *, is_time: bool = True) -> str:
    """Return a paragraph that says when, where and with what *name* was measured.

    :param is_time: the figures are times, which a busy machine makes longer.
    """
    if not _path(name).exists():
        return _NOT_YET
    result = _load(name)
    machine, versions, settings = result["machine"], result["versions"], result.get("settings", {})
    virtual = " of a virtual machine" if machine["virtual machine"] == "yes" else ""
    doubt = ", **a busy machine: the figures are rough**" if is_busy(machine) and is_time else ""
    told = [f"{title} {version}" for title, version in versions.items()]
    chosen = [f"{title} {each}" for title, each in settings.items() if title != "seed"]
    return (
        f"{machine['date']}, {machine['CPU']}, {machine['CPUs']} CPUs{virtual}, "
        f"{machine['system']}, load {machine['load before']} before{doubt};\n"
        + ";\n".join(", ".join(each) for each in (told, chosen) if each)
        + ".\n"
    )


def ratios(name: str) -> str:
    """Return compare.py's tables: medians of the time as a multiple of blocking psycopg2's.

    The rows are callbacks, so that no column is cut; what was measured beside a busy thread is a
    table of its own.
    """
    workloads = _load(name)["workloads"]
    everybody = workloads[0]["contestants"].items()
    ordered = sorted(everybody, key=lambda item: item[1]["kind"] != "greenwait")
    entries = {key: each for key, each in ordered if key != BLOCKING}
    alone = [each for each in workloads if not each["title"].endswith(_BUSY)]
    busy = [each for each in workloads if each["title"].endswith(_BUSY)]
    tables = [
        f"{caption}\n\n{_ratio_table(part, entries)}"
        for caption, part in (("Alone:", alone), ("Beside one busy Python thread:", busy))
    ]
    return "\n".join(tables)


def _ratio_table(workloads: Sequence[dict[str, Any]], entries: dict[str, dict[str, Any]]) -> str:
    headings = [each["title"].removesuffix(_BUSY) for each in workloads]
    columns = [_ratios(each, list(entries)) for each in workloads]
    return _table(["callback", *headings], _turn(map(_title, entries.values()), columns))


def _turn(names: Iterable[str], columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the rows of a table that has a column for each workload."""
    return [list(row) for row in zip(names, *columns, strict=True)]


def in_short() -> str:
    """Return the README's table: what decides, of those callbacks that most programs have."""
    names = ("greenwait-poll", "wait_select", "psycogreen")
    entries = _load("one-core")["workloads"][0]["contestants"]
    found = [
        (f"{each['title'].replace(', unix', '')}; {cores}", _ratios(each, names))
        for result, cores in (("one-core", "one core for both"), ("two-cores", "two cores"))
        for each in _load(result)["workloads"]
        if each["name"] in ("select-1-unix", "rows-200k-busy")
    ]
    rows = _turn([_title(entries[name]) for name in names], [column for _, column in found])
    return _table(["callback", *(heading for heading, _ in found)], rows)


def _work(result: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return what concurrency.py has found for that work, None if it was not asked for."""
    return next((each for each in result["workloads"] if each["name"] == name), None)


def _by_cpu(work: dict[str, Any]) -> list[dict[str, Any]]:
    clients: list[dict[str, Any]] = list(work["clients"].values())
    return sorted(clients, key=lambda client: float(client["cpu_seconds"]["median"]))


def many_at_once(name: str = "select-1") -> str:
    """Return the table of concurrency.py's clients, the least CPU first."""
    work = _work(_load("many-at-once"), name)
    if work is None:
        return _NOT_YET
    rows = []
    for client in _by_cpu(work):
        median, low, high = (
            digits(client["cpu_seconds"][which] * 1e6) for which in ("median", "p10", "p90")
        )
        per_second = f"{client['queries_per_second']['median']:,.0f}"
        rows.append([_title(client), f"{median} µs", f"{low} to {high}", per_second])
    return _table(["client", "CPU per query", "8 of 10 rounds", "queries/s"], rows)


def rows_at_once() -> str:
    """Return the table of the clients' CPU for rows, the least for a hundred rows first."""
    result = _load("many-at-once")
    works = [work for name in _ROWS if (work := _work(result, name)) is not None]
    if not works:
        return _NOT_YET
    ordered = sorted(
        works[len(works) // 2]["clients"].items(),
        key=lambda item: float(item[1]["cpu_seconds"]["median"]),
    )
    rows = [
        [
            _title(client),
            *(time_text(work["clients"][name]["cpu_seconds"]["median"]) for work in works),
        ]
        for name, client in ordered
    ]
    return _table(["CPU per query", *(work["title"] for work in works)], rows)


def instructions() -> str:
    """Return the table of instructions.py's kinds of use, with goals and peers."""
    if not _path("instructions").exists():
        return _NOT_YET
    rows = [
        [
            f"**{kind['title']}**",
            f"{kind['instructions']:,.0f}",
            f"{kind['goal']:,}",
            ", ".join(f"{title} {each:,.0f}" for title, each in kind["peers"].items()),
        ]
        for kind in _load("instructions")["goals"]
    ]
    return _table(["instructions per query", "", "goal", "peers"], rows)


def many_at_once_ratios() -> str:
    """Return the table of what concurrency.py compares, with the goals that there are."""
    rows = [
        [work["title"], each["title"], each["cpu"], each["goal"]]
        for work in _load("many-at-once")["workloads"]
        for each in work["ratios"]
    ]
    return _table(["", "CPU per query, as a multiple", "", "goal"], rows)


def behaviour() -> str:
    """Return behaviour.py's table: what each callback did where something goes wrong."""
    if not _path("behaviour").exists():
        return _NOT_YET
    found = _load("behaviour")["behaviour"]
    # Ours first: a narrow page shows only the first columns of a wide table.
    names = sorted(found["callbacks"], key=lambda name: name != "greenwait")
    rows = [
        [
            row["title"],
            *(
                "<br>".join(
                    f"{'✓' if each['is_good'] else '✗'} {each['text']}"
                    for each in row["cells"][name]
                )
                for name in names
            ),
        ]
        for row in found["situations"]
    ]
    titles = (found["callbacks"][name] for name in names)
    return _table(["", *(f"**{each}**" if each == "greenwait" else each for each in titles)], rows)


def main() -> None:
    """Keep a result, or draw the plots."""
    match sys.argv[1:]:
        case ["keep", name, file] if name in NAMES:
            keep(name, Path(file))
        case ["draw", directory]:
            draw(Path(directory))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
