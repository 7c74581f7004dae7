"""What four tracing libraries see of queries, in each context, each in a process of its own.

`make tracing` installs them.
"""

from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.lab.bounds import bound
from tests.lab.contexts import CONTEXTS
from tests.lab.tracers import TRACERS

pytestmark = pytest.mark.timeout(bound(60))

CASES = ["each_query_in_its_job_s_span", "deadline_and_kill", "what_takes_a_connection"]


@pytest.fixture(params=TRACERS)
def tracer(request):
    try:
        version(request.param)
    except PackageNotFoundError:
        pytest.skip("make tracing installs it")
    return request.param


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_queries_of_synchronous_code(run_program, tracer, context, case):
    printed = run_program("traced_queries", context, tracer, case)
    assert printed.strip().endswith("well")


@pytest.mark.parametrize("context", ["asyncio", "uvloop"])
def test_queries_of_awaited_methods(run_program, tracer, context):
    if tracer == "newrelic":
        pytest.skip("it keeps what it traces by greenlet: see docs/observability.md")
    printed = run_program("traced_queries", context, tracer, "awaited_methods")
    assert printed.strip().endswith("well")
