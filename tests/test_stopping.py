"""Signals in a process of its own, because some of them end it."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from cxrtool import stopping
from cxrtool.errors import StoppedError

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)]


def program(body, cwd=None):
    """Run a program that calls `send` for a signal; its exit code, standard error, and seconds."""
    head = """
        import os, signal, sys, time
        from cxrtool import stopping
        from cxrtool.errors import StoppedError
        stopping.start()
        def send(number=signal.SIGTERM):
            os.kill(os.getpid(), number)
    """
    began = time.monotonic()
    code = textwrap.dedent(head) + textwrap.dedent(body)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=cwd)
    return result.returncode, result.stderr, time.monotonic() - began


@pytest.mark.parametrize(("number", "code"), CODES)
def test_it_is_no_exception_that_a_library_drops(number, code):
    body = f"""
        try:
            try:
                send({number})
            except Exception:
                pass
        except StoppedError as stopped:
            stopping.leave(stopped.exit_code, stopped.message)
    """
    assert program(body)[:2] == (code, f"cxrtool: stopped by {number.name}; run the same command again to continue\n")


def test_code_that_drops_everything_meets_it_again():
    body = """
        try:
            try:
                send()
            except:
                pass
            while True:
                time.sleep(0.01)
        except StoppedError as stopped:
            stopping.leave(stopped.exit_code, stopped.message)
    """
    code, told, seconds = program(body)
    assert (code, len(told.splitlines())) == (143, 1)
    assert seconds < stopping.GRACE


def test_a_destructor_hides_it_for_a_moment_without_a_traceback():
    body = """
        class Thing:
            def __del__(self):
                send()
        try:
            Thing()
            while True:
                time.sleep(0.01)
        except StoppedError as stopped:
            stopping.leave(stopped.exit_code, stopped.message)
    """
    code, told, _ = program(body)
    assert (code, told) == (143, "cxrtool: stopped by SIGTERM; run the same command again to continue\n")


def test_during_an_import_it_leaves_at_once(tmp_path):
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\nprint('still here')\n")
    code, told, _ = program("import slow", tmp_path)
    assert (code, told) == (75, "cxrtool: stopped by SIGUSR1; run the same command again to continue\n")


def test_a_call_that_does_not_end_is_ended(tmp_path):
    body = """
        import hashlib
        def again(number, frame):
            pass
        try:
            send()
        except StoppedError:
            pass
        signal.signal(signal.SIGALRM, again)
        open("left", "w").close()
        stopping.unfinished.add("left")
        while True:
            time.sleep(1)
    """
    code, told, seconds = program(body, tmp_path)
    assert (code, len(told.splitlines())) == (143, 1)
    assert seconds < 5
    assert list(tmp_path.iterdir()) == []


def test_the_second_signal_leaves_and_a_repeated_one_is_the_first():
    body = """
        try:
            send()
        except StoppedError as stopped:
            stopping._state.told = True
            send()
            time.sleep(stopping.ECHO)
            stopping._state.told = False
            send(signal.SIGUSR1)
            print("still here")
    """
    code, told, _ = program(body)
    assert code == 75
    assert told.startswith("cxrtool: stopped at once by a second signal, SIGUSR1; ")


def test_two_renames_are_not_torn():
    body = """
        try:
            with stopping.Held():
                send()
                print("both", file=sys.stderr)
        except StoppedError as stopped:
            stopping.leave(stopped.exit_code, stopped.message)
    """
    code, told, _ = program(body)
    assert code == 143
    assert told.splitlines()[0] == "both"


def test_after_the_end_nothing_changes_the_exit_code():
    body = """
        import atexit
        atexit.register(send)
        stopping.finish(3)
    """
    assert program(body)[:2] == (3, "")


def test_a_call_from_python_gives_the_handlers_back():
    before = [signal.getsignal(number) for number in stopping.CODES]
    with pytest.raises(StoppedError, match="SIGTERM"), stopping.Heeded("x"):
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in stopping.CODES] == before
