import psycopg2.errors

__all__ = ["QueryCanceled"]

class QueryCanceled(psycopg2.errors.QueryCanceled): ...
