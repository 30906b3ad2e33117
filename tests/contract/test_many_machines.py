"""The steps on images on a cluster, and in parts as tasks of a job array: the result is that of one command.

Folders are compared file by file, hidden ones included; only what tells the time may differ.
"""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrtool.flow.share import Share

GROWING = runpy.run_path(str(Path(__file__).with_name("test_growing.py")))
models, place, each, tree, IMAGES = (GROWING[name] for name in ("models", "place", "each", "tree", "IMAGES"))
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}


@pytest.fixture(scope="module")
def address():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


def hidden(out):
    return [path.name for path in out.parent.iterdir() if path.name.startswith(".")]


def spoil(place):
    """Make an image one that cannot be read, of which `transform` says that it was changed; return how many can be."""
    if place.step == "transform":
        return IMAGES
    for path in (place.raw / "im1.png", place.folder / "prepared" / "images" / "im1.png"):
        if path.exists():
            path.write_bytes(path.read_bytes()[:200])
    return IMAGES - 1


@each()
def test_a_cluster_gives_the_same_bytes(place, address):
    spoil(place)
    clean, _ = place.call("clean")
    out, _ = place.call("out", "--cluster", address)
    assert tree(out) == tree(clean)
    assert hidden(out) == []


@each()
def test_parts_in_any_order_give_the_same_bytes(place):
    images = spoil(place)
    clean, _ = place.call("clean")
    for number in (3, 1, 2):
        out, done = place.call("out", "--part", f"{number}/3")
        assert f"part {number}/3: " in done.err
        assert not out.exists()
    assert len(hidden(out)) == 3
    out, done = place.call()
    assert place.taken(done) == (2 if place.step == "transform" else 1) * images
    assert tree(out) == tree(clean)
    assert hidden(out) == []


@each("prepare", "segment", "enhance fold by fold", "transform", "predict")
def test_a_missing_part_is_made_with_the_whole(place):
    clean, _ = place.call("clean")
    place.call("out", "--part", "2/2")
    out, done = place.call()
    assert 0 < place.taken(done) < IMAGES
    assert tree(out) == tree(clean)
    assert hidden(out) == []


@each("enhance", "predict")
def test_a_part_takes_over_what_was_made_before(place):
    place.call()
    for name in ("new.png", "other.png"):
        (place.raw / name).write_bytes((place.folder / name).read_bytes())
    GROWING["write_table_of"](place.raw, [*place.names, "new.png", "other.png"])
    place.prepare()
    for number in (1, 2):
        place.call("out", "--part", f"{number}/2")
    out, done = place.call()
    assert place.taken(done) == IMAGES + 2
    GROWING["same_as_from_nothing"](place, out)


@each("enhance", "predict")
def test_the_whole_waits_for_no_part_that_is_being_made(place):
    from cxrtool.data.files import locked

    out, _ = place.call("out", "--part", "1/2")
    with (
        locked(Share(1, 2).lock(out.resolve())),
        pytest.raises(AssertionError, match=r"part 1/2 of .* is still being made"),
    ):
        place.call()
    with (
        locked(Share(1, 2).lock(out.resolve())),
        pytest.raises(AssertionError, match="another cxrtool is writing here"),
    ):
        place.call("out", "--part", "1/2")
    place.call()


def command(place, *more):
    return [sys.executable, "-m", "cxrtool", "enhance", place.folder / "prepared", "--steps", "clahe", *more]


@each("enhance")
def test_two_parts_at_once(place):
    clean, _ = place.call("clean")
    out = place.folder / "out"
    tasks = [
        subprocess.Popen(
            [*command(place, "-o", out, "--workers", "1"), "--part", f"{number}/2"], stderr=subprocess.PIPE
        )
        for number in (1, 2)
    ]
    for task in tasks:
        assert task.communicate()[1].startswith(b"part ")
        assert task.returncode == 0
    place.call()
    assert tree(out) == tree(clean)


@each("predict")
def test_a_part_of_predictions_needs_a_file(place):
    done = place.cxr("predict", place.folder / "model", place.raw, "--part", "1/2")
    assert done.code == 2
    assert "--part puts its answers beside a table: expected -o FILE" in done.err


@pytest.fixture
def many(place):
    """The place, with more images: the same ones under many names."""
    lines = [
        f"im{k % IMAGES}_{k},{place.folder / 'prepared' / 'images' / f'im{k % IMAGES}.png'}\n" for k in range(1600)
    ]
    (place.folder / "many.csv").write_text("image_id,path\n" + "".join(lines))
    return place


def start(many, out, workers):
    line = ["enhance", many.folder / "many.csv", "--steps", "clahe", "--cluster", "local", "--workers", str(workers)]
    child = [sys.executable, "-m", "cxrtool", *map(str, line), "-o", str(out)]
    # Whoever starts the tests in the background lets them ignore Ctrl-C.
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    environment = {**os.environ, "TMPDIR": str(many.folder / "temporary")}
    (many.folder / "temporary").mkdir(exist_ok=True)
    return subprocess.Popen(
        child, stderr=subprocess.PIPE, text=True, process_group=0, preexec_fn=listen, env=environment
    )


def wait_for_work(many, out, lines=40):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = list(out.parent.glob(f".{out.name}.*.partial/journal.jsonl"))
        if found and found[0].read_bytes().count(b"\n") > lines:
            return
        time.sleep(0.02)
    pytest.fail("no work was done")


def workers_of(process):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def is_over(group):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@each("enhance")
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.slow) for one in CODES if one != signal.SIGTERM)]
)
def test_a_signal_ends_a_cluster_of_this_machine(many, number):
    out = many.folder / "out"
    process = start(many, out, 2)
    wait_for_work(many, out)
    began = time.monotonic()
    # As a scheduler does, to all processes of the job.
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 6
    assert process.returncode == CODES[number]
    assert said == f"cxrtool enhance: stopped by {number.name}; run the same command again to continue\n"
    assert is_over(process.pid)
    assert list((many.folder / "temporary").iterdir()) == []


@pytest.mark.slow
@each("enhance")
def test_a_killed_worker_costs_its_tasks_alone(many):
    clean = many.folder / "clean"
    done = many.cxr("enhance", many.folder / "many.csv", "--steps", "clahe", "--workers", "1", "-o", clean)
    assert done.code == 0, done.err
    out = many.folder / "out"
    process = start(many, out, 3)
    wait_for_work(many, out)
    workers = workers_of(process)
    assert len(workers) == 3
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert said == done.err.replace("clean/", "out/")
    assert tree(out) == tree(clean)
    assert is_over(process.pid)
    assert list((many.folder / "temporary").iterdir()) == []


def who_trains(process, run):
    """The workers that have a file of the run open, such as the lock of a fold."""
    found = []
    for number in workers_of(process):
        for link in Path(f"/proc/{number}/fd").iterdir():
            try:
                if str(link.readlink()).startswith(str(run)):
                    found.append(number)
                    break
            except OSError:
                pass
    return found


@pytest.fixture
def trained(tmp_path, cxr, make_study):
    """A call of `train` in this process, or of a process of its own."""
    study = make_study(tmp_path)
    line = ["train", study.folder, "--splits", study.splits, "--model", "covid-xnet", "--size", "16"]
    line += [
        "--epochs",
        "8",
        "--save-every",
        "0",
        "--only",
        "r0f0,r0f1",
        "--threads",
        "1",
        "--workers",
        "2",
        "--cache",
        tmp_path / "cache",
    ]

    def call(out, *more, apart=False):
        words = [*map(str, line), "-o", str(tmp_path / out), *more]
        if apart:
            command = [sys.executable, "-m", "cxrtool", *words]
            return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0)
        done = cxr(*words)
        assert done.code == 0, done.err
        return tmp_path / out

    return call


def learnt(run):
    """The bytes of what the trainings of a run have made."""
    names = ("model.safetensors", "predictions.csv", "model.json", "splits.csv", "manifest.csv", "rejects.csv")
    return {
        path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("*")) if path.name in names
    }


def test_a_cluster_trains_the_same(trained, address):
    clean = learnt(trained("clean"))
    assert learnt(trained("out", "--cluster", address)) == clean
    assert any("model.safetensors" in name for name in clean)


@pytest.mark.slow
def test_a_killed_worker_costs_what_its_training_did_not_save(trained, tmp_path):
    clean = learnt(trained("clean"))
    process = trained("out", "--cluster", "local", "--workers", "3", apart=True)
    deadline = time.monotonic() + 90
    while not (busy := who_trains(process, tmp_path / "out")) or not list(tmp_path.glob("out/.r*/**/*.pt*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(busy[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert learnt(tmp_path / "out") == clean
    assert is_over(process.pid)


def test_a_cluster_and_jobs_exclude_one_another(trained):
    with pytest.raises(AssertionError, match="expected neither torchrun nor --jobs"):
        trained("out", "--cluster", "local", "--jobs", "2")
