import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import cloudpickle
import pytest

from cxrtool.data.confinement import check_inside, confined_to, confinement
from cxrtool.errors import CxrtoolError, ImageError, InputError, OutputError, UsageError
from cxrtool.flow import cluster as module
from cxrtool.flow.cluster import Cluster, Place, versions
from cxrtool.flow.parallel import map_items, run_each
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def square(number):
    return number * number


def misbehave(number):
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 20:
        raise ValueError("bad header")
    if number == 21:
        raise InputError("not this one", "but that one")
    return number


def fill(number):
    raise OutputError("no space left", "free some")


def write(path):
    check_inside(path)
    Path(path).write_text("done")
    return os.getcwd(), confinement(), os.getpid()  # noqa: PTH109


def threads(_):
    import cv2
    import torch

    return cv2.getNumThreads(), torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


@pytest.fixture(scope="module")
def dask_cluster():
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as started,
    ):
        yield started


@pytest.fixture
def cluster(dask_cluster):
    # A worker that was killed is being started again.
    return Cluster(dask_cluster.scheduler_address, 1, str)


def test_results_come_in_order_and_lazily(cluster):
    taken = []

    def items():
        for number in range(300):
            taken.append(number)
            yield number

    stream = map_items(square, items(), cluster=cluster)
    assert next(stream) == (0, 0)
    assert len(taken) <= 4 * 2 * 8
    assert list(stream) == [(n, n * n) for n in range(1, 300)]


def test_nothing_to_do_connects_to_nothing():
    assert list(map_items(square, [], cluster=Cluster("tcp://127.0.0.1:1", 1, pytest.fail))) == []


def test_one_bad_item_costs_that_item_alone(cluster):
    results = dict(map_items(misbehave, range(40), cluster=cluster))
    assert list(results) == list(range(40))
    assert isinstance(results[13], ImageError)
    assert "crashed" in results[13].message
    assert results[20].message == "cannot be decoded: ValueError: bad header"
    assert (results[21].message, results[21].hint) == ("not this one", "but that one")
    assert all(results[n] == n for n in range(40) if n not in (13, 20, 21))


def test_what_is_not_the_fault_of_an_item_ends_the_step(cluster):
    with pytest.raises(OutputError, match="no space left"):
        list(map_items(fill, range(30), cluster=cluster))


def test_a_worker_writes_where_the_step_may_and_paths_are_as_here(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    with confined_to(tmp_path / "out"):
        ((_, found),) = cluster.map(partial(run_each, write), ["out/a.txt"], 1)
        assert found[:2] == (str(tmp_path), ([str(tmp_path / "out")], confinement()[1]))
        with pytest.raises(OutputError, match="inside the output folder"):
            list(cluster.map(partial(run_each, write), ["b.txt"], 1))
    # What held for one command does not hold for the next.
    ((_, found),) = cluster.map(partial(run_each, write), ["b.txt"], 1)
    assert found[1][0] == []
    assert found[2] != os.getpid()


def test_a_worker_has_one_thread(cluster):
    assert [found for _, found in cluster.map(partial(run_each, threads), range(2), 1)] == [(1, 1, "1")] * 2


class Opened:
    """What does jobs: some fail, and some run until nobody wants them."""

    def __init__(self, folder, report, request):
        self.folder, self.report, self.request = folder, report, request

    def __call__(self, job):
        if job == "ill":
            while not (self.folder / "begun").exists():
                time.sleep(0.05)
            raise InputError("cannot be trained", "do this")
        if job == "fatal":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "long":
            (self.folder / "begun").write_text("so far")
            while True:
                time.sleep(0.05)
                if error := self.request.error():
                    (self.folder / "saved").write_text("so far")
                    raise error
        self.report.warn(f"{job} is odd")
        self.report.say(f"{job} is done")
        (self.folder / job).write_text("done")


def test_jobs_are_done_and_their_messages_are_shown(cluster, tmp_path, listener):
    jobs = [f"job {k}" for k in range(5)]
    cluster.do(partial(Opened, tmp_path), jobs, listener, StopRequest())
    assert sorted(path.name for path in tmp_path.iterdir()) == jobs
    assert listener.said == [f"{job} is done" for job in jobs]
    assert listener.warned == [f"{job} is odd" for job in jobs]


@pytest.mark.parametrize(
    ("job", "message"), [("ill", "ill: cannot be trained"), ("fatal", "fatal: its process was ended again and again")]
)
def test_a_job_that_fails_ends_the_others_which_save_their_state(cluster, tmp_path, listener, job, message):
    with pytest.raises(CxrtoolError) as caught:
        cluster.do(partial(Opened, tmp_path), [job, "long"] if job == "ill" else [job], listener, StopRequest())
    assert caught.value.message.startswith(message)
    deadline = time.monotonic() + 10
    while job == "ill" and not (tmp_path / "saved").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nobody_answers(monkeypatch, capfd):
    monkeypatch.setattr(module, "_PATIENCE", 1)
    began = time.monotonic()
    with pytest.raises(CxrtoolError, match="expected a Dask scheduler, found that nobody answers") as caught:
        list(map_items(square, [1], cluster=Cluster("127.0.0.1:1", 1, pytest.fail)))
    assert caught.value.exit_code == 1
    assert time.monotonic() - began < 10
    assert capfd.readouterr() == ("", "")


def test_what_is_no_address():
    with pytest.raises(UsageError, match="expected local, an address such as tcp://host:8786"):
        list(map_items(square, [1], cluster=Cluster("here", 1, pytest.fail)))


def test_the_file_of_a_scheduler(dask_cluster, tmp_path):
    import json

    told = {"address": dask_cluster.scheduler_address, "type": "Scheduler", "id": "x", "workers": {}, "services": {}}
    (tmp_path / "scheduler.json").write_text(json.dumps(told))
    at = Cluster(str(tmp_path / "scheduler.json"), 1, str)
    assert list(map_items(square, [3], cluster=at)) == [(3, 9)]


def test_no_worker_yet_is_said_once():
    from distributed import LocalCluster

    said = []
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50) as empty:

        def say(text):
            said.append(text)
            empty.scale(1)

        at = Cluster(empty.scheduler_address, 1, say)
        assert dict(map_items(square, range(40), cluster=at)) == {n: n * n for n in range(40)}
    assert said == [f"{at.address}: no worker is connected yet; waiting"]


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CxrtoolError, match="not installed") as caught:
        list(map_items(square, [1], cluster=Cluster("tcp://127.0.0.1:2", 1, pytest.fail)))
    assert caught.value.hint == "`pip install 'cxrtool[cluster]'`"


@pytest.mark.parametrize("name", ["cxrtool", "Python", "numpy"])
def test_other_versions_on_the_workers(cluster, monkeypatch, name):
    changed = tuple((one, "0.1" if one == name else known) for one, known in versions())
    monkeypatch.setattr(module, "versions", lambda: changed)
    with pytest.raises(CxrtoolError, match=rf"expected {name} 0.1 on every worker, as here, found [0-9.]+ on"):
        list(map_items(square, [1], cluster=cluster))


def test_workers_that_see_other_files(cluster, monkeypatch, tmp_path):
    here = Place.here
    seen = []

    def elsewhere(items):
        seen.append(here(items))
        return Place(versions(), str(tmp_path), (*seen[-1].files, "/nowhere/out"))

    monkeypatch.setattr(Place, "here", elsewhere)
    with pytest.raises(CxrtoolError, match=r"every worker sees the same files, found that /nowhere/out is not there"):
        list(map_items(square, [{"path": str(tmp_path)}], cluster=cluster))
    assert seen[0].files == (str(tmp_path),)


def test_a_worker_forgets_what_an_earlier_command_left(tmp_path):
    from cxrtool.imaging.sheet import font

    font(11)
    assert font.cache_info().currsize
    assert module._fresh([1, 2], function=list, purpose="other") == [1, 2]
    assert not font.cache_info().currsize
    font(11)
    module._fresh([1], function=list, purpose="other")
    assert font.cache_info().currsize


def test_the_options_name_it():
    assert Cluster.of(Settings()) is None
    found = Cluster.of(Settings(cluster="local", workers=3))
    assert (found.address, found.workers) == ("local", 3)
