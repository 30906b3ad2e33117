"""The chain of a run, printed and made again."""

import contextlib
import importlib
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cxrtool.cli.main import NAMES, LazyGroup, load, members_of, module_of
from cxrtool.commands.recipe.own import PATHS, SWITCHES
from cxrtool.data.tables.manifest import read_table, write_table

COMMON = ("--threads", "1", "-q")

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def draw_data(folder):
    """30 small pictures of three classes that differ in where they are bright."""
    for index in range(30):
        place = folder / ("covid", "normal", "pneumonia")[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 100, (36, 36), np.uint8)
        pixels[12 * (index % 3) : 12 * (index % 3) + 12] += 120
        cv2.imwrite(str(place / f"p{index:02}.png"), pixels)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images, and prepare, split and train on them."""
    from cxrtool.cli.main import run

    place = tmp_path_factory.mktemp("own")
    draw_data(place / "images")
    with contextlib.chdir(place):
        for line in (
            "prepare images --size 64 -o work/prepared -q",
            "split work/prepared --folds 2 --seed 3 -o work/splits.csv -q",
            "train work/prepared --splits work/splits.csv --model thumbnail --seed 5 --threads 1 -o work/run -q",
        ):
            assert run(line.split()) == 0
    return place


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of it, with the times of its files, as the working directory."""
    shutil.copytree(made, tmp_path / "own", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


def probabilities(run):
    return {
        (row["image_id"], fold.name): [row[name] for name in row if name.startswith("prob_")]
        for fold in sorted(run.glob("r*f*"))
        for row in read_table(fold / "predictions.csv").rows
    }


@needs_make
@pytest.mark.parametrize("style", ["make", pytest.param("sh", marks=pytest.mark.slow)])
def test_the_printed_chain_makes_the_same_predictions_elsewhere(here, cxr, warm, style):
    told = cxr("recipe", "--from", "work/run", "--format", style)
    assert (told.code, told.err) == (0, "")
    (here / "own").write_text(told.out)
    values = {"CXRTOOL": warm if style == "make" else f"{sys.executable} -m cxrtool", "DATA": "images", "OUT": "again"}

    def call(**more):
        given = {**values, **more}
        line = ["make", "-f", "own", *(f"{name}={text}" for name, text in given.items())]
        around = {**os.environ, "OMP_NUM_THREADS": "1"} | ({} if style == "make" else given)
        line = line if style == "make" else ["sh", "own"]
        done = subprocess.run(line, cwd=here, env=around, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    call()
    expected = probabilities(here / "work" / "run")
    assert len(expected) >= 30
    assert probabilities(here / "again" / "run") == expected
    assert (here / "again" / "evaluation" / "metrics.json").is_file()
    if style == "make":
        draw_data(here / "others")
        for path in (here / "others").rglob("*5.png"):
            path.unlink()
        call(DATA="others", OUT="new")
        assert len(read_table(here / "new" / "run" / "manifest.csv").rows) == 27


def test_variables_are_on_top_and_rules_follow_one_another(here, cxr):
    text = cxr("recipe", "--from", "work/run/r0f0").out
    lines = ("DATA ?= images", "OUT ?= run-again", "SEED ?= 5", "SPLIT_SEED ?= 3", "FOLDS ?= 2", "MODEL ?= thumbnail")
    assert all(f"\n{line}\n" in text for line in lines)
    assert "\nall: prepared splits run evaluate\n" in text
    assert "\nsplits: prepared\n" in text
    assert "\nrun: prepared splits\n" in text
    assert "not recorded" not in text


def test_steps_on_the_way_are_in_the_chain(here, cxr):
    for line in (
        "select work/prepared --where label<>'pneumonia' -o work/selected -q",
        "split work/selected --holdout 60/20/20 -o work/two.csv -q",
        "enhance work/selected --steps match-histogram --splits work/two.csv -o work/enhanced -q",
        "train work/enhanced --splits=work/two.csv --model thumbnail --threads 1 --device cpu -o work/second -q",
    ):
        assert cxr(*line.split()).code == 0
    text = cxr("recipe", "--from", "work/second").out
    assert "\nall: prepared selected two enhanced second evaluate\n" in text
    assert "\ntwo: selected\n" in text
    assert '${CXRTOOL} enhance "${OUT}/selected" --steps match-histogram --splits "${OUT}/two.csv"' in text
    assert "\nTRAIN ?= --device cpu\n" in text


def test_a_run_in_one_command_is_one_rule(here, cxr):
    assert cxr("train", "images", "--folds", "2", "--model", "thumbnail", "-o", "one", *COMMON).code == 0
    text = cxr("recipe", "--from", "one").out
    assert '${CXRTOOL} train "${DATA}" --folds "${FOLDS}" --model "${MODEL}"' in text
    assert "\nall: one evaluate\n" in text


def test_options_of_a_configuration_file_are_printed(here, cxr):
    assert cxr("train", "--config", "work/run/run.json", "-o", "work/more", "-q").code == 0
    text = cxr("recipe", "--from", "work/more").out
    assert "--config" not in text
    assert '${CXRTOOL} train "${OUT}/prepared" --target label --model "${MODEL}"' in text
    assert '--splits "${OUT}/splits.csv"' in text
    assert "\nSEED ?= 5\n" in text


def write_splits(here, rows):
    """What a run was trained on is its own copy."""
    for folder in ("work", "work/run"):
        write_table(here / folder / "splits.csv", list(rows[0]), rows)


def by_hand(here):
    rows = read_table("work/splits.csv").rows
    write_splits(here, [{name: text for name, text in row.items() if name != "made_by"} for row in rows])


def edited(here):
    sides = {"test": "train", "train": "test"}
    rows = read_table("work/splits.csv").rows
    write_splits(here, [{**row, "subset": sides.get(row["subset"], row["subset"])} for row in rows])


@pytest.mark.parametrize(("change", "said"), [(by_hand, "made by hand"), (edited, "not what `cxrtool split --folds 2")])
def test_a_division_that_is_not_recorded_stays_an_input(here, cxr, editable, change, said):
    editable(here)
    change(here)
    text = cxr("recipe", "--from", "work/run").out
    assert said in next(line for line in text.splitlines() if line.startswith("# what `train --splits` reads"))
    assert "\nSPLITS ?= work/splits.csv\n" in text
    assert '--splits "${SPLITS}"' in text
    assert " split " not in text.partition("\nall:")[2]


def shorter(table):
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))


def relabelled(table):
    table.write_text(table.read_text().replace("covid", "Covid"))
    when = table.stat().st_mtime + 60
    os.utime(table, (when, when))


@pytest.mark.parametrize(
    ("change", "said"), [(shorter, "wrote 30 rows, it has 29"), (relabelled, "may have been edited")]
)
def test_an_edited_manifest_stays_an_input(here, cxr, editable, change, said):
    editable(here)
    change(here / "work" / "prepared" / "manifest.csv")
    text = cxr("recipe", "--from", "work/run").out
    assert said in next(line for line in text.splitlines() if line.startswith("# what `train` reads"))
    assert "\nDATA ?= work/prepared\n" in text
    assert " prepare " not in text.partition("\nall:")[2]


def test_a_step_on_standard_input_stays_an_input(here, cxr):
    file = here / "work" / "prepared" / "run.json"
    file.write_text(file.read_text().replace('"images",', '"-",', 1))
    text = cxr("recipe", "--from", "work/run").out
    assert (
        "\n# what `train` reads; `prepare` read standard input, which is not recorded\nDATA ?= work/prepared\n" in text
    )
    told = cxr("recipe", "--from", "work/prepared")
    assert (told.code, told.out) == (1, "")
    assert "read standard input, which is not recorded" in told.err


def test_wrong_uses_say_what_is_expected(here, cxr):
    wrong = {
        ("--from", "nowhere"): "--from nowhere: no such folder",
        ("--from", "images"): "expected the folder of a run or of a step, found no run.json in it",
        ("makris", "--from", "work/run"): "expected NAME or --from RUN, found both",
        ("--from", "work/run", "--format", "slurm"): "expected one of make, sh, found 'slurm'",
        ("--from", "work/run", "--estimate"): "--estimate: expected NAME, found --from",
    }
    for words, said in wrong.items():
        told = cxr("recipe", *words)
        assert told.code in (1, 2)
        assert told.out == ""
        assert said in told.err
        assert "Traceback" not in told.err


def test_every_flag_without_a_value_is_known():
    found, valued = set(), set()
    for group in NAMES:
        for name in [f"{group} {one}" for one in members_of(importlib.import_module(module_of(group)))] or [group]:
            command = load(name)
            if name == "recipe" or isinstance(command, LazyGroup):
                continue
            for parameter in command.params:
                flags = {flag for flag in (*parameter.opts, *parameter.secondary_opts) if flag.startswith("-")}
                (found if getattr(parameter, "is_flag", False) else valued).update(flags)
    assert found == SWITCHES
    assert valued >= PATHS
