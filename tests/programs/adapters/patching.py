"""Monkey patching, before our import and after it, and what warns of it."""

import greenwait
from tests.lab.queries import one
from tests.programs.adapters.framework import connect, patch_psycopg


def patching_twice_is_the_same_as_once():
    patch_psycopg()
    assert one(connect(), "select 1 from pg_sleep(0.05)") == 1
    greenwait.uninstall()
    greenwait.uninstall()
