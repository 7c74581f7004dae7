"""``greenwait.opentelemetry.instrument()``: pools and the process as metrics, each in a process."""

import pytest

from tests.lab.marks import needs_fork

CASES = [
    "a_pool",
    "an_async_pool",
    "a_pool_in_a_hub",
    "a_threaded_pool",
    "the_process",
    "pools_that_end",
    "pools_that_nobody_reads",
    "names",
    "a_provider_that_is_set_later",
    "two_providers",
    pytest.param("a_fork", marks=needs_fork),
]


@pytest.mark.parametrize("case", CASES)
def test_metrics_tell_what_happens(run_program, case):
    pytest.importorskip("opentelemetry.sdk")
    assert run_program("metrics", case).strip().endswith("well")


def test_without_the_api_it_says_what_to_install(run_python):
    printed = run_python(
        "import sys; sys.modules['opentelemetry'] = sys.modules['opentelemetry.metrics'] = None\n"
        "import greenwait\n"
        "for find in (lambda: greenwait.opentelemetry, "
        "lambda: __import__('greenwait.opentelemetry')):\n"
        "    try: find()\n"
        "    except (AttributeError, ImportError) as exc: print(type(exc).__name__, exc)\n"
    )
    assert printed.count("pip install 'greenwait[opentelemetry]'") == 2
    assert printed.splitlines()[0].startswith("AttributeError")
    assert printed.splitlines()[1].startswith("ImportError")


def test_it_is_imported_where_it_is_first_used(run_python):
    pytest.importorskip("opentelemetry.metrics")
    printed = run_python(
        "import greenwait, sys; print('opentelemetry' in sys.modules); "
        "print(greenwait.opentelemetry.__name__, 'asyncio' in sys.modules)"
    )
    assert printed.split()[:2] == ["False", "greenwait.opentelemetry"]
