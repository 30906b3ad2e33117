"""A command that is killed or stopped at any time loses nothing: the same command again gives what a clean run gives.

`kill` sends SIGKILL before a given operation on a file, or after a given time; hidden files, the cache and `$TMPDIR`
are compared, too. The long tests are marked `slow` and write their figures to `$STOPPING_FIGURES`.
"""

import hashlib
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

EVERY = runpy.run_path(str(Path(__file__).with_name("test_every_command.py")))
CALLS, COMMANDS, flags, load = EVERY["CALLS"], EVERY["COMMANDS"], EVERY["flags"], EVERY["load"]
place, arguments, sound = EVERY["place"], EVERY["arguments"], EVERY["sound"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}

OWN = {"weights import": "{place}/network.pth --model covid-xnet --classes a,b --size 32 -o {out}"}
"""Calls of commands that `CALLS` calls without arguments."""

APART = {"demo", "fuse joint", "fuse twins", "weights export", "weights fetch"}
"""They need a network, several runs, or consist of other commands."""

WRITING = [name for name in COMMANDS if "--out" in flags(load(name)) and name not in APART]
VOLATILE = {"started", "seconds", "machine", "finished", "made_by", "files"}
"""Times, and the digests of files with times; all files are compared themselves."""

CHILD = """
import os, signal, sys, time
at, folder, note = int(sys.argv.pop(1)), sys.argv.pop(1), sys.argv.pop(1)
began, count = time.monotonic(), 0
KINDS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.utime", "os.truncate"}
def hook(event, args):
    global count
    if event in KINDS and args and isinstance(args[0], (str, bytes, os.PathLike)):
        path = os.fsdecode(args[0])
        if path.startswith(folder) and path != note:
            count += 1
            if count == 1:
                with open(note, "a") as file:
                    file.write(f"{time.monotonic() - began}\\n")
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
import atexit
def tell():
    with open(note, "a") as file:
        file.write(f"{count}\\n")
atexit.register(tell)
sys.argv[0] = "cxrtool"
from cxrtool import stopping
start = stopping.start
def ready():
    global began
    start()
    if stopping.start is ready:
        stopping.start, began = start, time.monotonic()
        with open(note, "a") as file:
            file.write("ready\\n")
stopping.start = ready
from cxrtool.__main__ import main
main()
"""


def lasting(content):
    """The content of a JSON file without times, at any depth."""
    if isinstance(content, list):
        return [lasting(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    return {key: lasting(value) for key, value in content.items() if key not in VOLATILE}


def known(path, folder):
    """The content of a file, without what may differ between two runs."""
    data = path.read_bytes()
    if path.suffix == ".json":
        data = json.dumps(lasting(json.loads(data))).encode()
    if path.name in ("history.csv", "grid.csv"):
        # The seconds of an epoch.
        lines = [line.split(",") for line in data.decode().splitlines()]
        keep = [i for i, name in enumerate(lines[0]) if name != "seconds"]
        data = "\n".join(",".join(line[i] for i in keep) for line in lines).encode()
    return hashlib.sha256(data).hexdigest()


def tree(folder):
    """Everything in a folder, hidden files and empty folders included."""
    return {
        str(path.relative_to(folder)): known(path, folder) if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


class Trial:
    """One command that writes to `work/out`, with its cache and its temporary files in `work`."""

    def __init__(self, name, place, line, temporary):
        self.name, self.place, self.line = name, place, [str(word) for word in line]
        self.work, self.note, self.temporary = place / "work", place / "note", temporary
        self.environment = {
            **os.environ,
            "CXRTOOL_CACHE": str(self.work / "cache"),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            "MPLCONFIGDIR": str(place),
        }

    def fresh(self):
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.work.mkdir()
        self.temporary.mkdir()
        self.note.unlink(missing_ok=True)

    def tree(self):
        return tree(self.work) | {f"$TMPDIR/{name}": known for name, known in tree(self.temporary).items()}

    def start(self, at=0):
        # Whoever starts the tests in the background lets them ignore Ctrl-C.
        listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        child = [sys.executable, "-c", CHILD, str(at), str(self.work), str(self.note), *self.line]
        return subprocess.Popen(
            child,
            cwd=self.place,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=listen,
        )

    def run(self):
        process = self.start()
        told = process.communicate(timeout=300)[1]
        assert process.returncode == 0, f"{self.line}: {told}"

    def clean(self):
        """The tree of a clean run; how many operations on files it has, when the first is, and how long it takes."""
        self.fresh()
        began = time.monotonic()
        self.run()
        took = time.monotonic() - began
        notes = self.note.read_text().split()
        return self.tree(), int(notes[-1]), float(notes[1]) if len(notes) > 2 else took, took

    def kill(self, *, at=0, after=0.0):
        """Kill it, let it run again, and return what differs from a clean run, and what outlived the kill."""
        self.fresh()
        process = self.start(at)
        if after:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate(timeout=300)
        alive = outlives(process.pid)
        self.run()
        return alive

    def stop(self, number, after):
        """Send a signal; return the exit code, the seconds until then, what was said, and what outlived it.

        The time starts with the program: nothing can be done about Python's own start.
        """
        self.fresh()
        process = self.start()
        while process.poll() is None and not self.note.exists():
            time.sleep(0.002)
        time.sleep(after)
        began = time.monotonic()
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
        seconds = time.monotonic() - began
        return process.returncode, seconds, told, outlives(process.pid)


def outlives(group):
    """Whether processes of a group are still there after some seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


def differences(found, expected):
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def record(**figures):
    if file := os.environ.get("STOPPING_FIGURES"):
        with open(file, "a") as lines:  # noqa: PTH123
            lines.write(json.dumps(figures) + "\n")


@pytest.fixture
def trial(place, arguments, request):
    """A command, ready to be run, killed and stopped."""

    def make(name):
        out = place / "work" / "out"
        if name in OWN:
            import torch

            from cxrtool.models.architecture import Architecture
            from cxrtool.models.registry import build

            torch.save(build(Architecture("covid-xnet", 2, size=32))[0].state_dict(), place / "network.pth")
            line = [*name.split(), *OWN[name].format(place=place, out=out).split()]
        else:
            given = sound(name, place) if CALLS[name][1] else ""
            line = [str(out) if str(word) == str(place / "out") else word for word in arguments(name, given)]
            if name in WRITING and str(out) not in line:
                line += ["-o", out]
        return Trial(name, place, line, temporary)

    # Sockets have short names.
    temporary = Path(tempfile.mkdtemp(prefix="t"))
    yield make
    shutil.rmtree(temporary)


def check_kills(one, operations, times, seed=0):
    """Kill at so many operations, evenly spread, and at so many random times; all reruns must give the clean tree."""
    expected, count, _, took = one.clean()
    one.fresh()
    one.run()
    assert differences(one.tree(), expected) == [], "two clean runs differ"
    moments = random.Random(seed)
    ways = [{"at": 1 + round(k * (count - 1) / max(operations - 1, 1))} for k in range(operations)]
    ways += [{"after": moments.uniform(0.05, took)} for _ in range(times)]
    failed = []
    for way in ways:
        alive = one.kill(**way)
        if alive or (other := differences(one.tree(), expected)):
            failed.append((way, "outlived" if alive else other))
    record(test="kill", command=one.name, operations=count, seconds=took, kills=len(ways), failed=len(failed))
    assert failed == []


def check_signals(one, starting, working, numbers=tuple(CODES)):
    """Signals while it starts and while it works: the code, in time, in one line, and nothing stays behind."""
    expected, _, first, took = one.clean()
    moments = [first * k / starting for k in range(starting)]
    moments += [first + (took - first) * (k + 0.5) / (working + 1) for k in range(working)]
    late, codes, failed = 0.0, [], []
    for index, moment in enumerate(moments):
        number = numbers[index % len(numbers)]
        code, seconds, told, alive = one.stop(number, moment)
        lines = [line for line in told.splitlines() if "stopped" in line]
        late, codes = max(late, seconds), [*codes, code]
        ended = code == 0 and differences(one.tree(), expected) == []
        if not ended and (code != CODES[number] or len(lines) != 1 or lines[0] != told.splitlines()[-1]):
            failed.append((number.name, round(moment, 2), code, told))
        if seconds > 5 or alive or "Traceback" in told or "Warning" in told:
            failed.append((number.name, round(moment, 2), f"{seconds:.1f} s", "outlived" if alive else told))
        if temporaries := [path for path in one.tree() if ".tmp" in path or "/pymp-" in path]:
            failed.append((number.name, round(moment, 2), temporaries))
    record(
        test="signal",
        command=one.name,
        signals=len(moments),
        finished=codes.count(0),
        slowest=round(late, 2),
        failed=len(failed),
    )
    assert failed == []


def check_two(one):
    """Two at once: each ends well, or with one line that says that the other one is at work; nothing is lost."""
    expected = one.clean()[0]
    one.fresh()
    both = [one.start(), one.start()]
    told = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, told
    for code, text in zip(codes, told, strict=True):
        if code:
            lines = [line for line in text.splitlines() if "another cxrtool is writing here" in line]
            assert (code, len(lines)) == (1, 1), text
    assert differences(one.tree(), expected) == []
    record(test="two", command=one.name, codes=codes)


@pytest.mark.parametrize("name", ["prepare", "split"])
def test_two_at_once_lose_nothing(trial, name):
    check_two(trial(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITING)
def test_two_at_once_lose_nothing_in_every_command(trial, name):
    check_two(trial(name))


@pytest.mark.parametrize("name", ["prepare", "split"])
def test_killed_and_run_again_it_gives_what_a_clean_run_gives(trial, name):
    check_kills(trial(name), 2, 1)


@pytest.mark.parametrize("name", ["prepare", "info"])
def test_a_signal_ends_it_with_its_code_in_one_line(trial, name):
    check_signals(trial(name), 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITING)
def test_killed_often_and_run_again_it_gives_what_a_clean_run_gives(trial, name):
    many = 50 if name == "train" else 10
    check_kills(trial(name), many, many)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in APART])
def test_signals_at_many_moments_end_every_command(trial, name):
    check_signals(trial(name), 20, 5)


WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]


def refused(one, *before):
    """Call a command that cannot write its output; return the lines that it says, without remarks on the input."""
    result = subprocess.run(
        [*before, sys.executable, "-m", "cxrtool", *one.line],
        cwd=one.place,
        env=one.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "a bug in cxrtool" not in result.stderr
    lines = result.stderr.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"cxrtool {one.name}: "))
    assert len(lines) - start <= 2, result.stderr
    return lines[start]


def check_rights(one):
    one.fresh()
    one.work.chmod(0o555)
    try:
        said = refused(one, *(WITHOUT_RIGHTS if os.geteuid() == 0 else ()))
    finally:
        one.work.chmod(0o755)
    assert str(one.work) in said
    assert "Permission denied" in said
    assert list(one.work.iterdir()) == []


def check_full_disk(one):
    one.fresh()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", one.work], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a small disk can be made by root alone")
    one.environment["CXRTOOL_CACHE"] = str(one.place / "cache")
    # The page that the disk has.
    (one.work / ".filler").write_bytes(b"x" * 4096)
    try:
        said = refused(one)
        left = [path.name for path in one.work.iterdir() if not path.name.startswith(".")]
    finally:
        subprocess.run(["umount", one.work], check=True)
    assert str(one.work) in said
    assert "no space left" in said
    assert "bytes are free" in said
    assert left == []


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
@pytest.mark.parametrize("name", ["prepare", "split"])
def test_a_folder_without_rights_is_named(trial, name):
    check_rights(trial(name))


@pytest.mark.parametrize("name", ["prepare", "split"])
def test_a_full_disk_is_named_with_its_free_bytes(trial, name):
    check_full_disk(trial(name))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
@pytest.mark.parametrize("name", WRITING)
def test_a_folder_without_rights_is_named_by_every_command(trial, name):
    check_rights(trial(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITING)
def test_a_full_disk_is_named_by_every_command(trial, name):
    check_full_disk(trial(name))
