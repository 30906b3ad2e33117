import argparse

import pytest
import timm
import torch
from safetensors.torch import save_file

from cxrtool.errors import InputError, UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.complexity import try_out
from cxrtool.models.foreign import holds_averaged, load_whole
from cxrtool.models.registry import build

CLASSES = ("covid", "normal", "pneumonia")
TINY = Architecture("resnet10t", 3, size=32)


@pytest.fixture(scope="module")
def state():
    """A network of three outputs as a colleague saved it; none of its tensors is as it was drawn."""
    torch.manual_seed(3)
    network = timm.create_model("resnet10t", num_classes=3)
    return {name: value + 0.01 if value.is_floating_point() else value for name, value in network.state_dict().items()}


def load(state, path, architecture=TINY, classes=CLASSES):
    network, _ = build(architecture)
    torch.save(state, path)
    load_whole(network, path, classes)
    return network


def same(network, state):
    own = network.timm.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {
            "state_dict": state,
            "epoch": 3,
            "arch": "resnet10t",
            "metric": 71.5,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
            "args": argparse.Namespace(model="resnet10t", lr=0.1),
        },
        lambda state: {"state_dict_ema": state, "state_dict": {n: v * 0 for n, v in state.items()}},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {f"timm.{name}": value for name, value in state.items()},
        lambda state: {**{f"module.{n}": v for n, v in state.items()}, "n_averaged": torch.tensor(4)},
    ],
    ids=["plain", "train.py", "averaged", "several GPUs", "compiled", "our own", "SWA"],
)
def test_head_and_body_are_loaded_however_they_were_wrapped(tmp_path, state, wrap):
    assert same(load(wrap(state), tmp_path / "w.pth.tar"), state)


def test_counters_may_lack(tmp_path, state):
    without = {name: value for name, value in state.items() if "num_batches" not in name}
    assert same(load(without, tmp_path / "w.pt"), without)


def test_our_own_network_is_loaded_whole(tmp_path):
    torch.manual_seed(0)
    source, _ = build(Architecture("covid-xnet", 2, size=32))
    network, _ = build(Architecture("covid-xnet", 2, size=32))
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_whole(network, tmp_path / "w.safetensors", ("a", "b"))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize("name", ["mobilenetv2_100", "vgg11", "levit_128s", "tf_efficientnetv2_b0"])
def test_another_number_of_outputs_is_refused_whatever_the_head_is_made_of(tmp_path, name):
    torch.save(timm.create_model(name, num_classes=5).state_dict(), tmp_path / "w.pth")
    network, _ = build(Architecture(name, 3))
    with pytest.raises(InputError, match="expected 3 outputs, one for each of covid, normal, pneumonia, found 5 in"):
        load_whole(network, tmp_path / "w.pth", CLASSES)


def test_a_missing_tensor_is_named(tmp_path, state):
    less = {name: value for name, value in state.items() if name != "layer2.0.conv1.weight"}
    with pytest.raises(InputError, match=r"1 of the network's \d+ tensors are not in it, such as 'layer2.0.conv1"):
        load(less, tmp_path / "w.pth")


def test_a_head_alone_is_missed_too(tmp_path, state):
    with pytest.raises(InputError, match=r"2 of the network's \d+ tensors are not in it, such as 'fc.weight'"):
        load({name: value for name, value in state.items() if not name.startswith("fc.")}, tmp_path / "w.pth")


def test_a_tensor_too_many_is_refused(tmp_path, state):
    # A network with attention has all that one without it has; its answers without it would be others.
    with pytest.raises(InputError, match=r"found 1 more, such as 'layer1\.0\.se\.fc1\.weight'"):
        load({**state, "layer1.0.se.fc1.weight": torch.zeros(4, 64, 1, 1)}, tmp_path / "w.pth")


def test_another_shape_is_refused_and_grey_input_explained(tmp_path, state):
    name = "layer1.0.conv1.weight"
    with pytest.raises(InputError, match=r"expected shape \(64, 64, 3, 3\) for 'layer1.*', found \(1, 2\)"):
        load({**state, name: torch.zeros(1, 2)}, tmp_path / "w.pth")
    grey = timm.create_model("resnet10t", num_classes=3, in_chans=1).state_dict()
    with pytest.raises(InputError, match=r"for 'conv1\.0\.weight'") as caught:
        load(grey, tmp_path / "w.pth")
    assert "one grey channel" in caught.value.hint


@pytest.mark.parametrize("name", ["fc.bias", "layer1.0.conv1.weight", "bn1.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_and_named(tmp_path, state, name, value):
    broken = state[name].clone()
    broken.view(-1)[-1] = value
    with pytest.raises(InputError, match=f"'{name}' has values that are not finite"):
        load({**state, name: broken}, tmp_path / "w.pth")


def test_what_is_refused_leaves_the_network_as_it_was(tmp_path, state):
    network, _ = build(TINY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save({**state, "fc.bias": torch.full((3,), float("nan"))}, tmp_path / "w.pth")
    with pytest.raises(InputError):
        load_whole(network, tmp_path / "w.pth", CLASSES)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_moving_average_is_noticed(tmp_path, state):
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "both.pth")
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1)}, tmp_path / "one.pth")
    save_file(state, tmp_path / "w.safetensors")
    assert holds_averaged(tmp_path / "both.pth")
    assert not holds_averaged(tmp_path / "one.pth")
    assert not holds_averaged(tmp_path / "w.safetensors")


def test_an_input_that_does_not_get_through_is_told():
    small = Architecture("inception_v3", 2, size=32)
    network, _ = build(small)
    with pytest.raises(UsageError, match="--size 32: inception_v3 does not accept images of this size") as caught:
        try_out(network, small, 3)
    assert caught.value.hint == "its native size is 299"
