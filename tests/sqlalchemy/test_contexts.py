"""``postgresql+greenwait://`` in each context, in a process of its own."""

import pytest

from tests.lab.contexts import CONTEXTS

#: Functions of tests/programs/sqlalchemy_in_context.py.
CASES = [
    "first_connections",
    "fifty_on_fifteen_places",
    "exhausted",
    "own_transactions",
    "deadline",
    "killed",
    "hooks_exception",
    "scoped_sessions",
]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("case", CASES)
def test_engine(run_program, context, case):
    assert run_program("sqlalchemy_in_context", context, case).strip() == "well"
