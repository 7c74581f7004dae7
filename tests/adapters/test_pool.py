"""The pool, with greenlets of gevent's and eventlet's in line."""


def test_pool_has_one_line_for_greenlets_and_threads(run):
    run()


def test_native_threads_and_greenlets_share_a_pool(run):
    run()


def test_all_greenlets_wait_for_a_thread(run):
    """Nothing but the other thread will wake them, which the loop must wait for."""
    run()


def test_thousand_greenlets_wait_in_line_without_a_descriptor_each(run):
    run()
