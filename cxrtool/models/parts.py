"""Fitted parts of the preprocessing: networks that return an image, each in a folder of its own.

The folder of a part holds `part.json` and `part.safetensors`, which may be in 16 or 8 bits. Parts that come with
cxrtool are in `cxrtool/weights/`, each with a card; `cxrtool fit` writes others. A part is identified by the digest of
its weights and of their description, never by its path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.data.digests import check
from cxrtool.data.file_names import PART, PART_WEIGHTS
from cxrtool.data.structured import load_json
from cxrtool.errors import InputError
from cxrtool.imaging.fits import Form
from cxrtool.models.part_network import PartNetwork
from cxrtool.options import one_of

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEMA = 1
MASKS = ("lungs", "opacities")
"""The kinds whose networks return the logits of a mask; those of the others return an image."""

BUILT_WITH = "built_with"
SHIPPED = Path(cxrtool.__file__).parent / "weights"
"""The parts that come with cxrtool: a folder `KIND-NAME` each."""


@dataclass(frozen=True)
class Part:
    """A fitted part.

    Attributes:
        kind: `lungs`, `opacities`, `ribs` or `generators`.
        network: A key of that kind's networks.
        form: Of its input.
        sha256: Its identity.
        description: The whole `part.json`.
    """

    kind: str
    network: str
    form: Form
    sha256: str
    folder: Path
    description: Mapping[str, Any]

    @property
    def shipped(self) -> bool:
        """Whether it comes with cxrtool, so that no copy is needed."""
        return self.folder.parent == SHIPPED

    @property
    def name(self) -> str:
        """The beginning of its digest: enough to tell parts apart in a table."""
        return self.sha256[:16]

    def identity(self) -> dict[str, str]:
        """Its entry in a chain."""
        return {"kind": self.kind, "network": self.network, "sha256": self.sha256}


def networks(kind: str) -> Mapping[str, PartNetwork]:
    """The networks of a kind, the default first.

    Raises:
        UsageError: No such kind.
    """
    from cxrtool.models import class_inherent, lungs, opacities, ribs

    kinds = {
        "lungs": lungs.NETWORKS,
        "opacities": opacities.NETWORKS,
        "ribs": ribs.NETWORKS,
        "generators": class_inherent.NETWORKS,
    }
    one_of("kind", kind, kinds)
    return kinds[kind]


def save_part(
    folder: Path,
    kind: str,
    network: str,
    module: nn.Module,
    form: Form,
    description: Mapping[str, Any],
    *,
    bits: int = 32,
    built_with: Mapping[str, Any] | None = None,
) -> None:
    """Write a part into a folder.

    Args:
        folder: Is created if it does not exist.
        kind: `lungs`, `ribs` or `generators`.
        network: A key of that kind's networks.
        module: The network.
        form: Of its input.
        description: Further entries of `part.json`: training data, results, limits.
        bits: 32, 16, or 8, for which each channel has a scale; the weights are loaded in fp32.
        built_with: Arguments of the network's `build`, as plain values: the classes of a set of generators.
    """
    from safetensors.torch import save

    from cxrtool.data.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    if bits == 8:
        state = _packed(state)
    elif bits == 16:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    atomic_write(folder / PART_WEIGHTS, save(state))
    content = {"schema": SCHEMA, "kind": kind, "network": network, "form": form.to_json()}
    if built_with:
        content[BUILT_WITH] = dict(built_with)
    content["sha256"] = _digest(content, (folder / PART_WEIGHTS).read_bytes())
    atomic_write(folder / PART, json.dumps({**content, **description}, indent=1) + "\n")


SCALE = ".scale"
"""Appended to the name of a tensor of 8 bits: the value of one step in each channel."""


def _packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of two and more dimensions in 8 bits, with a scale for each output channel; others in half precision."""
    import torch

    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point() or value.ndim < 2:
            found[name] = value.half() if value.is_floating_point() else value
            continue
        channels = value.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
        scale = channels.view(-1, *[1] * (value.ndim - 1))
        found[name] = (value / scale).round().clamp(-127, 127).to(torch.int8)
        found[name + SCALE] = channels
    return found


def _unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file in fp32."""
    found = {}
    for name, value in state.items():
        if name + SCALE in state:
            found[name] = value.float() * state[name + SCALE].view(-1, *[1] * (value.ndim - 1))
        elif not name.endswith(SCALE):
            found[name] = value.float() if value.is_floating_point() else value
    return found


def _digest(content: Mapping[str, Any], weights: bytes) -> str:
    described = {name: content[name] for name in ("schema", "kind", "network", "form", BUILT_WITH) if name in content}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode() + weights).hexdigest()


def read_part(folder: Path, kind: str | None = None) -> Part:
    """Read the description of a part, of a kind or of any, without its network; torch is not needed.

    Raises:
        InputError: There is none, it is of another kind or schema, or it is damaged.
    """
    path = folder / PART
    check(path)
    try:
        content = load_json(path)
        weights = (folder / PART_WEIGHTS).read_bytes()
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder with {PART} and {PART_WEIGHTS}, as `cxrtool fit {kind or 'lungs'}` writes, "
            "found none"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not readable JSON: {error}") from error
    found = content.get("kind") if isinstance(content, dict) else None
    if found != (kind or found) or not found or content.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: expected a part for {kind or 'masks or images'} of schema {SCHEMA}, found one for '{found}'"
        )
    try:
        digest = _digest(content, weights)
        part = Part(found, content["network"], Form(**content["form"]), content["sha256"], folder.resolve(), content)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a description of a part: {error!r}") from error
    if digest != part.sha256:
        raise InputError(f"{folder}: damaged: the weights do not match {PART}", "fit it again")
    return part


@cache
def load_network(folder: Path, kind: str) -> nn.Module:
    """The network of a part in evaluation mode, on the CPU, in fp32; cached, so that a worker loads it once.

    Raises:
        InputError: It cannot be read, or does not fit its description.
    """
    from safetensors.torch import load_file

    from cxrtool.models.foreign_files import why_not_loaded
    from cxrtool.models.network import is_finite

    part = read_part(folder, kind)
    known = networks(kind)
    if part.network not in known:
        raise InputError(f"{folder / PART}: expected one of {', '.join(known)}, found '{part.network}'")
    module = known[part.network].build(**part.description.get(BUILT_WITH, {}))
    try:
        state = load_file(folder / PART_WEIGHTS)
        module.load_state_dict(_unpacked(state))
    except Exception as error:
        raise InputError(why_not_loaded(folder / PART_WEIGHTS, PART, error), "fit it again") from error
    if not is_finite(module):
        raise InputError(f"{folder / PART_WEIGHTS}: some of the weights are not finite numbers", "fit it again")
    return module.eval()


def answer_of(outputs: Tensor, kind: str) -> Tensor:
    """What the outputs (B, C, S, S) of a network say, in fp32: a probability, or an image in [0, 1].

    Returns:
        (B, S, S); with the second channel of `cxrtool.models.part_network`, as it is, (B, 2, S, S).
    """
    import torch

    outputs = outputs.float()
    first, more = outputs[:, :1], outputs[:, 1:]
    first = first.sigmoid() if kind in MASKS else first.clamp(0.0, 1.0)
    return torch.cat((first, more), 1) if more.shape[1] else first[:, 0]


def default_part(kind: str) -> Part:
    """The part that comes with cxrtool, which is the default.

    Raises:
        InputError: It is not in this installation.
    """
    return read_part(SHIPPED / f"{kind}-default", kind)
