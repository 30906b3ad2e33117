"""Match histograms, suppress ribs, equalise contrast, in any order.

Writes images/ with the same size and bit depth, manifest.csv, strips.png (a few images after each step) and
rejects.csv. Masks stay valid, because no pixel moves. With --splits, the reference of each fold is one of its training
images, the images are in images/rRfF/, and `train` uses the right ones in each fold.

A list of paths: find new -name '*.png' | cxrtool enhance - --steps clahe -o enhanced

Example: cxrtool enhance prepared --steps match-histogram,suppress-ribs,clahe --splits splits.csv -o enhanced
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from cxrtool.commands.enhance.images import Kept, Task, enhance_one, modules_of
from cxrtool.commands.enhance.reference import BEFORE, Fold, References, choose, divide, given
from cxrtool.data.confinement import check_inside
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.splitting.splits import Splits, known_as, read_splits, splits_digest
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.data.tables.views import Columns, Packed, RowView
from cxrtool.errors import InputError, NothingReadError, UsageError, count_of
from cxrtool.flow import common_options
from cxrtool.flow.assignment import Seen, splits_file
from cxrtool.flow.chain import ALL, Chain, chain_of_manifest, copy_parts, is_divided, own_fold
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.folder import AT, Build, Inputs, Plan, StepFolder, without_paths
from cxrtool.flow.images import read_images
from cxrtool.flow.on_device import served, serving
from cxrtool.flow.parallel import map_items
from cxrtool.flow.replaying import MATCH, STEPS, Step, ribs_on
from cxrtool.flow.settings import READING, RUNNING, SCALING, Settings
from cxrtool.options import Options, declared, did_you_mean, flag_of, option, plain

BLACK = 0.1
"""The largest black share of a reference without a warning."""

VERSION = 2
"""Raised when the same options would give other pixels or files."""

IMAGES, STRIPS = "images", "strips.png"


@dataclass(frozen=True)
class EnhanceOptions(Options):
    """The options of `enhance`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "workers", "device", *SCALING, *READING, *RUNNING)

    sources: tuple[Path, ...] = common_options.images()
    steps: str = option("Some of {choices}, in the order of use.", metavar="A,B,C", choices=STEPS)
    reference: Path | None = option(
        "The image whose histogram the others are matched to, after the steps before match-histogram.",
        None,
        metavar="IMAGE",
        shown="the one nearest to the mean histogram",
    )
    splits: Path | None = option(
        "Choose a reference in each fold, among its training images; images are then written for each fold.",
        None,
        shown="one reference among all images",
    )
    ribs: Path | None = option(
        "A rib network from `fit ribs` or `weights import`.",
        None,
        metavar="PART",
        shown="the one that comes with cxrtool",
    )
    clahe_clip: float = option("Clip limit, in multiples of the mean count of the grey levels.", 2.0)
    clahe_tiles: int = option("Tiles in each row and in each column.", 8, minimum=1, maximum=64)
    strips: int = option("Images in strips.png, which shows every step; 0 for none.", 4, minimum=0, maximum=50)

    def __post_init__(self) -> None:
        """Check the steps.

        Raises:
            UsageError: There is none, or one that is unknown or listed twice.
        """
        names = self.names()
        unknown = next((name for name in names if name not in STEPS), None)
        if unknown or not names or len(set(names)) < len(names):
            known, found = ",".join(STEPS), self.steps if unknown is None else unknown
            # A part of a name, as in "ribs", is enough to be understood.
            meant = did_you_mean(found, STEPS, 0.45) if unknown else ""
            raise UsageError(
                f"--steps: expected some of {known}, each once, in the order of use, found '{found}'{meant}"
            )

    def names(self) -> list[str]:
        """The steps, in the order of use."""
        return [name.strip() for name in self.steps.split(",") if name.strip()]


def run(options: EnhanceOptions, settings: Settings) -> None:
    """Enhance."""
    enhance(options, settings)


def enhance(options: EnhanceOptions, settings: Settings) -> int | None:
    """Enhance the images of a manifest.

    Returns:
        The number of images written, or None where there was nothing to do.

    Raises:
        UsageError: An option has an invalid value, or belongs to a step that is not in `--steps`.
        InputError: Manifest, splits, reference or network cannot be read, or not a single image.
        StrictError: `--strict`, and an image could not be read.
    """
    _check(options, settings)
    manifest = read_images(options.sources, settings)
    manifest.check_file_names()
    if not len(manifest):
        raise InputError(f"{manifest.name}: expected images, found none")
    splits = read_splits(options.splits) if options.splits else None
    steps = [STEPS[name] for name in options.names()]
    entries = [_entry(step, options) for step in steps]
    chain = chain_of_manifest(manifest)
    folder = StepFolder(settings.out, _plan(options, settings, manifest, entries), settings)
    if not folder.needs_work():
        return None
    if splits:
        for entry in entries:
            if AT in entry:
                warn_of_seen(manifest.records, splits, Path(entry[AT]), settings)
    with folder.build() as build, _networks(entries, settings):
        work = _Work(manifest, chain, entries, build, settings)
        rows, done = work.run(options, splits if any(step.fitted for step in steps) else None)
        if build.is_part:
            return None
        whole = [*chain, *done]
        copy_parts(whole, build.path)
        if options.strips:
            work.draw(options.strips)
        columns = [*manifest.columns, *(name for name in ("parent_id", "repeat", "fold") if name in rows.cells)]
        extra = {
            "chain": without_paths(whole),
            "options": _shown(options, settings),
            "references": work.references.names,
        }
        build.finish(columns, rows, counts={"inputs": len(manifest)}, extra=extra)
    return len(rows)


def _networks(entries: Chain, settings: Settings) -> contextlib.AbstractContextManager[None]:
    """Run the networks of the steps on `--device`; on a cluster each worker runs them on its processor."""
    if not any(AT in entry for entry in entries):
        return contextlib.nullcontext()
    if settings.cluster and settings.device not in ("auto", "cpu"):
        raise UsageError(
            f"--device {settings.device}: with --cluster the workers run the networks on their processors",
            "leave one of the two away",
        )
    if settings.cluster:
        return contextlib.nullcontext()
    from cxrtool.training.device import choose_device

    return serving(choose_device(settings.device), ribs_on)


def _options_of_steps() -> dict[str, list[str]]:
    """The options that only some steps take, each with these steps."""
    found: dict[str, list[str]] = {}
    for step in STEPS.values():
        for name in step.options:
            found.setdefault(name, []).append(step.name)
    return found


def _check(options: EnhanceOptions, settings: Settings) -> None:
    names = options.names()
    for name, takers in _options_of_steps().items():
        if settings.origins.get(name) == "flag" and not set(takers) & set(names):
            raise UsageError(f"{flag_of(name)} belongs to the step {' or '.join(takers)}, which is not in --steps")
    if MATCH.name in names and options.reference and options.splits:
        raise UsageError(
            "--reference is one image for all folds, --splits chooses one in each fold: give only one of the two"
        )
    if not options.clahe_clip > 0:
        raise UsageError(f"--clahe-clip: expected a number above 0, found {options.clahe_clip:g}")


def _entry(step: Step, options: EnhanceOptions) -> dict[str, Any]:
    """The entry of a step, located; what is fitted is added later.

    Raises:
        InputError: Its network is missing or damaged.
    """
    from cxrtool.models.parts import default_part, read_part

    values = {name: getattr(options, option_name) for option_name, name in step.options.items() if name}
    if step.part:
        folder = getattr(options, step.part)
        part = read_part(folder, step.part) if folder else default_part(step.part)
        values |= {"part": part.identity(), AT: str(part.folder)}
    return step.entry(**values)


def _plan(options: EnhanceOptions, settings: Settings, manifest: Manifest, entries: Chain) -> Plan:
    files = [options.reference] if options.reference else []
    inputs = Inputs.of(manifest, files=files, verify=settings.verify)
    if options.splits:
        # Splits are identified by content: the same splits written again change nothing.
        inputs = inputs.after(splits_file(options.splits))
    # The options of a step are in its entry; without the step they affect nothing.
    of_steps = _options_of_steps()
    return Plan(
        command="enhance",
        options={
            **{name: value for name, value in options.identity().items() if name not in of_steps},
            "steps": without_paths(entries),
            "reference": options.reference is not None,
            "splits": splits_digest(splits_file(options.splits)) if options.splits else None,
            "version": VERSION,
        },
        inputs=inputs,
        libraries=("numpy", "opencv-python-headless", *(["torch"] if any(AT in entry for entry in entries) else [])),
    )


def _shown(options: EnhanceOptions, settings: Settings) -> dict[str, Any]:
    """The options as `--config run.json` takes them again."""
    return {
        name: {"value": plain(getattr(options, name)), "origin": settings.origins.get(name, "default")}
        for name in declared(EnhanceOptions)
    }


def warn_of_seen(rows: Sequence[RowView], splits: Splits, part: Path, settings: Settings) -> int:
    """Warn where the rib network was fitted on test images, or on their patients; it saw no labels."""
    fitted = Seen.of([part])
    seen = [
        row["image_id"]
        for row in rows
        if fitted.by(row) and any(subsets.get(known_as(row, subsets)) == "test" for subsets in splits.runs.values())
    ]
    if seen:
        settings.report.warn(
            f"the rib network was fitted on {len(seen)} test images of these splits, or on their patients, such as "
            f"{seen[0]}; it saw no labels"
        )
    return len(seen)


class _Work:
    """One call of `enhance`.

    Args:
        manifest: The images.
        chain: Their preprocessing so far.
        entries: The steps, located; the entry of the match without quantiles.
        build: The unfinished folder.
        settings: The shared options.
    """

    def __init__(self, manifest: Manifest, chain: Chain, entries: Chain, build: Build, settings: Settings) -> None:
        self.manifest, self.chain, self.entries = manifest, chain, entries
        self.build, self.settings = build, settings
        at = next((i for i, entry in enumerate(entries) if STEPS[entry["step"]].fitted), None)
        self.before, self.after = (entries[:at], entries[at + 1 :]) if at is not None else ([], entries)
        self.matching = at is not None
        self.references = References([], {}, {}, "", [])
        self.failed: dict[int, str] = {}
        self.kept: dict[int, Kept] = {}
        # The output of a network is slow enough to be kept in a file until the match; other steps are repeated.
        self.keep = any(AT in entry for entry in self.before)

    def run(self, options: EnhanceOptions, splits: Splits | None) -> tuple[Columns, Chain]:
        """Enhance every image.

        Returns:
            The rows of the new manifest, and the entries of the steps for the chain.

        Raises:
            InputError: Not a single image can be read.
        """
        rows, ways, done = self.manifest.records, [self.entries], self.entries
        folds = divide(rows, splits)
        if self.matching:
            self._find_references(options, folds)
            self._warn_of_black()
            ways = [[entry, *self.after] for entry in self.references.entries]
            done = [*self.before, self.references.entry(), *self.after]
        else:
            self.references.of_fold = {ALL: 0}
        self._warn_of_excluded(folds)
        if self.build.is_part:
            mine = set(self.build.share({row["image_id"]: index for index, row in enumerate(rows)}).values())
            folds = [replace(fold, indices=[index for index in fold.indices if index in mine]) for fold in folds]
        self._write(folds, ways)
        shutil.rmtree(self.build.path / BEFORE, ignore_errors=True)
        for index, reason in sorted(self.failed.items()):
            self.build.reject(rows[index]["path"], reason)
        made = Packed(
            self._row(rows[index], fold) for fold in folds for index in fold.indices if index not in self.failed
        ).columns()
        if self.build.is_part:
            used = {index for fold in folds for index in fold.indices}
            self.build.put_aside(len(used - self.failed.keys()), len(used & self.failed.keys()))
            return made, done
        if not made:
            failed = ((rows[index]["path"], reason) for index, reason in self.failed.items())
            raise NothingReadError(self.manifest.name, len(rows), *next(failed, ("", "none is in the splits")))
        divided = f", {count_of(len(folds), 'fold')} with {len(ways)} references" if splits else ""
        self.settings.report.say(
            f"{count_of(len(made), 'image')}{divided}: {', then '.join(e['step'] for e in self.entries)}"
        )
        return made, done

    def _find_references(self, options: EnhanceOptions, folds: Sequence[Fold]) -> None:
        say, warn = self.settings.report.say, self.settings.report.warn
        if options.reference:
            self.references = given(str(options.reference), self.before, self.settings.root)
            return
        if is_divided(self.manifest) and not options.splits:
            raise InputError(
                f"{self.manifest.name}: its images were made fold by fold, so each fold needs its own reference",
                "add --splits, or --reference IMAGE",
            )
        self.references, self.failed, self.kept = choose(
            self.manifest.records, folds, self.before, self.build, self.settings, keep=self.keep
        )
        if options.splits is None:
            warn(
                "the reference is chosen among all images, including test images (their grey values are used, not "
                "their labels); --splits chooses it in each fold among the training images"
            )
            say(f"reference: {self.references.names[ALL]}, whose histogram is nearest to the mean")

    def _warn_of_black(self) -> None:
        """Warn of black borders and air: they count in a histogram, and matching makes other images as black."""
        warn = self.settings.report.warn
        if any(entry.get("fit") == "pad" and entry.get("size") != "native" for entry in self.chain):
            warn(
                "these images have black borders from `prepare --fit pad`, which count in their histograms: matching "
                "darkens lungs or lightens borders; prepare them with --fit squash, or at their native size"
            )
        found = self.references
        shares = {name: found.darkest[index] for name, index in found.of_fold.items()}
        worst = max(shares, key=lambda name: shares[name])
        if shares[worst] > BLACK:
            warn(
                f"the reference {found.names[worst]} is black in {shares[worst]:.0%} of its area (borders, air): the "
                f"same share of every image becomes black, possibly lungs; see {STRIPS}, or give a --reference without "
                "borders"
            )

    def _warn_of_excluded(self, folds: Sequence[Fold]) -> None:
        used = {index for fold in folds for index in fold.indices}
        excluded = [name for index, name in enumerate(self.manifest.column("image_id")) if index not in used]
        if excluded:
            self.settings.report.warn(
                f"{count_of(len(excluded), 'image is', 'images are')} in no "
                f"fold of the splits and excluded, such as {excluded[0]}"
            )

    @staticmethod
    def _name(row: RowView, fold: Fold) -> str:
        return "/".join(filter(None, (IMAGES, fold.name or own_fold(row), f"{row['image_id']}.png")))

    def _write(self, folds: Sequence[Fold], ways: Sequence[Chain]) -> None:
        """Write the images that are not there yet; each is read once, and enhanced once for each reference."""
        rows, of_image = self.manifest.records, dict[int, list[Fold]]()
        for fold in folds:
            for index in fold.indices:
                if index not in self.failed:
                    of_image.setdefault(index, []).append(fold)
        identity = self.build.marks("splits")
        fitted = [identity.of(without_paths(way)) for way in ways]
        marks = {}
        for index, found in of_image.items():
            task = self._task(index, found)
            to_write = [(fitted[way], names) for way, names in task.outputs]
            marks[task.key] = identity.of(to_write, rows[index].get("sha256"), files=[task.path])
        done = self.build.done(marks, "image")
        pending = [index for index in of_image if rows[index]["image_id"] not in done]
        for parent in {self._name(row, fold).rpartition("/")[0] for fold in folds for row in rows}:
            check_inside(self.build.path / parent)
            (self.build.path / parent).mkdir(parents=True, exist_ok=True)
        work = partial(enhance_one, target=self.build.path, before=self.before, ways=ways)
        preload = modules_of(self.entries)
        tasks = (self._task(index, of_image[index]) for index in pending)
        workers, cluster = min(self.settings.workers, len(pending) or 1), Cluster.of(self.settings)
        results = map_items(served(work), tasks, workers=workers, preload=preload, cluster=cluster)
        with self.settings.report.progress("enhance", len(pending)) as advance:
            for index, (task, result) in zip(pending, results, strict=True):
                if isinstance(result, InputError):
                    self.failed[index] = result.message
                else:
                    self.build.journal.add(task.key, result, marks[task.key])
                advance(1)

    def _task(self, index: int, folds: Sequence[Fold]) -> Task:
        """What is to be written of an image for these folds."""
        row, names = self.manifest.records[index], dict[int, list[str]]()
        for fold in folds:
            names.setdefault(self.references.of_fold[fold.name], []).append(self._name(row, fold))
        files = tuple((way, tuple(found)) for way, found in names.items())
        return Task(row["image_id"], row["path"], files, row, self.kept.get(index))

    def _row(self, row: RowView, fold: Fold) -> Row:
        """The row of a written image.

        Its digests stay those of the original radiograph, as with `prepare`: by them a model recognises later that it
        was trained on this radiograph, whatever was done to the pixels.
        """
        made = {**row, "path": f"{self.build.path}/{self._name(row, fold)}"}
        if fold.name and not row.get("repeat"):
            made |= {
                "image_id": f"{row['image_id']}_{fold.name}",
                "parent_id": original_of(row),
                "repeat": fold.repeat,
                "fold": fold.fold,
            }
        return made

    def draw(self, count: int) -> None:
        """Draw some images, and the reference, after each step."""
        from cxrtool.commands.enhance.images import look_at_stages
        from cxrtool.data.reading.images import write_png
        from cxrtool.imaging.sheet import SIDE, draw_strips

        references = self.references
        chain = [*self.before, *references.entries[:1], *self.after] if self.matching else self.entries
        usable = [row for index, row in enumerate(self.manifest.records) if index not in self.failed]
        number = min(count, len(usable))
        shown = [usable[(2 * k + 1) * len(usable) // (2 * number)] for k in range(number)]
        cases = [(row["path"], "   ".join(filter(None, (row["image_id"], row.get("label"))))) for row in shown]
        if references.path:
            fold, name = next(iter(references.names.items()))
            of = f" of {fold}" if fold else ""
            cases.insert(0, (references.path, f"reference{of}: {Path(name).name}"))
        work = partial(look_at_stages, chain=chain, side=SIDE)
        results = map_items(served(work), [path for path, _ in cases], workers=min(self.settings.workers, len(cases)))
        rows = [
            (caption, found)
            for (_, caption), (_, found) in zip(cases, results, strict=True)
            if not isinstance(found, InputError)
        ]
        titles = ["original", *(entry["step"] for entry in chain)]
        write_png(self.build.path / STRIPS, draw_strips(titles, rows))
        self.settings.report.say(f"every step on {count_of(len(rows), 'image')}: {self.build.folder.shown / STRIPS}")
