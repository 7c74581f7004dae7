"""Decoders in C for psycopg2, which run no Python code and so no signal handler.

psycopg2 decodes each notice, notification, error message and command status with the ``decode`` of
Python's codec (``conn_text_from_chars``). It drops an exception raised there, and with it the
message, or the interrupt that greenwait has left for psycopg2. Many codecs are written in Python,
UTF-8's too, and a signal handler may run in Python code at any time. The codecs here do the same
with functions written in C, under names of their own.
"""

import codecs
from typing import Any

__all__ = ["use_c_decoders"]

def use_c_decoders() -> None:
    """Make psycopg2 use these codecs for new connections and in set_client_encoding()."""

def _decode_utf_8(data: Any, errors: str = "strict") -> tuple[str, int]: ...

class _Name(str):
    """The name of one of these codecs; it equals that of Python's, except in codecs' registry.

    psycopg2 returns it as QuotedString.encoding, and programs compare it.
    """

def _search(name: str) -> codecs.CodecInfo | None:
    """Return the codec for one of our names, as codecs.register() requires."""
