"""What is in a trace, in each context: 8 jobs over 2 places of a pool, a deadline, an interrupt."""

import itertools
import json
import os

import pytest

from tests.lab.contexts import CONTEXTS
from tests.lab.programs import run_program

ROWS = {
    "plain": "ThreadPoolExecutor",
    "hub": "job ",
    "gevent": "greenlet ",
    "eventlet": "greenlet ",
    "asyncio": "task ",
    "uvloop": "task ",
    "trio": "task ",
}


@pytest.fixture(scope="module", params=CONTEXTS)
def traced(request, server, tmp_path_factory):
    """The context, its trace's events, and what the program has printed."""
    file = tmp_path_factory.mktemp("trace") / "trace.json"
    printed = run_program("trace_in_context", request.param, server.dsn("unix"), str(file))
    return request.param, json.loads(file.read_text(encoding="utf-8")), printed


def of_category(events, category, phase="X"):
    return [each for each in events if each["ph"] == phase and each["cat"] == category]


def overlap(events):
    ordered = sorted(events, key=lambda each: each["ts"])
    return [
        (this, following)
        for this, following in itertools.pairwise(ordered)
        if this["ts"] + this["dur"] > following["ts"] + 0.001
    ]


def test_each_query_has_its_words_its_line_its_backend_and_its_time(traced):
    _, events, _ = traced
    queries = of_category(events, "query")
    found = sorted(each["name"] for each in queries if each["name"].endswith("pg_sleep(0.02)"))
    assert found == [f"select {number}, pg_sleep(0.02)" for number in range(8)]
    for each in queries:
        assert each["dur"] > 10_000  # the server may begin some time before the wait does
        assert "trace_in_context.py" in each["args"]["line"]
        assert each["args"]["backend"] > 0


def test_all_but_the_first_wait_for_the_pool(traced):
    _, events, _ = traced
    assert len(of_category(events, "pool")) >= 6


def test_a_backend_has_one_query_at_a_time(traced):
    _, events, _ = traced
    queries = of_category(events, "query") + of_category(events, "transaction")
    for backend in {each["args"]["backend"] for each in queries}:
        assert overlap([each for each in queries if each["args"]["backend"] == backend]) == []


def test_waits_of_a_row_lie_in_each_other_or_follow_each_other(traced):
    _, events, _ = traced
    outer = [each for each in events if each["ph"] == "X" and each["cat"] not in ("cancel", "loop")]
    for row in {each["tid"] for each in outer}:
        assert overlap([each for each in outer if each["tid"] == row]) == []


def test_each_job_has_a_row_of_its_kind(traced):
    context, events, _ = traced
    names = {each["tid"]: each["args"]["name"] for each in events if each["name"] == "thread_name"}
    rows = {each["tid"] for each in of_category(events, "query") if each["name"].endswith("(0.02)")}
    assert len(rows) == 8
    assert all(names[row].startswith(ROWS[context]) for row in rows)


def test_a_deadline_is_marked_within_its_query_and_so_is_the_cancel(traced):
    _, events, printed = traced
    assert "timeout" in printed
    (query,) = [each for each in of_category(events, "query") if "too slow" in each["name"]]
    on_row = [each for each in events if each["tid"] == query["tid"]]
    deadline = of_category(on_row, "deadline", "i")[0]
    cancel = next(each for each in of_category(on_row, "cancel") if each["ts"] > query["ts"])
    end = query["ts"] + query["dur"]
    assert query["ts"] < deadline["ts"] <= cancel["ts"]
    assert cancel["ts"] + cancel["dur"] <= end


def test_an_interrupt_is_marked_by_its_class(traced):
    context, events, _ = traced
    names = [each["name"] for each in of_category(events, "interrupt", "i")]
    assert CONTEXTS[context].killed_by.__name__ in names or context == "trio"
    assert "Cancelled" in names or context != "trio"


def test_the_process_and_the_number_of_events_are_there(traced):
    _, events, _ = traced
    assert {each["pid"] for each in events}.isdisjoint({os.getpid()})
    (last,) = [each for each in events if each["name"] == "greenwait"]
    recorded = [each for each in events if each["ph"] != "M"]
    assert last["args"] == {"events": len(recorded), "dropped": 0}
