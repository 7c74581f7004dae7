"""The state in which a pool's connection is lent: whether it is alive, and how it is restored.

Compiled, as the pool is: an interrupt comes only where a connection waits.
"""

from libc.stdint cimport int64_t

from greenwait._deadline cimport after
from greenwait._psycopg.attributes cimport value_of
from greenwait._psycopg.proxy cimport without_proxy
from greenwait._system.clock cimport monotonic_ns
from greenwait._system.readiness cimport READINESS_READ, readiness_now

from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR

from greenwait._errors import QueryTimeout
from greenwait._psycopg import psycopg2

cdef extern from "Python.h":
    object PyObject_CallOneArg(object function, object argument)

# psycopg2's own, whatever a subclass makes of them: what the connection really is.
cdef type connection_type = psycopg2.connection
cdef object connection_closed = connection_type.closed
cdef object connection_status = connection_type.status
cdef object transaction_status = connection_type.get_transaction_status

cdef object Psycopg2Error = psycopg2.Error
cdef object ProgrammingError = psycopg2.ProgrammingError
cdef object ServerHasCanceled = psycopg2.QueryCanceled
cdef int IDLE = TRANSACTION_STATUS_IDLE
cdef int IN_ERROR = TRANSACTION_STATUS_INERROR
cdef int STATUS_BEGIN = psycopg2.STATUS_BEGIN
cdef int STATUS_READY = psycopg2.STATUS_READY

# An idle connection is discarded if it still has messages after so many have been read,
cdef enum:
    MESSAGES = 64

# ... or after reading them has taken so long.
cdef int64_t LONGEST_LOOK_NS = 20_000_000

# Connection settings that a borrower may change, and that are restored for the next one.
cdef tuple SETTINGS = ("autocommit", "isolation_level", "readonly", "deferrable")
cdef list ATTRIBUTES = [getattr(connection_type, name) for name in SETTINGS]


cdef tuple settings_of(object conn):
    """Return the settings of a new connection, which ``is_restored()`` restores."""
    own = without_proxy(conn)
    return tuple([value_of(attribute, own) for attribute in ATTRIBUTES])


cdef bint has_setting(object own, tuple settings, int i) except -1:
    """Is a setting as ``settings_of()`` found it, of a connection that is in no proxy?"""
    value = value_of(ATTRIBUTES[i], own)
    return value is settings[i] or value == settings[i]


cdef bint has_settings(object conn, tuple settings) except -1:
    """Are all of them as ``settings_of()`` found them?"""
    own = without_proxy(conn)
    for i in range(len(SETTINGS)):
        if not has_setting(own, settings, i):
            return False
    return True


cdef int configure(object conn, object function) except -1:
    """Call a user's function with a new connection, and commit what it leaves open."""
    function(conn)
    if conn.closed != 0 or not finish(conn):
        raise ProgrammingError(
            "the pool's configure() has left a connection that is closed, or whose transaction "
            "has failed: let the exception out of it, or roll back"
        )
    return 0


cdef inline bint is_open(object own) except -1:
    """Is a connection open, which is in no proxy?"""
    cdef long closed = value_of(connection_closed, own)
    return closed == 0


cdef inline bint is_in_transaction(object own) except -1:
    """Is there a transaction on the server, or is it lost?"""
    cdef int status = PyObject_CallOneArg(transaction_status, own)
    return status != IDLE


cdef bint is_alive(object conn) except -1:
    """Has the server left it open? An idle connection gets nothing but notices.

    If there is more than can be read now, its end may be the server's farewell: it counts as
    closed.
    """
    cdef int messages = 0
    cdef int64_t until_ns = 0
    own = without_proxy(conn)
    while is_open(own) and readiness_now(conn.fileno(), READINESS_READ):
        if messages == 0:
            until_ns = after(LONGEST_LOOK_NS)
        elif messages == MESSAGES or monotonic_ns() >= until_ns:
            return False
        conn.poll()
        messages += 1
    return is_open(own)


cdef bint is_restored(object conn, tuple settings, object reset) except -1:
    """Restore the state that it was made in. Returns whether it has that.

    *reset* is a user's function that is called meanwhile, or None.
    """
    try:
        if not is_rolled_back(conn):
            return False
        if reset is not None:
            conn.autocommit = True  # "discard all" can't be in a transaction
            reset(conn)
            if not is_open(without_proxy(conn)) or not finish(conn):
                return False
        own = without_proxy(conn)
        for i in range(len(SETTINGS)):
            if not has_setting(own, settings, i):
                setattr(conn, SETTINGS[i], settings[i])
    except Psycopg2Error as exc:
        if isinstance(exc, QueryTimeout):
            raise
        return False
    return True


cdef bint is_rolled_back(object conn) except -1:
    cdef int status
    own = without_proxy(conn)
    if is_open(own) and is_in_transaction(own):
        roll_back(conn)
        if is_open(own) and is_in_transaction(own):
            roll_back_by_hand(conn)
        if is_open(own) and is_in_transaction(own):
            return False
    if not is_open(own):
        return False
    status = value_of(connection_status, own)
    if status == STATUS_BEGIN:
        # A rollback was done, and interrupted: psycopg2 has seen an error, and does not
        # know that there is no transaction. After a commit it does, whatever that does.
        conn.commit()
        status = value_of(connection_status, own)
    # If prepared: psycopg2 wants that to be ended here or nowhere.
    return status == STATUS_READY


cdef bint finish(object conn) except -1:
    """Commit what a user's function has left open. Returns whether that is possible."""
    if conn.info.transaction_status == IN_ERROR:
        return False
    if conn.info.transaction_status != IDLE:
        conn.commit()
    return conn.closed == 0 and conn.info.transaction_status == IDLE


cdef int roll_back(object conn) except -1:
    try:
        conn.rollback()
    except ServerHasCanceled as exc:  # pragma: no cover: a race: a cancel that comes late
        if isinstance(exc, QueryTimeout):
            raise
        conn.rollback()  # a cancel for the query before it has come late
    return 0


cdef int roll_back_by_hand(object conn) except -1:
    """End a transaction that psycopg2 does not know of, begun by a statement in autocommit mode."""
    with conn.cursor() as cur:
        cur.execute("ROLLBACK")
    conn.rollback()
    return 0
