"""How Keras draws the weights of a convolution, for networks whose published training began that way."""

from __future__ import annotations

from torch import nn


def draw_as_keras(module: nn.Module) -> None:
    """Draw the kernels of all convolutions by Glorot & Bengio 2010 (uniform), and set their biases to 0.

    PyTorch's own draw is smaller by the square root of 3: without normalisation little would be left of a signal after
    twenty layers, and a learning rate as low as the published ones would not bring it back.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
