"""All cases of a context and a phase, and what the page says of them."""

import json
from collections.abc import Iterator

from tests.explorer.cases import HARMLESS, INTERRUPTS, PHASES, Case, Events, Phase, reachable
from tests.explorer.contexts import CONTEXTS
from tests.explorer.laboratory import Finding, Laboratory
from tests.explorer.table import KEPT, Kept, entry


def spelled(events: Events) -> str:
    """Return events as they are written on the command line."""
    return " ".join(f"{event}@{step}" for event, step in events) or "-"


def find(case: Case) -> Finding:
    """Return what is to be known of it."""
    raised = case.raised
    return Finding(
        name_of(raised),
        ", ".join(sorted({name_of(each) for each in reachable(raised)[1:]})) or "-",
        "open" if case.is_open else "closed",
        case.server if case.phase.statement else "-",
    )


def name_of(exc: BaseException | None) -> str:
    return "-" if exc is None else type(exc).__name__


def explore(lab: Laboratory, phase: Phase) -> Iterator[Case]:
    """Run all cases of a phase."""
    if phase.is_endless:
        steps = range(2, 3)  # when it sleeps
    else:
        lab.run(phase, ())  # the first of a connection may have more to say
        base = lab.run(phase, ())
        steps = range(1, len(base.steps) + 1)
        yield base
    for step in steps:
        has_pairs = phase.pairs_at is None or step in phase.pairs_at
        for case in explore_first(lab, phase, step):
            yield case
            if case.events and not case.at_once and has_pairs:
                for events in pairs(lab, case, step):
                    yield lab.run(phase, events)


def explore_first(lab: Laboratory, phase: Phase, step: int) -> Iterator[Case]:
    """Run those in which one thing happens."""
    for event in lab.context.interrupts:
        yield lab.run(phase, ((event, step),))
        if lab.context.has_at_once:
            yield lab.run(phase, ((event, step),), True)
    if lab.context.is_beside:
        return
    wire: list[str] = []
    # A server that has not said who it is says nothing else, and nobody can cancel or end it.
    if phase.is_endless:
        wire = ["error", "terminated"]
    elif phase.name != "connect" or step > 3:
        wire = [*HARMLESS, "error", "terminated"]
    # Nobody but psycopg2 has the descriptor of a connection that is being made.
    if phase.name != "connect" and (lab.context.has_quick_look or step == phase.closed_at):
        wire.append("closed")
    for event in (*wire, "lost"):
        yield lab.run(phase, ((event, step),))


#: Within an answer: what comes at one of these finds the library as it does at the next.
WITHIN = ("T", "D", "d", "c")
#: What happens to a connection after something else has happened.
AFTER = (*HARMLESS, "error", "silent", "terminated", "lost", "closed")


def pairs(lab: Laboratory, case: Case, step: int) -> Iterator[Events]:
    """Return the pairs of what has happened in a case, and of something that does so later."""
    first = case.events[0][0]
    others = [
        (number, message)
        for number, message in enumerate(case.steps, 1)
        if number == step or (number > step and message.kind not in WITHIN)
    ]
    for other, _ in others:
        for second in seconds(lab, case, first, other):
            yield (first, step), (second, other)


def seconds(lab: Laboratory, case: Case, first: str, other: int) -> Iterator[str]:
    """Return what may happen after *first*, at a step.

    What happens to the connection does so at each step after one of the context's interrupts,
    and after each of them at some; and the other way round.
    """
    phase, interrupts = case.phase, lab.context.interrupts
    if first == "error" or first == HARMLESS[other % 2]:
        yield interrupts[other // 2 % len(interrupts)]
    if first not in INTERRUPTS:
        return
    yield from (second for one, second in lab.context.pairs if one == first)
    if lab.context.is_beside:
        return
    for order, second in enumerate(AFTER):
        if phase.name == "connect" and second not in ("silent", "lost"):
            continue
        if second == "closed":
            # A cancel request would get its number.
            if any(message.link.is_cancel for message in case.steps[other - 1 :]):
                continue
            if not lab.context.has_quick_look and (phase.name, other) != ("commit", 2):
                continue
        is_always = first == interrupts[0] and second in ("terminated", "lost")
        if is_always or first == interrupts[(other + order) % len(interrupts)]:
            yield second


#: What is explored: some phases are the same in contexts that differ little.
COMBINATIONS = [
    (context, phase)
    for context in CONTEXTS
    for phase in {
        "plain-own": ("transaction", "commit", "rollback"),
        "hub-main": ("connect", "query", "deaf", "commit", "rollback"),
        "hub-signals": ("connect", "transaction", "query", "commit"),  # a signal ends none
        "asyncio-signals": ("connect", "transaction", "query", "commit"),
    }.get(context, tuple(PHASES))
]


def key_of(case: Case) -> str:
    """Return what has happened in it."""
    return " + ".join(case.happened) or "nothing"


def load() -> Kept:
    """Return what was found before."""
    found: Kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def entries(kept: Kept) -> set[tuple[str, str, str]]:
    """Return all that the page says."""
    return {
        entry(phase, events, finding, context)
        for phase, by_events in kept.items()
        for events, findings in by_events.items()
        for finding, contexts in findings.items()
        for context in contexts
    }


def wrong(name: str, case: Case, known: set[tuple[str, str, str]]) -> list[str]:
    """Return what is wrong, each line with the case as it can be run alone."""
    complaints = list(case.complaints)
    found = entry(case.phase.name, key_of(case), str(find(case)), name)
    if found not in known:
        complaints.append(f"the page does not say so (make explore): {found}")
    command = f"python -m tests.explorer {name} {case.phase.name} {spelled(case.events)}"
    return [f"{command}{' --at-once' * case.at_once}: {each}" for each in complaints]
