"""The headline of a comparison: a sentence for each part, from the interval and not the median.

A median of 0.97 with an interval from 0.90 to 1.04 is noise, and is said to be no difference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.callbacks import BLOCKING, GREENWAIT
from benchmarks.clients import CLIENTS
from benchmarks.figures import ratio_text
from benchmarks.measure import FEWEST_TO_BE_SURE, Spread

NO_DIFFERENCE = "no difference seen"


@dataclass(frozen=True)
class Sentence:
    """What was done, what came of it in a few words, and the rest."""

    subject: str
    verdict: str
    rest: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.verdict} {self.rest}"


def comparison(
    subject: str,
    one: str,
    other: str,
    ratio: Mapping[str, float],
    rounds: int,
    what: str = "time",
) -> Sentence:
    """Say what the ratio of *one* to the *other*, with its 95 % interval, amounts to."""
    span = f"95 % sure: {ratio_text(ratio['low'])} to {ratio_text(ratio['high'])}"
    if rounds < FEWEST_TO_BE_SURE:
        span = f"{rounds} rounds, too few to be sure"
    elif ratio["low"] <= 1 <= ratio["high"]:
        return Sentence(subject, NO_DIFFERENCE, f"between {one} and {other} ({span})")
    multiple = f"{ratio_text(ratio['median'])} of the {what}"
    return Sentence(subject, f"{one} takes {multiple}", f"of {other} ({span})")


def _ratio(workload: Mapping[str, Any], name: str, to: str) -> Mapping[str, float]:
    """Return the time of a contestant, as a multiple of another's in the same round."""
    entries = workload["contestants"]
    if to == BLOCKING:
        found: Mapping[str, float] = entries[name]["ratio_to_blocking"]
        return found
    own, other = (entries[key]["samples"] for key in (name, to))
    pairs = zip(own, other, strict=True)
    return vars(Spread.of([one["seconds"] / two["seconds"] for one, two in pairs]))


def _behaviour(found: Mapping[str, Any]) -> Sentence:
    situations = found["situations"]
    counts = []
    for name, title in found["callbacks"].items():
        good = sum(all(each["is_good"] for each in row["cells"][name]) for row in situations)
        counts.append(f"{title} {good}")
    return Sentence(
        f"Of {len(situations)} situations in which something goes wrong",
        ", ".join(counts),
        "end as one would wish",
    )


def sentences(document: Mapping[str, Any]) -> Iterator[Sentence]:
    """Yield them, what differs first."""
    leading = document.get("leading") or {}
    if found := leading.get("behaviour"):
        yield _behaviour(found)
    for workload in leading.get("busy", ()):
        yield comparison(
            f"{workload['title']} ({workload['cores']})",
            "greenwait",
            "extras.wait_select",
            _ratio(workload, GREENWAIT, "wait_select"),
            workload["rounds"],
        )
    if found := leading.get("many_at_once"):
        for each in found["peers"]:
            one, other = (CLIENTS[each[key]].title for key in ("client", "to"))
            subject = f"{found['connections']} connections at once"
            yield comparison(subject, one, other, each["ratio"], found["rounds"], "CPU")
    if found := leading.get("spin"):
        yield comparison(
            f"{found['title']} ({found['cores']})",
            "greenwait",
            "blocking psycopg2",
            _ratio(found, "spin-auto", BLOCKING),
            found["rounds"],
        )
    for workload in document["workloads"][:1]:
        if workload["greenwait_to_fastest_python"] is not None:
            fastest = workload["contestants"][workload["fastest_python"]]["title"]
            yield comparison(
                workload["title"],
                "greenwait",
                f"the fastest callback in Python ({fastest})",
                workload["greenwait_to_fastest_python"],
                workload["rounds"],
            )
