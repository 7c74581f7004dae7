"""Compiled types: no instance, however it was come by, ends the process or hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.bounds import bound

PROGRAM = Path(__file__).parent / "programs" / "every_type.py"


@pytest.mark.parametrize("state", ["half-made", "finished", "cleared"])
def test_instance_that_is_used_in_every_way_gives_values_and_exceptions(state, server):
    """The last line that the program has written names what has ended it."""
    done = subprocess.run(
        [sys.executable, PROGRAM, server.dsn(server.transports[0]), state],
        capture_output=True,
        text=True,
        timeout=bound(55),
        cwd=PROGRAM.parent,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "done"), done.stderr
    found = {line.split()[0] for line in lines}
    assert {
        "greenwait.aio._call.Suspension",  # which no module has by its name
        "greenwait.Job",
        "greenwait._connections.pool.Borrowed",
        "greenwait.timeout",
    } <= found


def test_call_that_was_closed_is_refused_as_a_coroutine_is(run_program):
    refused, thrown, begun = run_program("closed_calls").splitlines()
    assert refused == thrown
    assert "cannot await a call that was closed" in refused
    assert begun == "this call was begun before, or closed: call the function again"
