"""`explain`: heatmaps of a model, or of the fold of a run that tested each image, and their measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.confinement import check_inside, is_inside
from cxrtool.data.file_names import FITTED_ON, MANIFEST, MODEL, MODEL_WEIGHTS, PREDICTIONS, RUN_FILE
from cxrtool.data.splitting.grouping import PATIENT, hashed
from cxrtool.data.tables.manifest import Manifest, Row, write_table
from cxrtool.data.tables.predictions import GROUPING
from cxrtool.data.tables.twins import split_class
from cxrtool.errors import InputError, TakenError, UsageError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Seen, changed_pixels
from cxrtool.flow.cases import Case, assign
from cxrtool.flow.chain import Chain
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder, other_name
from cxrtool.flow.heatmaps import scores
from cxrtool.flow.heatmaps.drawing import (
    OPPOSITE,
    SHEETS,
    Drawing,
    Shown,
    Task,
    View,
    captions,
    choose,
    draw_one,
    map_of,
    sheet_of,
    titles,
)
from cxrtool.flow.heatmaps.energy import beside_in_words, compare_beside, differing, in_words, measure_place, read_other
from cxrtool.flow.heatmaps.options import RUN, SCALES, ExplainOptions
from cxrtool.flow.heatmaps.reference import Origin, References, none_found
from cxrtool.flow.heatmaps.subject import PREDICTED, PRELOAD, Explained, Reason, Subject, class_index
from cxrtool.flow.images import read_images
from cxrtool.flow.parallel import map_items
from cxrtool.flow.run import model_folders
from cxrtool.flow.settings import Settings
from cxrtool.models.onnx_file import is_exported

if TYPE_CHECKING:
    from cxrtool.explaining.layers import Layer
    from cxrtool.explaining.overlay import Exhibit


VERSION = 6
"""Increased when the same options give different files."""


def explain(
    options: ExplainOptions,
    settings: Settings,
    images: Manifest | None = None,
    references: References | None = None,
) -> int | None:
    """Make the heatmaps of images: a folder with maps, overlays, contact sheets and a manifest with their measures.

    Args:
        options: What to explain.
        settings: With the folder.
        images: Those that were read from `options.sources` before.
        references: Those that were read from `options.reference` before.

    Returns:
        The number of images, or None where there was nothing to do.

    Raises:
        UsageError: Options exclude one another, or the model does not have a class or layer.
        InputError: Model or source do not exist, no image fits the model, or its network has no map.
        StrictError: `--strict`, and an image was rejected.
    """
    if is_exported(options.model):
        raise UsageError(
            f"{options.model}: expected a model folder or a run, found an ONNX model, which has no gradients",
            "explain the model folder from which `cxrtool weights export` made it",
        )
    single = runs.is_model(options.model)
    if single and options.subset != ExplainOptions.subset:
        raise UsageError("--subset: can be used only with a run; a single model explains every image")
    if len(options.methods) > 1 and options.scale == RUN:
        raise UsageError("--scale run: the values of different methods have no common scale", "give one --method")
    folders = model_folders(options.model, partial=options.partial, images=options.sources)
    manifest = _read(options, settings, images)
    others = read_other(options.beside) if options.beside else []
    references = references or _read_references(options, settings, manifest)
    folder = StepFolder(settings.out, _plan(options, settings, manifest, folders, references), settings)
    if not folder.needs_work():
        return None
    cases, rejects = assign(manifest, folders, options.subset, of_run=not single)
    if not cases:
        raise InputError(
            f"{options.model} tested none of the {count_of(len(rejects), 'image')}; "
            f"{rejects[0]['path']}: {rejects[0]['reason']}",
            f"a single model, such as {folders[0]}, explains every image",
        )
    from cxrtool.training.device import local_randomness

    with local_randomness(settings.seed, settings.threads), folder.build() as build:
        build.rejects += rejects
        beside = {row["image_id"]: row for row in others}
        explanation = Explanation(options, settings, build, Seen.of(folders) if single else None, beside, references)
        explanation.make_maps(cases)
        _warn(explanation, settings)
        checked = explanation.randomise() if options.check_randomised else []
        explanation.draw()
        measured = measure_place(explanation.rows, settings.seed)
        lines = [*checked, *in_words(measured)]
        found: dict[str, Any] = {"layers": explanation.layers(), "place": measured, "randomised": checked}
        found["model"] = {"name": str(options.model), "runs": sorted(set(map(runs.model_digest, folders)) - {""})}
        if second := _second_of(explanation.rows):
            found["opposite"] = measure_place(second, settings.seed)
            lines += [f"maps of the opposite class: {line.strip()}" for line in in_words(found["opposite"])]
        if options.beside:
            found["beside"] = compare_beside(explanation.rows, others, settings.seed)
            lines.append(beside_in_words(found["beside"], options.beside))
            for text in differing(options.beside, folder.plan.options):
                settings.report.warn(f"--beside {options.beside}: {text}")
        lines += explanation.write_scores()
        for line in lines:
            settings.report.say(line)
        columns = [name for name in COLUMNS if any(name in row for row in explanation.rows)]
        # Excluding the images that a run was not tested on is intended.
        wanted = len(build.rejects) == len(rejects)
        if rejects and wanted:
            settings.report.say(
                f"{len(rejects)} of {count_of(len(manifest), 'image')} were not explained: {rejects[0]['reason']}"
            )
        build.finish(columns, explanation.rows, extra={"explained": found}, wanted=wanted)
    return len(explanation.rows)


def _read(options: ExplainOptions, settings: Settings, images: Manifest | None) -> Manifest:
    manifest = read_images(options.sources, settings) if images is None else images
    manifest.check_file_names()
    if settings.out is not None:
        # If the output is inside the folder of images, it must not become its own input.
        found = len(manifest.rows)
        manifest.rows = [row for row in manifest.rows if not is_inside(row["path"], settings.out)]
        if found and not manifest.rows:
            raise TakenError(
                f"-o {settings.out}: expected a folder without the images, which it would replace, found all in it",
                other_name(settings.out),
            )
    if not manifest.rows:
        raise InputError(f"{manifest.name}: expected images, found none")
    if options.inside_lungs and not any(manifest.column("mask")):
        raise InputError(
            f"--inside-lungs: no image of {manifest.name} has a mask",
            "masks are listed in the column 'mask' of the manifest; `cxrtool segment` makes them",
        )
    return manifest


def _read_references(options: ExplainOptions, settings: Settings, manifest: Manifest) -> References | None:
    if options.reference is None:
        if options.structure is not None:
            raise UsageError("--structure: can be used only with --reference")
        return None
    references = References.read(options.reference, options.structure, settings.root)
    if not any(references.of(row) for row in manifest.rows):
        raise none_found(references, manifest.rows)
    return references


def _plan(
    options: ExplainOptions,
    settings: Settings,
    manifest: Manifest,
    folders: Sequence[Path],
    references: References | None,
) -> Plan:
    names = (MODEL, MODEL_WEIGHTS, FITTED_ON, PREDICTIONS)
    files = [folder / name for folder in folders for name in names if (folder / name).is_file()]
    files += [options.beside / name for name in (MANIFEST, RUN_FILE)] if options.beside else []
    if references is not None:
        files += references.files(manifest.rows)
    return Plan(
        command="explain",
        options={**options.identity(), "version": VERSION},
        inputs=Inputs.of(manifest, files=files, verify=settings.verify),
        libraries=("numpy", "opencv-python-headless", "torch", "timm", "matplotlib", "pillow"),
        seeded=True,
        threaded=True,
    )


def _warn(explanation: Explanation, settings: Settings) -> None:
    """Report the count of each remark, with an example."""
    remarks: dict[str, list[str]] = {}
    for row, texts in zip(explanation.rows, explanation.remarks, strict=True):
        for text in texts:
            remarks.setdefault(text, []).append(row["image_id"])
    for text, names in remarks.items():
        settings.report.warn(f"{len(names)} of {count_of(len(explanation.rows), 'image')}, such as {names[0]}: {text}")


MAP_COLUMNS = ("target_probability", "twin", "output", "map", "energy_inside", "peak_x", "peak_y", "peak_inside")
"""The columns on a map."""

OPPOSITE_COLUMNS = {"target": OPPOSITE, **{name: f"{OPPOSITE}_{name.removeprefix('target_')}" for name in MAP_COLUMNS}}
"""The columns on the second map, that of the opposite class for twins, by the column on the first map."""

COLUMNS = (
    "image_id",
    "path",
    "label",
    "predicted",
    "probability",
    "overlay",
    "target",
    *MAP_COLUMNS,
    *OPPOSITE_COLUMNS.values(),
    "warning",
    "mask",
    "mask_share",
    "repeat",
    "fold",
    "subset",
    *GROUPING,
)
"""The columns of the manifest that `explain` writes."""


FEW_CELLS = 7
"""Cells along a side below which a map is too coarse to point at a finding."""


def _map_cells(record: Mapping[str, Any], name: str) -> dict[str, str]:
    """The cells of a row on one map."""
    inside, peak = record["energy_inside"], record["peak"]
    twin = {key: record[key] for key in ("twin", "output") if record.get(key)}
    return {
        "target": record["target"],
        "target_probability": f"{record['target_probability']:.6g}",
        **twin,
        "map": name,
        "energy_inside": "" if inside is None else f"{inside:.6g}",
        "peak_x": str(peak[0]) if peak else "",
        "peak_y": str(peak[1]) if peak else "",
        "peak_inside": "" if record["peak_inside"] is None else str(int(record["peak_inside"])),
    }


def _parts(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The record of each map by its folder below `maps/`.

    The first is that of the image. Those of the opposite class and of further methods follow.
    """
    second = {OPPOSITE: record[OPPOSITE]} if OPPOSITE in record else {}
    return {"": record, **second, **record.get(FURTHER, {})}


def _second_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the values of their second maps in the columns of the first; without rows that have none."""
    known = [row for row in rows if OPPOSITE in row]
    return [{**row, **{name: row.get(other, "") for name, other in OPPOSITE_COLUMNS.items()}} for row in known]


FURTHER = "further"
"""The records of the maps of further methods, in the record of an image."""

RANDOMISED, CHECKED = "randomised.csv", 32
"""The table of `--check-randomised`, and the highest number of its images."""

TRAINED_ON = "the model was trained on this image or patient: not a test result"


@dataclass(frozen=True)
class Model:
    """The facts on a model that are kept after its maps are made, because memory may not hold all networks."""

    folder: Path
    done: Chain
    chain: Chain
    names: list[str]
    layers: Mapping[str, Layer]


@dataclass
class Explanation:
    """The maps of one call, while they are made.

    Attributes:
        seen: The training images of a single model; None for a run, whose folds explain their test images.
        beside: The rows of the other folder of heatmaps by image id; empty where there is none.
        references: Outlines against which the maps are scored, or None.
        remarks: Warnings on each map, without those on the image itself.
    """

    options: ExplainOptions
    settings: Settings
    build: Build
    seen: Seen | None
    beside: Mapping[str, Row] = field(default_factory=dict)
    references: References | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    remarks: list[list[str]] = field(default_factory=list)
    _cases: list[tuple[Case, dict[str, Any], Model]] = field(default_factory=list)

    def make_maps(self, cases: Sequence[Case]) -> None:
        """Make and save the map of every image, model by model."""
        for name in ("maps", "overlays", "sheets"):
            (self.build.path / name).mkdir(exist_ok=True)
        indices_of: dict[Path, list[int]] = {}
        for index, case in enumerate(cases):
            indices_of.setdefault(case.folder, []).append(index)
        done: dict[int, tuple[dict[str, Any], Model]] = {}
        with self.settings.report.progress("explaining", len(cases)) as advance:
            for folder, indices in indices_of.items():
                subject = self._load(folder, [cases[i] for i in indices])
                if self.options.positive is not None:
                    class_index("--positive", self.options.positive, subject.names)
                layers = {name: explainer.layer for name, explainer in subject.explainers.items()}
                model = Model(folder, subject.done, subject.chain, subject.names, layers)
                self.models.append(model)
                for index, record in self._explain_with(subject, cases, indices, advance):
                    done[index] = record, model
        if not done:
            raise InputError(
                f"none of the {count_of(len(cases), 'image')} can be explained; the reason of the last: "
                f"{self.build.rejects[-1]['reason']}"
            )
        for index in sorted(done):
            self._cases.append((cases[index], *done[index]))
            self.rows.append(self._row(cases[index], done[index][0]))
        self.settings.report.say("; ".join(self.layers()))
        side = min(layer.shape.side for model in self.models for layer in model.layers.values())
        if side < FEW_CELLS:
            self.settings.report.warn(
                f"the maps have {side} x {side} cells, enlarged to the image: they show in which part of it, not on "
                "what the network looked; a larger --size in training gives more cells"
            )

    def layers(self) -> list[str]:
        """The layers of the maps, in words."""
        layers = dict.fromkeys(pair for model in self.models for pair in model.layers.items())
        return [
            f"{method} of {layer.name}: {layer.shape.side} x {layer.shape.side} cells, "
            f"{count_of(layer.shape.channels, 'channel')}"
            for method, layer in layers
        ]

    def _load(self, folder: Path, cases: Sequence[Case]) -> Subject:
        from cxrtool.training.device import choose_device

        options, device = self.options, choose_device(self.settings.device)
        paths = (Path(case.row["path"]) for case in cases)
        return Subject.load(folder, paths, "the images", options.methods, options.layer, device)

    def _explain_with(
        self, subject: Subject, cases: Sequence[Case], indices: Sequence[int], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records of the images of a model; those of an interrupted run come from the journal."""
        options, journal = self.options, self.build.journal
        subject.check_target(options.target)
        pending = []
        for index in indices:
            record = journal.done.get(cases[index].row["image_id"])
            if record and self._has_maps(cases[index], record):
                advance(1)
                yield index, record
            else:
                pending.append(index)
        tasks = [self._task(cases[i], subject.done, cases[i].row.get("mask", "")) for i in pending]
        for batch in subject.views(tasks, options.batch_size, self.settings.workers, options.max_pixels, options.over):
            views = []
            for k, view in batch:
                changed = changed_pixels(cases[pending[k]].row, view.sha256) if isinstance(view, View) else None
                if isinstance(found := changed or view, InputError):
                    self.build.reject(tasks[k].path, found.message)
                else:
                    views.append((pending[k], found))
            if views:
                pixels = [view.pixels for _, view in views]
                answers = [subject.why(pixels, options.target, method) for method in options.methods]
                for (index, view), *explained in zip(views, *answers, strict=True):
                    record = self._keep(subject, cases[index], view, explained)
                    if record is not None:
                        journal.add(cases[index].row["image_id"], record)
                        yield index, record
            advance(len(batch))

    def _task(self, case: Case, done: Chain, mask: str) -> Task:
        references = self.references.of(case.row) if self.references is not None else {}
        return Task(case.row["path"], mask, references, Origin.of(case.row, done))

    def _keep(self, subject: Subject, case: Case, view: View, answers: Sequence[Explained]) -> dict[str, Any] | None:
        """Save the maps of an image, by each method, and return their record; None where a map is not finite."""
        import numpy as np

        from cxrtool.data.reading.dicom import TURNED
        from cxrtool.imaging import plausibility

        explained, reasons = answers[0], answers[0].reasons
        every = [one for answer in answers for one in answer.reasons]
        if not all(np.isfinite(one.values).all() and np.isfinite(one.probability) for one in every):
            self.build.reject(case.row["path"], "its map has values that are not finite numbers")
            return None
        implausible = plausibility.warn(reasons[0].pixels, subject.description.usual)
        remarks: list[str] = []
        method, *methods = self.options.methods
        first = self._keep_map(case, view, reasons[0], "", remarks)
        second = [self._keep_map(case, view, one, OPPOSITE, remarks) for one in reasons[1:]]
        others = {
            name: self._keep_map(case, view, answer.reasons[0], name, remarks)
            for name, answer in zip(methods, answers[1:], strict=True)
        }
        scored: dict[str, Any] = {FURTHER: others} if others else {}
        if self.references is not None:
            scored["chance"] = scores.by_chance(view)
            scored["absent"] = scores.absences(view, self.references.structures)
            remarks += [f"reference of {name} excluded: {why}" for name, why in view.refused.items()]
            if TURNED in f"{case.row.get('warning', '')} {view.warning}" and view.references:
                remarks.append("its reference is in a file of its own and was not turned with it")
        if self.options.steps:
            for name, part, answer in zip((method, *methods), (first, *others.values()), answers, strict=True):
                part["areas"] = scores.faithfulness(
                    subject,
                    name,
                    answer.reasons[0],
                    self.options.steps,
                    self.options.batch_size,
                    self.settings.seed,
                    case.row["image_id"],
                )
        remarks.append(view.trouble)
        if self.options.inside_lungs and view.mask is None:
            remarks.append("no mask: the whole map is shown")
        if case.recorded and case.recorded != explained.predicted:
            remarks.append(f"the saved predictions of the fold have {case.recorded}")
        return {
            "predicted": explained.predicted,
            "probability": explained.probability,
            **first,
            **({OPPOSITE: second[0]} if second else {}),
            **scored,
            "sha256": view.sha256,
            "masked": view.mask is not None,
            "odd": "; ".join(filter(None, [case.row.get("warning", "") or view.warning, implausible])),
            "remarks": list(dict.fromkeys(filter(None, remarks))),
        }

    def _keep_map(self, case: Case, view: View, reason: Reason, kind: str, remarks: list[str]) -> dict[str, Any]:
        """Save one map in its folder below `maps/` and return its record."""
        import numpy as np

        from cxrtool.explaining import maps

        values = maps.lay_on(reason.values, view.moves, view.height, view.width)
        # Measured before masking: afterwards all energy would be inside the lungs.
        figures = maps.figures(values, view.height, view.width, view.mask)
        scored = {} if self.references is None else {"scores": scores.score(values, view)}
        remarks.append(maps.doubt(values, reason.target))
        if self.options.inside_lungs and view.mask is not None:
            values = values * (view.mask > 0)
        path = self._map(case, kind)
        check_inside(path)
        path.parent.mkdir(exist_ok=True)
        np.save(path, values.astype(np.float32))
        return {
            "target": reason.target,
            "target_probability": reason.probability,
            "twin": reason.twin,
            "output": reason.output,
            **asdict(figures),
            **scored,
            "highest": float(values.max()),
            "bytes": path.stat().st_size,
        }

    def _map(self, case: Case, kind: str) -> Path:
        """The file of a map of an image, by its folder below `maps/`."""
        return self.build.path / "maps" / kind / f"{case.row['image_id']}.npy"

    def _has_maps(self, case: Case, record: Mapping[str, Any]) -> bool:
        """Whether the maps of a record of the journal exist with their full size."""
        files = [(self._map(case, kind), part["bytes"]) for kind, part in _parts(record).items()]
        return all(file.is_file() and file.stat().st_size == size for file, size in files)

    def _row(self, case: Case, record: Mapping[str, Any]) -> dict[str, Any]:
        row, name = case.row, case.row["image_id"]
        digest = row.get("sha256") or record["sha256"]
        remarks = list(record["remarks"])
        patient = hashed(row.get(PATIENT, ""))
        if self.seen is not None and (digest in self.seen.images or patient in self.seen.patients):
            remarks.append(TRAINED_ON)
        self.remarks.append(remarks)
        repeat, fold = runs.parse_fold(case.folder.name) if case.subset else ("", "")
        second = _map_cells(record[OPPOSITE], f"maps/{OPPOSITE}/{name}.npy") if OPPOSITE in record else {}
        return {
            **{key: cell for key, cell in row.items() if key in ("image_id", "path", "label", "mask", *GROUPING)},
            "probability": f"{record['probability']:.6g}",
            "label": row.get("label", ""),
            "predicted": record["predicted"],
            "overlay": f"overlays/{name}.png",
            **_map_cells(record, f"maps/{name}.npy"),
            "mask_share": "" if record["mask_share"] is None else f"{record['mask_share']:.6g}",
            **{OPPOSITE_COLUMNS[key]: cell for key, cell in second.items()},
            "warning": "; ".join(filter(None, [record["odd"], *remarks])),
            "sha256": digest,
            **({"repeat": repeat, "fold": fold, "subset": case.subset} if case.subset else {}),
        }

    def draw(self) -> None:
        """Draw the overlay of every image, and the contact sheets."""
        from cxrtool.explaining import maps

        options, path = self.options, self.build.path
        maxima = (part["highest"] for _, record, _ in self._cases for part in _parts(record).values())
        highest = maps.highest_of(maxima) if options.scale == RUN else None
        positive = options.positive
        names = self.models[0].names
        if positive is None and options.target not in (PREDICTED, OPPOSITE):
            positive = options.target if options.target in names else split_class(options.target)[0]
        members: dict[str, list[str]] = {}
        for row in self.rows:
            members.setdefault(sheet_of(row, names, positive), []).append(row["image_id"])
        chosen = choose(members, options.sheet, self.settings.seed)
        shown = {name for names in chosen.values() for name in names}
        found: dict[str, Exhibit] = {}
        with self.settings.report.progress("drawing", len(self._cases)) as advance:
            for model in self.models:
                drawings = {}
                for row, (case, record, of_case) in zip(self.rows, self._cases, strict=True):
                    if of_case is model:
                        tile = row["image_id"] in shown
                        drawings[row["image_id"]] = self._drawing(row, case, model.done, record, highest, tile)
                work = partial(draw_one, chain=model.chain, max_pixels=options.max_pixels, over=options.over)
                workers = min(self.settings.workers, len(drawings) or 1)
                preload = (*PRELOAD, "cxrtool.explaining.overlay", "cxrtool.explaining.maps")
                results = map_items(work, drawings.values(), workers=workers, preload=preload)
                for name, (_, result) in zip(drawings, results, strict=True):
                    if isinstance(result, InputError):
                        raise InputError(f"{name}: its overlay cannot be drawn: {result.message}")
                    if result is not None:
                        found[name] = result
                    advance(1)
        for sheet, names in chosen.items():
            if names:
                self._draw_sheet(sheet, [found[name] for name in names], len(members[sheet]), positive)
        if not any((path / "sheets").iterdir()):
            (path / "sheets").rmdir()

    def _drawing(
        self,
        row: Mapping[str, Any],
        case: Case,
        done: Chain,
        record: Mapping[str, Any],
        highest: float | None,
        shown: bool,
    ) -> Drawing:
        above, below = captions(row)
        above = (above[0], *scores.on_overlay(self._scored(row, record)), *above[1:])
        shown_maps = tuple(
            (self._map(case, kind), (part["peak"][0], part["peak"][1]) if part["peak"] else None)
            for kind, part in _parts(record).items()
        )
        beside, named = self._beside(row)
        return Drawing(
            self._task(case, done, case.row.get("mask", "") if record["masked"] else ""),
            (*shown_maps, *beside),
            self.build.path / "overlays" / f"{row['image_id']}.png",
            highest,
            above,
            below if shown else (),
            named,
        )

    def _beside(self, row: Mapping[str, Any]) -> tuple[tuple[Shown, ...], tuple[str, ...]]:
        """The map of the other folder for a row, where it has the same size; and the titles of all maps."""
        import numpy as np

        other, folder, named = self.beside.get(row["image_id"]), self.options.beside, titles(row)
        if len(self.options.methods) > 1:
            first, *more = self.options.methods
            named = (f"{first}: {map_of(row)}", *named[1:], *more)
        if other is None or folder is None or not other.get("map"):
            return (), named
        path = folder / other["map"]
        shape = np.load(self.build.path / row["map"], mmap_mode="r").shape
        if not path.is_file() or np.load(path, mmap_mode="r").shape != shape:
            return (), named
        peak = (int(other["peak_x"]), int(other["peak_y"])) if other["peak_x"] else None
        return ((path, peak),), (*(named or (map_of(row),)), f"{folder.name}: {map_of(other)}")

    def _draw_sheet(self, name: str, exhibits: Sequence[Exhibit], count: int, positive: str | None) -> None:
        from cxrtool.explaining import overlay

        text = SHEETS[name].format(positive=positive)
        drawn = f"{len(exhibits)} of {count}, drawn at random" if len(exhibits) < count else f"all {count}"
        title = f"{text}: {drawn}; {', '.join(self.options.methods)}, {SCALES[self.options.scale]}"
        if len(self.options.methods) > 1:
            title += f"; the image, then {', '.join(self.options.methods)}"
        elif any(exhibit.others for exhibit in exhibits):
            parts = ["map of the predicted class", "map of the opposite"] if OPPOSITE in self.rows[0] else ["its map"]
            parts += [f"the map in {self.options.beside.name}"] if self.options.beside else []
            title += f"; the image, {', '.join(parts)}"
        overlay.write_picture(self.build.path / "sheets" / f"{name}.png", overlay.draw_sheet(exhibits, title))

    def _scored(self, row: Mapping[str, Any], record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of an image in the table of scores."""
        own = {name: row[name] for name in ("image_id", "label", "predicted", "target")}
        parts = [record, *record.get(FURTHER, {}).values()]
        return [
            {
                **own,
                "method": method,
                "structure": structure,
                **record["chance"][structure],
                **found,
                "energy_inside": "" if part["energy_inside"] is None else part["energy_inside"],
                "empty_map": int(part["peak"] is None),
            }
            for method, part in zip(self.options.methods, parts, strict=True)
            for structure, found in part.get("scores", {}).items()
        ]

    def write_scores(self) -> list[str]:
        """Write the scores against the reference and the faithfulness, where wanted, and return them in words."""
        options, seed = self.options, self.settings.seed
        records = [record for _, record, _ in self._cases]
        scored, measured = [], []
        for row, record in zip(self.rows, records, strict=True):
            own = {name: row[name] for name in ("image_id", "label", "predicted", "target")}
            scored += self._scored(row, record)
            scored += [{**own, "structure": name, "reason": why} for name, why in record.get("absent", {}).items()]
            parts = zip(options.methods, [record, *record.get(FURTHER, {}).values()], strict=True)
            measured += [{**own, "method": method, **part["areas"]} for method, part in parts if "areas" in part]
        found: dict[str, Any] = {}
        if self.references is not None:
            known, absent = [one for one in scored if "reason" not in one], [record["absent"] for record in records]
            found["structures"] = scores.summarise(self.rows, known, absent, seed)
            for name, part in found["structures"].items():
                if not part["images"]:
                    self.settings.report.warn(f"no image has anything in the reference of {name}: nothing is scored")
        if options.steps:
            found["faithfulness"] = scores.summarise_faithfulness(self.rows, measured, options.steps, seed)
        if found:
            scores.write(self.build.path, found, scored, measured)
        return scores.in_words(found)

    def randomise(self) -> list[str]:
        """Compare maps with those of randomised networks, write the table, and return the conclusion."""
        from cxrtool.explaining.randomised import verdict

        ids = [row["image_id"] for row in self.rows]
        sample = set(choose({RANDOMISED: ids}, CHECKED, self.settings.seed)[RANDOMISED])
        rows: list[Row] = []
        compared = []
        with self.settings.report.progress("randomising", len(sample)) as advance:
            for model in self.models:
                cases = [case for case, _, other in self._cases if other is model and case.row["image_id"] in sample]
                if not cases:
                    continue
                subject, options = self._load(model.folder, cases), self.options
                tasks = [Task(case.row["path"], "") for case in cases]
                for batch in subject.views(tasks, options.batch_size, self.settings.workers, options.max_pixels):
                    views = [(cases[k].row["image_id"], view) for k, view in batch if isinstance(view, View)]
                    pictures = [view for _, view in views]
                    seed = self.settings.seed
                    found = subject.compare_randomised(pictures, options.target, seed) if views else []
                    for index, stage, draw, likeness in found:
                        compared.append((stage, likeness))
                        numbers = asdict(likeness).items()
                        cells = {name: "" if value is None else f"{value:.6g}" for name, value in numbers}
                        rows.append({"image_id": views[index][0], "stage": stage, "draw": str(draw), **cells})
                    advance(len(batch))
        write_table(self.build.path / RANDOMISED, ["image_id", "stage", "draw", "rank_correlation", "ssim"], rows)
        return verdict(compared)
