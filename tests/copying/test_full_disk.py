"""A server whose disk is full: COPY ends as it does with blocking psycopg2."""

import json

import pytest

from tests.lab.marks import needs_copy
from tests.lab.programs import run_program

pytestmark = needs_copy


@pytest.mark.parametrize(("disk", "error"), [("tmpfs", "DiskFull"), ("limit", "InternalError_")])
def test_full_disk(disk, error):
    found = json.loads(run_program("copy_full_disk", disk))
    if found is None:
        pytest.skip("this process may not mount a file system")
    blocking, *ours = found
    assert ours
    assert all(each == blocking for each in ours)
    refused, state, count = blocking[:3]
    assert refused[0] == error
    assert "CONTEXT:  COPY t, line N" in refused[2]
    assert (state, count) == ([0, 2, -1], [[0]])
    assert blocking[3:] == blocking[:3]  # the connection goes on
