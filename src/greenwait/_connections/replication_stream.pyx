"""A replication stream: the COPY BOTH that START_REPLICATION leaves open.

libpq's functions are called with the GIL held, and never block: so two threads can't call them
at the same time, and there is no mutex. psycopg2 does not know of the stream. While it is in a
method of the connection, which is guarded by the connection's lock, the stream waits for that.

The rules of feedback are psycopg2's (``pq_read_replication_message``): one message in each
status interval, one for each request of the server; and where the program has confirmed all that
it got, the server's keepalives confirm what needed no message.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint64_t

from greenwait._deadline cimport blocks_entered
from greenwait._psycopg.libpq cimport (
    PGRES_COPY_BOTH,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGRES_FATAL_ERROR,
    PQTRANS_ACTIVE,
    PGconn,
    PGresult,
    can_replicate,
    can_see_pending,
    leaves_tls_bytes,
    libpq,
)
from greenwait._psycopg.server_error cimport connection_error, server_error
from greenwait._psycopg.state cimport pgconn_of
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns

import time
from weakref import ref

from greenwait._connections.lock import FairLock
from greenwait._connections.semaphore import check_deadline
from greenwait._psycopg import psycopg2

__all__ = ["CAN_REPLICATE", "Stream", "next_of_cursor"]

cdef extern from *:
    """
    /* Integers of the protocol are in network byte order. */
    static uint64_t
    get_uint64(const char *from)
    {
        const unsigned char *bytes = (const unsigned char *)from;
        uint64_t value = 0;
        int i;
        for (i = 0; i < 8; i++)
            value = value << 8 | bytes[i];
        return value;
    }

    static void
    put_uint64(char *to, uint64_t value)
    {
        int i;
        for (i = 7; i >= 0; i--, value >>= 8)
            to[i] = (char)(value & 0xff);
    }
    """
    uint64_t get_uint64(const char* source) noexcept
    void put_uint64(char* target, uint64_t value) noexcept

cdef extern from "stream_message.h":
    bint stream_message_layout_is_known(type cls) noexcept
    object new_stream_message(
        type cls, tuple no_arguments, object cursor, object payload,
        int data_size, uint64_t data_start, uint64_t wal_end, int64_t sent)

cdef enum:
    POLL_OK = 0
    POLL_READ = 1
    POLL_WRITE = 2
    # Of the messages' headers (PostgreSQL manual, Streaming Replication Protocol):
    DATA_HEADER = 25
    KEEPALIVE_SIZE = 18
    FEEDBACK_SIZE = 34

cdef int64_t POSTGRES_EPOCH = 946_684_800  # PostgreSQL counts microseconds from the year 2000 on
# How long messages are read before others run.
cdef int64_t LONGEST_TURN_NS = 1_000_000
cdef double RECHECK_SECONDS = 0.05
# Where a stream ends, another thread may read its end.
cdef double LONGEST_END_SECONDS = 0.5

cdef object now = time.time
cdef type message_type = psycopg2.ReplicationMessage
cdef object InterfaceError = psycopg2.InterfaceError
cdef object OperationalError = psycopg2.OperationalError
cdef dict encodings = psycopg2.encodings

#: Whether libpq's functions are there, which it takes, and psycopg2's messages can be made.
CAN_REPLICATE = can_replicate and stream_message_layout_is_known(message_type)


@cython.auto_pickle(False)
@cython.final
cdef class Stream:
    """Stream(cursor, decode, status_interval)
--

    The replication stream that a cursor has begun. It is waited for as a connection is.
    """

    def __cinit__(self, cursor, bint decode, double status_interval):
        self.conn = cursor.connection
        self.cursor = ref(cursor)
        self.lock = self.conn._lock
        self.turns = FairLock()
        if decode:
            self.codec = encodings.get(self.conn.encoding, "utf_8")
            self.is_utf8 = self.codec == "utf_8"
        self.phase = BEGINNING
        self.io_ns = monotonic_ns()
        self.epoch = now() - self.io_ns / 1e9
        self.feedback_ns = 0
        self.keepalive_ns = NO_DEADLINE
        self.turn_ns = monotonic_ns()
        self.set_status_interval(status_interval)

    def set_status_interval(self, double seconds):
        """Send feedback when *seconds* have passed since the last one."""
        self.status_interval_ns = <int64_t>(min(seconds, 1e9) * 1e9)

    def settle(self):
        """Find out whether the statement has begun the stream."""
        cdef PGconn* pgconn = pgconn_of(self.conn)
        if self.phase == BEGINNING:
            is_active = pgconn is not NULL and libpq.transactionStatus(pgconn) == PQTRANS_ACTIVE
            self.phase = STREAMING if is_active else ENDED

    # -- For the wait

    def fileno(self):
        """Return the connection's descriptor."""
        return self.conn.fileno()

    def poll(self):
        """Send and receive what is possible; return what is to be waited for, or POLL_OK."""
        if self.lock.is_taken:
            return self.lock.run(self.conn, "the replication stream", self.step)
        return self.advance()

    def step(self):
        """Do what ``poll()`` does, for an owner of the lock."""
        return self.advance()

    def seconds_to_wait(self):
        """Return the longest time to wait before ``poll()`` must be called again."""
        cdef double seconds
        if self.phase != STREAMING:
            seconds = LONGEST_END_SECONDS
        else:
            seconds = max(0, self.feedback_ns + self.status_interval_ns - monotonic_ns()) / 1e9
        # Bytes of a message may lie in OpenSSL, where poll(2) does not see them.
        if leaves_tls_bytes and not can_see_pending and self.conn.info.ssl_in_use:
            seconds = min(seconds, RECHECK_SECONDS)
        return seconds

    def begin_turn(self):
        """Record that its reader has waited, and that others have run."""
        self.turn_ns = monotonic_ns()

    def is_turn_over(self):
        """Return whether its reader has had the thread for long enough, without a wait."""
        return monotonic_ns() - self.turn_ns >= LONGEST_TURN_NS

    # -- For the reader

    cpdef next_ready(self, cursor):
        """Return the next message if nothing has to be done before; None: nobody knows."""
        cdef int64_t now_ns = monotonic_ns()
        if blocks_entered > 0:
            check_deadline()
        if (
            (self.phase == ENDED and self.payload is None)
            or now_ns - self.turn_ns >= LONGEST_TURN_NS
            or self.lock.is_taken
            or self.advance_at(now_ns) != POLL_OK
        ):
            return None
        return self.take(cursor)

    cpdef raise_failure(self):
        """Raise what the end of the stream raises, if it has ended."""
        if self.phase == ENDED and self.payload is None and self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure

    def consume_ready(self, cursor, consume):
        """Call *consume* with each message for as long as nothing has to be done before.

        Compiled: no signal handler strikes between a message and its consumer.
        """
        while True:
            message = self.next_ready(cursor)
            if message is None:
                return
            consume(message)

    cpdef take(self, cursor):
        """Return the message that has arrived, or None; raise what the end of the stream raises.

        The caller has called ``poll()``, and nobody else has taken the message since.
        """
        payload = self.payload
        if payload is None:
            self.raise_failure()
            return None
        self.payload = None
        self.wal_end = self.data_wal_end
        return new_stream_message(
            message_type, (), cursor, payload,
            self.data_size, self.data_start, self.data_wal_end, self.sent)

    @property
    def last_io(self):
        """When something was last received or sent, as ``time.time()`` has it."""
        return self.epoch + self.io_ns / 1e9

    @property
    def last_feedback(self):
        """When feedback was last sent; 0.0: never."""
        return self.epoch + self.feedback_ns / 1e9 if self.feedback_ns else 0.0

    @property
    def is_over(self):
        """Whether the stream has ended, and all of it was taken."""
        return self.phase == ENDED and self.payload is None and self.failure is None

    def confirm(self, uint64_t write_lsn, uint64_t flush_lsn, uint64_t apply_lsn):
        """Take the positions over that are higher than before."""
        self.write_lsn = max(self.write_lsn, write_lsn)
        self.confirmed_lsn = max(self.confirmed_lsn, flush_lsn)
        self.flush_lsn = max(self.flush_lsn, flush_lsn)
        self.apply_lsn = max(self.apply_lsn, apply_lsn)

    def send_feedback(self, bint requests_reply):
        """Send the positions; return whether something is left to send."""
        cdef PGconn* pgconn = self.pgconn()
        if self.phase == STREAMING:
            self.put_feedback(pgconn, requests_reply)
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
        return self.must_flush

    def poll_flush(self):
        """Send what is left to send; return what is to be waited for, or POLL_OK."""
        if self.phase != ENDED and self.must_flush:
            self.flush(self.pgconn())
        return POLL_WRITE if self.must_flush and self.phase != ENDED else POLL_OK

    def stop(self):
        """Ask the server to end the stream. What it still sends is thrown away."""
        cdef PGconn* pgconn = self.pgconn()
        cdef int rc
        if self.phase != STREAMING:
            return
        self.payload = None
        rc = libpq.putCopyEnd(pgconn, NULL)
        if rc > 0:
            self.phase = STOPPING
        elif rc < 0:
            self.fail(pgconn)
        self.must_flush = True

    # -- For the keeper

    cdef int64_t due_ns(self):
        """Return when the server will have to hear of the client."""
        return self.feedback_ns + self.keepalive_ns

    cdef bint keep_alive(self) except -1:
        """Send feedback if it is due; return whether the stream is open."""
        cdef PGconn* pgconn = pgconn_of(self.conn)
        if self.phase != STREAMING or pgconn is NULL:
            return False
        # If the lock is taken, a method of the connection is at work, maybe without the GIL.
        if monotonic_ns() >= self.due_ns() and not self.lock.is_taken:
            self.put_feedback(pgconn, False)
        return self.phase == STREAMING

    # -- One step, which does not wait

    cdef PGconn* pgconn(self) except NULL:
        cdef PGconn* pgconn = pgconn_of(self.conn)
        if pgconn is NULL:
            raise InterfaceError("connection already closed")
        return pgconn

    cdef int advance(self) except -1:
        return self.advance_at(monotonic_ns())

    cdef int advance_at(self, int64_t now_ns) except -1:
        """Return POLL_OK if there is a message or the end, or what is to be waited for."""
        cdef PGconn* pgconn
        cdef char* data = NULL
        cdef bint is_again = False
        cdef bint is_taken
        cdef int size
        if self.payload is not None or self.phase == ENDED:
            return POLL_OK
        pgconn = self.pgconn()
        self.now_ns = now_ns
        if self.phase == STREAMING and (
            self.feedback_ns == 0 or now_ns - self.feedback_ns >= self.status_interval_ns
        ):
            self.put_feedback(pgconn, False)
        elif self.must_flush:
            self.flush(pgconn)
        while self.phase != ENDED:
            if self.phase == ENDING:
                if libpq.isBusy(pgconn):
                    if not self.receive(pgconn, is_again):
                        break
                    is_again = True
                else:
                    self.read_result(pgconn)
                continue
            size = libpq.getCopyData(pgconn, &data, 1)
            if size > 0:
                try:
                    is_taken = self.take_data(pgconn, data, size)
                finally:
                    libpq.freemem(data)
                if is_taken:
                    return POLL_OK
            elif size == 0:
                # It receives only when there is nothing left, or libpq's buffer would grow.
                if not self.receive(pgconn, is_again):
                    break
                is_again = True
            elif size == -1:
                self.phase = ENDING
            else:
                self.fail(pgconn)
        if self.phase == ENDED:
            return POLL_OK
        return POLL_WRITE if self.must_flush else POLL_READ

    cdef bint receive(self, PGconn* pgconn, bint is_again) except -1:
        """Receive what has arrived, once in each step. Returns whether it makes sense to look."""
        cdef void* ssl = libpq.getssl(pgconn) if can_see_pending else NULL
        if is_again and (ssl is NULL or libpq.SSL_pending(ssl) <= 0):
            return False
        if not libpq.consumeInput(pgconn):
            self.fail(pgconn)
        return True

    cdef bint take_data(self, PGconn* pgconn, const char* data, int size) except -1:
        """Take a message of the server; return whether it is one for the program."""
        cdef uint64_t wal_end
        if self.phase != STREAMING:
            return False
        self.io_ns = self.now_ns
        if data[0] == c"w":
            if size < DATA_HEADER:
                raise OperationalError("data message header too small")
            if self.is_utf8:
                payload = PyUnicode_DecodeUTF8(data + DATA_HEADER, size - DATA_HEADER, NULL)
            else:
                payload = PyBytes_FromStringAndSize(data + DATA_HEADER, size - DATA_HEADER)
                if self.codec is not None:
                    payload = payload.decode(self.codec)
            self.data_size = size - DATA_HEADER
            self.data_start = self.last_data_start = get_uint64(data + 1)
            self.data_wal_end = get_uint64(data + 9)
            self.sent = <int64_t>get_uint64(data + 17)
            self.payload = payload
            return True
        if data[0] != c"k":
            raise OperationalError("unrecognized replication message type")
        if size < KEEPALIVE_SIZE:
            raise OperationalError("keepalive message header too small")
        wal_end = get_uint64(data + 1)
        self.wal_end = wal_end
        if (
            self.confirmed_lsn >= self.last_data_start
            and wal_end > self.confirmed_lsn
            and wal_end > self.flush_lsn
        ):
            self.flush_lsn = wal_end
        if data[17]:
            self.put_feedback(pgconn, False)
        return False

    cdef int put_feedback(self, PGconn* pgconn, bint requests_reply) except -1:
        cdef char[FEEDBACK_SIZE] message
        cdef int rc
        self.feedback_ns = monotonic_ns()
        message[0] = c"r"
        put_uint64(message + 1, self.write_lsn)
        put_uint64(message + 9, self.flush_lsn)
        put_uint64(message + 17, self.apply_lsn)
        put_uint64(message + 25, <uint64_t>(<int64_t>(now() * 1e6) - POSTGRES_EPOCH * 1_000_000))
        message[33] = requests_reply
        rc = libpq.putCopyData(pgconn, message, FEEDBACK_SIZE)
        if rc < 0:
            return self.fail(pgconn)
        # 0: libpq has not taken it, because too much is left to send. The server will see that.
        self.io_ns = self.feedback_ns
        return self.flush(pgconn)

    cdef int flush(self, PGconn* pgconn) except -1:
        cdef int rc = libpq.flush(pgconn)
        if rc < 0:
            return self.fail(pgconn)
        self.must_flush = rc > 0
        return 0

    cdef int read_result(self, PGconn* pgconn) except -1:
        """Read a result of the statement, which has ended."""
        cdef PGresult* result = libpq.getResult(pgconn)
        cdef int status
        if result is NULL:
            self.phase = ENDED
            return 0
        status = libpq.resultStatus(result)
        if status == PGRES_FATAL_ERROR and self.failure is None:
            self.failure = server_error(self.conn, self.cursor(), result)
            return 0
        libpq.clear(result)
        if status == PGRES_COPY_IN or status == PGRES_COPY_BOTH:
            # The server has ended it first: the timeline of a physical stream ends.
            if libpq.putCopyEnd(pgconn, NULL) < 0:
                return self.fail(pgconn)
            self.must_flush = True
            self.flush(pgconn)
        elif status == PGRES_COPY_OUT:
            self.phase = STOPPING
        return 0

    cdef int fail(self, PGconn* pgconn) except -1:
        """Keep the exception for a function of libpq that has failed; the stream has ended."""
        failure = connection_error(self.conn, pgconn)
        if self.failure is None:
            self.failure = failure
        self.phase = ENDED
        return 0


def next_of_cursor(cursor, /):
    """Return the next message while a stream is open, else the next row."""
    # Compiled, as a cursor's __next__(): see Stream.consume_ready().
    cdef Stream stream
    while True:
        stream = cursor._stream
        message = None if stream is None else stream.next_ready(cursor)
        if message is not None:
            return message
        if not cursor._prepare_next():
            return cursor._next_row()
