"""What is asked of heatmaps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxrtool.flow.cases import SUBSETS
from cxrtool.flow.heatmaps.drawing import OVERS
from cxrtool.flow.heatmaps.subject import PREDICTED

METHODS = ("grad-cam", "cam")
SCALES = ("image", "run")


@dataclass(frozen=True)
class ExplainOptions:
    """The options of `explain`.

    Attributes:
        model: A model folder, or a run, of which each image is explained by the fold that tested it.
        source: An image, a folder of images, a manifest, a step's folder, or `-`.
        method: `grad-cam` or `cam`.
        target: The class that is explained: `predicted`, `opposite` (the most probable other one), or a name.
        layer: The module to look at; None takes the last map before pooling.
        inside_lungs: Set a map to zero outside the image's mask.
        over: What maps are laid over: `input`, the picture after the model's preprocessing, or `original`, the picture
            as it was given, back to which what was cut out or resized is led.
        scale: Colours by each `image` or by one value for the whole `run`.
        subset: Of a run: images of this subset, or `all`.
        positive: The class by which contact sheets are made; None takes a `target` that names one.
        beside: Another folder of heatmaps of the same images: its maps stand beside these, and their energies inside
            the masks are compared.
        check_randomised: Compare with maps of networks whose parameters were drawn anew.
        sheet: Images on a contact sheet, at most; 0 makes none.
        partial: Take a run of which some folds are missing.
        batch_size: Images at once.
        max_pixels: Refuse larger pictures before they are decoded.
    """

    model: Path
    source: str
    method: str = METHODS[0]
    target: str = PREDICTED
    layer: str | None = None
    inside_lungs: bool = False
    over: str = OVERS[0]
    scale: str = SCALES[0]
    subset: str = SUBSETS[0]
    positive: str | None = None
    beside: Path | None = None
    check_randomised: bool = False
    sheet: int = 16
    partial: bool = False
    batch_size: int = 16
    max_pixels: int | None = None
