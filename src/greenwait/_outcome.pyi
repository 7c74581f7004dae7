"""The exceptions of a wait that was interrupted, or whose connection was lost.

These functions return the exception to raise; if a query was interrupted twice, both interrupts are
in one chain of contexts. They are compiled, as ``_ranks`` is: no signal handler strikes before the
exception is raised.
"""

from psycopg2 import Error, OperationalError

__all__ = ["lost_commit"]

def lost_commit(error: Error) -> OperationalError:
    """Return the exception for a commit during which the connection was lost, as *error* says."""
