"""COPY is what it is with blocking psycopg2: the same results, errors and notices."""

import functools
import json

import pytest

from greenwait._sleep import POLLERS
from tests.lab.marks import needs_copy
from tests.lab.programs import run_program
from tests.programs.copy_scenarios import SCENARIOS

pytestmark = [needs_copy, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def observed(server):
    """Return a function that returns what each scenario sees, in a process of its own."""

    @functools.cache
    def run(mode):
        dsn = server.dsn(server.transports[0])
        return json.loads(run_program("copy_scenarios", dsn, mode, timeout=120))

    return run


@pytest.mark.parametrize("poller", POLLERS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_ends_as_with_blocking_psycopg2(observed, name, poller):
    assert observed(poller)[name] == observed("blocking")[name]
