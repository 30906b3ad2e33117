import json
import subprocess
import sys

import cv2
import pytest

from cxrtool.data.tables.manifest import read_manifest

OPTIONS = ("--workers", "1", "--clahe-tiles", "2")


def test_a_folder_of_images_is_enhanced_described_and_made_again_from_its_own_record(cxr, study, tmp_path):
    out = tmp_path / "enhanced"
    told = ("enhance", study.folder, "--steps", "match-histogram,clahe", "--splits", study.splits, *OPTIONS, "-o", out)
    result = cxr(*told)
    assert (result.code, result.out) == (0, "")
    assert "144 images, 6 folds with" in result.err
    assert sorted(path.name for path in out.iterdir()) == [
        "images",
        "journal.jsonl",
        "manifest.csv",
        "rejects.csv",
        "run.json",
        "strips.png",
    ]
    described = cxr("info", out, "--splits", study.splits)
    assert described.code == 0
    assert "144, of 24 radiographs for 6 folds" in described.out
    assert "match-histogram (folds:" in described.out
    assert "warning" not in described.err
    again = cxr("enhance", "--config", out / "run.json", study.folder, "--workers", "1", "-o", tmp_path / "again")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "manifest.csv").read_bytes() == (out / "manifest.csv").read_bytes()
    assert cxr(*told).err == f"{out}: up to date, nothing to do\n"


def test_images_of_folds_are_neither_divided_nor_thinned_out_by_mistake(cxr, study, tmp_path):
    out = tmp_path / "enhanced"
    told = ("--steps", "match-histogram", "--splits", study.splits, "--strips", "0", "--workers", "1", "-q")
    assert cxr("enhance", study.folder, *told, "-o", out).err == ""
    thinned = (("--per-class", "2"), ("--fraction", "0.5"), ("--drop-duplicates",), ("--one-per", "patient_id"))
    for command in (("split", out, "--folds", "2"), *(("select", out, *flags) for flags in thinned)):
        result = cxr(*command)
        assert (result.code, result.out) == (1, ""), command
        assert "fold" in result.err
    chosen = tmp_path / "chosen"
    assert cxr("select", out, "--where", "fold = 1", "-o", chosen).err.startswith("48 images, 96 excluded")
    assert {row["fold"] for row in read_manifest(chosen).rows} == {"1"}


def test_what_is_there_is_seen_without_torch_in_a_moment(study, tmp_path, rib_part):
    command = ["enhance", study.folder, "--steps", "suppress-ribs", "--ribs", rib_part, "--strips", 0, "--workers", 1]
    line = [str(word) for word in [*command, "-o", tmp_path / "out"]]
    subprocess.run([sys.executable, "-m", "cxrtool", *line], check=True, capture_output=True)
    code = (
        f"import sys; from cxrtool.cli.main import run; assert run({line!r}) == 0; "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "up to date" in found.stderr


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ((), 2, "--steps"),
        (("--steps", "sharpen"), 2, "--steps: expected some of match-histogram,suppress-ribs,clahe"),
        (("--steps", "clahe", "--ribs", "x"), 2, "--ribs belongs to the step suppress-ribs"),
        (("--steps", "suppress-ribs", "--clahe-clip", "3"), 2, "--clahe-clip belongs to the step clahe"),
        (("--steps", "suppress-ribs", "--ribs", "nowhere"), 1, "nowhere: expected a folder with part.json"),
        (("--steps", "match-histogram", "--reference", "nowhere.png"), 1, "nowhere.png"),
        (("--steps", "match-histogram", "--splits", "nowhere.csv"), 1, "nowhere.csv: no such file"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(cxr, study, tmp_path, args, code, text):
    result = cxr("enhance", study.folder, *args, "--workers", "1", "-o", tmp_path / "out")
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert 1 <= len(result.err.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_a_step_more_is_in_the_help_and_works(cxr, study, tmp_path, monkeypatch):
    # Each process loads a module that a test put in the way.
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "sitecustomize.py").write_text(
        "from cxrtool.flow.replaying import STEPS, Step\n"
        "STEPS['negative'] = Step('negative', lambda pixels, entry: 255 - pixels, lambda entry: 'Negatives.',\n"
        "                         options={'clahe_tiles': 'tiles'})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "trap"), prepend=":")

    def call(*words):
        command = [sys.executable, "-m", "cxrtool", "enhance", *map(str, words)]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    page = " ".join(call("--help").stdout.split())
    assert "Some of match-histogram, suppress-ribs, clahe, negative, in the order of use." in page
    out = tmp_path / "out"
    told = call(study.folder, "--steps", "negative", *OPTIONS, "--strips", "0", "-o", out)
    assert told.returncode == 0, told.stderr
    for one, other in zip(read_manifest(study.folder).rows, read_manifest(out).rows, strict=True):
        assert (cv2.imread(other["path"], 0) == 255 - cv2.imread(one["path"], 0)).all()
    assert json.loads((out / "run.json").read_text())["chain"] == [{"step": "negative", "version": 1, "tiles": 2}]
    assert "expected some of match-histogram,suppress-ribs,clahe,negative" in call(study.folder, "--steps", "x").stderr


def test_what_does_not_bear_on_the_result_is_no_reason_to_do_it_again(cxr, study, tmp_path):
    out, config = tmp_path / "out", tmp_path / "options.toml"
    told = ("enhance", "--steps", "match-histogram", "--strips", "0", "--workers", "1", "-o", out)
    assert cxr(*told, study.folder).code == 0
    config.write_text("clahe-tiles = 3\n")
    assert "up to date" in cxr(*told, f"{study.folder}/manifest.csv", "--config", config).err


def test_a_dry_run_writes_nothing(cxr, study, tmp_path):
    result = cxr("enhance", study.folder, "--steps", "clahe", "--dry-run", "-o", tmp_path / "out")
    assert result.err == f"would write {tmp_path / 'out'}: it is not there yet\n"
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
