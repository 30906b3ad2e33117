"""Transform every image with class-inherent generators.

Writes images/rRfF/ with a twin of every image for every generator of the fold, at the bit depth of the image; masks/
at the twins' size; manifest.csv, twins.png and rejects.csv. `train` on that folder has a class for every pair of a
label and a generator. To train without writing the images of every fold, give the original images and --transform
RUN to `train` instead: the networks are the same.

Example: cxrtool transform cropped --generators generators -o twins
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.file_names import FITTED_ON, PART
from cxrtool.data.splitting.splits import Splits, known_as, read_splits
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.data.tables.twins import twin_rows
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.flow import common_options
from cxrtool.flow import run as runs
from cxrtool.flow.chain import Chain, chain_of_manifest, chain_of_rows, copy_parts
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.fold_training import Stores
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder, without_paths
from cxrtool.flow.images import read_images
from cxrtool.flow.parallel import run_each
from cxrtool.flow.settings import COMPUTING, READING, RUNNING, SCALING, Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.twins import FoldGenerators, GeneratorRun, indices_in, make_twins, refuse_twins
from cxrtool.options import Options, declared, option, plain

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.fits import Form
    from cxrtool.training.store import Store
    from cxrtool.training.twin_maker import TwinMaker


@dataclass(frozen=True)
class MaskTask:
    """A mask to be resized with its image: both files, and the one to write, relative to the folder."""

    path: str
    mask: str
    target: str


def resize_mask(task: MaskTask, *, target: Path, size: int, fit: str) -> int:
    """Resize a mask to the size of the twins and write it; returns the file's size in bytes. Runs in a worker process.

    Raises:
        ImageError: It or its image cannot be read, or their proportions differ.
    """
    from cxrtool.data.reading.images import read_image, write_png
    from cxrtool.flow.replaying import read_mask
    from cxrtool.imaging.resize import prepare_mask

    height, width = read_image(task.path, capture_decoder_errors=True).pixels.shape
    mask = read_mask(task.mask, (height, width), None)
    return write_png(target / task.target, prepare_mask(mask, height, width, size, fit), mask=True)


@dataclass(frozen=True)
class TwinTask:
    """A radiograph whose twins are made.

    Attributes:
        path: Its file.
        key: In the journal.
        sha256: Of the radiograph, as it is known.
        targets: The files to write, one a generator, relative to the folder.
    """

    path: str
    key: str
    sha256: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Generators:
    """The generators of a fold for a worker of a cluster: their folder, their input, and where they run."""

    folder: Path
    size: int
    fit: str
    device: str
    seed: int
    threads: int


@lru_cache(1)
def _maker(generators: Generators) -> TwinMaker:
    from cxrtool.training.device import choose_device
    from cxrtool.training.twin_maker import TwinMaker

    return TwinMaker(generators.folder, choose_device(generators.device))


def make_batch(tasks: Sequence[TwinTask], *, generators: Generators, target: Path) -> list[dict[str, Any] | InputError]:
    """Read a batch of radiographs and write their twins, in a worker of a cluster.

    Returns:
        Of each its record in the journal, or its error.
    """
    from cxrtool.data.reading.images import write_png
    from cxrtool.flow.replaying import decode
    from cxrtool.training.device import local_randomness

    read = partial(decode, chain=[], size=generators.size, fit=generators.fit)
    found = run_each(read, [Path(task.path) for task in tasks])
    with local_randomness(generators.seed, generators.threads):
        twins = iter(_maker(generators).make([one[0] for one in found if isinstance(one, tuple)]))

    def write(task: TwinTask) -> dict[str, Any]:
        files = {name: write_png(target / name, pixels) for name, pixels in zip(task.targets, next(twins), strict=True)}
        return {"files": files, "sha256": task.sha256}

    return [write(task) if isinstance(one, tuple) else one for task, one in zip(tasks, found, strict=True)]


def draw_twins(
    target: Path, cases: Sequence[tuple[str, str, Sequence[str]]], generators: Sequence[str], form: Form
) -> None:
    """Draw radiographs beside their twins.

    Args:
        target: The file to write.
        cases: For each row a caption, the file of the radiograph, and the files of its twins.
        generators: The generators' names, in the order of the twins.
        form: The generators' input.
    """
    from cxrtool.data.reading.images import read_image, write_png
    from cxrtool.imaging.resize import prepare_pixels
    from cxrtool.imaging.sheet import SIDE, draw_strips, grey_tile

    rows = []
    for caption, path, twins in cases:
        shown = prepare_pixels(read_image(path, capture_decoder_errors=True).pixels, form.size, form.fit)
        pictures = [shown, *(read_image(twin, colour=True).pixels for twin in twins)]
        rows.append((caption, [grey_tile(picture, SIDE) for picture in pictures]))
    write_png(target, draw_strips(["original", *(f"generator of {name}" for name in generators)], rows))


IMAGES, MASKS, STRIPS = "images", "masks", "twins.png"
OPTION = "--generators"
DROPPED = ("mask_reference", "opacities", "opacities_reference", "ribless")
"""Columns of images that are not transformed."""

VERSION = 2
"""Raised when the same options would give other files."""


@dataclass(frozen=True)
class TransformOptions(Options):
    """The options of `transform`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", *COMPUTING, *SCALING, "cache", "allow_leakage", *READING, *RUNNING)

    sources: tuple[Path, ...] = common_options.images()
    generators: Path = option("The run of `fit generators`, or the folder of one fold.", metavar="RUN")
    only: str | None = common_options.only(effect=True)
    strips: int = option("Images shown with their twins in twins.png; 0 for none.", 4, minimum=0, maximum=50)


def run(options: TransformOptions, settings: Settings) -> None:
    """Transform."""
    transform(options, settings)


@dataclass(frozen=True)
class _Fold:
    """A fold's generators, the indices of its images in the manifest, and their preprocessing."""

    generators: FoldGenerators
    indices: list[int]
    chain: Chain


def transform(options: TransformOptions, settings: Settings) -> int | None:
    """Write the twins of the images of a manifest, fold by fold.

    Returns:
        Their number, or None where there was nothing to do.

    Raises:
        UsageError: `--only` names a fold that does not exist.
        InputError: Manifest or generators cannot be read, or do not match; or not a single image can be read.
        LeakageError: Generators were fitted on a test image of their fold.
        StoppedError: A signal arrived.
        StrictError: `--strict`, and an image could not be read.
    """
    if str(options.generators) == "-":
        raise UsageError(f"{OPTION}: expected a run or a folder, found standard input")
    manifest = read_images(options.sources, settings)
    manifest.check_file_names()
    if not manifest.rows:
        raise InputError(f"{manifest.name}: expected images, found none")
    refuse_twins(manifest, "transform")
    run = GeneratorRun.find(options.generators, OPTION)
    wanted = runs.select_folds(list(run.folds), options.only)
    splits = read_splits(run.splits)
    chain = chain_of_manifest(manifest)
    folder = StepFolder(settings.out, _plan(options, settings, manifest, run, wanted), settings)
    if not folder.needs_work():
        return None
    folds = _fit_together(run, wanted, splits, manifest)
    _warn_of_excluded(manifest, folds, settings)
    with folder.build() as build, StopRequest() as request:
        if build.is_part:
            mine = set(build.share({row["image_id"]: index for index, row in enumerate(manifest.rows)}).values())
            folds = [replace(fold, indices=[index for index in fold.indices if index in mine]) for fold in folds]
        work = _Work(manifest, splits, build, settings, request)
        rows = work.run(folds)
        if build.is_part:
            build.put_aside(len({index for fold in folds for index in fold.indices}), len(build.rejects))
            return None
        entry = without_paths([folds[0].generators.entry()])[0]
        del entry["part"]
        entry["folds"] = {fold.generators.name: fold.generators.part.identity() for fold in folds}
        for fold in folds:
            copy_parts([*fold.chain, fold.generators.entry()], build.path)
        if options.strips:
            work.draw(folds[0], options.strips)
        columns = [name for name in manifest.columns if name not in DROPPED]
        counts = {"inputs": len(manifest), "folds": len(folds)}
        build.finish(
            columns, rows, counts=counts, extra={"chain": [*without_paths(chain), entry], "options": _shown(options)}
        )
    return len(rows)


def _plan(
    options: TransformOptions,
    settings: Settings,
    manifest: Manifest,
    run: GeneratorRun,
    wanted: Sequence[tuple[str, str]],
) -> Plan:
    files = [run.folds[pair] / name for pair in wanted for name in (PART, FITTED_ON)]
    return Plan(
        command="transform",
        options={
            **options.identity(),
            "generators": run.identity(),
            "folds": [runs.fold_name(*pair) for pair in wanted],
            "version": VERSION,
        },
        inputs=Inputs.of(manifest, files=[*files, run.splits], verify=settings.verify),
        libraries=("numpy", "opencv-python-headless", "torch"),
        threaded=True,
    )


def _shown(options: TransformOptions) -> dict[str, Any]:
    """The options as `--config run.json` takes them again."""
    return {name: {"value": plain(getattr(options, name)), "origin": "flag"} for name in declared(TransformOptions)}


def _fit_together(
    run: GeneratorRun, wanted: Sequence[tuple[str, str]], splits: Splits, manifest: Manifest
) -> list[_Fold]:
    """The folds, each with its images.

    Raises:
        InputError: Generators and manifest do not match, or share no image.
    """
    folds = []
    for pair, generators in zip(wanted, run.load(wanted), strict=True):
        indices = indices_in(manifest, splits.runs.get(pair, {}), pair)
        if not indices:
            raise InputError(
                f"{manifest.name}: none of its images is in fold {generators.name} of {run.splits}",
                "use the images of the generators' splits; for other images, run a trained run with `cxrtool predict`",
            )
        chain = chain_of_rows([manifest.rows[index] for index in indices])
        run.check_chain(generators, chain, manifest.name)
        folds.append(_Fold(generators, indices, chain))
    run.check_labels(folds[0].generators, manifest, exactly=False)
    return folds


def _warn_of_excluded(manifest: Manifest, folds: Sequence[_Fold], settings: Settings) -> None:
    used = {index for fold in folds for index in fold.indices}
    excluded = [row["image_id"] for index, row in enumerate(manifest.rows) if index not in used]
    if excluded:
        settings.report.warn(
            f"{count_of(len(excluded), 'image is', 'images are')} in "
            f"none of these folds and excluded, such as {excluded[0]}"
        )


class _Work:
    """One call of `transform`.

    Args:
        manifest: The radiographs.
        splits: The splits of the generators.
        build: The unfinished folder.
        settings: The shared options.
        request: Checked between batches.
    """

    def __init__(
        self, manifest: Manifest, splits: Splits, build: Build, settings: Settings, request: StopRequest
    ) -> None:
        self.manifest, self.splits, self.build = manifest, splits, build
        self.settings, self.request = settings, request

    def run(self, folds: Sequence[_Fold]) -> list[Row]:
        """Write the twins of every fold; returns the rows of the new manifest, fold by fold.

        Raises:
            InputError: Not a single image can be read.
            LeakageError: Generators were fitted on a test image of their fold.
        """
        form, rows = folds[0].generators.form, self.manifest.rows
        if not self.settings.allow_leakage:
            self._refuse_seen(folds, rows)
        marks = self._marks(folds)
        done = self.build.done(marks, "transformation")
        pending = sorted({i for fold in folds for i in fold.indices if _key(fold, rows[i]) not in done})
        # An interrupted run has decoded all, under a name that depends on which images they are.
        images = pending if self.build.journal.former else sorted({i for fold in folds for i in fold.indices})
        sha256 = {
            i: done[key]["sha256"] for fold in folds for i in fold.indices if (key := _key(fold, rows[i])) in done
        }
        store = self._open(images, form, some=bool(done) or self.build.is_part) if pending else None
        stored = {index: k for k, index in enumerate(images)}
        failed = {images[k]: reason for k, reason in store.failed.items()} if store else {}
        for index, reason in sorted(failed.items()):
            self.build.reject(rows[index]["path"], reason)
        sha256 |= dict(zip(images, store.sha256, strict=True)) if store else {}
        # From here on every radiograph has a digest, even if its manifest has none.
        known = [{**row, "sha256": row.get("sha256") or sha256.get(i, "")} for i, row in enumerate(rows)]
        self._refuse_seen(folds, known)
        used = sorted({index for fold in folds for index in fold.indices if index not in failed})
        masks = self._write_masks(used, form.size, form.fit)
        for fold in folds:
            (self.build.path / IMAGES / fold.generators.name).mkdir(parents=True, exist_ok=True)
            wanted = [i for i in fold.indices if i not in failed and _key(fold, rows[i]) not in done]
            if store:
                self._write(fold, store, {stored[i]: known[i] for i in wanted}, marks)
        made = []
        for fold in folds:
            generators = fold.generators
            for index in fold.indices:
                if index in failed:
                    continue
                given = {name: cell for name, cell in known[index].items() if name not in DROPPED}
                given |= {"width": str(form.size), "height": str(form.size)}
                if given.get("mask"):
                    given["mask"] = masks.get(index, "")
                made += [
                    {**twin, "path": str(self.build.path / _name(twin))}
                    for twin in twin_rows(given, generators.repeat, generators.fold, generators.classes)
                ]
        say = self.settings.report.say
        of = f"{count_of(len(used), 'radiograph')} in {count_of(len(folds), 'fold')}"
        say(f"{count_of(len(made), 'twin')} of {of}, {form.size} x {form.size} pixels")
        return made

    def _marks(self, folds: Sequence[_Fold]) -> dict[str, str]:
        """The marks of the twins of each radiograph in each fold."""
        identity = self.build.marks()
        return {
            _key(fold, row): identity.of(
                fold.generators.part.sha256, row.get("parent_id"), row.get("sha256"), files=[row["path"]]
            )
            for fold in folds
            for row in (self.manifest.rows[index] for index in fold.indices)
        }

    def _open(self, indices: Sequence[int], form: Form, *, some: bool) -> Store:
        """The store of some radiographs; with `some`, others are done, so that none of these need be readable."""
        given = self.manifest
        rows = [given.rows[index] for index in indices]
        stores = Stores(
            self.settings, Manifest(given.columns, rows, given.origin), self.build.folder, warn=False, needed=not some
        )
        return stores.open(form.size, form.fit, self.request)

    def _refuse_seen(self, folds: Sequence[_Fold], rows: Sequence[Row]) -> None:
        for fold in folds:
            subsets = self.splits.runs[fold.generators.repeat, fold.generators.fold]
            tested = [rows[i] for i in fold.indices if subsets[known_as(rows[i], subsets)] == "test"]
            fold.generators.refuse_seen(tested, self.settings)

    def _write(self, fold: _Fold, store: Store, wanted: Mapping[int, Row], marks: Mapping[str, str]) -> None:
        """Write the twins of radiographs in one fold: their rows by their indices in the store."""
        if cluster := Cluster.of(self.settings):
            self._write_on(cluster, fold, list(wanted.values()), marks)
            return
        from cxrtool.data.reading.images import write_png

        generators = fold.generators

        def write(item: tuple[int, list[np.ndarray]]) -> tuple[str, dict[str, Any]]:
            row = wanted[item[0]]
            twins = twin_rows(row, generators.repeat, generators.fold, generators.classes)
            names = [_name(twin) for twin in twins]
            written = {
                name: write_png(self.build.path / name, pixels) for name, pixels in zip(names, item[1], strict=True)
            }
            return _key(fold, row), {"files": written, "sha256": row["sha256"]}

        made = make_twins(self.settings, generators, store, range(len(store)), list(wanted), self.request)
        label = f"transform {generators.name}"
        with (
            self.settings.report.progress(label, len(wanted)) as advance,
            ThreadPoolExecutor(self.settings.workers) as pool,
        ):
            for batch in _batches(made):
                for key, record in pool.map(write, batch):
                    self.build.journal.add(key, record, marks[key])
                advance(len(batch))

    def _write_on(self, cluster: Cluster, fold: _Fold, rows: Sequence[Row], marks: Mapping[str, str]) -> None:
        """Have the workers of a cluster read radiographs and write their twins."""
        from cxrtool.training.device import choose_device
        from cxrtool.training.twin_maker import AT_ONCE

        given, settings = fold.generators, self.settings
        form, device = given.form, str(choose_device(settings.device))
        generators = Generators(given.part.folder, form.size, form.fit, device, settings.seed, settings.threads)
        tasks = [
            TwinTask(
                row["path"],
                _key(fold, row),
                row["sha256"],
                tuple(_name(twin) for twin in twin_rows(row, given.repeat, given.fold, given.classes)),
            )
            for row in rows
        ]
        work = partial(make_batch, generators=generators, target=self.build.path)
        with settings.report.progress(f"transform {given.name}", len(tasks)) as advance:
            for task, record in cluster.map(work, tasks, AT_ONCE):
                self.request.raise_if_stopped()
                if isinstance(record, InputError):
                    raise InputError(f"{task.path}: was readable before, and is not any more: {record.message}")
                self.build.journal.add(task.key, record, marks[task.key])
                advance(1)

    def _write_masks(self, indices: Sequence[int], size: int, fit: str) -> dict[int, str]:
        """Write the masks of radiographs at the twins' size; masks that cannot be read are excluded."""
        from cxrtool.flow.parallel import map_items

        rows, identity = self.manifest.rows, self.build.marks()
        tasks = {
            index: MaskTask(row["path"], row["mask"], f"{MASKS}/{row['image_id']}.png")
            for index in indices
            if (row := rows[index]).get("mask")
        }
        marks = {task.target: identity.of(size, fit, files=[task.path, task.mask]) for task in tasks.values()}
        done = self.build.done(marks)
        found = {index: str(self.build.path / task.target) for index, task in tasks.items() if task.target in done}
        tasks = {index: task for index, task in tasks.items() if index not in found}
        if not tasks:
            return found
        (self.build.path / MASKS).mkdir(exist_ok=True)
        work = partial(resize_mask, target=self.build.path, size=size, fit=fit)
        workers, cluster = min(self.settings.workers, len(tasks)), Cluster.of(self.settings)
        results = map_items(work, list(tasks.values()), workers=workers, cluster=cluster)
        lost = []
        with self.settings.report.progress("masks", len(tasks)) as advance:
            for index, (task, result) in zip(tasks, results, strict=True):
                self.request.raise_if_stopped()
                if isinstance(result, InputError):
                    lost.append(f"{rows[index]['image_id']}: {result.message}")
                else:
                    self.build.journal.add(task.target, {"files": {task.target: result}}, marks[task.target])
                    found[index] = str(self.build.path / task.target)
                advance(1)
        if lost:
            self.settings.report.warn(
                f"{count_of(len(lost), 'mask is', 'masks are')} excluded, such as that of {lost[0]}"
            )
        return found

    def draw(self, fold: _Fold, count: int) -> None:
        """Draw a few radiographs of a fold beside their twins."""
        generators = fold.generators
        usable: dict[str, list[tuple[Row, list[str]]]] = {}
        for row in (self.manifest.rows[index] for index in fold.indices):
            twins = twin_rows(row, generators.repeat, generators.fold, generators.classes)
            paths = [str(self.build.path / _name(twin)) for twin in twins]
            if all(Path(path).is_file() for path in paths):
                usable.setdefault(row.get("label", ""), []).append((row, paths))
        # The same number of each label, spread over the manifest.
        labels = sorted(usable)
        number = min(count, sum(map(len, usable.values())))
        shown = []
        for k, label in enumerate(labels):
            found = usable[label]
            share = min(len(found), (number + len(labels) - 1 - k) // len(labels))
            shown += [found[(2 * i + 1) * len(found) // (2 * share)] for i in range(share)]
        cases = [
            ("   ".join(filter(None, (row["image_id"], row.get("label")))), row["path"], paths) for row, paths in shown
        ]
        draw_twins(self.build.path / STRIPS, cases, generators.classes, generators.form)
        self.settings.report.say(
            f"{count_of(len(shown), 'radiograph')} of {generators.name} "
            f"beside their twins: {self.build.folder.shown / STRIPS}"
        )


def _key(fold: _Fold, row: Row) -> str:
    """The key in the journal of the twins of a radiograph in a fold."""
    return f"{fold.generators.name}/{row['image_id']}"


def _name(twin: Row) -> str:
    """The file of a twin, relative to the folder."""
    return f"{IMAGES}/{runs.fold_name(twin['repeat'], twin['fold'])}/{twin['image_id']}.png"


def _batches(made: Iterator[Any]) -> Iterator[list[Any]]:
    from itertools import islice

    while batch := list(islice(made, 8)):
        yield batch
