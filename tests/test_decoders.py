"""The decoders in C that psycopg2 calls do the same as Python's codecs."""

import codecs

import pytest

from greenwait._psycopg.decoders import use_c_decoders

use_c_decoders()  # it has been called already; a second call changes nothing
decode = codecs.lookup("greenwait_utf_8").decode
DATA = (b"", b"SELECT 1", "Größe €".encode(), b"\xe9t\xe9 \xff")


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("errors", ["replace", "ignore", "backslashreplace"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_utf_8_is_decoded_as_by_python(data, errors, kind):
    assert decode(kind(data), errors) == codecs.utf_8_decode(data, errors, True)


def test_bytes_that_are_not_utf_8_are_an_error_by_default():
    with pytest.raises(UnicodeDecodeError):
        decode(DATA[-1])
