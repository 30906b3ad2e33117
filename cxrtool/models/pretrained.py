"""The ImageNet weights that timm has: what they are called, and whether they lie on this machine.

Fetching and loading are timm's own (`registry.build` with `imagenet`), so that what was fetched once is what a training
without a network finds. Here the same places are only looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cxrtool.errors import UsageError

FILES = ("model.safetensors", "pytorch_model.bin")
"""What a network's file is called on the hub, in the order in which timm asks for it."""


@dataclass(frozen=True)
class Published:
    """One network's ImageNet weights.

    Attributes:
        name: The network, as asked for.
        weights: Name with the tag of the training they came from, such as `resnet50.a1_in1k`.
        licence: As timm states it.
        classes: Number of outputs.
        place: The file on this machine, or None.
    """

    name: str
    weights: str
    licence: str
    classes: int
    path: Path | None


def published(name: str) -> Published | None:
    """What timm has for a network, or None where it has no weights for it.

    Raises:
        UsageError: timm knows no such network; the message names the nearest.
    """
    import timm

    from cxrtool.models.backbones import exists, nearest

    if not exists(name):
        near = ", ".join(nearest(name)) or "nothing like it"
        raise UsageError(
            f"expected a network of timm, found '{name}' (nearest: {near})",
            "timm's names are listed by: python -c \"import timm; print(*timm.list_models(), sep='\\n')\"",
        )
    config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if config is None:
        return None
    weights = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    return Published(name, weights, config.license or "", int(config.num_classes), _local_path(config))


def hub_folder() -> Path:
    """Where the hub keeps what it fetched; `HF_HOME` moves it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _local_path(config: Any) -> Path | None:
    """The file that timm would load without asking anybody, or None."""
    import torch
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        for file in (config.hf_hub_filename,) if config.hf_hub_filename else FILES:
            found = try_to_load_from_cache(repository, file, cache_dir=hub_folder(), revision=revision or None)
            # The hub also remembers, with another object, that there is no such file.
            if isinstance(found, str):
                return Path(found)
        return None
    if config.url:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(config.url).path).name
        return file if file.is_file() else None
    return None
