"""Names of tensors in the files of other programs, as timm has them.

- efficientnet_pytorch (Melas-Kyriazi): `_conv_stem`, `_blocks.N._depthwise_conv`, …; it counts blocks through, where
  timm has stages.
- torchvision's VGG: the dense layers are `classifier.0`, `.3` and `.6`; timm has the first two as convolutions.
- torchvision's DenseNet of before 2018: `norm.1` and `conv.1` for `norm1` and `conv1`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_WITH_EXPANSION = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_WITHOUT = {**_WITH_EXPANSION, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of a block that begins with its depthwise convolution."""

_VGG = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}


def translated(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a file under timm's names; those of an unknown program keep theirs.

    Args:
        state: By the names in the file.
        own: The names in the network, with or without a prefix before timm's.
    """
    if "_conv_stem.weight" in state:
        return _efficientnet(state, own)
    if {"features.0.weight", "classifier.0.weight", "classifier.6.weight"} <= set(state):
        return {_vgg_name(name): _vgg_value(name, value) for name, value in state.items()}
    return {re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", name): value for name, value in state.items()}


def _efficientnet(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    blocks = list(dict.fromkeys(found[0] for name in own if (found := re.search(r"blocks\.\d+\.\d+\.", name))))
    result = {}
    for name, value in state.items():
        inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if inner and int(inner[1]) < len(blocks):
            layers = _WITH_EXPANSION if f"_blocks.{inner[1]}._expand_conv.weight" in state else _WITHOUT
            result[f"{blocks[int(inner[1])]}{layers.get(inner[2], inner[2])}.{inner[3]}"] = value
        else:
            layer, _, rest = name.partition(".")
            result[f"{_OUTER.get(layer, layer)}.{rest}"] = value
    return result


def _vgg_name(name: str) -> str:
    layer, _, rest = name.rpartition(".")
    return f"{_VGG.get(layer, layer)}.{rest}"


def _vgg_value(name: str, value: Tensor) -> Tensor:
    if name == "classifier.0.weight":
        return value.reshape(len(value), -1, 7, 7)
    return value[:, :, None, None] if name == "classifier.3.weight" else value
