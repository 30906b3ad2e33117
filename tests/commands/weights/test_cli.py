import json

import cv2
import numpy as np
import pytest
import timm
import torch

from cxrtool.data.tables.predictions import read_predictions

IMPORT = ("--model", "resnet10t", "--classes", "covid,normal", "--size", "32", "--workers", "1")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save({"state_dict": timm.create_model("resnet10t", num_classes=2).state_dict()}, tmp_path / "best.pth")
    return tmp_path / "best.pth"


def test_a_checkpoint_becomes_a_model_that_is_asked_described_and_evaluated(cxr, checkpoint, tmp_path):
    model = tmp_path / "model"
    result = cxr("weights", "import", checkpoint, *IMPORT, "-o", model)
    assert (result.code, result.out) == (0, "")
    assert result.err.endswith(f"next: cxrtool predict {model} IMAGES\n")
    for label in ("covid", "normal"):
        (tmp_path / "new" / label).mkdir(parents=True)
        for k in range(3):
            pixels = np.random.default_rng(k + len(label)).integers(0, 256, (40, 40), np.uint8)
            cv2.imwrite(str(tmp_path / "new" / label / f"{label}{k}.png"), pixels)
    asked = cxr("predict", model, tmp_path / "new", "--threads", "1", "--workers", "1", "-o", tmp_path / "answers.csv")
    assert asked.code == 0, asked.err
    assert read_predictions(tmp_path / "answers.csv").classes == ["covid", "normal"]
    assert cxr("evaluate", tmp_path / "answers.csv").code == 0
    described = cxr("info", model)
    assert described.code == 0
    assert "best.pth" in described.out
    assert cxr("weights", "import", checkpoint, *IMPORT, "-o", model).err == f"{model}: up to date, nothing to do\n"


def test_quiet_is_quiet(cxr, checkpoint, tmp_path):
    result = cxr("weights", "import", checkpoint, *IMPORT, "-o", tmp_path / "model", "-q")
    assert (result.code, result.out, result.err) == (0, "", "")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["imprt", "best.pth"], "no such command 'weights imprt'; did you mean `weights import`?"),
        (["import"], "Missing argument 'FILE'"),
        (["import", "best.pth"], "`weights import` needs one file, --model and --classes"),
        (["import", "best.pth", "--model", "resnet10t"], "`weights import` needs one file, --model and --classes"),
        (
            ["import", "a.pth", "b.pth", "--model", "resnet10t", "--classes", "a,b"],
            "unexpected extra argument(s) (b.pth)",
        ),
        (["import", "best.pth", *IMPORT, "--format", "json"], "no such option --format"),
        (["import", "a", "b", "--kind", "ribs"], "unexpected extra argument(s) (b)"),
        (["import", "a", "--kind", "rib"], "--kind: expected one of ribs, found 'rib'; did you mean 'ribs'?"),
        (["import", "a", "--kind", "ribs", "--size", "9"], "`weights import --kind` takes no --size"),
        (["import", "a", "--kind", "ribs", "--fit", "squash"], "`weights import --kind` takes no --fit"),
        (["fetch", "vgg16", "--kind", "ribs"], "no such option --kind"),
        (["fetch"], "Missing argument 'NAME...'"),
        (["fetch", "resnet10t", "--fitted-on", "m.csv"], "no such option --fitted-on"),
        (["list", "vgg16"], "unexpected extra argument(s) (vgg16)"),
        (["list", "-o", "x"], "no such option -o"),
        (["list", "--format", "xml"], "--format: expected one of table, md, latex, csv, json"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(cxr, checkpoint, monkeypatch, args, text):
    monkeypatch.chdir(checkpoint.parent)
    result = cxr("weights", *args)
    assert result.code == 2
    assert text in result.err
    assert result.out == ""
    assert 1 <= len(result.err.splitlines()) <= 2


def test_the_list_is_a_table_of_any_format(cxr, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    rows = json.loads(cxr("weights", "list", "--format", "json").out)
    known = {row["name"]: row["on this machine"] for row in rows}
    assert known["vgg16"] == known["vgg19"] == "no"
    assert all(there == "yes" for name, there in known.items() if name.endswith("-default"))
    result = cxr("weights", "list")
    assert result.out.splitlines()[0].split()[:3] == ["name", "weights", "licence"]
    assert "ImageNet weights of the networks of Makris et al. 2020" in result.err


def test_published_rib_weights_become_a_part_that_enhance_takes(cxr, write_checkpoint, rib_kernels, study, tmp_path):
    write_checkpoint(tmp_path / "model", rib_kernels)
    result = cxr("weights", "import", tmp_path / "model.index", "--kind", "ribs", "-o", tmp_path / "ribs")
    assert (result.code, result.out) == (0, "")
    assert result.err.endswith(f"--ribs {tmp_path / 'ribs'} -o enhanced\n")
    (tmp_path / "one.csv").write_text("\n".join((study.folder / "manifest.csv").read_text().splitlines()[:2]))
    (tmp_path / "im000.png").write_bytes((study.folder / "im000.png").read_bytes())
    told = ("--steps", "suppress-ribs", "--ribs", tmp_path / "ribs", "--strips", "0", "--workers", "1")
    result = cxr("enhance", tmp_path / "one.csv", *told, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1


def test_no_network_is_one_clear_line(cxr, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = cxr("weights", "fetch", "resnet10t")
    assert result.code == 1
    assert result.err.startswith("cxrtool weights fetch: the weights of resnet10t are not on this machine")
    assert len(result.err.splitlines()) == 2
