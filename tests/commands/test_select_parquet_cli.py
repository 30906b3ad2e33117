"""The same table as CSV and as Parquet gives the same results in every command that reads or writes one."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyarrow")


@pytest.fixture
def both(cxr, study, tmp_path, monkeypatch):
    """Two manifests of one small study, `m.csv` and `m.parquet`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("csv", "parquet"):
        assert cxr("select", study.folder, "-o", f"m.{suffix}").code == 0
    return "m.csv", "m.parquet"


def same(cxr, *commands):
    """Run both commands and give what they print, which must be equal but for their names."""
    outcomes = [cxr(*command) for command in commands]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[1].err
    assert outcomes[0].out == outcomes[1].out.replace(".parquet", ".csv")
    return outcomes[1]


def test_select_split_info_and_audit(cxr, both, tmp_path):
    same(cxr, *(("select", name, "--per-class", "2", "--where", "label <> ''") for name in both))
    same(cxr, *(("split", name, "--folds", "2") for name in both))
    for name, out in zip(both, ("s.csv", "s.parquet"), strict=True):
        assert cxr("split", name, "--folds", "2", "-o", out).code == 0
    again = cxr("split", both[1], "--folds", "2", "-o", "s.parquet")
    assert again.code == 0
    splits = "s.csv", "s.parquet"
    for more in ((), ("--table1",)):
        same(cxr, *(("info", name, "--splits", path, *more) for name, path in zip(both, splits, strict=True)))
    same(cxr, *(("audit", name, "--quick", "--splits", path) for name, path in zip(both, splits, strict=True)))
    assert cxr("select", both[0], "-o", "m.parquet").code == 0
    told = cxr("select", both[1], "-o", "m.parquet")
    assert (told.code, "the input" in told.err) == (2, True)
    assert "another file" in cxr("split", both[0], "--folds", "2", "-o", "m.parquet").err


def test_prepare_and_the_splits_of_a_run(cxr, both, study, tmp_path):
    for name, out in zip(both, ("a", "b"), strict=True):
        assert cxr("prepare", name, "-o", out, "--size", "16").code == 0
    assert (tmp_path / "a" / "manifest.csv").read_bytes() == (tmp_path / "b" / "manifest.csv").read_bytes()
    assert cxr("split", both[1], "--folds", "2", "-o", "s.parquet").code == 0
    done = cxr("train", both[1], "--splits", "s.parquet", "--model", "thumbnail", "--epochs", "1", "-o", "run")
    assert done.code == 0, done.err
    assert cxr("split", both[0], "--folds", "2", "-o", "s.csv").code == 0
    assert (tmp_path / "run" / "splits.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()
    for out in ("p.csv", "p.parquet"):
        assert cxr("predict", "run", both[1], "-o", out, "--allow-leakage").code == 0
    for suffix in ("csv", "parquet"):
        assert cxr("fuse", "mean", "p.csv", "p.parquet", "-o", f"f.{suffix}").code == 0
    same(cxr, ("evaluate", "p.csv"), ("evaluate", "p.parquet"))
    same(cxr, ("evaluate", "f.csv"), ("evaluate", "f.parquet"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["splits"]["value"] == "s.parquet"


def test_predictions_of_another_tool(cxr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    truth = generator.random(60) < 0.5
    scores = np.clip(0.3 * truth + generator.random(60) * 0.7, 0, 1)
    table = pd.DataFrame(
        {"filename": range(60), "y_true": truth.astype(int), "y_score": scores, "sex": ["F", None] * 30}
    )
    table.to_csv("t.csv", index=False)
    table.to_parquet("t.parquet")
    same(cxr, *(("evaluate", f"t.{suffix}", "--positive", "covid", "--by", "sex") for suffix in ("csv", "parquet")))
