import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from cxrtool.cli.main import run as cxrtool
from cxrtool.commands.predict import PredictOptions, predict
from cxrtool.commands.weights.fetch import FetchOptions, fetch
from cxrtool.commands.weights.import_ import ImportOptions, import_model
from cxrtool.commands.weights.list import COLUMNS, MAKRIS, list_weights
from cxrtool.data.splitting.grouping import hashed
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import InputError, LeakageError, OutputError, StrictError, TakenError, UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build

CLASSES = ["pneumonia", "covid", "normal"]
SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "boom")


@pytest.fixture(scope="module")
def colleague():
    """A network of timm that a colleague trained; sure enough of itself that classes in another order would show."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    network = timm.create_model("resnet10t", num_classes=3).eval()
    with torch.no_grad():
        network.fc.weight.mul_(4)
    return network


@pytest.fixture
def checkpoint(colleague, tmp_path):
    """Her checkpoint, as timm's train.py leaves it."""
    content = {
        "epoch": 7,
        "arch": "resnet10t",
        "state_dict": colleague.state_dict(),
        "version": 2,
        "metric": 81.2,
        "optimizer": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(lr=0.1),
    }
    torch.save(content, tmp_path / "model_best.pth.tar")
    return tmp_path / "model_best.pth.tar"


@pytest.fixture
def take_in(checkpoint, settings, tmp_path):
    """Import the colleague's checkpoint; keywords are those of `ImportOptions` or of `Settings`."""

    def call(**changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in type(settings).__dataclass_fields__}
        told = {"file": checkpoint, "model": "resnet10t", "classes": ",".join(CLASSES), "size": SIDE}
        import_model(ImportOptions(**{**told, **changes}), replace(settings, **{"out": tmp_path / "model", **shared}))
        return tmp_path / "model"

    return call


def pictures(folder, count=5, side=SIDE):
    folder.mkdir()
    result = []
    for index in range(count):
        result.append(np.random.default_rng(index).integers(0, 256 >> index, (side, side), np.uint8))
        cv2.imwrite(str(folder / f"{index}.png"), result[-1])
    return np.stack(result)


def by_timm(network, grey, mean=MEAN, std=STD):
    """What timm itself answers: grey values as three equal channels, scaled to [0, 1], normalised."""
    rgb = torch.from_numpy(grey).unsqueeze(1).expand(-1, 3, -1, -1).float() / 255
    inputs = (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.inference_mode():
        return torch.softmax(network(inputs), 1).numpy()


def ask(model, source, settings, out):
    predict(PredictOptions(model, str(source)), replace(settings, out=out))
    return read_predictions(out)


@pytest.mark.parametrize(
    ("more", "mean", "std"),
    [({}, MEAN, STD), ({"mean": "0.5", "std": "0.25"}, (0.5,) * 3, (0.25,) * 3), ({"mean": "0,0,0"}, (0.0,) * 3, STD)],
    ids=["timm's normalisation", "one for all", "the mean alone"],
)
def test_it_answers_as_timm_does(take_in, colleague, settings, tmp_path, more, mean, std):
    grey = pictures(tmp_path / "new")
    answers = ask(take_in(**more), tmp_path / "new", settings, tmp_path / "answers.csv")
    expected = by_timm(colleague, grey, mean, std)
    assert answers.classes == CLASSES
    # Neither all alike nor all sure, or an error would not show.
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(answers.probabilities, expected, atol=1e-6)
    assert [row["predicted"] for row in answers.rows] == [CLASSES[k] for k in expected.argmax(1)]


def test_pictures_of_any_size_are_fitted_as_was_asked(take_in, colleague, settings, tmp_path):
    (tmp_path / "new").mkdir()
    wide = np.random.default_rng(0).integers(0, 256, (SIDE, 2 * SIDE), np.uint8)
    cv2.imwrite(str(tmp_path / "new" / "wide.png"), wide)
    answers = ask(take_in(fit="crop"), tmp_path / "new", settings, tmp_path / "answers.csv")
    middle = wide[None, :, SIDE // 2 : -SIDE // 2]
    np.testing.assert_allclose(answers.probabilities, by_timm(colleague, np.ascontiguousarray(middle)), atol=1e-6)


def test_the_model_tells_where_it_is_from(take_in, checkpoint, listener):
    model = take_in()
    description = json.loads((model / "model.json").read_text())
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    parameters = sum(p.numel() for p in timm.create_model("resnet10t", num_classes=3).parameters())
    assert description["classes"] == CLASSES
    assert description["architecture"] == Architecture("resnet10t", 3, size=SIDE).to_json()
    assert description["input"] == {"size": SIDE, "fit": "squash"}
    assert description["trained"] == {
        "preset": None,
        "weights": "model_best.pth.tar",
        "epoch": None,
        "sha256": digest,
        "parameters": parameters,
    }
    assert listener.said[0].endswith(f"model: resnet10t for 32 x 32 pixels, {parameters:,} parameters")
    assert "classes in the order of its outputs: pneumonia, covid, normal" in listener.said
    assert "mean 0.485 0.456 0.406" in listener.said[2]
    assert "timm for resnet10t" in listener.said[2]
    assert digest in listener.said[3]
    assert len(listener.warned) == 1
    assert "leakage of test images cannot be found" in listener.warned[0]
    assert not (model / "fitted_on.csv").exists()
    assert read_table(model / "rejects.csv").rows == []


def test_the_moving_average_is_named(colleague, take_in, tmp_path):
    worse = {name: torch.zeros_like(value) for name, value in colleague.state_dict().items()}
    torch.save({"state_dict": worse, "state_dict_ema": colleague.state_dict()}, tmp_path / "ema.pth")
    model = take_in(file=tmp_path / "ema.pth")
    told = json.loads((model / "model.json").read_text())["trained"]
    assert told["weights"] == "ema.pth (the moving average of its weights)"
    assert torch.equal(load_file(model / "model.safetensors")["timm.fc.weight"], colleague.fc.weight)


def test_the_networks_own_size_is_the_default(colleague, take_in):
    assert json.loads((take_in(size=None) / "model.json").read_text())["input"]["size"] == 176


def test_what_was_done_is_not_done_again(take_in, checkpoint, listener):
    model = take_in()
    before = (model / "model.json").stat().st_mtime_ns
    take_in()
    assert listener.said[-1].endswith("up to date, nothing to do")
    assert (model / "model.json").stat().st_mtime_ns == before
    take_in(classes="a,b,c")
    assert json.loads((model / "model.json").read_text())["classes"] == ["a", "b", "c"]


def test_nothing_is_written_on_a_dry_run(take_in, tmp_path, listener):
    assert not take_in(dry_run=True).exists()
    assert "would write" in listener.said[-1]


def test_somebody_elses_folder_is_left_alone(take_in, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="made by something else"):
        take_in()
    assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"classes": "covid,normal"}, InputError, "expected 2 outputs, one for each of covid, normal, found 3 in"),
        ({"classes": "covid"}, UsageError, "expected two or more different names, such as covid,normal, found 'covid'"),
        ({"classes": "a,b,a"}, UsageError, "found 'a' listed twice"),
        ({"classes": "a,,b"}, UsageError, "found 'a,,b'"),
        ({"model": "resnet10x"}, UsageError, r"found 'resnet10x' \(nearest: resnet10t"),
        ({"model": "resnet18"}, InputError, "tensors are not in it, such as"),
        ({"fit": "stretch"}, UsageError, "--fit: expected one of squash, pad, crop, found 'stretch'"),
        ({"size": 0}, UsageError, "--size: expected 16 to 8192 pixels, found 0"),
        ({"mean": "123.7,116.3,103.5"}, UsageError, "--mean: expected values for grey values from 0 to 1, such"),
        ({"mean": "nan"}, UsageError, "--mean: expected values"),
        ({"std": "0"}, UsageError, "--std: expected values"),
        ({"std": "0.2,0.2"}, UsageError, "--std: expected 3 numbers, or one for all channels, found '0.2,0.2'"),
        ({"std": "wide"}, UsageError, "--std: expected 3 numbers, or one for all channels, found 'wide'"),
        ({"file": Path("gone.pth")}, InputError, "gone.pth: no such file"),
        ({"out": None}, UsageError, "needs -o DIR"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(take_in, tmp_path, changes, error, text):
    with pytest.raises(error, match=text):
        take_in(**changes)
    assert [path.name for path in tmp_path.iterdir()] == ["model_best.pth.tar"]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar", ".bin"])
@pytest.mark.parametrize("place", ["args", "state_dict"])
def test_a_file_with_code_in_it_runs_nothing(colleague, take_in, tmp_path, suffix, place):
    trap = tmp_path / "trap"
    content = {"state_dict": colleague.state_dict(), "args": argparse.Namespace(lr=0.1)}
    if place == "args":
        content["args"].bomb = Bomb(trap)
    else:
        content["state_dict"] = {**content["state_dict"], "fc.bias": Bomb(trap)}
    torch.save(content, tmp_path / f"w{suffix}")
    with pytest.raises(InputError, match="cannot be read safely as a file of weights") as caught:
        take_in(file=tmp_path / f"w{suffix}")
    assert caught.value.message.startswith(str(tmp_path / f"w{suffix}"))
    assert not trap.exists()
    assert not (tmp_path / "model").exists()


def test_what_it_was_fitted_on_is_refused_afterwards(take_in, settings, study, listener, tmp_path):
    model = take_in(fitted_on=study.folder)
    rows = read_table(model / "fitted_on.csv").rows
    assert len(rows) == 24
    assert all(len(row["sha256"]) == 64 and row["subset"] == "train" for row in rows)
    assert len({row["sha256"] for row in rows}) == 24
    assert listener.warned == []
    for source in (study.folder, study.folder / "im003.png"):
        # By its patient, or, where the picture alone is given, by its pixels.
        with pytest.raises(LeakageError, match="were used in training, such as im00"):
            ask(model, source, settings, tmp_path / "answers.csv")
    pictures(tmp_path / "new", 1)
    assert len(ask(model, tmp_path / "new", settings, tmp_path / "answers.csv").rows) == 1


def test_a_picture_that_cannot_be_read_is_listed_and_its_patient_known(take_in, study, tmp_path, listener):
    (study.folder / "im003.png").write_bytes(b"no picture")
    model = take_in(fitted_on=study.folder)
    rows = read_table(model / "fitted_on.csv").rows
    assert [row["image_id"] for row in rows if not row["sha256"]] == ["im003"]
    assert rows[3]["patient_id"] == hashed("p:001")
    assert len(read_table(model / "rejects.csv").rows) == 1
    with pytest.raises(StrictError):
        take_in(fitted_on=study.folder, strict=True, force=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that nobody can reach, with an empty cache; returns a function that lays a network's file into it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(state, repository="timm/resnet10t.c3_in1k"):
        folder = tmp_path / "hub" / ("models--" + repository.replace("/", "--"))
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
        return folder / "snapshots" / "abc" / "model.safetensors"

    return put


@pytest.fixture(scope="module")
def imagenet():
    torch.manual_seed(7)
    return timm.create_model("resnet10t").state_dict()


def test_what_is_fetched_is_what_training_finds_without_a_network(
    hub, imagenet, settings, listener, monkeypatch, study, tmp_path, no_pictures
):
    asked = []

    def download(repo_id, filename, **more):
        asked.append((repo_id, filename))
        return str(hub(imagenet))

    with monkeypatch.context() as online:
        online.setattr("timm.models._hub.hf_hub_download", download)
        online.setattr("cxrtool.models.registry.failure", lambda server: "")
        fetch(FetchOptions(("resnet10t",)), settings)
    assert asked == [("timm/resnet10t.c3_in1k", "model.safetensors")]
    assert "without a network" in listener.said[-1]
    assert str(tmp_path / "hub") in listener.said[-1]
    fetch(FetchOptions(("resnet10t",)), settings)
    assert "already on this machine" in listener.said[-1]
    # Now by the hub's own code, from its cache, with no way out.
    assert (
        cxrtool(
            [
                "train",
                str(study.folder),
                "--splits",
                str(study.splits),
                "--model",
                "resnet10t",
                "--size",
                "32",
                "--freeze",
                "--epochs",
                "1",
                "--only",
                "r0f0",
                "--threads",
                "1",
                "--workers",
                "1",
                "-q",
                "--cache",
                str(tmp_path / "cache"),
                "-o",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    trained = load_file(tmp_path / "run" / "r0f0" / "model.safetensors")
    assert all(
        torch.equal(trained[f"timm.{name}"], value) for name, value in imagenet.items() if not name.startswith("fc.")
    )
    told = json.loads((tmp_path / "run" / "r0f0" / "model.json").read_text())["trained"]
    assert told["weights"] == "ImageNet (timm)"


def test_fetched_to_a_file_both_train_and_timm_take_it(hub, imagenet, settings, listener, tmp_path):
    hub(imagenet)
    fetch(FetchOptions(("resnet10t",)), replace(settings, out=tmp_path / "w.safetensors"))
    written = load_file(tmp_path / "w.safetensors")
    assert written.keys() == imagenet.keys()
    assert all(torch.equal(written[name], value) for name, value in imagenet.items())
    timm.create_model("resnet10t").load_state_dict(written)
    network, told = build(Architecture("resnet10t", 3, size=32), weights=str(tmp_path / "w.safetensors"))
    assert "w.safetensors" in told
    assert torch.equal(network.timm.conv1[0].weight, imagenet["conv1.0.weight"])
    assert "--weights" in listener.said[-1]


def test_other_weights_are_not_replaced_by_fetched_ones(hub, imagenet, settings, tmp_path):
    hub(imagenet)
    out = tmp_path / "w.safetensors"
    options = FetchOptions(("resnet10t",))
    fetch(options, replace(settings, out=out))
    fetch(options, replace(settings, out=out))
    save_file({"mine": torch.zeros(1)}, out)
    with pytest.raises(TakenError, match="found another file"):
        fetch(options, replace(settings, out=out))
    fetch(options, replace(settings, out=out, force=True))
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(TakenError, match="found one of the folder of a model"):
        fetch(options, replace(settings, out=out.rename(tmp_path / "model.safetensors")))


def test_without_a_network_the_reason_and_the_place_to_run_it_are_told(hub, settings, tmp_path):
    with pytest.raises(InputError, match="the weights of resnet10t are not on this machine") as caught:
        fetch(FetchOptions(("resnet10t",)), settings)
    assert not caught.value.message.startswith("--")
    assert "login node" in caught.value.hint
    with pytest.raises(InputError):
        fetch(FetchOptions(("resnet10t",)), replace(settings, out=tmp_path / "w.safetensors"))
    assert not (tmp_path / "w.safetensors").exists()


def test_a_damaged_download_is_noticed_when_fetched(hub, imagenet, settings, monkeypatch):
    file = hub(imagenet)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="resnet10t"):
        fetch(FetchOptions(("resnet10t",)), replace(settings, force=True))


@pytest.mark.parametrize(
    ("names", "out", "text"),
    [
        (["resnet10x"], None, "expected a network of timm, found 'resnet10x' .nearest: resnet10t"),
        (["resnet10t", "resnetv2_152"], None, "there are no ImageNet weights for resnetv2_152 in timm"),
        (["resnet10t", "resnet18"], "w.safetensors", "expected one network and a file that ends in .safetensors"),
        (["resnet10t"], "w.pth", "found 1 and '.pth'"),
    ],
)
def test_nothing_is_fetched_after_a_mistake(hub, settings, tmp_path, monkeypatch, names, out, text):
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda *told, **more: pytest.fail("asked the hub"))
    with pytest.raises(UsageError, match=text):
        fetch(FetchOptions(tuple(names)), replace(settings, out=tmp_path / out if out else None))


def test_a_dry_run_fetches_nothing(hub, settings, listener, monkeypatch):
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda *told, **more: pytest.fail("asked the hub"))
    fetch(FetchOptions(("resnet10t",)), replace(settings, dry_run=True))
    assert listener.said[-1].startswith("would fetch resnet10t.c3_in1k to ")


def test_the_list_says_what_there_is_and_where(hub, imagenet, settings, listener, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrtool.commands.weights.list.SHIPPED", tmp_path)
    place = hub(imagenet, "timm/vgg16.tv_in1k")
    rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in list_weights(settings)}
    assert tuple(rows) == MAKRIS
    assert len(MAKRIS) == 9
    assert all(row["weights"].startswith(name) for name, row in rows.items())
    assert rows["vgg16"]["on this machine"] == "yes"
    assert rows["vgg16"]["where"] == str(place)
    assert rows["vgg19"]["on this machine"] == "no"
    assert rows["vgg19"]["where"] == "cxrtool weights fetch vgg19"
    assert listener.said[0] == "this installation of cxrtool comes without weights"


def test_what_ships_is_listed_first(hub, settings, tmp_path, monkeypatch, listener):
    from cxrtool.imaging.fits import Form
    from cxrtool.models.parts import networks, save_part

    known = networks("ribs")["autoencoder"]
    told = {"licence": "MIT", "figures": {"rib_contrast_removed": 0.8125, "psnr": {"value": 31.5, "low": 30.0}}}
    place = tmp_path / "ribs-default"
    save_part(place, "ribs", "autoencoder", known.build(), Form(64), told)
    monkeypatch.setattr("cxrtool.commands.weights.list.SHIPPED", tmp_path)
    first = list_weights(settings)[0]
    figures = "ribs: autoencoder (rib contrast removed 0.8125, psnr 31.5)"
    assert first == ["ribs-default", figures, "MIT", "yes", str(place)]
    assert "no weights yet" not in listener.said[0]
