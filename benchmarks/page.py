"""The report as one page that needs no other file, on a phone and in the dark too.

The bars are HTML: they are as wide as the screen has room for, and their text stays as large.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import headline
from benchmarks.figures import digits, ratio_text
from benchmarks.machine import is_busy
from benchmarks.report import FACTS

_TEMPLATE = "page.html.jinja"
_MOST_OF_MEDIAN = 1.5  # one outlier must not squash the rest: a line may run out of the panel


@dataclass(frozen=True)
class Bar:
    """A median and its spread, in percent of the panel's width."""

    title: str
    kind: str
    figure: str
    width: float
    low: float
    high: float
    cut_at: str  # the figure at the end of a line that runs out of the panel; empty: it does not


@dataclass(frozen=True)
class Panel:
    """A bar for each contestant or client; *one* is where 1 is, None where that means nothing."""

    title: str
    note: str
    bars: list[Bar]
    one: float | None


def _panel(
    title: str,
    note: str,
    entries: Iterable[Mapping[str, Any]],
    what: str,
    write: Callable[[float], str],
    *,
    has_one: bool,
) -> Panel:
    listed = list(entries)
    spreads = [each[what] for each in listed]
    most = min(
        max(each["median"] for each in spreads) * _MOST_OF_MEDIAN,
        max(each["p90"] for each in spreads),
    )
    most = max(most, *(each["median"] for each in spreads))
    bars = [
        Bar(
            entry["title"],
            entry.get("kind") or ("greenwait" if entry.get("is_greenwait") else "python"),
            write(spread["median"]),
            100 * spread["median"] / most,
            100 * min(1, spread["p10"] / most),
            100 * min(1, spread["p90"] / most),
            write(spread["p90"]) if spread["p90"] > most * 1.001 else "",
        )
        for entry, spread in zip(listed, spreads, strict=True)
    ]
    return Panel(title, note, bars, 100 / most if has_one and most > 1 else None)


def workload_panel(workload: Mapping[str, Any]) -> Panel:
    """Return the panel of compare.py's contestants: times as a multiple of blocking psycopg2's."""
    note = f"{workload['rounds']} rounds of {workload['block']}"
    if "cores" in workload:
        note = f"{workload['cores']}; {note}"
    entries = workload["contestants"].values()
    return _panel(workload["title"], note, entries, "ratio_to_blocking", ratio_text, has_one=True)


def _clients_panel(found: Mapping[str, Any]) -> Panel:
    entries = sorted(found["clients"].values(), key=lambda each: each["cpu_seconds"]["median"])
    note = f"{found['connections']} connections; {found['rounds']} rounds"
    return _panel(
        "Client CPU per select 1, in µs",
        note,
        entries,
        "cpu_seconds",
        lambda seconds: digits(seconds * 1e6),
        has_one=False,
    )


def _warning(document: Mapping[str, Any]) -> str:
    here = document["machine"]
    if not is_busy(here):
        return ""
    return (
        f"The machine was busy: before, {here.get('CPUs in use before', 'not known')} of its CPUs "
        f"were in use, with a load of {here['load before']}. "
        "The times are rough; measure again when it is quiet."
    )


def page(document: Mapping[str, Any], printed: str) -> str:
    """Return the report on *document*, what ``compare.py --json`` writes, and all it has *printed*.

    :param printed: the tables, as plain text.
    """
    leading = document.get("leading") or {}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    many, spin = leading.get("many_at_once"), leading.get("spin")
    return environment.get_template(_TEMPLATE).render(
        warning=_warning(document),
        sentences=[*headline.sentences(document)],
        behaviour=leading.get("behaviour"),
        busy=[workload_panel(each) for each in leading.get("busy", ())],
        many=_clients_panel(many) if many else None,
        spin=workload_panel(spin) if spin else None,
        rest=[workload_panel(each) for each in document["workloads"]],
        facts=[document[name] for name in FACTS],
        printed=printed,
    )
