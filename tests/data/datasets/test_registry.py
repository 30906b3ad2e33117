"""A data set is one file: it enters itself, and `prepare` takes its name."""

import csv
import sys

import cv2
import numpy as np
import pytest

from cxrtool.data import datasets
from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.tables.manifest import read_manifest

TOY = """
from cxrtool.data.datasets.layout import misfit
from cxrtool.data.datasets.record import Record
from cxrtool.data.datasets.registry import adapter

@adapter("toy", mark=lambda root: (root / "toys").is_dir())
def read(source, request):
    if not (source / "toys").is_dir():
        raise misfit(source, "toy", "a folder toys")
    for path in sorted((source / "toys").iterdir()):
        yield Record(path, {"label": path.stem[0], "patient_id": path.stem[1:]}, f"toys/{path.name}")
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "toy.py").write_text(TOY)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "modules")])
    datasets.import_all()
    yield "toy"
    del ADAPTERS["toy"], sys.modules["cxrtool.data.datasets.toy"]


def test_the_help_names_it_and_prepare_reads_it(cxr, toy, tmp_path):
    assert f"shenzhen, {toy}." in " ".join(cxr("prepare", "--help").out.split())
    (tmp_path / "set" / "toys").mkdir(parents=True)
    for index, name in enumerate(("a1", "a2", "b3")):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30), np.uint8)
        assert cv2.imwrite(str(tmp_path / "set" / "toys" / f"{name}.png"), pixels)
    call = ("prepare", tmp_path / "set", "--workers", "1", "-o", tmp_path / "out", "--dataset")
    assert "it looks like --dataset toy" in cxr(*call, "covidgr").err
    assert cxr(*call, toy).code == 0
    rows = read_manifest(tmp_path / "out").rows
    assert [(row["label"], row["patient_id"], row["source"]) for row in rows] == [
        ("a", "set:1", "set"),
        ("a", "set:2", "set"),
        ("b", "set:3", "set"),
    ]
    with (tmp_path / "out" / "rejects.csv").open() as file:
        assert list(csv.DictReader(file)) == []


def test_what_reads_anything_stands_first():
    assert list(ADAPTERS)[:3] == ["folder", "csv", "list"]
    assert list(ADAPTERS)[3:] == sorted(list(ADAPTERS)[3:])
    assert [name for name, adapter in ADAPTERS.items() if adapter.mark is None] == ["folder", "csv", "list"]
