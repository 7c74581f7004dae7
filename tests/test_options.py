"""WaitCallback: configured once, immutable, and clear about options that it does not have."""

import inspect
import re

import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait._sleep import POLLERS
from tests.lab.marks import needs_epoll


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"poller": "epoll"}, marks=needs_epoll),
        {"spin": "auto"},
        {"spin": 0.00005},
        {"spin": 1},
        {"slow": 0},
        {"slow": 2.5, "spin": "auto", "poller": POLLERS[-1]},
        {"timeout": 0},
        {"timeout": 30, "cancel_grace": 0.5},
    ],
)
def test_options_are_kept_and_shown(options):
    callback = greenwait.WaitCallback(**options)
    expected = {
        "poller": "poll",
        "timeout": None,
        "spin": 0.0,
        "slow": None,
        "cancel_grace": 1.0,
    } | options
    again = eval(repr(callback), {"greenwait": greenwait})
    for name, value in expected.items():
        assert getattr(callback, name) == value
        assert getattr(again, name) == value


def test_default_is_to_poll_without_a_limit_to_sleep_at_once_and_to_log_nothing():
    assert repr(greenwait.WaitCallback()) == (
        "greenwait.WaitCallback(poller='poll', timeout=None, spin=0.0, slow=None, "
        "cancel_grace=1.0, on_event_loop=None)"
    )


@needs_epoll
def test_epoll_wait_callback_is_ready_made():
    assert repr(greenwait.EpollWaitCallback) == repr(greenwait.WaitCallback(poller="epoll"))


@pytest.mark.skipif("epoll" in POLLERS, reason="there is epoll(7) here")
def test_epoll_wait_callback_polls_where_there_is_no_epoll():
    assert greenwait.EpollWaitCallback.poller == "poll"
    with pytest.raises(ValueError, match=r"'epoll' is not available here.* \('poll',\)$"):
        greenwait.WaitCallback(poller="epoll")


def test_signature_names_the_options():
    assert str(inspect.signature(greenwait.WaitCallback)) == (
        "(*, poller='poll', timeout=None, spin=0.0, slow=None, cancel_grace=1.0,"
        " on_event_loop=None)"
    )


@pytest.mark.parametrize("option", ["spin", "slow", "timeout", "cancel_grace"])
@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("inf")])
def test_time_that_is_none_is_a_value_error(option, value):
    with pytest.raises(ValueError, match=rf"{option}={value!r}: it must be 0 or more seconds"):
        greenwait.WaitCallback(**{option: value})


@pytest.mark.parametrize(
    ("option", "value", "otherwise"),
    [
        ("spin", None, '"auto"'),
        ("spin", "automatic", '"auto"'),
        ("spin", True, '"auto"'),
        ("spin", b"auto", '"auto"'),
        ("slow", "1", "None"),
        ("slow", False, "None"),
        ("slow", [1], "None"),
        ("timeout", "1", "None"),
        ("timeout", True, "None"),
    ],
)
def test_time_of_another_type_is_a_type_error_that_says_what_is_accepted(option, value, otherwise):
    with pytest.raises(TypeError, match=rf"{option} must be a number of seconds, or {otherwise}"):
        greenwait.WaitCallback(**{option: value})


@pytest.mark.parametrize("poller", ["select", "", "POLL", "kqueue"])
def test_unknown_poller_is_a_value_error_that_names_what_there_is(poller):
    with pytest.raises(ValueError, match=rf"poller={poller!r}.*{re.escape(repr(POLLERS))}"):
        greenwait.WaitCallback(poller=poller)


@pytest.mark.parametrize("poller", [None, 1, b"poll"])
def test_poller_of_another_type_is_a_type_error(poller):
    with pytest.raises(TypeError, match=rf"poller must be.*not '{type(poller).__name__}'"):
        greenwait.WaitCallback(poller=poller)


def test_unknown_option_is_a_type_error_that_names_it_and_what_there_is():
    with pytest.raises(
        TypeError, match=r"no option 'pollr'; it accepts: poller, timeout, spin, slow"
    ):
        greenwait.WaitCallback(pollr="poll")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_callback_can_not_be_changed():
    callback = greenwait.WaitCallback()
    with pytest.raises(AttributeError):
        callback.poller = "epoll"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        callback.other = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("arguments", "options"), [((), {}), ((1, 2), {}), ((1,), {"conn": 2})])
def test_other_arguments_than_a_connection_are_a_type_error(arguments, options):
    with pytest.raises(TypeError, match="one argument, the connection"):
        greenwait.WaitCallback()(*arguments, **options)


def test_class_in_place_of_an_instance_is_told(connect):
    set_wait_callback(greenwait.WaitCallback)
    with pytest.raises(TypeError, match=r"register an instance"):
        connect()
