"""The entry of the registries of networks that are fitted as parts."""

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
        build: Builds it; keyword arguments are `built_with` of the part. The network takes grey values (B, 1, S, S)
            in [0, 1] and normalises them itself. Its first channel is the logit of the mask, or the image. A
            second one, of a network for opacities, has as its mean over a region the share of it that is opaque.
        form: Of its input.
        about: One line for help texts: its origin.
    """

    build: Callable[..., nn.Module]
    form: Form
    about: str
