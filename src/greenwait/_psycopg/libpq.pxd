"""libpq's functions, found in the library that psycopg2 itself has loaded.

A pointer is NULL if this libpq lacks the function. The functions may be called without the GIL
in a query's wait: psycopg2 holds the connection's mutex there, so no other thread closes it.
"""

cdef extern from *:
    """
    typedef struct pg_conn PGconn;
    typedef struct pg_result PGresult;
    typedef struct pg_cancel PGcancel;
    typedef struct pg_cancel_conn PGcancelConn;
    """
    ctypedef struct PGconn:
        pass
    ctypedef struct PGresult:
        pass
    ctypedef struct PGcancel:
        pass
    ctypedef struct PGcancelConn:
        pass

# Values of libpq-fe.h, which are part of its ABI.
cdef enum PGTransactionStatusType:
    PQTRANS_IDLE = 0
    PQTRANS_ACTIVE = 1
    PQTRANS_INTRANS = 2

cdef enum ExecStatusType:
    PGRES_COPY_OUT = 3
    PGRES_COPY_IN = 4
    PGRES_COPY_BOTH = 8

cdef enum PostgresPollingStatusType:
    PGRES_POLLING_FAILED = 0
    PGRES_POLLING_READING = 1
    PGRES_POLLING_WRITING = 2
    PGRES_POLLING_OK = 3

cdef struct PQconninfoOption:
    char* keyword
    char* envvar
    char* compiled
    char* val
    char* label
    char* dispchar
    int dispsize

# Named and grouped as in libpq's manual.
cdef struct Libpq:
    # Database Connection Control Functions
    PGconn* (*connectStart)(const char*) noexcept nogil
    PQconninfoOption* (*conninfo)(PGconn*) noexcept nogil
    void (*conninfoFree)(PQconninfoOption*) noexcept nogil
    void (*finish)(PGconn*) noexcept nogil
    # Connection Status Functions
    int (*socket)(const PGconn*) noexcept nogil
    const char* (*errorMessage)(const PGconn*) noexcept nogil
    const char* (*hostaddr)(const PGconn*) noexcept nogil
    int (*transactionStatus)(const PGconn*) noexcept nogil
    void* (*getssl)(PGconn*) noexcept nogil
    # Command Execution Functions
    int (*resultStatus)(const PGresult*) noexcept nogil
    void (*clear)(PGresult*) noexcept nogil
    # Asynchronous Command Processing
    int (*sendQuery)(PGconn*, const char*) noexcept nogil
    int (*consumeInput)(PGconn*) noexcept nogil
    int (*isBusy)(PGconn*) noexcept nogil
    int (*setnonblocking)(PGconn*, int) noexcept nogil
    int (*isnonblocking)(const PGconn*) noexcept nogil
    int (*flush)(PGconn*) noexcept nogil
    PGresult* (*getResult)(PGconn*) noexcept nogil
    # Canceling Queries in Progress
    PGcancelConn* (*cancelCreate)(PGconn*) noexcept nogil
    int (*cancelStart)(PGcancelConn*) noexcept nogil
    int (*cancelPoll)(PGcancelConn*) noexcept nogil
    int (*cancelSocket)(const PGcancelConn*) noexcept nogil
    const char* (*cancelErrorMessage)(const PGcancelConn*) noexcept nogil
    void (*cancelFinish)(PGcancelConn*) noexcept nogil
    PGcancel* (*getCancel)(PGconn*) noexcept nogil
    int (*cancel)(PGcancel*, char*, int) noexcept nogil
    void (*freeCancel)(PGcancel*) noexcept nogil
    # Functions Associated with the COPY Command
    int (*putCopyData)(PGconn*, const char*, int) noexcept nogil
    int (*putCopyEnd)(PGconn*, const char*) noexcept nogil
    int (*getCopyData)(PGconn*, char**, int) noexcept nogil
    # Miscellaneous Functions
    void (*freemem)(void*) noexcept nogil
    # OpenSSL's
    int (*SSL_pending)(const void*) noexcept nogil

cdef Libpq libpq

# The fast paths that have all the functions they need.
cdef bint can_receive
cdef bint can_send
cdef bint can_set_nonblocking
cdef bint can_see_pending
cdef bint can_cancel            # without blocking, and encrypted as the connection is
cdef bint can_cancel_in_thread  # PQcancel(), which blocks
cdef bint can_end_copy
cdef bint can_refuse            # have the server refuse a statement, inside a wait
cdef bint can_merge_options

# Does this libpq leave decrypted bytes of a large TLS record unread?
cdef bint leaves_tls_bytes
