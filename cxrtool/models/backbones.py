"""Any network of timm as a `Network`: with its own head and new outputs, or with a dense head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cxrtool.models.network import Network, dense_head


class TimmNetwork(Network):
    """A network from timm.

    The halves are timm's `forward_features` and `forward_head`. With `hidden` a dense layer with dropout
    replaces the classifier and, in VGG, the 120 million fully connected weights before it. A normalisation or
    convolution between pooling and classifier (ConvNeXt, MobileNetV3) stays, and is part of the backbone.

    Args:
        name: timm's name, such as `mobilenetv2_100`.
        pretrained: Load timm's default ImageNet weights; needs a network connection or timm's cache.
        hidden: Width of the dense layer of a new head; 0 keeps the network's own head.
        dropout: Dropout before the output layer.
        size: Side of the square input in pixels; networks with a fixed grid, such as ViT, are built for it.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        *,
        pretrained: bool = False,
        hidden: int = 0,
        dropout: float = 0.0,
        size: int = 224,
    ) -> None:
        import timm

        super().__init__()
        arguments: dict[str, Any] = {"pretrained": pretrained, "num_classes": classes}
        if not hidden and dropout:
            arguments["drop_rate"] = dropout
        self.timm: Any
        try:
            self.timm = timm.create_model(name, img_size=size, **arguments)
        except TypeError:
            # Most convolutional networks take any size and have no such argument.
            self.timm = timm.create_model(name, **arguments)
        self.head: nn.Module | None = None
        if hidden:
            self.timm.reset_classifier(0)
            width = getattr(self.timm, "head_hidden_size", None) or self.timm.num_features
            if isinstance(getattr(self.timm, "pre_logits", None), nn.Module):
                self.timm.pre_logits = nn.Identity()
                width = self.timm.num_features
            self.head = dense_head(int(width), hidden, classes, dropout)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised, to timm's unpooled features."""
        maps: Tensor = self.timm.forward_features(images)
        return maps

    def classify(self, features: Tensor) -> Tensor:
        """Unpooled features to logits (B, K)."""
        pooled: Tensor = self.timm.forward_head(features)
        return self.head(pooled) if self.head is not None else pooled

    def head_modules(self) -> list[nn.Module]:
        """The classifier and what belongs to it, which is initialised again for new classes."""
        if self.head is not None:
            return [self.head]
        found: list[nn.Module] = []
        for name in HEADS:
            module = getattr(self.timm, name, None)
            if isinstance(module, nn.Module) and not any(module is other for other in found):
                found.append(module)
        classifiers = self.timm.get_classifier()
        classifiers = classifiers if isinstance(classifiers, list | tuple) else [classifiers]
        inside = {id(module) for outer in found for module in outer.modules()}
        return found + [module for module in classifiers if isinstance(module, nn.Module) and id(module) not in inside]


HEADS = ("pre_logits", "fc_norm", "head")
"""The names of the modules between pooling and classifier in networks of timm."""


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean, standard deviation (per channel, of values in [0, 1]) and native side in pixels that timm states."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224
    return tuple(config.mean), tuple(config.std), int(config.input_size[-1])


def exists(name: str) -> bool:
    """Whether timm has the network, and its tag if it has one, as in `resnet50.a1_in1k`."""
    import timm

    if not timm.is_model(name.split(".")[0]):
        return False
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        return False
    return True


def nearest(name: str) -> list[str]:
    """The names of timm that are most similar to `name`; of a known network, its tags."""
    import difflib

    import timm

    architecture, _, tag = name.partition(".")
    if tag and timm.is_model(architecture):
        return list(timm.list_pretrained(f"{architecture}.*"))[:3]
    return difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
