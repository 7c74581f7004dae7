"""The data of a COPY, which a cursor's method transfers while its statement is waited for.

psycopg2's own methods do that after the wait, in a blocking way, and so refuse to in green mode.
Here the wait callback does it: to ``poll()`` the statement is done when the COPY begins; then the
data is transferred, and ``poll()`` called again. Its last result takes the place of the one with
which the COPY began (``pq_get_result_async`` in psycopg2), and psycopg2 sees a statement that has
succeeded or failed. So the errors, ``rowcount``, notices and all else are psycopg2's own.

While the file's methods run psycopg2 holds the connection's mutex.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from greenwait._copy cimport has_left_copy
from greenwait._deadline cimport after, is_registered
from greenwait._poll cimport (
    POLL_READ,
    Wait,
    are_same,
    call_poll,
    has_pending,
    messages_of,
    new_sleep,
    phase_of,
    raise_lost,
    rechecks_tls,
    restore_send_buffer,
    send,
    sleep_for,
    wait_until_ok,
)
from greenwait._psycopg.libpq cimport (
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGconn,
    PGresult,
    can_end_copy,
    libpq,
)
from greenwait._psycopg.state cimport ConnectionState, state_of
from greenwait._sleep cimport CALL_AGAIN, Sleep, sleep_until_ready
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.readiness cimport (
    READINESS_READ,
    READINESS_WRITE,
    readiness_is_at_end,
    readiness_now,
)
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.send_buffer cimport send_buffer_widen
from greenwait._waiter cimport Waiter, waiter_here, waiters_entered

import io

from greenwait import _errors
from greenwait._psycopg import psycopg2

__all__ = ["can_copy", "check_can_copy", "copy_by_callback", "is_copied_by_callback"]

cdef extern from "Python.h":
    object PyObject_CallOneArg(object callable, object argument)
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)
    object PyUnicode_Decode(
        const char* data, Py_ssize_t size, const char* encoding, const char* errors
    )

cdef object connection_encoding = psycopg2.connection.encoding
cdef object connection_notices = psycopg2.connection.notices
cdef object connection_async = psycopg2.connection.async_
cdef object connection_status = psycopg2.connection.status
cdef object cursor_execute = psycopg2.cursor.execute
cdef dict encodings = psycopg2.encodings
cdef int STATUS_PREPARED = psycopg2.STATUS_PREPARED
cdef object Psycopg2Error = psycopg2.Error
cdef object InterfaceError = psycopg2.InterfaceError
cdef object ProgrammingError = psycopg2.ProgrammingError
cdef object QueryCanceled = psycopg2.QueryCanceled
cdef object query_timeout = _errors.QueryTimeout
cdef object deadline_passed = _errors.DeadlinePassed
cdef object handler_raised = _errors.HandlerRaised
cdef object TextIOBase = io.TextIOBase

cdef enum:
    # The bytes that are sent between two looks at what the server says.
    PIECE = 65_536
    # What a Unix socket keeps for a server that does not read: the fewer sleeps, the more.
    SEND_BUFFER = 800_000
    # The chunks that are read one after the other before they are sent, if that is quick.
    BATCH_CHUNKS = 16
    # The rows, and about the bytes, that are received before the first of them is written.
    BATCH_ROWS = 256
    BATCH_BYTES = 262_144
    # A row from here on is copied without the GIL.
    LARGE_ROW = 1_048_576

# How long the server may fall silent within a notice.
cdef int64_t SILENCE_NS = 250_000_000
# How long chunks are kept back for the next to come.
cdef int64_t QUICK_NS = 500_000

# The results of the advances besides 0 and CALL_AGAIN.
cdef enum:
    DONE = 1
    MUST_LOOK  # the server has said something
    FAILED     # the connection is lost


@cython.auto_pickle(False)
@cython.final
cdef class CopyData:
    """The data of one COPY; see ``_copy_data.pxd``."""


seal_type(CopyData, "a cursor's method makes it")


# -- The method of a cursor

def is_copied_by_callback():
    """Return whether greenwait's callback is registered, which can transfer the data."""
    return is_registered()


def can_copy():
    """Return whether COPY works: by libpq's functions, or psycopg2 does it."""
    return can_end_copy or not is_registered()


def check_can_copy(cur, str method):
    """Raise what psycopg2's *method* raises at first; or if libpq's functions can't be called."""
    conn = cur.connection
    if cur.closed:
        raise InterfaceError("cursor already closed")
    if connection_async.__get__(conn):
        raise ProgrammingError(f"{method} cannot be used in asynchronous mode")
    if connection_status.__get__(conn) == STATUS_PREPARED:
        raise ProgrammingError(
            f"{method} cannot be used with a prepared two-phase transaction"
        )
    if not can_end_copy:
        raise ProgrammingError(
            f"{method}() takes libpq's functions while a wait callback is registered, and they "
            "were not found (see python -m greenwait); nothing has been sent to the server"
        )


def copy_by_callback(cur, statement, file, size):
    """Execute a statement, and transfer the data of its COPY.

    Compiled: no signal handler strikes between the lines.
    """
    conn = cur.connection
    cdef ConnectionState state = state_of(conn)
    cdef CopyData copy = CopyData.__new__(CopyData)
    thread = PyThread_get_thread_ident()
    copy.file, copy.size = file, size
    if state.copies is None:
        state.copies = {}
    outer = state.copies.get(thread)
    state.copies[thread] = copy
    try:
        cursor_execute(cur, statement)
    except QueryCanceled as exc:
        if copy.failure is not None and exc.__cause__ is None:
            exc.__cause__ = copy.failure
        raise
    finally:
        if outer is None:
            del state.copies[thread]
        else:
            state.copies[thread] = outer


# -- In the wait callback

cdef CopyData copy_expected(ConnectionState state):
    """Return the data of the COPY that a cursor's method executes in this thread, or None."""
    if not state.copies:  # None as well
        return None
    return state.copies.get(PyThread_get_thread_ident())


cdef int begin_copy(Wait* wait, CopyData copy) except -1:
    """Note that the statement has begun a COPY, and which kind."""
    # Until the COPY ends, its result comes again and again, at once.
    cdef PGresult* result = libpq.getResult((<ConnectionState>wait.state).has_state)
    copy.kind = libpq.resultStatus(result)
    libpq.clear(result)
    copy.is_ended = False
    wait.copy = <PyObject*>copy
    return 0


cdef int transfer_copy(object conn, Wait* wait, CopyData copy) except -1:
    """Transfer the data of the COPY that has begun, and wait for the end of the statement."""
    begin_copy(wait, copy)
    if copy.kind == PGRES_COPY_IN:
        send_data(conn, wait, copy)
    elif copy.kind == PGRES_COPY_OUT:
        receive_data(conn, wait, copy)
    finish_copy(conn, wait)
    if has_left_copy(conn, <ConnectionState>wait.state):
        begin_copy(wait, copy)
        raise handler_raised(ProgrammingError(
            "the statement begins a second COPY, but there is only one file: execute them one "
            "by one"
        ))
    return 0


cdef int cut_copy(Wait* wait) except -1:
    """End the COPY early: refuse what is still to be sent, throw away the rest of the rows."""
    cdef CopyData copy = <CopyData>wait.copy
    if copy.is_ended:
        return 0
    copy.is_cut = True
    if copy.kind == PGRES_COPY_IN:
        end_sending(wait, copy, "greenwait: the COPY was interrupted")
    return 0


cdef int finish_copy(object conn, Wait* wait) except -1:
    """Wait for the end of the statement; throw away the rows that are still to come."""
    cdef CopyData copy = <CopyData>wait.copy
    cdef PGconn* pgconn = (<ConnectionState>wait.state).has_state
    if copy.kind == PGRES_COPY_OUT and not copy.is_ended:
        advance(conn, wait, READINESS_READ, throw_away_more, pgconn)
        copy.is_ended = True
    send(conn, wait)
    # Not PQgetResult(), after which psycopg2 would not find the result.
    return wait_until_ok(conn, wait)


cdef int advance(
    object conn, Wait* wait, int events, int (*step)(void*, int) noexcept nogil, void* argument
) except -1:
    """Advance, and sleep where it takes that. Returns DONE or MUST_LOOK."""
    cdef Sleep sleep
    cdef int rc = 0
    while rc == 0:  # it is time to try again
        sleep = new_sleep(events, wait)
        sleep.recheck_tls = rechecks_tls(wait)
        sleep.is_ready = True
        sleep.may_stay = True
        sleep.advance = step
        sleep.argument = argument
        rc = sleep_until_ready(conn, wait.options.poller, &sleep)
    if rc == FAILED:
        raise_lost((<ConnectionState>wait.state).has_state)
    return rc


cdef inline int check_clock(Wait* wait) except -1:
    """The file's methods take time, too."""
    if wait.deadline_ns != NO_DEADLINE and monotonic_ns() >= wait.deadline_ns:
        raise deadline_passed
    return 0


cdef Waiter waiter_of_file(Wait* wait):
    """Return the waiter that ends a wait in the file's methods at the deadline, or None."""
    if wait.deadline_ns == NO_DEADLINE or waiters_entered == 0:
        return None
    return waiter_here()


cdef str codec_of(object conn):
    """Return the name of Python's codec for the connection's encoding."""
    return str(encodings[connection_encoding.__get__(conn)])


# -- COPY FROM STDIN

cdef struct Outgoing:
    PGconn* pgconn
    Py_ssize_t unflushed  # since the last flush
    int count             # of the chunks
    int current
    Py_ssize_t sent       # of the current one
    const char* data[BATCH_CHUNKS]
    Py_ssize_t lengths[BATCH_CHUNKS]


cdef int send_data(object conn, Wait* wait, CopyData copy) except -1:
    """Send what the file's read() returns, until that is empty.

    The server may fail before it has all of it. Then the rest is not read.
    """
    cdef Outgoing out
    cdef int former
    out.pgconn = (<ConnectionState>wait.state).has_state
    out.unflushed = 0
    former = send_buffer_widen(libpq.socket(out.pgconn), SEND_BUFFER)
    try:
        return send_chunks(conn, wait, copy, &out)
    finally:
        restore_send_buffer(conn, former)


cdef int send_chunks(object conn, Wait* wait, CopyData copy, Outgoing* out) except -1:
    cdef list chunks = []  # keeps the data
    cdef bint is_last = False
    read = copy.file.read
    while not is_last:
        is_last = read_in_time(conn, wait, copy, read, chunks, out)
        while advance(conn, wait, READINESS_READ | READINESS_WRITE, put_more, out) == MUST_LOOK:
            if not goes_on(conn, wait, out.pgconn):
                # Never an end that the server could take for success.
                return end_sending(wait, copy, "greenwait: the server has ended the COPY")
        chunks.clear()
    # After the data before it: the server says in which line it was.
    return end_sending(wait, copy, None if copy.failure is None else complaint(copy.failure))


cdef bint read_in_time(
    object conn, Wait* wait, CopyData copy, object read, list chunks, Outgoing* out
) except -1:
    """Call ``read_chunks()``, and end a wait in the file's read() at the deadline."""
    cdef Waiter waiter = waiter_of_file(wait)
    cdef int64_t before
    if waiter is None:
        return read_chunks(conn, wait, copy, read, chunks, out)
    before = waiter.limit_waits(wait.deadline_ns)
    try:
        return read_chunks(conn, wait, copy, read, chunks, out)
    finally:
        waiter.limit_waits(before)


cdef bint read_chunks(
    object conn, Wait* wait, CopyData copy, object read, list chunks, Outgoing* out
) except -1:
    """Read as much as is to be sent at a time; return whether it is the last, or set the failure.

    Releasing the GIL for each chunk of 8 KB would take longer than sending it.
    """
    cdef Py_ssize_t length, total = 0
    cdef int64_t now_ns
    cdef int64_t began_ns = monotonic_ns()
    out.count = out.current = 0
    out.sent = 0
    while True:
        chunk = read_chunk(conn, wait, copy, read)
        now_ns = monotonic_ns()
        if now_ns >= wait.deadline_ns:
            raise deadline_passed  # the file's methods take time, too
        length = PyBytes_GET_SIZE(chunk)
        if length == 0:
            return True
        chunks.append(chunk)
        out.data[out.count], out.lengths[out.count] = PyBytes_AS_STRING(chunk), length
        out.count += 1
        total += length
        if total >= PIECE or out.count == BATCH_CHUNKS or now_ns - began_ns >= QUICK_NS:
            return False


cdef bytes read_chunk(object conn, Wait* wait, CopyData copy, object read):
    """Return what read() returns, as bytes; or set the failure."""
    try:
        chunk = PyObject_CallOneArg(read, copy.size)
        if isinstance(chunk, str):
            chunk = chunk.encode(codec_of(conn))
        elif not isinstance(chunk, bytes):
            raise TypeError(f"read() returned {type(chunk).__name__!r}, and not bytes or str")
        return chunk
    except query_timeout as exc:
        check_clock(wait)  # the same deadline
        copy.failure = exc
    except Exception as exc:
        copy.failure = exc
    return b""


cdef str complaint(object failure):
    """Return what the server is told, and says in its error."""
    try:
        text = f"{type(failure).__name__} {failure}"
    except Exception:
        text = type(failure).__name__
    return f"error in .read() call: {text}"


cdef int end_sending(Wait* wait, CopyData copy, str reason) except -1:
    """Tell the server that this is all, or if there is a reason, to discard it."""
    cdef ConnectionState state = <ConnectionState>wait.state
    cdef bytes text
    cdef int rc
    if reason is None:
        rc = libpq.putCopyEnd(state.has_state, NULL)
    else:
        # ASCII is the same in each of the server's encodings.
        text = reason[:1000].replace("\0", " ").encode("ascii", "backslashreplace")
        rc = libpq.putCopyEnd(state.has_state, <const char*>text)
    if rc < 0:
        raise_lost(state.has_state)
    copy.is_ended = True
    wait.is_answered = False
    libpq.isBusy(state.has_state)  # it parses an error that has arrived, perhaps the last words
    return 0


cdef int put_more(void* argument, int revents) noexcept nogil:
    """Hand data to libpq, a piece at a time, each of which is sent before the next."""
    cdef Outgoing* out = <Outgoing*>argument
    cdef int rc, length
    if out.unflushed >= PIECE:
        # Before libpq sends: when it can't send all, it reads, and nobody sees that any more.
        if readiness_now(libpq.socket(out.pgconn), READINESS_READ) != 0:
            return MUST_LOOK
        rc = libpq.flush(out.pgconn)
        if rc != 0:
            return 0 if rc == 1 else FAILED
        out.unflushed = 0
    if out.current == out.count:
        return DONE
    length = <int>min(out.lengths[out.current] - out.sent, PIECE)
    if libpq.putCopyData(out.pgconn, out.data[out.current] + out.sent, length) != 1:
        return FAILED
    out.unflushed += length
    out.sent += length
    if out.sent == out.lengths[out.current]:
        out.current += 1
        out.sent = 0
    return CALL_AGAIN


cdef bint goes_on(object conn, Wait* wait, PGconn* pgconn) except -1:
    """Read what the server has said: does it still take data, and has only sent a notice?

    libpq keeps an error to itself until the COPY has been ended.
    """
    cdef Wait phase
    cdef tuple before
    while True:
        before = messages_of(conn)
        call_poll(conn, wait)  # it decodes notices
        if not are_same(messages_of(conn), before):
            return True
        if type(connection_notices.__get__(conn)) is not list:
            return True  # who knows
        # It is no notice, or not yet a whole one.
        phase = phase_of(wait, after(SILENCE_NS))
        try:
            sleep_for(conn, POLL_READ, &phase)
        except deadline_passed:
            check_clock(wait)
            return False
        if readiness_is_at_end(libpq.socket(pgconn)):
            return False


# -- COPY TO STDOUT

cdef struct Incoming:
    PGconn* pgconn
    int count
    bint is_end
    Py_ssize_t size
    int lengths[BATCH_ROWS]
    char* rows[BATCH_ROWS]


cdef int receive_data(object conn, Wait* wait, CopyData copy) except -1:
    """Pass each row to the file's write()."""
    cdef Incoming incoming
    cdef str codec
    write = copy.file.write
    codec = codec_of(conn) if isinstance(copy.file, TextIOBase) else None
    incoming.pgconn = (<ConnectionState>wait.state).has_state
    incoming.is_end = False
    while not incoming.is_end:
        incoming.count = 0
        incoming.size = 0
        try:
            advance(conn, wait, READINESS_READ, get_more, &incoming)
            write_in_time(wait, write, codec, &incoming)
        except BaseException:
            copy.is_cut = True
            raise
        finally:
            free_rows(&incoming)
            copy.is_ended = incoming.is_end
    wait.is_answered = False
    return 0


cdef int write_in_time(Wait* wait, object write, str codec, Incoming* incoming) except -1:
    """Call ``write_rows()``, and end a wait in the file's write() at the deadline."""
    cdef Waiter waiter = waiter_of_file(wait)
    cdef int64_t before
    if waiter is None:
        return write_rows(wait, write, codec, incoming)
    before = waiter.limit_waits(wait.deadline_ns)
    try:
        return write_rows(wait, write, codec, incoming)
    finally:
        waiter.limit_waits(before)


cdef int write_rows(Wait* wait, object write, str codec, Incoming* incoming) except -1:
    cdef int i
    for i in range(incoming.count):
        try:
            PyObject_CallOneArg(write, row_of(incoming, i, codec))
        except query_timeout as exc:
            check_clock(wait)
            raise handler_raised(exc) from None
        except Psycopg2Error as exc:  # of another connection
            raise handler_raised(exc) from None
        check_clock(wait)
    return 0


cdef object row_of(Incoming* incoming, int i, str codec):
    """Return a row as bytes, or as str if there is a codec."""
    cdef char* row = incoming.rows[i]
    cdef Py_ssize_t length = incoming.lengths[i]
    cdef bytes made
    cdef char* data
    if codec is not None:
        if codec == "utf_8":
            return PyUnicode_DecodeUTF8(row, length, NULL)
        return PyUnicode_Decode(row, length, codec.encode(), NULL)
    if length < LARGE_ROW:
        return PyBytes_FromStringAndSize(row, length)
    made = PyBytes_FromStringAndSize(NULL, length)
    data = PyBytes_AS_STRING(made)
    with nogil:
        memcpy(data, row, length)
    return made


cdef int free_rows(Incoming* incoming) noexcept:
    cdef int i
    for i in range(incoming.count):
        libpq.freemem(incoming.rows[i])
    incoming.count = 0
    return 0


cdef int get_more(void* argument, int revents) noexcept nogil:
    """Take rows from libpq, as many as have arrived, up to a batch."""
    cdef Incoming* incoming = <Incoming*>argument
    cdef char** row
    cdef bint has_read = False
    cdef int rc
    while incoming.count < BATCH_ROWS and incoming.size < BATCH_BYTES:
        row = &incoming.rows[incoming.count]
        rc = libpq.getCopyData(incoming.pgconn, row, 1)
        if rc > 0:
            incoming.lengths[incoming.count] = rc
            incoming.count += 1
            incoming.size += rc
            has_read = False
        elif rc < 0:
            incoming.is_end = True
            return DONE if rc == -1 else FAILED
        elif has_read and not has_pending(incoming.pgconn):
            return DONE if incoming.count > 0 else 0
        elif not libpq.consumeInput(incoming.pgconn):
            return FAILED
        else:
            has_read = True
    return DONE


cdef int throw_away_more(void* argument, int revents) noexcept nogil:
    """Take rows from libpq, and throw them away."""
    cdef PGconn* pgconn = <PGconn*>argument
    cdef char* row
    cdef int rc
    if not libpq.consumeInput(pgconn):
        return FAILED
    while True:
        rc = libpq.getCopyData(pgconn, &row, 1)
        if rc < 0:
            return DONE if rc == -1 else FAILED
        if rc == 0:
            return CALL_AGAIN if has_pending(pgconn) else 0
        libpq.freemem(row)
