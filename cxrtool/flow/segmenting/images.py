"""The images of `segment` one by one: read by workers, answered by the network, finished and written by workers.

While the network computes in the main process, other processes read what comes next and finish what it has answered.
What lies between is bounded, so memory does not grow with the number of images. A picture whose pixels change is kept
decoded in a file between the two, because decoding it twice costs more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import ImageError, InputError
from cxrtool.flow.lungs import CROP, LEFT_WHOLE, change, read_mask, unlike
from cxrtool.flow.parallel import map_items

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.fits import Form
    from cxrtool.training.lung_finder import LungFinder

IMAGES, MASKS, REFERENCES = "images", "masks", "references"
"""Folders of what is written: pictures whose pixels changed, masks, and cropped masks that the manifest had."""

BYTES = {IMAGES: "bytes", MASKS: "mask_bytes", REFERENCES: "reference_bytes"}
"""Under which name a record tells the size of each file."""

PRELOAD = (
    "cxrtool.data.reading.images", "cxrtool.imaging.crop", "cxrtool.imaging.hashing", "cxrtool.imaging.masks",
    "cxrtool.imaging.view",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """An image to be segmented.

    Attributes:
        image_id: Its name.
        path: Its file.
        reference: The file of a mask to compare with, or nothing.
        known: Its pixels' digest stands in the manifest already.
    """

    image_id: str
    path: str
    reference: str
    known: bool


@dataclass
class Seen:
    """An image as the network is to see it.

    Attributes:
        task: What was read.
        values: (S, S) float32 in [0, 1]; not kept once the network has answered.
        box: The part of the picture that is shown: top, left, height, width.
        shape: Of the picture: height, width.
        warnings: What the reader found odd.
        digest: SHA-256 of its pixels, where it was not known.
        odd: In what it is unlike the pictures that the network knows.
    """

    task: Task
    values: np.ndarray | None
    box: tuple[int, int, int, int]
    shape: tuple[int, int]
    warnings: list[str]
    digest: str
    odd: str


@dataclass(frozen=True)
class Way:
    """What is done with every image.

    Attributes:
        target: The folder in the making.
        form: What the network is shown.
        entry: Threshold and what is done with the mask, as the chain tells it; without `use` no pixel changes.
        max_pixels: Refuse larger pictures before they are decoded.
        usual: What the pictures that the network was fitted on have in common, where it is known.
    """

    target: Path
    form: Form
    entry: Mapping[str, Any]
    max_pixels: int | None
    usual: Mapping[str, Any] | None = None

    @property
    def changing(self) -> bool:
        """Whether pixels change."""
        return "use" in self.entry

    def place(self, folder: str, image_id: str) -> Path:
        """Where a file of an image is written."""
        return self.target / folder / f"{image_id}.png"

    def between(self, image_id: str) -> Path:
        """Where a decoded picture waits; hidden, so that it is removed should it be left behind."""
        return self.target / IMAGES / f".{image_id}.npy"


def segment_all(
    tasks: Sequence[Task], way: Way, finder: LungFinder, *, batch_size: int, workers: int
) -> Iterator[tuple[Task, dict[str, Any] | InputError]]:
    """Segment images and yield a record, or why there is none, of each; in order but for those that cannot be read.

    Args:
        tasks: The images.
        way: What is done with them.
        finder: The network.
        batch_size: Images that it sees at once.
        workers: Processes that read, and as many again that write.
    """
    failed: list[tuple[Task, InputError]] = []
    answers = _ask(tasks, way, finder, batch_size, workers, failed)
    for (seen, _), result in map_items(partial(finish_one, way=way), answers, workers=workers, preload=PRELOAD):
        while failed:
            yield failed.pop()
        yield seen.task, result
    yield from failed


def _ask(
    tasks: Sequence[Task], way: Way, finder: LungFinder, batch_size: int, workers: int,
    failed: list[tuple[Task, InputError]],
) -> Iterator[tuple[Seen, np.ndarray]]:  # fmt: skip
    import numpy as np

    results = map_items(partial(see_one, way=way), tasks, workers=workers, preload=PRELOAD)
    while batch := list(islice(results, batch_size)):
        views = []
        for task, result in batch:
            if isinstance(result, InputError):
                failed.append((task, result))
            else:
                views.append(result)
        if not views:
            continue
        answers = finder(np.stack([view.values for view in views if view.values is not None]))
        for view, answer in zip(views, answers, strict=True):
            view.values = None
            yield view, answer


def see_one(task: Task, *, way: Way) -> Seen:
    """Read a picture and bring it into the network's form; run in a worker process.

    Raises:
        ImageError: It cannot be read.
    """
    import numpy as np

    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.imaging import view
    from cxrtool.imaging.hashing import pixel_sha256

    radiograph = read_image(task.path, max_pixels=way.max_pixels or MAX_PIXELS, capture_decoder_errors=True)
    placed = view.see(radiograph.pixels, way.form)
    if way.changing:
        with way.between(task.image_id).open("wb") as file:
            np.save(file, radiograph.pixels)
    digest = "" if task.known else pixel_sha256(radiograph.pixels)
    odd = unlike(placed.values, way.usual)
    return Seen(task, placed.values, placed.box, placed.shape, radiograph.warnings, digest, odd)


def finish_one(item: tuple[Seen, np.ndarray], *, way: Way) -> dict[str, Any]:
    """Make the mask of an answer, measure it, and write what is wanted; run in a worker process.

    Returns:
        What the manifest says of the image, and how many bytes were written.
    """
    import numpy as np

    from cxrtool.data.reading.images import write_png
    from cxrtool.flow.lungs import Picture
    from cxrtool.imaging import masks, view

    seen, answer = item
    task, entry = seen.task, way.entry
    lungs = masks.clean(view.lay_back(answer, view.Placed(answer, seen.box, seen.shape), way.form), entry["threshold"])
    sure = masks.sureness(answer, entry["threshold"])
    remark = masks.doubt(lungs, sure, seen.odd)
    record: dict[str, Any] = {
        "mask_area": masks.share(lungs),
        "sureness": sure,
        "doubt": f"{remark}: {LEFT_WHOLE}" if remark == masks.NO_LUNGS and way.changing else remark,
        "odd": list(seen.warnings),
        "shape": seen.shape,
        "sha256": seen.digest,
    }
    picture = Picture(answer, lungs=lungs)
    if task.reference:
        try:
            picture.mask = read_mask(task.reference, seen.shape, way.max_pixels)
            record |= {"dice": masks.dice(lungs, picture.mask), "iou": masks.iou(lungs, picture.mask)}
        except ImageError as error:
            record["odd"].append(f"mask left out: {error.message}")
    if way.changing:
        picture.pixels = np.load(way.between(task.image_id))
        record["crop"] = box = change(picture, entry)
        record["shape"] = box[2:]
        record[BYTES[IMAGES]] = write_png(way.place(IMAGES, task.image_id), picture.pixels)
        if picture.mask is not None and CROP in entry["use"]:
            record[BYTES[REFERENCES]] = write_png(way.place(REFERENCES, task.image_id), picture.mask, mask=True)
    found = lungs if picture.lungs is None else picture.lungs
    record[BYTES[MASKS]] = write_png(way.place(MASKS, task.image_id), found, mask=True)
    if way.changing:
        with contextlib.suppress(FileNotFoundError):
            way.between(task.image_id).unlink()
    return record


def is_whole(record: Mapping[str, Any], way: Way, image_id: str) -> bool:
    """Whether the files that a record of the journal speaks of are there as they were written."""
    from cxrtool.data.files import is_whole_png

    wanted = (MASKS, IMAGES) if way.changing else (MASKS,)
    if any(BYTES[folder] not in record for folder in wanted):
        return False
    return all(
        is_whole_png(way.place(folder, image_id), record[name]) for folder, name in BYTES.items() if name in record
    )
