import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from cxrtool.errors import ImageError, InputError, LeakageError, OutputError
from cxrtool.flow import parallel
from cxrtool.flow.parallel import map_items


def square(number):
    return number * number


def misbehave(number):
    """A decoder as the world has them."""
    if number % 50 == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 20:
        raise ValueError("bad\nheader")
    if number == 21:
        raise InputError("not this one", "but that one")
    if number == 22:
        raise MemoryError
    return number


def fill_the_disk(number):
    raise OSError(errno.ENOSPC, "No space left on device")


def leak(number):
    raise LeakageError("seen")


def lack(number):
    raise ImportError("libGL.so.1")


def doze(number):
    time.sleep(0.05)
    return number


def test_results_come_in_order_and_lazily():
    taken = []

    def items():
        for number in range(500):
            taken.append(number)
            yield number

    stream = map_items(square, items(), workers=2)
    assert next(stream) == (0, 0)
    assert len(taken) <= 4 * 2 * 8
    assert list(stream) == [(n, n * n) for n in range(1, 500)]


def test_nothing_to_do_is_nothing_done():
    assert list(map_items(square, [])) == []


def test_one_bad_item_costs_that_item_alone():
    results = dict(map_items(misbehave, range(70), workers=2))
    crashed = {13, 63}
    assert set(results) == set(range(70))
    for number, result in results.items():
        if number in crashed:
            assert isinstance(result, ImageError)
            assert "crashed" in result.message
        elif number not in (20, 21, 22):
            assert result == number
    assert results[20].message == "cannot be decoded: ValueError: bad"
    assert (results[21].message, results[21].hint) == ("not this one", "but that one")
    assert "memory" in results[22].message


def test_a_crash_while_the_caller_is_busy_is_survived():
    seen = []
    # More items than are in flight at once: the caller comes back with new work to a pool that has died meanwhile.
    for number, _ in map_items(misbehave, range(60), workers=1):
        seen.append(number)
        time.sleep(0.01)
    assert seen == list(range(60))


@pytest.mark.parametrize(
    ("function", "error"), [(fill_the_disk, OutputError), (leak, LeakageError), (lack, ImportError)]
)
def test_what_is_not_the_fault_of_an_item_ends_the_step(function, error):
    with pytest.raises(error):
        list(map_items(function, range(3)))


def test_workers_leave_when_their_parent_is_killed(tmp_path):
    code = (
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "from cxrtool.flow.parallel import map_items\nfrom test_parallel import doze\n"
        "if __name__ == '__main__':\n"
        "    for number, _ in map_items(doze, range(10_000), workers=2):\n        print('on', flush=True)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    parent = subprocess.Popen(
        [sys.executable, script, here], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
    )
    parent.stdout.readline()
    family = parent.pid
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.killpg(family, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(family, signal.SIGKILL)
    pytest.fail("workers outlived their parent")


def test_leaving_early_leaves_no_work_running():
    stream = map_items(doze, range(1000), workers=2)
    next(stream)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 5


def test_nothing_to_do_starts_no_process(monkeypatch):
    monkeypatch.setattr("cxrtool.flow.parallel._start_server", lambda: pytest.fail("started"))
    assert list(map_items(str, [], workers=2)) == []


HALF_REMOVED = """
from multiprocessing import resource_tracker
from cxrtool.flow.parallel import map_items
if __name__ == "__main__":
    assert list(map_items(abs, [-1])) == [(-1, 1)]
    resource_tracker.register("/mp-nowhere", "semaphore")
"""


def test_a_semaphore_that_a_signal_left_half_removed_is_no_news(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(HALF_REMOVED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_without_the_process_that_makes_workers_another_one_does(monkeypatch):
    from multiprocessing import forkserver

    server = forkserver._forkserver
    list(map_items(square, [1], workers=1))
    real = parallel._open_pool

    def open_pool(workers, context):
        pool = real(workers, context)
        os.kill(server._forkserver_pid, signal.SIGKILL)
        os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOWAIT)
        # It is found out only when the first worker is started; meanwhile it counts as running.
        monkeypatch.setattr(server, "ensure_running", lambda: monkeypatch.undo())
        return pool

    monkeypatch.setattr(parallel, "_open_pool", open_pool)
    assert list(map_items(square, [2, 3], workers=1)) == [(2, 4), (3, 9)]
