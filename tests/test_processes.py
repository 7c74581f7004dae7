"""Forks, threads and the end of the interpreter."""

import pytest

from greenwait._sleep import POLLERS

PREAMBLE = '''
import atexit, os, signal, sys, threading, time
import psycopg2, greenwait
greenwait.install(poller=sys.argv[2])

def one(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]

def connect():
    return psycopg2.connect(sys.argv[1])

def lateness_of_a_signal(conn):
    """In a long query, of one that does not interrupt the sleep: another thread gets it."""
    late = []
    signal.signal(signal.SIGUSR1, lambda *_: late.append(time.monotonic() - sent))
    def send():
        global sent
        time.sleep(0.2)
        sent = time.monotonic()
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    helper = threading.Thread(target=send)
    helper.start()
    one(conn, "select pg_sleep(3)")
    helper.join()
    return late[0] if late else 3
'''


@pytest.fixture(params=POLLERS)
def run_green(request, run_python):
    """Return a function that runs a script with the callback installed, for every poller."""
    return lambda script, **options: run_python(PREAMBLE + script, request.param, **options)


def test_forked_child_queries_on_its_own_connection(run_green, transport):
    script = """
mine = connect()
one(mine)
for number in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(one(connect(), f"select {number} from pg_sleep(0.02)"))
    assert one(mine, "select 8 from pg_sleep(0.04)") == 8
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == number
print("ok")
"""
    assert run_green(script, transport=transport) == "ok\n"


def test_child_forked_from_a_thread_serves_signals(run_green):
    """The thread that forks is the child's main thread, where signal handlers run."""
    assert (
        run_green("""
def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if lateness_of_a_signal(connect()) < 2 else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

thread = threading.Thread(target=fork, daemon=True)
thread.start()
thread.join()
""")
        == "0\n"
    )


def test_process_that_closes_all_descriptors_can_go_on(run_green):
    """As a daemon does: greenwait's own descriptors are gone, and their numbers go to others."""
    assert (
        run_green("""
def descriptors(kind):
    links = {n: os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
    return [int(n) for n, to in links.items() if kind in to]

def take_until(number):
    while os.open(os.devnull, os.O_WRONLY) < number:
        pass

print(lateness_of_a_signal(connect()) < 2)
(timer,) = descriptors("timerfd") or [5]  # only Linux has it
os.closerange(3, 256)
take_until(timer - 1)
conn = connect()
assert conn.fileno() == timer
print(lateness_of_a_signal(conn) < 2)

def close_all_in_a_thread():
    global kept
    one(connect())
    os.closerange(3, 256)
    kept = [os.open(os.devnull, os.O_WRONLY) for _ in range(20)]
    one(connect())

worker = threading.Thread(target=close_all_in_a_thread)
worker.start()
worker.join()
print(all(os.write(number, b"x") for number in kept))
print(lateness_of_a_signal(connect()) < 2)
""")
        == "True\n" * 4
    )


def test_thread_that_ends_closes_only_its_own_descriptor(run_green):
    """Its number may have gone to a file, if somebody closed all descriptors meanwhile."""
    assert (
        run_green("""
queried, closed = threading.Event(), threading.Event()

def work():
    one(connect())
    queried.set()
    closed.wait(20)

thread = threading.Thread(target=work)
thread.start()
queried.wait(20)
os.closerange(3, 256)
kept = [os.open(os.devnull, os.O_WRONLY) for _ in range(20)]
closed.set()
thread.join()
print(all(os.write(number, b"x") for number in kept))
""")
        == "True\n"
    )


def test_main_thread_is_known_where_threading_is_patched(run_python):
    """gevent makes up the idents that threading gives; signals are the real main thread's."""
    patched = """
import threading, types
threading.main_thread = lambda: types.SimpleNamespace(ident=12345)
threading.get_native_id = lambda: 1  # the process's id is the main thread's on Linux only
"""
    script = """
conn = connect()
for _ in range(5):  # on a busy machine the best one counts
    greenwait.stats(reset=True)
    one(conn, "select pg_sleep(1)")
    if greenwait.stats().sleeps > 5:
        break
print(greenwait.stats().sleeps > 5)  # it looks for signals every 50 ms, other threads every second
"""
    assert run_python(patched + PREAMBLE + script, "poll") == "True\n"


def test_child_inherits_no_descriptor_and_keeps_what_it_opens(run_green):
    assert (
        run_green("""
one(connect())
pid = os.fork()
if pid == 0:
    inherited = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
    assert not [to for to in inherited if "anon_inode" in to], inherited
    os.closerange(3, 256)
    kept = [os.open(os.devnull, os.O_WRONLY) for _ in range(20)]
    one(connect())
    os._exit(0 if all(os.write(number, b"x") for number in kept) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""")
        == "0\n"
    )


def test_multiprocessing_workers_query(run_green):
    assert (
        run_green("""
import multiprocessing
def work(number):
    return one(connect(), f"select {number} * 2")
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(pool.map(work, range(6)))
""")
        == "[0, 2, 4, 6, 8, 10]\n"
    )


def test_query_in_atexit(run_green):
    assert (
        run_green("""
conn = connect()
atexit.register(lambda: print(one(conn, "select 'late' from pg_sleep(0.05)")))
""")
        == "late\n"
    )


def test_query_in_del_while_modules_are_torn_down(run_green):
    assert (
        run_green("""
class Late:
    def __init__(self):
        self.conn = connect()
        self.cur, self.write = self.conn.cursor(), os.write  # cursor() can't import any more
    def __del__(self):
        self.cur.execute("select '7' from pg_sleep(0.05)")
        self.write(1, self.cur.fetchone()[0].encode())

late = Late()
late.self = late  # a cycle: collected after the module's names are gone
""")
        == "7"
    )


def test_guarded_connection_in_del_while_modules_are_torn_down(run_green):
    """When greenlet refuses to say which one is at work."""
    assert (
        run_green("""
import builtins, greenwait
class Late:
    def __init__(self):
        self.conn = psycopg2.connect(sys.argv[1], connection_factory=greenwait.Connection)
        one(self.conn, "select 1")
        self.write = os.write
    def __del__(self):
        self.conn.rollback()
        self.write(1, b"rolled back, ")
        self.conn.close()
        self.write(1, b"closed")

builtins.late = Late()
""")
        == "rolled back, closed"
    )


def test_daemon_threads_in_a_query_do_not_disturb_the_exit(run_green):
    assert (
        run_green("""
def query():
    started.release()
    one(connect(), "select pg_sleep(30)")

started = threading.Semaphore(0)
for _ in range(5):
    threading.Thread(target=query, daemon=True).start()
for _ in range(5):
    started.acquire()
time.sleep(0.2)
print("bye")
""")
        == "bye\n"
    )


def test_sigterm_ends_a_process_that_waits(run_green):
    """SystemExit from a handler leaves by the front door."""
    assert (
        run_green("""
def stop(*_):
    raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
try:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    one(connect(), "select pg_sleep(30)")
finally:
    print("left")
""")
        == "left\n"
    )


def test_threads_that_come_and_go_leak_no_memory(run_green):
    """200,000 waits and 200 threads: the resident size stays."""
    assert (
        run_green("""
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

class Stub:
    left = 0
    def poll(self):
        self.left -= 1
        return 2 if self.left > 0 else 0
    def fileno(self):
        return writable

_, writable = os.pipe()
callback = psycopg2.extensions.get_wait_callback()

def work(waits):
    for _ in range(waits):
        stub = Stub()
        stub.left = 3
        callback(stub)

def round():
    for _ in range(100):
        thread = threading.Thread(target=work, args=(500,), daemon=True)
        thread.start()
        thread.join()
    work(50_000)

round()
before = resident()
round()
print(resident() - before < 1_000_000)
""")
        == "True\n"
    )
