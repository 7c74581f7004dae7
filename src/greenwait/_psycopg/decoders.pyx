"""Decoders in C for psycopg2, which run no Python code and so no signal handler.

psycopg2 decodes each notice, notification, error message and command status with the ``decode`` of
Python's codec (``conn_text_from_chars``). It drops an exception raised there, and with it the
message, or the interrupt that greenwait has left for psycopg2. Many codecs are written in Python,
UTF-8's too, and a signal handler may run in Python code at any time. The codecs here do the same
with functions written in C, under names of their own.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

import codecs
from importlib import import_module

from greenwait._psycopg.psycopg2 import encodings

__all__ = ["use_c_decoders"]

cdef extern from "Python.h":  # Cython's own declaration lacks a const
    const char* PyUnicode_AsUTF8(object text) except NULL
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)

cdef str PREFIX = "greenwait_"
cdef type builtin = type(len)


def _decode_utf_8(data, str errors="strict"):
    if type(data) is not bytes:
        return codecs.utf_8_decode(data, errors, True)
    # psycopg2 passes bytes, twice a query; codecs' function would parse its arguments once more.
    cdef const char* handler = NULL
    if errors is not None:
        handler = PyUnicode_AsUTF8(errors)
    return (
        PyUnicode_DecodeUTF8(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), handler),
        PyBytes_GET_SIZE(data),
    )


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class CharmapDecoder:
    """The decoder of a single-byte encoding."""

    cdef str table

    def __call__(self, data, errors="strict"):
        return codecs.charmap_decode(data, errors, self.table)


cdef object c_decoder(object info):
    """Return a decoder in C that does the same as the codec's."""
    cdef CharmapDecoder decoder
    if isinstance(info.decode, builtin):
        return info.decode
    if info.name == "utf-8":
        return _decode_utf_8
    module = import_module(f"encodings.{info.name.replace('-', '_')}")
    decoder = CharmapDecoder.__new__(CharmapDecoder)
    decoder.table = module.decoding_table
    return decoder


def _search(str name):
    """Return the codec for one of our names, as codecs.register() requires."""
    if not name.startswith(PREFIX):
        return None
    info = codecs.lookup(name[len(PREFIX):])
    try:
        decode = c_decoder(info)
    except (ImportError, AttributeError):  # a third party's codec
        decode = info.decode
    return codecs.CodecInfo(
        info.encode,
        decode,
        info.streamreader,
        info.streamwriter,
        info.incrementalencoder,
        info.incrementaldecoder,
        info.name,
    )


codecs.register(_search)


class _Name(str):
    """The name of one of these codecs; it equals that of Python's, except in codecs' registry.

    psycopg2 returns it as QuotedString.encoding, and programs compare it.
    """

    __slots__ = ()

    def _own(self):
        return str.__str__(self)[len(PREFIX):]

    def __eq__(self, other):
        return self._own() == (other._own() if isinstance(other, _Name) else other)

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash(self._own())

    def __repr__(self):
        return repr(self._own())

    def __str__(self):
        return self._own()


def use_c_decoders():
    """Make psycopg2 use these codecs for new connections and in set_client_encoding()."""
    for server_name, name in list(encodings.items()):
        if not isinstance(name, _Name):
            encodings[server_name] = _Name(PREFIX + name)
