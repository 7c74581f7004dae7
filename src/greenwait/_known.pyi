from typing import Literal

from psycopg2.extensions import connection

__all__ = ["begin_ending", "end_ending"]

def begin_ending(conn: connection, kind: Literal["commit", "rollback"]) -> None: ...
def end_ending(conn: connection) -> None: ...
