"""The options of heatmaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cxrtool.errors import UsageError
from cxrtool.flow import common_options
from cxrtool.flow.cases import SUBSETS
from cxrtool.flow.heatmaps.drawing import OVERS
from cxrtool.flow.settings import COMPUTING, READING, RUNNING
from cxrtool.options import Options, argument, one_of, option

if TYPE_CHECKING:
    from torch import Tensor

    from cxrtool.explaining.cam import Cam, GradCam
    from cxrtool.explaining.occlusion import Occlusion
    from cxrtool.models.network import Network

    Explainer = GradCam | Cam | Occlusion


@dataclass(frozen=True)
class Method:
    """A method: the networks that it supports, its maker from a network, an example (B, C, S, S) and a layer.

    `layered` means that it can use another layer than its own.
    """

    words: str
    make: Callable[[Network, Tensor, str | None], Explainer]
    layered: bool = False


def _grad_cam(network: Network, images: Tensor, layer: str | None) -> GradCam:
    from cxrtool.explaining.cam import GradCam

    return GradCam(network, images, layer)


def _cam(network: Network, images: Tensor, layer: str | None) -> Cam:
    from cxrtool.explaining.cam import Cam

    return Cam(network, images, layer)


def _occlusion(network: Network, images: Tensor, layer: str | None) -> Occlusion:
    from cxrtool.explaining.occlusion import Occlusion

    return Occlusion(network, images, layer)


METHODS: dict[str, Method] = {
    "grad-cam": Method("for any network", _grad_cam, layered=True),
    "cam": Method("for networks with a pooled linear output", _cam),
    "occlusion": Method("for any network, slow: parts of the image are covered", _occlusion),
}
"""By name; a method's class has the same `name`."""

STEPS = 20
"""Steps of the test of faithfulness where there is a reference: each is 5 % of the pixels."""

EACH, RUN = "image", "run"
SCALES = {EACH: "each on its own scale", RUN: "one scale for all"}
"""The scales of the colours, with their description."""


def _with_meaning(words: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({text})" for name, text in words.items())


@dataclass(frozen=True)
class ExplainOptions(Options):
    """The options of `explain`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", *COMPUTING, *READING, *RUNNING)

    model: Path = argument("A run (each image is explained by the fold that tested it), or a model folder.")
    sources: tuple[str, ...] = common_options.images()
    method: str = option(
        f"{_with_meaning({name: method.words for name, method in METHODS.items()})}. Several, separated by commas, are "
        "shown and scored side by side.",
        "grad-cam",
        choices=METHODS,
        closed=False,
        metavar="NAMES",
    )
    target: str = option(
        "The class to explain: predicted, opposite (the most probable other class), or a name.",
        "predicted",
        metavar="CLASS",
    )
    layer: str | None = option("The module that Grad-CAM uses.", None, metavar="NAME", shown="last map before pooling")
    reference: Path | None = option(
        "Score the maps against masks or boxes: a folder of masks named like the images, or a table with paths of "
        "masks, or with boxes (x, y, width, height), in pixels of the original images.",
        None,
        metavar="MASKS",
        shown="",
    )
    structure: str | None = common_options.structure()
    faithfulness: int | None = option(
        "Steps in which pixels are deleted and inserted, the hottest first, while the probability is followed; 0 for "
        "none.",
        None,
        minimum=0,
        shown="20 with --reference, otherwise 0",
    )
    inside_lungs: bool = option("Show maps only inside the masks; the measures are still of the whole map.", False)
    over: str = option(f"The image under the maps: {_with_meaning(OVERS)}.", "input", choices=OVERS)
    scale: str = option(f"Colours: {_with_meaning(SCALES)}.", EACH, choices=SCALES)
    subset: str = option("Images of a run: {choices} (both of them).", "test", choices=SUBSETS)
    positive: str | None = common_options.positive()
    beside: Path | None = option(
        "Another folder of heatmaps of the same images, to show and compare.", None, metavar="FOLDER", shown=""
    )
    check_randomised: bool = option("Test whether the maps change when learned parameters are randomised.", False)
    sheet: int = option("Images on a contact sheet; 0 makes none.", 16, minimum=0)
    partial: bool = common_options.partial()
    batch_size: int = option("Images per batch.", 16, minimum=1)
    max_pixels: int | None = common_options.max_pixels()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in Counter(self.methods).items():
            one_of("--method", name, METHODS)
            if count > 1:
                raise UsageError(f"--method: expected each method once, found '{name}' {count} times")

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods; the manifest is about the first of them.

        >>> ExplainOptions(Path("run"), ("prepared",), "grad-cam, occlusion").methods
        ('grad-cam', 'occlusion')
        """
        return tuple(name.strip() for name in self.method.split(","))

    @property
    def steps(self) -> int:
        """Of the test of faithfulness."""
        default = STEPS if self.reference is not None else 0
        return default if self.faithfulness is None else self.faithfulness
