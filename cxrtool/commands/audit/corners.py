"""Whether predictions depend on the corners of an image, where letters and markers are, instead of on the lungs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.errors import CxrtoolError
from cxrtool.evaluation.tables import Sheet, cell
from cxrtool.flow.cases import Case
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.data.tables.manifest import Row

NAME, TITLE = "corners", "Corners covered"

SIDE = 0.2
"""Side of a covered corner, as a share of the side of the image: four corners are 16 % of the image and contain no lung
in a frontal radiograph that shows the whole chest."""

CORNERS = {
    "upper left": (0.0, 0.0),
    "upper right": (0.0, 1 - SIDE),
    "lower left": (1 - SIDE, 0.0),
    "lower right": (1 - SIDE, 1 - SIDE),
}
"""Top and left of each, as shares of the side of the image."""

ALL, MIDDLE = "all four corners", "as much in the middle"
TITLES = {MIDDLE: "same area in the middle"}
"""Names in the table, where they differ from the keys in `audit.json`."""

SOME, MANY = 0.05, 0.2
"""Shares of changed decisions above which (with the whole interval) there is a warning and an alarm. A model that uses
the lungs changes few: the corners contain nothing of the disease."""


def examine(cases: Sequence[Case], settings: Settings, max_pixels: int | None = None) -> Part:
    """Cover corners with the median grey of the image, and run the model again.

    Args:
        cases: Images, each with the fold that tested it.
        settings: Device, workers, seed.
        max_pixels: Refuse larger images before they are decoded.

    Returns:
        The part `corners`: for each corner, for all four, and for a square of the same area in the middle of the image,
        the mean change of the probability of the predicted class, and the share of decisions that changed; with
        intervals over patients.
    """
    from cxrtool.evaluation.resampling.means import mean_of_images
    from cxrtool.training.device import local_randomness

    rows: list[Row] = []
    changes: dict[str, list[float]] = {name: [] for name in (*CORNERS, ALL, MIDDLE)}
    flipped: dict[str, list[float]] = {name: [] for name in changes}
    try:
        with local_randomness(settings.seed, settings.threads):
            for row, before, after in _predict_covered(cases, settings, max_pixels):
                rows.append(row)
                predicted = int(before.argmax())
                for name, probabilities in after.items():
                    changes[name].append(float(probabilities[predicted] - before[predicted]))
                    flipped[name].append(float(int(probabilities.argmax()) != predicted))
    except CxrtoolError as error:
        return _unknown(error.message)
    if not rows:
        return _unknown("no image could be read")
    content = {
        name: {
            "change": mean_of_images(rows, changes[name], settings.seed, proportion=False),
            "decisions_changed": mean_of_images(rows, flipped[name], settings.seed, proportion=True),
        }
        for name in changes
    }
    return Part(NAME, TITLE, content, [_judge(content, len(rows))], [_tabulate(content, len(rows))])


def cover(pixels: np.ndarray, name: str) -> np.ndarray:
    """A copy of a square image (S, S) with a corner, all corners, or the middle filled with its median grey.

    >>> import numpy as np
    >>> [int((cover(np.arange(100.0).reshape(10, 10), name) == 49.5).sum()) for name in ("upper left", ALL, MIDDLE)]
    [4, 16, 16]
    """
    import numpy as np

    covered, grey = pixels.copy(), np.median(pixels).astype(pixels.dtype)
    height, width = pixels.shape
    if name == MIDDLE:
        squares, side = [(0.5 - SIDE, 0.5 - SIDE)], 2 * SIDE
    else:
        squares, side = [CORNERS[name]] if name in CORNERS else list(CORNERS.values()), SIDE
    for top, left in squares:
        begin, start = round(top * height), round(left * width)
        covered[begin : begin + round(side * height), start : start + round(side * width)] = grey
    return covered


def _predict_covered(
    cases: Sequence[Case], settings: Settings, max_pixels: int | None
) -> Iterator[tuple[Row, np.ndarray, dict[str, np.ndarray]]]:
    """For each image its row, its probabilities (K,), and those of each covered version."""
    from cxrtool.flow.chain import before_twins, chain_of, locate, missing_steps
    from cxrtool.flow.parallel import map_items
    from cxrtool.flow.replaying import look, modules_of
    from cxrtool.training.device import choose_device
    from cxrtool.training.inference import Ensemble

    names = (*CORNERS, ALL, MIDDLE)
    with settings.report.progress("covering corners", len(cases)) as advance:
        for folder, group in groupby(sorted(cases, key=lambda case: case.folder.name), key=lambda case: case.folder):
            own = list(group)
            ensemble = Ensemble([folder], choose_device(settings.device))
            form = ensemble.description.input
            paths = [Path(case.row["path"]) for case in own]
            missing = missing_steps(locate(ensemble.description.chain, folder), chain_of(paths), str(folder), "it")
            chain, generators = before_twins(missing)
            if generators:
                raise CxrtoolError("a model of twins predicts generated images, whose corners cannot be covered")
            work = partial(look, chain=chain, size=form.size, fit=form.fit, max_pixels=max_pixels)
            results = map_items(work, paths, workers=settings.workers, preload=modules_of(chain))
            for case, (_, result) in zip(own, results, strict=True):
                advance(1)
                if isinstance(result, CxrtoolError):
                    continue
                pixels = result[0]
                answers = ensemble.predict([pixels, *(cover(pixels, name) for name in names)])[0]
                yield case.row, answers[0], dict(zip(names, answers[1:], strict=True))


def _unknown(reason: str) -> Part:
    return Part(NAME, TITLE, findings=[Finding(UNKNOWN, f"The effect of covered corners is not known: {reason}")])


def _judge(content: dict[str, Any], images: int) -> Finding:
    share, middle = content[ALL]["decisions_changed"], content[MIDDLE]["decisions_changed"]
    low, high = (share[end] if share[end] is not None else share["value"] for end in ("low", "high"))
    text = (
        f"With the four corners covered, the predicted class changes for {share['value']:.0%} "
        f"({low:.0%} to {high:.0%}) of {images} test images; with the same area in the middle covered, for "
        f"{middle['value']:.0%}"
    )
    if low > MANY:
        return Finding(ALARM, f"{text}. Many predictions depend on the corners.")
    if low > SOME:
        return Finding(WARNING, f"{text}. Some predictions depend on the corners.")
    if share["value"] > SOME:
        return Finding(NOTE, f"{text}. These are too few images to show whether predictions depend on the corners.")
    return Finding(CLEAR, f"{text}.")


def _tabulate(content: dict[str, Any], images: int) -> Sheet:
    rows = [
        [TITLES.get(name, name), cell(entry["change"], 3), cell(entry["decisions_changed"])]
        for name, entry in content.items()
    ]
    notes = [
        f"{images} test images, each by the fold that tested it. A corner has {SIDE:.0%} of the side of the image and "
        "is filled with its median grey. The probability is that of the class predicted without covering.",
        f"Corners that change more than {SOME:.0%} of the decisions, with the whole interval, are a warning; more than "
        f"{MANY:.0%}, an alarm.",
    ]
    return Sheet(TITLE, ["covered", "change of probability", "decisions changed"], rows, notes)
