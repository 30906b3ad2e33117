import pytest
import torch

from cxrtool.errors import UsageError
from cxrtool.models.pretrained import hub_folder, published


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(hub, repository, file):
    folder = hub / ("models--" + repository.replace("/", "--"))
    path = folder / "snapshots" / "abc" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    return path


def test_what_timm_has_is_told(hub):
    entry = published("resnet10t")
    assert (entry.name, entry.weights, entry.classes, entry.path) == ("resnet10t", "resnet10t.c3_in1k", 1000, None)
    assert entry.licence == "apache-2.0"
    assert published("resnet50.a1_in1k").weights == "resnet50.a1_in1k"
    assert published("resnetv2_152") is None
    assert hub_folder() == hub


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_what_lies_in_the_cache_is_found(hub, file):
    path = put(hub, "timm/resnet10t.c3_in1k", file)
    assert published("resnet10t").path == path
    assert published("resnet18").path is None


def test_that_the_hub_once_had_no_such_file_is_no_file(hub):
    folder = hub / "models--timm--resnet10t.c3_in1k"
    (folder / ".no_exist" / "abc").mkdir(parents=True)
    (folder / ".no_exist" / "abc" / "model.safetensors").touch()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert published("resnet10t").path is None


def test_weights_from_an_address_lie_with_torch(tmp_path, monkeypatch):
    import timm

    config = timm.get_pretrained_cfg("resnet10t")
    config.hf_hub_id, config.url = None, "https://example.org/w/resnet-0123.pth"
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda *names, **more: config)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert published("resnet10t").path is None
    (tmp_path / "checkpoints").mkdir()
    torch.save({}, tmp_path / "checkpoints" / "resnet-0123.pth")
    assert published("resnet10t").path == tmp_path / "checkpoints" / "resnet-0123.pth"


@pytest.mark.parametrize(("name", "near"), [("vgg61", "vgg16"), ("covid-xnet", ""), ("resnet50.nonsense", "resnet50.")])
def test_an_unknown_network_is_told_with_the_nearest(name, near):
    with pytest.raises(UsageError, match=f"expected a network of timm, found '{name}' .nearest: .*{near}"):
        published(name)
