import fcntl
import os
import subprocess
import sys
import time

import pytest

from cxrtool.data import leftovers
from cxrtool.data.files import atomic_path, scratch_folder
from cxrtool.data.leftovers import is_temporary, remove_temporaries, temporary_name


@pytest.fixture(autouse=True)
def not_yet_searched(monkeypatch):
    monkeypatch.setattr(leftovers, "_searched", set())


def leave(folder, name="a.csv"):
    """A temporary of a process that was killed; its name."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom cxrtool.data.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as path:\n    path.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, folder / name], check=False)
    (left,) = [path for path in folder.iterdir() if path.name.startswith(f".{name}.")]
    return left


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    left = leave(tmp_path)
    assert is_temporary(left.name)
    with atomic_path(tmp_path / "b.csv") as path:
        assert not left.exists()
        path.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]


def test_what_a_living_process_writes_stays(tmp_path):
    with atomic_path(tmp_path / "a.csv") as path:
        remove_temporaries(tmp_path)
        assert path.exists()


def test_another_process_with_the_same_number_is_another_process(tmp_path):
    started = leftovers._started(os.getpid())
    for began, stays in ((started, True), (started + 1, False)):
        name = f".a.csv.{leftovers._machine()}-{os.getpid()}-{began}-0.tmp.csv"
        (tmp_path / name).write_text("half")
        leftovers._searched.clear()
        remove_temporaries(tmp_path)
        assert (tmp_path / name).exists() == stays


def test_what_another_machine_writes_stays_unless_it_is_old_and_free(tmp_path):
    path = tmp_path / ".a.csv.00000000-1-1-0.tmp.csv"
    path.write_text("half")
    remove_temporaries(tmp_path)
    assert path.exists()
    hours_ago = time.time() - 2 * leftovers._ABANDONED
    os.utime(path, (hours_ago, hours_ago))
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        leftovers._searched.clear()
        remove_temporaries(tmp_path)
        assert path.exists()
    leftovers._searched.clear()
    remove_temporaries(tmp_path)
    assert not path.exists()


def test_files_of_others_are_never_touched(tmp_path):
    names = [".a.tmp", ".a.csv.lock", ".a.csv.12ab-1-1-0.tmp", "a.csv.00000000-1-1-0.tmp", ".git", ".~lock.a.csv#"]
    for name in names:
        (tmp_path / name).write_text("")
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    "name", ["a" * 255, "\u00fc" * 120 + ".csv", "a.csv", "x.1234567890123456789012345", "a\nb.csv"]
)
def test_every_file_has_a_temporary_name(tmp_path, name):
    made = temporary_name(name, os.path.splitext(name)[1])  # noqa: PTH122
    (tmp_path / made).write_text("")
    assert is_temporary(made)


def test_a_scratch_folder_is_private_and_goes(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder("test") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").write_text("x")
        remove_temporaries(tmp_path)
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []
