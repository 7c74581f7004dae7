"""The exceptions for errors of the server that reach greenwait, and not psycopg2.

They have the class, the message and the attributes that psycopg2 gives them (``pq_raise``).
"""

from greenwait._psycopg.libpq cimport PGconn, PGresult, libpq

import codecs

from greenwait._psycopg import psycopg2

cdef extern from "error_result.h":
    bint error_layout_is_known(type error) noexcept
    void error_give_result(object error, object decoder, void* result) noexcept
    void error_set_cursor(object error, object cursor) noexcept

cdef extern from *:
    """
    #define FIELD_SQLSTATE 'C' /* PG_DIAG_SQLSTATE, postgres_ext.h */
    """
    const int FIELD_SQLSTATE

cdef type Error = psycopg2.Error
cdef object DatabaseError = psycopg2.DatabaseError
cdef object OperationalError = psycopg2.OperationalError
cdef object connection_info = psycopg2.connection.info
cdef object connection_encoding = psycopg2.connection.encoding
cdef object connection_poll = psycopg2.connection.poll
cdef dict classes = psycopg2.SQLSTATE_ERRORS
cdef dict encodings = psycopg2.encodings
cdef bint can_give_result = error_layout_is_known(Error)

# PQstatus()
cdef int CONNECTION_BAD = 1


cdef object server_error(object conn, object cursor, PGresult* result):
    """Return the exception for a result that is an error, and take the result over."""
    decode = decoder_of(conn)
    cdef const char* code = libpq.resultErrorField(result, FIELD_SQLSTATE)
    text = decode(libpq.resultErrorMessage(result), "replace")[0]
    sqlstate = None if code is NULL else decode(code, "replace")[0]
    exc = class_of(sqlstate)(without_severity(text))
    exc.__setstate__({"pgerror": text, "pgcode": sqlstate})
    if can_give_result:
        if cursor is not None:
            error_set_cursor(exc, cursor)
        error_give_result(exc, decode, result)
    else:
        libpq.clear(result)
    return exc


cdef object connection_error(object conn, PGconn* pgconn):
    """Return the exception for a function of libpq that has failed.

    If the connection is lost, psycopg2 learns of that.
    """
    text = decoder_of(conn)(libpq.errorMessage(pgconn), "replace")[0]
    if connection_info.__get__(conn).status != CONNECTION_BAD:
        return DatabaseError(text)
    mark_closed(conn)
    return OperationalError(text)


cdef int mark_closed(object conn) except -1:
    """Make psycopg2 notice that the connection is lost."""
    try:
        connection_poll(conn)
    except Error:
        pass
    return 0


cdef object decoder_of(object conn):
    return codecs.getdecoder(encodings.get(connection_encoding.__get__(conn), "utf-8"))


cdef object class_of(str sqlstate):
    """Return the class that psycopg2 has for the SQLSTATE, or for its class of SQLSTATEs."""
    if sqlstate is None:
        return DatabaseError
    found = classes.get(sqlstate)
    if found is None:
        generic = classes.get(sqlstate[:2] + "000")
        return DatabaseError if generic is None else generic.__base__
    return found


cdef object without_severity(str text):
    return text[8:] if text.startswith(("ERROR:  ", "FATAL:  ", "PANIC:  ")) else text
