"""Compiled types: no instance, however it was come by, ends the process or hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("every_type.py")


@pytest.mark.parametrize("state", ["half-made", "finished", "cleared"])
def test_instance_that_is_used_in_every_way_gives_values_and_exceptions(state, server):
    """The last line that the program has written names what has ended it."""
    done = subprocess.run(
        [sys.executable, PROGRAM, server.dsn(server.transports[0]), state],
        capture_output=True,
        text=True,
        timeout=55,
        cwd=PROGRAM.parent,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "done"), done.stderr
    found = {line.split()[0] for line in lines}
    assert {
        "greenwait._aio.Suspension",  # which no module has by its name
        "greenwait._hub.Job",
        "greenwait._pool.Borrowed",
        "greenwait._deadline.timeout",
    } <= found
