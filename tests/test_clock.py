"""No loop without a clock: whatever arrives, deadlines are kept and signal handlers run."""

import pytest

from tests.lab.bounds import bound

CONTEXTS = ("hub", "asyncio", "uvloop", "gevent", "eventlet", "trio")
KINDS = ("plain", "own poll", "async", "without libpq")

DEADLINE, GRACE, MARGIN = 0.5, 1.0, bound(0.5)  # seconds; 0.2 where nothing else runs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_deadline_of_an_answer_that_keeps_coming_is_kept_beside_one_that_computes(
    run_program, context, kind
):
    late = []
    for _ in range(6):  # on a busy machine the best one counts
        said = run_program("large_answer", context, kind, "deadline", str(DEADLINE), str(GRACE))
        late.append(float(said))
        assert late[-1] < bound(5)
        if late[-1] < GRACE + MARGIN:
            break
    assert min(late) < GRACE + MARGIN, late


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_signal_handler_runs_while_an_answer_keeps_the_thread_busy(run_program, context, kind):
    late = []
    while min(late, default=1) >= 0.25 and len(late) < 6:  # on a busy machine the best one counts
        said = run_program("large_answer", context, kind, "signal", str(DEADLINE), str(GRACE))
        late.append(float(said.split()[1]))
    assert min(late) < 0.25, late
