"""A method is one file: what is added to a registry is in the help, among the choices, and works."""

import sys
import types

import numpy as np
import pytest

from cxrtool.data.tables.manifest import read_table
from cxrtool.evaluation.fusion_rules import RULES
from cxrtool.models.registry import BUILT_IN, BuiltIn

NETWORK = '''
"""Two means and a linear layer."""

import torch
from torch import nn

from cxrtool.models.network import Network


class HalfMeans(Network):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(2, classes)

    def features(self, images):
        left, right = images.chunk(2, dim=3)
        return torch.cat([half.mean((1, 2, 3), keepdim=False)[:, None] for half in (left, right)], dim=1)

    def classify(self, features):
        return self.head(features)

    def head_modules(self):
        return [self.head]


def build(architecture):
    return HalfMeans(architecture.classes)
'''


@pytest.fixture
def network(monkeypatch):
    """A network in a file of its own, of which the package knows nothing but its line in the registry."""
    module = types.ModuleType("lab.half_means")
    exec(NETWORK, module.__dict__)
    monkeypatch.setitem(sys.modules, "lab.half_means", module)
    monkeypatch.setitem(BUILT_IN, "half-means", BuiltIn("lab.half_means", 16, mean=(0.5,), std=(0.25,)))
    return "half-means"


def test_a_network(cxr, network, study, tmp_path, no_pictures):
    assert network in "".join(cxr("train", "--help").out.split())
    assert network in cxr("train", "m.csv", "--splits", study.splits, "--model", "half-mean", "-o", tmp_path / "x").err
    run = tmp_path / "run"
    call = ("train", study.folder, "--splits", study.splits, "--model", network, "--epochs", "40", "--lr", "0.05")
    quick = ("--augment", "none", "--workers", "1", "--threads", "1", "--device", "cpu", "--only", "r0f0")
    done = cxr(*call, *quick, "-o", run)
    assert done.code == 0, done.err
    rows = read_table(run / "r0f0" / "predictions.csv").rows
    tested = [row for row in rows if row["subset"] == "test"]
    # The class of the study's pictures is the half that is brighter.
    assert all(row["label"] == row["predicted"] for row in tested)
    again = cxr("predict", run / "r0f0", study.folder, "--allow-leakage", "--workers", "1", "--device", "cpu")
    assert again.code == 0, again.err


def test_a_fusion_rule(cxr, joint_runs, tmp_path, monkeypatch):
    def cautious(a, b):
        found = np.stack([1 - np.maximum(a, b), np.maximum(a - b, 0.0), b], axis=-1)
        return found / found.sum(axis=-1, keepdims=True)

    monkeypatch.setitem(RULES, "cautious", cautious)
    assert "cautious" in "".join(cxr("fuse", "joint", "--help").out.split())
    wrong = cxr("fuse", "joint", *joint_runs, "--rule", "cautios")
    assert "did you mean 'cautious'?" in wrong.err
    done = cxr("fuse", "joint", *joint_runs, "--rule", "cautious", "-o", tmp_path / "joint.csv")
    assert done.code == 0, done.err
    row = read_table(tmp_path / "joint.csv").rows[0]
    assert sum(float(cell) for name, cell in row.items() if name.startswith("prob_")) == pytest.approx(1)
