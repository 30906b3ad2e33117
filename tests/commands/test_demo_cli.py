"""The demo, from the drawn radiographs to the table by severity."""

import json
import sys

import cv2
import numpy as np
import pytest

from cxrtool.commands import demo
from cxrtool.data.tables.manifest import read_manifest, read_table
from cxrtool.errors import InputError


def test_it_runs_the_chain_to_a_table_by_severity_and_pictures(cxr, tmp_path, monkeypatch, root):
    monkeypatch.setattr(sys, "argv", ["cxrtool", "demo"])
    out = tmp_path / "a folder"
    outcome = cxr("demo", "-o", out, "--epochs", 1)
    assert outcome.code == 0
    shown = [line for line in outcome.out.splitlines() if line.startswith("$ cxrtool ")]
    assert [line.split()[2] for line in shown] == [line.split()[0] for line in demo.CHAIN]
    assert "By severity" in outcome.out
    metadata = read_table(root / "sample_data" / "phantoms" / "metadata.csv")
    assert len(read_manifest(out / "prepared")) == len(metadata)
    assert read_table(out / "prepared" / "rejects.csv").rows == []
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text())
    assert set(metrics["per_group"]["severity"]) >= {"normal-pcr+", "mild", "moderate", "severe"}
    assert metrics["runs"] == 3
    for name in ("roc", "by_severity", "confusion", "reliability", "precision_recall"):
        assert str(out / "evaluation" / f"{name}.png") in outcome.out
    assert json.loads((out / "run" / "run.json").read_text())["argv"][1] == "train"


def test_without_its_phantoms_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.cxrtool, "__file__", str(tmp_path / "cxrtool" / "__init__.py"))
    with pytest.raises(InputError, match="expected the phantoms in"):
        demo.find_samples()


def test_the_folder_of_another_step_is_refused(cxr, tmp_path):
    """Nothing in it is touched."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data" / "a" / "x.png"), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    assert cxr("prepare", tmp_path / "data", "-o", tmp_path / "prepared").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "prepared").rglob("*") if path.is_file()}
    refused = cxr("demo", "-o", tmp_path / "prepared")
    assert refused.code == 1
    assert "prepare" in refused.err
    assert {path: path.read_bytes() for path in (tmp_path / "prepared").rglob("*") if path.is_file()} == before
