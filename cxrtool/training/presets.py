"""What the published systems state about training, as values of the options of `train`.

A preset holds what a paper or its reference implementation states. A flag overrides it. Options that a preset does not
name keep their default (`cxrtool.training.options`).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

_COVID_XNET: dict[str, Any] = {
    # Duran-Lopez et al. 2020, sections 2.2 and 2.3. The paper gives optimizer, batch, class weights and augmentation;
    # Adadelta's constants and the meaning of shift, shear and zoom are those of Keras, the framework it used. Shear as
    # a factor (0.2 of Keras' degrees would be nothing), and epochs and their choice are ours.
    "model": "covid-xnet",
    "bn_stats": "running",
    "weights": "none",
    "size": 128,
    "epochs": 100,
    "batch_size": 32,
    "opt": "adadelta",
    "lr": 1.0,
    "opt_rho": 0.95,
    "opt_eps": 1e-7,
    "class_weights": "balanced",
    "augment": "rotate=15,shift=0.2,shear=0.2,zoom=0.2,flip=0.5,keras=1",
    "checkpoint": "best-loss",
}

_PORTABLE_DENSENET161: dict[str, Any] = {
    # De Moura et al. 2020, sections 3.2 and 3.3: DenseNet-161 from ImageNet at 224 x 224, all layers trained; SGD at a
    # constant 0.01, momentum 0.9, batches of 4, 200 epochs; scaling and flip. The range of scaling (half of the images,
    # by up to a tenth) and the epoch of the lowest validation loss are ours.
    "model": "densenet161.tv_in1k",
    "bn_stats": "running",
    "weights": "imagenet",
    "size": 224,
    "epochs": 200,
    "batch_size": 4,
    "opt": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "sched": "constant",
    "augment": "zoom=0.1,flip=0.5,p=0.5",
    "checkpoint": "best-loss",
}

_COVID_SDNET: dict[str, Any] = {
    # Tabik et al. 2020, section III: ResNet-50 from ImageNet, its last layer replaced by 512 units with ReLU and the
    # outputs, all layers trained by SGD in batches of 16. Rate, momentum, epochs and their choice, size and
    # augmentation are ours.
    "model": "resnet50.tv_in1k",
    "bn_stats": "running",
    "weights": "imagenet",
    "size": 224,
    "hidden": 512,
    "epochs": 50,
    "patience": 10,
    "batch_size": 16,
    "opt": "sgd",
    "lr": 1e-3,
    "momentum": 0.9,
    "sched": "constant",
    "augment": "rotate=10,flip=0.5",
    "checkpoint": "best-loss",
}

_COVID_CAPS: dict[str, Any] = {
    # Afshar et al. 2020 and their implementation: Adam at 0.001 (with Keras's epsilon), batches of 16, 100 epochs,
    # margin loss. No augmentation and the epoch of the lowest validation loss are ours.
    "model": "covid-caps",
    "bn_stats": "running",
    "weights": "none",
    "size": 224,
    "epochs": 100,
    "batch_size": 16,
    "opt": "adam",
    "lr": 1e-3,
    "opt_eps": 1e-7,
    "augment": "none",
    "checkpoint": "best-loss",
}

_PEPX: dict[str, Any] = {
    # COVIDNet's own training as Tabik et al. 2020 repeat it: Adam at 0.0002, batches of 8, 10 epochs. Wang & Wong 2020
    # name translation, rotation, flip, zoom and changes of intensity; their ranges, no third class of pneumonia, and
    # the epoch of the lowest validation loss are ours, as are the widths of the network.
    "model": "pepx",
    "bn_stats": "running",
    "weights": "none",
    "size": 224,
    "epochs": 10,
    "batch_size": 8,
    "opt": "adam",
    "lr": 2e-4,
    "augment": "rotate=10,shift=0.1,zoom=0.15,flip=0.5,brightness=0.1",
    "checkpoint": "best-loss",
}

_MAKRIS: dict[str, Any] = {
    # Makris et al. 2020, section 3: frozen ImageNet backbones, a new head with dropout 0.5, Adam. The head's width and
    # the ranges of shear, zoom, crop and noise are ours; shear and zoom have the meaning that they have in Keras.
    "bn_stats": "running",
    "weights": "imagenet",
    "size": 224,
    "freeze": True,
    "hidden": 64,
    "dropout": 0.5,
    "epochs": 35,
    "batch_size": 8,
    "opt": "adam",
    "lr": 1e-3,
    "watch": "test",
    "augment": "rotate=30,shear=0.15,zoom=0.15,crop=0.05,flip=0.5,noise=0.01,keras=1",
    "checkpoint": "last",
}

_VGG16_PORTABLE: dict[str, Any] = {
    # The seed paper of 2020 on whole and segmented radiographs: VGG16 at 224 x 224, Adam at 0.001, batches of 32, 50
    # epochs, dropout. Frozen convolutions, ImageNet weights in the dense layers 4096-4096-K (which are what timm counts
    # as this network's head), the rate of dropout, no augmentation and the last epoch are ours.
    "model": "vgg16.tv_in1k",
    "bn_stats": "running",
    "weights": "imagenet",
    "size": 224,
    "freeze": True,
    "dropout": 0.5,
    "epochs": 50,
    "batch_size": 32,
    "opt": "adam",
    "lr": 1e-3,
    "watch": "test",
    "augment": "none",
    "checkpoint": "last",
}

_THUMBNAIL: dict[str, Any] = {
    # Of no paper: the baseline that a network has to beat. All images at once and no augmentation, as in a
    # regression; weight decay is its penalty.
    "model": "thumbnail",
    "weights": "none",
    "size": 64,
    "epochs": 200,
    "batch_size": 64,
    "opt": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.3,
    "augment": "none",
    "checkpoint": "last",
}

GENERATORS = MappingProxyType({"size": 512, "epochs": 50, "batch_size": 8})
"""Defaults of the class-inherent generators, of gonzalezsieira/UGR-FuCiTNet, train.py."""

SWEEP = (1.0, 0.5, 0.1, 0.075, 0.05, 0.025, 0.01, 0.0075, 0.005, 0.0025, 0.001, 0.00075, 0.0005)
"""The weights of the class term that the implementation of the generators tries."""

PRESETS: MappingProxyType[str, MappingProxyType[str, Any]] = MappingProxyType(
    {
        "covid-caps": MappingProxyType(_COVID_CAPS),
        "covid-sdnet": MappingProxyType(_COVID_SDNET),
        "covid-xnet": MappingProxyType(_COVID_XNET),
        "makris": MappingProxyType(_MAKRIS),
        "pepx": MappingProxyType(_PEPX),
        "portable-densenet161": MappingProxyType(_PORTABLE_DENSENET161),
        "thumbnail": MappingProxyType(_THUMBNAIL),
        "vgg16-portable": MappingProxyType(_VGG16_PORTABLE),
    }
)
"""By system, the options that it sets."""
