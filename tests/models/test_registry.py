import json
import pickle
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from cxrtool.errors import CxrtoolError, InputError, UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.network import count_parameters
from cxrtool.models.registry import (
    BUILT_IN,
    build,
    check,
    check_name,
    input_form,
    native_size,
    network_kernels,
    read_state,
    require_weights,
)

TINY = Architecture("resnet10t", 3, size=32)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "boom")


@pytest.fixture(scope="module")
def imagenet():
    """The state dictionary of a network of 1,000 classes, as timm or torchvision would save it."""
    torch.manual_seed(7)
    return timm.create_model("resnet10t").state_dict()


def body_is_loaded(network, state):
    own = network.timm.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))


def test_an_unknown_network_is_told_with_the_nearest():
    with pytest.raises(UsageError, match=r"found 'mobilenet2_100' \(nearest: mobilenetv2_100"):
        check_name("mobilenet2_100")
    with pytest.raises(UsageError, match=r"nearest: resnet50\.a1_in1k"):
        check_name("resnet50.nonsense")
    check_name("covid-xnet")
    check_name("resnet50.a1_in1k")


def test_native_forms_of_our_own_and_of_timm_s():
    assert native_size("covid-xnet") == 128
    assert native_size("inception_v3") == 299
    assert input_form("covid-xnet", "native") == {"mean": [0.5], "std": [0.25]}
    assert input_form("covid-xnet", "div255") == {"mean": [0.0], "std": [1.0]}
    assert input_form("resnet18", "native")["mean"] == [0.485, 0.456, 0.406]
    assert input_form("resnet18", "div255") == {"mean": [0.0] * 3, "std": [1.0] * 3}


@pytest.mark.parametrize(
    ("changes", "weights", "text"),
    [
        ({"size": 15}, "none", "--size: expected 16 to 8192 pixels, found 15"),
        ({"size": -1}, "none", "--size"),
        ({"hidden": -1}, "none", "--hidden"),
        ({"dropout": 1.0}, "none", "--dropout"),
        ({"dropout": float("nan")}, "none", "--dropout"),
        ({"name": "nothing-like-this-at-all"}, "none", "nearest: none"),
        ({"name": "covid-xnet", "hidden": 8}, "none", "--hidden: covid-xnet has a head of its own"),
        ({"name": "covid-xnet", "dropout": 0.5}, "none", "--dropout: covid-xnet has a head of its own"),
        ({"name": "covid-xnet"}, "imagenet", "there are no ImageNet weights for covid-xnet"),
        ({"name": "resnetv2_152"}, "imagenet", "there are no ImageNet weights for resnetv2_152"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(changes, weights, text):
    architecture = replace(TINY, **changes)
    with pytest.raises(UsageError, match=text):
        check(architecture, weights)
    with pytest.raises(UsageError, match=text):
        build(architecture, weights=weights)


def test_a_missing_file_of_weights_is_refused_before_anything_is_built(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        check(TINY, str(tmp_path / "none.pth"))


@pytest.mark.parametrize("name", [*BUILT_IN, "resnet10t"])
def test_a_network_is_drawn_from_torch_s_seed_alone(name):
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network, told = build(Architecture(name, 2, size=32))
        assert told == "drawn at random"
        drawn.append(torch.cat([value.flatten().float() for value in network.state_dict().values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_imagenet_weights_go_through_timm_s_own_loader(tmp_path, monkeypatch, imagenet):
    save_file(imagenet, tmp_path / "model.safetensors")
    asked = []

    def download(repo_id, filename, **more):
        asked.append((repo_id, filename))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    monkeypatch.setattr("cxrtool.models.registry.failure", lambda server: "")
    network, told = build(TINY, weights="imagenet")
    assert told == "ImageNet (timm)"
    assert asked[0][0] == "timm/resnet10t.c3_in1k"
    assert body_is_loaded(network, imagenet)
    assert network.timm.fc.weight.shape == (3, 512)


def test_imagenet_weights_that_cannot_be_fetched_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="the weights of resnet10t are not on this machine") as caught:
        build(TINY, weights="imagenet")
    assert "\n" not in caught.value.message
    for way in ("HF_HOME", "`cxrtool weights fetch resnet10t ", "--weights none"):
        assert way in caught.value.hint


def test_a_server_that_never_answers_does_not_hold_up_a_training(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("cxrtool.models.pretrained.SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(InputError, match="does not answer"):
            require_weights(TINY, "imagenet")
    assert time.monotonic() - started < 5
    require_weights(TINY, "none")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"state_dict_ema": state, "state_dict": {}},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
        lambda state: {f"timm.{name}": value for name, value in state.items()},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    ],
    ids=["plain", "nested", "averaged", "several GPUs", "compiled", "our own", "old"],
)
def test_a_pth_is_loaded_however_it_was_wrapped(tmp_path, wrap, imagenet):
    torch.save(wrap(imagenet), tmp_path / "w.pth")
    network, told = build(TINY, weights=str(tmp_path / "w.pth"))
    assert body_is_loaded(network, {k: v for k, v in imagenet.items() if "num_batches" not in k})
    assert "w.pth" in told
    # The file's 1,000 outputs say nothing of these three classes.
    assert network.timm.fc.weight.shape == (3, 512)


def test_a_safetensors_file_is_loaded_and_outputs_of_the_same_classes_too(tmp_path):
    torch.manual_seed(0)
    source, _ = build(TINY)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network, told = build(TINY, weights=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in source.state_dict().items())
    assert told == f"w.safetensors ({len(source.state_dict())} of {len(source.state_dict())} tensors)"


def test_a_body_is_loaded_beneath_a_head_of_ours(tmp_path, imagenet):
    torch.save(imagenet, tmp_path / "w.pth")
    network, _ = build(replace(TINY, hidden=8), weights=str(tmp_path / "w.pth"))
    assert body_is_loaded(network, imagenet)


def test_our_own_network_takes_a_file(tmp_path):
    torch.manual_seed(0)
    source, _ = build(Architecture("covid-xnet", 4, size=32))
    torch.save(source.state_dict(), tmp_path / "w.pt")
    network, told = build(Architecture("covid-xnet", 2, size=32), weights=str(tmp_path / "w.pt"))
    assert torch.equal(network.body[0].weight, source.body[0].weight)
    assert told == "w.pt (10 of 12 tensors)"


def test_weights_of_another_network_are_refused(tmp_path, imagenet):
    torch.save(imagenet, tmp_path / "w.pth")
    with pytest.raises(InputError, match="tensors of the backbone are not in it, such as") as caught:
        build(Architecture("mobilenetv2_100", 3, size=32), weights=str(tmp_path / "w.pth"))
    assert "--model" in caught.value.hint


def test_a_wrong_shape_is_refused(tmp_path, imagenet):
    name = "layer1.0.conv1.weight"
    torch.save({**imagenet, name: torch.zeros(1, 2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"expected shape \(64, 64, 3, 3\) for 'layer1.*', found \(1, 2\)"):
        build(TINY, weights=str(tmp_path / "w.pth"))


def test_weights_that_are_no_numbers_are_refused(tmp_path, imagenet):
    name = "layer1.0.conv1.weight"
    torch.save({**imagenet, name: torch.full_like(imagenet[name], float("nan"))}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not finite"):
        build(TINY, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, suffix, save):
    trap, path = tmp_path / "trap", tmp_path / f"w{suffix}"
    save({"state_dict": {"conv1.weight": Bomb(trap)}}, path)
    with pytest.raises(InputError, match="cannot be read safely as a file of weights"):
        build(TINY, weights=str(path))
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [{}, [torch.zeros(1)], {"a": 1}, {"a": "text"}, {"state_dict": {"a": [1]}}, torch.zeros(3)],
    ids=["empty", "list", "number", "text", "nested list", "tensor"],
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="expected a dictionary of tensors"):
        read_state(tmp_path / "w.pth")


def test_keys_that_are_no_text_are_no_bug(tmp_path):
    torch.save({1: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(CxrtoolError, match="tensors of the backbone are not in it"):
        build(TINY, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04rubbish"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_rubbish_is_refused(tmp_path, content, suffix):
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(InputError, match="read safely"):
        read_state(tmp_path / f"w{suffix}")


def test_an_architecture_survives_json():

    again = Architecture(**json.loads(json.dumps(TINY.to_json())))
    assert again == TINY


def test_kernels_are_kept_and_old_files_without_them_still_load():
    deep = Architecture("covid-xnet", 2, size=32, kernels=(7, 3, 3))
    told = json.loads(json.dumps(deep.to_json()))
    assert told["kernels"] == [7, 3, 3]
    assert Architecture(**told) == deep
    assert [layer.kernel_size[0] for layer in build(deep)[0].body if hasattr(layer, "in_channels")] == [7, 3, 3]
    old = {"name": "covid-xnet", "classes": 2, "hidden": 0, "dropout": 0.0, "size": 32}
    assert Architecture(**old).to_json() == old
    assert count_parameters(build(Architecture(**old))[0])["parameters"] == 434_050


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            Architecture("resnet10t", 2, size=64, kernels=(3,)),
            "--kernels: expected --model covid-xnet, found --model resnet10t",
        ),
        (Architecture("covid-xnet", 2, size=32, kernels=(3,) * 7), "7 layers are too many for 32 x 32 .* at most 6"),
    ],
)
def test_kernels_that_will_not_do_are_refused(architecture, message):
    with pytest.raises(UsageError, match=message):
        check(architecture, "none")
    check(Architecture("covid-xnet", 2, size=32, kernels=(3,) * 6), "none")


def test_kernels_in_one_spelling():
    assert network_kernels("covid-xnet", None) == "5,5,5,3,3"
    assert network_kernels("covid-xnet", "3, 3") == "3,3"
    assert network_kernels("resnet10t", None) is None
