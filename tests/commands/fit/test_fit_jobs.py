"""`--jobs` and `--cluster`: folds that are fitted in other processes are those of one after the other."""

import cv2
import numpy as np
import pytest

from cxrtool.data.tables.manifest import read_manifest, write_manifest

FOLDS = ("r0f0", "r0f1")
SHARED = ("--only", ",".join(FOLDS), "--epochs", "1", "--batch-size", "8", "--threads", "1", "--workers", "1")
LINES = {
    "lungs": ("--size", "64", "--exposure", "none", "--balance", "label"),
    "generators": ("--size", "32", "--weights", "none", "--perceptual", "none"),
}


@pytest.fixture
def fitted(study, cxr, tmp_path):
    """Fit folds of a study, one of whose images cannot be read; what the folds hold, and what was said."""
    manifest = read_manifest(study.folder)
    for row in manifest.rows:
        mask = np.zeros(cv2.imread(row["path"]).shape[:2], np.uint8)
        mask[:, : mask.shape[1] // 2] = 1
        row["mask"] = f"{row['path']}_mask.png"
        cv2.imwrite(row["mask"], mask)
    write_manifest(study.folder / "manifest.csv", [*manifest.columns, "mask"], manifest.rows)
    (study.folder / "im003.png").write_bytes(b"no image")

    def call(kind, out, *more):
        line = ("fit", kind, study.folder, "--splits", study.splits, *LINES[kind], *SHARED)
        done = cxr(*line, "--cache", tmp_path / f"cache of {out}", "-o", tmp_path / out, *more)
        assert done.code == 0, done.err
        return tree(tmp_path / out), done.err

    return call


def tree(run):
    """Every file's content, but for what tells the time."""
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


WAYS = {"side by side": ("--jobs", "2"), "a cluster": ("--cluster", "local")}


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("lungs", "side by side"),
        pytest.param("lungs", "a cluster", marks=pytest.mark.slow),
        pytest.param("generators", "side by side", marks=pytest.mark.slow),
        pytest.param("generators", "a cluster", marks=pytest.mark.slow),
    ],
)
def test_folds_in_other_processes_are_the_same_bytes(fitted, kind, way, tmp_path):
    one, told = fitted(kind, "one")
    other, said = fitted(kind, "other", *WAYS[way])
    assert one == other
    assert all(f"{fold}/part.safetensors" in other for fold in FOLDS)
    assert b"im003.png" in other["r0f0/rejects.csv"]
    # Rejects are told once, whatever number of processes decode.
    for text in (told, said):
        assert text.count("cannot be read and are excluded") == 1
        assert text.count("kept epoch 1") == 2
    again, said = fitted(kind, "other", *WAYS[way])
    assert again == one
    assert said.count("up to date, nothing to do") == 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--jobs", "2"), "--jobs: expected --splits, whose folds are fitted side by side, found one network to fit"),
        (("--cluster", "local"), "--cluster: expected --splits, whose folds are given to workers, found one network"),
        (("--jobs", "2", "--cluster", "local", "--splits", "splits.csv"), "expected neither torchrun nor --jobs"),
        (("--jobs", "2", "--splits", "-"), "--splits: expected a file, which every process of the training can read"),
    ],
)
def test_what_processes_cannot_share_is_refused(cxr, study, tmp_path, more, told):
    done = cxr("fit", "ribs", study.folder, *more, "-o", tmp_path / "part")
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "part").exists()
