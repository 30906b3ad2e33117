"""The initialisation of convolutions in Keras, for networks whose published training used it."""

from __future__ import annotations

from torch import nn


def draw_as_keras(module: nn.Module) -> None:
    """Initialise all convolutions by Glorot & Bengio 2010 (uniform), with biases of 0.

    The weights of PyTorch are smaller by the square root of 3: without normalisation the signal fades over twenty
    layers, and the published learning rates are too low to restore it.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
