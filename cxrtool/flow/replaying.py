"""The steps of a chain as functions of an image: those of `enhance`, the lungs of `segment`, the size of `prepare`.

A step that moves no pixels is a function of the grey values, in `STEPS`. A step that moves pixels, or finds the lungs,
is in `MOVES`: it changes the masks together with the image.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxrtool.errors import ImageError
from cxrtool.flow.folder import AT

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from cxrtool.imaging.histogram import Reference
    from cxrtool.imaging.placing import Move
    from cxrtool.training.lung_finder import LungFinder


PER_FOLD = {"match-histogram": "quantiles", "transform": "part"}
"""The steps that are fitted in each fold, and the value of an entry that then differs; `folds` has it for all folds."""


def replay_match_histogram(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Match the histogram of an image (H, W), uint8 or uint16, to the entry's reference."""
    from cxrtool.imaging.histogram import match

    return match(pixels, _reference(entry["quantiles"]))


def replay_clahe(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Apply CLAHE to an image (H, W), uint8 or uint16."""
    from cxrtool.imaging.clahe import clahe

    return clahe(pixels, entry["clip"], entry["tiles"])


def replay_suppress_ribs(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Suppress the ribs of an image (H, W), uint8 or uint16, by the network of a located entry.

    The change that the network makes at its own size is resampled and added to the image: an image of that size
    becomes the network's output, as in the paper, and an image of another size keeps its resolution. The output is
    not rescaled to the full range, so that images stay comparable.
    """
    import numpy as np

    from cxrtool.flow.on_device import ask
    from cxrtool.imaging.view import lay_back, see
    from cxrtool.models.parts import read_part

    form = read_part(Path(entry[AT]), "ribs").form
    placed = see(pixels, form)
    shown = np.ascontiguousarray(placed.values)
    answer = ask(entry[AT], shown)
    if answer is None:
        answer = _suppress(_network(entry[AT]), shown[None])[0]
    change = placed.values - answer if form.invert else answer - placed.values
    white = np.iinfo(pixels.dtype).max
    result = lay_back(change, placed, form)
    result *= white
    result += pixels
    return np.asarray(np.rint(result, out=result).clip(0, white), pixels.dtype)


@lru_cache(64)
def _reference(quantiles: str) -> Reference:
    from cxrtool.imaging.histogram import Reference, unpack

    return Reference.of(unpack(quantiles))


@cache
def _network(path: str) -> nn.Module:
    import torch

    from cxrtool.models.parts import load_network

    if multiprocessing.parent_process() is not None:
        # In a worker process; parallelism is over images.
        torch.set_num_threads(1)
    return load_network(Path(path), "ribs").to(memory_format=torch.channels_last)


def _suppress(network: nn.Module, inputs: np.ndarray) -> np.ndarray:
    """The output of a rib network for inputs (B, S, S), on the device of its weights."""
    import torch

    from cxrtool.training.device import in_halves

    device = next(network.parameters()).device
    with torch.inference_mode():
        shown = torch.from_numpy(inputs)[:, None].to(device)
        # Channels last takes half the time; the values differ by less than 0.01 of a 16-bit grey level.
        answer = in_halves(network, shown.contiguous(memory_format=torch.channels_last))
    found: np.ndarray = answer[:, 0].cpu().numpy()
    return found


def ribs_on(device: torch.device) -> Callable[[str, np.ndarray], np.ndarray]:
    """A function that runs rib networks on a device, by their folder."""
    from copy import deepcopy

    networks: dict[str, nn.Module] = {}

    def run(folder: str, inputs: np.ndarray) -> np.ndarray:
        if folder not in networks:
            # The network that is kept for the CPU stays there.
            networks[folder] = deepcopy(_network(folder)).to(device)
        return _suppress(networks[folder], inputs)

    return run


def _describe_clahe(entry: Mapping[str, Any]) -> str:
    clip, tiles = entry.get("clip", entry.get("clahe_clip")), entry.get("tiles", entry.get("clahe_tiles"))
    how = f" (clip limit {clip:g}, {tiles} x {tiles} tiles)" if clip is not None and tiles is not None else ""
    return f"Contrast was equalised locally{how} (contrast-limited adaptive histogram equalisation)."


@dataclass(frozen=True)
class Step:
    """A step of `enhance`. It changes grey values and moves no pixels, so masks stay as they are.

    Attributes:
        replay: Applies it to an image (H, W), uint8 or uint16, by an entry of a chain.
        describe: A sentence for the methods section, by an entry of a chain, which may be of an earlier version.
        options: The options of `enhance` that only this step uses, each with its name in the entry, or None where the
            entry has its value in another form.
        part: The kind of fitted network that it uses, which is also the name of the option for its folder.
        version: Raised when the same entry would give other pixels.
    """

    name: str
    replay: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]
    describe: Callable[[Mapping[str, Any]], str]
    options: Mapping[str, str | None] = field(default_factory=dict)
    part: str | None = None
    modules: tuple[str, ...] = ()
    version: int = 1

    @property
    def fitted(self) -> str | None:
        """The value of its entry that is fitted in each fold; None where nothing is fitted."""
        return PER_FOLD.get(self.name)

    def entry(self, **values: Any) -> dict[str, Any]:
        """The entry of a chain: everything that is needed to repeat the step."""
        return {"step": self.name, "version": self.version, **values}


MATCH = Step(
    "match-histogram",
    replay_match_histogram,
    lambda entry: "The histogram of grey values was matched to a reference.",
    options={"reference": None},
    modules=("cxrtool.imaging.histogram",),
)

STEPS = {
    step.name: step
    for step in (
        MATCH,
        Step(
            "suppress-ribs",
            replay_suppress_ribs,
            lambda entry: f"Ribs were suppressed by a network ({entry.get('part', {}).get('network', 'unknown')}).",
            options={"ribs": None},
            part="ribs",
            modules=("cxrtool.imaging.view", "torch"),
        ),
        Step(
            "clahe",
            replay_clahe,
            _describe_clahe,
            options={"clahe_clip": "clip", "clahe_tiles": "tiles"},
            modules=("cxrtool.imaging.clahe",),
        ),
    )
}
"""All steps, in the order of the paper."""


VERSION = 1
"""Of `segment`. Raised when the same options would give other masks or other images."""

CROP, APPLY, ERASE = "crop", "apply", "erase"
"""The uses of a mask; an entry's `use` joins them with a plus."""

LEFT_WHOLE = "the image is unchanged"


@dataclass
class Picture:
    """An image during the replay of a chain.

    Attributes:
        pixels: (H, W), uint8 or uint16.
        mask: (H, W), 0 and 255: an existing mask of the image, which is changed with it; None where it has none.
        references: Masks of other structures by name, which are changed with it, too.
        lungs: (H, W), 0 and 255: the mask that the chain found; None before.
        lung_area: The share of the image that this mask covered when it was found.
        moves: How its pixels were moved, in order, so that this can be undone.
        size: Height and width as a manifest has them: of the file, or of what `segment` left; not of a reduced image.
    """

    pixels: np.ndarray
    mask: np.ndarray | None = None
    lungs: np.ndarray | None = None
    lung_area: float | None = None
    warnings: list[str] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    references: dict[str, np.ndarray] = field(default_factory=dict)
    size: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.pixels.shape[:2]


def use_lungs(picture: Picture, entry: Mapping[str, Any]) -> None:
    """Replay a located entry of `segment` on a picture and its masks, in place: find the lungs, and crop or mask."""
    from cxrtool.imaging import masks

    picture.lungs, remark = find_lungs(picture.pixels, entry)
    picture.lung_area = masks.share(picture.lungs)
    if remark:
        picture.warnings.append(remark)
    change(picture, entry)
    picture.size = picture.pixels.shape[:2]


def find_lungs(pixels: np.ndarray, entry: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """The lung mask of an image (H, W), 0 and 255, and why it is implausible, or an empty text."""
    from cxrtool.imaging import masks, view
    from cxrtool.models.parts import read_part

    folder = Path(entry[AT])
    finder = _finder(folder, entry.get("precision", "fp32"), bool(entry.get("tta")))
    part = read_part(folder, "lungs")
    form = part.form
    placed = view.see(pixels, form)
    answer = finder(placed.values[None])[0]
    threshold = entry["threshold"]
    lungs = masks.clean(view.lay_back(answer, placed, form), threshold)
    usual = part.description.get("usual")
    return lungs, doubt(lungs, masks.sureness(answer, threshold), unlike(placed.values, usual), usual)


def doubt(lungs: np.ndarray, sure: float, odd: str, usual: Mapping[str, Any] | None) -> str:
    """Why a mask of lungs (H, W) is implausible, or an empty text.

    Args:
        lungs: From `masks.clean`.
        sure: From `masks.sureness`.
        odd: From `unlike`.
        usual: Statistics of the images and outlines that the network was fitted on, where they are known.
    """
    from cxrtool.imaging import lung_shapes, masks

    expected = 1.0
    if usual and (shapes := usual.get(lung_shapes.KEY)):
        expected = lung_shapes.expected_dice(sure, lung_shapes.unlike(lungs, shapes))
    return masks.doubt(lungs, sure, odd, expected)


def unlike(values: np.ndarray, usual: Mapping[str, Any] | None) -> str:
    """How a network's input differs from the images that it was fitted on, or an empty text."""
    from cxrtool.imaging import plausibility

    return plausibility.unlike(values, usual, "an image unlike those that the network was fitted on")


@cache
def _finder(folder: Path, precision: str, mirrored: bool) -> LungFinder:
    import torch

    from cxrtool.training.lung_finder import LungFinder

    if multiprocessing.parent_process() is not None:
        # In a worker process; parallelism is over images.
        torch.set_num_threads(1)
    return LungFinder(folder, precision=precision, mirrored=mirrored)


def change(picture: Picture, entry: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Crop to, keep or erase the lungs of a picture whose lungs are known, in place; without lungs nothing changes.

    Returns:
        The remaining part: top, left, height, width, in pixels of the image before.
    """
    from cxrtool.imaging import crop
    from cxrtool.imaging.placing import Move

    height, width = picture.pixels.shape
    box = (0, 0, height, width)
    lungs = picture.lungs
    if lungs is None or not lungs.any():
        return box
    uses = entry["use"].split("+")
    if APPLY in uses:
        picture.pixels = crop.keep_inside(picture.pixels, lungs)
    if ERASE in uses:
        picture.pixels = crop.erase_inside(picture.pixels, lungs)
    if CROP in uses:
        box = crop.lung_box(lungs, entry["margin"], entry["margin_of"])
        picture.pixels, picture.lungs = crop.cut(picture.pixels, box), crop.cut(lungs, box)
        picture.moves.append(Move.cut(box))
        if picture.mask is not None:
            picture.mask = crop.cut(picture.mask, box)
        for name, reference in picture.references.items():
            picture.references[name] = crop.cut(reference, box)
    return box


def read_mask(path: str, shape: tuple[int, ...], max_pixels: int | None) -> np.ndarray:
    """A mask, 0 and 255, at the shape (H, W) of its image; an `ImageError` if unreadable or of other proportions."""
    from cxrtool.data.reading import mask_files
    from cxrtool.data.reading.images import MAX_PIXELS
    from cxrtool.imaging.fits import NATIVE
    from cxrtool.imaging.resize import prepare_mask

    height, width = shape
    mask = mask_files.read_mask([path], max_pixels=max_pixels or MAX_PIXELS)
    # A side may differ by one pixel from rounding; a mask of other proportions belongs to another image.
    if abs(mask.shape[0] * width - mask.shape[1] * height) > 2 * max(height, width, *mask.shape):
        raise ImageError(f"it is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}")
    return prepare_mask(mask, height, width, NATIVE, "squash")


def _move_to_size(picture: Picture, entry: Mapping[str, Any]) -> None:
    from cxrtool.imaging.fits import NATIVE, fit_geometry
    from cxrtool.imaging.placing import Move
    from cxrtool.imaging.resize import prepare_mask, prepare_pixels

    height, width = picture.pixels.shape
    picture.pixels = prepare_pixels(picture.pixels, entry["size"], entry["fit"])
    if entry["size"] != NATIVE:
        picture.moves.append(Move.of(fit_geometry(height, width, entry["size"], entry["fit"])))
    for name in ("mask", "lungs"):
        mask = getattr(picture, name)
        if mask is not None:
            setattr(picture, name, prepare_mask(mask, height, width, entry["size"], entry["fit"]))
    for name, reference in picture.references.items():
        picture.references[name] = prepare_mask(reference, height, width, entry["size"], entry["fit"])


MOVES: dict[str, Callable[[Picture, Mapping[str, Any]], None]] = {"prepare": _move_to_size, "segment": use_lungs}
"""The steps that move pixels or find lungs; they change a picture and its masks in place."""


REPLAY: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {}
"""Further steps as functions of the grey values, which masks cannot follow; none so far."""


def replay(picture: Picture, chain: Sequence[Mapping[str, Any]]) -> Picture:
    """Do the steps of a located chain on a picture, in place, and return it."""
    for entry in chain:
        name = entry["step"]
        if name in MOVES:
            MOVES[name](picture, entry)
        else:
            function = STEPS[name].replay if name in STEPS else REPLAY[name]
            picture.pixels = function(picture.pixels, entry)
    return picture


def modules_of(chain: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The modules that workers need to replay a chain."""
    return (
        "cxrtool.data.reading.images",
        *(("cxrtool.training.lung_finder",) if any("part" in one for one in chain) else ()),
    )


class Seen(NamedTuple):
    """An image as a network sees it.

    Attributes:
        pixels: (size, size), uint8 or uint16, or (size, size, 3).
        sha256: Of the pixels as read.
        warning: As for a manifest's column `warning`.
        height: In pixels, as a manifest has it: of the file, or of what `segment` left of it.
        width: Likewise.
        lung_area: The share of the image that the lungs cover, where the chain finds them.
    """

    pixels: np.ndarray
    sha256: str
    warning: str
    height: int
    width: int
    lung_area: float | None


def decode(
    path: Path,
    *,
    chain: Sequence[Mapping[str, Any]],
    size: int,
    fit: str,
    max_pixels: int | None = None,
    colour: bool = False,
) -> tuple[np.ndarray, str]:
    """Read an image, do the steps in `chain`, and fit it to a network's input; meant for a worker process.

    Returns:
        Grey values (size, size), uint8 or uint16, and the SHA-256 of the pixels as read. With `colour`, an image of
        three channels keeps them: (size, size, 3).

    Raises:
        ImageError: It cannot be read.
    """
    return look(path, chain=chain, size=size, fit=fit, max_pixels=max_pixels, colour=colour)[:2]


def look(
    path: Path,
    *,
    chain: Sequence[Mapping[str, Any]],
    size: int,
    fit: str,
    max_pixels: int | None = None,
    colour: bool = False,
) -> Seen:
    """As `decode`, and what is known of the image besides.

    Warnings come from the reader, and from the chain where the lung mask that it found is implausible.
    """
    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.resize import prepare_pixels

    limit = max_pixels or MAX_PIXELS
    radiograph = read_image(path, max_pixels=limit, capture_decoder_errors=True, colour=colour)
    digest = pixel_sha256(radiograph.pixels)
    picture = replay(Picture(radiograph.pixels, warnings=radiograph.warnings), chain)
    height, width = picture.size
    pixels, warning = prepare_pixels(picture.pixels, size, fit), "; ".join(picture.warnings)
    return Seen(pixels, digest, warning, height, width, picture.lung_area)
