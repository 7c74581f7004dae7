"""A replication stream: the COPY BOTH that START_REPLICATION leaves open."""

from libc.stdint cimport int64_t, uint64_t

from greenwait._psycopg.libpq cimport PGconn

cdef enum Phase:
    BEGINNING  # its statement is being executed
    STREAMING
    STOPPING  # the server has been told to end it
    ENDING    # the server has ended it; its results are to be read
    ENDED

cdef class Stream:
    cdef readonly object conn
    cdef object cursor              # weak
    cdef object lock
    cdef readonly object turns       # of its readers, which wait one after the other
    cdef object codec              # of the payloads; None: they are bytes
    cdef bint is_utf8
    cdef Phase phase
    cdef bint must_flush           # libpq has something left to send
    cdef object failure            # what the end of the stream raises, or None
    cdef object __weakref__
    # The message that has arrived, until it is taken:
    cdef object payload            # None: nothing has arrived
    cdef int data_size
    cdef uint64_t data_start
    cdef uint64_t data_wal_end
    cdef int64_t sent
    # Positions in the WAL:
    cdef readonly uint64_t wal_end  # of the server
    cdef uint64_t last_data_start
    cdef uint64_t write_lsn
    cdef uint64_t flush_lsn
    cdef uint64_t apply_lsn
    cdef uint64_t confirmed_lsn    # the flush_lsn that the program itself has set
    # Times:
    cdef double epoch                  # time.time() at 0 ns
    cdef int64_t now_ns                # of the step
    cdef int64_t io_ns                 # of the last message, in either direction
    cdef int64_t feedback_ns           # of the last one; 0: none yet
    cdef int64_t status_interval_ns
    cdef int64_t keepalive_ns          # the longest time that the server does without feedback
    cdef int64_t turn_ns               # when its reader last let others run

    cpdef next_ready(self, cursor)
    cpdef take(self, cursor)
    cpdef raise_failure(self)
    cdef PGconn* pgconn(self) except NULL
    cdef int advance(self) except -1
    cdef int advance_at(self, int64_t now_ns) except -1
    cdef bint take_data(self, PGconn* pgconn, const char* data, int size) except -1
    cdef bint receive(self, PGconn* pgconn, bint is_again) except -1
    cdef int read_result(self, PGconn* pgconn) except -1
    cdef int flush(self, PGconn* pgconn) except -1
    cdef int put_feedback(self, PGconn* pgconn, bint requests_reply) except -1
    cdef int fail(self, PGconn* pgconn) except -1
    cdef int64_t due_ns(self)
    cdef bint keep_alive(self) except -1
