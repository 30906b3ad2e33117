import os
from pathlib import Path

import pytest

from cxrtool.commands.fuse import KINDS
from cxrtool.commands.fuse.joint import JointOptions, fuse_joint
from cxrtool.commands.fuse.mean import MeanOptions, fuse_mean
from cxrtool.commands.fuse.twins import TwinsOptions, fuse_twins
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.errors import UsageError
from cxrtool.flow.settings import Settings

A = Path("a")


@pytest.mark.parametrize(
    ("call", "told", "hint"),
    [
        (lambda told: fuse_joint(JointOptions((A,)), told), "expected two RUN or CSV, found 1", "joint A B"),
        (lambda told: fuse_joint(JointOptions((A,) * 3), told), "expected two RUN or CSV, found 3", "joint A B"),
        (lambda told: fuse_twins(TwinsOptions((A,) * 2), told), "expected one RUN or CSV, found 2", "twins RUN"),
        (lambda told: fuse_mean(MeanOptions((A,)), told), "expected two or more RUN or CSV, found 1", "mean RUN..."),
    ],
)
def test_another_number_of_sources_is_refused(call, told, hint, settings):
    with pytest.raises(UsageError, match=told) as caught:
        call(settings)
    assert caught.value.hint == f"cxrtool fuse {hint}"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rule": "sum"}, "--rule: expected one of product, nested, found 'sum'"),
        ({"on_conflict": "no"}, "--on-conflict: expected one of prob, inconclusive"),
        ({"names": "a,b"}, "--names: expected three names such as normal,pathological,covid, found 'a,b'"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(options, told, settings):
    with pytest.raises(UsageError, match=told):
        fuse_joint(JointOptions((A, A), **options), settings)


def test_every_kind_is_a_command():
    assert set(KINDS) == {"joint", "twins", "mean"}


@pytest.fixture
def wish(make_predictions, tmp_path):
    for k in range(2):
        write_predictions(tmp_path / f"{k}.csv", make_predictions(6, seed=k))
    return MeanOptions((tmp_path / "0.csv", tmp_path / "1.csv"))


def test_a_dry_run_writes_nothing(wish, listener, tmp_path):
    fuse_mean(wish, Settings(out=tmp_path / "out.csv", dry_run=True, report=listener))
    assert listener.said == [f"would fuse {tmp_path / '0.csv'}, {tmp_path / '1.csv'}"]
    assert not (tmp_path / "out.csv").exists()


def test_a_file_that_says_the_same_is_left_alone_and_make_converges(wish, tmp_path):
    out = tmp_path / "out.csv"
    fuse_mean(wish, Settings(out=out))
    before = out.stat().st_mtime_ns
    fuse_mean(wish, Settings(out=out))
    assert out.stat().st_mtime_ns == before
    later = before + 10**9
    os.utime(wish.sources[0], ns=(later, later))
    fuse_mean(wish, Settings(out=out))
    assert out.stat().st_mtime_ns != before
