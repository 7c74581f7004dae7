"""COPY in each context, in a process of its own: the data, deadlines, and what stops it."""

import pytest

from tests.lab.contexts import CONTEXTS
from tests.lab.marks import needs_copy

pytestmark = needs_copy

#: Functions of tests/programs/copy_in_context.py.
CASES = [
    "rows_in_and_out",
    "deadline_in",
    "deadline_out",
    "deadline_in_a_trigger",
    "interrupt_in_read",
    "interrupt_in_write",
    "server_that_fails_early",
    "many_at_once",
    "killed_in",
    "killed_out",
    "killed_in_a_trigger",
]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("case", CASES)
def test_copy(run_program, context, case):
    assert run_program("copy_in_context", context, case).strip() == "well"
