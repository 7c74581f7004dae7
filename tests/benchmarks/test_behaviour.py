"""The benchmark's table of what callbacks do when something goes wrong (``behaviour.py``)."""

import importlib.util
import sys
import time

import pytest

from benchmarks import behaviour
from tests.lab.bounds import bound

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="frozen() reads /proc")


def texts(cell, *, is_good):
    return [each.text for each in cell.findings if each.is_good == is_good]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_proc if name == "frozen_server" else ())
        for name in behaviour.SITUATIONS
    ],
)
def test_greenwait_does_what_one_would_wish(own_server, name):
    _, try_it = behaviour.SITUATIONS[name]
    cell = try_it("greenwait", own_server)
    assert cell.findings
    assert texts(cell, is_good=False) == []


def test_ctrl_c_under_wait_select_stops_the_query_and_is_another_exception(own_server):
    cell = behaviour.ctrl_c("wait_select", own_server)
    (arrival,) = texts(cell, is_good=False)
    assert arrival.endswith("s, as QueryCanceled")
    assert texts(cell, is_good=True) == ["query stopped", "connection kept"]


def test_deadline_under_wait_select_leaves_the_query_and_loses_the_connection(own_server):
    cell = behaviour.deadline("wait_select", own_server)
    assert texts(cell, is_good=False) == ["query goes on", "connection lost"]


def test_descriptor_above_1024_is_too_much_for_select(own_server):
    cell = behaviour.descriptor("wait_select", own_server)
    assert texts(cell, is_good=False) == ["ValueError"]


def test_query_under_wait_select_stops_the_other_greenlets(own_server):
    cell = behaviour.two_greenlets("wait_select", own_server)
    assert texts(cell, is_good=False) == ["the others stand still meanwhile"]


def test_what_hangs_is_ended_in_time(own_server, monkeypatch):
    monkeypatch.setattr(behaviour, "PATIENCE", 0.5)
    began = time.monotonic()
    cell = behaviour.connect_timeout("wait_select", own_server)
    assert texts(cell, is_good=False) == ["an error: not within 0 s"]
    assert time.monotonic() - began < bound(20)


@pytest.mark.skipif(not importlib.util.find_spec("psycogreen"), reason="there is no psycogreen")
def test_two_greenlets_under_psycogreen_stop_the_thread(own_server):
    cell = behaviour.two_greenlets("psycogreen", own_server)
    assert texts(cell, is_good=False) == ["the thread stops for ever"]


def test_interrupts_are_lost_under_wait_select(own_server):
    lost = texts(behaviour.notification("wait_select", own_server), is_good=False)
    assert any(each.startswith("Ctrl-C lost: ") for each in lost)


def test_all_are_tried_and_told(own_server, monkeypatch):
    good = behaviour.Cell((behaviour.Finding("works", True),))

    def works(callback, server):
        """Work."""
        return good

    monkeypatch.setattr(behaviour, "SITUATIONS", {"works": ("It works", works)})
    monkeypatch.setattr(behaviour, "callbacks_here", lambda: ["wait_select", "greenwait"])
    told = []
    table = behaviour.try_all(own_server, lambda done, of: told.append((done, of)))
    assert table == {"works": {"wait_select": good, "greenwait": good}}
    assert told == [(1, 2), (2, 2)]
    (row,) = behaviour.document(table)["situations"]
    assert (row["title"], row["tried"]) == ("It works", "Work.")
    assert row["cells"]["greenwait"] == [{"text": "works", "is_good": True}]
