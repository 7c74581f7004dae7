"""The end of the interpreter, in programs of gevent's and eventlet's."""

import pytest

#: Functions of tests/programs/adapters/exit.py.
LAST_WORDS = [
    "idle connection",
    "of another greenlet",
    "pending wait",
    "pending wait with a deadline",
    "finalizer",
    "finalizer of a guarded connection",
    "finalizer of one that is at work",
    "notifications",
    "atexit",
]


def test_program_ends_though_connections_are_open(run):
    run()


@pytest.mark.parametrize("case", LAST_WORDS)
@pytest.mark.parametrize(
    ("name", "loop", "is_patched"),
    [
        ("gevent", "libev-cext", True),
        ("gevent", "libev-cffi", False),
        ("gevent", "libuv-cffi", False),
        ("gevent", "libuv-cffi", True),
        ("eventlet", "", False),
        ("eventlet", "", True),
    ],
)
def test_nothing_is_said_at_interpreter_exit(
    run_program, monkeypatch, name, loop, is_patched, case
):
    if loop:
        monkeypatch.setenv("GEVENT_LOOP", loop)
    framework = f"{name}, patched" if is_patched else name
    case = case.replace(" ", "_")
    assert run_program("adapters/__main__", framework, f"exit.{case}") == ""
