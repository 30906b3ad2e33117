"""Match histograms, suppress ribs, equalise contrast, in any order.

Writes images/ of the same size and depth, manifest.csv, strips.png (what each step made of a few images) and
rejects.csv. Masks stay valid, since no pixel moves. With --splits the histogram's reference of each fold is one of
its training images, the images are in images/rRfF/, and `train` takes for each fold its own.

Example: cxrtool enhance prepared --steps match-histogram,suppress-ribs,clahe --splits splits.csv -o enhanced
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from cxrtool.commands.enhance.images import Task, enhance_one, modules_of
from cxrtool.commands.enhance.reference import BEFORE, Fold, References, choose, divide, given, waiting
from cxrtool.data.files import are_whole_pngs, sha256_file
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.splitting.splits import Splits, known_as, read_splits
from cxrtool.data.tables.manifest import Manifest, Row, read_manifest
from cxrtool.errors import InputError, UsageError
from cxrtool.flow import common_options
from cxrtool.flow.assignment import splits_file
from cxrtool.flow.enhance_replay import MATCH, STEPS, Step
from cxrtool.flow.fold_chains import ALL, chain_of_manifest, is_divided, own_fold
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder
from cxrtool.flow.parallel import map_items
from cxrtool.flow.parts import AT, Chain, copy_parts, without_paths
from cxrtool.flow.seen import Seen
from cxrtool.flow.settings import READING, RUNNING, Settings
from cxrtool.options import Options, declared, flag_of, option, plain

BLACK = 0.1
"""The share of a reference that may be black before the user is told."""

VERSION = 1
"""Raised when the same options would give other pixels or files."""

IMAGES, STRIPS = "images", "strips.png"


@dataclass(frozen=True)
class EnhanceOptions(Options):
    """The options of `enhance`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "workers", *READING, *RUNNING)

    manifest: Path = common_options.manifest(effect=False)
    steps: str = option("Some of {choices}, in the order wanted.", metavar="A,B,C", choices=STEPS)
    reference: Path | None = option(
        "The picture whose histogram the others are given; it goes through the steps before the match too.",
        None,
        metavar="IMAGE",
        shown="the one nearest to the mean histogram",
    )
    splits: Path | None = option(
        "Choose the reference in each fold, among its training images; the images are then written for each fold.",
        None,
        shown="choose it among all images",
    )
    ribs: Path | None = option(
        "A rib network that `fit ribs` or `weights import` made.",
        None,
        metavar="PART",
        shown="the one that comes with cxrtool",
    )
    clahe_clip: float = option("The most that a grey level counts, in means over all levels.", 2.0)
    clahe_tiles: int = option("Tiles a row and a column that are equalised each.", 8, minimum=1, maximum=64)
    strips: int = option("Images whose every step is shown in strips.png; 0 for none.", 4, minimum=0, maximum=50)

    def __post_init__(self) -> None:
        """Check the steps, of which several may stand there.

        Raises:
            UsageError: There is none, or one that is not known or stands there twice.
        """
        names = self.names()
        unknown = next((name for name in names if name not in STEPS), None)
        if unknown or not names or len(set(names)) < len(names):
            known, found = ",".join(STEPS), self.steps if unknown is None else unknown
            raise UsageError(f"--steps: expected some of {known}, each once, in the order wanted, found '{found}'")

    def names(self) -> list[str]:
        """The steps, in the order wanted."""
        return [name.strip() for name in self.steps.split(",") if name.strip()]


def run(options: EnhanceOptions, settings: Settings) -> None:
    """Enhance."""
    enhance(options, settings)


def enhance(options: EnhanceOptions, settings: Settings) -> int | None:
    """Enhance the images of a manifest.

    Returns:
        The number of images written, or None where there was nothing to do.

    Raises:
        UsageError: An option has a value that it cannot have, or goes with a step that is not asked for.
        InputError: Manifest, splits, reference or network cannot be read, or not a single image.
        StrictError: `--strict`, and an image could not be read.
    """
    _check(options, settings)
    manifest = read_manifest(options.manifest, root=settings.root)
    if not manifest.rows:
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
                warn_of_seen(manifest.rows, splits, Path(entry[AT]), settings)
    with folder.build() as build:
        work = _Work(manifest, chain, entries, build, settings)
        rows, told = work.run(options, splits if any(step.fitted for step in steps) else None)
        whole = [*chain, *told]
        copy_parts(whole, build.path)
        if options.strips:
            work.draw(options.strips)
        columns = [*manifest.columns, *(name for name in ("parent_id", "repeat", "fold") if name in rows[0])]
        extra = {
            "chain": without_paths(whole),
            "options": _shown(options, settings),
            "references": work.references.names,
        }
        build.finish(columns, rows, counts={"inputs": len(manifest)}, extra=extra)
    return len(rows)


def _of_steps() -> dict[str, list[str]]:
    """The options that mean something only beside a step, each with the steps that take it."""
    found: dict[str, list[str]] = {}
    for step in STEPS.values():
        for name in step.options:
            found.setdefault(name, []).append(step.name)
    return found


def _check(options: EnhanceOptions, settings: Settings) -> None:
    names = options.names()
    for name, takers in _of_steps().items():
        if settings.origins.get(name) == "flag" and not set(takers) & set(names):
            raise UsageError(f"{flag_of(name)} goes with the step {' or '.join(takers)}, and --steps has none")
    if MATCH.name in names and options.reference and options.splits:
        raise UsageError("--reference is one picture for all folds, --splits chooses one in each: give one of them")
    if not options.clahe_clip > 0:
        raise UsageError(f"--clahe-clip: expected a number above 0, found {options.clahe_clip:g}")
    if str(options.splits) == "-":
        raise UsageError("--splits: expected a file or a run, found standard input")


def _entry(step: Step, options: EnhanceOptions) -> dict[str, Any]:
    """The entry of a step, located; what is fitted comes later.

    Raises:
        InputError: Its network is not there, or damaged.
    """
    from cxrtool.models.parts import default_part, read_part

    told = {name: getattr(options, own) for own, name in step.options.items() if name}
    if step.part:
        folder = getattr(options, step.part)
        part = read_part(folder, step.part) if folder else default_part(step.part)
        told |= {"part": part.identity(), AT: str(part.folder)}
    return step.entry(**told)


def _plan(options: EnhanceOptions, settings: Settings, manifest: Manifest, entries: Chain) -> Plan:
    files = [options.reference] if options.reference else []
    inputs = Inputs.of(manifest, files=files, verify=settings.verify)
    if options.splits:
        # The splits count by content alone: the same division written again is no reason to do all again.
        path = splits_file(options.splits)
        inputs = replace(inputs, newest=max(inputs.newest, path.stat().st_mtime))
    # What goes with a step stands in its entry, and bears on nothing where the step is not asked for.
    of_steps = _of_steps()
    return Plan(
        command="enhance",
        options={
            **{name: value for name, value in options.identity().items() if name not in of_steps},
            "steps": without_paths(entries),
            "reference": options.reference is not None,
            "splits": sha256_file(splits_file(options.splits)) if options.splits else None,
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


def warn_of_seen(rows: Sequence[Row], splits: Splits, part: Path, settings: Settings) -> int:
    """Warn where the rib network was fitted on test images, or on their patients; it saw no labels."""
    fitted = Seen.of([part])
    seen = [
        row["image_id"] for row in rows
        if fitted.by(row)
        and any(subsets.get(known_as(row, subsets)) == "test" for subsets in splits.runs.values())
    ]  # fmt: skip
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
        came_through: What they have been through before.
        entries: The steps, located, that of the match without quantiles.
        build: The folder in the making.
        settings: The shared options.
    """

    def __init__(
        self, manifest: Manifest, came_through: Chain, entries: Chain, build: Build, settings: Settings
    ) -> None:
        self.manifest, self.came_through, self.entries = manifest, came_through, entries
        self.build, self.settings = build, settings
        at = next((i for i, entry in enumerate(entries) if STEPS[entry["step"]].fitted), None)
        self.before, self.after = (entries[:at], entries[at + 1 :]) if at is not None else ([], entries)
        self.matching = at is not None
        self.references = References([], {}, {}, "", [])
        self.failed: dict[int, str] = {}
        # A network is dear enough to let its answer wait in a file for the match; the rest is not.
        self.keep = any(AT in entry for entry in self.before)

    def run(self, options: EnhanceOptions, splits: Splits | None) -> tuple[list[Row], Chain]:
        """Enhance every image.

        Returns:
            The rows of the new manifest, and the entries of the steps as the chain tells them.

        Raises:
            InputError: Not a single image can be read.
        """
        rows, ways, told = self.manifest.rows, [self.entries], self.entries
        folds = divide(rows, splits)
        if self.matching:
            self._find_references(options, folds)
            self._warn_of_black()
            ways = [[entry, *self.after] for entry in self.references.entries]
            told = [*self.before, self.references.told(), *self.after]
        else:
            self.references.of_fold = {ALL: 0}
        self._warn_of_left(folds)
        targets = {name: [self._name(row, fold) for row in rows] for fold in folds for name in [fold.name]}
        self._write(folds, targets, ways)
        shutil.rmtree(self.build.path / BEFORE, ignore_errors=True)
        for place, reason in sorted(self.failed.items()):
            self.build.reject(rows[place]["path"], reason)
        made = [
            self._row(rows[place], fold, targets[fold.name][place])
            for fold in folds for place in fold.places if place not in self.failed
        ]  # fmt: skip
        if not made:
            raise InputError(
                f"{self.manifest.name}: none of the {len(rows)} images can be read, the first: "
                f"{next(iter(self.failed.values()), 'none is in the splits')}"
            )
        divided = f", {len(folds)} folds with {len(ways)} references" if splits else ""
        self.settings.report.say(f"{len(made)} images{divided}: {', then '.join(e['step'] for e in self.entries)}")
        return made, told

    def _find_references(self, options: EnhanceOptions, folds: Sequence[Fold]) -> None:
        say, warn = self.settings.report.say, self.settings.report.warn
        if options.reference:
            # Read here: nothing can be done without it.
            self.references = given(str(options.reference), self.before, self.settings.root)
            self.keep = False
            return
        if is_divided(self.manifest) and not options.splits:
            raise InputError(
                f"{self.manifest.name}: its images were made fold by fold, and so must the reference be chosen",
                "add --splits, or --reference IMAGE",
            )
        self.references, self.failed = choose(
            self.manifest.rows, folds, self.before, self.build, self.settings, keep=self.keep
        )
        if options.splits is None:
            warn(
                "the reference is chosen among all images, so the test images were looked at (their grey values, not "
                "their labels); --splits chooses it in each fold among the training images"
            )
            say(f"reference: {self.references.names[ALL]}, whose histogram is nearest to the mean")

    def _warn_of_black(self) -> None:
        """Tell of borders and air: of a histogram they are a part as any other, and what is black in one becomes so."""
        warn = self.settings.report.warn
        if any(entry.get("fit") == "pad" and entry.get("size") != "native" for entry in self.came_through):
            warn(
                "these images have black borders from `prepare --fit pad`, which count in their histograms: matching "
                "blackens lungs or lightens borders; prepare them with --fit squash, or leave them at their native size"
            )
        found = self.references
        shares = {name: found.darkest[place] for name, place in found.of_fold.items()}
        worst = max(shares, key=lambda name: shares[name])
        if shares[worst] > BLACK:
            warn(
                f"the reference {found.names[worst]} is black in {shares[worst]:.0%} of its picture (borders, air): so "
                f"much of every other becomes black, lungs perhaps; see {STRIPS}, or name a --reference without borders"
            )

    def _warn_of_left(self, folds: Sequence[Fold]) -> None:
        used = {place for fold in folds for place in fold.places}
        left = [row["image_id"] for place, row in enumerate(self.manifest.rows) if place not in used]
        if left:
            self.settings.report.warn(f"{len(left)} images are in no fold of the splits and left out, as {left[0]}")

    @staticmethod
    def _name(row: Row, fold: Fold) -> str:
        return "/".join(filter(None, (IMAGES, fold.name or own_fold(row), f"{row['image_id']}.png")))

    def _write(self, folds: Sequence[Fold], targets: Mapping[str, Sequence[str]], ways: Sequence[Chain]) -> None:
        """Write what is not there yet; each image is read once, and gone each way once however many folds share it."""
        outputs: dict[int, dict[int, list[str]]] = {}
        for fold in folds:
            for place in fold.places:
                way = self.references.of_fold[fold.name]
                outputs.setdefault(place, {}).setdefault(way, []).append(targets[fold.name][place])
        tasks, pending = [], []
        for place, wanted in outputs.items():
            row = self.manifest.rows[place]
            names = {name for written in wanted.values() for name in written}
            record = self.build.journal.done.get(row["image_id"])
            if place in self.failed or (record and record.keys() == names and are_whole_pngs(self.build.path, record)):
                continue
            source = str(self.build.path / waiting(row)) if self.keep else row["path"]
            tasks.append(Task(row["image_id"], source, tuple((way, tuple(found)) for way, found in wanted.items())))
            pending.append(place)
        for parent in {(self.build.path / name).parent for names in targets.values() for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        before = [] if self.keep else self.before
        work = partial(enhance_one, target=self.build.path, before=before, ways=ways)
        preload = modules_of(self.entries)
        results = map_items(work, tasks, workers=min(self.settings.workers, len(tasks) or 1), preload=preload)
        with self.settings.report.progress("enhance", len(tasks)) as advance:
            for place, (task, result) in zip(pending, results, strict=True):
                if isinstance(result, InputError):
                    self.failed[place] = result.message
                else:
                    self.build.journal.add(task.key, result)
                advance(1)

    def _row(self, row: Row, fold: Fold, name: str) -> Row:
        """The row of a written image.

        Its digests stay those of the radiograph as it was first read, as with `prepare`: by them a model knows later,
        whatever was done to the pixels, that it was trained on this radiograph.
        """
        made = {**row, "path": str(self.build.path / name)}
        if fold.name and not row.get("repeat"):
            own = {"parent_id": original_of(row), "repeat": fold.repeat, "fold": fold.fold}
            made |= {"image_id": f"{row['image_id']}_{fold.name}", **own}
        return made

    def draw(self, count: int) -> None:
        """Show what each step made of some images, and of the reference."""
        from cxrtool.commands.enhance.images import look_at_stages
        from cxrtool.data.reading.images import write_png
        from cxrtool.imaging.strips import SIDE, draw_strips

        references = self.references
        chain = [*self.before, *references.entries[:1], *self.after] if self.matching else self.entries
        usable = [row for place, row in enumerate(self.manifest.rows) if place not in self.failed]
        number = min(count, len(usable))
        shown = [usable[(2 * k + 1) * len(usable) // (2 * number)] for k in range(number)]
        cases = [(row["path"], "   ".join(filter(None, (row["image_id"], row.get("label"))))) for row in shown]
        if references.path:
            fold, name = next(iter(references.names.items()))
            of = f" of {fold}" if fold else ""
            cases.insert(0, (references.path, f"reference{of}: {Path(name).name}"))
        work = partial(look_at_stages, chain=chain, side=SIDE)
        results = map_items(work, [path for path, _ in cases], workers=min(self.settings.workers, len(cases)))
        rows = [(caption, found) for (_, caption), (_, found) in zip(cases, results, strict=True)
                if not isinstance(found, InputError)]  # fmt: skip
        titles = ["as it was", *(entry["step"] for entry in chain)]
        write_png(self.build.path / STRIPS, draw_strips(titles, rows))
        self.settings.report.say(f"every step on {len(rows)} images: {self.build.folder.shown / STRIPS}")
