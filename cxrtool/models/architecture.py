"""The description from which a network is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network, as in `model.json`.

    Attributes:
        name: A name from `models.registry.BUILT_IN`, or timm's.
        hidden: Width of a dense layer that replaces the network's own head; 0 keeps that head.
        dropout: Dropout before the output layer.
        size: Side of the square input in pixels.
        kernels: Size for each convolution, for networks with a choice; empty means the network's own.
        ordered: Whether the classes are from least to most (`models.ordered`).
    """

    name: str
    classes: int
    hidden: int = 0
    dropout: float = 0.0
    size: int = 224
    kernels: tuple[int, ...] = ()
    ordered: bool = False

    def __post_init__(self) -> None:
        # JSON has only lists.
        object.__setattr__(self, "kernels", tuple(self.kernels))

    def to_json(self) -> dict[str, Any]:
        """As plain values; without kernels and order where there are none, as in files of older versions."""
        values = {**asdict(self), "kernels": list(self.kernels)}
        return {name: value for name, value in values.items() if value or name not in ("kernels", "ordered")}
