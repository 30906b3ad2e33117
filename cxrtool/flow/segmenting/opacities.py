"""`segment --opacities`: find opacities inside the lungs that were found, and measure the opaque share of each region.

It follows the lungs image by image: workers read the image and its mask, the network sees a crop to the lungs, and
workers write the mask of opacities, at the place and size of the lung mask. The pixels are those of the image before
it was cropped or masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import median
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.views import RowView
from cxrtool.errors import ImageError, InputError, count_of
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.parallel import map_items, run_each
from cxrtool.flow.replaying import CROP, read_mask
from cxrtool.flow.segmenting.images import MASKS, PRELOAD, Network, Task, Way, name_of, segment_all, segment_batch
from cxrtool.flow.settings import Settings
from cxrtool.imaging.regions import NETWORK, PREFIX, REGIONS, SEEN

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.fits import Form
    from cxrtool.imaging.masks import Mask
    from cxrtool.models.parts import Part
    from cxrtool.training.lanes import Lanes

FOUND, REFERENCE = "opacities", "opacities_reference"
"""Folders, and columns with the path: masks that were found, and those that the manifest had."""

VERSION = 3
"""Raised when the same images and network would give another table."""

SHARES = tuple(PREFIX + region for region in REGIONS)
DICE, ERROR = PREFIX + "dice", PREFIX + "share_error"
"""Columns of the agreement with the manifest's mask."""

COLUMNS = (FOUND, REFERENCE, *SHARES, DICE, ERROR, NETWORK, SEEN)

Made = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """How opacities are searched for.

    Attributes:
        form: Of the network's input.
        references: The file of a given mask of opacities, by image id.
    """

    network: Network
    form: Form
    references: Mapping[str, str]


@dataclass
class View:
    """An image as input of the network: as `cxrtool.imaging.view.Placed`, without values after it has run."""

    values: np.ndarray | None
    box: tuple[int, int, int, int]
    shape: tuple[int, int]


def given_of(row: RowView) -> str:
    """The mask of opacities of an image in the manifest, unless an earlier `segment` made it."""
    return row.get(REFERENCE) or ("" if row.get(SHARES[0]) else row.get(FOUND, ""))


def search_with(part: Part, lungs: Network, rows: Iterable[RowView]) -> Search:
    """The search with a part, run as the lung network is."""
    given = {row["image_id"]: file for row in rows if (file := given_of(row))}
    return Search(replace(lungs, folder=part.folder, kind="opacities"), part.form, given)


def find_all(
    tasks: Sequence[Task], way: Way, network: Network, search: Search, settings: Settings, lanes: Lanes
) -> Iterator[tuple[Task, Made | InputError]]:
    """Segment the lungs of each image and find opacities in them; errors may come before earlier images."""
    if cluster := Cluster.of(settings):
        work = partial(
            find_batch, way=way, network=network, search=search, seed=settings.seed, threads=settings.threads
        )
        yield from cluster.map(work, tasks, network.batch_size)
        return
    workers = min(settings.workers, len(tasks) or 1)
    failed: list[tuple[Task, InputError]] = []

    def segmented() -> Iterator[tuple[Task, Made]]:
        for task, record in segment_all(tasks, way, network, settings, lanes):
            if isinstance(record, InputError):
                failed.append((task, record))
            else:
                yield task, record

    def viewed() -> Iterator[tuple[Task, Made, View]]:
        work = partial(view_one, way=way, form=search.form)
        for item, view in map_items(work, segmented(), workers=workers, preload=PRELOAD):
            if isinstance(view, InputError):
                failed.append((item[0], view))
            else:
                yield (*item, view)

    def answers() -> Iterator[tuple[Task, Made, View, np.ndarray]]:
        for item, answer in search.network.answers(viewed(), lambda item: item[-1], lanes):
            yield (*item, answer)

    finished = map_items(partial(finish_one, way=way, search=search), answers(), workers=workers, preload=PRELOAD)
    for (task, *_), result in finished:
        while failed:
            yield failed.pop()
        yield task, result
    yield from failed


def find_batch(
    tasks: Sequence[Task], *, way: Way, network: Network, search: Search, seed: int, threads: int
) -> list[Made | InputError]:
    """The same for at most a batch of images, in a worker of a cluster: the record of each, or its error."""
    from cxrtool.training.device import local_randomness

    results: list[Made | InputError] = segment_batch(tasks, way=way, network=network, seed=seed, threads=threads)
    good = [index for index, record in enumerate(results) if not isinstance(record, InputError)]
    with local_randomness(seed, threads):
        views = run_each(partial(view_one, way=way, form=search.form), [(tasks[i], results[i]) for i in good])
        for index, view in zip(good, views, strict=True):
            if isinstance(view, InputError):
                results[index] = view
        shown = [(i, view) for i, view in zip(good, views, strict=True) if not isinstance(view, InputError)]
        found = search.network.answer(_loaded(search.network), [view for _, view in shown]) if shown else ()
        items = [(tasks[i], results[i], view, answer) for (i, view), answer in zip(shown, found, strict=True)]
        for (index, _), made in zip(shown, run_each(partial(finish_one, way=way, search=search), items), strict=True):
            results[index] = made
    return results


_loaded = lru_cache(1)(Network.load)


def view_one(item: tuple[Task, Any], *, way: Way, form: Form) -> View:
    """Read an image with its lung mask and make the network's input of it, in a worker process.

    Raises:
        ImageError: The image cannot be read.
    """
    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.imaging.view import see

    task, record = item
    pixels = read_image(task.path, max_pixels=way.max_pixels or MAX_PIXELS, capture_decoder_errors=True).pixels
    placed = see(pixels, form, _lungs(task, record, pixels.shape, way))
    return View(placed.values, placed.box, placed.shape)


def finish_one(item: tuple[Task, Made, View, np.ndarray], *, way: Way, search: Search) -> Made:
    """Make the mask of an output, measure it, and write the files; in a worker process. Returns the whole record."""
    from cxrtool.data.reading.images import write_png
    from cxrtool.imaging import masks, view
    from cxrtool.imaging.zones import opaque_shares

    task, record, seen, answer = item
    placed = view.Placed(answer, seen.box, seen.shape)
    lungs = _lungs(task, record, seen.shape, way)
    layers = view.layers_of(answer, placed, search.form)
    # Without a second layer, the share of a region is its mean probability.
    shares = opaque_shares(layers[-1], lungs)
    found = masks.most_probable(layers[0], lungs, shares["lungs"] or 0.0)
    record = {**record, FOUND: shares, "files": dict(record["files"]), "odd": [*record["odd"]]}

    def write(folder: str, mask: Mask) -> None:
        if cropped := _crop(record, way):
            top, left, height, width = cropped
            mask = mask[top : top + height, left : left + width]
        name = name_of(folder, task.image_id)
        record["files"][name] = write_png(way.path_of(folder, task.image_id), mask, mask=True)

    if given := search.references.get(task.image_id):
        try:
            truth = read_mask(given, seen.shape, way.max_pixels)
            # Where no lungs were found, nothing was measured.
            if (measured := shares["lungs"]) is not None:
                record[DICE] = masks.dice(found, masks.cut(truth, lungs))
                record[ERROR] = abs(measured - masks.share_of(truth, lungs))
            if _crop(record, way):
                write(REFERENCE, truth)
        except ImageError as error:
            record["odd"].append(f"mask of opacities excluded: {error.message}")
    write(FOUND, found)
    return record


def _crop(record: Mapping[str, Any], way: Way) -> tuple[int, int, int, int] | None:
    """The box to which an image was cropped: top, left, height, width."""
    return tuple(record["crop"]) if CROP in way.entry.get("use", "") and "crop" in record else None


def _lungs(task: Task, record: Mapping[str, Any], shape: tuple[int, ...], way: Way) -> Mask:
    """The lung mask that was written, at the place and size (H, W) of the whole image."""
    import numpy as np

    from cxrtool.data.reading.images import MAX_PIXELS, read_image

    mask = read_image(way.path_of(MASKS, task.image_id), max_pixels=way.max_pixels or MAX_PIXELS).pixels
    if not (cropped := _crop(record, way)):
        return mask.astype(np.uint8)
    top, left, height, width = cropped
    whole = np.zeros(shape, np.uint8)
    whole[top : top + height, left : left + width] = mask
    return whole


def describe(row: RowView, record: Mapping[str, Any], way: Way, network: str, *, seen: bool) -> dict[str, str]:
    """The columns of an image in which opacities were searched for."""
    name, given = row["image_id"], given_of(row)
    if name_of(REFERENCE, name) in record["files"]:
        given = str(way.path_of(REFERENCE, name))
    elif DICE not in record:
        given = ""
    cells = {PREFIX + region: "" if share is None else f"{share:.4f}" for region, share in record[FOUND].items()}
    measured = {key: f"{record[key]:.4f}" if key in record else "" for key in (DICE, ERROR)}
    whose = {NETWORK: network, SEEN: "1" if seen else ""}
    return {FOUND: str(way.path_of(FOUND, name)), REFERENCE: given, **cells, **measured, **whose}


def without(row: Mapping[str, str], way: Way) -> dict[str, str]:
    """The columns of masks of opacities that no longer match an image that was cropped."""
    lost = CROP in way.entry.get("use", "")
    return {name: "" for name in (FOUND, REFERENCE) if lost and row.get(name)}


def report(rows: Sequence[RowView], settings: Settings) -> dict[str, Any]:
    """Report the opaque shares, and return the numbers for `run.json`; Dice where the manifest had masks."""
    from cxrtool.evaluation.resampling.means import mean_of_images

    say, total = settings.report.say, count_of(len(rows), "image")
    shares = [float(row[SHARES[0]]) for row in rows if row[SHARES[0]]]
    found: dict[str, Any] = {"without_lungs": len(rows) - len(shares)}
    if shares:
        found |= {"median_share": median(shares), "highest_share": max(shares)}
        say(f"opacities cover {found['median_share']:.0%} of the lungs in the median, {max(shares):.0%} at most")
    known = [row for row in rows if row[DICE]]
    for column, name in ((DICE, "Dice"), (ERROR, "error of the opaque share")) if known else ():
        mean = mean_of_images(known, [float(row[column]) for row in known], settings.seed, proportion=False)
        found[column] = mean
        interval = f" [{mean['low']:.3f}, {mean['high']:.3f}]" if mean["low"] is not None else ""
        say(f"{name} with the manifest's masks of opacities: {mean['value']:.3f}{interval} ({len(known)} of {total})")
    seen = sum(bool(row[SEEN]) for row in rows)
    if seen:
        settings.report.warn(
            f"the opacity network was fitted on {seen} of these {total}, or on their patients; `grade` gives these "
            "no score"
        )
    return {**found, "seen_in_fitting": seen}
