"""Running ``TestCase`` classes as ``manage.py test`` does, with a database of their own."""

import unittest
from typing import Any

from django.test.runner import DiscoverRunner

__all__ = ["run_cases"]


def run_cases(*cases: type[unittest.TestCase], **options: Any) -> None:
    """Run the classes; raise an exception unless all tests pass and the database is gone."""
    runner = DiscoverRunner(**{"verbosity": 0, "interactive": False, **options})
    runner.setup_test_environment()
    databases = runner.setup_databases()
    try:
        loader = unittest.defaultTestLoader
        suite = unittest.TestSuite([loader.loadTestsFromTestCase(case) for case in cases])
        result = runner.run_suite(suite)
    finally:
        runner.teardown_databases(databases)
        runner.teardown_test_environment()
    assert result.wasSuccessful(), result
    assert result.testsRun > 0
