"""The steps of `enhance`: each is one object that does it, and that knows its options and its words.

A chain replays them on a raw picture.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.flow.parts import AT, PER_FOLD

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from cxrtool.imaging.fits import Form
    from cxrtool.imaging.histogram import Reference


def replay_match_histogram(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Give a picture (H, W), uint8 or uint16, the histogram of the entry's reference."""
    from cxrtool.imaging.histogram import match

    return match(pixels, _reference(entry["quantiles"]))


def replay_clahe(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Equalise a picture (H, W), uint8 or uint16, tile by tile."""
    from cxrtool.imaging.clahe import clahe

    return clahe(pixels, entry["clip"], entry["tiles"])


def replay_suppress_ribs(pixels: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Take the ribs off a picture (H, W), uint8 or uint16, by the network of a located entry.

    What the network changed at its own size is laid on the picture, and nothing else: a picture of that size becomes
    the network's answer, as in the paper, and of any other size what resampling would lose is kept besides. The answer
    counts as it is, without stretching it to the full range, so that pictures stay comparable.
    """
    import numpy as np
    import torch

    from cxrtool.imaging.view import lay_back, see

    network, form = _network(entry[AT])
    placed = see(pixels, form)
    shown = torch.from_numpy(np.ascontiguousarray(placed.values))[None, None]
    with torch.inference_mode():
        # Channels last takes half the time; the values differ by less than a hundredth of a level of 16 bits.
        answer = network(shown.contiguous(memory_format=torch.channels_last))[0, 0].numpy()
    change = placed.values - answer if form.invert else answer - placed.values
    white = np.iinfo(pixels.dtype).max
    laid = lay_back(change, placed, form)
    laid *= white
    laid += pixels
    return np.asarray(np.rint(laid, out=laid).clip(0, white), pixels.dtype)


@lru_cache(64)
def _reference(quantiles: str) -> Reference:
    from cxrtool.imaging.histogram import Reference, unpack

    return Reference.of(unpack(quantiles))


@cache
def _network(place: str) -> tuple[nn.Module, Form]:
    import torch

    from cxrtool.models.parts import load_network, read_part

    if multiprocessing.parent_process() is not None:
        # As for OpenCV: parallelism is over images.
        torch.set_num_threads(1)
    folder = Path(place)
    network = load_network(folder, "ribs").to(memory_format=torch.channels_last)
    return network, read_part(folder, "ribs").form


def _told_match(entry: Mapping[str, Any]) -> str:
    return "The histogram of grey values was matched to a reference."


def _told_ribs(entry: Mapping[str, Any]) -> str:
    return f"Ribs were suppressed by a network ({entry.get('part', {}).get('network', 'unknown')})."


def _told_clahe(entry: Mapping[str, Any]) -> str:
    clip, tiles = entry.get("clip", entry.get("clahe_clip")), entry.get("tiles", entry.get("clahe_tiles"))
    how = f" (clip limit {clip:g}, {tiles} x {tiles} tiles)" if clip is not None and tiles is not None else ""
    return f"Contrast was equalised locally{how} (contrast-limited adaptive histogram equalisation)."


@dataclass(frozen=True)
class Step:
    """A step of `enhance`. It changes grey values and moves no pixel, so that a mask follows by staying as it is.

    Attributes:
        name: As it stands in `--steps` and in a chain.
        replay: Does it to a picture (H, W), uint8 or uint16, by an entry of a chain.
        told: The step as a sentence on methods, by an entry of a chain, which may be of an earlier version.
        options: The options of `enhance` that mean something only beside this step, each with the name that its value
            has in the entry, or None where it stands there in another way.
        part: The kind of fitted network that it asks, which is also the name of the option for its folder.
        modules: What a worker imports to do it.
        version: Raised when the same entry would give other pixels.
    """

    name: str
    replay: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]
    told: Callable[[Mapping[str, Any]], str]
    options: Mapping[str, str | None] = field(default_factory=dict)
    part: str | None = None
    modules: tuple[str, ...] = ()
    version: int = 1

    @property
    def fitted(self) -> str | None:
        """What of its entry is fitted to the images, in each fold anew; None for nothing."""
        return PER_FOLD.get(self.name)

    def entry(self, **values: Any) -> dict[str, Any]:
        """The entry of a chain: all that it takes to do the step again."""
        return {"step": self.name, "version": self.version, **values}


MATCH = Step(
    "match-histogram",
    replay_match_histogram,
    _told_match,
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
            _told_ribs,
            options={"ribs": None},
            part="ribs",
            modules=("cxrtool.imaging.view", "torch"),
        ),
        Step(
            "clahe",
            replay_clahe,
            _told_clahe,
            options={"clahe_clip": "clip", "clahe_tiles": "tiles"},
            modules=("cxrtool.imaging.clahe",),
        ),
    )
}
"""All of them, in the order of the paper."""
