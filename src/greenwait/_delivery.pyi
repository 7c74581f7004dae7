"""Delivery of an exception to psycopg2's caller, in a way that the connection survives.

An exception raised by a wait callback costs the connection: psycopg2 closes it
(``green_panic``). So the callback returns normally and leaves the exception here. psycopg2
then finds an error in the server's answer, and calls the class of its SQLSTATE
(``pq_raise``). All of these classes descend from DatabaseError, whose ``__new__`` is replaced
here, once and for good: while an exception is pending for the greenlet, that call raises it,
and psycopg2 passes it on.

Where the server has reported success, it is made to refuse a statement first (``_refusal``).
"""

from typing import Any

__all__: list[str] = []

def _new(cls: type[Any], /, *args: Any, **keywords: Any) -> Any:
    """Return a new psycopg2 error, or raise the exception that is pending in its place."""
