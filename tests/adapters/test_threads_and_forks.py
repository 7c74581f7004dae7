"""gevent and eventlet beside native threads, and in children that are forked."""

import pytest

from tests.lab.marks import needs_fork


def test_native_threads_sleep_by_themselves_and_leak_nothing(run):
    run()


def test_threads_with_a_hub_of_their_own_leak_nothing_when_they_destroy_it(run):
    run()


@needs_fork
def test_forked_child_does_not_share_what_its_parent_waits_with(run):
    run()


@needs_fork
@pytest.mark.parametrize("run", ["gevent"], indirect=True)
@pytest.mark.parametrize("loop", ["libev-cext", "libuv-cffi"])
def test_child_of_a_plain_fork_and_its_parent_wait_on(run, loop, monkeypatch):
    """gevent's own fork() parts their event loops, os.fork() does not."""
    monkeypatch.setenv("GEVENT_LOOP", loop)
    run()


@needs_fork
def test_forked_child_that_waits_for_nothing_leaves_its_parents_waits_alone(run):
    run()


@needs_fork
def test_forked_child_leaves_its_parents_deadlines_alone(run):
    run()
