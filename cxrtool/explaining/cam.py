"""Class activation maps: the positions of the features that support a class.

CAM (Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, "Learning deep features for discriminative localization", CVPR,
section 2): the weights of a class in the output layer, times the last feature maps; for networks that end in global
average pooling and one linear layer.

Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization",
ICCV, equations 1 and 2): the weight of a map is the mean gradient of the class's score, before the softmax, with
respect to it; for any network. Where CAM applies, Grad-CAM of the last feature maps is CAM divided by their number of
cells.

Both are clipped at zero, which removes evidence against the class: equation 2 of Grad-CAM does so, for CAM it is our
choice. Captum's LayerGradCam gives the same values on the same module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxrtool.errors import InputError, UsageError
from cxrtool.explaining.layers import Layer, at_rest, find_layer, kind_of, named_layer, shape_of, watch
from cxrtool.models.network import Network

Choose = Callable[[Tensor], Tensor]
"""From logits (B, K) to the class (B,) that each map explains."""

AGREE = 1e-4
"""Allowed difference, relative to the largest logit, between the head and pooling with one linear layer."""


@dataclass
class Maps:
    """Heatmaps (B, h, w) >= 0 at the resolution of the feature map, logits (B, K) in fp32, and classes explained."""

    values: Tensor
    logits: Tensor
    targets: Tensor


class GradCam:
    """Grad-CAM of one network, whose mode and parameters do not change.

    `images` (B, C, S, S), normalised, are an example of its input. `layer` names a module; None is the last map before
    pooling.

    Raises:
        InputError: The network has no map of the image.
        UsageError: `layer` is not a module with a map.
    """

    name = "grad-cam"

    def __init__(self, network: Network, images: Tensor, layer: str | None = None) -> None:
        self.network = network
        if layer is not None:
            self.layer = named_layer(network, layer, images[:1])
        else:
            # Noise, so that the choice does not depend on the first image.
            noise = torch.randn(images[:1].shape, generator=torch.Generator().manual_seed(0)).to(images)
            largest = partial(torch.argmax, dim=1)
            self.layer = find_layer(network, noise, lambda tried: self._look(noise, tried, largest)[1])

    def __call__(self, images: Tensor, choose: Choose) -> Maps:
        """The maps of images (B, C, S, S), normalised."""
        activations, gradients, logits, targets = self._look(images, self.layer, choose)
        weights = gradients.mean((2, 3), keepdim=True)
        return Maps((weights * activations).sum(1).relu(), logits, targets)

    def _look(self, images: Tensor, layer: Layer, choose: Choose) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The layer's map (B, C, h, w), the gradient of the scores with respect to it, logits, and chosen classes."""
        outputs: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            # The graph starts here: nothing before this layer is differentiated, so frozen parameters do not matter.
            # The copy protects the saved output from in-place operations such as an inplace ReLU.
            outputs.append(output.detach().clone().requires_grad_())
            return outputs[-1].clone()

        module = self.network.get_submodule(layer.name)
        with at_rest(self.network), torch.enable_grad(), watch(module, keep):
            logits = self.network(images)
            targets = choose(logits.detach())
            # The sum over the batch: in evaluation mode no image affects the score of another.
            score = logits.gather(1, targets[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, outputs[-1], allow_unused=True)
        kept = outputs[-1].detach()
        gradient = torch.zeros_like(kept) if gradient is None else gradient
        return layer.shape.to_map(kept), layer.shape.to_map(gradient), logits.detach().float(), targets


class Cam:
    """The class activation maps of one network that ends in global average pooling and one linear layer.

    `images` (B, C, S, S), normalised, are an example of its input, with which the head is checked. `layer` must be
    None, because CAM uses the last feature maps by definition.

    Raises:
        InputError: The network has another head.
        UsageError: A layer is named.
    """

    name = "cam"

    def __init__(self, network: Network, images: Tensor, layer: str | None = None) -> None:
        if layer is not None:
            raise UsageError("--layer: CAM uses only the last feature maps", "--method grad-cam takes any layer")
        self.network = network
        with at_rest(network), torch.no_grad():
            features = network.features(images[:2])
            logits = network.classify(features)
        shape, output = shape_of(features, network), _output_layer(network)
        if shape is None or output is None or output.weight.shape[1] != shape.channels:
            raise self._unfit()
        self.weights = output.weight.detach().flatten(1)
        # The modules do not show the order of their use, so the logits are compared.
        pooled = shape.to_map(features).mean((2, 3))
        with torch.no_grad():
            expected = functional.linear(pooled, self.weights, output.bias)
        if float((expected - logits).abs().max()) > AGREE * max(1.0, float(logits.abs().max())):
            raise self._unfit()
        if shape.side < 2:
            raise InputError(
                f"the last feature map is 1 x 1 at {images.shape[-1]} pixels and has no positions",
                "train at a larger --size, or use an earlier layer: --method grad-cam --layer NAME",
            )
        self.layer = Layer("the output of the backbone", shape)

    def __call__(self, images: Tensor, choose: Choose) -> Maps:
        """The maps of images (B, C, S, S), normalised."""
        with at_rest(self.network), torch.no_grad():
            features = self.network.features(images)
            logits = self.network.classify(features).float()
            targets = choose(logits)
            maps = self.layer.shape.to_map(features)
            values = torch.einsum("bc,bchw->bhw", self.weights[targets], maps).relu()
        return Maps(values, logits, targets)

    def _unfit(self) -> InputError:
        return InputError(
            f"--method cam: expected a network that ends in global average pooling and one linear layer, found "
            f"{kind_of(self.network)} with another head",
            "--method grad-cam explains any network",
        )


def upsample(values: Tensor, size: int) -> Tensor:
    """Maps (B, h, w) at the size of the network's input (B, size, size): bilinear, corners not aligned."""
    return functional.interpolate(values[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]


def _output_layer(network: Network) -> nn.Linear | nn.Conv2d | None:
    """The only layer with weights of a head, if it is linear or a 1 x 1 convolution."""
    weighted = [
        module
        for outer in network.head_modules()
        for module in outer.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    if len(weighted) != 1:
        return None
    output = weighted[0]
    pointwise = isinstance(output, nn.Conv2d) and output.kernel_size == (1, 1) and output.groups == 1
    return output if isinstance(output, nn.Linear) or pointwise else None  # type: ignore[return-value]
