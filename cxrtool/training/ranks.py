"""One training over several processes, which `torchrun` starts: rank 0 leads and writes, the others take a share.

Each rank computes the gradient of its share of a batch; the sum over the ranks, each weighted by its number of images,
is the gradient of the whole batch. It is one reduction after the backward pass, not torch's
`DistributedDataParallel`, in which every rank has the same weight and a rank that lacks memory in the middle of a pass
leaves the others waiting. Validation, statistics and predictions are computed by rank 0 alone, as in one process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cxrtool import stopping
from cxrtool.errors import CxrtoolError, StoppedError
from cxrtool.training.device import choose_device

Found = TypeVar("Found")

PATIENCE = timedelta(days=7)
"""How long a rank waits for another, which may be decoding images. `torchrun` ends all when one has failed."""


class LostError(CxrtoolError):
    """Another rank has ended, and has said why or was killed."""


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, as one of them sees them.

    Attributes:
        rank: Of this process; 0 leads.
        device: The name of its device.
        alone: A group of rank 0 alone.
    """

    rank: int
    count: int
    device: str
    alone: Any

    @classmethod
    def join(cls, device: str) -> Ranks:
        """Meet the other processes; a GPU is this rank's own where the machine has as many as ranks.

        Args:
            device: As `--device`.

        Raises:
            UsageError: There is no such device.
            LostError: The others cannot be reached.
        """
        chosen, backend = choose_device(device), "gloo"
        if chosen.type == "cuda":
            local, here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            if device in ("auto", "cuda"):
                chosen = torch.device("cuda", local % torch.cuda.device_count())
                # Two ranks on one GPU are nothing that NCCL can do.
                backend = "cpu:gloo,cuda:nccl" if here <= torch.cuda.device_count() else "gloo"
            torch.cuda.set_device(chosen)
        with _saying_who_is_lost():
            store, rank, count = next(rendezvous("env://"))
            # `torchrun` keeps the store when it starts all ranks again, and with it the addresses of those that ended.
            store = PrefixStore(f"cxrtool {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
            alone = torch.distributed.new_group([0])
        return cls(rank, count, str(chosen), alone)

    def tell(self, value: Any = None) -> Any:
        """The value that rank 0 gives, on all ranks."""
        box = [value]
        with _saying_who_is_lost():
            torch.distributed.broadcast_object_list(box, 0)
        return box[0]

    def led(self, work: Callable[[], Found]) -> Found:
        """The result of `work`, which rank 0 does alone, on all ranks; and so with a `StoppedError` of it."""
        if self.rank:
            found, stopped = self.tell()
            if stopped:
                raise StoppedError(*stopped)
            result: Found = found
            return result
        try:
            result = work()
        except StoppedError as error:
            self.tell((None, (error.message, error.exit_code)))
            raise
        self.tell((result, None))
        return result

    def equal(self, module: nn.Module) -> None:
        """Give a module on all ranks the weights that it has on rank 0."""
        with _saying_who_is_lost():
            for value in module.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def share(self, count: int) -> range:
        """The positions in a batch that this rank takes: all ranks' are nearly equal, and may be empty."""
        return range(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    @torch.no_grad()
    def add(self, parameters: Sequence[nn.Parameter], sums: Sequence[Tensor]) -> None:
        """Replace gradients, and other values, by their sums over all ranks."""
        values = [*(p.grad for p in parameters if p.grad is not None), *sums]
        flat = torch.cat([value.reshape(-1).float() for value in values])
        with _saying_who_is_lost():
            torch.distributed.all_reduce(flat)
        pieces: Sequence[Tensor] = torch.split(flat, [value.numel() for value in values])
        for value, found in zip(values, pieces, strict=True):
            value.copy_(found.view(value.shape))

    def agreed(self, stop: Callable[[], StoppedError | None]) -> Callable[[], StoppedError | None]:
        """Between two batches: the reason to stop that any rank has, on all of them."""

        def between() -> StoppedError | None:
            reason = stop()
            code = torch.tensor([reason.exit_code if reason else 0])
            with _saying_who_is_lost():
                torch.distributed.all_reduce(code, torch.distributed.ReduceOp.MAX)
            number = {code: number for number, code in stopping.CODES.items()}.get(int(code))
            return reason or (stopping.reason(signal.Signals(number)) if number else None)

        return between

    @contextlib.contextmanager
    def only_here(self, module: nn.Module) -> Iterator[None]:
        """Normalise over the batch of rank 0 alone inside the block, in which the others wait."""
        norms = [part for part in module.modules() if isinstance(part, nn.SyncBatchNorm)]
        before = [norm.process_group for norm in norms]
        for norm in norms:
            norm.process_group = self.alone
        try:
            yield
        finally:
            for norm, group in zip(norms, before, strict=True):
                norm.process_group = group

    def following(self, work: Callable[[], None]) -> int:
        """Do the work of a rank that is not the first, and say what fails here alone; returns the exit code."""
        try:
            work()
        except LostError:
            return 1
        except StoppedError as error:
            return error.exit_code
        except Exception as error:
            text = error.message if isinstance(error, CxrtoolError) else traceback.format_exc()
            sys.__stderr__.write(f"cxrtool train, process {self.rank} of {self.count}: {text}\n")  # type: ignore[union-attr]
            return 1
        return 0


@contextlib.contextmanager
def _saying_who_is_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostError(
            f"another process of this training cannot be reached: {str(error).splitlines()[0][:200]}",
            "the same command continues from the last checkpoint; `torchrun --max-restarts 3` calls it again",
        ) from error


class DropoutOfBatch(TorchFunctionMode):
    """Inside it, dropout of a part of a batch is that of the whole batch: all ranks draw the same numbers.

    Args:
        first: Position of the part's first image in the batch.
        count: Images of the batch.
    """

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.first, self.count = first, count

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace `functional.dropout`, which modules call too."""
        if func is functional.dropout:
            return self._dropped(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropped(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
        if not training or not p:
            return functional.dropout(input, p, training, inplace)
        last = input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last)
        form = torch.channels_last if last else torch.contiguous_format
        whole = torch.ones_like(input[:1]).expand(self.count, *input.shape[1:]).contiguous(memory_format=form)
        return input * functional.dropout(whole, p)[self.first : self.first + len(input)]
