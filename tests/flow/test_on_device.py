import socket
import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxrtool.errors import CxrtoolError
from cxrtool.flow.on_device import AT_ONCE, ask, served, serving
from cxrtool.flow.parallel import map_items
from cxrtool.flow.replaying import ribs_on

GPU = SimpleNamespace(type="a GPU")
"""What only its type tells from a CPU: the functions below compute on the CPU."""


def double(value):
    return ask("part", np.full((2, 2), value, np.float32))


def test_on_a_cpu_each_worker_runs_its_own(settings):
    with serving(torch.device("cpu"), ribs_on):
        assert served(double) is double
        assert double(1) is None


def test_workers_get_the_answers_of_their_own_inputs_from_batches_of_one_size():
    sizes = []

    def run(device):
        def on_device(folder, inputs):
            assert (device, folder) == (GPU, "part")
            sizes.append(len(inputs))
            return inputs * 2

        return on_device

    with serving(GPU, run):
        found = list(map_items(served(double), range(40), workers=3))
    assert [float(answer[0, 0]) for _, answer in found] == [2.0 * k for k in range(40)]
    assert set(sizes) == {AT_ONCE}
    assert double(1) is None


def accepting():
    return [thread for thread in threading.enumerate() if "_accept" in thread.name]


def test_nobody_is_left_to_take_what_is_asked_of_the_next():
    for _ in range(3):
        with serving(GPU, lambda device: lambda folder, inputs: inputs):
            assert len(accepting()) == 1
        assert not accepting()


def test_a_worker_that_leaves_at_once_ends_nothing():
    with serving(GPU, lambda device: lambda folder, inputs: inputs * 2):
        address = served(double).keywords["address"]
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as worker:
                worker.connect(address)
                # Closed with what was said to it unread, the connection is reset.
                worker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        found = list(map_items(served(double), range(3), workers=1))
    assert [float(answer[0, 0]) for _, answer in found] == [0.0, 2.0, 4.0]


def test_an_error_on_the_device_is_one_of_the_worker():
    def run(device):
        def on_device(folder, inputs):
            raise CxrtoolError("the GPU's memory does not suffice for one image", "use --device cpu")

        return on_device

    with serving(GPU, run), pytest.raises(CxrtoolError, match="does not suffice"):
        list(map_items(served(double), range(3), workers=2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_ribs_on_a_gpu_are_those_on_the_cpu():
    from cxrtool.models.parts import default_part

    part = default_part("ribs")
    shown = np.random.default_rng(0).random((AT_ONCE, part.form.size, part.form.size), np.float32)
    cpu, gpu = (ribs_on(torch.device(name))(str(part.folder), shown) for name in ("cpu", "cuda"))
    assert np.abs(cpu - gpu).max() < 1e-3
