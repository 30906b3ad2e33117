import contextlib
import itertools
import multiprocessing
import tempfile
import time
from types import SimpleNamespace

import pytest
import torch

from cxrtool.errors import CxrtoolError, StoppedError, UsageError
from cxrtool.training import device as module
from cxrtool.training.device import (
    autocast,
    choose_device,
    choose_precision,
    keep_freed_memory,
    local_randomness,
    take_turns,
)

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
        with local_randomness(seed, 2):
            assert torch.get_num_threads() == 2
            drawn.append(torch.rand(1))
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(RuntimeError), local_randomness(1, 2):
        torch.rand(2) @ torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_keeping_memory_is_harmless_where_there_is_no_glibc(monkeypatch):
    keep_freed_memory()

    def missing(name):
        raise OSError("not found")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    keep_freed_memory()


@pytest.fixture
def one_gpu(monkeypatch, tmp_path):
    """A machine of which torch says that it has a GPU."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"card-{device.index}")
    )
    monkeypatch.setattr(module, "POLL", 0.01)
    return torch.device("cuda:0")


def _train_for_a_while(device, at, times):
    with take_turns(device):
        times.put((at, time.monotonic()))
        time.sleep(0.3)
        times.put((at, time.monotonic()))


def test_trainings_on_one_gpu_take_turns(one_gpu):
    context = multiprocessing.get_context("fork")
    times = context.Queue()
    tasks = [context.Process(target=_train_for_a_while, args=(one_gpu, at, times)) for at in range(3)]
    for task in tasks:
        task.start()
    found = [times.get(timeout=60) for _ in range(6)]
    for task in tasks:
        task.join()
    # Whoever began ended before the next began.
    order = [at for at, _ in sorted(found, key=lambda entry: entry[1])]
    assert order[0::2] == order[1::2]


def test_who_waits_for_a_gpu_says_so_once_and_heeds_a_signal(one_gpu):
    said, looks = [], iter(range(100))

    def stop():
        if next(looks) == 4:
            raise StoppedError("stop", 143)

    with take_turns(one_gpu), pytest.raises(StoppedError), take_turns(one_gpu, 1, said.append, stop):
        pytest.fail("two at once")
    assert said == ["another training runs on cuda:0; waiting for it to end"]
    # The first has left, and left nothing behind.
    with take_turns(one_gpu, 1, said.append, stop):
        assert len(said) == 1


def test_another_gpu_and_the_processor_are_not_waited_for(one_gpu, tmp_path):
    with take_turns(one_gpu), take_turns(torch.device("cuda:1")), take_turns(CPU), take_turns(CPU):
        assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())


MEBIBYTE = 1 << 20


def layers():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU())


@pytest.fixture
def remaining(monkeypatch):
    """MiB of memory: what is free before a batch, and then at each time that it is asked for."""

    def set_them(*values, grown=100):
        left, held = iter(values), itertools.chain([10], itertools.repeat(10 + grown))
        monkeypatch.setattr(module.processors, "memory_held", lambda: next(held) * MEBIBYTE)
        monkeypatch.setattr(module.processors, "memory_left", lambda: next(left) * MEBIBYTE)

    return set_them


# Kept for the gradients are the images and both outputs, 1 MiB each; an output that is the next input is there once.
@pytest.mark.parametrize("left", [(5.9, 0.1), (5.9, 1.9), (59, 0.1), (59, 19)])
def test_a_batch_that_takes_the_last_memory_is_refused(remaining, left):
    scale = round(left[0] / 6)
    remaining(*left)
    network, images = layers(), torch.ones(1024 * scale, 256)
    with (
        pytest.raises(CxrtoolError, match="images needs more memory than the") as caught,
        module.within_memory(network, torch.device("cpu"), len(images)),
    ):
        network(images)
    assert "--batch-size" in caught.value.hint


def test_memory_that_was_freed_before_is_used_again(remaining):
    remaining(5.9, 0.1, grown=2)
    with module.within_memory(layers(), torch.device("cpu"), 1024):
        layers()(torch.ones(1024, 256)).sum().backward()


@pytest.mark.parametrize("left", [(6.1,), (5.9, 2.1, 2.1, 2.1), (59, 20.1, 20.1, 20.1)])
def test_a_batch_that_leaves_memory_is_computed(remaining, left):
    scale = round(left[0] / 6)
    remaining(*left)
    network, images = layers(), torch.ones(1024 * scale, 256)
    with module.within_memory(network, torch.device("cpu"), len(images)):
        for _ in range(1 if len(left) > 1 else 5):
            # What is not needed any more is not counted.
            network(images).sum().backward()


def test_the_gradients_are_the_same_while_memory_is_watched():
    gradients = []
    for watched in (False, True):
        network = layers()
        images = torch.rand(64, 256, generator=torch.Generator().manual_seed(1))
        with module.within_memory(network, torch.device("cpu"), 64) if watched else contextlib.nullcontext():
            network(images).square().mean().backward()
        gradients.append([weight.grad for weight in network.parameters()])
    assert all(map(torch.equal, *gradients))


def test_a_depthwise_convolution_is_computed_in_fp32_while_its_gradient_is_wanted():
    torch.manual_seed(0)
    depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    pointwise = torch.nn.Conv2d(8, 4, 1, bias=False)
    images = torch.randn(2, 8, 9, 9)
    exact = depthwise(images)
    coarse = torch.nn.functional.conv2d(images.bfloat16(), depthwise.weight.bfloat16(), padding=1, groups=8)
    assert not torch.equal(coarse, exact.bfloat16())
    with autocast(CPU, "bf16"):
        assert torch.equal(depthwise(images), exact.bfloat16())
        assert pointwise(images).dtype == torch.bfloat16
        named = torch.nn.functional.conv2d(images, depthwise.weight, None, padding=1, groups=8)
        assert torch.equal(named, exact.bfloat16())
        depthwise(images).float().sum().backward()
    expected = torch.autograd.grad(depthwise(images).sum(), depthwise.weight)[0]
    assert torch.allclose(depthwise.weight.grad, expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode(), autocast(CPU, "bf16"):
        assert depthwise(images).dtype == torch.bfloat16
    assert torch.equal(depthwise(images), exact)
