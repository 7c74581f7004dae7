"""Waits in the hub's own greenlet, where a finalizer may run."""

import pytest


@pytest.mark.parametrize("factory", ["psycopg2.extensions.connection", "greenwait.Connection"])
def test_rollback_of_a_finalizer_in_the_hub_has_the_grace_and_no_more(run, factory):
    run(factory)


def test_rollback_in_the_hub_that_is_answered_keeps_the_connection(run):
    run()


def test_other_statements_in_the_hub_take_as_long_as_they_take(run):
    run()


def test_connection_that_is_at_work_is_not_waited_for_in_the_hub(run):
    """Its greenlet would go on only when the hub does."""
    run()
