import os
from pathlib import Path

import pytest

from cxrtool.commands.fuse import KINDS, FuseOptions, fuse
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.errors import UsageError
from cxrtool.flow.settings import Settings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (FuseOptions("median", (Path("a"),)), "expected one of joint, twins, mean, found 'median'"),
        (FuseOptions("joint", (Path("a"),)), "joint: expected two RUN or CSV, found 1"),
        (FuseOptions("twins", (Path("a"), Path("b"))), "twins: expected one RUN or CSV, found 2"),
        (FuseOptions("mean", (Path("a"),)), "mean: expected two or more RUN or CSV, found 1"),
        (FuseOptions("twins", (Path("a"),), rule="nested"), "--rule: goes with `fuse joint`, found `fuse twins`"),
        (FuseOptions("twins", (Path("a"),), prior_correct=True), "--prior-correct: goes with `fuse joint`"),
        (FuseOptions("mean", (Path("a"),) * 2, positive="x"), "--positive: goes with `fuse twins`, found `fuse mean`"),
        (FuseOptions("joint", (Path("a"),) * 2, rule="sum"), "--rule: expected one of product, nested, found 'sum'"),
        (FuseOptions("joint", (Path("a"),) * 2, on_conflict="no"), "--on-conflict: expected one of prob, inconclusive"),
        (
            FuseOptions("joint", (Path("a"),) * 2, names="a,b"),
            "--names: expected three names such as normal,pathological,covid, found 'a,b'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options, told, settings):
    with pytest.raises(UsageError, match=told):
        fuse(options, settings)


def test_every_kind_is_told_with_what_it_takes():
    assert set(KINDS) == {"joint", "twins", "mean"}


@pytest.fixture
def wish(make_predictions, tmp_path):
    for k in range(2):
        write_predictions(tmp_path / f"{k}.csv", make_predictions(6, seed=k))
    return FuseOptions("mean", (tmp_path / "0.csv", tmp_path / "1.csv"))


def test_a_dry_run_writes_nothing(wish, listener, tmp_path):
    fuse(wish, Settings(out=tmp_path / "out.csv", dry_run=True, report=listener))
    assert listener.said == [f"would fuse {tmp_path / '0.csv'}, {tmp_path / '1.csv'}"]
    assert not (tmp_path / "out.csv").exists()


def test_a_file_that_says_the_same_is_left_alone_and_make_converges(wish, tmp_path):
    out = tmp_path / "out.csv"
    fuse(wish, Settings(out=out))
    before = out.stat().st_mtime_ns
    fuse(wish, Settings(out=out))
    assert out.stat().st_mtime_ns == before
    later = before + 10**9
    os.utime(wish.sources[0], ns=(later, later))
    fuse(wish, Settings(out=out))
    assert out.stat().st_mtime_ns != before
