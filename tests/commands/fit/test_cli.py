import cv2
import numpy as np
import pytest

from cxrtool.data.tables.manifest import read_table, write_manifest, write_table


@pytest.fixture
def masked(tiny):
    """The tiny pictures, each with a mask: its brighter half."""
    folder = tiny.origin.parent
    for row in tiny.rows:
        mask = np.zeros((16, 20), np.uint8)
        mask[:, :10] = 1
        row["mask"] = str(folder / f"{row['image_id']}_mask.png")
        cv2.imwrite(row["mask"], mask)
    write_manifest(folder / "manifest.csv", [*tiny.columns, "mask"], tiny.rows)
    return folder


QUICK = ("--size", "64", "--epochs", "1", "--exposure", "none", "--workers", "1", "--threads", "1")


def test_figures_go_to_stdout_and_the_rest_to_stderr(cxr, masked, tmp_path):
    done = cxr("fit", "lungs", masked, *QUICK, "-o", tmp_path / "part", "--format", "csv")
    assert done.code == 0, done.err
    header, row = done.out.splitlines()
    assert header.startswith("fold,images,patients,mean dice,95 % interval")
    assert row.startswith("r0f0,")
    assert "next: cxrtool segment MANIFEST --lungs" in done.err
    assert "epoch 1" in done.err
    assert cxr("fit", "lungs", masked, *QUICK, "-o", tmp_path / "part").out == ""


def test_an_old_run_is_repeated_by_its_run_json(cxr, masked, tmp_path):
    cxr("fit", "lungs", masked, *QUICK, "--lr", "0.004", "--validation", "0.3", "--seed", "3", "-o", tmp_path / "one")
    again = (
        "fit",
        "lungs",
        masked,
        "--config",
        tmp_path / "one" / "run.json",
        "--workers",
        "1",
        "-o",
        tmp_path / "two",
    )
    done = cxr(*again)
    assert done.code == 0, done.err
    assert (tmp_path / "one" / "part.safetensors").read_bytes() == (tmp_path / "two" / "part.safetensors").read_bytes()


def test_another_kind_is_refused_with_those_there_are(cxr, masked, tmp_path):
    done = cxr("fit", "hearts", masked, "-o", tmp_path / "part")
    assert (done.code, done.out) == (2, "")
    assert "no such command 'fit hearts'" in done.err


def test_strict_tells_of_what_was_rejected_once_all_is_done(cxr, masked, tmp_path):
    (masked / "im003.png").unlink()
    done = cxr("fit", "lungs", masked, *QUICK, "--strict", "-o", tmp_path / "part")
    assert done.code == 3
    assert (tmp_path / "part" / "part.json").exists()
    assert [row["reason"] for row in read_table(tmp_path / "part" / "rejects.csv").rows] == ["no such file"]


def test_a_dry_run_writes_nothing(cxr, masked, tmp_path):
    done = cxr("fit", "lungs", masked, *QUICK, "--dry-run", "-o", tmp_path / "part")
    assert (done.code, done.out) == (0, "")
    assert "would write" in done.err
    assert not (tmp_path / "part").exists()


def test_generators_are_fitted_and_told_of_by_their_effects(cxr, study, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrtool.training.class_inherent_fold.CLASSIFIER", "test_resnet")
    monkeypatch.setattr("cxrtool.models.class_inherent.WIDTH", 8)
    rows = [row for row in read_table(study.splits).rows if (row["repeat"], row["fold"]) == ("0", "0")]
    write_table(study.splits, list(rows[0]), rows)
    call = (
        "fit",
        "generators",
        study.folder,
        "--splits",
        study.splits,
        "--size",
        "32",
        "--epochs",
        "1",
        "--weights",
        "none",
        "--perceptual",
        "none",
        "--workers",
        "1",
        "--threads",
        "1",
    )
    done = cxr(*call, "-o", tmp_path / "run", "--format", "csv")
    assert done.code == 0, done.err
    assert done.out.startswith("class,images,patients,P before,P after,difference,95 % interval")
    assert "--perceptual none: the loss has no perceptual term" in done.err
    assert "next: cxrtool transform MANIFEST --generators" in done.err
    for name in ("curves.png", "transformations.png"):
        assert cv2.imread(str(tmp_path / "run" / "r0f0" / name)) is not None
    # Its run.json repeats it.
    again = cxr(
        "fit",
        "generators",
        study.folder,
        "--config",
        tmp_path / "run" / "run.json",
        "--workers",
        "1",
        "-o",
        tmp_path / "again",
    )
    assert again.code == 0, again.err
    parts = [(tmp_path / name / "r0f0" / "part.safetensors").read_bytes() for name in ("run", "again")]
    assert parts[0] == parts[1]


def test_generators_without_splits_are_refused_with_the_reason(cxr, masked, tmp_path):
    done = cxr("fit", "generators", masked, "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert "fitted in each fold" in done.err
    assert "cxrtool split" in done.err
