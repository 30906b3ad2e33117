"""The shell completes commands, options and their values, by the protocol of each shell, and without slow imports."""

import os
import shutil
import subprocess
import sys

import pytest

SLOW = ("numpy", "torch", "timm", "pandas", "cv2", "matplotlib")


def ask(line, shell="bash", **more):
    """What a shell gets that has this line before the cursor."""
    words = line.split(" ")
    environment = {
        "_CXRTOOL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        **more,
    }
    code = (
        "import sys\nfrom cxrtool.cli.main import main\ntry:\n    main([])\nfinally:\n"
        f"    found = [name for name in {SLOW!r} if name in sys.modules]\n    assert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cxrtool pre", ["prepare", "predict"]),
        ("cxrtool weights ", ["import", "export", "fetch", "list"]),
        ("cxrtool train data --prese", ["--preset"]),
        ("cxrtool train data --preset covid-", ["covid-caps", "covid-sdnet", "covid-xnet"]),
        ("cxrtool enhance data --steps clahe,sup", ["clahe,suppress-ribs"]),
        ("cxrtool evaluate run --format ", ["table", "md", "latex", "csv", "json"]),
        # Nothing, so that the shell offers files.
        ("cxrtool predict ru", [""]),
    ],
)
def test_bash(line, expected):
    assert ask(line) == expected


def test_zsh_and_fish_show_what_a_command_is():
    assert ask("cxrtool cac", "zsh") == [
        """_arguments '*: :(("cache":"List and empty the cache of decoded images."))'"""
    ]
    assert ask("cxrtool predict ru", "zsh") == ["_files"]
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert ask("cxrtool cac", "fish", **fish) == ["cache\tList and empty the cache of decoded images."]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_the_script_for_bash_works_in_bash(tmp_path):
    program = tmp_path / "cxrtool"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cxrtool "$@"\n')
    program.chmod(0o755)
    lines = (
        'eval "$(cxrtool --show-completion)"',
        "COMP_WORDS=(cxrtool explain run new --me); COMP_CWORD=4; _cxrtool_completion cxrtool; echo ${COMPREPLY[@]}",
        "COMP_WORDS=(cxrtool explain run new --method ''); COMP_CWORD=5; _cxrtool_completion cxrtool",
        "echo ${COMPREPLY[@]}; complete -p cxrtool",
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "--method",
        "grad-cam cam occlusion",
        "complete -o default -F _cxrtool_completion cxrtool",
    ], done.stderr
