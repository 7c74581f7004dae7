"""Marks of tests that make no sense everywhere."""

import os
import selectors

import pytest

from greenwait._psycopg.libpq import FAST_PATHS
from greenwait._sleep import POLLERS
from tests.lab.hosts import shutdown_ends_an_attempt
from tests.lab.servers import POOL_MODE

__all__ = [
    "cancels_through_the_proxy",
    "needs_backend_pid",
    "needs_bare_build",
    "needs_copy",
    "needs_epoll",
    "needs_flat_memory",
    "needs_fork",
    "needs_its_own_tracer",
    "needs_no_libcrypto",
    "needs_own_memory",
    "needs_pace",
    "needs_prompt_cancel",
    "needs_refusal",
    "needs_server_connection",
    "needs_server_s_words",
    "needs_session",
    "needs_shutdown",
    "needs_silent_shutdown",
    "needs_streams",
    "selects",
]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork(2) here")
#: asyncio's event loop has no more than select(2), which fails for all when one is closed.
selects = issubclass(selectors.DefaultSelector, selectors.SelectSelector)

needs_epoll = pytest.mark.skipif("epoll" not in POLLERS, reason="there is no epoll(7) here")

#: qemu keeps some 280 KB for each thread that has ended, whatever it did.
needs_own_memory = pytest.mark.skipif(
    os.environ.get("GREENWAIT_TEST_PLATFORM") == "emulated",
    reason="the memory that this process has is its emulator's, too",
)

#: An interrupt that meets a success is to cost nothing.
needs_refusal = pytest.mark.skipif(
    FAST_PATHS["interrupt"] != "on",
    reason="without libpq's functions an interrupt that meets a success costs the connection",
)

#: Replication takes libpq's functions, and a pooler passes none on.
needs_streams = pytest.mark.skipif(
    FAST_PATHS["replication"] != "on" or POOL_MODE is not None,
    reason="there is no replication without libpq's functions, or through PgBouncer",
)

#: COPY is transferred by libpq's functions, or refused.
needs_copy = pytest.mark.skipif(FAST_PATHS["COPY"] != "on", reason="it takes libpq's functions")

# psycopg2's own cancel() would wait for the proxy, and the proxy's thread for the GIL.
cancels_through_the_proxy = pytest.mark.skipif(
    FAST_PATHS["cancel"].endswith("keeps the GIL"), reason="psycopg2's own cancel() keeps the GIL"
)

#: libpq goes on to the next host by itself where the attempt fails.
_ENDS = shutdown_ends_an_attempt()
needs_shutdown = pytest.mark.skipif(
    not _ENDS, reason="shutdown(2) does not end an attempt to connect here"
)
needs_silent_shutdown = pytest.mark.skipif(
    _ENDS, reason="shutdown(2) ends an attempt to connect here"
)


# -- What can't hold on a build that is looked into

_BUILD = os.environ.get("GREENWAIT_TEST_BUILD")  # sanitized or traced; the tool says so
needs_flat_memory = pytest.mark.skipif(
    _BUILD is not None,
    reason="AddressSanitizer and coverage.py keep memory of what is over",
)
needs_bare_build = pytest.mark.skipif(
    _BUILD is not None, reason="valgrind does not run what is sanitized, and counts what is traced"
)
needs_pace = pytest.mark.skipif(_BUILD == "traced", reason="a traced build does not keep that pace")
needs_its_own_tracer = pytest.mark.skipif(_BUILD == "traced", reason="the tracer is coverage.py's")
needs_no_libcrypto = pytest.mark.skipif(
    _BUILD == "traced", reason="coverage.py has loaded one that another libpq does not take"
)


# -- What makes no sense through a pooler


def _not_pooled(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(POOL_MODE is not None, reason=f"through PgBouncer: {reason}")


needs_server_connection = _not_pooled(
    "the server's connection is lost, and not the client's, which is PgBouncer's"
)
needs_backend_pid = _not_pooled(
    "the backend's process id, as the client knows it, is PgBouncer's invention"
)
needs_server_s_words = _not_pooled("PgBouncer says it in its own words")
needs_prompt_cancel = _not_pooled(
    "PgBouncer passes a cancel on when it has a server connection to spare: no time is promised"
)
needs_session = pytest.mark.skipif(
    POOL_MODE == "transaction",
    reason="through PgBouncer: LISTEN, temporary tables and settings are the server connection's, "
    "which is somebody else's next",
)
