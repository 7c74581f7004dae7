"""gevent and eventlet, each in a process of its own, with their monkey patching and without."""

import pytest


@pytest.fixture(params=["gevent", "gevent, patched", "eventlet", "eventlet, patched"])
def run(request, run_program):
    """Return a function that runs the function of the test's own name in such a program.

    It is in the module of tests/programs/adapters that is named as the test's is.
    """
    own_module = request.node.path.stem.removeprefix("test_")
    function = request.node.originalname.removeprefix("test_")

    def run(*arguments, module=own_module, transport=""):
        case = f"{module}.{function}"
        return run_program(
            "adapters/__main__", request.param, case, *arguments, transport=transport
        )

    return run
