"""List weights, and which of them are on this machine.

First those that come with cxrtool, then ImageNet weights of the networks of Makris et al. 2020.

Example: cxrtool weights list --format csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cxrtool
from cxrtool.data.file_names import PART
from cxrtool.flow.settings import Settings
from cxrtool.options import Options

MAKRIS = (
    "vgg16",
    "vgg19",
    "mobilenetv2_100",
    "inception_v3",
    "legacy_xception",
    "inception_resnet_v2",
    "densenet201",
    "resnetv2_101",
    "nasnetalarge",
)
"""The nine networks of Makris et al. 2020 by timm's names; the paper's ResNet152V2 has no ImageNet weights in timm, so
ResNet101V2 is listed instead."""

SHIPPED = Path(cxrtool.__file__).parent / "weights"
COLUMNS = ("name", "weights", "licence", "on this machine", "where")


@dataclass(frozen=True)
class ListOptions(Options):
    """The options of `weights list`."""

    SHARED: ClassVar[tuple[str, ...]] = ("quiet", "style")


def run(options: ListOptions, settings: Settings) -> None:
    """Print the list."""
    settings.output.table(COLUMNS, list_weights(settings))


def list_weights(settings: Settings) -> list[list[str]]:
    """The rows of the list, as `COLUMNS`."""
    from cxrtool.models.pretrained import hub_folder, published

    rows = [_shipped(path) for path in sorted(SHIPPED.glob(f"*/{PART}"))]
    if not rows:
        settings.report.say("this installation of cxrtool comes without weights")
    settings.report.say(f"ImageNet weights of the networks of Makris et al. 2020; the cache is {hub_folder()}")
    for name in MAKRIS:
        entry = published(name)
        if entry is None:
            rows.append([name, "none in timm", "", "", ""])
        else:
            there = ["yes", str(entry.path)] if entry.path else ["no", f"cxrtool weights fetch {name}"]
            rows.append([name, entry.weights, entry.licence, *there])
    return rows


def _shipped(path: Path) -> list[str]:
    """The row of a part that comes with cxrtool, with the results in its `part.json`."""
    from cxrtool.models.parts import read_part

    folder = path.parent
    part = read_part(folder, folder.name.partition("-")[0])
    figures = part.description.get("figures") or {}
    text = ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in figures.items())
    what = f"{part.kind}: {part.network}" + (f" ({text})" if text else "")
    return [folder.name, what, str(part.description.get("licence", "")), "yes", str(folder)]


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return str(value["value"]) if "value" in value else ", ".join(f"{k} {_figure(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
