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

import subprocess
import sys
from pathlib import Path

import pytest

from greenwait._psycopg.libpq import FAST_PATHS
from tests.explorer.cases import PHASES
from tests.explorer.laboratory import Laboratory
from tests.explorer.search import COMBINATIONS, entries, explore, load, wrong
from tests.lab.leaks import no_leaked_descriptors

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it needs epoll and /proc"),
    pytest.mark.skipif(
        not FAST_PATHS["cancel"].startswith("on"),
        reason="a cancel request in another way than the others' comes at another time",
    ),
    pytest.mark.timeout(300),
]

#: How many cases there are at least, so that none is left out unnoticed.
LEAST = {
    "plain": {
        "connect": 50, "transaction": 350, "query": 290, "sleep": 70, "deaf": 95, "failing": 75,
        "answer": 135, "statement": 135, "messages": 120, "copy": 270, "copy-in": 145,
        "executemany": 135, "commit": 195, "rollback": 155,
    },
    "plain-own": {"transaction": 350, "commit": 110, "rollback": 80},
    "hub-main": {"connect": 50, "query": 280, "deaf": 90, "commit": 105, "rollback": 75},
    "hub": {
        "connect": 40, "transaction": 275, "query": 220, "sleep": 50, "deaf": 70, "failing": 60,
        "answer": 110, "statement": 115, "messages": 95, "copy": 210, "copy-in": 115,
        "executemany": 115, "commit": 90, "rollback": 65,
    },
    "hub-signals": {"connect": 35, "transaction": 80, "query": 65, "commit": 30},
}  # fmt: skip
LEAST["asyncio"], LEAST["asyncio-signals"] = LEAST["hub"], LEAST["hub-signals"]
LEAST_OF_GEVENT = 2250

IN_THIS_PROCESS = [pair for pair in COMBINATIONS if pair[0] != "gevent"]


@pytest.fixture(scope="module")
def laboratory(own_server):
    """Return a function that gives a context's laboratory."""
    found = {}

    def laboratory(name):
        if name not in found:
            close()
            found[name] = lab = Laboratory(own_server, name).__enter__()
            lab.run(PHASES["query"], ())  # an event loop's first wait makes a descriptor
        return found[name]

    def close():
        while found:
            found.popitem()[1].__exit__()

    yield laboratory
    close()


@pytest.mark.parametrize(("name", "phase"), IN_THIS_PROCESS)
def test_every_event_at_every_step(laboratory, name, phase):
    lab, known = laboratory(name), entries(load())
    lab.drop()
    with no_leaked_descriptors():
        found = [wrong(name, case, known) for case in explore(lab, PHASES[phase])]
        lab.drop()
    assert len(found) >= LEAST[name][phase]
    assert [line for lines in found for line in lines] == []


def test_every_event_at_every_step_in_gevent():
    """In a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.explorer", "gevent"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    *lines, count = done.stdout.splitlines()
    assert lines == []
    assert int(count.split()[0]) >= LEAST_OF_GEVENT
