"""Decoders of psycopg2's that run no Python code."""

cdef int use_c_decoders() except -1
