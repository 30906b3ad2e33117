"""The promises that every command keeps: one test for all that are registered."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxrtool.cli.main import NAMES, line_of, load, members_of, module_of
from cxrtool.data.splitting.splits import COLUMNS
from cxrtool.data.tables.manifest import read_manifest, write_table
from cxrtool.flow import common_options
from cxrtool.flow.settings import Settings
from cxrtool.options import KEY, declared, flag_of

FIT = "{input} --target-column path --size 64 --epochs 1 --exposure none --workers 1 --threads 1 -o {out}"

CALLS = {
    "prepare": ("{input} --workers 1 -o {out}", "manifest"),
    "select": ("{input}", "manifest"),
    "split": ("{input} --folds 2", "manifest"),
    "audit": ("{input} --quick", "manifest"),
    "info": ("{input}", "manifest"),
    "enhance": ("{input} --steps match-histogram,clahe --workers 1 -o {out}", "manifest"),
    "fit lungs": (FIT, "manifest"),
    "fit opacities": ("", ""),
    "fit ribs": (FIT, "manifest"),
    "fit generators": (
        "{input} --splits {splits} --size 32 --epochs 1 --perceptual none --weights none --workers 1 --threads 1 "
        "-o {out}",
        "manifest",
    ),
    "grade": ("", ""),
    "segment": ("{input} --lungs {lungs} --workers 1 --threads 1 -o {out}", "manifest"),
    "transform": ("{input} --generators {generators} --workers 1 --threads 1 -o {out}", "manifest"),
    "train": (
        "{input} --splits {splits} --model covid-xnet --size 32 --epochs 1 --workers 1 --threads 1 -o {out}",
        "manifest",
    ),
    "predict": ("{model} {input} --workers 1 --threads 1", "manifest"),
    "fuse joint": ("", ""),
    "fuse twins": ("", ""),
    "fuse mean": ("{input} predictions.csv", "predictions"),
    "weights import": ("", ""),
    "weights export": ("", ""),
    "weights fetch": ("", ""),
    "weights list": ("", ""),
    "cache list": ("", ""),
    "cache empty": ("", ""),
    "evaluate": ("{input}", "predictions"),
    "compare": ("{input} again={input}", "predictions"),
    "explain": ("{model} {input} --workers 1 --threads 1 -o {out}", "manifest"),
    "report": ("{input} --workers 1 --threads 1 -o {out}", "predictions"),
    "recipe": ("makris", ""),
    "phantom": ("--count 2 --size 64 --workers 1 -o {out}", ""),
    "doctor": ("", ""),
    "demo": ("", ""),
    "help": ("", ""),
}
"""How to call each command with as little as it needs, and what kind of table its input is; what reads no single table
is not called."""

OTHER_MEANINGS = {
    ("recipe", "--format"),
    ("weights export", "--format"),
    ("fuse twins", "--positive"),
    ("prepare", "--max-pixels"),
    ("predict", "--calibrated"),
    ("train", "--jobs"),
}
"""A recipe is no table: its formats are make, sh and slurm; nor is an exported model. The class to find decides ties of
twins. What `prepare` refuses has not been read. `predict` has no validation rows, but models that have seen some.
`train` has combinations of `--grid`, too."""

MEMBERS = {name: members_of(importlib.import_module(module_of(name))) for name in NAMES}
COMMANDS = [command for name in NAMES for command in ([f"{name} {member}" for member in MEMBERS[name]] or [name])]
GROUPS = [name for name in NAMES if MEMBERS[name]]
SLOW = {"numpy", "pandas", "torch", "timm", "cv2", "rich", "scipy", "sklearn", "skimage", "matplotlib", "pydicom"}
READING = [name for name in COMMANDS if CALLS.get(name, ("", ""))[1]]
STREAMING = [name for name in READING if "{out}" not in CALLS[name][0]]


def flags(command):
    """The long options of a command, with their parameters."""
    return {flag: parameter for parameter in command.params for flag in parameter.opts if flag.startswith("--")}


@pytest.fixture
def place(tiny, tmp_path, monkeypatch):
    """A working directory with a sound manifest, splits and predictions in it."""
    splits = [
        {"image_id": i, "repeat": "0", "fold": "0", "subset": ("train", "validation", "test")[k // 4 % 3]}
        for k, i in enumerate(tiny.column("image_id"))
    ]
    write_table(tmp_path / "splits.csv", COLUMNS, splits)
    scores = np.random.default_rng(0).random(24)
    predictions = [
        {
            **row,
            "repeat": "0",
            "fold": "0",
            "subset": "test",
            "predicted": "covid" if s >= 0.5 else "normal",
            "warning": "",
            "prob_covid": f"{s:.6f}",
            "prob_normal": f"{1 - s:.6f}",
        }
        for row, s in zip(tiny.rows, scores, strict=True)
    ]
    write_table(tmp_path / "predictions.csv", list(predictions[0]), predictions)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def arguments(place, request):
    """The command line of a command with a given input."""

    def fill(name, given):
        call = CALLS[name][0]
        names = {"input": given, "splits": place / "splits.csv", "out": place / "out"}
        if "{lungs}" in call:
            names["lungs"] = request.getfixturevalue("lung_part")
        if "{generators}" in call:
            names["generators"] = place / "generators"
            if not names["generators"].exists():
                rows = read_manifest(place / "tiny").rows
                request.getfixturevalue("write_generators")(names["generators"], place / "splits.csv", rows)
        if "{model}" in call:
            names["model"] = request.getfixturevalue("model")
        return [*name.split(), *call.format(**names).split()]

    return fill


def sound(name, place):
    return place / ("predictions.csv" if CALLS[name][1] == "predictions" else "tiny/manifest.csv")


def check_refusal(outcome, place, told):
    """One or two lines that name what is wrong, and nothing left behind."""
    assert outcome.code == 1, outcome
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert 1 <= len(lines) <= 2, outcome.err
    assert told in outcome.err
    assert "Traceback" not in outcome.err
    assert not [path.name for path in place.iterdir() if path.name.lstrip(".").startswith("out")]


def test_every_command_is_under_contract():
    assert set(CALLS) == set(COMMANDS), "describe the new command in CALLS"


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_help_explains_and_shows_an_example(cxr, name):
    outcome = cxr(*name.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith(f"Usage: cxrtool {name} ")
    assert f"Example: cxrtool {name}" in " ".join(outcome.out.split())
    # The list of commands and the page of the command say the same sentence.
    assert line_of(name) in " ".join(outcome.out.split())
    assert max(map(len, outcome.out.splitlines())) <= 100


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_lists_its_commands(cxr, name):
    outcome = cxr(name)
    assert outcome.code == 0
    assert outcome == cxr(name, "--help")
    told = " ".join(outcome.out.split())
    for member in MEMBERS[name]:
        assert f" {member} {line_of(f'{name} {member}')}" in told


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_names_the_nearest_of_its_commands(cxr, name):
    member = MEMBERS[name][0]
    outcome = cxr(name, member[:-1])
    assert (outcome.code, outcome.out) == (2, "")
    told = f"cxrtool {name}: no such command '{name} {member[:-1]}'; did you mean `{name} {member}`?\n"
    assert outcome.err == f"{told}  see `cxrtool {name} --help`\n"
    outcome = cxr(name, "zzz")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"cxrtool {name}: no such command '{name} zzz' among {', '.join(MEMBERS[name])}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_long_in_kebab_case_and_explained(name):
    command = load(name)
    for flag, parameter in flags(command).items():
        assert re.fullmatch(r"--[a-z0-9]+(-[a-z0-9]+)*", flag)
        assert parameter.help, f"{name} {flag} has no help"


def test_a_shared_flag_means_the_same_everywhere():
    shared = {flag_of(name, declaration): declaration.help for name, (_, declaration) in declared(Settings).items()}
    for name in vars(common_options).keys() - {"argument", "option"}:
        factory = getattr(common_options, name)
        if getattr(factory, "__module__", "") == common_options.__name__:
            declaration = factory().metadata[KEY]
            if not declaration.argument:
                shared[flag_of(name, declaration)] = declaration.help
    assert {"--out", "--seed", "--workers", "--force", "--only", "--positive", "--max-pixels"} <= shared.keys()
    for name in COMMANDS:
        for flag, parameter in flags(load(name)).items():
            if flag in shared and (name, flag) not in OTHER_MEANINGS:
                assert parameter.help.split("  [default: ")[0] == shared[flag], f"{name} {flag}"


@pytest.mark.parametrize("name", NAMES)
def test_it_has_its_place_in_the_readme(root, name):
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^#+ .*\b{name}\b|^Usage: cxrtool {name}\b", readme, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_names_the_nearest(cxr, name):
    flag = max(flags(load(name)), key=len)
    typo = flag[:-2] + flag[-1]
    outcome = cxr(*name.split(), typo)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"cxrtool {name}: no such option {typo}; did you mean {flag}?")
    assert len(outcome.err.splitlines()) <= 2


@pytest.mark.parametrize("name", READING)
def test_a_missing_file_is_named(cxr, arguments, place, name):
    check_refusal(cxr(*arguments(name, "nowhere.csv")), place, "nowhere.csv")


@pytest.mark.parametrize("name", READING)
def test_an_empty_table_is_refused(cxr, arguments, place, name):
    header = sound(name, place).read_text().splitlines()[0]
    (place / "none.csv").write_text(header + "\n")
    check_refusal(cxr(*arguments(name, "none.csv")), place, "none.csv")


@pytest.mark.parametrize("name", READING)
def test_an_empty_file_is_refused(cxr, arguments, place, name):
    (place / "zero.csv").write_text("")
    check_refusal(cxr(*arguments(name, "zero.csv")), place, "zero.csv")


@pytest.mark.parametrize("name", READING)
def test_a_table_without_its_columns_is_refused(cxr, arguments, place, name):
    (place / "odd.csv").write_text("colour,weight\nred,3\n")
    outcome = cxr(*arguments(name, "odd.csv"))
    check_refusal(outcome, place, "odd.csv")
    assert "colour, weight" in outcome.err


@pytest.mark.parametrize("name", READING)
def test_a_row_cut_short_by_a_delimiter_is_named_with_its_line(cxr, arguments, place, name):
    lines = sound(name, place).read_text().splitlines()
    (place / "long.csv").write_text("\n".join([*lines[:4], lines[4] + ",x,y,z"]) + "\n")
    check_refusal(cxr(*arguments(name, "long.csv")), place, "long.csv, line 5")


@pytest.mark.parametrize("name", [name for name in READING if CALLS[name][1] == "manifest"])
def test_what_is_no_image_ends_nothing(cxr, arguments, place, name):
    (place / "tiny" / "im003.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    (place / "tiny" / "im004.png").unlink()
    outcome = cxr(*arguments(name, "tiny/manifest.csv"))
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", READING)
def test_sound_input_gives_a_result(cxr, arguments, place, name):
    outcome = cxr(*arguments(name, sound(name, place)))
    assert outcome.code == 0, outcome.err
    assert outcome.out or (place / "out" / "manifest.csv").exists()
    if "{out}" in CALLS[name][0]:
        assert cxr(*arguments(name, sound(name, place))).err.endswith("out: up to date, nothing to do\n")


def test_help_imports_nothing_slow():
    code = (
        "import sys; from cxrtool.cli.main import run;"
        f"[run([*name.split(), '--help']) for name in {[*COMMANDS, *GROUPS]}];"
        f"slow = sorted({SLOW} & sys.modules.keys()); sys.exit(str(slow) if slow else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Usage: ") == len(COMMANDS) + len(GROUPS)


def closed_pipe(args):
    """Call `cxrtool` with a standard output that nobody reads; return its exit code and standard error."""
    command = [sys.executable, "-m", "cxrtool", *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    return process.wait(60), told


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_help_into_a_closed_pipe_ends_quietly(name):
    assert closed_pipe([*name.split(), "--help"]) == (0, "")


@pytest.mark.parametrize("name", STREAMING)
def test_results_into_a_closed_pipe_end_quietly(arguments, place, name):
    assert closed_pipe([*arguments(name, sound(name, place)), "--quiet"]) == (0, "")


def test_nothing_is_written_where_nothing_was_asked_for(cxr, arguments, place):
    before = set(Path(place).rglob("*"))
    for name in ("select", "split", "info"):
        cxr(*arguments(name, sound(name, place)))
    assert set(Path(place).rglob("*")) == before
