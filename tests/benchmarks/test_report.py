"""What the benchmark's report says of its figures: the headline, the warning, the bars."""

import re
from typing import Any

import pytest

pytest.importorskip("rich", reason="needs the extra bench")
pytest.importorskip("jinja2")

from benchmarks import headline
from benchmarks.machine import is_busy, machine
from benchmarks.measure import Spread
from benchmarks.page import page, workload_panel

MACHINE = {"CPU": "a <CPU>", "CPUs": "2", "load before": "0.3", "CPUs in use before": "2 %"}


def spread(median, low=None, high=None, p90=None):
    low, high = low or median, high or median
    return vars(Spread(median, low, p90 or high, low, high))


def contestant(title, kind, ratio):
    return {
        "title": title,
        "kind": kind,
        "ratio_to_blocking": ratio,
        "samples": [{"queries": 1, "seconds": ratio["median"], "cpu_seconds": 1.0}] * 9,
    }


def workload(title="select 1, unix", rounds=9, to_fastest=None, **ratios):
    entries = {"blocking": contestant("psycopg2, blocking", "blocking", spread(1.0))}
    entries["wait_select"] = contestant(
        "extras.wait_select", "python", ratios.get("wait_select", spread(2.0))
    )
    entries["greenwait-poll"] = contestant(
        "greenwait (poll)", "greenwait", ratios.get("greenwait", spread(1.1))
    )
    return {
        "title": title,
        "rounds": rounds,
        "block": "1 query",
        "contestants": entries,
        "fastest_python": "wait_select",
        "greenwait_to_fastest_python": to_fastest or spread(0.5),
    }


BEHAVIOUR = {
    "callbacks": {"wait_select": "extras.wait_select", "greenwait": "greenwait"},
    "situations": [
        {
            "name": "deadline",
            "title": "A deadline",
            "tried": "Give a query half a second.",
            "cells": {
                "wait_select": [
                    {"text": "after 0.50 s", "is_good": True},
                    {"text": "connection lost", "is_good": False},
                ],
                "greenwait": [{"text": "after 0.50 s", "is_good": True}],
            },
        }
    ],
}


def document(in_use="2 %", workloads=None, **leading):
    return {
        "machine": MACHINE | {"CPUs in use before": in_use},
        "versions": {"greenwait": "0.1.0"},
        "settings": {"pinning": "cores left free"},
        "leading": leading,
        "workloads": workloads or [workload()],
    }


def compared(low, high, rounds=40):
    ratio = spread((low + high) / 2, low, high)
    return headline.comparison("select 1", "greenwait", "another", ratio, rounds)


def test_interval_that_holds_one_is_no_difference():
    said = compared(0.90, 1.04)
    assert str(said) == (
        "select 1: no difference seen between greenwait and another (95 % sure: 0.90 to 1.04)"
    )


@pytest.mark.parametrize(("low", "high"), [(0.95, 0.99), (1.01, 1.03)])
def test_interval_beside_one_is_a_difference(low, high):
    said = compared(low, high)
    assert said.verdict == f"greenwait takes {(low + high) / 2:.2f} of the time"


def test_few_rounds_are_said_to_be_unsure():
    assert compared(0.4, 0.6, rounds=5).rest == "of another (5 rounds, too few to be sure)"


def test_behaviour_leads_and_counts_what_has_no_flaw():
    first, *_ = headline.sentences(document(behaviour=BEHAVIOUR))
    assert first.verdict == "extras.wait_select 0, greenwait 1"


def test_what_differs_comes_before_a_short_query():
    busy = workload("200,000 rows, busy") | {"cores": "cores left free"}
    said = [*headline.sentences(document(behaviour=BEHAVIOUR, busy=[busy]))]
    assert [each.subject for each in said[1:]] == [
        "200,000 rows, busy (cores left free)",
        "select 1, unix",
    ]
    # Formed within each round: 1.1 of blocking's against 2.
    assert said[1].verdict == "greenwait takes 0.55 of the time"


def test_busy_machine_is_warned_of_before_anything_else():
    html = page(document(in_use="60 %", behaviour=BEHAVIOUR), "")
    assert html.index('class="warning"') < html.index("<ul>") < html.index("<table")
    assert "60 % of its CPUs" in html


def test_quiet_machine_is_not_warned_of():
    assert 'class="warning"' not in page(document(), "")


@pytest.mark.parametrize(("load", "busy"), [("0.9", False), ("1.1", True)])
def test_load_tells_where_nothing_else_does(load, busy):
    assert is_busy({"CPUs": "2, 1 of them for this process", "load before": load}) is busy


def test_this_machine_is_described():
    share = machine()["CPUs in use before"]
    assert share == "not known" or 0 <= float(share.removesuffix(" %")) <= 100


def test_table_of_behaviour_comes_before_the_bars():
    html = page(document(behaviour=BEHAVIOUR), "")
    assert html.index("<table") < html.index("<figure")
    assert re.search(r'class="bad">✗ connection lost', html)


def test_line_that_runs_out_of_the_panel_is_marked_with_its_end():
    cut = workload_panel(workload(wait_select=spread(2.0, 1.9, 2.1, p90=40.0)))
    by_title = {bar.title: bar for bar in cut.bars}
    assert by_title["extras.wait_select"].cut_at == "40.0"
    assert by_title["extras.wait_select"].high == 100
    assert by_title["greenwait (poll)"].cut_at == ""
    html = page(document(workloads=[workload(wait_select=spread(2.0, 1.9, 2.1, p90=40.0))]), "")
    assert html.count('class="cut"') == 1


def test_bars_fit_the_panel():
    panel = workload_panel(workload())
    assert all(0 <= bar.low <= bar.high <= 100 and bar.width <= 100 for bar in panel.bars)
    assert panel.one == pytest.approx(50)


def test_page_needs_no_other_file_and_escapes_what_it_shows():
    html = page(document(behaviour=BEHAVIOUR), "1 < 2")
    assert not re.search(r"https?:|<script|<link|@import|url\(", html)
    assert "a &lt;CPU&gt;" in html
    assert "1 &lt; 2" in html


def test_page_of_a_part_has_no_leading_sections():
    html = page(document(), "")
    assert "Behaviour" not in html
    assert "Time per query" in html


def test_line_that_runs_out_of_a_panel_has_a_head():
    pytest.importorskip("matplotlib")
    from benchmarks.plots import client_bars

    def client(p90: float) -> dict[str, Any]:
        spread = {"median": 1e-5, "p10": 0.9e-5, "p90": p90}
        return {"title": "one", "kind": "python", "cpu_seconds": spread}

    def heads(clients: list[dict[str, Any]]) -> list[list[Any]]:
        (axes,) = client_bars(clients, "32", "query").axes
        lines: list[Any] = [line for line in axes.lines if line.get_marker() == ">"]
        return [list(line.get_ydata()) for line in lines]

    assert heads([client(1.1e-5), client(1.2e-5)]) == [[]]
    assert heads([client(1.1e-5), client(9e-5)]) == [[1]]
