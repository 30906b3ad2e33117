"""`explain`: heatmaps of a model, or of the fold of a run that tested each image, and their measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxrtool.data.file_names import FITTED_ON, MANIFEST, MODEL, MODEL_WEIGHTS, PREDICTIONS, RUN_FILE
from cxrtool.data.tables.manifest import Manifest
from cxrtool.errors import InputError, UsageError
from cxrtool.flow import run as runs
from cxrtool.flow.cases import assign
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.heatmaps.energy import (
    beside_in_words,
    compare_beside,
    differing,
    in_words,
    measure_place,
    read_other,
)
from cxrtool.flow.heatmaps.images import COLUMNS, Explanation
from cxrtool.flow.heatmaps.options import ExplainOptions
from cxrtool.flow.seen import Seen
from cxrtool.flow.settings import Settings
from cxrtool.flow.sources import model_folders, read_source

VERSION = 5
"""Increased when the same options give different files."""


def explain(options: ExplainOptions, settings: Settings) -> int | None:
    """Make the heatmaps of images: a folder with maps, overlays, contact sheets and a manifest with their measures.

    Returns:
        The number of images, or None where there was nothing to do.

    Raises:
        UsageError: Options exclude one another, or the model does not have a class or layer.
        InputError: Model or source do not exist, no image fits the model, or its network has no map.
        StrictError: `--strict`, and an image was rejected.
    """
    single = runs.is_model(options.model)
    if single and options.subset != ExplainOptions.subset:
        raise UsageError("--subset: can be used only with a run; a single model explains every image")
    folders = model_folders(options.model, partial=options.partial)
    manifest = _read(options, settings)
    others = read_other(options.beside) if options.beside else []
    folder = StepFolder(settings.out, _plan(options, settings, manifest, folders), settings)
    if not folder.needs_work():
        return None
    cases, rejects = assign(manifest, folders, options.subset, of_run=not single)
    if not cases:
        raise InputError(
            f"{options.model} tested none of the {len(rejects)} images; {rejects[0]['path']}: {rejects[0]['reason']}",
            f"a single model, such as {folders[0]}, explains every image",
        )
    from cxrtool.training.device import local_randomness

    with local_randomness(settings.seed, settings.threads), folder.build() as build:
        build.rejects += rejects
        beside = {row["image_id"]: row for row in others}
        explanation = Explanation(options, settings, build, Seen.of(folders) if single else None, beside)
        explanation.make_maps(cases)
        _warn(explanation, settings)
        checked = explanation.randomise() if options.check_randomised else []
        explanation.draw()
        measured = measure_place(explanation.rows, settings.seed)
        lines = [*checked, *in_words(measured)]
        found: dict[str, Any] = {"layers": explanation.layers(), "place": measured, "randomised": checked}
        if second := explanation.second():
            found["opposite"] = measure_place(second, settings.seed)
            lines += [f"maps of the opposite class: {line.strip()}" for line in in_words(found["opposite"])]
        if options.beside:
            found["beside"] = compare_beside(explanation.rows, others, settings.seed)
            lines.append(beside_in_words(found["beside"], options.beside))
            for text in differing(options.beside, folder.plan.options):
                settings.report.warn(f"--beside {options.beside}: {text}")
        for line in lines:
            settings.report.say(line)
        columns = [name for name in COLUMNS if any(name in row for row in explanation.rows)]
        # Excluding the images that a run was not tested on is intended.
        wanted = len(build.rejects) == len(rejects)
        if rejects and wanted:
            settings.report.say(f"{len(rejects)} of {len(manifest)} images were not explained: {rejects[0]['reason']}")
        build.finish(columns, explanation.rows, extra={"explained": found}, wanted=wanted)
    return len(explanation.rows)


def _read(options: ExplainOptions, settings: Settings) -> Manifest:
    manifest = read_source(options.source, settings)
    if settings.out is not None:
        # If the output is inside the folder of images, it must not become its own input.
        own = settings.out.resolve()
        manifest.rows = [row for row in manifest.rows if not Path(row["path"]).resolve().is_relative_to(own)]
    if not manifest.rows:
        raise InputError(f"{manifest.name}: expected images, found none")
    if options.inside_lungs and not any(manifest.column("mask")):
        raise InputError(
            f"--inside-lungs: no image of {manifest.name} has a mask",
            "masks are listed in the column 'mask' of the manifest; `cxrtool segment` makes them",
        )
    return manifest


def _plan(options: ExplainOptions, settings: Settings, manifest: Manifest, folders: Sequence[Path]) -> Plan:
    names = (MODEL, MODEL_WEIGHTS, FITTED_ON, PREDICTIONS)
    files = [folder / name for folder in folders for name in names if (folder / name).is_file()]
    files += [options.beside / name for name in (MANIFEST, RUN_FILE)] if options.beside else []
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
        settings.report.warn(f"{len(names)} of {len(explanation.rows)} images, such as {names[0]}: {text}")
