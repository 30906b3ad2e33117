import copy
import csv
import shutil

import cv2
import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from cxrtool.commands.weights import export as module  # noqa: E402
from cxrtool.data.file_names import FITTED_ON  # noqa: E402
from cxrtool.data.tables.manifest import write_table  # noqa: E402
from cxrtool.data.tables.predictions import read_predictions  # noqa: E402
from cxrtool.imaging.hashing import pixel_sha256  # noqa: E402
from cxrtool.models.architecture import Architecture  # noqa: E402
from cxrtool.models.description import ModelDescription  # noqa: E402
from cxrtool.models.onnx_file import seal  # noqa: E402
from cxrtool.models.registry import BUILT_IN, build, input_form  # noqa: E402
from cxrtool.training.checkpoint import save_model  # noqa: E402

SIDE = 32
HERE = ("--threads", "1", "--workers", "1")
CALIBRATION = {"temperature": 2.0, "images": 80, "nll_before": 0.7, "nll_after": 0.6, "reason": None}


def save(folder, name="thumbnail", size=SIDE, classes=("covid", "normal"), **changes):
    """A model folder whose random weights are large enough that its probabilities are not all alike."""
    torch.manual_seed(0)
    architecture = Architecture(name, len(classes), size=size)
    network, _ = build(architecture)
    content = {
        "schema": 1,
        "classes": list(classes),
        "architecture": architecture.to_json(),
        "chain": [],
        "input": {"size": size, "fit": "pad"},
        "normalization": input_form(name, "native"),
        **changes,
    }
    save_model(folder, network, ModelDescription.from_json(content, folder))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of two classes in folders, a model that was fitted on one of them, and its export."""
    from cxrtool.cli.main import run

    folder = tmp_path_factory.mktemp("export")
    for label in ("covid", "normal"):
        (folder / "new" / label).mkdir(parents=True)
        for k in range(4):
            draw = np.random.default_rng(k + 9 * len(label))
            pixels = cv2.resize(draw.integers(0, 256, (5, 4), np.uint8), (40 + k, 50), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / "new" / label / f"{label}{k}.png"), pixels)
    model = save(folder / "model", calibration=CALIBRATION, thresholds={})
    seen = cv2.imread(str(folder / "new" / "covid" / "covid0.png"), cv2.IMREAD_UNCHANGED)
    row = {"image_id": "x", "patient_id": "", "sha256": pixel_sha256(seen), "subset": "train"}
    write_table(model / FITTED_ON, list(row), [row])
    # Not below what is evaluated, and without the image of the training.
    shutil.copytree(folder / "new", folder / "other")
    (folder / "other" / "covid" / "covid0.png").unlink()
    assert run(["weights", "export", str(model), "-o", str(folder / "m.onnx"), "--threads", "1", "-q"]) == 0
    return folder


def test_predictions_are_those_of_the_model_folder(cxr, place, tmp_path):
    for more in ((), ("--calibrated",), ("--tta",)):
        tables = []
        for model in ("model", "m.onnx"):
            done = cxr("predict", place / model, place / "other", *HERE, *more, "-o", tmp_path / "p.csv", "--force")
            assert done.code == 0, done.err
            tables.append(read_predictions(tmp_path / "p.csv"))
            assert (tmp_path / "p.run.json").is_file()
        folder, exported = tables
        assert folder.columns == exported.columns
        assert folder.rows == exported.rows
        assert np.ptp(folder.probabilities[:, 0]) > 0.01
        np.testing.assert_allclose(exported.probabilities, folder.probabilities, atol=1e-6)
        assert not np.array_equal(exported.probabilities, folder.probabilities)


def test_its_graph_takes_grey_values_in_any_number_and_needs_no_cxrtool(place):
    session = runtime.InferenceSession(str(place / "m.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["n", 1, SIDE, SIDE]
    assert [one.name for one in session.get_outputs()] == ["probabilities", "calibrated"]
    entries = session.get_modelmeta().custom_metadata_map
    assert entries["classes"] == '["covid", "normal"]'
    assert entries["input"] == f'{{"size": {SIDE}, "fit": "pad"}}'
    images = np.random.default_rng(0).random((3, 1, SIDE, SIDE), np.float32)
    plain, calibrated = session.run(None, {"images": images})
    assert plain.shape == (3, 2)
    powers = np.sqrt(plain)
    np.testing.assert_allclose(calibrated, powers / powers.sum(1, keepdims=True), atol=1e-6)


def test_evaluate_and_info_take_it(cxr, place, tmp_path):
    done = cxr("evaluate", place / "m.onnx", place / "other", *HERE, "-o", tmp_path / "e", "--format", "csv")
    assert done.code == 0, done.err
    assert "covid 3, normal 4; predicted by the model" in done.err
    described = cxr("info", place / "m.onnx")
    assert described.code == 0
    assert "temperature 2, fitted on 80 validation images" in described.out
    assert "train 1; 0 patients" in described.out


def test_an_image_of_the_training_is_refused(cxr, place):
    found = [cxr("predict", place / name, place / "new", *HERE) for name in ("model", "m.onnx")]
    assert [one.code for one in found] == [4, 4]
    assert found[1].err == found[0].err.replace("in model", "in m.onnx")
    allowed = cxr("predict", place / "m.onnx", place / "new", *HERE, "--allow-leakage")
    assert allowed.code == 0
    assert len(list(csv.DictReader(allowed.out.splitlines()))) == 8


def test_explain_and_bf16_and_a_second_export_are_refused(cxr, place, tmp_path):
    path = place / "m.onnx"
    explained = cxr("explain", path, place / "other", "-o", tmp_path / "h")
    assert explained.code == 2
    assert "found an ONNX model, which has no gradients" in explained.err
    half = cxr("predict", path, place / "other", *HERE, "--precision", "bf16")
    assert (half.code, "computes in fp32" in half.err) == (2, True)
    again = cxr("weights", "export", path, "-o", tmp_path / "n.onnx")
    assert (again.code, "exported already" in again.err) == (1, True)
    assert not (tmp_path / "n.onnx").exists()


def test_what_it_may_replace(cxr, place, tmp_path):
    out = tmp_path / "m.onnx"
    shutil.copy(place / "m.onnx", out)
    before = out.stat().st_mtime_ns
    same = cxr("weights", "export", place / "model", "-o", out)
    assert (same.code, same.err) == (0, f"{out}: up to date, nothing to do\n")
    assert out.stat().st_mtime_ns == before
    (tmp_path / "other.onnx").write_bytes(b"mine")
    kept = cxr("weights", "export", place / "model", "-o", tmp_path / "other.onnx")
    assert (kept.code, "found another file" in kept.err) == (2, True)
    assert (tmp_path / "other.onnx").read_bytes() == b"mine"
    inside = place / "model" / "model.safetensors"
    assert cxr("weights", "export", place / "model", "-o", inside).code == 2
    copied = shutil.copytree(place / "model", tmp_path / "model")
    (copied / "in.onnx").symlink_to(copied / "model.safetensors")
    before = (copied / "model.safetensors").read_bytes()
    assert cxr("weights", "export", copied, "-o", copied / "in.onnx", "--force").code == 2
    assert (copied / "model.safetensors").read_bytes() == before
    assert "expected a file that ends in .onnx, found none" in cxr("weights", "export", place / "model").err


def test_what_differs_from_torch_is_not_written(cxr, place, tmp_path, monkeypatch):
    from cxrtool.training import onnx_graph

    normal = onnx_graph.Graph.forward
    monkeypatch.setattr(onnx_graph.Graph, "forward", lambda self, images: normal(self, images * 0.99))
    done = cxr("weights", "export", place / "model", "-o", tmp_path / "m.onnx", "--threads", "1")
    assert done.code == 1
    assert "thumbnail: expected the probabilities of torch within 1e-05, found a difference of" in done.err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused_with_the_reason(cxr, place, tmp_path, monkeypatch):
    from cxrtool.models import thumbnail

    def broken(self, images):
        return images.flatten(1) if float(images.sum()) > 0 else images

    monkeypatch.setattr(thumbnail.Thumbnail, "features", broken)
    done = cxr("weights", "export", place / "model", "-o", tmp_path / "m.onnx", "--threads", "1")
    assert done.code == 1
    assert done.err.startswith("cxrtool weights export: thumbnail cannot be exported: ")
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_several_folds_names_one(cxr, place, tmp_path):
    for fold in ("r0f0", "r0f1"):
        copied = shutil.copytree(place / "model", tmp_path / "run" / fold)
        (copied / "predictions.csv").write_text("image_id\n")
    done = cxr("weights", "export", tmp_path / "run", "-o", tmp_path / "m.onnx")
    assert done.code == 2
    assert "found a run of 2 folds" in done.err
    assert f"name one: {tmp_path / 'run' / 'r0f0'}" in done.err


@pytest.mark.parametrize("wrong", ["inputs", "outputs", "sums"])
def test_a_graph_of_another_form_is_refused(cxr, place, tmp_path, wrong):
    model = onnx.load(place / "m.onnx")
    if wrong == "inputs":
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = SIDE * 2
        model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = SIDE // 2
    if wrong == "outputs":
        for entry in model.metadata_props:
            if entry.key == "classes":
                entry.value = '["covid", "normal", "pneumonia"]'
            if entry.key == "architecture":
                entry.value = entry.value.replace('"classes": 2', '"classes": 3')
    if wrong == "sums":
        node = next(node for node in model.graph.node if "probabilities" in node.output)
        node.output[0] = "before"
        model.graph.node.append(onnx.helper.make_node("Add", ["before", "before"], ["probabilities"]))
    seal(model)
    onnx.save(model, tmp_path / "m.onnx")
    done = cxr("predict", tmp_path / "m.onnx", place / "other", *HERE)
    assert done.code == 1
    expected = {"inputs": "expected one input", "outputs": "expected an output", "sums": "whose sum is 1"}[wrong]
    assert expected in done.err
    assert "Traceback" not in done.err


def test_a_part_of_its_own_lies_beside_the_file(cxr, place, tmp_path):
    """A lung network that is not shipped is copied, and without it the file is refused."""
    from cxrtool.models.parts import SHIPPED, load_network, read_part, save_part

    shipped = read_part(SHIPPED / "lungs-default", "lungs")
    network = copy.deepcopy(load_network(shipped.folder, "lungs"))
    next(network.parameters()).data.add_(0.001)
    save_part(tmp_path / "part", "lungs", shipped.network, network, shipped.form, {})
    part = read_part(tmp_path / "part", "lungs")
    entry = {"step": "segment", "version": 1, "use": "crop", "margin": 0.0, "margin_of": "image", "threshold": 0.5}
    model = save(tmp_path / "model", chain=[{**entry, "part": part.identity()}])
    shutil.copytree(tmp_path / "part", model / "parts" / f"lungs-{part.sha256[:16]}")
    done = cxr("weights", "export", model, "-o", tmp_path / "m.onnx", "--threads", "1")
    assert done.code == 0, done.err
    assert f"{tmp_path / 'm.parts'}: networks of its preprocessing; keep it beside the file" in done.err
    shutil.rmtree(model)
    asked = cxr("predict", tmp_path / "m.onnx", place / "other", *HERE)
    assert asked.code == 0, asked.err
    shutil.rmtree(tmp_path / "m.parts")
    lacking = cxr("predict", tmp_path / "m.onnx", place / "other", *HERE)
    assert lacking.code == 1
    assert f"neither in {tmp_path / 'm.parts'}" in lacking.err


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILT_IN, "tf_efficientnet_lite0", "resnet10t", "vit_tiny_patch16_224"])
def test_every_network_is_exported(cxr, tmp_path, name):
    size = 224 if "vit" in name else 64
    model = save(tmp_path / "model", name, size, ("a", "b", "c"))
    done = cxr("weights", "export", model, "-o", tmp_path / "m.onnx", "--threads", "1")
    assert done.code == 0, done.err
    assert module.FORMATS["onnx"].metadata(tmp_path / "m.onnx")["classes"] == '["a", "b", "c"]'


def test_twins_have_three_channels(cxr, tmp_path):
    """A model of twins takes what the generators draw, in colour."""
    from cxrtool.training.inference import Ensemble

    names = ("N@N", "P@N", "N@P", "P@P")
    model = save(tmp_path / "model", "resnet10t", SIDE, names)
    description = ModelDescription.read(model)
    network_of = module._wanted(model, description, [{"step": "transform"}])
    assert network_of.channels == 3
    from cxrtool.training.checkpoint import load_model

    lines = module.FORMATS["onnx"].write(tmp_path / "m.onnx", load_model(model)[0], network_of, module.Settings())
    assert lines[0].startswith(f"3 x {SIDE} x {SIDE}")
    pictures = [np.random.default_rng(k).integers(0, 256, (SIDE, SIDE, 3), np.uint8) for k in range(3)]
    cpu = torch.device("cpu")
    torch_s, ours = (Ensemble([path], cpu).predict(pictures) for path in (model, tmp_path / "m.onnx"))
    np.testing.assert_allclose(ours, torch_s, atol=1e-6)
