"""Silent corruptions of what commands exchange: each is refused or reported by the commands that read it."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from cxrtool.cli.main import run
from cxrtool.data.digests import FILES
from cxrtool.data.tables.manifest import read_table, write_table


def _do(line: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run([*line.split(), "--quiet"])
    assert code == 0, f"{line}: {said.getvalue()}"


@pytest.fixture(scope="session")
def sound(tmp_path_factory, make_masked_study, lung_part):
    """A study, prepared, segmented, trained in two folds, evaluated and enhanced."""
    folder = tmp_path_factory.mktemp("sound")
    home = Path.cwd()
    os.chdir(folder)
    try:
        make_masked_study(folder)
        _do("prepare study/manifest.csv -o prepared --workers 1")
        _do("split prepared --folds 2 --validation 0.3 -o splits.csv")
        shutil.copytree(lung_part, folder / "lungs")
        _do("segment prepared --lungs lungs -o segmented --workers 1 --device cpu")
        _do(
            "train prepared --splits splits.csv --model covid-xnet --size 32 --epochs 1 --workers 1 --threads 1 "
            "--device cpu --cache cache -o trained"
        )
        _do("evaluate trained -o evaluated")
    finally:
        os.chdir(home)
    return folder


@pytest.fixture
def place(sound, tmp_path, monkeypatch):
    """A copy of the study, as the working directory."""
    shutil.copytree(sound, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def _cut(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) * 3 // 4]))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 0x10
    status = path.stat()
    path.write_bytes(data)
    # As damage of a disk, which no time tells of.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _swap_classes(path: Path) -> None:
    content = json.loads(path.read_text())
    content["classes"].reverse()
    path.write_text(json.dumps(content, indent=1) + "\n")


def _change_probability(path: Path) -> None:
    table = read_table(path)
    table.rows[-1]["prob_covid"], table.rows[-1]["prob_normal"] = "0.25", "0.75"
    write_table(path, table.columns, table.rows)


def _remove_row(path: Path) -> None:
    table = read_table(path)
    write_table(path, table.columns, table.rows[:-1])


def _relabel(path: Path) -> None:
    _edit(path, ",covid,", ",normal,")


def _exchange(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("*.png"))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


FOLD = "trained/r0f0"
TRAIN = "train {} --splits splits.csv --preset thumbnail --epochs 1 --workers 1 --device cpu --cache other -o new"
TRAIN_PREPARED = TRAIN.format("prepared")
READ_RUN = ("evaluate trained", "compare a=trained b=trained/r0f1", "report trained -o report.html")

REFUSED = {
    "a table of predictions cut": (
        lambda: _cut(Path(FOLD, "predictions.csv")),
        f"{FOLD}/predictions.csv",
        (*READ_RUN, f"evaluate {FOLD}/predictions.csv", f"evaluate {FOLD}", "explain trained prepared -o explained"),
    ),
    "a value of predictions changed": (
        lambda: _change_probability(Path(FOLD, "predictions.csv")),
        f"{FOLD}/predictions.csv",
        (*READ_RUN, "audit prepared --run trained --quick -o audited", "fuse mean trained trained/r0f1 -o fused"),
    ),
    "a byte of weights flipped": (
        lambda: _flip(Path(FOLD, "model.safetensors")),
        f"{FOLD}/model.safetensors",
        (f"predict {FOLD} segmented --allow-leakage", f"explain {FOLD} prepared -o explained"),
    ),
    "the classes of a model exchanged": (
        lambda: _swap_classes(Path(FOLD, "model.json")),
        f"{FOLD}/model.json",
        (f"predict {FOLD} prepared --allow-leakage", f"info {FOLD}", "compare a=trained b=trained/r0f1"),
    ),
    "what a model was fitted on cut": (
        lambda: _cut(Path(FOLD, "fitted_on.csv")),
        f"{FOLD}/fitted_on.csv",
        (f"predict {FOLD} prepared", "compare a=trained b=trained/r0f1", f"explain {FOLD} prepared -o explained"),
    ),
    "what a model was fitted on removed": (
        lambda: Path(FOLD, "fitted_on.csv").unlink(),
        f"{FOLD}/fitted_on.csv",
        (f"predict {FOLD} prepared",),
    ),
    "the history of a training changed": (
        lambda: _edit(Path(FOLD, "history.csv"), "0.", "1."),
        f"{FOLD}/history.csv",
        ("compare a=trained b=trained/r0f1", "report trained -o report.html"),
    ),
    "the splits of a run replaced by others": (
        lambda: _do("split prepared --folds 2 --seed 7 -o trained/splits.csv --force"),
        "trained/splits.csv",
        (*READ_RUN, "audit prepared --run trained --quick -o audited"),
    ),
    "a row of the splits of a run removed": (
        lambda: _remove_row(Path("trained/splits.csv")),
        "trained/splits.csv",
        (*READ_RUN, "recipe --from trained"),
    ),
    "a row of a step's manifest relabelled": (
        lambda: _relabel(Path("prepared/manifest.csv")),
        "prepared/manifest.csv",
        (TRAIN_PREPARED, "split prepared --folds 2", "audit prepared --quick -o audited", "segment prepared -o again"),
    ),
    "another mask": (
        lambda: shutil.copy("segmented/masks/im001.png", "prepared/masks/im000.png"),
        "prepared/masks/im000.png",
        ("fit lungs prepared --epochs 1 --device cpu -o fitted --workers 1 --threads 1 --cache other",),
    ),
    "pictures exchanged": (
        lambda: _exchange(Path("prepared/images")),
        "prepared/images/im000.png",
        (TRAIN_PREPARED, f"{TRAIN_PREPARED} --verify"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("place")
def test_what_is_not_as_it_was_written_is_refused(cxr, name):
    corrupt, path, lines = REFUSED[name]
    corrupt()
    for line in lines:
        outcome = cxr(*line.split())
        assert outcome.code == 1, f"{line}\n{outcome.err}"
        assert f"{path}: expected the file as `cxrtool" in outcome.err, f"{line}\n{outcome.err}"
        assert "make it again: `cxrtool " in outcome.err


def test_nothing_of_a_sound_study_is_refused(cxr, place):
    for line in dict.fromkeys(lines[0] for _, _, lines in REFUSED.values()):
        outcome = cxr(*line.split())
        # Some predict images that a model was trained on.
        assert outcome.code in (0, 4), f"{line}\n{outcome.err}"
        assert "found it changed" not in outcome.err, f"{line}\n{outcome.err}"
        for made in ("new", "explained", "audited", "fused", "fitted", "again"):
            shutil.rmtree(place / made, ignore_errors=True)


def test_info_names_what_was_changed(cxr, place):
    assert "changed since" not in cxr("info", "trained").out
    _cut(place / FOLD / "predictions.csv")
    assert "r0f0/predictions.csv; commands that read it will refuse it" in cxr("info", "trained").out


def test_the_same_command_makes_only_the_damaged_fold_again(cxr, place):
    train = "train prepared --splits splits.csv --model covid-xnet --size 32 --epochs 1 --workers 1 --threads 1"
    line = f"{train} --device cpu --cache cache -o trained".split()
    assert "nothing to do" in cxr(*line).err
    table = place / FOLD / "predictions.csv"
    sound, other = table.read_bytes(), (place / "trained/r0f1/run.json").stat().st_mtime_ns
    _cut(table)
    outcome = cxr(*line)
    assert outcome.code == 0, outcome.err
    assert "r0f0/predictions.csv was changed after it was written" in outcome.err
    assert table.read_bytes() == sound
    assert (place / "trained/r0f1/run.json").stat().st_mtime_ns == other
    assert cxr("evaluate", "trained").code == 0


@pytest.mark.parametrize("name", ["splits.csv", "manifest.csv", "rejects.csv"])
def test_a_run_killed_between_a_record_and_its_file_is_completed(cxr, place, name):
    # `run.json` has the digest of a file that is not there yet.
    train = "train prepared --splits splits.csv --model covid-xnet --size 32 --epochs 1 --workers 1 --threads 1"
    sound, other = (place / "trained" / name).read_bytes(), (place / FOLD / "run.json").stat().st_mtime_ns
    (place / "trained" / name).unlink()
    outcome = cxr(*f"{train} --device cpu --cache cache -o trained".split())
    assert outcome.code == 0, outcome.err
    assert (place / "trained" / name).read_bytes() == sound
    assert (place / FOLD / "run.json").stat().st_mtime_ns == other
    assert cxr("evaluate", "trained").code == 0


def test_edited_metrics_are_computed_again(cxr, place):
    metrics = place / "evaluated/metrics.json"
    sound = metrics.read_bytes()
    metrics.write_bytes(sound.replace(b"0.", b"1.", 1))
    outcome = cxr("evaluate", "trained", "-o", "evaluated")
    assert "metrics.json was changed after it was written" in outcome.err
    assert metrics.read_bytes() == sound


def test_a_byte_of_a_part_flipped_is_refused(cxr, place):
    _flip(place / "lungs/part.safetensors")
    outcome = cxr("segment", "prepared", "--lungs", "lungs", "-o", "again", "--device", "cpu")
    assert outcome.code == 1
    assert "lungs: damaged: the weights do not match part.json" in outcome.err


def test_a_run_of_an_earlier_version_is_read_and_its_test_images_are_counted(cxr, place):
    for path in place.rglob("run.json"):
        content = json.loads(path.read_text())
        del content[FILES]
        path.write_text(json.dumps(content))
    assert cxr("evaluate", "trained").code == 0
    assert "not known: this version of cxrtool kept no digests" in cxr("info", "trained").out
    table = place / FOLD / "predictions.csv"
    tested = [row["image_id"] for row in read_table(table).rows if row["subset"] == "test"]
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-2]))
    for argument in ("trained", FOLD, f"{FOLD}/predictions.csv"):
        outcome = cxr("evaluate", argument)
        assert outcome.code == 1
        assert f"expected {len(tested)} test images, found {len(tested) - 2}; missing are " in outcome.err
        assert all(name in outcome.err for name in tested[-2:])


def test_a_table_edited_on_purpose_is_read_under_another_name(cxr, place):
    table = read_table("prepared/manifest.csv")
    write_table(place / "prepared/edited.csv", table.columns, table.rows[:-2])
    assert cxr("split", "prepared/edited.csv", "--folds", "2").code == 0


def test_rows_added_and_relabelled_after_the_split_are_reported(cxr, place):
    # A table outside of the folder of a step may be edited.
    assert cxr("split", "study/manifest.csv", "--folds", "2", "-o", "splits.csv", "--force").code == 0
    line = [*TRAIN.format("study/manifest.csv").split(), "--dry-run"]
    first = cxr(*line)
    assert "not in any fold" not in first.err
    assert "was changed after the division" not in first.err
    _remove_row(place / "splits.csv")
    rows = read_table("splits.csv").rows
    gone = read_table("study/manifest.csv").rows
    splits = [row for row in rows if row["image_id"] != rows[0]["image_id"]]
    write_table(place / "splits.csv", list(rows[0]), splits)
    _edit(place / "study/manifest.csv", f"{splits[0]['image_id']}.png,covid", f"{splits[0]['image_id']}.png,normal")
    outcome = cxr(*line)
    assert f"1 image of the manifest, such as {gone[0]['image_id']}, not in any fold" in outcome.err
    assert "splits.csv: the label or patient_id of 1 image, such as " in outcome.err


def test_training_pictures_copied_over_test_pictures_are_found(cxr, place):
    assert cxr("split", "study/manifest.csv", "--folds", "2", "-o", "splits.csv", "--force").code == 0
    sides = {row["image_id"]: row["subset"] for row in read_table("splits.csv").rows if row["fold"] == "0"}
    train, test = (next(name for name in sides if sides[name] == side) for side in ("train", "test"))
    shutil.copyfile(f"study/{train}.png", f"study/{test}.png")
    outcome = cxr(*TRAIN.format("study/manifest.csv").split())
    assert outcome.code == 4, outcome.err
    assert "has the same pixels as one in another subset" in outcome.err
    assert f"'{test}' (test)" in outcome.err
    assert f"'{train}' (train)" in outcome.err
    allowed = cxr(*TRAIN.format("study/manifest.csv").split(), "--allow-leakage")
    assert allowed.code == 0
    assert "has the same pixels as one in another subset" in allowed.err


@pytest.mark.parametrize(
    "line",
    [
        TRAIN.format("raw.csv"),
        f"predict {FOLD} raw.csv --allow-leakage",
        "segment raw.csv -o again --lungs lungs --device cpu",
        "enhance raw.csv --steps clahe -o again",
        f"explain {FOLD} raw.csv -o again",
    ],
)
def test_a_picture_exchanged_outside_of_a_step_is_found_by_its_digest(cxr, place, line):
    digests = {row["image_id"]: row["sha256"] for row in read_table("prepared/manifest.csv").rows}
    table = read_table("study/manifest.csv")
    rows = [
        {**row, "path": f"study/{row['path']}", "mask": "", "sha256": digests[row["image_id"]]} for row in table.rows
    ]
    write_table(place / "raw.csv", [*table.columns, "sha256"], rows)
    shutil.copyfile("study/im004.png", "study/im001.png")
    outcome = cxr(*line.split())
    text = outcome.err + "".join(path.read_text() for path in place.glob("again/rejects.csv"))
    assert "expected the pixels of 'im001'" in text
    assert outcome.code == (1 if line.startswith("train") else 0)
