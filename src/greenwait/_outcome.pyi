from psycopg2 import Error, OperationalError

__all__ = ["lost_commit"]

def lost_commit(error: Error) -> OperationalError: ...
