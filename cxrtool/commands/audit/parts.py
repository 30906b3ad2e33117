"""The parts of an audit, in order; each is made on request, so that an interrupted audit can continue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.audit.pictures import MOST, Views
from cxrtool.data.splitting.grouping import group_images, original_of
from cxrtool.data.splitting.splits import SUBSETS, Run, read_splits
from cxrtool.data.tables.manifest import Manifest, Row, read_manifest
from cxrtool.data.tables.twins import MARK
from cxrtool.errors import InputError
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, read_assignments, splits_file
from cxrtool.flow.audits import digests_of
from cxrtool.flow.heatmaps.reference import References
from cxrtool.flow.settings import Muted, Settings

if TYPE_CHECKING:
    from cxrtool.auditing.part import Part
    from cxrtool.commands.audit.options import AuditOptions
    from cxrtool.data.tables.predictions import Predictions
    from cxrtool.evaluation.scores import Scores
    from cxrtool.flow.cases import Case

FOLDS, FEWEST_FOLDS = 5, 2
"""Folds that are drawn where no splits are given, and the fewest where a class has few patients."""

PAIRS = "pairs.png"

Make = Callable[[], "Part"]
Reject = Callable[[Path | str, str], None]


@dataclass
class Audited:
    """What is audited, read when needed.

    Attributes:
        options: The options of the command.
        manifest: The images.
        external: The external images, or None.
        stages: The same images after other steps, by name.
        settings: The shared options.
    """

    options: AuditOptions
    manifest: Manifest
    external: Manifest | None
    stages: dict[str, Manifest]
    settings: Settings

    @classmethod
    def read(cls, options: AuditOptions, manifest: Manifest, stages: dict[str, Path], settings: Settings) -> Audited:
        """Read the other manifests.

        Raises:
            InputError: One of them cannot be read, or there is nothing to audit.
        """
        if not len(manifest):
            raise InputError(f"{manifest.name}: expected images, found none")
        external = read_manifest(options.external, root=settings.root) if options.external else None
        others = {name: read_manifest(path, root=settings.root) for name, path in stages.items()}
        return cls(options, manifest, external, others, settings)

    @property
    def splits(self) -> Path | None:
        """The file of `--splits`, otherwise that of the run."""
        if self.options.splits is not None:
            return splits_file(self.options.splits)
        run = self.options.run
        return splits_file(run) if run is not None and run.is_dir() and splits_file(run).is_file() else None

    @property
    def files(self) -> list[Path]:
        """The files that it reads in addition to manifests and the run."""
        outlined = self.references.files(self.manifest.rows) if self.references else []
        return [*([self.splits] if self.splits else []), *outlined]

    @cached_property
    def references(self) -> References | None:
        """The outlines of `--reference`; an `InputError` if they cannot be read."""
        options = self.options
        if options.reference is None:
            return None
        return References.read(options.reference, options.structure, self.settings.root)

    @cached_property
    def runs(self) -> dict[Run, dict[str, str]]:
        """The subset of each image id in every repeat and fold; empty where none are given and none are needed.

        Raises:
            InputError: The splits cannot be read.
        """
        if self.splits:
            return read_splits(self.splits).runs
        if self.options.quick or len(self.manifest.classes()) < 2:
            return {}
        from cxrtool.data.splitting.divider import Divider

        labelled = [row for row in self.manifest.records if row["label"]]
        divider = Divider(labelled, seed=self.settings.seed)
        # A small set is audited in fewer folds instead of not at all.
        folds = min(FOLDS, divider.most_folds())
        if folds < FEWEST_FOLDS:
            return {}
        drawn = divider.folds(folds, 0.0)
        return {("0", str(fold)): subsets for fold, subsets in enumerate(drawn)}

    @cached_property
    def assignments(self) -> list[Assignment]:
        """The folds: as given, with their leaks; otherwise drawn by patient. None where there is one class.

        Raises:
            InputError: The splits do not belong to the manifest.
        """
        if len(self.manifest.classes()) < 2:
            return []
        if self.splits:
            lenient = replace(self.settings, allow_leakage=True, report=Muted(self.settings.report))
            return read_assignments(self.splits, self.manifest, lenient)
        indices = {name: i for i, name in enumerate(self.manifest.column("image_id"))}
        return [
            Assignment(
                *run, {name: sorted(indices[i] for i, subset in subsets.items() if subset == name) for name in SUBSETS}
            )
            for run, subsets in self.runs.items()
        ]

    @cached_property
    def predictions(self) -> Predictions | None:
        """The predictions of the model, where one is audited.

        Raises:
            InputError: Its classes are not those of the manifest, or they are predictions of twins.
        """
        run = self.options.run
        if run is None:
            return None
        found = runs.read_run_predictions(run, partial=self.options.partial)
        if any(MARK in name for name in found.classes):
            raise InputError(
                f"--run {run}: expected predictions of images, found predictions of their twins",
                f"cxrtool fuse twins {run} -o fused.csv, and then --run fused.csv",
            )
        unknown = sorted(set(self.manifest.classes()) - set(found.classes))
        if unknown:
            raise InputError(
                f"--run {run}: expected the classes of {self.manifest.name}, found {', '.join(found.classes)} without "
                f"'{unknown[0]}'",
                "give the manifest that it was trained on, with its labels",
            )
        return found

    @cached_property
    def scores(self) -> Scores | None:
        """The model's test predictions, where one is audited."""
        from cxrtool.evaluation.scores import scores_of

        return None if self.predictions is None else scores_of(self.predictions)

    def model(self) -> dict[str, Any] | None:
        """The audited model: its name, and the digests of its predictions."""
        run = self.options.run
        return None if run is None else {"name": str(run), "predictions": digests_of(run)}

    def about(self) -> str:
        """A line about what is audited."""
        from cxrtool.evaluation.tables import count_of

        rows, numbers = self.manifest.records, Counter(self.manifest.column("label"))
        counts = ", ".join(f"{name} {numbers[name]}" for name in self.manifest.classes())
        texts = [f"{count_of(len(rows), 'image')} of {count_of(len(set(group_images(rows))), 'patient')} ({counts})"]
        if self.assignments:
            folds = count_of(len(self.assignments), "fold")
            texts.append(f"{folds} of {self.splits}" if self.splits else f"{folds} drawn by patient")
        if self.options.run is not None:
            texts.append(f"the model {self.options.run}")
        if len(rows) > MOST and not self.options.quick:
            texts.append(f"pixels of a sample of {MOST:,} images")
        if self.options.external is not None:
            texts.append(f"external images {self.options.external}")
        return f"{self.options.manifest}: " + "; ".join(texts)

    def tested(self, count: int) -> list[Row]:
        """Images that the model was tested on, the same number of each class, drawn by seed and id alone."""
        from cxrtool.data.splitting.dealing import rank

        if self.scores is None:
            return []
        names = {original_of(row) for row in self.scores.rows} | {row["image_id"] for row in self.scores.rows}
        known = [row for row in self.manifest.rows if row["image_id"] in names or original_of(row) in names]
        ordered = sorted(known, key=lambda row: rank(self.settings.seed, "audit", row["image_id"]))
        classes = self.manifest.classes()
        per_class = {name: [row for row in ordered if row["label"] == name] for name in classes}
        share = -(-count // max(len(classes), 1))
        return [row for name in classes for row in per_class[name][:share]]


def parts(audited: Audited, settings: Settings, folder: Path, reject: Reject) -> Iterator[tuple[str, Make]]:
    """The parts of an audit by name.

    Args:
        audited: What is audited.
        settings: The shared options.
        folder: Where figures are written.
        reject: Called with the path and the reason for every image that cannot be read.
    """
    from cxrtool.auditing import confounding, leakage, probes, sources, transfer
    from cxrtool.commands.audit import (
        corners as audit_corners,
    )
    from cxrtool.commands.audit import (
        external as audit_external,
    )
    from cxrtool.commands.audit import (
        heatmaps as audit_heatmaps,
    )

    options, seed = audited.options, settings.seed
    views = Views(
        audited.manifest, audited.stages, audited.external, folder, settings, reject, options.quick, options.max_pixels
    )
    yield leakage.NAME, lambda: _leakage(audited, folder)
    yield confounding.NAME, lambda: confounding.examine(views.rows, seed=seed)
    if not options.quick:
        names = options.chosen_probes()
        yield (
            "probes",
            lambda: probes.examine(
                views.pictures,
                audited.assignments,
                model=audited.scores,
                seed=seed,
                permutations=options.permutations,
                names=names,
                folder=folder,
                report=settings.report,
            ),
        )
        yield (
            "sources",
            lambda: sources.examine(views.stages, seed=seed, permutations=options.permutations, report=settings.report),
        )
        yield "left_out", lambda: transfer.left_out(views.pictures, seed=seed)
    if audited.external is not None:
        both = str(options.manifest), str(options.external)
        yield "external", lambda: transfer.external(views.pictures, views.external_images, names=both, seed=seed)
    run = options.run
    if run is None or not (runs.is_run(run) or runs.is_model(run)):
        return
    if audited.predictions is not None and options.external is not None:
        yield (
            audit_external.NAME,
            partial(
                audit_external.examine,
                run,
                audited.predictions,
                options.external,
                settings,
                partial=options.partial,
                max_pixels=options.max_pixels,
            ),
        )
    if options.images:
        chosen = audited.tested(options.images)
        yield (
            audit_heatmaps.NAME,
            lambda: audit_heatmaps.examine(
                run,
                audited.manifest,
                views.with_masks(chosen),
                folder,
                settings,
                options.partial,
                audited.references,
            ),
        )
        yield (
            audit_corners.NAME,
            lambda: audit_corners.examine(
                _cases(run, audited.manifest, chosen, options.partial), settings, options.max_pixels
            ),
        )
    views.close()


def _leakage(audited: Audited, folder: Path) -> Part:
    from cxrtool.auditing import leakage

    rows = audited.manifest.records
    part = leakage.examine(rows, audited.runs or None)
    paths = dict(zip(audited.manifest.column("image_id"), audited.manifest.column("path"), strict=True))
    shown = leakage.draw_pairs(part.content["pairs"], paths, folder / PAIRS)
    return replace(part, pictures=[(PAIRS, "Identical or near-duplicate images, side by side")]) if shown else part


def _cases(run: Path, manifest: Manifest, rows: Sequence[Row], lacking: bool) -> list[Case]:
    """Each image with the fold that tested it."""
    from cxrtool.flow.cases import SUBSETS, assign
    from cxrtool.flow.run import model_folders

    some = manifest.subset(row["image_id"] for row in rows)
    return assign(some, model_folders(run, partial=lacking), SUBSETS[0], of_run=not runs.is_model(run))[0]
