"""WaitCallback: configured once, immutable, and clear about options that it does not have."""

import inspect

import pytest
from psycopg2.extensions import set_wait_callback

import greenwait


@pytest.mark.parametrize("poller", ["poll", "epoll"])
def test_option_is_kept_and_shown(poller):
    callback = greenwait.WaitCallback(poller=poller)
    assert callback.poller == poller
    assert repr(callback) == f"greenwait.WaitCallback(poller={poller!r})"
    assert eval(repr(callback), {"greenwait": greenwait}).poller == poller


def test_default_poller_is_poll():
    assert greenwait.WaitCallback().poller == "poll"


def test_epoll_wait_callback_is_ready_made():
    assert greenwait.EpollWaitCallback.poller == "epoll"


def test_signature_names_the_options():
    assert str(inspect.signature(greenwait.WaitCallback)) == "(*, poller='poll')"


@pytest.mark.parametrize("poller", ["select", "", "POLL", "kqueue"])
def test_unknown_poller_is_a_value_error_that_names_what_there_is(poller):
    with pytest.raises(ValueError, match=rf"poller={poller!r}.*'poll', 'epoll'"):
        greenwait.WaitCallback(poller=poller)


@pytest.mark.parametrize("poller", [None, 1, b"poll"])
def test_poller_of_another_type_is_a_type_error(poller):
    with pytest.raises(TypeError, match=rf"poller must be.*not '{type(poller).__name__}'"):
        greenwait.WaitCallback(poller=poller)


def test_unknown_option_is_a_type_error_that_names_it_and_what_there_is():
    with pytest.raises(TypeError, match=r"no option 'pollr'; it accepts: poller"):
        greenwait.WaitCallback(pollr="poll")


def test_callback_can_not_be_changed():
    callback = greenwait.WaitCallback()
    with pytest.raises(AttributeError):
        callback.poller = "epoll"
    with pytest.raises(AttributeError):
        callback.other = 1


def test_class_in_place_of_an_instance_is_told(connect):
    set_wait_callback(greenwait.WaitCallback)
    with pytest.raises(TypeError, match=r"register an instance"):
        connect()
