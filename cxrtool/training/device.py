"""Device, precision, threads, and the lock by which trainings on one GPU take turns."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cxrtool import processors
from cxrtool.data.files import locked
from cxrtool.errors import CxrtoolError, OutputError, UsageError, count_of
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
    if device.type == "cuda":
        # By default cuDNN rounds the inputs of convolutions in fp32 to ten bits: fp32 is to be what it is on a CPU.
        torch.backends.cudnn.allow_tf32 = False
    return device


def on_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy values of a batch to the device; on a GPU through pinned memory, so that the program does not wait for it.

    It then prepares the next batches while the GPU still computes this one.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


Result = TypeVar("Result")


class AtOnce:
    """How many images of a batch are computed at once: half as many whenever a device's memory does not suffice.

    This is the only place that expects a `torch.OutOfMemoryError`. What did not fit once is not tried again.

    Args:
        smaller: Called with the size of a batch and the portion that fits, when fewer than before do; it may raise.
    """

    def __init__(self, smaller: Callable[[int, int], None] = lambda count, size: None) -> None:
        self.smaller, self.most = smaller, sys.maxsize

    def __call__(self, work: Callable[[int], Result], count: int, least: int = 1) -> Result:
        """The result of `work(size)`, which does `count` images in portions of `size`, with the largest that fits.

        Raises:
            CxrtoolError: The memory does not suffice for `least` images, or what `smaller` raised.
        """
        size = first = max(1, min(count, self.most))
        while True:
            try:
                result = work(size)
                break
            except torch.OutOfMemoryError:
                if size <= least:
                    raise CxrtoolError(
                        f"the GPU's memory does not suffice for {'one image' if size == 1 else f'{size} images'}",
                        "use --device cpu" if size == 1 else "use a smaller --batch-size, or --device cpu",
                    ) from None
            # Only here, after the exception, is nothing left that holds the tensors.
            torch.cuda.empty_cache()
            size = max(least, size // 2)
        if size < first:
            self.most = size
            self.smaller(count, size)
        return result


def in_halves(call: Callable[[Tensor], Tensor], inputs: Tensor, axis: int = 0) -> Tensor:
    """The output of `call` for a batch (B, …), which is halved if the GPU's memory does not suffice.

    Args:
        call: From inputs (b, …) to a tensor with b entries along `axis`.
        inputs: The batch.
        axis: The outputs of the halves are joined along it.

    Raises:
        CxrtoolError: The memory does not suffice for one image.
    """

    def work(size: int) -> Tensor:
        parts = [call(part) for part in inputs.split(size)]  # type: ignore[no-untyped-call]
        return parts[0] if len(parts) == 1 else torch.cat(parts, axis)

    return AtOnce()(work, len(inputs))


ALIKE = 32
"""Images to which a smaller batch is filled up on a GPU, which computes batches of one size alike."""


def filled(images: Tensor, count: int = ALIKE) -> Tensor:
    """A batch (B, …) filled up to `count` images."""
    return torch.cat([images, images.new_zeros((max(0, count - len(images)), *images.shape[1:]))])


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


def memory_left(device: torch.device) -> float:
    """Bytes of memory of a device that nobody uses; of a machine that does not tell, infinitely many.

    What this process uses counts as free: most of it was freed, and is kept for the next step.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device))
    return processors.memory_left() + processors.memory_held()


@contextlib.contextmanager
def within_memory(module: nn.Module, device: torch.device, images: int) -> Iterator[None]:
    """Raise an error where a batch takes the last memory, before the system ends the process.

    A GPU says by itself that its memory does not suffice; Linux gives memory that it lacks, and ends a process that
    uses it. Once what is kept for the gradients is more than half of what was free, each further tensor must leave some
    memory: a twentieth of it, or twice the tensor, because what is computed in between needs memory too.

    Args:
        module: What is trained; its weights are there already.
        device: Of the batch; only on a CPU is anything done.
        images: Number of images in the batch, for the message.

    Raises:
        CxrtoolError: The memory does not suffice.
    """
    if device.type != "cpu":
        yield
        return
    room, held, kept = processors.memory_left(), processors.memory_held(), 0
    uses = dict.fromkeys((weight.untyped_storage().data_ptr() for weight in module.parameters()), 1)

    class Held:
        """A tensor that is kept for a gradient, until it is not needed any more."""

        def __init__(self, tensor: Tensor) -> None:
            nonlocal kept
            storage = tensor.untyped_storage()
            self.tensor, self.place, self.bytes = tensor, storage.data_ptr(), storage.nbytes()
            # A layer's output is the next one's input: it is there once.
            uses[self.place] = uses.get(self.place, 0) + 1
            kept += self.bytes * (uses[self.place] == 1)
            # What this process has freed before looks used, and is used again.
            grown = kept > room / 2 and processors.memory_held() - held > room / 2
            if grown and processors.memory_left() < max(room / 20, 2 * self.bytes):
                batch = f"a batch of {count_of(images, 'image')}"
                raise CxrtoolError(
                    f"{batch} needs more memory than the {room / 1e9:.1f} GB that were free",
                    "use a smaller --batch-size, a smaller --size or a smaller network",
                )

        def __del__(self) -> None:
            nonlocal kept
            uses[self.place] -= 1
            kept -= self.bytes * (not uses[self.place])

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        yield


POLL = 0.5
"""Seconds between two checks whether a GPU is free."""


@contextlib.contextmanager
def take_turns(
    device: torch.device,
    threads: int = 1,
    say: Callable[[str], None] = lambda text: None,
    between: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Wait until no other training of this user runs on the same GPU, and let others wait inside the block.

    Two trainings at once that each fill a GPU are slower than one after the other, and may together exceed its memory.
    The lock is a file that the system releases when the process ends, for whatever reason. A CPU needs no lock.

    Args:
        device: Of the training.
        threads: Of the training on a CPU.
        say: Called once with a message if it has to wait, or if others use the processors.
        between: Called while waiting; what it raises ends the wait.
    """
    if device.type != "cuda":
        if text := processors.crowded(threads):
            say(text)
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
