"""The images of `segment` one by one: read by workers, segmented by the network, finished and written by workers.

While the network computes in the main process, other processes read the next images and finish the previous ones. On a
cluster a worker does all three for a batch. The
number of images in progress is bounded, so memory does not grow with the number of images. An image whose pixels change
is kept decoded in a temporary file, because decoding it twice takes longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cxrtool.data.confinement import check_inside
from cxrtool.errors import ImageError, InputError
from cxrtool.flow.assignment import check_read
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.on_device import run_filled
from cxrtool.flow.parallel import map_items, run_each
from cxrtool.flow.replaying import CROP, LEFT_WHOLE, change, doubt, read_mask, unlike
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.fits import Form
    from cxrtool.training.lanes import Lanes
    from cxrtool.training.lung_finder import LungFinder


Item = TypeVar("Item")

IMAGES, MASKS, REFERENCES = "images", "masks", "references"
"""The folders that are written: images whose pixels changed, masks, and cropped masks of the manifest."""

PRELOAD = (
    "cxrtool.data.reading.images",
    "cxrtool.imaging.crop",
    "cxrtool.imaging.hashing",
    "cxrtool.imaging.masks",
    "cxrtool.imaging.view",
)


def name_of(folder: str, image_id: str) -> str:
    """The file of an image in one of the folders, relative to the output."""
    return f"{folder}/{image_id}.png"


@dataclass(frozen=True, slots=True)
class Task:
    """An image to be segmented.

    Attributes:
        reference: The file of a mask to compare with, or an empty text.
        sha256: The digest of its pixels in the manifest, or an empty text.
    """

    image_id: str
    path: str
    reference: str
    sha256: str


@dataclass
class Prepared:
    """An image as input of the network.

    Attributes:
        values: (S, S) float32 in [0, 1]; None after the network has run.
        box: The part of the image that is used: top, left, height, width.
        digest: SHA-256 of its pixels, unless the manifest has it.
        odd: How it differs from the images that the network was fitted on.
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
    """How every image is processed.

    Attributes:
        target: The unfinished folder.
        entry: The entry of the chain, with the threshold and the use of the mask; without `use` no pixel changes.
        usual: Statistics of the images and outlines that the network was fitted on, where they are known.
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

    def path_of(self, folder: str, image_id: str) -> Path:
        """The file of an image in one of the folders."""
        return self.target / name_of(folder, image_id)

    def decoded(self, image_id: str) -> Path:
        """The temporary file of a decoded image; hidden, so that it is removed if it is left behind."""
        return self.target / IMAGES / f".{image_id}.npy"


class HasValues(Protocol):
    """An input of a network, (S, S) float32; None after it has run."""

    values: np.ndarray | None


@dataclass(frozen=True)
class Network:
    """A network that finds lungs or opacities, and how it is run.

    Attributes:
        folder: Of its part.
        device: Its name.
        mirrored: Average each result with that of the mirror image.
        batch_size: Images at a time; fewer are filled up.
        kind: What it finds.
    """

    folder: Path
    device: str
    precision: str
    mirrored: bool
    batch_size: int
    kind: str = "lungs"

    def load(self) -> LungFinder:
        """Load it.

        Raises:
            CxrtoolError: There is no such part or device.
        """
        from cxrtool.training.device import choose_device
        from cxrtool.training.lung_finder import LungFinder

        device = choose_device(self.device)
        return LungFinder(self.folder, device, self.precision, mirrored=self.mirrored, kind=self.kind)

    def answer(self, finder: LungFinder, views: Sequence[HasValues]) -> np.ndarray:
        """Probabilities (n, S, S) for at most `batch_size` images; their values are dropped."""
        shown = [view.values for view in views if view.values is not None]
        for view in views:
            view.values = None
        return run_filled(finder, shown, self.batch_size)

    def answers(
        self, items: Iterable[Item], view_of: Callable[[Item], HasValues], lanes: Lanes
    ) -> Iterator[tuple[Item, np.ndarray]]:
        """Each item with the probabilities (S, S) for its view, in batches that are computed beside the caller."""
        finder, stream = self.load(), iter(items)
        batches = iter(lambda: list(islice(stream, self.batch_size)), [])

        def work(batch: Sequence[Item]) -> np.ndarray:
            return self.answer(finder, [view_of(item) for item in batch])

        for batch, found in lanes.map(work, batches):
            yield from zip(batch, found, strict=True)


_loaded = lru_cache(1)(Network.load)


def segment_all(
    tasks: Sequence[Task], way: Way, network: Network, settings: Settings, lanes: Lanes
) -> Iterator[tuple[Task, dict[str, Any] | InputError]]:
    """Yield the record of each image, or its error; in order except for those that cannot be read."""
    if cluster := Cluster.of(settings):
        work = partial(segment_batch, way=way, network=network, seed=settings.seed, threads=settings.threads)
        yield from cluster.map(work, tasks, network.batch_size)
        return
    workers = min(settings.workers, len(tasks) or 1)
    failed: list[tuple[Task, InputError]] = []

    def prepared_ones() -> Iterator[Prepared]:
        for task, result in map_items(partial(prepare_one, way=way), tasks, workers=workers, preload=PRELOAD):
            if isinstance(result, InputError):
                failed.append((task, result))
            else:
                yield result

    answered = network.answers(prepared_ones(), lambda one: one, lanes)
    for (prepared, _), result in map_items(partial(finish_one, way=way), answered, workers=workers, preload=PRELOAD):
        while failed:
            yield failed.pop()
        yield prepared.task, result
    yield from failed


def segment_batch(
    tasks: Sequence[Task], *, way: Way, network: Network, seed: int, threads: int
) -> list[dict[str, Any] | InputError]:
    """Segment at most a batch of images, in a worker of a cluster: the record of each, or its error."""
    from cxrtool.training.device import local_randomness

    with local_randomness(seed, threads):
        prepared = run_each(partial(prepare_one, way=way), tasks)
        views = [one for one in prepared if isinstance(one, Prepared)]
        pairs = list(zip(views, network.answer(_loaded(network), views), strict=True)) if views else []
        finished = iter(run_each(partial(finish_one, way=way), pairs))
    return [next(finished) if isinstance(one, Prepared) else one for one in prepared]


def prepare_one(task: Task, *, way: Way) -> Prepared:
    """Read an image and make the network's input of it, in a worker process; an `ImageError` if it cannot be read."""
    import numpy as np

    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.imaging import view
    from cxrtool.imaging.hashing import pixel_sha256

    radiograph = read_image(task.path, max_pixels=way.max_pixels or MAX_PIXELS, capture_decoder_errors=True)
    check_read({"image_id": task.image_id, "path": task.path, "sha256": task.sha256}, radiograph.pixels)
    placed = view.see(radiograph.pixels, way.form)
    if way.changing:
        check_inside(way.decoded(task.image_id))
        with way.decoded(task.image_id).open("wb") as file:
            np.save(file, radiograph.pixels)
    digest = "" if task.sha256 else pixel_sha256(radiograph.pixels)
    odd = unlike(placed.values, way.usual)
    return Prepared(task, placed.values, placed.box, placed.shape, radiograph.warnings, digest, odd)


def finish_one(item: tuple[Prepared, np.ndarray], *, way: Way) -> dict[str, Any]:
    """Make the mask of an output, measure it, and write the files; runs in a worker process."""
    import numpy as np

    from cxrtool.data.reading.images import write_png
    from cxrtool.flow.replaying import Picture
    from cxrtool.imaging import masks, view

    prepared, answer = item
    task, entry = prepared.task, way.entry
    lungs = masks.clean(
        view.lay_back(answer, view.Placed(answer, prepared.box, prepared.shape), way.form), entry["threshold"]
    )
    sure = masks.sureness(answer, entry["threshold"])
    remark = doubt(lungs, sure, prepared.odd, way.usual)
    record: dict[str, Any] = {
        "mask_area": masks.share(lungs),
        "sureness": sure,
        "doubt": f"{remark}: {LEFT_WHOLE}" if remark == masks.NO_LUNGS and way.changing else remark,
        "odd": list(prepared.warnings),
        "shape": prepared.shape,
        "sha256": prepared.digest,
        "files": {},
    }

    def write(folder: str, pixels: np.ndarray) -> None:
        size = write_png(way.path_of(folder, task.image_id), pixels, mask=folder != IMAGES)
        record["files"][name_of(folder, task.image_id)] = size

    picture = Picture(answer, lungs=lungs)
    if task.reference:
        try:
            picture.mask = read_mask(task.reference, prepared.shape, way.max_pixels)
            record |= {"dice": masks.dice(lungs, picture.mask), "iou": masks.iou(lungs, picture.mask)}
        except ImageError as error:
            record["odd"].append(f"mask excluded: {error.message}")
    if way.changing:
        picture.pixels = np.load(way.decoded(task.image_id))
        record["crop"] = box = change(picture, entry)
        record["shape"] = box[2:]
        write(IMAGES, picture.pixels)
        if picture.mask is not None and CROP in entry["use"]:
            write(REFERENCES, picture.mask)
    write(MASKS, lungs if picture.lungs is None else picture.lungs)
    if way.changing:
        with contextlib.suppress(FileNotFoundError):
            way.decoded(task.image_id).unlink()
    return record
