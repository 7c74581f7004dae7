"""Large objects in each context, in a process of its own: the data, and what stops a call."""

import pytest

from tests.lab.contexts import CONTEXTS

#: Functions of tests/programs/large_objects_in_context.py.
CASES = [
    "written_and_read",
    "exported_and_imported",
    "many_at_once",
    "deadline",
    "killed",
    "cancelled",
]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("case", CASES)
def test_large_objects(run_program, context, case):
    assert run_program("large_objects_in_context", context, case).strip() == "well"
