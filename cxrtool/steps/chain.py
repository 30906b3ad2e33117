"""The image processing that a picture has been through, and its replay on one that has not.

A step folder's `run.json` tells its chain; the chain of an image is that of the step folder it lies in. `predict`
compares the chain of what it is given with that of the model and does what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import InputError
from cxrtool.steps.folder import read_run_file

if TYPE_CHECKING:
    import numpy as np

Chain = list[dict[str, Any]]


def _prepare(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    from cxrtool.imaging.resize import prepare_pixels

    return prepare_pixels(pixels, entry["size"], entry["fit"])


REPLAY: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {"prepare": _prepare}
"""What each step of a chain does to the grey values of one picture."""


def canonical(chain: Iterable[Mapping[str, Any]]) -> Chain:
    """A chain without the entries that change no pixel, so that equal processing compares equal."""
    return [dict(entry) for entry in chain if not (entry["step"] == "prepare" and entry.get("size") == "native")]


def describe(chain: Sequence[Mapping[str, Any]]) -> str:
    """A chain in words: `prepare --size 512 --fit squash`."""
    words = []
    for entry in chain:
        options = [f"--{name} {value}" for name, value in entry.items() if name not in ("step", "version")]
        words.append(" ".join([str(entry["step"]), *options]))
    return ", then ".join(words) if words else "images as they are"


def _apart(first: Chain, second: Chain) -> tuple[str, str]:
    """Two chains in words; with the versions of their steps where these are all that differs."""
    told = describe(first), describe(second)
    if told[0] != told[1]:
        return told

    def versions(chain: Chain) -> str:
        return ", ".join(f"{entry['step']} version {entry.get('version')}" for entry in chain)

    return f"{told[0]} ({versions(first)})", f"{told[1]} ({versions(second)})"


def chain_of(paths: Iterable[Path]) -> Chain:
    """The chain that all of these images have been through; empty for raw images.

    Raises:
        InputError: They have been through different ones.
    """
    known: dict[Path, Chain] = {}
    found: dict[str, tuple[Chain, Path]] = {}
    for path in paths:
        folder = path.parent
        if folder not in known:
            known[folder] = _chain_of_folder(folder)
        found.setdefault(json.dumps(known[folder], sort_keys=True), (known[folder], path))
    if len(found) > 1:
        (first, one), (second, other) = list(found.values())[:2]
        told = _apart(first, second)
        raise InputError(
            f"expected images of one preprocessing, found {one} ({told[0]}) beside {other} ({told[1]})",
            "prepare all of them with the same options, in one `cxrtool prepare`",
        )
    return next(iter(found.values()))[0] if found else []


def _chain_of_folder(folder: Path) -> Chain:
    for ancestor in (folder, *list(folder.parents)[:2]):
        made = read_run_file(ancestor)
        if made is not None and made.get("chain"):
            return canonical(made["chain"])
    return []


def missing_steps(model: Chain, data: Chain, model_name: str, data_name: str) -> Chain:
    """The steps of the model's chain that the data have not been through yet.

    Raises:
        InputError: The data have been through something else; the message names both and what would be right. Or this
            version cannot repeat a step.
    """
    model, data = canonical(model), canonical(data)
    if model[: len(data)] != data:
        told = _apart(data, model)
        raise InputError(
            f"{data_name} has been through: {told[0]}; {model_name} was trained on: {told[1]}",
            f"give the raw images, which are processed as the model needs, or `cxrtool prepare … --like {model_name}`",
        )
    missing = model[len(data) :]
    unknown = [entry["step"] for entry in missing if entry["step"] not in REPLAY]
    if unknown:
        raise InputError(
            f"{model_name} was trained on: {describe(model)}; this cxrtool cannot repeat '{unknown[0]}' on {data_name}",
            f"do it first: `cxrtool {unknown[0]}`, then give its folder",
        )
    return missing


def decode(path: Path, *, chain: Chain, size: int, fit: str, max_pixels: int | None = None) -> tuple[np.ndarray, str]:
    """Read an image, do the steps in `chain`, and fit it to a network's input; meant for a worker process.

    Returns:
        Grey values (size, size), uint8 or uint16, and the SHA-256 of the pixels as they were read.

    Raises:
        ImageError: It cannot be read.
    """
    pixels, digest, _ = look(path, chain=chain, size=size, fit=fit, max_pixels=max_pixels)
    return pixels, digest


def look(
    path: Path, *, chain: Chain, size: int, fit: str, max_pixels: int | None = None
) -> tuple[np.ndarray, str, str]:
    """As `decode`, and what the reader found odd about the picture, as for a manifest's column `warning`."""
    from cxrtool.data.images import MAX_PIXELS, read_image
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.resize import prepare_pixels

    radiograph = read_image(path, max_pixels=max_pixels or MAX_PIXELS, overhear=True)
    pixels = radiograph.pixels
    digest = pixel_sha256(pixels)
    for entry in chain:
        pixels = REPLAY[entry["step"]](pixels, entry)
    return prepare_pixels(pixels, size, fit), digest, "; ".join(radiograph.warnings)
