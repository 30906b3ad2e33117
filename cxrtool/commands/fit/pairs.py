"""The images of `fit` with their targets: listed, divided, decoded."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.cache import open_cache
from cxrtool.data.file_names import MANIFEST, METADATA
from cxrtool.data.splitting.grouping import PATIENT, hashed
from cxrtool.data.splitting.splits import SUBSETS, read_splits
from cxrtool.data.tables.manifest import PATH_COLUMNS, Manifest, Row, read_manifest, read_table
from cxrtool.data.tables.missing import missing_words
from cxrtool.data.tables.severity import HIGHEST
from cxrtool.data.tables.views import RowView
from cxrtool.errors import InputError, LeakageError, NothingReadError, count_of
from cxrtool.flow.assignment import Assignment, check_pixels, check_sides, report_changes
from cxrtool.flow.segmenting import reference_of
from cxrtool.flow.segmenting.opacities import FOUND, given_of
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.flow.signals import StopRequest
    from cxrtool.imaging.fits import Form
    from cxrtool.imaging.masks import Mask
    from cxrtool.training.store import Store

TRUTH = "truth.csv"

WHAT = {"lungs": "a lung mask", "opacities": "a mask of opacities", "ribs": "an image without ribs"}


@dataclass(frozen=True)
class Targets:
    """Where the targets of a manifest are.

    Attributes:
        column: Has the path of the target.
        clear: Labels of images whose target is empty where they have none.
        extent: A column with an extent from 0 to 8, which says how much of the lungs the target covers where it is not
            known; empty for none.
        lungs: The column of the lung mask, where it is used.
    """

    column: str
    clear: frozenset[str] = frozenset()
    extent: str = ""
    lungs: str = ""

    def drawn(self, row: RowView) -> bool:
        """Whether the target of an image is known: a file, or empty."""
        return bool(row[self.column]) or row.get("label", "") in self.clear

    def rated_share(self, row: RowView) -> float | None:
        """The opaque share of the lungs by a rater's extent, or 0 of a clear class; None where neither is known.

        Raises:
            InputError: Its extent is none.
        """
        if cell := row.get(self.extent, "") if self.extent else "":
            try:
                return share_of_extent(float(cell))
            except ValueError as error:
                raise InputError(
                    f"{row['image_id']}: expected an extent from 0 to 8 in '{self.extent}', found '{cell}'"
                ) from error
        return 0.0 if row.get("label", "") in self.clear and not row[self.column] else None

    def known(self, row: RowView) -> bool:
        """Whether an image can be fitted on."""
        return self.drawn(row) or bool(self.extent and row.get(self.extent) and row.get(self.lungs))

    def pair(self, row: RowView) -> Pair:
        """The files of an image.

        Raises:
            InputError: Its extent is none.
        """
        lungs = row.get(self.lungs, "")
        share = None if self.drawn(row) else self.rated_share(row)
        target = Path(row[self.column]) if row[self.column] else None
        return Pair(Path(row["path"]), target, Path(lungs) if lungs else None, share)


@dataclass(frozen=True)
class Pair:
    """An image and its target.

    Attributes:
        image: Its file.
        target: The file of the target; None where it is empty, or only its share is known.
        lungs: The file of the lung mask, where it is known.
        share: How much of the lungs the target covers, where nothing else is known about it.
    """

    image: Path
    target: Path | None
    lungs: Path | None = None
    share: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that exist."""
        return tuple(file for file in (self.image, self.target, self.lungs) if file)


SHARE_OF_A_POINT = 0.08
"""Opaque share of the lungs for each point of an extent from 0 to 8. 53 outlined radiographs have 0.05, 0.11, 0.32
and 0.54 at mean extents of 0.2, 1.5, 4 and 7."""


def share_of_extent(extent: float) -> float:
    """The opaque share of the lungs at an extent.

    Raises:
        ValueError: It is not from 0 to 8.
    """
    if not 0 <= extent <= HIGHEST:
        raise ValueError(extent)
    return SHARE_OF_A_POINT * extent


def read_pairs(path: Path, kind: str, targets: Targets, settings: Settings) -> Manifest:
    """Read the images that have a target; those without are excluded with a count.

    Args:
        path: A manifest, a step's folder, or a folder of `cxrtool phantom`.
        kind: `lungs`, `opacities` or `ribs`.
        targets: Where they are; paths are relative to the table's folder.
        settings: The shared options.

    Raises:
        InputError: It cannot be read, has no such column, or no image has a target.
    """
    column = targets.column
    drawn = path.is_dir() and not (path / MANIFEST).exists() and (path / METADATA).is_file()
    manifest = _read_drawn(path, settings) if drawn else read_manifest(path, root=settings.root)
    if column not in manifest.columns:
        hint = {
            "lungs": "`cxrtool prepare` keeps the masks of a data set; or give another --target-column",
            "opacities": "`cxrtool prepare` keeps the files of a column opacities; or give another --target-column",
            "ribs": "`cxrtool phantom --truth all` draws them, `prepare --dataset jsrt` reads them from BSE-JSRT",
        }[kind]
        found = ", ".join(manifest.columns)
        raise InputError(
            f"{manifest.name}: expected a column '{column}' with {WHAT[kind]} for each image, found: {found}", hint
        )
    if manifest.origin and column not in PATH_COLUMNS and not drawn:
        base = manifest.origin.absolute().parent
        for row in manifest.rows:
            row[column] = str(base / row[column]) if row[column] else ""
    if targets.extent in manifest.columns:
        absent = missing_words(manifest.column(targets.extent))
        for row in manifest.rows:
            if row[targets.extent].strip().casefold() in absent:
                row[targets.extent] = ""
    _leave_own_answers(manifest, kind, column, settings)
    having = [row["image_id"] for row in manifest.rows if targets.known(row)]
    if not any(row[column] for row in manifest.rows):
        raise InputError(
            f"{manifest.name}: none of its {count_of(len(manifest), 'image')} has {WHAT[kind]} in '{column}'"
        )
    if len(having) < len(manifest):
        missing = len(manifest) - len(having)
        settings.report.say(
            f"{manifest.name}: {missing} of {count_of(len(manifest), 'image')} without {WHAT[kind]}; excluded"
        )
    return manifest.subset(having)


def _leave_own_answers(manifest: Manifest, kind: str, column: str, settings: Settings) -> None:
    """Take the masks of the data set, not those that `segment` found: a network would learn its own answers."""
    given = {("lungs", "mask"): reference_of, ("opacities", FOUND): given_of}.get((kind, column))
    if given is None:
        return
    own = [row for row in manifest.rows if row[column] and row[column] != given(row)]
    for row in own:
        row[column] = given(row)
    if own:
        settings.report.say(
            f"{manifest.name}: `segment` found {len(own)} of the masks in '{column}'; instead of them, those that the "
            f"images had before, {sum(bool(row[column]) for row in own)} masks"
        )


def _read_drawn(folder: Path, settings: Settings) -> Manifest:
    """Read a folder of phantoms with their truth, without `prepare`."""
    from cxrtool.data.datasets.listing import list_images
    from cxrtool.data.datasets.record import Request
    from cxrtool.data.tables.ids import patient_id

    listing = list_images([folder / METADATA], "csv", Request(), None)
    rows, columns = [record.columns for record in listing.records], listing.columns
    for row in rows:
        row["patient_id"] = patient_id(row.get("patient_id", ""), row["source"], None)
    if (folder / TRUTH).is_file():
        truth = read_table(folder / TRUTH)
        truth_rows = {str((folder / row["path"]).absolute()): row for row in truth.rows}
        files = [
            name for name in ("right", "left", "heart", "lesions", "opacities", "ribless") if name in truth.columns
        ]
        for row in rows:
            beside = truth_rows.get(row["path"], {})
            row.update({name: str((folder / beside[name]).absolute()) for name in files if beside.get(name)})
        columns += [name for name in files if any(row.get(name) for row in rows)]
    for row in rows:
        row.update({name: row.get(name, "") for name in columns})
    return Manifest(["image_id", *(name for name in columns if name != "image_id")], rows, folder / METADATA)


def join(manifest: Manifest, more: Manifest, column: str) -> Manifest:
    """Join two tables.

    Raises:
        InputError: An id is listed in both.
    """
    twice = sorted({row["image_id"] for row in manifest.rows} & {row["image_id"] for row in more.rows})
    if twice:
        raise InputError(f"--also {more.name}: the image_id '{twice[0]}' is also listed in {manifest.name}")
    columns = list(dict.fromkeys([*manifest.columns, *more.columns]))
    rows = [{**dict.fromkeys(columns, ""), **row} for row in (*manifest.rows, *more.rows)]
    return Manifest(columns, rows, manifest.origin)


def divide(manifest: Manifest, own: int, validation: float, balance: str | None, settings: Settings) -> Assignment:
    """Hold out a share of the patients for validation; no patient is in both subsets.

    Args:
        manifest: The images; those from index `own` on are for training only.
        own: Number of images that may be held out.
        validation: Share of them.
        balance: A column by whose values the split is stratified.
        settings: The seed, and the shared options.

    Raises:
        InputError: There are fewer than two patients.
        LeakageError: A patient has images for training only and images that are held out.
    """
    from cxrtool.data.splitting.divider import Divider

    if not validation:
        return Assignment("0", "0", {"train": list(range(len(manifest))), "validation": [], "test": []})
    # Patients are divided without regard to class: a class of one patient must not be an error.
    rows = [{**row, "label": "", "stratum": row.get(balance or "", "")} for row in manifest.rows[:own]]
    placed = Divider(rows, strata=("stratum",), seed=settings.seed).holdout(
        {"train": 1 - validation, "validation": validation}
    )
    placed |= {row["image_id"]: "train" for row in manifest.rows[own:]}
    return _assign(manifest, placed, "0", "0", settings)


def read_folds(path: Path, manifest: Manifest, own: int, settings: Settings) -> list[Assignment]:
    """The folds of a splits file; images from index `own` on are training images in each of them.

    Raises:
        InputError: The splits cannot be read, or a fold has no training image.
        LeakageError: A patient or an image is in more than one subset, and `--allow-leakage` was not given.
    """
    splits = read_splits(path)
    known = {row["image_id"] for row in manifest.rows[:own]}
    unknown = len(splits.ids() - known)
    if unknown:
        settings.report.say(
            f"{splits.name}: {unknown} of its {count_of(len(splits.ids()), 'image')} are not in the manifest; excluded"
        )
    report_changes(splits, manifest.rows[:own], settings)
    always = {row["image_id"]: "train" for row in manifest.rows[own:]}
    folds = []
    for (repeat, fold), subsets in splits.runs.items():
        placed = {name: subset for name, subset in subsets.items() if name in known} | always
        folds.append(_assign(manifest, placed, repeat, fold, settings))
        if not folds[-1].subsets["train"]:
            raise InputError(f"{splits.name}: fold {folds[-1].name} has no training image in {manifest.name}")
    return folds


def _assign(manifest: Manifest, placed: dict[str, str], repeat: str, fold: str, settings: Settings) -> Assignment:
    index = {row["image_id"]: i for i, row in enumerate(manifest.rows)}
    subsets: dict[str, list[int]] = {name: [] for name in SUBSETS}
    for name, subset in placed.items():
        subsets[subset].append(index[name])
    assignment = Assignment(repeat, fold, {name: sorted(indices) for name, indices in subsets.items()})
    try:
        check_sides(manifest, placed, assignment.name, settings)
    except LeakageError as error:
        hint = "`cxrtool split` keeps them together; --allow-leakage fits nevertheless"
        raise LeakageError(error.message, hint) from error
    return assignment


@dataclass(frozen=True)
class Decoded:
    """Decoded images and targets.

    Attributes:
        images: In the input form of the network.
        targets: In the same form.
        failed: Index and reason of each pair that cannot be used.
        lungs: The lung masks in the same form, where shares of the lungs are fitted.
    """

    images: Store
    targets: Store
    failed: dict[int, str]
    lungs: Store | None = None

    def usable(self, assignment: Assignment) -> Assignment:
        """The assignment without pairs that cannot be used."""
        kept = {name: [i for i in indices if i not in self.failed] for name, indices in assignment.subsets.items()}
        return replace(assignment, subsets=kept)


def open_pairs(
    manifest: Manifest,
    kind: str,
    targets: Targets,
    form: Form,
    dilate: int,
    settings: Settings,
    request: StopRequest,
    decoder: str,
    beside: int = 1,
) -> Decoded:
    """Decode all images and targets once, or find them in the cache.

    Args:
        manifest: The images, each with a target.
        kind: `lungs`, `opacities` or `ribs`.
        targets: Where they are.
        form: The network's input form.
        dilate: Side in pixels of the square by which masks are dilated.
        settings: The shared options.
        request: Checked between images.
        decoder: Version of the decoding library; part of the cache's key.
        beside: Number of processes that have the pairs on one device.

    Raises:
        InputError: Not one pair can be read.
        StoppedError: A signal arrived.
    """
    from cxrtool.flow.parallel import map_items
    from cxrtool.training.store import open_store

    pairs = [targets.pair(row) for row in manifest.rows]
    stores = []
    works = {
        "pictures": partial(decode_picture, form=form),
        "targets": partial(decode_target, form=form, kind=kind, dilate=dilate),
    }
    if targets.extent:
        works["lungs"] = partial(decode_lungs, form=form)
    for label, decode in works.items():
        key: dict[str, Any] = {"fit": label, "kind": kind, "form": form.to_json(), "decoder": decoder}
        key |= {"dilate": dilate, "shares": [pair.share for pair in pairs]} if label == "targets" else {"dilate": 0}
        with settings.report.progress(f"decoding {label}", len(pairs)) as advance:

            def count(number: int, advance: Any = advance) -> None:
                advance(number)
                request.raise_if_stopped()

            stores.append(
                open_store(
                    pairs,
                    decode,
                    size=form.size,
                    key=key,
                    cache=open_cache(settings.cache),
                    mapper=map_items,
                    workers=settings.workers,
                    made_by=shlex.join(["cxrtool", *settings.argv[1:]]),
                    advance=count,
                    say=settings.report.say,
                )
            )
    images, shown, *more = (replace(store, beside=beside) for store in stores)
    check_pixels(manifest, images.sha256)
    failed = {**shown.failed, **images.failed, **(more[0].failed if more else {})}
    if len(failed) == len(pairs):
        raise NothingReadError(manifest.name, len(pairs), pairs[0].image, failed[0], "a pair")
    return Decoded(images, shown, failed, more[0] if more else None)


def decode_picture(pair: Pair, *, form: Form) -> tuple[np.ndarray, str]:
    """An image in the input form of the network, and the SHA-256 of its pixels; run in a worker process.

    Raises:
        ImageError: It cannot be read.
    """
    from cxrtool.data.reading.images import read_image
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.view import levels, see

    pixels = read_image(pair.image, capture_decoder_errors=True).pixels
    depth = 8 if form.equalise or pixels.itemsize == 1 else 16
    lungs = read_lungs(pair, pixels.shape) if form.crop_lungs else None
    return levels(see(pixels, form, lungs), depth), pixel_sha256(pixels)


def decode_target(pair: Pair, *, form: Form, kind: str, dilate: int) -> tuple[np.ndarray, str]:
    """The target in the input form of the network, and the SHA-256 of its pixels.

    Where only its share of the lungs is known, it is grey all over the lungs.

    Raises:
        ImageError: Image or target cannot be read, or they do not match.
    """
    import numpy as np

    from cxrtool.data.reading.images import read_image
    from cxrtool.errors import ImageError
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.view import see, show_mask, show_target
    from cxrtool.models.parts import MASKS

    pixels = read_image(pair.image, capture_decoder_errors=True).pixels
    lungs = read_lungs(pair, pixels.shape) if form.crop_lungs or pair.share is not None else None
    placed = see(pixels, form, lungs)
    if pair.target is None:
        shown = np.zeros((form.size, form.size), np.uint8)
        if pair.share is not None and lungs is not None:
            shown = np.rint(show_mask(lungs, placed, form) * np.float32(pair.share)).astype(np.uint8)
        return shown, pixel_sha256(shown)
    try:
        target = read_image(pair.target, capture_decoder_errors=True).pixels
        shown = show_mask(target, placed, form, dilate) if kind in MASKS else show_target(target, placed, form)
    except ImageError as error:
        raise ImageError(f"{pair.target.name}: {error.message}") from error
    return shown, pixel_sha256(target)


def decode_lungs(pair: Pair, *, form: Form) -> tuple[np.ndarray, str]:
    """The lung mask in the input form of the network, and the SHA-256 of its pixels.

    Raises:
        ImageError: Image or mask cannot be read, or they do not match.
    """
    from cxrtool.data.reading.images import read_image
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.view import see, show_mask

    pixels = read_image(pair.image, capture_decoder_errors=True).pixels
    lungs = read_lungs(pair, pixels.shape)
    return show_mask(lungs, see(pixels, form, lungs), form), pixel_sha256(lungs)


def read_lungs(pair: Pair, shape: tuple[int, ...]) -> Mask:
    """The lung mask of a pair at the size of its image (H, W).

    Raises:
        ImageError: There is none, it cannot be read, or it has other proportions than the image.
    """
    from cxrtool.data.reading.images import read_image
    from cxrtool.errors import ImageError
    from cxrtool.imaging.resize import binary, resample
    from cxrtool.imaging.view import check_proportions

    if pair.lungs is None:
        raise ImageError("it has no lung mask, to which it would be cropped")
    mask = read_image(pair.lungs, capture_decoder_errors=True).pixels
    check_proportions(mask, (shape[0], shape[1]), "its lung mask")
    return binary(resample(binary(mask), shape[0], shape[1]))


def seen_rows(manifest: Manifest, assignment: Assignment, store: Store) -> list[Row]:
    """The rows of `fitted_on.csv`: training and validation images."""
    rows = []
    for subset in ("train", "validation"):
        for i in assignment.subsets[subset]:
            row = manifest.rows[i]
            rows.append(
                {
                    "image_id": row["image_id"],
                    "patient_id": hashed(row.get(PATIENT, "")),
                    "sha256": row.get("sha256") or store.sha256[i],
                    "subset": subset,
                }
            )
    return rows
