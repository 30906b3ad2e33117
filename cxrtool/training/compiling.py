"""torch.compile for the network of a training (`train --compile`).

A network is compiled for batches of one size, once for training and once for validation; trainings of one design in one
process share that. What torch cannot compile is an error, never a training that is silently not compiled.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterator
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from cxrtool.errors import CxrtoolError

COMPILER: dict[str, Any] = {"backend": "inductor", "options": {"fallback_random": True}}
"""As torch.compile takes them. The random numbers of dropout are torch's own, so that they are those without it."""


class Compiled:
    """A compiled module, which shares the weights and the mode of the module.

    Attributes:
        size: Inputs of a batch that is compiled; one of another size is computed as the module does.
    """

    def __init__(self, module: nn.Module, size: int, design: Hashable) -> None:
        _forget_others(design)
        self.module, self.size = module, size
        self._call: Callable[[Tensor], Tensor] = _compile(module)

    def __call__(self, inputs: Tensor) -> Tensor:
        """The outputs of the module."""
        found: Tensor = (self._call if len(inputs) == self.size else self.module)(inputs)
        return found


def _compile(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    # On a machine without a GPU it would warn that there is none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    compiled: Callable[[Tensor], Tensor] = torch.compile(call, fullgraph=True, dynamic=False, **COMPILER)
    return compiled


@lru_cache(maxsize=1)
def _forget_others(design: Hashable) -> None:
    """Forget what was compiled for another design: of one function torch keeps eight versions."""
    torch.compiler.reset()


@cache
def require_compiler(device: torch.device) -> None:
    """Compile a line, which takes seconds, the first time half a minute.

    Raises:
        CxrtoolError: torch cannot compile here.
    """
    with errors_of_compiling():
        _compile(_line)(torch.zeros(2, device=device))


def _line(values: Tensor) -> Tensor:
    return values.relu() + 1


@contextlib.contextmanager
def errors_of_compiling() -> Iterator[None]:
    """Make one line of what torch raises where it cannot compile; a backward pass is compiled when it is needed.

    Raises:
        CxrtoolError: It cannot.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    try:
        yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        cause = getattr(error, "inner_exception", error)
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise CxrtoolError(
            f"--compile: expected that torch can compile the network here, found: {reason}",
            "omit --compile; it needs a C++ compiler, on a GPU also Triton, and a network that is one graph",
        ) from error
