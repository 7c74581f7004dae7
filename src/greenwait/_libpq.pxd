"""The libpq functions that greenwait calls, in the library that psycopg2 has loaded.

A pointer is NULL where there is no such function. They may be called without the GIL,
in a query's wait: psycopg2 holds the connection's mutex there, so nobody else closes it.
"""

cdef extern from *:
    """
    typedef struct pg_conn PGconn;
    """
    ctypedef struct PGconn:
        pass

# Named and grouped as in libpq's manual.
cdef struct Libpq:
    # Connection Status Functions
    const char* (*errorMessage)(const PGconn*) noexcept nogil
    void* (*getssl)(PGconn*) noexcept nogil
    # Asynchronous Command Processing
    int (*consumeInput)(PGconn*) noexcept nogil
    int (*isBusy)(PGconn*) noexcept nogil
    int (*setnonblocking)(PGconn*, int) noexcept nogil
    int (*isnonblocking)(const PGconn*) noexcept nogil
    int (*flush)(PGconn*) noexcept nogil
    # OpenSSL's
    int (*SSL_pending)(const void*) noexcept nogil

cdef Libpq libpq

# Which fast paths have all the functions they need.
cdef bint can_receive
cdef bint can_send
cdef bint can_set_nonblocking
cdef bint can_see_pending

# Does this libpq leave decrypted bytes of a large TLS record unread?
cdef bint leaves_tls_bytes
