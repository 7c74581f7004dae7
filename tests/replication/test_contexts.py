"""A replication stream in each of the seven contexts, each in a process of its own."""

import pytest

from tests.lab.contexts import CONTEXTS
from tests.lab.marks import needs_streams

pytestmark = needs_streams

SITUATIONS = (
    "messages",
    "many_messages",
    "deadline",
    "idle",
    "slow",
    "backlog",
    "consumer",
    "ended",
    "physical",
    "beside",
)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_stream(context, situation, run_program):
    assert run_program("streams", context, situation).strip() == "well"
