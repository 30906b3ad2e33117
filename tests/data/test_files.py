import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrtool.data.files import atomic_path, atomic_write, locked, saying_what_fails, sha256_file
from cxrtool.errors import InputError, OutputError


def test_atomic_write_replaces_whole_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "new" / "a.txt"
    atomic_write(target, "one")
    atomic_write(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_keeps_the_old_content_and_removes_the_temporary(tmp_path):
    target = tmp_path / "a.csv"
    atomic_write(target, "old")

    def fail_halfway():
        with atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_keeps_the_suffix_and_lies_beside(tmp_path):
    with atomic_path(tmp_path / "picture.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    atomic_write(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_pipe_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    atomic_write(pipe, "through")
    assert reader.communicate(timeout=10)[0] == b"through"
    assert pipe.is_fifo()


def test_the_null_device_survives():
    atomic_write(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()


def test_a_name_that_is_no_utf8_does_not_break_the_table(tmp_path):
    atomic_write(tmp_path / "a", "bad\udce9name")
    assert (tmp_path / "a").read_bytes() == b"bad\\udce9name"


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*a\.csv: Is a directory"):
        atomic_write(tmp_path / "a.csv", "x")


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        atomic_write(tmp_path / "file" / "a.csv", "x")
    with pytest.raises(OutputError, match="cannot write"):
        atomic_write(tmp_path / "file" / "deeper" / "a.csv", "x")


def test_a_full_disk_is_one_line_with_the_free_bytes(tmp_path):
    with (
        pytest.raises(OutputError, match=r"no space left to write .*: [\d,]+ bytes are free"),
        saying_what_fails(tmp_path / "not" / "there"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_input_that_may_not_be_read_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(InputError, match=r"secret\.png: Permission denied"), saying_what_fails(tmp_path / "o"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/secret.png")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), saying_what_fails(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone", "x")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_lock_is_exclusive_and_leaves_no_file(tmp_path):
    path = tmp_path / "lock"
    with locked(path), pytest.raises(OutputError, match="another cxrtool"), locked(path, wait=False):
        pass
    assert not path.exists()
    with locked(path, wait=False):
        assert path.exists()


def _count(path: Path, counter: Path, times: int) -> None:
    for _ in range(times):
        with locked(path):
            value = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(value + 1))


def test_waiting_writers_never_overlap_though_the_lock_file_comes_and_goes(tmp_path):
    path, counter = tmp_path / "lock", tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_count, args=(path, counter, 50)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert counter.read_text() == "200"


def test_a_killed_process_frees_its_lock(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cxrtool.data.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(OutputError), locked(path, wait=False):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with locked(path, wait=False):
        pass


def test_a_writer_killed_at_any_time_leaves_old_or_new_never_half(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom cxrtool.data.files import atomic_write\n"
        "print('on', flush=True)\nn = 0\n"
        "while True:\n    n += 1\n    atomic_write(Path(sys.argv[1]), str(n % 10) * 200_000)\n"
    )
    target = tmp_path / "a.txt"
    for wait in (0.01, 0.017, 0.029, 0.041, 0.053):
        writer = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(wait)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        if target.exists():
            text = target.read_text()
            assert len(text) == 200_000
            assert len(set(text)) == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="/proc is that of Linux")
def test_a_file_system_that_takes_no_files_is_one_line():
    with (
        pytest.raises(OutputError, match="cannot write in /proc: no files can be made there"),
        locked(Path("/proc/.x")),
    ):
        pass
