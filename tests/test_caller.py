"""Which method compiled code executes, as the bytecode of its caller says."""

import sys
import threading
from types import SimpleNamespace

import pytest

from greenwait import _caller

# A list's are compiled; these stand for commit() and its like.
METHODS = {"append", "clear", "extend", "insert"}


def direct(items, other):
    items.clear()


def through_an_attribute(items, other):
    other.items.clear()


def returned(items, other):
    return items.clear()


def with_an_argument(items, other):
    items.append(other)


def with_an_attribute_as_argument(items, other):
    items.append(other.items)


def with_a_call_as_argument(items, other):
    items.append(SimpleNamespace(items=SimpleNamespace(), other=other))


def with_a_keyword_in_an_argument(items, other):
    items.insert(0, {"other": (other, [items]), **other.__dict__})


@pytest.mark.parametrize(
    "function",
    [
        direct, through_an_attribute, returned, with_an_argument, with_an_attribute_as_argument,
        with_a_call_as_argument, with_a_keyword_in_an_argument,
    ],
)  # fmt: skip
def test_method_that_is_called_by_its_name_is_known(monkeypatch, function):
    assert found_in(function, monkeypatch)[-1] in METHODS


def by_reference(items, other):
    function = items.append
    function(other)


def another(items, other):
    items.count(other)


def with_an_argument_that_is_chosen(items, other):
    items.append(other if items else None)


@pytest.mark.parametrize("function", [by_reference, another, with_an_argument_that_is_chosen])
def test_what_is_called_in_another_way_is_not_known(monkeypatch, function):
    assert found_in(function, monkeypatch)[-1] is None


def test_end_of_a_with_block_is_a_commit(monkeypatch):
    def block(items, other):
        with lock:
            pass

    lock = threading.Lock()
    assert found_in(block, monkeypatch)[-1] == "commit"


def found_in(function, monkeypatch):
    """Return what is found for each call of compiled code in *function*."""
    monkeypatch.setattr(_caller, "_METHODS", METHODS)
    found = []

    def profile(frame, event, arg):
        if event == "c_call" and frame.f_code is function.__code__:
            found.append(_caller._ending_called_by(frame))

    items = []
    sys.setprofile(profile)
    try:
        function(items, SimpleNamespace(items=items))
    finally:
        sys.setprofile(None)
    return found
