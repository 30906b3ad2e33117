"""What the registries of networks that are fitted as parts hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxrtool.imaging.fits import Form

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PartNetwork:
    """A network that can be fitted as a part.

    Attributes:
        build: Builds it, with what a part of it was `built_with`; it takes grey values (B, 1, S, S) in [0, 1] and
            does all normalisation itself.
        form: What it is shown.
        about: One line for help texts: where it comes from.
    """

    build: Callable[..., nn.Module]
    form: Form
    about: str
