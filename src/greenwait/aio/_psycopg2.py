"""psycopg2's functions, such as ``execute_values()``: they call methods without awaiting them."""

import sys

__all__ = ["check_caller"]


def check_caller() -> None:
    """Raise TypeError if a function of psycopg2's, which would not await, has called the caller."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    if frame.f_globals.get("__name__") not in ("psycopg2.extras", "psycopg2._range"):
        return
    while frame.f_back is not None and frame.f_back.f_globals.get("__name__", "").startswith(
        "psycopg2."
    ):
        frame = frame.f_back
    name = frame.f_code.co_name
    raise TypeError(
        f"psycopg2's {name}() does not await the methods of an AsyncConnection or AsyncCursor: "
        f"write await greenwait.aio.run({name}, ...)"
    )
