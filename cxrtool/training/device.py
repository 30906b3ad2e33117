"""Device, precision, threads, and the lock by which trainings on one GPU take turns."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cxrtool.data.files import locked
from cxrtool.errors import CxrtoolError, OutputError, UsageError
from cxrtool.options import one_of

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """The device of `--device`; `auto` is the first GPU if there is one.

    Raises:
        UsageError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device: torch.device | None = None
    with contextlib.suppress(RuntimeError):
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device: expected auto, cpu, cuda or cuda:N, found '{name}'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices",
            "`cxrtool doctor` shows the devices; --device auto chooses one",
        )
    return device


def in_halves(call: Callable[[Tensor], Tensor], inputs: Tensor, axis: int = 0) -> Tensor:
    """The output of `call` for a batch (B, …), which is halved if the GPU's memory does not suffice.

    Args:
        call: From inputs (b, …) to a tensor with b entries along `axis`.
        inputs: The batch.
        axis: The outputs of the halves are joined along it.

    Raises:
        CxrtoolError: The memory does not suffice for one image.
    """
    try:
        return call(inputs)
    except torch.OutOfMemoryError:
        if len(inputs) == 1:
            raise CxrtoolError("the GPU's memory does not suffice for one image", "use --device cpu") from None
    torch.cuda.empty_cache()
    half = len(inputs) // 2
    return torch.cat([in_halves(call, inputs[:half], axis), in_halves(call, inputs[half:], axis)], axis)


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` is bf16 where the hardware supports it, which there is at least twice as fast.

    Raises:
        UsageError: `name` is not in `PRECISIONS`.
    """
    one_of("--precision", name, PRECISIONS)
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _processor_has_bf16() else "fp32"


def _processor_has_bf16() -> bool:
    # The functions of torch for this are private, and their names have changed.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Use automatic mixed precision in bf16, or fp32 throughout."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"))
        if precision == "bf16" and device.type == "cpu" and torch.is_grad_enabled():
            stack.enter_context(_DepthwiseInFull())
        yield


class _DepthwiseInFull(TorchFunctionMode):
    """Compute depthwise convolutions in fp32 and return bf16.

    On CPUs bf16 makes the gradient of a depthwise convolution slower: measured with MobileNetV2
    (batch 16, 224 x 224, AVX-512), 173 ms a step in bf16 against 42 ms in fp32, a third of the whole step.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.conv2d and _is_depthwise(*args, **(kwargs or {})):
            images, *rest = args
            with torch.autocast("cpu", enabled=False):
                result: torch.Tensor = func(images.float(), *rest, **(kwargs or {}))
            return result.to(torch.bfloat16)
        return func(*args, **(kwargs or {}))


def _is_depthwise(input: Any, weight: Any, *args: Any, **kwargs: Any) -> bool:  # noqa: A002 - conv2d's own name
    # torch's order is bias, stride, padding, dilation, groups.
    groups = kwargs.get("groups", args[4] if len(args) > 4 else 1)
    return bool(1 < groups == input.shape[1])


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, instead of returning it to the system.

    A training step on a CPU frees and allocates the same large blocks hundreds of times; each return costs a page fault
    for every 4 KiB. Measured: a step of a small network takes a quarter less time. Without glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            library.mallopt(option, 1 << 30)


POLL = 0.5
"""Seconds between two checks whether a GPU is free."""


@contextlib.contextmanager
def take_turns(
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
    between: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Wait until no other training of this user runs on the same GPU, and let others wait inside the block.

    Two trainings at once that each fill a GPU are slower than one after the other, and may together exceed its memory.
    The lock is a file that the system releases when the process ends, for whatever reason. A CPU needs no lock.

    Args:
        device: Of the training.
        say: Called once with a message if it has to wait.
        between: Called while waiting; what it raises ends the wait.
    """
    if device.type != "cuda":
        yield
        return
    # By the UUID of the card: under a scheduler every job numbers its own GPUs from 0.
    card = str(torch.cuda.get_device_properties(device).uuid)
    path = Path(tempfile.gettempdir()) / f"cxrtool-{os.getuid()}-gpu-{card}.lock"
    reported = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(path, wait=False))
                break
            except OutputError:
                if not reported:
                    say(f"another training runs on {device}; waiting for it to end")
                reported = True
                time.sleep(POLL)
                between()
        yield


@contextlib.contextmanager
def local_randomness(seed: int, threads: int) -> Iterator[None]:
    """Seed torch's generators and set its threads inside the block; both are restored afterwards."""
    before = torch.get_num_threads()
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices):
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(before)
