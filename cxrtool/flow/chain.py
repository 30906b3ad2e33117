"""The chain: the preprocessing of an image, and its replay on another image.

A step folder's `run.json` has its chain; the chain of an image is that of the step folder it is in. `predict` compares
the chain of its input with that of the model and does the missing steps. An entry with `folds` differs between folds:
images in `images/rRfF/` have the values of that fold.

A step that moves no pixels is a function of the grey values, in `REPLAY` or, for the steps of `enhance`, in `STEADY`.
A step that moves pixels, or finds the lungs, is also in `MOVES`: it changes the masks together with the image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import InputError
from cxrtool.flow.enhance_replay import STEPS
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.lungs import Picture, use_lungs
from cxrtool.flow.parts import PER_FOLD, locate, without_paths

if TYPE_CHECKING:
    import numpy as np


Chain = list[dict[str, Any]]

FLAGS = {"crop": "--crop", "apply": "--apply-mask", "erase": "--erase-lungs"}
"""The values of `use` in a `segment` entry, and their flags."""

TRANSFORM = "transform"
"""The step that makes several images of one; its networks run in the main process, not in workers."""

_SHOWN_DIGITS = 8


def _prepare(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    from cxrtool.imaging.resize import prepare_pixels

    return prepare_pixels(pixels, entry["size"], entry["fit"])


def _segment(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    picture = Picture(pixels)
    _move_by_lungs(picture, entry)
    return picture.pixels


REPLAY: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {"prepare": _prepare, "segment": _segment}
"""Each step of a chain, except those of `enhance`, as a function of the grey values of an image."""


def _move_to_size(picture: Picture, entry: Mapping[str, Any]) -> None:
    from cxrtool.imaging.fits import NATIVE, fit_geometry
    from cxrtool.imaging.placing import Move
    from cxrtool.imaging.resize import prepare_mask

    height, width = picture.pixels.shape
    picture.pixels = _prepare(picture.pixels, entry)
    if entry["size"] != NATIVE:
        picture.moves.append(Move.of(fit_geometry(height, width, entry["size"], entry["fit"])))
    for name in ("mask", "lungs"):
        mask = getattr(picture, name)
        if mask is not None:
            setattr(picture, name, prepare_mask(mask, height, width, entry["size"], entry["fit"]))


def _move_by_lungs(picture: Picture, entry: Mapping[str, Any]) -> None:
    use_lungs(picture, entry)


MOVES: dict[str, Callable[[Picture, Mapping[str, Any]], None]] = {"prepare": _move_to_size, "segment": _move_by_lungs}
"""The steps that move pixels or find lungs; they change a picture and its masks in place."""


STEADY = STEPS
"""The steps of `enhance`, which move no pixels, so that masks stay as they are."""


def replay(picture: Picture, chain: Sequence[Mapping[str, Any]]) -> Picture:
    """Do the steps of a located chain on a picture, in place, and return it."""
    for entry in chain:
        name = entry["step"]
        if name in MOVES:
            MOVES[name](picture, entry)
        else:
            function = STEADY[name].replay if name in STEADY else REPLAY[name]
            picture.pixels = function(picture.pixels, entry)
    return picture


def canonical(chain: Iterable[Mapping[str, Any]]) -> Chain:
    """A chain without the entries that change no pixel, so that equal processing compares equal."""
    return [dict(entry) for entry in chain if not (entry["step"] == "prepare" and entry.get("size") == "native")]


def describe(chain: Sequence[Mapping[str, Any]]) -> str:
    """A chain in words: `prepare --size 512 --fit squash`."""
    words = []
    for entry in without_paths(chain):
        step = entry["step"]
        options = [_option(step, name, value) for name, value in entry.items() if name not in ("step", "version")]
        words.append(" ".join([str(step), *options]))
    return ", then ".join(words) if words else "unprocessed images"


def _option(step: str, name: str, value: Any) -> str:
    """An option of an entry as it is typed; fitted values by the first digits of their digest."""
    if name == "part":
        return f"({value['kind']}: {value['network']} {value['sha256'][:_SHOWN_DIGITS]})"
    if name == "use":
        return " ".join(FLAGS.get(word, word) for word in value.split("+"))
    if isinstance(value, list | dict) or name == PER_FOLD.get(step):
        return f"({name}: {hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_SHOWN_DIGITS]})"
    return f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")


def _describe_both(first: Chain, second: Chain) -> tuple[str, str]:
    """Two chains in words; with the versions of their steps where only these differ."""
    texts = describe(first), describe(second)
    if texts[0] != texts[1]:
        return texts

    def versions(chain: Chain) -> str:
        return ", ".join(f"{entry['step']} version {entry.get('version')}" for entry in chain)

    return f"{texts[0]} ({versions(first)})", f"{texts[1]} ({versions(second)})"


def chain_of(paths: Iterable[Path]) -> Chain:
    """The chain that all of these images have, with located parts; empty for raw images.

    Raises:
        InputError: Their chains differ; or a fitted part is missing.
    """
    known: dict[Path, Chain] = {}
    found: dict[str, tuple[Chain, Path]] = {}
    for path in paths:
        folder = path.parent
        if folder not in known:
            known[folder] = _chain_of_folder(folder)
        found.setdefault(json.dumps(without_paths(known[folder]), sort_keys=True), (known[folder], path))
    if len(found) > 1:
        (first, one), (second, other) = list(found.values())[:2]
        of_one, of_other = _describe_both(first, second)
        raise InputError(
            f"expected images of one preprocessing, found {one} ({of_one}) and {other} ({of_other})",
            "prepare all of them with the same options, in one `cxrtool prepare`",
        )
    return next(iter(found.values()))[0] if found else []


def _chain_of_folder(folder: Path) -> Chain:
    for ancestor in (folder, *list(folder.parents)[:2]):
        made = read_run_file(ancestor)
        if made is not None and made.get("chain"):
            return locate(canonical(of_fold(made["chain"], folder)), ancestor)
    return []


def of_fold(chain: Iterable[Mapping[str, Any]], folder: Path) -> Chain:
    """A chain with only the values of the fold that a folder is named after."""
    narrowed = []
    for entry in chain:
        if "folds" not in entry:
            narrowed.append(dict(entry))
        elif folder.name in entry["folds"]:
            kept = {name: value for name, value in entry.items() if name != "folds"}
            narrowed.append({**kept, PER_FOLD[entry["step"]]: entry["folds"][folder.name]})
        else:
            raise InputError(
                f"{folder}: its images were made by `{entry['step']}` fold by fold, expected a folder named after "
                f"one of {', '.join(sorted(entry['folds']))}"
            )
    return narrowed


def missing_steps(model: Chain, data: Chain, model_name: str, data_name: str) -> Chain:
    """The steps of the model's chain that the data still lack; parts stay located.

    The caller must be able to do a `transform` at the end, which `before_twins` separates from the rest.

    Raises:
        InputError: The data had other steps; the message shows both chains. Or this version cannot repeat a step.
    """
    model, data = canonical(model), canonical(data)
    if without_paths(model[: len(data)]) != without_paths(data):
        of_data, of_model = _describe_both(data, model)
        raise InputError(
            f"{data_name} has been through: {of_data}; {model_name} was trained on: {of_model}",
            f"use the raw images, which are processed as the model needs, or `cxrtool prepare … --like {model_name}`",
        )
    missing = model[len(data) :]
    unknown = [entry["step"] for entry in before_twins(missing)[0] if entry["step"] not in {*REPLAY, *STEADY}]
    if unknown:
        raise InputError(
            f"{model_name} was trained on: {describe(model)}; this cxrtool cannot repeat '{unknown[0]}' on {data_name}",
            f"run `cxrtool {unknown[0]}` first and use its folder",
        )
    return missing


def before_twins(chain: Chain) -> tuple[Chain, dict[str, Any] | None]:
    """The part of a chain that workers do, and the entry of the generators at its end, or None."""
    return (chain[:-1], chain[-1]) if chain and chain[-1]["step"] == TRANSFORM else (chain, None)


def modules_of(chain: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The modules that workers need to replay a chain."""
    return (
        "cxrtool.data.reading.images",
        *(("cxrtool.training.lung_finder",) if any("part" in one for one in chain) else ()),
    )


def decode(path: Path, *, chain: Chain, size: int, fit: str, max_pixels: int | None = None) -> tuple[np.ndarray, str]:
    """Read an image, do the steps in `chain`, and fit it to a network's input; meant for a worker process.

    Returns:
        Grey values (size, size), uint8 or uint16, and the SHA-256 of the pixels as read.

    Raises:
        ImageError: It cannot be read.
    """
    pixels, digest, _ = look(path, chain=chain, size=size, fit=fit, max_pixels=max_pixels)
    return pixels, digest


def look(
    path: Path, *, chain: Chain, size: int, fit: str, max_pixels: int | None = None
) -> tuple[np.ndarray, str, str]:
    """As `decode`, and the warnings about the image, as for a manifest's column `warning`.

    Warnings come from the reader, and from the chain where the lung mask that it found is implausible.
    """
    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.resize import prepare_pixels

    radiograph = read_image(path, max_pixels=max_pixels or MAX_PIXELS, capture_decoder_errors=True)
    digest = pixel_sha256(radiograph.pixels)
    picture = replay(Picture(radiograph.pixels, warnings=radiograph.warnings), chain)
    return prepare_pixels(picture.pixels, size, fit), digest, "; ".join(picture.warnings)
