"""Every event at every step of a wait: no case violates a rule, and none comes to something new.

The rules are those of ``Laboratory.judge()``:

- The highest of several interrupts is raised, the first of equals. No other one is lost: it is
  among the contexts and causes of that.
- A deadline ends in a QueryTimeout that names its block, or the result stands.
- One interrupt does not cost the connection, if the server answers. An open connection can be
  rolled back, and its next queries get their own answers: no late cancel strikes them.
- A commit is never cancelled. CommitInDoubt says so exactly when its answer is not known, and the
  row is there exactly when the caller was told.
- Messages arrive if the connection stays, whatever happens to the query.
- All of it ends in time, and no descriptor is left.

A case that violates one is printed as it can be run alone, by ``python -m tests.explorer``.
"""

import json
import sys

import pytest

from greenwait._libpq import FAST_PATHS
from tests.explorer import COMBINATIONS, KEPT, Laboratory, PHASES, explore, find, key_of, spelled
from tests.fault_lab import no_leaked_descriptors

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it needs epoll and /proc"),
    pytest.mark.skipif(
        FAST_PATHS["cancel"] != "on: encrypted as the connection is",
        reason="a cancel request that stops the thread would wait for what the thread is to do",
    ),
    pytest.mark.timeout(300),
]

IN_THIS_PROCESS = [pair for pair in COMBINATIONS if pair[0] != "gevent"]
known = json.loads(KEPT.read_text(encoding="utf-8"))


def complaints(name, phase, cases):
    """Return what is wrong, each line with its case as it can be run alone."""
    found = []
    for case in cases:
        wrong = list(case.complaints)
        if str(find(case)) not in known[phase].get(key_of(case), {}):
            wrong.append(f"docs/stopping.json knows nothing of {find(case)} (make explore)")
        found += [
            f"python -m tests.explorer {name} {phase} {spelled(case.events)}"
            f"{' --at-once' * case.at_once}: {each}"
            for each in wrong
        ]
    return found


@pytest.fixture(scope="module")
def laboratories(own_server):
    """Return a function that gives a context's laboratory."""
    found = {}

    def laboratory(name):
        if name not in found:
            for lab in found.values():
                lab.__exit__()
            found.clear()
            found[name] = Laboratory(own_server, name).__enter__()
        return found[name]

    yield laboratory
    for lab in found.values():
        lab.__exit__()


@pytest.mark.parametrize(("name", "phase"), IN_THIS_PROCESS)
def test_every_event_at_every_step(laboratories, name, phase):
    lab = laboratories(name)
    lab.drop()
    with no_leaked_descriptors():
        cases = list(explore(lab, PHASES[phase]))
        lab.drop()
    assert cases
    assert complaints(name, phase, cases) == []


def test_every_event_at_every_step_in_gevent(run_python, own_server):
    """In a process of its own."""
    out = run_python(
        """
        import sys
        sys.path.insert(0, "..")
        from tests.explorer import COMBINATIONS, Laboratory, PHASES, explore, ServerAt
        from tests.test_explorer import complaints
        with Laboratory(ServerAt(sys.argv[2]), "gevent") as lab:
            count, wrong = 0, []
            for name, phase in COMBINATIONS:
                if name == "gevent":
                    cases = list(explore(lab, PHASES[phase]))
                    count += len(cases)
                    wrong += complaints(name, phase, cases)
        print(count, *wrong, sep="\\n")
        """,
        str(own_server.directory), timeout=250,
    )
    count, *wrong = out.splitlines()
    assert int(count) > 1000
    assert wrong == []
