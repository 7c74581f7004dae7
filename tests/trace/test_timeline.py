"""The pictures of a trace: all rows and bars are there, and nothing else is needed."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from greenwait import _timeline

KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "timeline.json"
FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "timeline.svg"


class Page(HTMLParser):
    """The rows of a page, whether all that is begun is ended, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.names, self.open, self.loaded = [], [], []
        self.is_name = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loaded += [found[name] for name in ("src", "href") if name in found]
        self.is_name = found.get("class") == "name"
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.is_name = False
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.is_name:
            self.names.append(data)


def draw(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "greenwait", "timeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_page_holds_all_rows_and_loads_nothing(tmp_path):
    page = tmp_path / "page.html"
    assert draw(KEPT, "-o", page).stdout == f"{page}\n"
    found = Page(page.read_text(encoding="utf-8"))
    assert found.names == [row.name for row in _timeline.load(KEPT).rows]
    assert len(found.names) == 20
    assert found.loaded == found.open == []


def test_the_page_holds_all_bars_and_marks(tmp_path):
    timeline = _timeline.load(KEPT)
    data = re.search(r"^const data = (\[.*\]), end", _timeline.page(timeline), re.MULTILINE)
    assert data is not None
    bars = [len(row) for row in json.loads(data[1])]
    assert bars == [len(row.bars) + len(row.marks) for row in timeline.rows]


def test_names_are_no_markup(tmp_path):
    file = tmp_path / "trace.json"
    name = "</script><b>'&"
    event = {"ph": "X", "pid": 1, "tid": 1, "cat": "query", "name": name, "ts": 1, "dur": 2}
    row = {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": name}}
    file.write_text(json.dumps({"traceEvents": [row, event]}), encoding="utf-8")
    timeline = _timeline.load(file)
    assert Page(_timeline.page(timeline)).open == []
    ElementTree.fromstring(_timeline.svg(timeline))


def test_a_wait_within_another_lies_below_it():
    (row,) = [row for row in _timeline.load(KEPT).rows if "slow_report" in row.name]
    assert [bar.depth for bar in row.bars if bar.category == "cancel"] == [1]


def test_the_docs_figure_is_that_of_the_kept_trace():
    assert FIGURE.read_text(encoding="utf-8") == _timeline.svg(_timeline.load(KEPT))
    root = ElementTree.parse(FIGURE).getroot()
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum((text or "").startswith("job ") for text in texts) == 20


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"traceEvents": 3}', "[1, 2]"])
def test_what_is_no_trace_is_told(tmp_path, text):
    file = tmp_path / "trace.json"
    file.write_text(text, encoding="utf-8")
    done = draw(file)
    assert done.returncode == 1
    assert done.stderr == f"{file}: it is not a trace\n"


def test_a_file_that_is_not_there_is_told(tmp_path):
    done = draw(tmp_path / "none.json")
    assert done.returncode == 1
    assert "No such file" in done.stderr
