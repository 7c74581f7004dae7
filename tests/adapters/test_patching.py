"""Monkey patching, before our import and after it, and what warns of it."""

import pytest

#: Of our import.
ORDERS = [
    "gevent, before the patching",
    "gevent, after the patching",
    "gevent, before, threads are not patched",
    "gevent, after, threads are not patched",
    "eventlet, before the patching",
    "eventlet, after the patching",
    "eventlet, before, threads are not patched",
    "eventlet, after, threads are not patched",
]


def test_patching_twice_is_the_same_as_once(run):
    run()


@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_plain_install_in_a_patched_program_warns_and_names_the_line(run_program, name):
    first, second, third = run_program("plain_install", name).splitlines()
    assert f"greenwait.{name}.patch_psycopg()" in first
    assert second == third == "[]"


@pytest.mark.parametrize("order", ORDERS)
def test_thousand_lookups_leave_no_thread_no_descriptor_and_no_hub(run_program, order):
    assert run_program("lookups", order, "thousand") == "flat True\n"


@pytest.mark.parametrize("order", ORDERS)
def test_others_run_while_a_name_is_looked_up(run_program, order):
    """In a thread of its own, though the framework has patched threads and name servers."""
    assert run_program("lookups", order, "beside others") == "well\n"


# -- eventlet patches psycopg2, too


@pytest.mark.parametrize("order", ["before", "after"])
def test_psycopg2_is_patched_by_us_whether_eventlet_patches_before_or_after(run_python, order):
    ours = "callback = greenwait.eventlet.patch_psycopg()"
    theirs = "eventlet.monkey_patch()"
    assert (
        run_python(f"""
import warnings
warnings.simplefilter("ignore")
import eventlet, greenwait.eventlet
{ours if order == "before" else theirs}
{theirs if order == "before" else ours}
eventlet.monkey_patch()
from psycopg2.extensions import get_wait_callback
assert get_wait_callback() is callback
assert eventlet.patcher.is_monkey_patched("psycopg")
assert eventlet.patcher.is_monkey_patched("socket")
""")
        == ""
    )


def test_eventlet_patches_psycopg2_itself_where_we_were_uninstalled(run_python):
    assert (
        run_python("""
import warnings
warnings.simplefilter("ignore")
import eventlet, greenwait.eventlet
from psycopg2.extensions import get_wait_callback
greenwait.eventlet.patch_psycopg()
greenwait.uninstall()
assert get_wait_callback() is None
eventlet.monkey_patch()
assert get_wait_callback().__module__ == "eventlet.support.psycopg2_patcher"
""")
        == ""
    )
