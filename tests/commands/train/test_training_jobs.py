"""`--jobs`: trainings side by side are those of one after the other."""

from pathlib import Path

import pytest

from cxrtool.errors import DivergedError, UsageError

TIMES = ("run.json", "grid.csv", "curves.png")


def tree(folder):
    """Every file's content, but for what tells the time, and pictures."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMES
    }


def test_folds_side_by_side_are_the_same_bytes(study, train_study, listener):
    told = {"only": "r0f0,r0f1,r1f0", "size": 32, "epochs": 1}
    one = train_study(study, "one", **told)
    del listener.said[:]
    two = train_study(study, "two", jobs=2, **told)
    assert tree(one) == tree(two)
    assert len(tree(two / "r1f0")) > 5
    lines = [line for line in listener.said if "epoch 1" in line]
    assert sorted(line.split()[0] for line in lines) == ["r0f0", "r0f0:", "r0f1", "r0f1:", "r1f0", "r1f0:"]
    del listener.said[:]
    train_study(study, "two", jobs=2, **told)
    assert [line.rpartition("/")[2] for line in listener.said[:3]] == [
        f"{fold}: up to date, nothing to do" for fold in ("r0f0", "r0f1", "r1f0")
    ]


@pytest.mark.slow
def test_a_grid_side_by_side_chooses_the_same(study, train_study):
    told = {"only": "r0f0,r0f1", "size": 16, "epochs": 1, "grid": ("lr=0.0001,0.001,0.003",)}
    one, two = (train_study(study, name, jobs=jobs, **told) for name, jobs in (("one", 1), ("two", 2)))
    assert tree(one) == tree(two)
    again = train_study(study, "two", jobs=2, force=True, **told)
    assert tree(one) == tree(again)


@pytest.mark.slow
def test_an_error_is_told_with_its_fold(study, train_study):
    with pytest.raises(DivergedError, match=r"^fold r0f[01]: epoch 1"):
        train_study(study, jobs=2, only="r0f0,r0f1", lr=1e30, precision="fp32")


def test_what_processes_cannot_share_is_refused(study, train_study, monkeypatch):
    with pytest.raises(UsageError, match="the manifest: expected a file"):
        train_study(type(study)(Path("-"), study.splits), jobs=2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--jobs: expected 1 where torchrun has started 2 processes, found 2"):
        train_study(study, jobs=2)
