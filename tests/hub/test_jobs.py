"""``Hub`` and its jobs: spawned, cancelled, waited for, and of one thread."""

import contextlib
import contextvars
import threading
from concurrent.futures import CancelledError
from typing import Any, get_origin

import greenlet
import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait._greenlets.hub import hub_here
from tests.lab.asleep import again_until
from tests.lab.marks import needs_refusal
from tests.lab.queries import TWENTY_SECONDS, assert_stopped, assert_usable, one, sleep_and_say
from tests.lab.waiting import takes

pytestmark = pytest.mark.patient
NOTHING: dict[str, object] = {}


def test_jobs_run_beside_the_block(conns):
    own = conns(3)
    were_done = False
    for _ in range(5):  # on a busy machine the best one counts
        with greenwait.Hub() as hub:
            jobs = [hub.spawn(sleep_and_say, conn, 0.1, answer="done") for conn in own[1:]]
            assert not any(job.done() for job in jobs)
            sleep_and_say(own[0], 1)
            were_done = all(job.done() for job in jobs)
            assert [job.result() for job in jobs] == ["done", "done"]
        if were_done:
            break
    assert were_done


def test_type_of_a_job_can_be_written_down():
    assert get_origin(greenwait.Job[int]) is greenwait.Job


def test_any_number_of_jobs_begin_in_order():
    begun: list[int] = []
    with greenwait.installed(), greenwait.Hub() as hub:
        for number in range(500):
            hub.spawn(begun.append, number)
            if number % 150 == 0:
                hub.sleep(0)
    assert begun == list(range(500))


def test_leaving_the_block_waits(conns):
    own = conns(2)
    done = []
    with greenwait.Hub() as hub:
        for conn in own:
            hub.spawn(lambda conn: done.append(sleep_and_say(conn, 0.1)), conn)
    assert len(done) == 2


def test_job_may_spawn_another_which_is_waited_for(callback):
    done = []

    def work(depth):
        hub.sleep(0.01)
        if depth:
            hub.spawn(work, depth - 1)
        done.append(depth)

    with greenwait.Hub() as hub:
        hub.spawn(work, 3)
    assert done == [3, 2, 1, 0]


def test_exception_in_the_block_cancels_the_jobs(conns, watcher):
    own = conns(3)
    with takes(0, 10), pytest.raises(ZeroDivisionError), greenwait.Hub() as hub:
        for conn in own:
            hub.spawn(one, conn, TWENTY_SECONDS)
        hub.sleep(0.1)
        raise ZeroDivisionError
    assert_stopped(watcher, own)
    assert_usable(*own)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_the_block(conns, watcher, kind):
    own = conns(2)

    def end():
        hub.sleep(0.1)
        raise kind

    with takes(0, 10), pytest.raises(kind), greenwait.Hub() as hub:
        for conn in own:
            hub.spawn(one, conn, TWENTY_SECONDS)
        hub.spawn(end)
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_failure_that_nobody_has_asked_for_is_raised_at_the_end(callback):
    with pytest.raises(KeyError, match="lost"), greenwait.Hub() as hub:
        hub.spawn(NOTHING.__getitem__, "lost")
        hub.spawn(NOTHING.__getitem__, "lost too")


def test_failure_that_was_asked_for_is_not(callback):
    with greenwait.Hub() as hub:
        job = hub.spawn(NOTHING.__getitem__, "found")
        with pytest.raises(KeyError):
            job.result()


def test_result_has_a_timeout(conns):
    (conn,) = conns(1)
    with greenwait.Hub() as hub:
        job = hub.spawn(sleep_and_say, conn, 3, "late")
        with takes(0.05, 2.9), pytest.raises(TimeoutError, match=r"still at work after 0\.05 s"):
            job.result(timeout=0.05)
        assert job.result(timeout=20) == "late"


def test_cancelled_job(conns, watcher):
    own = conns(2)
    with takes(0, 10), greenwait.Hub() as hub:
        jobs = [hub.spawn(one, conn, TWENTY_SECONDS) for conn in own]
        hub.sleep(0.1)
        assert [job.cancel() for job in jobs] == [True, True]
        for job in jobs:
            with pytest.raises(CancelledError):
                job.result()
            assert job.done()
            assert not job.cancel()
    assert_stopped(watcher, own)
    assert_usable(*own)


def test_job_that_is_cancelled_before_it_begins_never_does(callback):
    begun = []
    with greenwait.Hub() as hub:
        job = hub.spawn(begun.append, 1)
        job.cancel()
        hub.sleep(0.01)
        with pytest.raises(CancelledError):
            job.result()
    assert begun == []


def test_job_may_cancel_another(conns):
    (conn,) = conns(1)
    with greenwait.Hub() as hub:
        job = hub.spawn(one, conn, TWENTY_SECONDS)
        hub.sleep(0.05)
        hub.spawn(job.cancel).result()
        with pytest.raises(CancelledError):
            job.result()
    assert_usable(conn)


@needs_refusal
def test_cancel_that_no_wait_raises_any_more_is_the_job_s_result(conns):
    """It waits for the end of what a deadline stops, and then the job waits for nothing else."""
    (conn,) = conns(1)
    query = (
        "do $$begin perform pg_sleep(20); "
        "exception when query_canceled then perform pg_sleep(0.5); end$$"
    )
    was_in_time = False

    def stubborn():
        with contextlib.suppress(greenwait.QueryTimeout), greenwait.timeout(0.05):
            conn.cursor().execute(query)
        return "a result"

    def attempt():
        nonlocal was_in_time
        before = greenwait.stats().cancels
        with greenwait.Hub() as hub:
            job = hub.spawn(stubborn)
            while greenwait.stats().cancels == before:
                hub.sleep(0.001)
            was_in_time = job.cancel()
            with pytest.raises(CancelledError) if was_in_time else contextlib.nullcontext():
                job.result()
        assert not conn.closed

    # Where it was stopped before or after the block that takes its time, the job has ended.
    again_until(lambda: was_in_time, conn, attempt)


@needs_refusal
def test_cancel_of_a_query_that_succeeds_all_the_same_is_not_swallowed(conns):
    deaf = "do $$ begin perform pg_sleep(3); exception when query_canceled then null; end $$"
    (conn,) = conns(1)

    def work():
        with conn.cursor() as cur:
            cur.execute(deaf)
        return "swallowed"

    with greenwait.Hub() as hub:
        job = hub.spawn(work)
        hub.sleep(0.1)
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
    assert_usable(conn)


def test_each_thread_has_its_own(conns):
    own = conns(8)
    answers = {}

    def work(number):
        pair = own[2 * number : 2 * number + 2]
        answers[number] = greenwait.gather(
            *[lambda conn=conn: sleep_and_say(conn, 0.05, number) for conn in pair]
        )

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == {number: [number, number] for number in range(4)}


def test_another_thread_may_not_use_it(callback):
    failures = []

    def use(job):
        for call in (lambda: hub.spawn(print), lambda: hub.sleep(0), job.result, job.cancel):
            try:
                call()
            except RuntimeError as exc:
                failures.append("a hub belongs to its thread" in str(exc))

    with greenwait.Hub() as hub:
        job = hub.spawn(lambda: None)
        thread = threading.Thread(target=use, args=(job,), daemon=True)
        thread.start()
        thread.join(20)
    assert failures == [True] * 4


def test_hub_in_a_hub_is_refused(callback):
    with greenwait.Hub() as hub:
        with pytest.raises(RuntimeError, match=r"use its spawn\(\), or greenwait.gather"):
            greenwait.Hub().__enter__()
        job = hub.spawn(greenwait.Hub().__enter__)
        with pytest.raises(RuntimeError, match="a hub is at work in this thread"):
            job.result()


def test_mistakes_are_told(callback):
    with pytest.raises(TypeError, match=r"made by Hub\.spawn\(\)"):
        greenwait.Job()
    with greenwait.Hub() as hub:
        with pytest.raises(TypeError, match="takes a function, not 'int'"):
            hub.spawn(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType,reportCallIssue]
        job = hub.spawn(hub.__exit__, None, None, None)
        with pytest.raises(RuntimeError, match="left by the greenlet that has entered it"):
            job.result()


def test_repr_of_a_job(callback):
    with greenwait.Hub() as hub:
        job = hub.spawn(hub.sleep, 20)
        assert repr(job) == "<greenwait.Job waiting to run>"
        hub.sleep(0)
        assert repr(job) == "<greenwait.Job running>"
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
        assert repr(job) == "<greenwait.Job done, cancelled>"


def test_hub_is_for_one_block(callback):
    hub = greenwait.Hub()
    with hub:
        pass
    with pytest.raises(RuntimeError, match="make another"), hub:
        pass
    with pytest.raises(RuntimeError, match="block is over"):
        hub.spawn(print)


def test_hub_needs_the_callback():
    for registered in (None, print):
        set_wait_callback(registered)
        with pytest.raises(RuntimeError, match=r"call greenwait.install\(\) first"):
            greenwait.gather(lambda: None)


def test_job_can_not_wait_for_itself(callback):
    with greenwait.Hub() as hub:
        jobs = []
        jobs.append(hub.spawn(lambda: jobs[0].result()))
        with pytest.raises(RuntimeError, match="its own result"):
            jobs[0].result()


def test_jobs_have_a_copy_of_the_context(callback):
    variable = contextvars.ContextVar("variable", default="nobody's")

    def work(name):
        before = variable.get()
        variable.set(name)
        hub.sleep(0.01)
        return before, variable.get()

    with greenwait.Hub() as hub:
        variable.set("the block's")
        jobs = [hub.spawn(work, name) for name in "ab"]
        assert [job.result() for job in jobs] == [("the block's", "a"), ("the block's", "b")]
        assert variable.get() == "the block's"
        assert hub.spawn(variable.get).result() == "the block's"  # also in a used greenlet


def test_greenlets_are_reused(callback):
    seen = set()
    with greenwait.Hub() as hub:
        for _ in range(50):
            hub.spawn(lambda: seen.add(id(greenlet.getcurrent()))).result()
    assert len(seen) == 1


def test_sleep_lets_others_go_on(callback):
    order = []

    def work(name):
        for number in range(3):
            order.append(f"{name}{number}")
            hub.sleep(0)

    with greenwait.Hub() as hub:
        hub.spawn(work, "a")
        hub.spawn(work, "b")
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_sleep_takes_its_time(callback):
    with takes(0.1, 5), greenwait.Hub() as hub:
        hub.sleep(0.1)
    wrong: Any
    for wrong in (-1, "1"):
        with pytest.raises((ValueError, TypeError), match="seconds"), greenwait.Hub() as hub:
            hub.sleep(wrong)


def test_sleep_that_is_interrupted_before_it_begins(conns):
    (conn,) = conns(1)
    with greenwait.Hub() as hub:

        def work():
            job.cancel()
            hub.sleep(0)

        job = hub.spawn(work)
        assert sleep_and_say(conn, 0.05, 1) == 1
        for number in range(5):
            assert hub.spawn(sleep_and_say, conn, 0.01, number).result() == number
    assert hub_here() is None


def test_job_may_replace_the_dict_of_its_greenlet(conns):
    own = conns(2)

    def work(conn):
        greenlet.getcurrent().__dict__ = {}  # what makes it a worker is there
        return sleep_and_say(conn, 0.01, 1)

    for _ in range(3):
        with greenwait.Hub() as hub:
            assert hub.spawn(work, own[0]).result() == 1
            jobs = [hub.spawn(sleep_and_say, conn, 0.01, 2) for conn in own]
            assert [job.result() for job in jobs] == [2, 2]
