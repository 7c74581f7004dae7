"""libpq's functions, found in the library that psycopg2 itself has loaded.

A ``PGconn`` means something only to the libpq that made it, and there can be several in
a process: psycopg2-binary brings one, psycopg 3 another, the system has a third. So the
functions are looked up through psycopg2's own extension module, which searches that and
what it was linked with (dlsym(3)), and by ctypes, which keeps ``dl*`` out of this one.

A function that is missing switches off what needs it, and nothing else.
"""

__all__ = ["FAST_PATHS"]

FAST_PATHS: dict[str, str]
