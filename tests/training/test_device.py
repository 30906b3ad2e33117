import pytest
import torch

from cxrtool.errors import UsageError
from cxrtool.training import device as module
from cxrtool.training.device import autocast, choose_device, choose_precision, keep_freed_memory, own_randomness

CPU = torch.device("cpu")


def test_the_device_that_is_named():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "mps", "cuda:x", "tpu"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UsageError, match=f"--device: expected auto, cpu, cuda or cuda:N, found '{name}'"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="this machine has 0 CUDA devices") as caught:
        choose_device("cuda")
    assert "doctor" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(UsageError, match="--device cuda:2: this machine has 2"):
        choose_device("cuda:2")


def test_precision_follows_the_processor(monkeypatch):
    for able, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(module, "_processor_has_bf16", lambda able=able: able)
        assert choose_precision("auto", CPU) == expected
        assert choose_precision("fp32", CPU) == "fp32"
        assert choose_precision("bf16", CPU) == "bf16"
    with pytest.raises(UsageError, match="--precision: expected one of auto, fp32, bf16, found 'fp16'"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision, dtype):
    with autocast(CPU, precision):
        assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype == dtype


def test_randomness_and_threads_are_given_back():
    torch.manual_seed(4)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    drawn = []
    for seed in (1, 1, 2):
        with own_randomness(seed, 2):
            assert torch.get_num_threads() == 2
            drawn.append(torch.rand(1))
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(RuntimeError), own_randomness(1, 2):
        torch.rand(2) @ torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_keeping_memory_is_harmless_where_there_is_no_glibc(monkeypatch):
    keep_freed_memory()

    def missing(name):
        raise OSError("not found")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    keep_freed_memory()
