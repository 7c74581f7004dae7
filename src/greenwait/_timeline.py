"""Traces as pictures: the rows and bars of a file, a static SVG, and a page of HTML.

Called by ``python -m greenwait timeline``; the page's style and script are ``_timeline_page.py``'s.
"""

import argparse
import html
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from greenwait._timeline_page import COLORS, PAGE

__all__ = ["Timeline", "load", "main", "page", "svg"]


@dataclass
class Bar:
    """What a row waited for: times in microseconds since the trace began."""

    at: float
    took: float
    category: str
    name: str
    line: str
    backend: int
    depth: int = 0


@dataclass
class Row:
    """A thread, job, task or greenlet, with what it waited for."""

    name: str
    bars: list[Bar] = field(default_factory=list[Bar])
    marks: list[Bar] = field(default_factory=list[Bar])  # at a moment

    @property
    def depth(self) -> int:
        """How many bars lie on each other."""
        return 1 + max((bar.depth for bar in self.bars), default=0)


@dataclass
class Timeline:
    """A trace that was read."""

    title: str
    rows: list[Row]
    dropped: int
    is_complete: bool  # the end of the file is there

    @property
    def end(self) -> float:
        """Return when the last wait was over, in microseconds; at least 1."""
        bars = (bar for row in self.rows for bar in (*row.bars, *row.marks))
        return max((bar.at + bar.took for bar in bars), default=1.0) or 1.0


def _events(text: str) -> tuple[list[dict[str, Any]], bool]:
    """Return the events, and whether the file is complete; the end of a killed program's is not."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        found, is_complete = [], False
        for line in text.splitlines():
            try:
                each = json.loads(line.strip().rstrip(","))
            except ValueError:
                continue
            if isinstance(each, dict):
                found.append(each)
    else:
        is_complete = True
    if isinstance(found, dict):
        found = cast(dict[str, Any], found).get("traceEvents")
    if not isinstance(found, list) or not found:
        raise ValueError("it is not a trace")
    events = cast(list[dict[str, Any]], found)
    if not all(_is_event(each) for each in events):
        raise ValueError("it is not a trace")
    return events, is_complete


def _is_event(each: Any) -> bool:
    return isinstance(each, dict) and "ph" in each


def load(path: Path) -> Timeline:
    """Read a trace.

    :raises ValueError: the file is not one.
    :raises OSError: it can't be read.
    """
    events, is_complete = _events(path.read_text(encoding="utf-8"))
    title, dropped = path.name, 0
    rows: dict[tuple[int, int], Row] = {}
    for event in events:
        key = (event.get("pid", 0), event.get("tid", 0))
        args: dict[str, Any] = event.get("args") or {}
        if event["ph"] == "M":
            if event["name"] == "thread_name":
                rows.setdefault(key, Row("")).name = args["name"]
            elif event["name"] == "process_name":
                title = f"{args['name']}, process {key[0]}"
            elif event["name"] == "greenwait":
                dropped = args["dropped"]
        elif event["ph"] in ("X", "i"):
            row = rows.setdefault(key, Row(f"row {key[1]}"))
            bar = Bar(
                event["ts"],
                event.get("dur", 0.0),
                event.get("cat", ""),
                event["name"],
                args.get("line", ""),
                args.get("backend", 0),
            )
            (row.bars if event["ph"] == "X" else row.marks).append(bar)
    for row in rows.values():
        _stack(row.bars)
    return Timeline(title, list(rows.values()), dropped, is_complete)


def _stack(bars: list[Bar]) -> None:
    """Sort the bars by time, and find out which lie within others."""
    bars.sort(key=lambda bar: (bar.at, -bar.took))
    outer: list[Bar] = []
    for bar in bars:
        while outer and bar.at >= outer[-1].at + outer[-1].took:
            outer.pop()
        bar.depth = len(outer)
        outer.append(bar)


def _time(us: float) -> str:
    """Write microseconds in a unit that suits them."""
    if us >= 1e6:
        return f"{us / 1e6:.3g} s"
    return f"{us / 1e3:.3g} ms" if us >= 1e3 else f"{us:.3g} µs"


def _details(bar: Bar) -> str:
    lines = [bar.name, f"{bar.category}, {_time(bar.took)} at {_time(bar.at)}"]
    lines += [f"backend {bar.backend}"] if bar.backend else []
    return "\n".join(lines + ([bar.line] if bar.line else []))


# -- A static picture

_WIDTH, _LABEL, _BAR, _TOP, _GAP = 760, 130, 11, 40, 3
_LABEL_LETTERS = 22
_TICKS = 6


def _step(end: float) -> float:
    """Return a round time that lies between two ticks."""
    step = 1.0
    while end / step > _TICKS:
        step *= 10
    return next((step * part for part in (0.2, 0.5) if end / (step * part) <= _TICKS), step)


def svg(timeline: Timeline) -> str:
    """Return a picture of all rows, with a legend; its colours follow the reader's scheme."""
    scale = (_WIDTH - _LABEL - 8) / timeline.end
    parts: list[str] = []
    used = {bar.category for row in timeline.rows for bar in (*row.bars, *row.marks)}
    x = 4.0
    for category, (color, meaning) in COLORS.items():
        if category in used:
            parts.append(f'<rect x="{x:.0f}" y="4" width="9" height="9" fill="{color}"/>')
            parts.append(f'<text x="{x + 13:.0f}" y="12">{meaning}</text>')
            x += 24 + 6.3 * len(meaning)
    y = _TOP
    bars: list[str] = []
    for row in timeline.rows:
        height = _BAR * row.depth
        name = row.name
        if len(name) > _LABEL_LETTERS:
            name = name[: _LABEL_LETTERS - 1] + "…"
        bars.append(f'<text x="4" y="{y + 9}">{html.escape(name)}</text>')
        for bar in row.bars:
            left = _LABEL + bar.at * scale
            width = max(bar.took * scale, 0.6)
            color = COLORS.get(bar.category, COLORS[""])[0]
            bars.append(
                f'<rect x="{left:.1f}" y="{y + bar.depth * _BAR}" width="{width:.1f}" '
                f'height="{_BAR - 1}" fill="{color}"><title>{html.escape(_details(bar))}'
                "</title></rect>"
            )
        for bar in row.marks:
            left = _LABEL + bar.at * scale
            color = COLORS.get(bar.category, COLORS[""])[0]
            bars.append(
                f'<path d="M{left:.1f} {y - 2}v{height + 3}" stroke="{color}" stroke-width="2">'
                f"<title>{html.escape(bar.name)} at {_time(bar.at)}</title></path>"
            )
        y += height + _GAP
    step = _step(timeline.end)
    for number in range(int(timeline.end / step) + 1):
        left = _LABEL + number * step * scale
        parts.append(f'<path class="tick" d="M{left:.1f} {_TOP - 6}V{y}"/>')
        parts.append(
            f'<text class="time" x="{left:.1f}" y="{_TOP - 9}">{_time(number * step)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 4}" role="img">\n'
        f"<title>{html.escape(timeline.title)}</title>\n"
        "<style>text{font:10px sans-serif;fill:#222}.time{text-anchor:middle;fill:#666}"
        ".tick{stroke:#8884}@media(prefers-color-scheme:dark){text{fill:#ddd}.time{fill:#aaa}}"
        "</style>\n" + "\n".join([*parts, *bars]) + "\n</svg>\n"
    )


# -- A page


def page(timeline: Timeline) -> str:
    """Return a page of HTML that needs nothing else."""
    notes = [f"{len(timeline.rows)} rows, {_time(timeline.end)}"]
    if timeline.dropped:
        notes.append(f"{timeline.dropped} events were dropped")
    if not timeline.is_complete:
        notes.append("the end of the file is missing: the program was killed, or goes on")
    legend = "".join(
        f'<span><i style="background:{color}"></i>{meaning}</span>'
        for color, meaning in COLORS.values()
    )
    rows = "\n".join(
        f'<div class="row"><div class="name">{html.escape(row.name)}</div>'
        f'<canvas data-row="{number}" data-depth="{row.depth}"></canvas></div>'
        for number, row in enumerate(timeline.rows)
    )
    data = [
        [
            [bar.at, bar.took, bar.category, bar.name, bar.line, bar.backend, bar.depth]
            for bar in (*row.bars, *row.marks)
        ]
        for row in timeline.rows
    ]
    texts = {
        "@TITLE@": html.escape(timeline.title),
        "@NOTES@": html.escape("; ".join(notes)),
        "@LEGEND@": legend,
        "@ROWS@": rows,
        "@END@": json.dumps(timeline.end),
        "@COLORS@": json.dumps({name: color for name, (color, _) in COLORS.items()}),
        # No end of the script lies in a statement.
        "@DATA@": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    found = PAGE
    for name, text in texts.items():
        found = found.replace(name, text)
    return found


def main(arguments: list[str]) -> None:
    """Draw a trace: ``python -m greenwait timeline FILE [-o FILE.html]``."""
    parser = argparse.ArgumentParser(
        prog="python -m greenwait timeline",
        description="Draw a trace, which greenwait.trace() has written, as a page of HTML.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="the page; FILE.html by default"
    )
    options = parser.parse_args(arguments)
    output: Path = options.output or options.file.with_suffix(".html")
    try:
        output.write_text(page(load(options.file)), encoding="utf-8")
    except (OSError, ValueError) as exc:
        parser.exit(1, f"{options.file}: {exc}\n")
    print(output)
