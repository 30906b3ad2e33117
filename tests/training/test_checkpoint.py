import hashlib
import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cxrtool.errors import CxrtoolError, InputError, OutputError
from cxrtool.models.architecture import Architecture
from cxrtool.models.description import ModelDescription
from cxrtool.models.registry import build
from cxrtool.training import checkpoint
from cxrtool.training.checkpoint import load_model, load_state, save_model, save_state

DESCRIPTION = {
    "classes": ["covid", "normal"],
    "architecture": {"name": "covid-xnet", "classes": 2, "hidden": 0, "dropout": 0.0, "size": 32},
    "chain": [],
    "input": {"size": 32, "fit": "squash"},
    "normalization": {"mean": [0.0], "std": [1.0]},
}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "boom")


def described(**changes):
    return ModelDescription.from_json({"schema": 1, **DESCRIPTION, **changes}, Path("model.json"))


@pytest.fixture
def network():
    torch.manual_seed(3)
    return build(Architecture(**DESCRIPTION["architecture"]))[0].eval()


@pytest.fixture
def warned():
    return []


def state_of(number):
    return {"epoch": number, "module": {"weight": torch.full((3,), float(number))}, "random": torch.get_rng_state()}


def test_the_newest_state_is_loaded_and_the_one_before_is_kept(tmp_path, warned):
    for number in range(4):
        save_state(tmp_path, state_of(number))
    state = load_state(tmp_path, warned.append)
    assert state["epoch"] == 3
    assert torch.equal(state["module"]["weight"], torch.full((3,), 3.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
    (tmp_path / "last.pt").unlink()
    assert load_state(tmp_path, warned.append)["epoch"] == 2
    assert warned == []


def test_without_a_state_there_is_none(tmp_path, warned):
    assert load_state(tmp_path, warned.append) is None
    assert load_state(tmp_path / "nowhere", warned.append) is None
    assert warned == []


DAMAGES = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "lengthened": lambda data: data + b"x",
    "flipped": lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
    "flipped digest": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "zeroed": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_falls_back_loudly(tmp_path, warned, damage):
    save_state(tmp_path, state_of(1))
    save_state(tmp_path, state_of(2))
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    last.write_bytes(damage(last.read_bytes()))
    assert load_state(tmp_path, warned.append)["epoch"] == 1
    assert len(warned) == 1
    assert "last.pt: damaged" in warned[0]
    assert "going back to the checkpoint before it" in warned[0]
    previous.write_bytes(damage(previous.read_bytes()))
    assert load_state(tmp_path, warned.append) is None
    assert "previous.pt: damaged" in warned[-1]
    assert "starting from the beginning" in warned[-1]


def test_a_single_damaged_state_starts_anew(tmp_path, warned):
    save_state(tmp_path, state_of(1))
    (tmp_path / "last.pt").write_bytes(b"rubbish")
    assert load_state(tmp_path, warned.append) is None
    assert "starting from the beginning" in warned[0]


@pytest.mark.parametrize("save", [torch.save, lambda value, file: pickle.dump(value, file, 2)])
def test_a_state_that_would_run_code_is_refused_and_does_not_run(tmp_path, warned, save):
    save_state(tmp_path, state_of(1))
    buffer = io.BytesIO()
    save({"epoch": 9, "module": Bomb(tmp_path / "trap")}, buffer)
    data = buffer.getvalue()
    (tmp_path / "last.pt").replace(tmp_path / "previous.pt")
    # Even with the right checksum before it.
    (tmp_path / "last.pt").write_bytes(hashlib.sha256(data).digest() + data)
    assert load_state(tmp_path, warned.append)["epoch"] == 1
    assert not (tmp_path / "trap").exists()
    assert "not a state saved by cxrtool" in warned[0]


def test_a_disk_that_fills_while_saving_leaves_the_state_before(tmp_path, warned, monkeypatch):
    save_state(tmp_path, state_of(1))
    save_state(tmp_path, state_of(2))

    def fail(path, data):
        raise OutputError("no space left")

    monkeypatch.setattr(checkpoint, "atomic_write", fail)
    with pytest.raises(OutputError):
        save_state(tmp_path, state_of(3))
    assert load_state(tmp_path, warned.append)["epoch"] == 2


def test_a_model_folder_gives_the_network_back(tmp_path, network):
    save_model(tmp_path / "model", network, described())
    loaded, description = load_model(tmp_path / "model")
    written = json.loads((tmp_path / "model" / "model.json").read_text())
    assert {name: written[name] for name in DESCRIPTION} == DESCRIPTION
    assert written["schema"] == 1
    assert description == described()
    assert not loaded.training
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(loaded(images), network(images))
    assert load_file(tmp_path / "model" / "model.safetensors").keys() == network.state_dict().keys()


def test_weights_in_another_memory_order_are_saved_alike(tmp_path, network):
    save_model(tmp_path / "a", network, described())
    save_model(tmp_path / "b", network.to(memory_format=torch.channels_last), described())
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == other


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_neither_saved_nor_loaded(tmp_path, network, value, monkeypatch):
    network.state_dict()["head.weight"][0, 0] = value
    with pytest.raises(CxrtoolError, match="not finite; nothing was saved"):
        save_model(tmp_path / "model", network, described())
    assert not (tmp_path / "model").exists()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "is_finite", lambda module: True)
        save_model(tmp_path / "model", network, described())
    with pytest.raises(InputError, match=r"model\.safetensors: some of the weights are not finite"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a model folder with model.json in it, found none"),
        ("{", "not readable JSON"),
        ("[]", "expected the description of a model"),
        ("{}", "expected schema 1, found None"),
        (json.dumps({**DESCRIPTION, "schema": 2}), "expected schema 1, found 2"),
        (json.dumps({"schema": 1, "classes": []}), "expected an entry 'architecture'"),
    ],
)
def test_a_description_that_will_not_do_is_told(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(InputError, match=message):
        ModelDescription.read(tmp_path)


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "covid-xnet", "classes": 3, "size": 32},
        {"name": "resnet10t", "classes": 2, "size": 32},
        {"name": "no-such-network", "classes": 2},
        {"name": "covid-xnet", "classes": 2, "eval": "1"},
        {"name": "covid-xnet", "classes": 2, "size": 0},
        None,
    ],
)
def test_a_description_of_another_network_is_told(tmp_path, network, architecture):
    save_model(tmp_path, network, described())
    content = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**content, "architecture": architecture}))
    with pytest.raises(
        InputError, match=r"cannot be loaded|cannot build a network from it|expected (3 classes|in .architecture)"
    ):
        load_model(tmp_path)


def test_missing_broken_or_hostile_weights_are_told(tmp_path, network):
    save_model(tmp_path, network, described())
    weights, trap = tmp_path / "model.safetensors", tmp_path / "trap"
    sound = weights.read_bytes()
    for content in (sound[:1000], b"", b"rubbish", pickle.dumps(Bomb(trap))):
        weights.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors: cannot be loaded"):
            load_model(tmp_path)
    torch.save({"a": Bomb(trap)}, weights)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path)
    assert not trap.exists()
