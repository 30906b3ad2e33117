"""The steps of `enhance`, each one an object with its function, its options and its description.

A chain replays them on a raw image.
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
    import torch

    from cxrtool.imaging.view import lay_back, see

    network, form = _network(entry[AT])
    placed = see(pixels, form)
    shown = torch.from_numpy(np.ascontiguousarray(placed.values))[None, None]
    with torch.inference_mode():
        # Channels last takes half the time; the values differ by less than 0.01 of a 16-bit grey level.
        answer = network(shown.contiguous(memory_format=torch.channels_last))[0, 0].numpy()
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
def _network(path: str) -> tuple[nn.Module, Form]:
    import torch

    from cxrtool.models.parts import load_network, read_part

    if multiprocessing.parent_process() is not None:
        # In a worker process; parallelism is over images.
        torch.set_num_threads(1)
    folder = Path(path)
    network = load_network(folder, "ribs").to(memory_format=torch.channels_last)
    return network, read_part(folder, "ribs").form


def _describe_match(entry: Mapping[str, Any]) -> str:
    return "The histogram of grey values was matched to a reference."


def _describe_ribs(entry: Mapping[str, Any]) -> str:
    return f"Ribs were suppressed by a network ({entry.get('part', {}).get('network', 'unknown')})."


def _describe_clahe(entry: Mapping[str, Any]) -> str:
    clip, tiles = entry.get("clip", entry.get("clahe_clip")), entry.get("tiles", entry.get("clahe_tiles"))
    how = f" (clip limit {clip:g}, {tiles} x {tiles} tiles)" if clip is not None and tiles is not None else ""
    return f"Contrast was equalised locally{how} (contrast-limited adaptive histogram equalisation)."


@dataclass(frozen=True)
class Step:
    """A step of `enhance`. It changes grey values and moves no pixels, so masks stay as they are.

    Attributes:
        name: As in `--steps` and in a chain.
        replay: Applies it to an image (H, W), uint8 or uint16, by an entry of a chain.
        describe: A sentence for the methods section, by an entry of a chain, which may be of an earlier version.
        options: The options of `enhance` that only this step uses, each with its name in the entry, or None where the
            entry has its value in another form.
        part: The kind of fitted network that it uses, which is also the name of the option for its folder.
        modules: The modules that a worker needs for it.
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
    _describe_match,
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
            _describe_ribs,
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
