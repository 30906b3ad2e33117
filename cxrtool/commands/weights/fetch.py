"""Download ImageNet weights, for later use without a network connection.

They are saved in the cache of timm, where `train --weights imagenet` finds them, or with -o in a file.

Example: cxrtool weights fetch vgg16 densenet201
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cxrtool.errors import InputError, UsageError
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument


@dataclass(frozen=True)
class FetchOptions(Options):
    """The options of `weights fetch`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "force", "dry_run", "quiet")
    WRITES_FILE: ClassVar[bool] = True

    names: tuple[str, ...] = argument("Networks of timm.", metavar="NAME...")


def run(options: FetchOptions, settings: Settings) -> None:
    """Fetch the weights."""
    fetch(options, settings)


def fetch(options: FetchOptions, settings: Settings) -> None:
    """Fetch the ImageNet weights of timm networks into the cache, or of one network into `settings.out`.

    Raises:
        InputError: They could not be downloaded.
        UsageError: timm has no such network, or no weights for it.
    """
    from cxrtool.models.architecture import Architecture
    from cxrtool.models.pretrained import Published, hub_folder, published
    from cxrtool.models.registry import build

    names, out, say = options.names, settings.out, settings.report.say
    if out is not None and (len(names) != 1 or out.suffix != ".safetensors"):
        raise UsageError(
            f"-o {out}: expected one network and a file that ends in .safetensors, found {len(names)} "
            f"and '{out.suffix or out.name}'",
            "without -o they are saved in the cache, where `train --weights imagenet` finds them",
        )
    wanted: list[Published] = []
    for name in names:
        entry = published(name)
        if entry is None:
            raise UsageError(
                f"there are no ImageNet weights for {name} in timm",
                "`cxrtool weights list` shows some networks with weights",
            )
        wanted.append(entry)
    for entry in wanted:
        if entry.path and out is None and not settings.force:
            say(f"{entry.name}: already on this machine, {_megabytes(entry.path)} at {entry.path}")
            continue
        if settings.dry_run:
            say(f"would fetch {entry.weights} to {out or hub_folder()}")
            continue
        try:
            # As `train` does it, including loading: a damaged file is detected here, not in the queue.
            network, _ = build(Architecture(entry.name, entry.classes), weights="imagenet")
        except InputError as error:
            raise InputError(
                error.message.removeprefix("--weights imagenet: "),
                "run this where there is a network, such as on a login node (HTTPS_PROXY sets a proxy); with "
                f"-o {entry.name}.safetensors it writes a file to copy, for `train --weights {entry.name}.safetensors`",
            ) from error
        if out is None:
            _report_cache(published(entry.name), settings)
        else:
            _write(network.state_dict(), out, settings)
            say(f"{out}: {entry.weights}, {_megabytes(out)}; next: train --model {entry.name} --weights {out}")


def _report_cache(entry: Any, settings: Settings) -> None:
    size = f"{_megabytes(entry.path)} at {entry.path}" if entry.path else "in timm's cache"
    settings.report.say(f"{entry.name}: {entry.weights}, {size}; `train --weights imagenet` finds it without a network")


def _write(state: dict[str, Any], out: Path, settings: Settings) -> None:
    from safetensors import safe_open
    from safetensors.torch import save

    from cxrtool.data.files import atomic_write
    from cxrtool.flow.replacing import check_file

    # With timm's own names, so that timm can load it too.
    tensors = {name.removeprefix("timm."): value.contiguous() for name, value in state.items()}

    def is_this_network(path: Path) -> bool:
        try:
            with safe_open(path, "pt") as file:
                return set(file.keys()) == tensors.keys()
        except Exception:
            # It has its own errors for what is no file of weights.
            return False

    check_file(out, is_this_network, [], settings)
    atomic_write(out, save(tensors))


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
