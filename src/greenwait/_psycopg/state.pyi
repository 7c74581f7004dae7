from typing import Literal

from psycopg2.extensions import connection

__all__ = ["begin_method", "end_method", "expect_stream"]

def begin_method(
    conn: connection,
    kind: Literal["commit", "rollback", "tpc_begin"] | None,
    keeps_interrupt: bool,
) -> None: ...
def end_method(conn: connection) -> None: ...
def expect_stream(conn: connection, expects: bool) -> None: ...
