import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from cxrtool.errors import CxrtoolError, InputError, StoppedError
from cxrtool.flow.side_by_side import side_by_side
from cxrtool.flow.signals import StopRequest


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


def start(folder, report, request):
    """Jobs are words; some mean something."""

    def do(job):
        report.say(f"{job} begins")
        with report.progress(job, 3) as advance:
            for _ in range(3):
                advance(1)
                (folder / f"{job}.began").touch()
                if job in ("wrong", "killed"):
                    wait_for(folder / "endless.began")
                if job == "wrong":
                    raise InputError("no such image", "look for it")
                if job == "bug":
                    raise ZeroDivisionError("by nothing")
                if job == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                while job.startswith("endless") and not request.error():
                    time.sleep(0.01)
                if request.error():
                    (folder / f"{job}.state").write_text("saved")
                request.raise_if_stopped()
        (folder / job).write_text(str(os.getpid()))

    return do


class Watching:
    """A listener that counts progress."""

    def __new__(cls, listener):
        from contextlib import contextmanager

        listener.done = {}

        @contextmanager
        def progress(label, total):
            listener.done[label] = 0

            def advance(count):
                listener.done[label] += count

            yield advance

        @contextmanager
        def together():
            yield listener

        listener.progress, listener.together = progress, together
        return listener


@pytest.fixture
def watching(listener):
    return Watching(listener)


def run(tmp_path, jobs, report, count=2, request=None):
    side_by_side(partial(start, tmp_path), jobs, count, report, request or StopRequest())


def test_every_job_is_done_once_in_as_many_processes_as_asked(tmp_path, watching):
    jobs = ["a", "b", "c", "d", "e"]
    run(tmp_path, jobs, watching)
    processes = [(tmp_path / job).read_text() for job in jobs]
    assert str(os.getpid()) not in processes
    assert len(set(processes)) == 2
    assert sorted(watching.said) == [f"{job} begins" for job in jobs]
    assert watching.done == dict.fromkeys(jobs, 3)


@pytest.mark.parametrize(
    ("job", "kind", "text"),
    [
        ("wrong", InputError, "wrong: no such image"),
        ("killed", CxrtoolError, "killed: its process was ended by signal 9"),
    ],
)
def test_an_error_is_told_with_its_job_and_the_others_save_their_state(tmp_path, watching, job, kind, text):
    with pytest.raises(kind, match=text) as caught:
        run(tmp_path, ["endless", job, "never"], watching)
    assert caught.value.hint
    assert (tmp_path / "endless.state").exists()
    assert not (tmp_path / "never").exists()


def test_a_bug_keeps_its_traceback(tmp_path, watching):
    with pytest.raises(ZeroDivisionError, match="by nothing") as caught:
        run(tmp_path, ["bug"], watching)
    assert "in do" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 75)])
def test_a_signal_lets_all_save_their_state(tmp_path, watching, number, code):
    def send():
        while len(watching.done) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), getattr(signal, number))

    threading.Thread(target=send).start()
    with StopRequest() as request, pytest.raises(StoppedError, match=number) as caught:
        run(tmp_path, ["endless", "endless too"], watching, request=request)
    assert caught.value.exit_code == code
    assert (tmp_path / "endless.state").exists()


def test_no_process_is_left(tmp_path, watching):
    import multiprocessing

    run(tmp_path, ["a"], watching)
    assert not multiprocessing.active_children()


def test_signals_wait_in_the_first_process_too(tmp_path):
    # In a process of its own: what Python starts beside the first process of all is not there yet.
    script = tmp_path / "script.py"
    script.write_text(
        """
import signal
from pathlib import Path

from cxrtool.flow.settings import Silent
from cxrtool.flow.side_by_side import side_by_side
from cxrtool.flow.signals import StopRequest


def start(report, request):
    return lambda job: Path(job).write_text(str([int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])]))


if __name__ == "__main__":
    with StopRequest() as request:
        side_by_side(start, ["one", "two"], 2, Silent(), request)
"""
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True)
    for name in ("one", "two"):
        assert {signal.SIGINT, signal.SIGTERM} <= set(json.loads((tmp_path / name).read_text())), name
