"""The ImageNet weights of timm: their names, and whether they are on this machine.

They are downloaded and loaded by timm (`registry.build` with `imagenet`), so that a training without a network
connection finds them. This module only looks into the same caches, and whether the server answers: the libraries try
for minutes where a firewall answers nothing.
"""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cxrtool.errors import UsageError

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of a network's file on the hub, in the order in which timm tries them."""


@dataclass(frozen=True)
class Published:
    """One network's ImageNet weights.

    Attributes:
        name: The network, as the user named it.
        weights: Name with the tag of their training, such as `resnet50.a1_in1k`.
        licence: As timm states it.
        path: The file on this machine, or None.
        server: Where it is downloaded from.
    """

    name: str
    weights: str
    licence: str
    classes: int
    path: Path | None
    server: str


def published(name: str) -> Published | None:
    """The weights of timm for a network, or None if there are none.

    Raises:
        UsageError: timm has no such network; the message names the nearest.
    """
    import timm

    from cxrtool.models.backbones import exists, nearest

    if not exists(name):
        near = ", ".join(nearest(name)) or "none"
        raise UsageError(
            f"expected a network of timm, found '{name}' (nearest: {near})",
            "list the names of timm with: python -c \"import timm; print(*timm.list_models(), sep='\\n')\"",
        )
    config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if config is None:
        return None
    weights = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    server = hub if config.hf_hub_id else "{0.scheme}://{0.netloc}".format(urlsplit(str(config.url or "")))
    return Published(name, weights, config.license or "", int(config.num_classes), _local_path(config), server)


SECONDS = 5.0
"""How long a server may take to answer."""


def failure(server: str) -> str:
    """Why a server does not answer, also through the proxies of the environment; empty where it does."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        with urllib.request.urlopen(urllib.request.Request(server, method="HEAD"), timeout=SECONDS):
            return ""
    except urllib.error.HTTPError:
        # An answer, whatever it says.
        return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        # Its certificate is checked by the library that downloads, with certificates of its own.
        return "" if isinstance(reason, ssl.SSLError) else str(getattr(reason, "strerror", None) or reason)


def hub_folder() -> Path:
    """The cache of the hub; `HF_HOME` moves it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _local_path(config: Any) -> Path | None:
    """The file that timm would load without a download, or None."""
    import torch
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        for file in (config.hf_hub_filename,) if config.hf_hub_filename else FILES:
            found = try_to_load_from_cache(repository, file, cache_dir=hub_folder(), revision=revision or None)
            # If the cache knows that there is no such file, the result is another object.
            if isinstance(found, str):
                return Path(found)
        return None
    if config.url:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(config.url).path).name
        return file if file.is_file() else None
    return None
