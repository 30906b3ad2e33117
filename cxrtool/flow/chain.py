"""The image processing that a picture has been through, and its replay on one that has not.

A step folder's `run.json` tells its chain; the chain of an image is that of the step folder it lies in. `predict`
compares the chain of what it is given with that of the model and does what is missing. An entry with `folds` holds for
each fold something else: images in `images/rRfF/` have been through what is told of that fold.

A step that keeps every pixel in its place is a function of the grey values, in `REPLAY` or, of those of `enhance`, in
`STEADY`. One that moves pixels, or looks for the lungs, is in `MOVES` too: it takes along whatever masks go with the
picture.
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
"""What a `segment` entry says under `use`, as it is typed."""

TRANSFORM = "transform"
"""The step that makes several pictures of one, whose networks a worker does not hold: it is replayed where all meet."""

_SHOWN_DIGITS = 8


def _prepare(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    from cxrtool.imaging.resize import prepare_pixels

    return prepare_pixels(pixels, entry["size"], entry["fit"])


def _segment(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    picture = Picture(pixels)
    _move_by_lungs(picture, entry)
    return picture.pixels


REPLAY: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {"prepare": _prepare, "segment": _segment}
"""What each step of a chain, but for those of `enhance`, does to the grey values of one picture."""


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
"""The steps that move pixels or find lungs; they change a picture in place, with all that goes with it."""


STEADY = STEPS
"""The steps of `enhance`, which keep every pixel in its place, so that a mask follows by staying as it is."""


def replay(picture: Picture, chain: Sequence[Mapping[str, Any]]) -> Picture:
    """Do the steps of a located chain on a picture, in place, and give it back."""
    for entry in chain:
        name = entry["step"]
        if name in MOVES:
            MOVES[name](picture, entry)
        else:
            work = STEADY[name].replay if name in STEADY else REPLAY[name]
            picture.pixels = work(picture.pixels, entry)
    return picture


def canonical(chain: Iterable[Mapping[str, Any]]) -> Chain:
    """A chain without the entries that change no pixel, so that equal processing compares equal."""
    return [dict(entry) for entry in chain if not (entry["step"] == "prepare" and entry.get("size") == "native")]


def describe(chain: Sequence[Mapping[str, Any]]) -> str:
    """A chain in words: `prepare --size 512 --fit squash`."""
    words = []
    for entry in without_paths(chain):
        step = entry["step"]
        options = [_told(step, name, value) for name, value in entry.items() if name not in ("step", "version")]
        words.append(" ".join([str(step), *options]))
    return ", then ".join(words) if words else "images as they are"


def _told(step: str, name: str, value: Any) -> str:
    """An option of an entry as it is typed; what was fitted shortly, by the first digits of its digest."""
    if name == "part":
        return f"({value['kind']}: {value['network']} {value['sha256'][:_SHOWN_DIGITS]})"
    if name == "use":
        return " ".join(FLAGS.get(word, word) for word in value.split("+"))
    if isinstance(value, list | dict) or name == PER_FOLD.get(step):
        return f"({name}: {hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_SHOWN_DIGITS]})"
    return f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")


def _apart(first: Chain, second: Chain) -> tuple[str, str]:
    """Two chains in words; with the versions of their steps where these are all that differs."""
    told = describe(first), describe(second)
    if told[0] != told[1]:
        return told

    def versions(chain: Chain) -> str:
        return ", ".join(f"{entry['step']} version {entry.get('version')}" for entry in chain)

    return f"{told[0]} ({versions(first)})", f"{told[1]} ({versions(second)})"


def chain_of(paths: Iterable[Path]) -> Chain:
    """The chain that all of these images have been through, its parts located; empty for raw images.

    Raises:
        InputError: They have been through different ones; or a fitted part of it is gone.
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
            return locate(canonical(of_fold(made["chain"], folder)), ancestor)
    return []


def of_fold(chain: Iterable[Mapping[str, Any]], folder: Path) -> Chain:
    """A chain with what it tells of each fold narrowed down to the fold after which a folder is named."""
    narrowed = []
    for entry in chain:
        if "folds" not in entry:
            narrowed.append(dict(entry))
        elif folder.name in entry["folds"]:
            kept = {name: value for name, value in entry.items() if name != "folds"}
            narrowed.append({**kept, PER_FOLD[entry["step"]]: entry["folds"][folder.name]})
        else:
            raise InputError(
                f"{folder}: its images went through `{entry['step']}` fold by fold, expected a folder named after one "
                f"of {', '.join(sorted(entry['folds']))}"
            )
    return narrowed


def missing_steps(model: Chain, data: Chain, model_name: str, data_name: str) -> Chain:
    """The steps of the model's chain that the data have not been through yet; parts stay located where they were.

    Whoever asks must be able to do a `transform` at the end, which `before_twins` parts from the rest.

    Raises:
        InputError: The data have been through something else; the message names both and what would be right. Or this
            version cannot repeat a step.
    """
    model, data = canonical(model), canonical(data)
    if without_paths(model[: len(data)]) != without_paths(data):
        told = _apart(data, model)
        raise InputError(
            f"{data_name} has been through: {told[0]}; {model_name} was trained on: {told[1]}",
            f"give the raw images, which are processed as the model needs, or `cxrtool prepare … --like {model_name}`",
        )
    missing = model[len(data) :]
    unknown = [entry["step"] for entry in before_twins(missing)[0] if entry["step"] not in {*REPLAY, *STEADY}]
    if unknown:
        raise InputError(
            f"{model_name} was trained on: {describe(model)}; this cxrtool cannot repeat '{unknown[0]}' on {data_name}",
            f"do it first: `cxrtool {unknown[0]}`, then give its folder",
        )
    return missing


def before_twins(chain: Chain) -> tuple[Chain, dict[str, Any] | None]:
    """What workers do of a chain to a picture, and the entry of the generators behind it, or None."""
    return (chain[:-1], chain[-1]) if chain and chain[-1]["step"] == TRANSFORM else (chain, None)


def modules_of(chain: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What a worker imports to replay a chain, and may share with the others from the start."""
    return (
        "cxrtool.data.reading.images",
        *(("cxrtool.training.lung_finder",) if any("part" in one for one in chain) else ()),
    )


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
    """As `decode`, and what is odd about the picture, as for a manifest's column `warning`.

    Odd is what the reader found so, and a mask of lungs that the chain found and that cannot be one.
    """
    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.resize import prepare_pixels

    radiograph = read_image(path, max_pixels=max_pixels or MAX_PIXELS, capture_decoder_errors=True)
    digest = pixel_sha256(radiograph.pixels)
    picture = replay(Picture(radiograph.pixels, warnings=radiograph.warnings), chain)
    return prepare_pixels(picture.pixels, size, fit), digest, "; ".join(picture.warnings)
