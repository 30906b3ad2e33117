import doctest
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import pytest

import cxrtool
from cxrtool.cli import main
from cxrtool.cli.main import COMMANDS, NAMES, line_of, run
from cxrtool.errors import InputError, StoppedError, StrictError


def cxrtool_process(*args, **options):
    """`cxrtool` as a process of its own."""
    command = [sys.executable, "-m", "cxrtool", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def failing(monkeypatch, cxr):
    """Call a command whose step raises an error."""

    def call(error, command="info"):
        def step(*args):
            raise error

        monkeypatch.setattr(f"cxrtool.commands.{command}.{command}", step)
        return cxr(command, "x")

    return call


def test_bare_it_shows_every_command_in_its_panel_and_where_to_start(cxr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = cxr()
    assert outcome.code == 0
    assert outcome.err == ""
    where = []
    for panel, names in COMMANDS.items():
        where.append(outcome.out.index(f"\n{panel}:\n"))
        for name in names:
            where.append(outcome.out.index(f"\n  {name} "))
            assert line_of(name)[:30] in outcome.out[where[-1] :].splitlines()[1]
    assert where == sorted(where)
    assert outcome.out.splitlines()[-1] == main.START
    assert cxr("--help").out.rstrip() == outcome.out.rstrip()
    assert cxr("-h").out == cxr("--help").out


def test_the_examples_in_its_documentation():
    assert doctest.testmod(main).failed == 0


def test_the_version(cxr):
    assert cxr("--version").out == f"cxrtool {cxrtool.__version__}\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["slect"], "cxrtool: no such command 'slect'; did you mean `select`?"),
        (["zzz"], "cxrtool: no such command 'zzz'"),
        (["split", "x", "--fold", "3"], "cxrtool split: no such option --fold; did you mean --folds?"),
        (["split"], "cxrtool split: Missing argument 'MANIFEST'"),
        (["split", "x", "--folds", "many"], "cxrtool split: --folds: expected a whole number, found 'many'"),
        (
            ["split", "x", "--validation", "0,1"],
            "cxrtool split: --validation: expected a number, found '0,1'; did you mean 0.1?",
        ),
        (["split", "x", "--folds", "1"], "cxrtool split: Invalid value for '--folds': 1 is not in the range x>=2"),
        (["split", "x", "y", "--folds", "3"], "cxrtool split: Got unexpected extra argument"),
        (["split", "x", "--folds"], "cxrtool split: Option '--folds' requires an argument"),
        (["fit", "lung"], "cxrtool fit: no such command 'fit lung'; did you mean `fit lungs`?"),
        (["fit", "zzz"], "cxrtool fit: no such command 'fit zzz' among lungs, opacities, ribs, generators"),
        (["fit", "--fold", "lungs"], "cxrtool fit: no such option --fold"),
        (["fit", "lungs"], "cxrtool fit lungs: Missing argument 'MANIFEST'"),
        (["fit", "lungs", "x", "--epoch", "3"], "cxrtool fit lungs: no such option --epoch; did you mean --epochs?"),
        (
            ["weights", "import", "x", "--fit", "crob"],
            "cxrtool weights import: --fit: expected one of squash, pad, crop",
        ),
        (["weights", "fetch"], "cxrtool weights fetch: Missing argument"),
        (["info", "x", "--format", "xml"], "cxrtool info: --format: expected one of table, md, latex, csv, json"),
    ],
)
def test_a_wrong_command_line_is_told_in_two_lines(cxr, args, told):
    outcome = cxr(*args)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(told)
    assert len(outcome.err.splitlines()) <= 2


def test_a_name_that_is_no_member_of_the_command_is_no_part_of_it(cxr, tmp_path, monkeypatch):
    # `prepare` has a constant that is named as that of groups.
    monkeypatch.chdir(tmp_path)
    assert cxr("prepare", "images", "-o", "out").err.startswith("cxrtool prepare: images: ")


def test_an_error_is_its_message_and_its_hint(failing):
    outcome = failing(InputError("expected this, found that", "do this next"))
    assert (outcome.code, outcome.err) == (1, "cxrtool info: expected this, found that\n  do this next\n")
    outcome = failing(StrictError("3\nrejected\r\n"))
    assert (outcome.code, outcome.err) == (3, "cxrtool info: 3 rejected\n")
    assert failing(StoppedError("saved", 75)).code == 75


def test_what_the_machine_lacks_is_no_bug(failing):
    assert failing(MemoryError()).err.startswith("cxrtool info: not enough memory")
    full = failing(OSError(28, "No space left on device"))
    assert full.err.splitlines()[0] == "cxrtool info: cannot write: No space left on device"
    assert failing(KeyboardInterrupt()).code == 130


def test_a_bug_keeps_its_traceback_and_says_so(failing, monkeypatch):
    outcome = failing(ZeroDivisionError("division by zero"))
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-2] == "cxrtool info: a bug in cxrtool: ZeroDivisionError: division by zero"
    monkeypatch.setenv("CXRTOOL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_a_broken_pipe_to_a_worker_is_not_success(failing):
    # In this process nobody has closed standard output, so the pipe that broke is another one.
    assert failing(BrokenPipeError(32, "Broken pipe")).code == 1


def test_a_command_is_imported_only_when_it_is_called():
    code = textwrap.dedent("""
        import sys
        from cxrtool.cli.main import run
        run(["train", "--help"])
        slow = {"numpy", "torch", "torchvision", "timm", "cv2", "rich", "scipy", "sklearn", "matplotlib", "pydicom"}
        sys.exit(f"imported: {sorted(slow & sys.modules.keys())}" if slow & sys.modules.keys() else 0)
    """)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--epochs" in result.stdout


def test_the_list_of_commands_imports_no_command():
    code = (
        "import sys, cxrtool.cli.main as m; m.run([]);"
        "sys.exit(str([n for n in sys.modules if n.startswith(('cxrtool.commands', 'cxrtool.cli.'))"
        " and n != 'cxrtool.cli.main']).replace('[]', '') or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_reader_that_had_enough_ends_it_quietly(tiny):
    process = cxrtool_process("select", tiny.origin)
    process.stdout.close()
    assert process.stderr.read() == "24 images\n"
    assert process.wait(20) == 0
    process.stderr.close()
    process = cxrtool_process("info", tiny.origin)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(20) == 0


def test_streams_that_the_caller_closed(tiny):
    for closing in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        command = f"exec {sys.executable} -m cxrtool info {tiny.origin} {closing}"
        result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert result.returncode == 0
        assert "Traceback" not in result.stderr
    result = subprocess.run(
        f"exec {sys.executable} -m cxrtool select - <&-", shell=True, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "standard input: expected a table" in result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_standard_output_is_one_error(tiny):
    result = subprocess.run(
        f"exec {sys.executable} -m cxrtool select {tiny.origin} >/dev/full",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "cxrtool select: cannot write: No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_manifest_on_standard_output_is_utf8_in_every_locale(tiny):
    text = tiny.origin.read_text().replace("covid", "größe")
    tiny.origin.write_text(text, encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "cxrtool", "select", tiny.origin]
    result = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert "größe" in result.stdout.decode("utf-8")


def test_a_name_that_is_no_utf8_is_shown_not_fatal(tiny):
    folder = os.fsencode(tiny.origin.parent) + b"-\xe9"
    os.rename(tiny.origin.parent, folder)  # noqa: PTH104
    result = subprocess.run([sys.executable, "-m", "cxrtool", "info", folder], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert b"tiny-\\udce9/manifest.csv: manifest" in result.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_in_two_lines_with_their_code(number, code):
    # A shell lets what it starts in the background ignore Ctrl-C, these tests too; the command itself must not.
    listen = partial(signal.signal, number, signal.SIG_DFL)
    process = cxrtool_process("select", "-", stdin=subprocess.PIPE, preexec_fn=listen)
    script = "import time; time.sleep(0.01)"
    # It has started when it waits for its input; only then the handlers are in place.
    deadline = 1000
    while deadline and "select" not in _waiting(process.pid):
        subprocess.run([sys.executable, "-c", script], check=True)
        deadline -= 1
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert process.returncode == code
    assert len(told.splitlines()) <= 2
    assert "Traceback" not in told


def _waiting(pid):
    """The command line of a process that reads from a pipe, empty while it computes."""
    try:
        with open(f"/proc/{pid}/wchan") as file:  # noqa: PTH123
            asleep = file.read()
        with open(f"/proc/{pid}/cmdline") as file:  # noqa: PTH123
            return file.read() if "pipe" in asleep else ""
    except OSError:
        return "select"


def test_every_command_has_a_panel_and_a_sentence():
    assert sorted(NAMES) == sorted({name for names in COMMANDS.values() for name in names})
    for name in NAMES:
        text = line_of(name)
        assert text.endswith(".")
        assert len(text) <= 70, name


def test_a_command_that_is_called_gets_its_arguments(cxr, tiny):
    assert cxr("info", tiny.origin).out.startswith(f"{tiny.origin}: manifest\n  images")
    assert run(["--version"]) == 0
    assert main.load("info").name == "info"
    assert main.load("fit lungs").name == "lungs"
    assert main.load("fit").list_commands(None) == ["lungs", "opacities", "ribs", "generators"]
