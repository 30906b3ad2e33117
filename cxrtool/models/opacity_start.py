"""What the branches of the default opacity network begin with: the lung network, and an encoder of ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cxrtool.errors import UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.opacity_unet import NAME, OpacityUNet
from cxrtool.models.parts import default_part, load_network
from cxrtool.models.registry import build

DEFAULT = "default"

_NAMES = {"conv_stem": "stem.0", "bn1": "stem.1", "blocks": "stages"}
"""timm's first names of tensors to those of the branch."""


def begin(network: nn.Module, weights: str) -> str:
    """Load the weights that the fit of an opacity network begins with.

    Args:
        network: An `OpacityUNet`.
        weights: Of the encoder: `default` for those that come with cxrtool, `imagenet`, or a file
            with weights of the whole EfficientNet-Lite0.

    Returns:
        Where the encoder's weights come from.

    Raises:
        UsageError: `none`: random features have no meaning.
        InputError: They cannot be downloaded or read, or do not fit.
    """
    if not isinstance(network, OpacityUNet):
        raise TypeError(f"expected an OpacityUNet, found {type(network).__name__}")
    network.chest.load_state_dict(load_network(default_part("lungs").folder, "lungs").state_dict())
    if weights == "none":
        raise UsageError(
            "--weights: expected weights of the encoder, which stays as it is, found none",
            "imagenet downloads them; default takes those of the network that comes with cxrtool",
        )
    state: dict[str, Tensor]
    if weights == DEFAULT:
        part = default_part("opacities")
        source = f"the encoder of {part.folder.name}"
        state = load_network(part.folder, "opacities").get_submodule("things").state_dict()
    else:
        with torch.random.fork_rng([]):
            whole, source = build(Architecture(NAME, 2), weights=weights)
        parts = ((name.partition("."), value) for name, value in whole.get_submodule("timm").state_dict().items())
        state = {f"{_NAMES[first]}.{rest}": value for (first, _, rest), value in parts if first in _NAMES}
    own = [name for name in network.things.state_dict() if name.startswith(("stem.", "stages."))]
    network.things.load_state_dict({name: state[name] for name in own}, strict=False)
    return source
