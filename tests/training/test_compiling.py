"""`--compile`: the same training but for rounding, compiled once, and never silently not compiled."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from cxrtool.errors import CxrtoolError
from cxrtool.models.architecture import Architecture
from cxrtool.training import compiling
from cxrtool.training.augment import parse
from cxrtool.training.compiling import Compiled, errors_of_compiling, require_compiler
from cxrtool.training.fitting import Design, fit_fold
from cxrtool.training.store import Store

SIDE, COUNT = 32, 20
TRAINING, VALIDATION = np.arange(7, COUNT), np.arange(7)
BATCH = 5
"""Neither the 13 images of training nor the 7 of validation are whole batches."""


@pytest.fixture(scope="module")
def pictures():
    labels = np.arange(COUNT) % 2
    images = np.random.default_rng(1).integers(0, 120, (COUNT, SIDE, SIDE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, slice(0, SIDE // 2) if label else slice(SIDE // 2, SIDE)] += 120
    return Store(images, [""] * COUNT), labels


@pytest.fixture
def train(recipe, pictures, tmp_path):
    """Train covid-xnet, or another network; all that a fold gives."""
    design = Design(
        Architecture("covid-xnet", 2, size=SIDE),
        "none",
        replace(recipe, epochs=3, batch_size=BATCH, opt="adam", lr=0.001),
        parse("rotate=10,flip=0.5"),
        freeze=False,
        frozen_norms=True,
        normalize="native",
        seed=3,
        threads=1,
        device="cpu",
        precision="fp32",
    )

    def call(**changes):
        store, labels = pictures
        state = tmp_path / str(len(list(tmp_path.iterdir())))
        ids = [f"im{i:02}" for i in range(COUNT)]
        asked = replace(design, **changes)
        return fit_fold(asked, store, ids, labels, TRAINING, VALIDATION, VALIDATION, state, watched=VALIDATION)

    return call


@pytest.fixture
def eager(monkeypatch):
    """Graphs are made and counted, and then computed as they are."""
    monkeypatch.setattr(compiling, "COMPILER", {"backend": "eager"})
    compiling._forget_others.cache_clear()
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    compiling._forget_others.cache_clear()


def graphs():
    return counters["stats"]["unique_graphs"]


def same(one, other):
    for row, beside in zip(one.history.rows, other.history.rows, strict=True):
        # In batches that are filled up, the last bit may be another.
        assert row == pytest.approx(beside, rel=1e-6)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
    assert np.array_equal(one.probabilities, other.probabilities)


CASES = {
    "covid-xnet": {},
    "normalised, with dropout": {
        "architecture": Architecture("test_resnet", 2, dropout=0.5, size=SIDE),
        "recompute_norms": True,
    },
    "head alone": {
        "architecture": Architecture("test_resnet", 2, size=SIDE),
        "freeze": True,
        "augmentation": parse("none"),
    },
    "depthwise in bf16": {"architecture": Architecture("test_efficientnet", 2, size=SIDE), "precision": "bf16"},
}
SLOW = ("normalised, with dropout", "depthwise in bf16")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_partial_batches_are_no_graphs_of_their_own(train, eager, name):
    plain = train(**CASES[name])
    assert graphs() == 0
    same(plain, train(compile=True, **CASES[name]))
    # One for training and one for validation.
    assert graphs() == 2


def test_folds_share_what_is_compiled_and_designs_do_not_add_up(train, eager):
    for seed in range(3):
        train(compile=True, seed=seed)
    assert graphs() == 2
    # torch keeps eight versions of one function, two of which a design needs.
    for kernels in ((3,), (3, 3), (5, 3), (5, 5)):
        train(compile=True, architecture=Architecture("covid-xnet", 2, size=SIDE, kernels=kernels))
    assert graphs() == 2 * 5


def test_a_batch_of_another_size_is_computed_by_the_module(eager):
    module = torch.nn.Linear(3, 2)
    compiled = Compiled(module, 4, "a design")
    for count in (4, 3, 5, 4):
        inputs = torch.rand(count, 3)
        assert torch.equal(compiled(inputs), module(inputs))
    assert graphs() == 1
    compiled.size = 3
    compiled(torch.rand(3, 3))
    assert graphs() == 2


def test_what_cannot_be_compiled_is_one_line(eager):
    def branching(values):
        return values + 1 if values.sum() > 0 else values

    expected = r"^--compile: expected that torch can compile .*, found: .+"
    with pytest.raises(CxrtoolError, match=expected) as caught, errors_of_compiling():
        compiling._compile(branching)(torch.ones(2))
    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith("omit --compile")


def test_a_platform_without_a_compiler_is_told(monkeypatch):
    def refuse(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(compiling, "COMPILER", {"backend": refuse})
    require_compiler.cache_clear()
    with pytest.raises(CxrtoolError, match="No working C\\+\\+ compiler found"):
        require_compiler(torch.device("cpu"))
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_code_gives_the_same_but_for_rounding(train):
    compiling._forget_others.cache_clear()
    torch.compiler.reset()
    counters.clear()
    plain, compiled = train(), train(compile=True)
    assert graphs() == 2
    weights = [torch.cat([value.flatten() for value in one.network.state_dict().values()]) for one in (plain, compiled)]
    assert float((weights[0] - weights[1]).abs().max()) < 1e-5
    assert np.abs(plain.probabilities - compiled.probabilities).max() < 1e-5
    # Continued or not, on one machine it is the same.
    same(compiled, train(compile=True))
    torch.compiler.reset()


@pytest.mark.slow
def test_without_a_compiler_nothing_is_trained(study, tmp_path):
    line = ["train", study.folder, "--splits", study.splits, "--model", "covid-xnet", "--size", "16", "--compile"]
    command = [sys.executable, "-m", "cxrtool", *map(str, line), "-o", str(tmp_path / "run")]
    done = subprocess.run(
        command, env={"PATH": "/nonexistent", "CXX": "/nonexistent/g++"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 2
    assert "--compile: expected that torch can compile the network here, found: " in done.stderr
    assert not (tmp_path / "run").exists()
