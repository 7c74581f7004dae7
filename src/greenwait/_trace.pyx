"""The recorder of a trace: what the program waits for, and when, in a file; the public ``trace()``.

An event is written as JSON at once, into a buffer of 64 KB, which goes to the file when it is full
or a second old. Its beginning (row, name, line, backend) is the same for all waits of one line for
one backend, and kept; only the times are written anew. So a wait costs little while it is on.

``_trace.pxd`` lists the places that record.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState, PyThreadState_Get, PyThreadState_GetDict
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport INT64_MIN, int64_t, uint64_t

from greenwait._poll cimport Wait
from greenwait._psycopg.attributes cimport value_of
from greenwait._psycopg.libpq cimport PQTRANS_IDLE, libpq
from greenwait._psycopg.state cimport (
    COMMIT,
    NO_ENDING,
    ROLLBACK,
    ConnectionState,
    backend_pid,
    is_ready,
)
from greenwait._system.clock cimport monotonic_ns
from greenwait._waiter cimport Waiter, waiter_here, waiters_entered

import atexit
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from greenwait import _frames, _trace_text
from greenwait._caller import statement_of_caller
from greenwait._decorator import decorated
from greenwait._errors import DeadlinePassed
from greenwait._psycopg import psycopg2
from greenwait._types import TraceFile

__all__ = ["start", "start_from_environment", "stop", "trace"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

cdef extern from "trace_file.h":
    ctypedef struct trace_file_t:
        int fd
        size_t left
        int error
        int64_t events
        int64_t dropped
    int trace_file_open(trace_file_t* trace, int fd) noexcept
    void trace_file_free(trace_file_t* trace) noexcept
    void trace_file_swap(trace_file_t* trace) noexcept
    bint trace_file_is_same(const trace_file_t* trace) noexcept nogil
    int trace_file_write(const trace_file_t* trace) noexcept nogil
    bint trace_has_room(const trace_file_t* trace, size_t length) noexcept
    void trace_add(
        trace_file_t* trace, const char* beginning, size_t length, int64_t at_ns, int64_t took_ns
    ) noexcept
    void trace_add_line(trace_file_t* trace, const char* line, size_t length) noexcept

cdef extern from "trace_beginnings.h":
    const size_t TRACE_HEAD
    ctypedef struct trace_key_t:
        PyObject* code
    void trace_key_set(
        trace_key_t* key, int row, int backend, int kind, const char* head, size_t length
    ) noexcept
    void trace_key_set_code(trace_key_t* key, void* code, int where) noexcept
    void trace_key_set_caller(trace_key_t* key, void* code, int where) noexcept
    PyObject* trace_kept(const trace_key_t* key) noexcept
    void trace_keep(const trace_key_t* key, object beginning) noexcept
    bint trace_slots_new() noexcept
    void trace_slots_free() noexcept

cdef extern from "caller.h":
    void* code_that_runs(int* where) noexcept
    void pass_over(const char* folder) noexcept
    void* code_of_caller(int* where) noexcept

cdef extern from *:
    uint64_t PyThreadState_GetID(PyThreadState* state) noexcept
    Py_ssize_t PyDict_GET_SIZE(object mapping) noexcept
    char* bytes_start "PyBytes_AS_STRING" (PyObject* string) noexcept
    size_t bytes_size "PyBytes_GET_SIZE" (PyObject* string) noexcept

cdef object connection_autocommit = psycopg2.connection.autocommit
cdef object cursor_query = psycopg2.cursor.query
cdef object deadline_passed = DeadlinePassed
cdef object ask_caller = statement_of_caller
cdef object ask_text = _trace_text
cdef object frame_of_call = _frames.frame_of_call
cdef object frame_of_caller = _frames.frame_of_caller
cdef object sleep = time.sleep
cdef object close_descriptor = os.close
cdef dict modules = sys.modules
cdef list folders = [each.encode("utf-8", "surrogateescape") for each in _frames.FOLDERS]
cdef Py_ssize_t modules_seen = 0
cdef object running_loop = None  # asyncio's function, once it is imported

cdef bint trace_is_on = False
cdef int64_t observed_ns = 0
cdef trace_file_t file
cdef object path = None
cdef int process
cdef int64_t began_ns
cdef int64_t written_ns
cdef int64_t LONGEST_UNWRITTEN_NS = 1_000_000_000
cdef bint is_registered_at_exit = False


cdef int pass_over_ours() except -1:
    cdef bytes folder
    for folder in folders:
        pass_over(PyBytes_AS_STRING(folder))
    return 0


pass_over_ours()


# -- Rows: one for each thread, greenlet, job and task

cdef int last_row = 0
cdef int first_row = 1           # of this trace: a number of an earlier one is of no use
cdef dict counts = {}            # rows, by kind
cdef object rows_of_things = WeakKeyDictionary()
cdef str row_key = "greenwait's row in the trace"
cdef uint64_t last_thread = 0    # the one that recorded last, and its row
cdef int row_of_last_thread = 0


def new_row(str kind, thing, name):
    """Return the number of a thing's row, or of a new one if *thing* is None.

    :param kind: ``"job"``, ``"task"``, ``"greenlet"``.
    :param name: what it is called; None: after the function that runs.
    """
    if thing is not None:
        found = rows_of_things.get(thing, 0)
        if found >= first_row:
            return found
    counts[kind] = counts.get(kind, 0) + 1
    number = add_row(ask_text.row_name(kind, counts[kind], name))
    if thing is not None:
        rows_of_things[thing] = number
    return number


cdef object number_row = new_row


cdef int add_row(str name) except -1:
    global last_row
    last_row += 1
    put_line(ask_text.metadata(process, last_row, "thread_name", {"name": name}))
    put_line(ask_text.metadata(process, last_row, "thread_sort_index", {"sort_index": last_row}))
    return last_row


cdef int row_of_thread() except -1:
    global last_thread, row_of_last_thread
    cdef uint64_t thread = PyThreadState_GetID(PyThreadState_Get())
    if thread == last_thread and row_of_last_thread >= first_row:
        return row_of_last_thread
    cdef dict thread_dict = <dict><PyObject*>PyThreadState_GetDict()
    cdef int row = thread_dict.get(row_key, 0)
    if row < first_row:
        row = thread_dict[row_key] = add_row(ask_text.thread_name())
    last_thread, row_of_last_thread = thread, row
    return row


cdef int row_known() noexcept:
    """Return the thread's row, if nothing else can be running in it; see ``_trace.pxd``."""
    if (
        trace_is_on
        and waiters_entered == 0
        and running_loop is None
        and PyDict_GET_SIZE(modules) == modules_seen
        and PyThreadState_GetID(PyThreadState_Get()) == last_thread
        and row_of_last_thread >= first_row
    ):
        return row_of_last_thread
    return 0


cdef int row_here(bint* stops_loop) except -1:
    """Return the row of the running greenlet or thread; see ``_trace.pxd``."""
    cdef int row = 0
    stops_loop[0] = False
    waiter = waiter_here() if waiters_entered > 0 else None
    if waiter is not None:
        row = (<Waiter>waiter).trace_row(first_row, number_row)
    else:
        stops_loop[0] = has_running_loop()
    return row if row > 0 else row_of_thread()


cdef bint has_running_loop() except -1:
    """Does asyncio run in this thread? It may be imported while the trace is on."""
    global modules_seen, running_loop
    if running_loop is None and len(modules) != modules_seen:
        modules_seen = len(modules)
        running_loop = getattr(modules.get("asyncio.events"), "_get_running_loop", None)
    return running_loop is not None and running_loop() is not None


# -- Beginnings of events

cdef enum Kind:
    OTHER
    CONNECT
    BEGIN_TRANSACTION
    END_BY_COMMIT
    END_BY_ROLLBACK
    OF_CALLER
    OF_CURSOR

cdef dict NAMES = {
    OTHER: ("query", "a wait"),
    CONNECT: ("connect", "connect"),
    BEGIN_TRANSACTION: ("transaction", "begin"),
    END_BY_COMMIT: ("transaction", "commit"),
    END_BY_ROLLBACK: ("transaction", "rollback"),
}


cdef object beginning_of_caller(
    trace_key_t* key, Kind kind, int row, int backend, const char* head, size_t length
):
    """Return the beginning of an event of the program's own code; made, and kept, if it is new."""
    cdef PyObject* kept
    cdef int where = 0
    cdef void* code = code_of_caller(&where)
    trace_key_set_caller(key, code, where)
    try:
        kept = trace_kept(key)
        if kept is not NULL:
            return <object>kept
        if kind == OF_CURSOR:
            category, name = "query", head[:length].decode("utf-8", "replace")
        elif kind == OF_CALLER:
            category, name = ask_caller(frame_of_call(), frame_of_caller())
        else:
            category, name = NAMES[kind]
        made = ask_text.beginning(process, row, category, name, backend)
        if trace_is_on:  # or another thread has ended the trace meanwhile
            trace_keep(key, made)
        return made
    finally:
        Py_XDECREF(<PyObject*>code)


cdef inline bint is_idle(ConnectionState state) noexcept:
    return (
        state.has_state is not NULL
        and libpq.transactionStatus(state.has_state) == PQTRANS_IDLE
    )


cdef Kind kind_of(object conn, ConnectionState state, bint was_idle) except? OTHER:
    if state is None:
        return OTHER
    if not state.is_prepared:
        return CONNECT
    if state.ending == COMMIT:
        return END_BY_COMMIT
    if state.ending == ROLLBACK:
        return END_BY_ROLLBACK
    # psycopg2 notes its BEGIN only after the wait for it.
    if (
        was_idle
        and not is_idle(state)
        and is_ready(conn)
        and not value_of(connection_autocommit, conn)
    ):
        return BEGIN_TRANSACTION
    return OF_CALLER if state.traced_cursor is None else OF_CURSOR


cdef bint trace_again(ConnectionState state, const Wait* wait, int64_t ended_ns) noexcept:
    """Record the wait like one before it, if there was such a one; see ``_trace.pxd``."""
    cdef trace_key_t key
    cdef PyObject* kept
    cdef void* code
    cdef int where = 0
    cdef Kind kind = OF_CALLER
    cdef const char* head = ""
    cdef size_t length = 0
    if (
        state is None
        or not state.is_prepared
        or state.traced_backend == 0
        or state.ending != NO_ENDING
        or (wait.was_idle and not is_idle(state))
    ):
        return False
    if state.traced_cursor is not None:
        return False
    code = code_that_runs(&where)
    trace_key_set(&key, wait.row, state.traced_backend, kind, head, length)
    trace_key_set_code(&key, code, where)
    if not trace_is_on:
        return False
    kept = trace_kept(&key)
    if kept is NULL or file.error != 0 or not trace_has_room(&file, bytes_size(kept)):
        return False
    trace_add(
        &file, bytes_start(kept), bytes_size(kept), wait.began_ns - began_ns,
        ended_ns - wait.began_ns,
    )
    return ended_ns - written_ns < LONGEST_UNWRITTEN_NS or write_part_if_free()


cdef int trace_wait(
    object conn, ConnectionState state, const Wait* wait, int64_t ended_ns
) except -1:
    """Record the wait of a connection, when it is over; see ``_trace.pxd``."""
    cdef trace_key_t key
    cdef PyObject* kept
    cdef int backend = 0
    cdef int where = 0
    cdef void* code
    cdef const char* head = ""
    cdef size_t length = 0
    cdef Kind kind = kind_of(conn, state, wait.was_idle)
    query = None
    if state is not None and state.is_prepared:
        if state.traced_backend == 0:
            state.traced_backend = backend_pid(conn)
        backend = state.traced_backend
        if kind == OF_CURSOR:
            query = value_of(cursor_query, state.traced_cursor) if state.traced_query else None
            if type(query) is not bytes:
                query = state.traced_method.encode()
            head = PyBytes_AS_STRING(query)
            length = min(<size_t>PyBytes_GET_SIZE(query), TRACE_HEAD)
    if not trace_is_on:
        return 0
    trace_key_set(&key, wait.row, backend, kind, head, length)
    # What is kept is of the program's code: if that runs, it need not be asked whose it is.
    code = code_that_runs(&where)
    trace_key_set_code(&key, code, where)
    kept = trace_kept(&key)
    if kept is not NULL:
        put(<object>kept, wait.began_ns, ended_ns - wait.began_ns)
    else:
        put(
            beginning_of_caller(&key, kind, wait.row, backend, head, length),
            wait.began_ns,
            ended_ns - wait.began_ns,
        )
    if wait.stops_loop:
        trace_span_until(wait.row, "loop", "event loop stopped", wait.began_ns, ended_ns)
    if wait.interrupted_by is not NULL:
        trace_mark(wait.row, <object>wait.interrupted_by, wait.interrupted_ns)
    return 0


cdef int trace_span_until(
    int row, str category, str name, int64_t from_ns, int64_t to_ns
) except -1:
    return put(ask_text.beginning(process, row, category, name, 0), from_ns, to_ns - from_ns)


cdef int trace_span(int row, str category, str name, int64_t from_ns) except -1:
    """Record what began then and is over now."""
    return trace_span_until(row, category, name, from_ns, monotonic_ns())


cdef int trace_mark(int row, object kind, int64_t at_ns) except -1:
    """Record that an exception of that class, or a deadline, has ended a wait then."""
    if issubclass(kind, deadline_passed):
        category = name = "deadline"
    else:
        category, name = "interrupt", kind.__name__
    return put(ask_text.mark(process, row, category, name), at_ns, -1)


# -- The file

cdef inline int put(object beginning, int64_t at_ns, int64_t took_ns) except -1:
    """Write an event, or count it as dropped."""
    global written_ns
    cdef size_t length = PyBytes_GET_SIZE(beginning)
    if not (has_room(length) or make_room(length)):
        file.dropped += 1
        return 0
    trace_add(&file, PyBytes_AS_STRING(beginning), length, at_ns - began_ns, took_ns)
    if at_ns - written_ns > LONGEST_UNWRITTEN_NS:
        write_part_if_free()
    return 0


cdef int put_line(bytes line) except -1:
    if has_room(PyBytes_GET_SIZE(line)) or make_room(PyBytes_GET_SIZE(line)):
        trace_add_line(&file, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
    return 0


cdef inline bint has_room(size_t length) noexcept:
    return trace_is_on and file.error == 0 and trace_has_room(&file, length)


cdef bint make_room(size_t length) noexcept:
    """Have room for an event. Returns whether there is."""
    if not trace_is_on or file.error != 0 or file.left > 0:  # another thread writes the other one
        return False
    write_part()
    return has_room(length)


cdef bint write_part_if_free() noexcept:
    if file.left == 0:
        write_part()
    return True


cdef int write_part() noexcept:
    """Write what was recorded, without the GIL."""
    global written_ns
    cdef int error
    trace_file_swap(&file)
    written_ns = monotonic_ns()
    with nogil:
        error = trace_file_write(&file)
    file.left = 0
    if error != 0:
        file.error = error
    return 0


def start(new_path):
    """Begin to write a trace.

    :raises RuntimeError: another one is being written.
    :raises OSError: the file can't be written.
    """
    global began_ns, first_row, is_registered_at_exit, observed_ns, path, process
    global trace_is_on, written_ns
    if path is not None:
        raise RuntimeError(
            f"a trace is being written to {path!r}: a process has one at a time, end that first"
        )
    fd = ask_text.open_file(new_path)
    rc = trace_file_open(&file, fd)
    if rc < 0 or not trace_slots_new():  # pragma: no cover: no memory is left
        trace_file_free(&file)
        close_descriptor(fd)
        raise MemoryError("no memory for a trace")
    if not is_registered_at_exit:
        is_registered_at_exit = True
        atexit.register(stop_at_exit)
    path = new_path
    process = os.getpid()
    first_row = last_row + 1
    counts.clear()
    began_ns = written_ns = monotonic_ns()
    trace_is_on, observed_ns = True, INT64_MIN
    put_line(b"[\n")
    put_line(ask_text.metadata(process, 0, "process_name", {"name": ask_text.program_name()}))


def stop():
    """End the trace: the file is complete then.

    :raises OSError: it could not be written.
    """
    global observed_ns, path, trace_is_on
    if not trace_is_on:
        return
    put_line(ask_text.last_line(process, file.events, file.dropped))
    trace_is_on, observed_ns = False, 0
    try:
        while file.left > 0:
            sleep(0.001)  # another thread is writing
    finally:
        if file.left == 0 and file.error == 0:
            write_part()
        error, name = file.error, path
        try:
            trace_slots_free()
            if trace_file_is_same(&file):
                close_descriptor(file.fd)
        finally:
            if file.left == 0:
                trace_file_free(&file)
            path = None  # at the end: another thread may start the next one
    if error != 0:
        raise OSError(error, f"the trace is not complete: {os.strerror(error)}", name)


def stop_at_exit():
    """End the trace that goes on until the end of the program."""
    stop()


def _after_fork_in_child():
    """Leave the parent's file to the parent."""
    global last_thread, observed_ns, path, trace_is_on
    if path is None:
        return
    trace_is_on, observed_ns, path = False, 0, None
    last_thread = 0
    if trace_file_is_same(&file):
        close_descriptor(file.fd)
    trace_file_free(&file)
    trace_slots_free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def start_from_environment():
    """Begin the trace that ``GREENWAIT_TRACE`` asks for, if it does."""
    name = ask_text.file_from_environment()
    if name is not None:
        start(name)


class trace:
    """Write a timeline of what the program waits for, while a ``with`` block or a function runs.

    :param file: the name of the file to write. One that exists is replaced.
    :raises TypeError: *file* is not a path.
    :raises OSError: *file* can't be written, its folder does not exist, or another process is
        writing a trace to it.
    :raises RuntimeError: on entering, another trace is being written.

    The file has a row for each thread, job, task and greenlet, and on it each wait: the first
    words of the statement, the line of Python, the backend's process; connecting, a wait for the
    pool or for a shared connection; cancels, deadlines, and waits that stop an event loop. It is
    in the trace event format, which https://ui.perfetto.dev and chrome://tracing open, and
    ``python -m greenwait timeline FILE`` makes an HTML page of it.

    It is the whole process's: other threads' waits are there too. A forked child records
    nothing. Of a program that is killed the last second is missing, and the end of the JSON, which
    all of these readers accept. 128 KB of memory are used; where the disk is too slow, events are
    dropped, and counted in the file.
    """

    def __init__(self, file: TraceFile, /) -> None:
        self.file = ask_text.checked_path(file)
        # As a decorator it can be asked for its types, too.
        self.__annotations__ = {"function": _Function, "return": _Function}

    def __enter__(self):
        PyErr_CheckSignals()  # see timeout.__enter__()
        start(self.file)
        return self

    def __exit__(self, kind, exc, traceback):
        stop()

    def __call__(self, function: _Function, /) -> _Function:
        return decorated("trace()", function, lambda: self)

    def __repr__(self):
        return f"greenwait.trace({self.file!r})"
