"""What of the tests makes sense through a pooler, and what does not.

``GREENWAIT_TEST_POOLING=session`` (or ``transaction``) puts a PgBouncer between the tests and their
server. It is the client's server then: it makes the keys that cancel a query, and says by itself
how connections stand.
"""

import os

import pytest

from tools import pgbouncer, postgres

__all__ = ["running", "skip_what_makes_no_sense"]

_WANTED = os.environ.get("GREENWAIT_TEST_POOLING")
POOL_MODE: pgbouncer.PoolMode | None = next(
    (mode for mode in pgbouncer.POOL_MODES if mode == _WANTED), None
)


def running() -> postgres.Server | postgres.ExternalServer:
    """Return the server to use, a context manager that runs it."""
    return postgres.running() if POOL_MODE is None else pgbouncer.PooledServer(POOL_MODE)


_TERMINATES = "the server's connection is lost, and not the client's, which is PgBouncer's"
_PID = "the backend's process id, as the client knows it, is PgBouncer's invention"
_MESSAGE = "PgBouncer says it in its own words"
_CANCELS = (
    "PgBouncer passes a cancel on when it has a server connection to spare: no time is promised"
)
_LISTENS = "LISTEN is the server connection's, which is somebody else's next"
_TEMPORARY = "a temporary table is the server connection's, and so is what a session sets"

#: What is skipped, by file and function, and why.
_BY_SESSION = {
    "test_pool.py::test_terminated_ones_are_not_lent": _TERMINATES,
    "test_pool.py::test_one_that_is_lost_in_a_transaction_is_not_kept": _TERMINATES,
    "test_pool.py::test_lost_connection_is_told_of_at_the_end_of_the_block": _TERMINATES,
    "test_pool.py::test_first_failure_is_raised_at_once": _MESSAGE,
    "test_pool.py::test_interrupted_query_leaves_it_fit": _PID,
    "test_pool.py::test_interrupts_at_random_moments_cost_no_place": _CANCELS,
    "test_trio.py::test_cancellation_while_a_statement_is_sent": _PID,
    "test_cancel.py::test_query_is_cancelled_from_another_thread": _PID,
    "test_cancel.py::test_cancel_without_a_wait_callback_works_too": _PID,
    "test_cancel.py::test_cancel_inside_a_query_s_own_wait_from_a_signal_handler": _PID,
    "test_cancel.py::test_cancels_from_many_threads_at_once": _PID,
}
_BY_TRANSACTION = _BY_SESSION | {
    "test_workloads.py::test_listen_receives_notify": _LISTENS,
    "test_pool.py::test_messages_do_not_make_it_unfit": _LISTENS,
    "test_trio.py::test_query_beside_notifications_of_the_same_connection": _LISTENS,
    "test_trio.py::test_execute_values": _TEMPORARY,
    "test_copy.py::test_copy_in_execute_leaves_a_connection_that_can_be_rolled_back": _TEMPORARY,
}
_SKIPPED: dict[pgbouncer.PoolMode | None, dict[str, str]] = {
    None: {},
    "session": _BY_SESSION,
    "transaction": _BY_TRANSACTION,
}


def skip_what_makes_no_sense(items: list[pytest.Item]) -> None:
    """Skip what makes no sense through this pooler, for the reason that is given here."""
    for item in items:
        skipped = _SKIPPED[POOL_MODE]
        reason = skipped.get(f"{item.path.name}::{getattr(item, 'originalname', item.name)}")
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"through PgBouncer: {reason}"))
