"""How instructions are counted (``benchmarks/callgrind.py``) and compared (``baseline.py``)."""

from pathlib import Path

import pytest

from benchmarks import baseline
from benchmarks.callgrind import by_object

# As callgrind 3.19 writes it with --compress-strings=no --compress-pos=no.
WRITTEN = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 1
cmd:  python -c pass
part: 2

desc: Timerange: Basic block 10 - 20
positions: line
events: Ir
summary: 1000

ob=/lib/libpython.so
fl=ceval.c
fn=_PyEval_EvalFrame
120 40
121 2
cob=/app/greenwait/_poll.so
cfi=_poll.c
cfn=wait
calls=3 12
122 900
fi=object.h
123 8

ob=/app/greenwait/_poll.so
fl=_poll.c
fn=wait
12 30
cfn=sleep
calls=3 20
13 100
14 5
ob=/lib/libpython.so
fn=other
7 1
"""

HERE = {"machine": "x86_64", "Python": "3.11.7"}
BEFORE = {
    "blocking": {"libpython": 9000.0, "libpq": 1000.0},
    "hub": {"libpython": 16_000.0, "greenwait/_poll": 3000.0, "greenwait/_sleep": 1000.0},
}


def compared(is_same=True, blocking=1.0, **hub):
    """Return by what it measures each comparison that fails; *hub* is what it costs now."""
    measured = {
        "blocking": {name: each * blocking for name, each in BEFORE["blocking"].items()},
        "hub": BEFORE["hub"] | {name.replace("__", "/"): each for name, each in hub.items()},
    }
    found = baseline.compare(measured, BEFORE, is_same=is_same)
    return {each.what: each for each in found if not each.is_kept}


def test_what_each_object_ran_itself_is_counted_and_not_what_it_called():
    counts = by_object(WRITTEN.splitlines(keepends=True))
    assert counts == {"/lib/libpython.so": 51, "/app/greenwait/_poll.so": 35}


def test_objects_are_named_without_what_differs_between_machines():
    counts = {
        "/app/greenwait/_poll.cpython-311-x86_64-linux-gnu.so": 3.0,
        "/app/greenwait/aio/_loop.cpython-311-x86_64-linux-gnu.so": 2.0,
        "/site/psycopg2_binary.libs/libpq-a17e3caa.so.5.17": 7.0,
        "/lib/libc.so.6": 0.2,
    }
    named = baseline.named(counts, Path("/app/greenwait"))
    assert named == {"libpq": 7.0, "greenwait/_poll": 3.0, "greenwait/aio/_loop": 2.0}


def test_the_same_cost_passes():
    assert not compared()


@pytest.mark.parametrize("more", [380, -5000])
def test_a_little_more_and_much_less_pass(more):
    assert not compared(libpython=16_000 + more)


def test_more_than_two_percent_fails():
    assert compared(libpython=16_420).keys() == {"all"}


def test_a_needless_loop_in_greenwait_fails_though_the_whole_is_within_two_percent():
    assert compared(greenwait___poll=3210).keys() == {"greenwait's own"}


def test_a_new_extension_counts_as_greenwait():
    assert compared(greenwait___new=300).keys() == {"greenwait's own"}


def test_an_interpreter_that_runs_more_for_everything_passes():
    assert not compared(is_same=False, blocking=1.3, libpython=22_000)


def test_more_calls_of_python_fail_with_another_interpreter_too():
    assert compared(is_same=False, blocking=1.3, libpython=24_000).keys() == {"as a multiple"}


def test_more_of_greenwait_fails_with_another_interpreter_too():
    found = compared(is_same=False, blocking=1.3, libpython=22_000, greenwait___poll=3700)
    assert found.keys() == {"greenwait's own"}


def test_the_advice_names_what_has_grown_and_how_to_write_the_file_anew():
    measured = {"hub": BEFORE["hub"] | {"greenwait/_poll": 4000.0}}
    failed = baseline.Comparison("hub", "all", 20_000, 21_000, 1.02)
    advice = baseline.advice([failed], measured, BEFORE)
    assert "hub, all: +5.0% against baseline.json, and +2% is allowed." in advice
    assert "greenwait/_poll +1,000" in advice
    assert baseline.ANEW in advice


def test_another_environment_is_told():
    assert not baseline.differences(HERE, dict(HERE))
    told = baseline.differences(HERE | {"Python": "3.13.1"}, HERE)
    assert told == "Python 3.13.1, not 3.11.7"


def test_each_python_has_figures_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(baseline, "_FILE", tmp_path / "baseline.json")
    baseline.keep(BEFORE, HERE, "3.11")
    baseline.keep({}, HERE, "3.12")
    assert baseline.load("3.11") == (BEFORE, HERE)
    assert baseline.load("3.13") is None


def test_the_file_has_what_is_compared():
    found = baseline.load("3.11")
    assert found is not None
    figures, there = found
    assert figures.keys() == {"blocking", "greenwait-poll", "hub", "aio"}
    assert there["Python"].startswith("CPython 3.")
