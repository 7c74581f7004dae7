"""Draw the modules of greenwait, the question that each answers, and who imports whom.

``python -m tools.picture docs/figures/modules.svg``

The boxes are listed here, the arrows are read from the source: from each box to those it
imports, without the ones that follow from others. It fails when a module is in no box, or
imports one that stands higher.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.plots import write_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parent.parent

_INK, _SOFT = "#1f2933", "#616e7c"
_WHO, _STOP, _NEED, _LONG, _REST = "#dcefe6", "#f9e0dc", "#dde8f6", "#f7ecd2", "#eef0f3"


@dataclass(frozen=True)
class Box:
    """Modules that stand together: what they answer, and where they are in the picture."""

    title: str
    modules: tuple[str, ...]
    colour: str
    x: float
    y: float
    width: float
    height: float = 0.8

    @property
    def middle(self) -> float:
        """Where its text is centred."""
        return self.x + self.width / 2


# From above to below; a row is 1.3 high.
BOXES = (
    Box("Who waits? A greenlet of our hub's", ("_gather", "_hub"), _WHO, 0.2, 7.8, 3.2),
    Box(
        "Who waits? A task, or a framework's greenlet",
        ("aio", "_aio_pool", "_aio", "trio", "_trio", "gevent", "_gevent", "eventlet"),
        _WHO,
        3.6,
        7.8,
        6.2,
    ),
    Box("Whose turn, of those?", ("_loop",), _WHO, 0.2, 6.5, 2.7),
    Box(
        "What is built on a wait",
        ("_connect", "_conninfo", "_resolve", "_notifies", "_pool", "connection", "_install"),
        _REST,
        3.6,
        6.5,
        6.2,
    ),
    Box("What psycopg2 calls", ("_callback",), _REST, 2.9, 5.2, 3.6),
    Box("Whose turn on a connection?", ("_turn", "_line"), _REST, 6.8, 5.2, 3.0),
    Box(
        "What if it is interrupted?",
        ("_interrupt", "_refusal", "_outcome", "_cancel", "_caller", "_slow"),
        _STOP,
        3.3,
        3.9,
        4.6,
    ),
    Box(
        "What does the connection need?",
        ("_poll", "_connecting", "_copy"),
        _NEED,
        3.3,
        2.6,
        4.6,
    ),
    Box("How long may it take?", ("_deadline",), _LONG, 0.2, 1.3, 2.1),
    Box("... and how is that delivered?", ("_delivery", "_raised"), _STOP, 2.5, 1.3, 3.4),
    Box(
        "Who waits? This thread, or whom _waiter finds",
        ("_sleep", "_waiter", "_event_loop"),
        _WHO,
        2.5,
        0.0,
        4.2,
    ),
    Box(
        "Below all of them: libpq's functions, what is known of a connection, psycopg2, counters",
        (
            "_libpq",
            "_known",
            "_psycopg2",
            "_errors",
            "_ranks",
            "_decoders",
            "_stats",
            "_monotonic",
            "_readiness",
            "_spin",
            "_finalizing",
            "_sealed_type",
        ),
        _REST,
        0.2,
        -1.3,
        9.6,
    ),
)
# Of no use in the picture: they import everything, or nothing.
_LEFT_OUT = {"__init__", "__main__", "_version"}
_BY_ANOTHER_NAME = {"_readiness_set": "_readiness"}


class PictureError(Exception):
    """The picture and the source tell different things."""


def imports() -> dict[str, set[str]]:
    """Return what each module of the package imports of it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src" / "greenwait").iterdir()):
        name = _BY_ANOTHER_NAME.get(path.stem, path.stem)
        if path.suffix not in (".py", ".pyx", ".pxd") or name in _LEFT_OUT:
            continue
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"^from greenwait\.(\w+) c?import", text, re.MULTILINE)
        for listed in re.findall(r"^from greenwait import ([\w, ]+)$", text, re.MULTILINE):
            names += listed.split(", ")
        own = found.setdefault(name, set())
        own |= {_BY_ANOTHER_NAME.get(each, each) for each in names} - {name, *_LEFT_OUT}
    return found


def arrows() -> list[tuple[Box, Box]]:
    """Return which box imports of which, without what follows from other arrows.

    :raises PictureError: a module is in no box, a box has one that is not there, or one
        imports what stands higher.
    """
    box_of = {module: box for box in BOXES for module in box.modules}
    found = imports()
    if box_of.keys() != found.keys():
        raise PictureError(f"not both here and there: {sorted(box_of.keys() ^ found.keys())}")
    below: dict[Box, set[Box]] = {box: set() for box in BOXES}
    for module, names in found.items():
        for name in names:
            own, other = box_of[module], box_of[name]
            if own is not other:
                if other.y >= own.y:
                    raise PictureError(f"{module} imports {name}, which stands higher")
                below[own].add(other)

    def reached(box: Box) -> set[Box]:
        return {each for near in below[box] for each in {near, *reached(near)}}

    return [
        (box, other)
        for box in BOXES
        for other in BOXES
        if other in below[box]
        and not any(other in reached(near) for near in below[box] if near is not other)
    ]


def _draw_box(axes: "Axes", box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (box.x, box.y),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=box.colour,
            edgecolor=_SOFT,
            linewidth=0.8,
        )
    )
    axes.text(box.middle, box.y + 0.53, box.title, ha="center", va="center", size=10, color=_INK)
    axes.text(
        box.middle,
        box.y + 0.23,
        "  ".join(box.modules),
        ha="center",
        va="center",
        size=8.5,
        family="monospace",
        color=_SOFT,
    )


def _ends(upper: Box, lower: Box) -> tuple[float, float]:
    """Return where an arrow begins and ends: straight down, or else between the near corners."""
    left, right = max(upper.x, lower.x), min(upper.x + upper.width, lower.x + lower.width)
    if left < right:
        return (left + right) / 2, (left + right) / 2
    return (left + 0.2, right - 0.2) if upper.x > lower.x else (right - 0.2, left + 0.2)


def draw(path: Path) -> None:
    """Write the picture to *path*."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.8, 8.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 10)
    axes.set_ylim(-1.5, 8.8)
    axes.axis("off")
    for box in BOXES:
        _draw_box(axes, box)
    for upper, lower in arrows():
        start, end = _ends(upper, lower)
        axes.annotate(
            "",
            xy=(end, lower.y + lower.height),
            xytext=(start, upper.y),
            arrowprops={"arrowstyle": "-|>", "color": _SOFT, "shrinkA": 0, "shrinkB": 0, "lw": 0.9},
        )
    write_svg(figure, path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
