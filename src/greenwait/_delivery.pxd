"""Delivery of an exception to psycopg2's caller, in a way that the connection survives."""

from greenwait._psycopg.state cimport ConnectionState

cdef int deliver(object exc, bint is_deadline, bint is_refusal) except -1
cdef int deliver_in_query(object exc, ConnectionState state) except -1
cdef int raise_again(object exc) except -1

# Is there possibly an exception that forget_left() has to forget?
cdef bint may_be_left
cdef int forget_left() except -1
