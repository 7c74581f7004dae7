"""install(), uninstall(), installed(): the one callback of the process, and what it replaced."""

import threading

import pytest
from psycopg2.extensions import get_wait_callback, set_wait_callback
from psycopg2.extras import wait_select

import greenwait
from greenwait import _install


def test_install_registers_a_configured_callback():
    callback = greenwait.install(spin="auto")
    assert get_wait_callback() is callback
    assert callback.spin == "auto"
    greenwait.uninstall()


@pytest.mark.parametrize("before", [None, wait_select, greenwait.wait])
def test_uninstall_puts_back_what_was_there(before):
    set_wait_callback(before)
    greenwait.install()
    greenwait.uninstall()
    assert get_wait_callback() is before


def test_install_nests():
    callbacks = [None, *(greenwait.install() for _ in range(3))]
    while callbacks:
        assert get_wait_callback() is callbacks.pop()
        if callbacks:
            greenwait.uninstall()


def test_uninstall_without_install_is_a_runtime_error():
    with pytest.raises(RuntimeError, match="nothing to uninstall"):
        greenwait.uninstall()


@pytest.mark.parametrize("foreign", [None, wait_select])
def test_uninstall_leaves_a_callback_that_came_later(foreign):
    mine = greenwait.install()
    set_wait_callback(foreign)
    with pytest.raises(RuntimeError, match="was registered after greenwait") as info:
        greenwait.uninstall()
    assert repr(foreign) in str(info.value)
    assert get_wait_callback() is foreign
    set_wait_callback(mine)
    greenwait.uninstall()
    assert get_wait_callback() is None


def test_installed_as_context_manager():
    with greenwait.installed(spin="auto") as callback:
        assert get_wait_callback() is callback
        with greenwait.installed() as inner:
            assert get_wait_callback() is inner
        assert get_wait_callback() is callback
    assert get_wait_callback() is None


def test_installed_puts_back_after_an_exception():
    with pytest.raises(ZeroDivisionError), greenwait.installed():
        raise ZeroDivisionError
    assert get_wait_callback() is None


def test_installed_object_can_be_used_again_and_within_itself():
    again = greenwait.installed()
    with again, again:
        pass
    with again as callback:
        assert get_wait_callback() is callback
    assert get_wait_callback() is None


def test_installed_as_decorator_of_a_recursive_function():
    @greenwait.installed(spin="auto")
    def depth(n):
        callback = get_wait_callback()
        assert callback
        assert callback.spin == "auto"
        return n if n == 0 else depth(n - 1)

    assert depth(5) == 0
    assert get_wait_callback() is None


def test_installed_checks_its_options_at_once():
    with pytest.raises(ValueError, match="poller='kqueue'"):
        greenwait.installed(poller="kqueue")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_install_with_a_bad_option_registers_nothing():
    with pytest.raises(TypeError, match="no option 'poler'"):
        greenwait.install(poler="poll")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert get_wait_callback() is None


def test_blocks_that_end_out_of_turn_put_back_the_first_callback():
    first, second = greenwait.installed(), greenwait.installed()
    set_wait_callback(wait_select)
    first.__enter__()
    later = second.__enter__()
    first.__exit__(None, None, None)
    assert get_wait_callback() is later
    second.__exit__(None, None, None)
    assert get_wait_callback() is wait_select


def test_many_threads_enter_and_leave():
    gate = threading.Barrier(8)

    def work():
        gate.wait(20)
        for _ in range(1000):
            with greenwait.installed():
                pass

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert get_wait_callback() is None


def test_block_that_ends_out_of_turn_leaves_a_callback_that_came_between():
    first, second = greenwait.installed(), greenwait.installed()
    first.__enter__()
    set_wait_callback(wait_select)
    second.__enter__()
    with pytest.raises(RuntimeError, match=r"wait_select.*was registered after greenwait"):
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert get_wait_callback() is wait_select


def test_uninstall_within_a_block_is_about_install_only():
    with greenwait.installed(), pytest.raises(RuntimeError, match="nothing to uninstall"):
        greenwait.uninstall()
    greenwait.install()
    with greenwait.installed() as callback:
        greenwait.uninstall()
        assert get_wait_callback() is callback
    assert get_wait_callback() is None


def test_block_with_a_foreign_callback_is_left_for_good():
    with pytest.raises(RuntimeError, match="was registered after"), greenwait.installed():
        set_wait_callback(wait_select)
    assert get_wait_callback() is wait_select
    with pytest.raises(RuntimeError, match="nothing to uninstall"):
        greenwait.uninstall()


def test_interrupt_in_the_middle_leaves_no_entry(monkeypatch):
    def interrupted(callback):
        set_wait_callback(callback)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(_install, "set_wait_callback", interrupted)
    with pytest.raises(KeyboardInterrupt):
        greenwait.install()
    assert get_wait_callback() is None
    assert _install._entries == []
    callback = greenwait.install()
    monkeypatch.setattr(_install, "set_wait_callback", interrupted)
    with pytest.raises(KeyboardInterrupt), greenwait.installed():
        pass
    with pytest.raises(KeyboardInterrupt), greenwait.installed():
        monkeypatch.setattr(_install, "set_wait_callback", interrupted)
    assert get_wait_callback() is callback
    greenwait.uninstall()
    assert get_wait_callback() is None
