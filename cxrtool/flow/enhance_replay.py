"""What each step of `enhance` does to the grey values of one picture; a chain replays it on a raw one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.flow.parts import AT

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from cxrtool.imaging.histogram import Reference
    from cxrtool.imaging.view import Form


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


REPLAY: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {
    "match-histogram": replay_match_histogram,
    "suppress-ribs": replay_suppress_ribs,
    "clahe": replay_clahe,
}
"""The steps of `enhance`, in the order of the paper."""


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
