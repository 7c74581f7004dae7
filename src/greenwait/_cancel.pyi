from psycopg2.extensions import connection

__all__ = ["cancel"]

def cancel(conn: connection, /, timeout: float = ...) -> None: ...
