"""What `make no-epoll` takes away is gone: else it would be one more run with all of it."""

import os
import select

import pytest

from greenwait._sleep import POLLERS
from tests.lab.hosts import shutdown_ends_an_attempt

pytestmark = pytest.mark.skipif(
    os.environ.get("GREENWAIT_TEST_PLATFORM") != "no_epoll", reason="this is not `make no-epoll`"
)


def test_package_has_no_epoll():
    assert POLLERS == ("poll",)


@pytest.mark.parametrize(("module", "name"), [(select, "epoll"), (os, "eventfd")])
def test_python_has_none_either(module, name):
    assert not hasattr(module, name)


def test_attempt_to_connect_outlives_shutdown():
    assert not shutdown_ends_an_attempt()
