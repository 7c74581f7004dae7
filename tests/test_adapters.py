"""gevent and eventlet, each in a process of its own, with their monkey patching and without."""

import textwrap

import pytest

from tests.lab.marks import needs_fork

PRELUDES = {
    "gevent": """
        import gevent
        from greenwait.gevent import patch_psycopg
        from greenlet import GreenletExit
        NAME, POOL = "gevent", "gevent.pool.Pool"
        spawn, sleep, Timeout = gevent.spawn, gevent.sleep, gevent.Timeout
        def join(jobs):
            return [job.get(timeout=30) for job in jobs]
        start_timeout = Timeout.start_new
        def kill(job):
            job.kill()
        def call_in_hub(function):
            gevent.get_hub().loop.run_callback(function)
    """,
    "eventlet": """
        import warnings
        warnings.simplefilter("ignore")  # it warns of itself
        import eventlet, eventlet.hubs
        from greenwait.eventlet import patch_psycopg
        from greenlet import GreenletExit
        NAME, POOL = "eventlet", "eventlet.GreenPool"
        spawn, sleep, Timeout = eventlet.spawn, eventlet.sleep, eventlet.Timeout
        def join(jobs):
            return [job.wait() for job in jobs]
        start_timeout = Timeout
        def kill(job):
            job.kill()
        def call_in_hub(function):
            eventlet.hubs.get_hub().schedule_call_global(0, function)
    """,
}
PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": """
import warnings
warnings.simplefilter("ignore")
import eventlet; eventlet.monkey_patch()""",
}
COMMON = """
import os, sys, threading, time
import psycopg2
import greenwait
patch_psycopg(cancel_grace=10)

DSN = sys.argv[1]
def connect(dsn=DSN, **options):
    return psycopg2.connect(dsn, **options)
def one(conn, query, *parameters):
    with conn.cursor() as cur:
        cur.execute(query, parameters)
        return cur.fetchone()[0]
watcher = connect()
watcher.autocommit = True
def assert_stopped(pid):
    give_up = time.monotonic() + 0.5
    query = "select count(*) from pg_stat_activity where pid = %s and state = 'active'"
    while one(watcher, query, pid):
        assert time.monotonic() < give_up
def assert_usable(conn):
    conn.rollback()
    assert one(conn, "select 6 * 7") == 42
    conn.rollback()
def descriptors():
    return len(os.listdir("/proc/self/fd"))
"""


@pytest.fixture(params=["gevent", "gevent, patched", "eventlet", "eventlet, patched"])
def run(request, run_python, server):
    """Return a function that runs a script in such a program."""
    name, _, patched = request.param.partition(", ")
    head = PATCHES[name] if patched else ""

    def run(script, transport="", common=COMMON, first=""):
        whole = "\n".join(
            [first, head, textwrap.dedent(PRELUDES[name]), common, textwrap.dedent(script)]
        )
        return run_python(whole, transport=transport)

    return run


def test_queries_run_at_the_same_time(run):
    run("""
        def work(number):
            with connect() as conn:
                return one(conn, "select %s from pg_sleep(0.2)", number)
        began = time.monotonic()
        assert join([spawn(work, number) for number in range(20)]) == list(range(20))
        assert time.monotonic() - began < 3.9  # one by one: 4
    """)


def test_others_run_meanwhile(run):
    run("""
        turns = []
        def count():
            while True:
                turns.append(1)
                sleep(0.01)
        spawn(count)
        conn = connect()
        for _ in range(5):  # on a busy machine the best one counts
            turns.clear()
            one(conn, "select pg_sleep(0.5)")
            if len(turns) > 10:
                break
        assert len(turns) > 10
    """)


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
def test_large_answers_and_statements(run, transport, server):
    if transport not in server.transports:
        pytest.skip("the server is not reached like that")
    run(
        """
        def work(size):
            conn = connect()
            return len(one(conn, "select %s || 'y'", "x" * size))
        for _ in range(3):
            sizes = [1, 100, 100_000, 5_000_000]
            assert join([spawn(work, size) for size in sizes]) == [size + 1 for size in sizes]
    """,
        transport=transport,
    )


def test_killed_greenlet_stops_its_query_and_leaves_a_usable_connection(run):
    run("""
        conn = connect()
        caught = []
        def work():
            try:
                one(conn, "select pg_sleep(20)")
            except BaseException as exc:
                caught.append(exc)
                raise
        job = spawn(work)
        sleep(0.2)
        kill(job)
        while not caught:
            sleep(0.01)
        assert [type(exc) for exc in caught] == [GreenletExit], caught
        assert_stopped(conn.info.backend_pid)
        assert_usable(conn)
    """)


def test_the_framework_s_own_timeout_is_delivered_as_it_is(run):
    run("""
        conn = connect()
        turns = []
        def count():
            while True:
                turns.append(1)
                sleep(0.01)
        spawn(count)
        for _ in range(5):
            timeout = start_timeout(0.1)
            try:
                one(conn, "select pg_sleep(20)")
            except Timeout as exc:
                assert exc is timeout
            else:
                assert False
            finally:
                timeout.cancel()
            assert_stopped(conn.info.backend_pid)
            assert_usable(conn)
        assert len(turns) > 10
        with Timeout(0.1, False):
            one(conn, "select pg_sleep(20)")
        assert_usable(conn)
    """)


def test_greenwait_s_timeout_is_of_its_own_greenlet(run):
    run("""
        def hurried():
            conn = connect()
            try:
                with greenwait.timeout(0.1):
                    one(conn, "select pg_sleep(20)")
            except greenwait.QueryTimeout:
                assert_usable(conn)
                return "too late"
        def patient():
            return one(connect(), "select 'in time' from pg_sleep(0.3)")
        assert join([spawn(hurried), spawn(patient)]) == ["too late", "in time"]
    """)


def test_query_in_a_callback_of_the_hub_s_own_waits_by_blocking(run):
    run("""
        conn = connect()
        answers = []
        call_in_hub(lambda: answers.append(one(conn, "select 'here' from pg_sleep(0.05)")))
        sleep(0.3)
        assert answers == ["here"]
        assert_usable(conn)
    """)


def test_native_threads_sleep_by_themselves_and_leak_nothing(run):
    run("""
        try:
            from gevent.monkey import get_original
        except ImportError:
            from eventlet.patcher import original
            get_original = lambda module, name: getattr(original(module), name)
        if NAME == "eventlet":
            from eventlet.patcher import original
            start = original("_thread").start_new_thread
        else:
            start = get_original("_thread", "start_new_thread")
        done = []
        def work():
            conn = psycopg2.connect(DSN)
            done.append(one(conn, "select 1"))
            conn.close()
        start(work, ())
        while len(done) < 1:
            sleep(0.01)
        before = descriptors()
        for number in range(2, 32):
            start(work, ())
            while len(done) < number:
                sleep(0.005)
        give_up = time.monotonic() + 5
        while descriptors() > before and time.monotonic() < give_up:
            sleep(0.01)
        assert descriptors() <= before, (descriptors(), before)
    """)


def test_connections_that_come_and_go_leak_nothing(run):
    run("""
        def work(number):
            for _ in range(5):
                conn = connect()
                assert one(conn, "select %s", number) == number
                conn.close()
        join([spawn(work, number) for number in range(10)])
        before = descriptors()
        for _ in range(5):
            join([spawn(work, number) for number in range(10)])
        assert descriptors() <= before
    """)


def test_silent_hosts_time_out_beside_each_other(run):
    run("""
        import socket
        silent = socket.socket()
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        port = silent.getsockname()[1]
        def work():
            try:
                psycopg2.connect(host="127.0.0.1", port=port, user="x", connect_timeout=1)
            except psycopg2.OperationalError as exc:
                return "connect_timeout" in str(exc)
        began = time.monotonic()
        assert join([spawn(work) for _ in range(5)]) == [True] * 5
        assert 1 <= time.monotonic() - began < 4.5  # one by one: 5
    """)


def test_greenwait_connect_works_there(run):
    run("""
        def work():
            conn = greenwait.connect(DSN, connect_timeout=10)
            return one(conn, "select 'here'")
        assert join([spawn(work) for _ in range(3)]) == ["here"] * 3
    """)


def test_hub_of_ours_is_refused_in_favour_of_the_framework_s(run):
    run("""
        def work():
            try:
                greenwait.gather(lambda: 1)
            except RuntimeError as exc:
                return str(exc)
        sleep(0)
        (message,) = join([spawn(work)])
        assert POOL in message, message
    """)


def test_connection_that_is_lost(run):
    run("""
        conn = connect()
        pid = conn.info.backend_pid
        def work():
            try:
                one(conn, "select pg_sleep(20)")
            except psycopg2.OperationalError:
                return conn.closed
        job = spawn(work)
        sleep(0.2)
        one(watcher, "select pg_terminate_backend(%s)", pid)
        assert join([job]) == [2]
    """)


def test_patching_twice_is_the_same_as_once(run):
    run("""
        patch_psycopg()
        assert one(connect(), "select 1 from pg_sleep(0.05)") == 1
        greenwait.uninstall()
        greenwait.uninstall()
    """)


@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_plain_install_in_a_patched_program_warns_and_names_the_line(run_python, name):
    script = f"""
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    {PATCHES[name].strip().splitlines()[-1]}
import greenwait
for _ in range(2):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        greenwait.install()
    print([str(each.message) for each in caught])
from greenwait.{name} import patch_psycopg
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    patch_psycopg()
print([each for each in caught if each.category is RuntimeWarning])
"""
    first, second, third = run_python(script.replace("-W error", "")).splitlines()
    assert f"greenwait.{name}.patch_psycopg()" in first
    assert second == third == "[]"


def test_pool_has_one_line_for_greenlets_and_threads(run):
    run("""
        order = []
        def work(number):
            with pool.connection() as conn:
                one(conn, "select pg_sleep(0.001)")
                order.append(number)
        with greenwait.Pool(DSN, max_size=1, timeout=20) as pool:
            conn = pool.getconn()
            jobs = [spawn(work, number) for number in range(50)]
            while pool.stats().waiting < 50:
                sleep(0.001)
            pool.putconn(conn)
            join(jobs)
            assert order == list(range(50))
            conn = pool.getconn()
            jobs = [spawn(work, number) for number in range(5)]
            sleep(0)
            started = time.monotonic()
            try:
                pool.getconn(timeout=0.1)
            except greenwait.PoolTimeout:
                assert 0.1 <= time.monotonic() - started < 5
            kill(jobs[0])
            sleep(0)
            assert pool.stats().waiting == 4
            pool.putconn(conn)
            join(jobs[1:])
    """)


def test_native_threads_and_greenlets_share_a_pool(run):
    run("""
        done = []
        def work():
            for _ in range(30):
                with pool.connection() as conn:
                    done.append(one(conn, "select 1"))
        if NAME == "gevent":
            from gevent.monkey import get_original
            start = get_original("_thread", "start_new_thread")
        else:
            from eventlet.patcher import original
            start = original("_thread").start_new_thread
        with greenwait.Pool(DSN, max_size=2, timeout=30) as pool:
            for _ in range(3):
                start(work, ())
            join([spawn(work) for _ in range(5)])
            give_up = time.monotonic() + 20
            while len(done) < 8 * 30:
                sleep(0.01)
                assert time.monotonic() < give_up
            while pool.stats().in_use:
                sleep(0.01)
            assert pool.stats().size <= 2
    """)


def test_all_greenlets_wait_for_a_thread(run):
    """Nothing but the other thread will wake them, which the loop must wait for."""
    run("""
        if NAME == "gevent":
            from gevent.monkey import get_original
            start = get_original("_thread", "start_new_thread")
            pause = get_original("time", "sleep")
            def join(jobs):  # without a timeout, which would keep the loop alive
                gevent.joinall(jobs)
                return [job.value for job in jobs]
        else:
            from eventlet.patcher import original
            start = original("_thread").start_new_thread
            pause = original("time").sleep
        def lend():
            pause(0.2)
            pool.putconn(conn)
        shared = connect(connection_factory=greenwait.Connection)
        def keep():
            one(shared, "select pg_sleep(0.2)")
        with greenwait.Pool(DSN, max_size=1) as pool:
            for _ in range(3):
                conn = pool.getconn()
                start(lend, ())
                def work():
                    with pool.connection() as conn:
                        return one(conn, "select 1")
                assert join([spawn(work) for _ in range(5)]) == [1] * 5
                start(keep, ())
                pause(0.05)
                assert join([spawn(one, shared, "select 1") for _ in range(5)]) == [1] * 5
    """)


def test_closed_connections_leave_their_numbers_to_others(run):
    run("""
        before = None
        for _ in range(100):
            conns = [connect() for _ in range(3)]
            assert join([spawn(one, conn, "select 1") for conn in conns]) == [1, 1, 1]
            for conn in conns[::-1]:
                conn.close()
            before = before or descriptors()
        assert descriptors() <= before
    """)


def test_connection_that_is_closed_does_not_upset_the_next_of_its_descriptor(run):
    """libev ends the process when it finds a descriptor closed that it was told of."""
    run("""
        import socket
        if NAME == "gevent":
            from gevent.socket import wait_write
        else:
            from eventlet.hubs import trampoline
            wait_write = lambda fd: trampoline(fd, write=True)
        def close(conn):
            conn.close()
        def let_libpq_close(conn):
            one(watcher, "select pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
            try:
                one(conn, "select 1")
            except psycopg2.OperationalError:
                pass
        for each in (close, let_libpq_close):
            conn = connect()
            one(conn, "select 1")
            fd = conn.fileno()
            each(conn)
            numbers = [os.dup(1) for _ in range(10)]
            assert fd in numbers
            ends = socket.socketpair()
            os.dup2(ends[0].fileno(), fd)
            wait_write(fd)
            os.close(fd)
            sleep(0.01)
            sleep(0.01)
            for number in numbers:
                if number != fd:
                    os.close(number)
    """)


def test_killed_before_the_loop_knows_of_the_wait(run):
    run("""
        for number in range(50):
            def work(conn):
                try:
                    one(conn, "select pg_sleep(10)")
                finally:
                    conn.close()
            job = spawn(work, connect())
            sleep(0.001 * (number % 5))
            kill(job)
            sleep(0)
            assert one(watcher, "select 1") == 1
    """)


def test_file_that_is_open_elsewhere_is_forgotten_with_its_connection(run):
    """epoll(7) Q6: a child has inherited the descriptor, and what is reported goes on."""
    run("""
        import subprocess
        conn = connect()
        one(conn, "select 1")
        fd = conn.fileno()
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[fd])
        conn.close()
        for _ in range(3):
            again = connect()
            assert one(again, "select 1") == 1
        cpu = time.process_time()
        sleep(0.3)
        assert one(again, "select 2 from pg_sleep(0.3)") == 2
        assert time.process_time() - cpu < 0.3
        child.stdin.close()
        child.wait()
    """)


@needs_fork
def test_forked_child_does_not_share_what_its_parent_waits_with(run):
    run("""
        if NAME == "gevent":
            assert one(connect(), "select 1") == 1
            jobs = [spawn(one, connect(), "select %s from pg_sleep(0.5)", n) for n in range(3)]
            sleep(0.1)
            over = [job.dead for job in jobs]
            child = gevent.os.fork()
            if child == 0:
                def work(number):
                    return one(connect(), "select %s from pg_sleep(0.1)", number)
                for _ in range(10):
                    own = [spawn(work, number) for number in range(5)]
                    if join(own) != list(range(5)):
                        os._exit(1)
                os._exit(2 if [job.dead for job in jobs] != over else 0)
            assert join(jobs) == [0, 1, 2]
            for _ in range(3):
                assert join([spawn(one, connect(), "select 7")]) == [7]
            with Timeout(10):
                assert gevent.os.waitpid(child, 0) == (child, 0)
    """)


@needs_fork
@pytest.mark.parametrize("run", ["gevent"], indirect=True)
@pytest.mark.parametrize("loop", ["libev-cext", "libuv-cffi"])
def test_child_of_a_plain_fork_and_its_parent_wait_on(run, loop):
    """gevent's own fork() parts their event loops, os.fork() does not."""
    run(
        """
        def work():
            conn = connect()
            return [one(conn, "select %s from pg_sleep(0.02)", number) for number in range(15)]
        jobs = [spawn(work) for _ in range(3)]
        children = []
        for _ in range(3):
            sleep(0.1)
            child = os.fork()
            if child == 0:
                own = [spawn(work) for _ in range(3)]
                os._exit(0 if join(own) == [list(range(15))] * 3 else 1)
            children.append(child)
        assert join(jobs) == [list(range(15))] * 3
        for child in children:
            assert os.waitpid(child, 0) == (child, 0)
        """,
        first=f"import os; os.environ['GEVENT_LOOP'] = '{loop}'",
    )


@pytest.mark.parametrize("run", ["gevent"], indirect=True)
def test_timers_are_not_too_short_for_libuv(run):
    """It has none of less than a millisecond, and gevent warns of them."""
    run(
        """
        def work():
            conn = connect()
            conn.autocommit = True
            for number in range(30):
                try:
                    with greenwait.timeout(number / 10_000):
                        one(conn, "select pg_sleep(30)")
                except greenwait.QueryTimeout:
                    pass
        spawn(work).get()
        assert min(asked_for) >= 0.001, min(asked_for)
        """,
        first="""
import gevent
asked_for = []
class Loop(gevent.config.loop):
    def timer(self, after, *args, **options):
        asked_for.append(after)
        return super().timer(after, *args, **options)
gevent.config.loop = Loop
""",
    )


@needs_fork
def test_forked_child_that_waits_for_nothing_leaves_its_parents_waits_alone(run):
    run("""
        if NAME == "gevent":
            import gevent.monkey
            jobs = [spawn(one, connect(), "select %s from pg_sleep(0.3)", n) for n in range(3)]
            sleep(0.1)
            over = [job.dead for job in jobs]
            child = gevent.os.fork()
            if child == 0:
                cpu = time.process_time()
                sleep(0.6)  # the answers come, and the parent lets them lie
                spins = time.process_time() - cpu > 0.3
                os._exit(1 if spins else 2 if [job.dead for job in jobs] != over else 0)
            gevent.monkey.get_original("time", "sleep")(0.9)
            assert join(jobs) == [0, 1, 2]
            with Timeout(10):
                assert gevent.os.waitpid(child, 0) == (child, 0)
    """)


@needs_fork
def test_forked_child_leaves_its_parents_deadlines_alone(run):
    run("""
        if NAME == "gevent":
            def work(conn):
                try:
                    with greenwait.timeout(0.4):
                        one(conn, "select pg_sleep(30)")
                except greenwait.QueryTimeout:
                    return "over"
            job = spawn(work, connect())
            sleep(0.1)
            child = gevent.os.fork()
            if child == 0:
                before = greenwait.stats().cancels
                sleep(1)
                os._exit(greenwait.stats().cancels - before)
            assert join([job]) == ["over"]
            with Timeout(10):
                assert gevent.os.waitpid(child, 0) == (child, 0)
    """)


def test_query_beside_notifications_of_the_same_connection(run):
    run("""
        import greenwait
        conn, other = connect(), connect()
        conn.autocommit = other.autocommit = True
        conn.cursor().execute("listen beside")
        found = []
        def listen():
            for notify in greenwait.notifies(conn, timeout=20):
                found.append(notify.payload)
                if notify.payload == "last":
                    break
        job = spawn(listen)
        sleep(0.05)
        for number in range(3):
            assert one(conn, "select %s from pg_sleep(0.1)", number) == number
            other.cursor().execute("notify beside, %s", (str(number),))
        other.cursor().execute("notify beside, 'last'")
        join([job])
        assert found == ["0", "1", "2", "last"], found
    """)


def test_exception_out_of_a_bare_greenlet_is_told_as_its_own(run):
    run("""
        if NAME == "gevent":
            import greenlet, io
            hub = gevent.get_hub()
            hub.exception_stream = io.StringIO()
            conn = connect()
            def work():
                one(conn, "select pg_sleep(0.1)")
                raise LookupError("nobody asked for it")
            bare = greenlet.greenlet(work, hub)
            hub.loop.run_callback(bare.switch)
            while not bare.dead:
                sleep(0.01)
            told = hub.exception_stream.getvalue()
            assert bare.dead and "LookupError: nobody asked for it" in told, told
            assert f"{bare} failed with LookupError" in told, told
    """)


@pytest.mark.parametrize("backend", ["", "select"])
def test_descriptor_that_is_closed_under_a_wait_is_an_error(run, backend):
    """libev's select(2), which it takes on macOS, finds out by itself; epoll(7) does not tell."""
    script = """
        conn = connect()
        one(conn, "select 1")
        def work():
            try:
                one(conn, "select pg_sleep(30)")
            except (psycopg2.OperationalError, OSError) as exc:
                return str(exc)
        job = spawn(work)
        sleep(0.1)
        os.close(conn.fileno())
        began = time.monotonic()
        assert "descriptor" in join([job])[0]
        assert time.monotonic() - began < 4  # it is looked for every second
    """
    run(script, first=f"import os; os.environ['GEVENT_BACKEND'] = {backend!r}")


def test_threads_with_a_hub_of_their_own_leak_nothing_when_they_destroy_it(run):
    run("""
        if NAME == "gevent":
            from gevent.monkey import get_original
            start = get_original("_thread", "start_new_thread")
            sleep(0)  # it imports what hubs consist of
            done = []
            def work():
                gevent.get_hub()
                job = gevent.spawn(one, connect(), "select 1")
                job.get()
                gevent.get_hub().destroy()
                done.append(1)
            for number in range(20):
                start(work, ())
                while len(done) <= number:
                    sleep(0.01)
                if number == 4:
                    before = descriptors()
            import gc
            gc.collect()
            give_up = time.monotonic() + 5
            while descriptors() > before and time.monotonic() < give_up:
                sleep(0.01)
            assert descriptors() <= before, (descriptors(), before)
    """)


def test_idle_connection_that_is_readable_keeps_nobody_awake(run):
    run("""
        idle = connect()
        one(idle, "select 1")
        idle.rollback()
        one(watcher, "select pg_terminate_backend(%s, 5000)", idle.info.backend_pid)
        cpu = time.process_time()
        sleep(0.5)
        one(watcher, "select pg_sleep(0.5)")
        assert time.process_time() - cpu < 0.3
        try:
            one(idle, "select 1")
        except psycopg2.OperationalError:
            pass
        else:
            raise AssertionError
    """)


def test_program_ends_though_connections_are_open(run):
    run("""
        conns = [connect() for _ in range(3)]
        join([spawn(one, conn, "select 1") for conn in conns])
        if NAME == "gevent":
            took = []
            for _ in range(5):  # on a busy machine the best one counts
                join([spawn(one, conn, "select 1") for conn in conns])
                began = time.monotonic()
                assert gevent.wait(timeout=5)
                took.append(time.monotonic() - began)
                if took[-1] < 1:
                    break
            assert min(took) < 1, took
    """)


def test_thousand_greenlets_wait_in_line_without_a_descriptor_each(run):
    run("""
        if NAME == "gevent":
            with greenwait.Pool(DSN, max_size=1, timeout=20) as pool:
                conn = pool.getconn()
                before = descriptors()
                jobs = [spawn(lambda: pool.connection(timeout=15).__enter__()) for _ in range(1000)]
                while pool.stats().waiting < 1000:
                    sleep(0.001)
                assert descriptors() <= before + 2
                gevent.killall(jobs)
                assert pool.stats().waiting == 0
                pool.putconn(conn)
    """)


def test_every_context_in_one_process(run_python):
    """gevent in one thread, eventlet in another, a hub in a third, and threads that just sleep."""
    script = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
import gevent, eventlet, psycopg2
import greenwait, greenwait.eventlet, greenwait.gevent
greenwait.gevent.patch_psycopg(cancel_grace=20)
greenwait.eventlet.patch_psycopg(cancel_grace=20)
DSN = sys.argv[1]
EACH = 40
done, threads, failures = [], [], []
shared = psycopg2.connect(DSN, connection_factory=greenwait.Connection)

def work(name, number):
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select %s from pg_sleep(0.005)", (number,))
        assert cur.fetchone() == (number,)
    with shared.cursor() as cur:
        cur.execute("select %s", (number,))
        assert cur.fetchone() == (number,)
    shared.commit()
    try:
        with pool.connection() as conn, conn.cursor() as cur, greenwait.timeout(0.05):
            cur.execute("select pg_sleep(23)")
    except greenwait.QueryTimeout:
        done.append((name, number))

def in_gevent():
    gevent.joinall([gevent.spawn(work, "gevent", n) for n in range(EACH)], raise_error=True)
    gevent.get_hub().destroy()

def in_eventlet():
    for job in [eventlet.spawn(work, "eventlet", n) for n in range(EACH)]:
        job.wait()

def in_hub():
    list(greenwait.map(lambda n: work("hub", n), range(EACH), concurrency=EACH))

def in_threads():
    own = [threading.Thread(target=work, args=("thread", n)) for n in range(EACH)]
    for thread in own:
        thread.start()
    for thread in own:
        thread.join()

def guarded(function):
    try:
        function()
    except BaseException as exc:
        failures.append(exc)
        raise

with greenwait.Pool(DSN, max_size=20, timeout=40) as pool:
    for function in (in_gevent, in_eventlet, in_hub, in_threads):
        threads.append(threading.Thread(target=guarded, args=(function,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(done) == sorted(
        (name, n) for name in ("gevent", "eventlet", "hub", "thread") for n in range(EACH)
    )
    assert pool.stats().in_use == pool.stats().waiting == 0
shared.rollback()
with shared.cursor() as cur:
    cur.execute("select count(*) from pg_stat_activity where state = 'active'"
        " and query like '%pg_sleep(23)' and pid <> pg_backend_pid()")
    assert cur.fetchone() == (0,)
print("well")
"""
    assert run_python(script).strip() == "well"


# -- Import and patching in every order

ORDERS = {
    "gevent, before the patching": """
import greenwait, greenwait.gevent
from gevent import monkey
monkey.patch_all()""",
    "gevent, after the patching": """
from gevent import monkey
monkey.patch_all()
import greenwait, greenwait.gevent""",
    "gevent, before, threads are not patched": """
import greenwait, greenwait.gevent
from gevent import monkey
monkey.patch_all(thread=False)""",
    "gevent, after, threads are not patched": """
from gevent import monkey
monkey.patch_all(thread=False)
import greenwait, greenwait.gevent""",
    "eventlet, before the patching": """
import greenwait, greenwait.eventlet
eventlet.monkey_patch()""",
    "eventlet, after the patching": """
eventlet.monkey_patch()
import greenwait, greenwait.eventlet""",
    "eventlet, before, threads are not patched": """
import greenwait, greenwait.eventlet
eventlet.monkey_patch(os=True, select=True, socket=True, time=True)""",
    "eventlet, after, threads are not patched": """
eventlet.monkey_patch(os=True, select=True, socket=True, time=True)
import greenwait, greenwait.eventlet""",
}
LOOKUPS = """
import gc, os, sys, time
import psycopg2
from tools.postgres import reserved_port
getattr(greenwait, NAME).patch_psycopg()

def threads():
    return len(os.listdir("/proc/self/task"))

def use():
    give_up = time.monotonic() + 5
    while threads() > first and time.monotonic() < give_up:
        sleep(0.001)
    gc.collect()
    hubs = sum(type(each).__name__ in ("Hub", "loop") for each in gc.get_objects())
    return threads(), len(os.listdir("/proc/self/fd")), hubs

def connect_in_vain(count):
    for _ in range(count):
        try:
            greenwait.connect(f"host=localhost port={port} user=x dbname=x")
        except psycopg2.OperationalError as exc:
            assert "refused" in str(exc), exc
        else:
            raise AssertionError
with reserved_port() as port:
    first = threads()
    connect_in_vain(10)
    before = use()
    connect_in_vain(1000)
    print("flat", use() == before or (before, use()))
"""


@pytest.mark.parametrize("order", ORDERS)
def test_thousand_lookups_leave_no_thread_no_descriptor_and_no_hub(run_python, order):
    name = order.partition(",")[0]
    head = (
        f"import sys, warnings; sys.path.insert(0, '..'); NAME = {name!r}\n"
        "warnings.simplefilter('ignore')\n"
        + ("import eventlet" if name == "eventlet" else "")
        + ORDERS[order]
        + f"\nfrom {name} import sleep\n"
    )
    assert run_python(head + LOOKUPS) == "flat True\n"


@pytest.mark.parametrize("order", ORDERS)
def test_others_run_while_a_name_is_looked_up(run_python, order):
    """In a thread of its own, though the framework has patched threads and name servers."""
    name = order.partition(",")[0]
    script = (
        f"NAME = {name!r}\nimport warnings\nwarnings.simplefilter('ignore')\n"
        + ("import eventlet" if name == "eventlet" else "import gevent")
        + ORDERS[order]
        + """
import _thread, threading
from greenwait._connections import lookup as lookups
getattr(greenwait, NAME).patch_psycopg()
framework = gevent if NAME == "gevent" else eventlet
asked, turns = [], []
def getaddrinfo(*args, **keywords):
    asked.append(threading.get_native_id())
    while len(turns) < 5:
        pass
    return real(*args, **keywords)
real, lookups._getaddrinfo = lookups._getaddrinfo, getaddrinfo
def count():
    while True:
        turns.append(1)
        framework.sleep(0.001)
framework.spawn(count)
lookup = lookups.Lookup("localhost")
greenwait.wait(lookup)
assert lookup.addresses and asked != [threading.get_native_id()], (asked, lookup.error)
print("well")
"""
    )
    assert run_python(script) == "well\n"


# -- The interpreter's exit

LAST_WORDS = {
    "idle connection": """
kept = connect()
one(kept, "select 1")""",
    "of another greenlet": """
join([spawn(lambda: one(connect(), "select 1"))])""",
    "pending wait": """
kept = connect()
spawn(one, kept, "select pg_sleep(100)")
sleep(0.1)""",
    "pending wait with a deadline": """
kept = connect()
def work():
    with greenwait.timeout(50):
        one(kept, "select pg_sleep(100)")
spawn(work)
sleep(0.1)""",
    "finalizer": """
import builtins  # what is kept there is freed while there still is a sys.stderr
class Late:
    def __init__(self):
        self.conn = connect()
        one(self.conn, "select 1")
    def __del__(self):
        self.conn.rollback()
builtins.late = Late()""",
    "finalizer of a guarded connection": """
import builtins
class Late:
    def __init__(self):
        self.conn = greenwait.connect(DSN)
        one(self.conn, "select 1")
    def __del__(self):
        self.conn.rollback()
builtins.late = Late()""",
    "finalizer of one that is at work": """
import builtins
class Late:
    def __init__(self):
        self.conn = greenwait.connect(DSN)
    def __del__(self):
        try:
            self.conn.rollback()
        except psycopg2_error as exc:
            assert "at interpreter exit" in str(exc), exc
        else:
            raise AssertionError
psycopg2_error = psycopg2.ProgrammingError
builtins.late = Late()
spawn(one, builtins.late.conn, "select pg_sleep(100)")
sleep(0.1)""",
    "notifications": """
kept = greenwait.connect(DSN)
kept.autocommit = True
spawn(lambda: list(greenwait.notifies(kept)))
sleep(0.1)""",
    "atexit": """
import atexit
kept = connect()
atexit.register(lambda: join([spawn(one, kept, "select 1")]))""",
}


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
def test_nothing_is_said_at_interpreter_exit(run_python, name, loop, is_patched, case):
    head = f"import os\nos.environ['GEVENT_LOOP'] = {loop!r}\n" if loop else ""
    patch = PATCHES[name] if is_patched else ""
    prelude = textwrap.dedent(PRELUDES[name])
    assert run_python("\n".join([head, patch, prelude, COMMON, LAST_WORDS[case]])) == ""


# -- The hub's own greenlet, where a finalizer may run

SILENT_COMMON = f"""
import sys
sys.path.insert(0, "..")
{COMMON}
from tests.lab.freezers import frozen
def stop_hub(function):
    # What it raises, and how long it took, in the hub's greenlet.
    ended = []
    def call():
        began = time.monotonic()
        try:
            function()
        except Exception as exc:
            ended.append(exc)
        else:
            ended.append(None)
        ended.append(time.monotonic() - began)
    call_in_hub(call)
    while len(ended) < 2:
        sleep(0.01)
    return ended
"""


@pytest.mark.parametrize("factory", ["psycopg2.extensions.connection", "greenwait.Connection"])
def test_rollback_of_a_finalizer_in_the_hub_has_the_grace_and_no_more(run, factory):
    run(
        """
        greenwait.uninstall()
        patch_psycopg(cancel_grace=0.5)
        class Owner:
            def __init__(self):
                self.conn = connect(connection_factory=FACTORY)
            def __del__(self):
                try:
                    self.conn.rollback()
                except psycopg2.OperationalError as exc:
                    said.append(str(exc))
        def collect():
            global owner
            del owner
        for _ in range(5):  # on a busy machine the best one counts
            said = []
            owner = Owner()
            one(owner.conn, "select 1")
            conn = owner.conn
            watcher.rollback()
            with frozen(conn.info.backend_pid):
                failure, took = stop_hub(collect)
            assert took > 0.49, took
            assert "not answered a rollback within 0.5 s" in said[0], said
            assert conn.closed
            assert one(connect(), "select 1") == 1
            if took < 1:
                break
        assert took < 1, took
    """.replace("FACTORY", factory),
        common=SILENT_COMMON,
    )


def test_rollback_in_the_hub_that_is_answered_keeps_the_connection(run):
    run(
        """
        conn = connect()
        one(conn, "select 1")
        assert stop_hub(lambda: conn.rollback())[0] is None
        assert one(conn, "select 2") == 2
    """,
        common=SILENT_COMMON,
    )


def test_other_statements_in_the_hub_take_as_long_as_they_take(run):
    run(
        """
        greenwait.uninstall()
        patch_psycopg(cancel_grace=0.2)
        conn = connect()
        assert stop_hub(lambda: one(conn, "select pg_sleep(0.6)"))[0] is None
        conn.rollback()
        assert one(conn, "select 2") == 2
    """,
        common=SILENT_COMMON,
    )


def test_connection_that_is_at_work_is_not_waited_for_in_the_hub(run):
    """Its greenlet would go on only when the hub does."""
    run(
        """
        conn, locker = greenwait.connect(DSN), connect()
        one(locker, "select pg_advisory_xact_lock(1)")
        job = spawn(one, conn, "select 'answer' from pg_advisory_xact_lock(1)")
        sleep(0.1)
        failure, took = stop_hub(lambda: conn.rollback())
        assert isinstance(failure, psycopg2.ProgrammingError), failure
        assert "in an event loop's own greenlet" in str(failure) and took < 5
        locker.rollback()
        assert join([job]) == ["answer"]
    """,
        common=SILENT_COMMON,
    )


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
