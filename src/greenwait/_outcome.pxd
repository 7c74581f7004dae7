"""The exceptions of a wait that was interrupted, or whose connection was lost."""

from greenwait._poll cimport Wait

cdef object no_query_error(Wait* wait, object interruption)
cdef object lost_error(object conn, Wait* wait, object exc)
cdef object given_up_error(
    object conn, Wait* wait, object reason, object failure, list complaints
)
cdef object with_later(object reason)
cdef object raised_by(object interruption)
