"""A statement that the server refuses, so that psycopg2 finds an error and not a success.

An interrupt reaches psycopg2's caller in place of the server's error. After a success the
server is sent one more statement, which it refuses. psycopg2 must be right about the server's
state after that; where it could not be, nothing is sent.
"""

from greenwait._poll cimport POLL_WRITE, Wait, sleep_for, wait_until_ok
from greenwait._psycopg.libpq cimport PQTRANS_IDLE, PQTRANS_INTRANS, PGconn, can_refuse, libpq
from greenwait._psycopg.state cimport (
    COMMIT,
    NO_ENDING,
    ConnectionState,
    is_in_transaction,
    is_ready,
    pgconn_of,
)

from greenwait._psycopg import psycopg2

cdef object connection_info = psycopg2.connection.info
cdef object connection_autocommit = psycopg2.connection.autocommit
cdef object connection_encoding = psycopg2.connection.encoding

# The server refuses these in any state: for the invalid cast, or because the transaction has
# failed before, or because it takes no queries. The text is for its log.
cdef const char* REFUSED = b"select 'greenwait: a statement was interrupted as it succeeded'::int"
cdef const char* ROLLED_BACK = (
    b"rollback; select 'greenwait: a transaction was interrupted as it began'::int"
)
cdef const char* BEGUN = (
    b"begin; select 'greenwait: a rollback was interrupted as it succeeded'::int"
)


cdef bint has_error(object conn) except -1:
    """Will psycopg2 find an error in the server's answer?"""
    return bool(connection_info.__get__(conn).error_message)


cdef bint is_begin(object conn, Wait* wait) except -1:
    """Was it psycopg2's own BEGIN, after which it sends the query at once?

    If the server had not begun the transaction, or had failed it, psycopg2 would not know. A
    two-phase transaction has no such query.
    """
    return (
        is_ready(conn)
        and not wait.is_two_phase
        and not connection_autocommit.__get__(conn)
        and connection_info.__get__(conn).transaction_status == PQTRANS_INTRANS
    )


cdef bint have_refused(object conn, Wait* wait) except -1:
    """Make the server refuse a statement, so that psycopg2 finds an error and not a success.

    ``poll()`` may be called once the answer has arrived ("just check for notifications",
    ``_conn_poll_query`` in psycopg2), and then replaces the result that psycopg2 will read,
    unless that is an error. Returns whether there is an error.
    """
    cdef ConnectionState state = <ConnectionState>wait.state
    cdef PGconn* pgconn = pgconn_of(conn)
    cdef const char* statement
    cdef bint is_idle_then
    if not can_refuse or pgconn is NULL:
        return False
    statement = statement_to_refuse(conn, pgconn, wait)
    if statement is NULL:
        return False
    is_idle_then = statement is ROLLED_BACK or (
        statement is REFUSED and libpq.transactionStatus(pgconn) == PQTRANS_IDLE
    )
    wait.ending = NO_ENDING  # it has ended
    while True:
        if not libpq.sendQuery(pgconn, statement):
            return False
        while libpq.flush(pgconn) == 1:  # poll() reports an error
            sleep_for(conn, POLL_WRITE, wait)
        wait.is_answered = False
        wait_until_ok(conn, wait)
        state.transaction_status = libpq.transactionStatus(pgconn)
        if not has_error(conn):
            return False
        if is_idle_then == (state.transaction_status == PQTRANS_IDLE):
            state.is_failed = is_in_transaction(conn)
            return True
        # The query's cancel has struck the first of the two statements.


cdef const char* statement_to_refuse(object conn, PGconn* pgconn, Wait* wait) except? NULL:
    """Return the statement after which psycopg2 is right about the server's state, or NULL.

    psycopg2 assumes that a failed statement has changed nothing, except commit(), after which
    it sees no transaction in any case (``pq_commit``).
    """
    cdef int status = libpq.transactionStatus(pgconn)
    if has_other_encoding(conn):
        return NULL
    if is_in_transaction(conn):
        if status != PQTRANS_IDLE:
            return REFUSED
        if wait.is_two_phase or wait.ending == NO_ENDING:
            return NULL  # psycopg2 may go on with it, or not: it does not tell
        return REFUSED if wait.ending == COMMIT else BEGUN
    if not is_ready(conn):
        return NULL  # a prepared transaction is ended, or not
    if status == PQTRANS_INTRANS and wait.was_idle:
        return ROLLED_BACK
    return REFUSED


cdef bint has_other_encoding(object conn) except -1:
    """Does the server's encoding differ from psycopg2's, which changes only on success?"""
    found = connection_info.__get__(conn).parameter_status("client_encoding")
    return bool(found) and plain_name(found) != plain_name(connection_encoding.__get__(conn))


cdef object plain_name(str encoding):
    return encoding.upper().replace("_", "").replace("-", "")
