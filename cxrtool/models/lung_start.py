"""The fitted lung network that the fit of another one begins with."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cxrtool.errors import InputError
from cxrtool.models.parts import default_part, load_network, read_part

DEFAULT = "default"


def start(weights: str) -> Path:
    """The folder of the part that a fit begins with: `default` for the one that comes with cxrtool."""
    return default_part("lungs").folder if weights == DEFAULT else Path(weights)


def begin(network: nn.Module, weights: str) -> None:
    """Load the weights of a fitted lung network.

    Args:
        network: Of the same kind.
        weights: The folder of its part, or `default`.

    Raises:
        InputError: There is no such part, or it is of another network.
    """
    folder = start(weights)
    known = load_network(folder, "lungs")
    if type(known) is not type(network):
        raise InputError(
            f"--weights {weights}: expected a part of the network that is fitted, found '{read_part(folder).network}'",
            f"give --network {read_part(folder).network}, or another part",
        )
    network.load_state_dict(known.state_dict())
