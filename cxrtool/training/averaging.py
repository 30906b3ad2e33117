"""A running average of a network's weights over the steps of its training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn


class Average:
    """A running average of a module's parameters over the steps (Polyak & Juditsky 1992), which jitters less than they.

    Args:
        module: What is trained.
        kept: Share that the average keeps at each step; less during the first steps, whose weights it soon forgets.
    """

    def __init__(self, module: nn.Module, kept: float) -> None:
        self.kept, self.steps, self._showing = kept, 0, False
        self._live = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._mean = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def take(self) -> None:
        """Take in the weights after a step."""
        kept = min(self.kept, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        torch._foreach_lerp_(self._mean, [parameter.detach() for parameter in self._live], 1 - kept)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Let the module have the average inside the block, unless it ends early by `hide`."""
        self._swap()
        try:
            yield
        finally:
            self.hide()

    def hide(self) -> None:
        """Give the module its own weights back, if it has the average."""
        if self._showing:
            self._swap()

    def _swap(self) -> None:
        self._showing = not self._showing
        for parameter, mean in zip(self._live, self._mean, strict=True):
            parameter.data, mean.data = mean.data, parameter.data

    def state(self) -> dict[str, Any]:
        """What is to be saved."""
        return {"steps": self.steps, "mean": self._mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what was saved."""
        self.steps = state["steps"]
        for mean, saved in zip(self._mean, state["mean"], strict=True):
            mean.copy_(saved)
