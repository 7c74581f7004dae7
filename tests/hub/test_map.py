"""``map()``: lazy, bounded and in order."""

import gc
import itertools
import random
import time
from concurrent.futures import CancelledError

import psycopg2
import pytest

import greenwait
from greenwait._greenlets.hub import hub_here
from tests.lab.marks import needs_refusal
from tests.lab.queries import assert_stopped, assert_usable, one, sleep_and_say
from tests.lab.waiting import takes

pytestmark = pytest.mark.patient


def test_map_yields_in_order(conns):
    own = conns(4)
    free = list(own)

    def call(number):
        conn = free.pop()
        try:
            return sleep_and_say(conn, random.random() * 0.02, number)
        finally:
            free.append(conn)

    assert list(greenwait.map(call, range(40), concurrency=4)) == list(range(40))


def test_map_is_lazy_and_bounded(callback):
    begun = []
    asked = []

    def items():
        for number in itertools.count():
            asked.append(number)
            yield number

    def call(number):
        begun.append(number)
        return number

    results = greenwait.map(call, items(), concurrency=3)
    assert asked == begun == []
    assert next(results) == 0
    assert len(asked) == len(begun) == 3
    assert next(results) == 1
    assert len(asked) == 4
    results.close()
    assert len(asked) == 4
    assert hub_here() is None


@needs_refusal
def test_closed_map_cancels_what_is_under_way(conns, watcher):
    own = conns(3)

    def call(number):
        return sleep_and_say(own[number], 0 if number == 0 else 20, number)

    results = greenwait.map(call, range(3))
    with takes(0, 10):
        assert next(results) == 0
        results.close()
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_map_in_a_job_that_is_cancelled_cancels_what_is_under_way(conns, watcher):
    """The one whose result is waited for too."""
    own = conns(3)
    ended = []

    def call(number):
        try:
            sleep_and_say(own[number], 20)
        finally:
            ended.append(number)

    with takes(0, 10), greenwait.Hub() as hub:
        job = hub.spawn(lambda: list(greenwait.map(call, range(3))))
        hub.sleep(0.2)
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
        assert sorted(ended) == [0, 1, 2]
    assert_stopped(watcher, own)
    assert_usable(*own)


@needs_refusal
def test_map_that_is_dropped_is_closed(conns, watcher):
    own = conns(3)
    results = greenwait.map(lambda i: sleep_and_say(own[i], 3 * (i > 0), i), range(3))
    assert next(results) == 0
    del results
    gc.collect()
    assert hub_here() is None
    assert_usable(*own)


@needs_refusal
def test_exception_comes_in_its_place(conns):
    own = conns(3)

    def call(number):
        return one(own[number], f"select {number} / (1 - {number})")

    results = greenwait.map(call, range(3))
    assert next(results) == 0
    with pytest.raises(psycopg2.errors.DivisionByZero):
        next(results)
    assert list(results) == []
    assert_usable(*own)


def test_maps_may_overlap_in_any_order(callback):
    first = greenwait.map(lambda i: i, range(10), concurrency=2)
    assert next(first) == 0
    second = greenwait.map(lambda i: -i, range(10), concurrency=2)
    assert next(second) == 0
    first.close()
    assert list(second) == [-i for i in range(1, 10)]
    assert hub_here() is None


def test_consumer_s_own_queries_let_them_go_on(conns):
    own = conns(3)
    done = []

    def call(number):
        sleep_and_say(own[number], 0.1 * number)
        done.append(number)
        return number

    results = greenwait.map(call, range(2))
    assert next(results) == 0
    give_up = time.monotonic() + 20
    while done == [0]:
        assert time.monotonic() < give_up
        one(own[2], "select 1")
    assert done == [0, 1]
    assert next(results) == 1


@pytest.mark.parametrize("concurrency", [0, "many"])
def test_concurrency_that_is_none_is_refused(callback, concurrency):
    with pytest.raises((ValueError, TypeError), match="concurrency"):
        greenwait.map(print, [], concurrency=concurrency)


#: How many items a map has of which one is read.
MAPS = {"under way": "10", "alone": "2", "at its end": "1"}


@pytest.mark.parametrize("items", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("maps", [1, 2])
def test_map_that_a_thread_keeps_until_its_end_says_nothing(run_program, items, maps):
    assert run_program("thread_with_maps", items, str(maps)) == ""
