"""What a tool runs of the tests, those that are named or its own choice, and what it leaves out."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def left_out(reasons: Mapping[str, str]) -> list[str]:
    """Print the reasons, by the tests' names, and return pytest's options for it.

    What is not there any more is an error.
    """
    for test, reason in reasons.items():
        file, name = test.split("::")
        if f"def {name.split('[')[0]}(" not in (ROOT / file).read_text():
            sys.exit(f"{test} is left out, and there is no such test")
        print(f"left out: {test}: {reason}")
    return [f"--deselect={test}" for test in reasons]


def names_tests(arguments: Sequence[str]) -> bool:
    """Is there a path of tests among pytest's arguments?"""
    return any((ROOT / each.split("::")[0]).exists() for each in arguments)
