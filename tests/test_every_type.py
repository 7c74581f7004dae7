"""Compiled types: no instance, however it was come by, ends the process or hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "every_type.py"


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
        "greenwait.aio._loop.Suspension",  # which no module has by its name
        "greenwait.Job",
        "greenwait._connections.pool.Borrowed",
        "greenwait.timeout",
    } <= found


def test_call_that_was_closed_is_refused_as_a_coroutine_is(run_python):
    script = """
import asyncio, sys
import greenwait, greenwait.aio
greenwait.install()

async def refused(call):
    try:
        await call
    except RuntimeError as exc:
        print(exc)

async def main():
    conn = await greenwait.aio.connect(sys.argv[1])
    closed, thrown, begun = conn.commit(), conn.commit(), greenwait.aio.Call(conn.commit, (), {})
    closed.close()
    await refused(closed)
    try:
        thrown.throw(ValueError)
    except ValueError:
        await refused(thrown)
    await begun.begin()
    try:
        begun.begin()
    except RuntimeError as exc:
        print(exc)
    cur = conn.cursor()
    suspension = cur.execute("select pg_sleep(0.1)").send(None)
    over = asyncio.Event()
    while not suspension.done():
        await asyncio.sleep(0.01)
    assert suspension.get_loop() is asyncio.get_running_loop()
    suspension.add_done_callback(lambda _: over.set())
    await over.wait()

asyncio.run(main())
"""
    refused, thrown, begun = run_python(script).splitlines()
    assert refused == thrown
    assert "cannot await a call that was closed" in refused
    assert begun == "this call was begun before, or closed: call the function again"
