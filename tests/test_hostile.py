"""A server that does what it must not: each call ends in time, with an error of psycopg2's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile_server import HostileServer

#: GREENWAIT_HOSTILE_SEED=... has other trials than those that were played before.
SEED = os.environ.get("GREENWAIT_HOSTILE_SEED", "1")
CONTEXTS = ("threads", "hub", "asyncio", "uvloop", "gevent", "eventlet", "trio")
CHUNKS, TRIALS = 2, 22  # for each context: 308 trials in all


@pytest.fixture(scope="module")
def hostile():
    with HostileServer() as server:
        yield server


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("context", CONTEXTS)
def test_each_call_to_a_hostile_server_ends_in_time_with_an_error_of_psycopg2_s(
    hostile, context, chunk
):
    seeds = [f"{SEED}-{context}-{chunk}-{number}" for number in range(TRIALS)]
    trials = [(seed, hostile.port(seed)) for seed in seeds]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.hostile_client", context, json.dumps(trials)],
        capture_output=True,
        text=True,
        timeout=58,
        cwd=Path(__file__).parent.parent,
        # What malloc keeps for each thread depends on chance, and is no leak.
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, f"GREENWAIT_HOSTILE_SEED={SEED}\n{done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout)
    del told["outcomes"]
    problems = {seed: problem for seed, problem in told.items() if problem}
    assert not problems, f"GREENWAIT_HOSTILE_SEED={SEED}: {json.dumps(problems, indent=1)}"
