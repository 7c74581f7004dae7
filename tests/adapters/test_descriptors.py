"""Connections and descriptors that come, go and are closed under the event loop."""

import pytest


def test_connections_that_come_and_go_leak_nothing(run):
    run()


def test_connection_that_is_lost(run):
    run()


def test_closed_connections_leave_their_numbers_to_others(run):
    run()


def test_connection_that_is_closed_does_not_upset_the_next_of_its_descriptor(run):
    """libev ends the process when it finds a descriptor closed that it was told of."""
    run()


def test_file_that_is_open_elsewhere_is_forgotten_with_its_connection(run):
    """epoll(7) Q6: a child has inherited the descriptor, and what is reported goes on."""
    run()


@pytest.mark.parametrize("backend", ["", "select"])
def test_descriptor_that_is_closed_under_a_wait_is_an_error(run, backend, monkeypatch):
    """libev's select(2), which it takes on macOS, finds out by itself; epoll(7) does not tell."""
    monkeypatch.setenv("GEVENT_BACKEND", backend)
    run()
