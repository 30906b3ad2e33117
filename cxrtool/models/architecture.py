"""Which network: all that is needed to build one anew."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network anew, as `model.json` keeps it.

    Attributes:
        name: A name from `models.registry.BUILT_IN`, or timm's.
        classes: Number of outputs.
        hidden: Width of a dense layer that takes the place of the network's own head; 0 keeps that head.
        dropout: Dropout before the output layer.
        size: Side of the square input in pixels.
        kernels: Of each convolution, for networks that have a choice; empty takes the network's own.
    """

    name: str
    classes: int
    hidden: int = 0
    dropout: float = 0.0
    size: int = 224
    kernels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # JSON knows lists alone.
        object.__setattr__(self, "kernels", tuple(self.kernels))

    def to_json(self) -> dict[str, Any]:
        """As plain values; without kernels where there is no choice, as in files that older versions wrote."""
        values = {**asdict(self), "kernels": list(self.kernels)}
        return values if self.kernels else {name: value for name, value in values.items() if name != "kernels"}
