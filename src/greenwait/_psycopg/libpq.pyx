"""libpq's functions, found in the library that psycopg2 itself has loaded.

A ``PGconn`` means something only to the libpq that made it, and there can be several in
a process: psycopg2-binary brings one, psycopg 3 another, the system has a third. So the
functions are looked up through psycopg2's own extension module, which searches that and
what it was linked with (dlsym(3)), and by ctypes, which keeps ``dl*`` out of this one.

A function that is missing switches off what needs it, and nothing else.
"""

import ctypes
import os
import sys

from greenwait._psycopg import psycopg2

__all__ = ["FAST_PATHS"]


class _NotAvailable(Exception):
    """libpq's functions can't be used; the argument says why."""


def _open():
    """Return the loaded libpq that psycopg2 calls, as reached through psycopg2's module."""
    if os.environ.get("GREENWAIT_NO_LIBPQ", "0") not in ("", "0"):
        raise _NotAvailable("GREENWAIT_NO_LIBPQ is set")
    if not hasattr(os, "RTLD_NOLOAD"):  # pragma: no cover: another system
        raise _NotAvailable("this system has no RTLD_NOLOAD to find it with")
    if psycopg2.EXTENSION_FILE is None:
        raise _NotAvailable("this psycopg2 has no compiled module _psycopg")
    try:
        library = ctypes.CDLL(psycopg2.EXTENSION_FILE, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        found = library.PQlibVersion()
    except (OSError, AttributeError) as exc:
        raise _NotAvailable(f"it can't be reached through psycopg2's module: {exc}") from exc
    if found != psycopg2.LIBPQ_VERSION:
        # LD_PRELOAD does that: psycopg2 calls one library, and is linked with another.
        raise _NotAvailable(
            f"psycopg2 calls libpq {psycopg2.LIBPQ_VERSION}, and {found} was found instead"
        )
    return library


cdef int look_up(library, list missing, str name, void** pointer) except -1:
    try:
        function = getattr(library, name)
    except AttributeError:
        missing.append(name)
        return 0
    pointer[0] = <void*><size_t>ctypes.cast(function, ctypes.c_void_p).value
    return 0


cdef list look_up_all(library):
    """Fill in ``libpq``; return the names of the functions that are missing."""
    missing = []
    look_up(library, missing, "PQconnectStart", <void**>&libpq.connectStart)
    look_up(library, missing, "PQconninfo", <void**>&libpq.conninfo)
    look_up(library, missing, "PQconninfoFree", <void**>&libpq.conninfoFree)
    look_up(library, missing, "PQfinish", <void**>&libpq.finish)
    look_up(library, missing, "PQsocket", <void**>&libpq.socket)
    look_up(library, missing, "PQerrorMessage", <void**>&libpq.errorMessage)
    look_up(library, missing, "PQhostaddr", <void**>&libpq.hostaddr)
    look_up(library, missing, "PQtransactionStatus", <void**>&libpq.transactionStatus)
    look_up(library, missing, "PQgetssl", <void**>&libpq.getssl)
    look_up(library, missing, "PQsendQuery", <void**>&libpq.sendQuery)
    look_up(library, missing, "PQconsumeInput", <void**>&libpq.consumeInput)
    look_up(library, missing, "PQisBusy", <void**>&libpq.isBusy)
    look_up(library, missing, "PQsetnonblocking", <void**>&libpq.setnonblocking)
    look_up(library, missing, "PQisnonblocking", <void**>&libpq.isnonblocking)
    look_up(library, missing, "PQflush", <void**>&libpq.flush)
    look_up(library, missing, "PQresultStatus", <void**>&libpq.resultStatus)
    look_up(library, missing, "PQresultErrorMessage", <void**>&libpq.resultErrorMessage)
    look_up(library, missing, "PQresultErrorField", <void**>&libpq.resultErrorField)
    look_up(library, missing, "PQclear", <void**>&libpq.clear)
    look_up(library, missing, "PQgetResult", <void**>&libpq.getResult)
    look_up(library, missing, "PQcancelCreate", <void**>&libpq.cancelCreate)
    look_up(library, missing, "PQcancelStart", <void**>&libpq.cancelStart)
    look_up(library, missing, "PQcancelPoll", <void**>&libpq.cancelPoll)
    look_up(library, missing, "PQcancelSocket", <void**>&libpq.cancelSocket)
    look_up(library, missing, "PQcancelErrorMessage", <void**>&libpq.cancelErrorMessage)
    look_up(library, missing, "PQcancelFinish", <void**>&libpq.cancelFinish)
    look_up(library, missing, "PQgetCancel", <void**>&libpq.getCancel)
    look_up(library, missing, "PQcancel", <void**>&libpq.cancel)
    look_up(library, missing, "PQfreeCancel", <void**>&libpq.freeCancel)
    look_up(library, missing, "PQputCopyData", <void**>&libpq.putCopyData)
    look_up(library, missing, "PQputCopyEnd", <void**>&libpq.putCopyEnd)
    look_up(library, missing, "PQgetCopyData", <void**>&libpq.getCopyData)
    look_up(library, missing, "PQfreemem", <void**>&libpq.freemem)
    look_up(library, missing, "SSL_pending", <void**>&libpq.SSL_pending)
    return missing


def _leaves_tls_bytes(version):
    """Is this a libpq whose PQconsumeInput can leave decrypted TLS bytes unread?

    It reads once, into the free part of its buffer. The rest of a record of up to 16 KB
    stays in OpenSSL, where poll(2) does not see it. Found fixed in 17.11 and 18.6, which
    read until nothing is pending, but not in 15.18 and 17.10. The releases between count
    as not fixed, which costs an extra check now and then.
    """
    major, minor = divmod(version, 10000)
    return major < 17 or (major == 17 and minor < 11) or (major == 18 and minor < 6)


def _find():
    """Set the variables of ``libpq.pxd``; return the state of each fast path, in words."""
    global can_receive, can_send, can_set_nonblocking, can_see_pending, leaves_tls_bytes
    global can_cancel, can_cancel_in_thread, can_end_copy, can_merge_options, can_refuse
    global can_replicate
    leaves_tls_bytes = _leaves_tls_bytes(psycopg2.LIBPQ_VERSION)
    copy = (
        "PQtransactionStatus",
        "PQgetResult",
        "PQresultStatus",
        "PQclear",
        "PQgetCopyData",
        "PQfreemem",
        "PQputCopyData",
        "PQputCopyEnd",
        "PQconsumeInput",
        "PQisBusy",
        "PQflush",
        "PQerrorMessage",
    )
    needs = {
        "receive": ("PQconsumeInput", "PQisBusy", "PQerrorMessage"),
        "send": ("PQflush", "PQsocket", "PQerrorMessage"),
        "non-blocking": ("PQsetnonblocking", "PQisnonblocking"),
        "TLS": ("PQgetssl", "SSL_pending"),
        "cancel": (
            "PQcancelCreate",
            "PQcancelStart",
            "PQcancelPoll",
            "PQcancelSocket",
            "PQcancelErrorMessage",
            "PQcancelFinish",
        ),
        "COPY": (*copy, "PQsocket"),
        "replication": (*copy, "PQresultErrorMessage", "PQresultErrorField"),
        "interrupt": ("PQsendQuery", "PQflush", "PQtransactionStatus"),
        "service": ("PQconnectStart", "PQconninfo", "PQconninfoFree", "PQfinish"),
    }
    try:
        missing = look_up_all(_open())
        lacking = {path: [name for name in names if name in missing]
                   for path, names in needs.items()}
        states = {path: f"off: there is no {', '.join(names)}" if names else "on"
                  for path, names in lacking.items()}
    except _NotAvailable as exc:
        states = dict.fromkeys(needs, f"off: {exc}")
    can_receive = states["receive"] == "on"
    can_send = states["send"] == "on"
    can_set_nonblocking = states["non-blocking"] == "on"
    can_see_pending = states["TLS"] == "on"
    can_cancel = states["cancel"] == "on"
    can_end_copy = states["COPY"] == "on"
    can_replicate = states["replication"] == "on"
    can_refuse = states["interrupt"] == "on"
    can_merge_options = states["service"] == "on"
    # The oldest cancel functions: libpq has them if it has any.
    can_cancel_in_thread = libpq.cancel is not NULL and not sys.platform.startswith("win")
    if can_cancel:
        states["cancel"] = "on: encrypted as the connection is"
    elif can_cancel_in_thread:
        states["cancel"] = f"{states['cancel']}; PQcancel in a thread, never encrypted"
    else:
        states["cancel"] = f"{states['cancel']}; conn.cancel() keeps the GIL"
    if not leaves_tls_bytes:
        states["TLS"] = "not needed: this libpq reads all that it has decrypted"
    return states


#: Each fast path, and "on", or "off" and why.
FAST_PATHS = _find()
