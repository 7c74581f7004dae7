"""The instructions that a query may cost: those in ``baseline.json``, and a little more.

It has figures for one or more versions of Python: what a call costs differs by 15 % between 3.11
and 3.12. Where everything is as it was when they were written (``holds_for``), a query may cost 2 %
more. Another build of that Python, compiler or libpq has another count, whatever is changed here.
There, two figures hold that depend less on them:

- What greenwait's own extensions run, which neither the interpreter's build nor libpq changes.
- The whole as a multiple of blocking psycopg2's in the same run. Interpreter, psycopg2 and libpq
  are most of both. It sees what the first one does not: that greenwait calls more of Python.

Debian's Python 3.11, built otherwise, counts 10 % less than the one that the file is of, and
differs by 2 % in the second figure and not in the first.
"""

import json
import platform
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.callbacks import BLOCKING

_FILE = Path(__file__).with_suffix(".json")
_MOST = 1.02  # of the instructions in the file, where it holds
_MOST_OWN = 1.05  # ... of those of greenwait's extensions
_MOST_AS_MULTIPLE = 1.05  # where it does not
_MOST_OWN_ELSEWHERE = 1.10
_OWN = "greenwait/"
_GROWN = 4  # objects that are named

_PYTHON = ".".join(map(str, sys.version_info[:2]))

ANEW = "make instructions ARGS=--keep"

Figures = Mapping[str, Mapping[str, float]]  # by client, and by object
Environment = dict[str, str]


class Comparison(NamedTuple):
    """How a figure compares with that in the file."""

    client: str
    what: str
    kept: float
    measured: float
    most: float  # as a multiple

    @property
    def ratio(self) -> float:
        """The measured figure as a multiple of the one that was kept."""
        return self.measured / self.kept

    @property
    def is_kept(self) -> bool:
        """Whether it is no more than it may be."""
        return self.ratio <= self.most


def environment(versions: Mapping[str, str], extension: Path) -> Environment:
    """Return what the counts depend on; *extension* is one of greenwait's."""
    built = extension.read_bytes()
    # The compiler's comment, and the module in which Cython's extensions share their types.
    compiler = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", built)
    cython = re.search(rb"_cython_(\d\w+)", built)
    return {
        "machine": platform.machine(),
        "Python": f"{versions['Python']}, {platform.python_compiler()}",
        "libc": " ".join(platform.libc_ver()),
        "compiler": compiler[0].decode() if compiler else "not known",
        "Cython": cython[1].decode().replace("_", ".") if cython else "not known",
        "psycopg2": versions["psycopg2"],
        "libpq": versions["libpq"],
        "greenlet": version("greenlet"),
    }


def named(counts: Mapping[str, float], package: Path) -> dict[str, float]:
    """Return *counts* by short names of the objects; greenwait's extensions are in *package*."""
    found: dict[str, float] = {}
    for path, each in counts.items():
        stem = Path(path).name.split(".")[0]
        if Path(path).is_relative_to(package):
            name = str(Path(path).relative_to(package.parent).with_name(stem))
        else:
            name = re.sub(r"-[0-9a-f]{8}$", "", stem)  # a wheel's libraries have a hash
        found[name] = found.get(name, 0) + each
    most_first = sorted(found.items(), key=lambda item: -item[1])
    return {name: round(each, 1) for name, each in most_first if each >= 1}


def _load() -> dict[str, Any]:
    document: dict[str, Any] = {"format": 1, "by_python": {}}
    return json.loads(_FILE.read_text(encoding="utf-8")) if _FILE.exists() else document


def keep(figures: Figures, here: Environment, python: str = _PYTHON) -> None:
    """Write the figures for this Python anew; the others stay."""
    document = _load()
    document["by_python"][python] = {"holds_for": here, "instructions": figures}
    _FILE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(python: str = _PYTHON) -> tuple[Figures, Environment] | None:
    """Return the figures for this Python, and where they hold; None if the file has none."""
    found = _load()["by_python"].get(python)
    return found and (found["instructions"], found["holds_for"])


def _total(objects: Mapping[str, float]) -> float:
    return sum(objects.values())


def _own(objects: Mapping[str, float]) -> float:
    return sum(each for name, each in objects.items() if name.startswith(_OWN))


def compare(measured: Figures, kept: Figures, *, is_same: bool) -> list[Comparison]:
    """Compare what was measured, where the file's figures hold (*is_same*) or elsewhere."""
    found = []
    for name, objects in measured.items():
        if name == BLOCKING:
            continue
        total = (_total(kept[name]), _total(objects))
        own = (_own(kept[name]), _own(objects))
        if is_same:
            found.append(Comparison(name, "all", *total, _MOST))
            found.append(Comparison(name, "greenwait's own", *own, _MOST_OWN))
        else:
            base = (_total(kept[BLOCKING]), _total(measured[BLOCKING]))
            ratios = (total[0] / base[0], total[1] / base[1])
            found.append(Comparison(name, "as a multiple", *ratios, _MOST_AS_MULTIPLE))
            found.append(Comparison(name, "greenwait's own", *own, _MOST_OWN_ELSEWHERE))
    return found


def differences(here: Environment, there: Environment) -> str:
    """Say where this is another environment than the file's; an empty string where it is not."""
    return "; ".join(
        f"{name} {here.get(name)}, not {there.get(name)}"
        for name in {**there, **here}
        if here.get(name) != there.get(name)
    )


def advice(failed: Sequence[Comparison], measured: Figures, kept: Figures) -> str:
    """Say what has become more, where, and what to do."""
    lines = []
    for each in failed:
        was, now = kept[each.client], measured[each.client]
        grown = Counter({name: count - was.get(name, 0) for name, count in now.items()})
        parts = [f"{name} {more:+,.0f}" for name, more in grown.most_common(_GROWN) if more >= 1]
        lines.append(
            f"{each.client}, {each.what}: {each.ratio - 1:+.1%} against {_FILE.name}, and "
            f"{each.most - 1:+.0%} is allowed. It is in {', '.join(parts)}."
        )
    return "\n".join(
        (
            *lines,
            "If that is not meant, `valgrind --tool=callgrind` and `callgrind_annotate` find it.",
            f"If it is worth its cost, `{ANEW}` writes the file anew: commit that with the reason.",
        )
    )
