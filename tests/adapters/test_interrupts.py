"""What ends a wait in a greenlet of gevent's or eventlet's: a kill, a timeout of theirs, ours."""

import pytest


def test_killed_greenlet_stops_its_query_and_leaves_a_usable_connection(run):
    run()


def test_the_framework_s_own_timeout_is_delivered_as_it_is(run):
    run()


def test_greenwait_s_timeout_is_of_its_own_greenlet(run):
    run()


def test_killed_before_the_loop_knows_of_the_wait(run):
    run()


def test_exception_out_of_a_bare_greenlet_is_told_as_its_own(run):
    run()


@pytest.mark.parametrize("run", ["gevent"], indirect=True)
def test_timers_are_not_too_short_for_libuv(run):
    """It has none of less than a millisecond, and gevent warns of them."""
    run(module="libuv")
