"""An exported model against torch: images a second of `Classifier.probabilities`, and the largest difference.

Both get the same images in memory, one by one on one thread, as `predict` does it on a processor, in turns. Beside them
stands onnxruntime with the whole batch at once. `python bench_onnx.py MODEL FOLDER` takes a model folder and a folder
of prepared images instead of random weights and noise.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool.cli.main import run
from cxrtool.models.architecture import Architecture
from cxrtool.models.description import Input, ModelDescription, Normalization
from cxrtool.models.registry import build, input_form
from cxrtool.training.checkpoint import save_model
from cxrtool.training.inference import Member, as_batch
from cxrtool.training.onnx_graph import samples

NETWORKS = {"covid-xnet": 128, "tf_efficientnet_lite0": 224, "resnet50": 224}
COUNT, CPU = 32, torch.device("cpu")


def random_model(name: str, size: int, folder: Path) -> Path:
    torch.manual_seed(0)
    architecture = Architecture(name, 3, size=size)
    form = Normalization(**input_form(name, "native"))
    network, _ = build(architecture)
    save_model(folder, network, ModelDescription(list("abc"), architecture.to_json(), [], Input(size, "squash"), form))
    return folder


def compare(folder: Path, images: torch.Tensor, scratch: Path, in_turns) -> float:
    """Print the figures; the ratio of onnxruntime to torch."""
    out = scratch / "model.onnx"
    assert run(["weights", "export", str(folder), "-o", str(out), "--threads", "1", "-q"]) == 0
    ours, theirs = (Member.load(path, CPU, "fp32") for path in (out, folder))
    largest = (ours.classifier.probabilities(images) - theirs.classifier.probabilities(images)).abs().max()
    calls = [
        lambda: theirs.classifier.probabilities(images),
        lambda: ours.classifier.probabilities(images),
        lambda: ours.classifier.run(images),
    ]
    torch_s, onnx_s, at_once = (len(images) / seconds for seconds in in_turns(*calls, rounds=3))
    sys.stdout.write(
        f"\n{theirs.description.network['name']}: torch {torch_s:.1f} images/s, onnxruntime {onnx_s:.1f} "
        f"({onnx_s / torch_s:.2f}), in one batch {at_once:.1f}; largest difference {largest:.2g}\n"
    )
    return onnx_s / torch_s


@pytest.mark.bench
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx(name, tmp_path, in_turns):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        size = NETWORKS[name]
        compare(random_model(name, size, tmp_path / "model"), samples(size, 1, COUNT), tmp_path, in_turns)
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    from conftest import in_turns

    from cxrtool.data.tables.manifest import read_manifest
    from cxrtool.flow.replaying import look

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("prepared", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    form = ModelDescription.read(given.model).input
    rows = read_manifest(given.prepared).rows[:COUNT]
    seen = [look(Path(row["path"]), chain=[], size=form.size, fit=form.fit, max_pixels=None).pixels for row in rows]
    with tempfile.TemporaryDirectory() as place:
        compare(given.model, as_batch([np.asarray(one) for one in seen]), Path(place), in_turns.__wrapped__())
