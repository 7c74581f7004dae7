"""Queries in gevent's and eventlet's greenlets: others run meanwhile."""

import pytest


def test_queries_run_at_the_same_time(run):
    run()


def test_others_run_meanwhile(run):
    run()


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
def test_large_answers_and_statements(run, transport, server):
    if transport not in server.transports:
        pytest.skip("the server is not reached like that")
    run(transport=transport)


def test_query_in_a_callback_of_the_hub_s_own_waits_by_blocking(run):
    run()


def test_silent_hosts_time_out_beside_each_other(run):
    run()


def test_greenwait_connect_works_there(run):
    run()


def test_hub_of_ours_is_refused_in_favour_of_the_framework_s(run):
    run()


def test_query_beside_notifications_of_the_same_connection(run):
    run()


def test_idle_connection_that_is_readable_keeps_nobody_awake(run):
    run()


def test_every_context_in_one_process(run_program):
    """gevent in one thread, eventlet in another, a hub in a third, and threads that just sleep."""
    assert run_program("every_context").strip() == "well"
