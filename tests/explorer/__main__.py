"""Explore every event at every step of a wait, in one context or in all.

    python -m tests.explorer hub                          # all of a context's cases
    python -m tests.explorer hub commit cancel@2 silent@3  # one of them
    python -m tests.explorer --keep                        # what all of them come to

What violates a rule is printed as the command that runs it alone.
"""

import argparse
import json
import subprocess
import sys

from tests.explorer.cases import PHASES, Case, reachable
from tests.explorer.contexts import CONTEXTS
from tests.explorer.laboratory import Laboratory
from tests.explorer.search import COMBINATIONS, entries, explore, find, key_of, load, spelled, wrong
from tests.explorer.table import KEPT
from tests.lab.postgres import Server


def keep() -> None:
    """Explore everything, each context in a process of its own, and keep what is found as well.

    Once what was found before is not so any more, delete the file first.
    """
    kept = load() if KEPT.exists() else {phase: {} for phase in PHASES}
    for context in CONTEXTS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.explorer", context, "--json"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        for phase, key, finding in json.loads(done.stdout):
            contexts = kept[phase].setdefault(key, {}).setdefault(finding, [])
            if context not in contexts:
                contexts.append(context)
    blocks = []
    for phase, found in kept.items():
        lines = [
            f"  {json.dumps(key)}: {json.dumps(found[key], sort_keys=True)}"
            for key in sorted(found)
        ]
        blocks.append(f" {json.dumps(phase)}: {{\n" + ",\n".join(lines) + "\n }")
    KEPT.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


def show(lab: Laboratory, case: Case) -> None:
    """Print a case in full."""
    print(*case.steps)
    print(key_of(case), find(case), *case.complaints, sep="\n")
    print(repr(case.raised), *map(repr, reachable(case.raised)[1:]), sep="\n  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("context", nargs="?", choices=CONTEXTS)
    parser.add_argument("phase", nargs="?", choices=PHASES)
    parser.add_argument("events", nargs="*", help="such as limit@3")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--json", action="store_true", help="print what is found")
    parser.add_argument("--keep", action="store_true", help="explore all, and keep what is found")
    options = parser.parse_args()
    if options.keep:
        keep()
        return
    events = tuple(
        (event, int(step)) for event, _, step in (each.partition("@") for each in options.events)
    )
    with Server() as server, Laboratory(server, options.context) as lab:
        if options.phase and (events or options.events):
            show(lab, lab.run(PHASES[options.phase], events, options.at_once))
            return
        found: list[tuple[str, str, str]] = []
        count, known = 0, set() if options.json else entries(load())
        for context, phase in COMBINATIONS:
            if context == options.context and options.phase in (None, phase):
                for case in explore(lab, PHASES[phase]):
                    count += 1
                    found.append((phase, key_of(case), str(find(case))))
                    if options.json:
                        assert not case.complaints, (spelled(case.events), case.complaints)
                    else:
                        print(
                            *(f"{each}\n" for each in wrong(context, case, known)),
                            sep="",
                            end="",
                            flush=True,
                        )
        print(json.dumps(found) if options.json else f"{count} cases")


if __name__ == "__main__":
    main()
