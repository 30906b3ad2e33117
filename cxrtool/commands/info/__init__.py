"""Describe a manifest, model, run or image.

Prints its content, how it was made, which files were rejected, and warnings. Table 1 has age and sex by patient and
everything else by image; SMD is the largest standardised mean difference between two columns.

Example: cxrtool info prepared --table1 --format md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cxrtool.commands.info.describe import (
    Description,
    add_making,
    describe_manifest,
    describe_table_one,
    reasons,
    values,
)
from cxrtool.data.digests import check
from cxrtool.data.file_names import FITTED_ON, MANIFEST, MODEL, PART, PREDICTIONS, RUN_FILE, SPLITS
from cxrtool.data.splitting.splits import Splits, known_as, read_splits, tabulate
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import SUFFIXES, Manifest, Table, read_manifest, read_table
from cxrtool.data.tables.predictions import PREFIX, read_predictions
from cxrtool.errors import CxrtoolError, InputError, count_of
from cxrtool.flow.assignment import fitted_on
from cxrtool.flow.chain import describe
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.graders import GRADE
from cxrtool.flow.run import fold_name, is_model, is_run, made_alike, whole_folds
from cxrtool.flow.settings import Settings
from cxrtool.models.description import ModelDescription
from cxrtool.models.onnx_file import MADE_BY, is_exported, read_metadata, read_origin
from cxrtool.options import Options, argument, option

THRESHOLDS = "Probability threshold of each class, by target sensitivity"
NONE = "-"


def temperature_in_words(entry: Mapping[str, Any]) -> str:
    """The entry `calibration` of `model.json`, in words.

    >>> temperature_in_words({"temperature": 1.5, "images": 80, "reason": None})
    'temperature 1.5, fitted on 80 validation images'
    >>> temperature_in_words({"temperature": 1.0, "images": 0, "reason": "no validation images"})
    'none: no validation images'
    """
    if entry["reason"]:
        return f"none: {entry['reason']}"
    return f"temperature {entry['temperature']:.3g}, fitted on {entry['images']} validation images"


def thresholds_as_table(entry: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """The entry `thresholds` of `model.json`: title, columns and a row per class; a dash where images were too few."""
    sensitivities = list(next(iter(entry.values())))
    rows = []
    for name, chosen in entry.items():
        values = [chosen[s]["threshold"] for s in sensitivities]
        images = str(chosen[sensitivities[0]]["positives"])
        rows.append([name, images, *(NONE if value is None else f"{value:.3f}" for value in values)])
    return THRESHOLDS, ["class", "validation images", *sensitivities], rows


SUMMARY = "summary.csv"
KINDS = {
    "lungs": "lung network",
    "opacities": "opacity network",
    "ribs": "rib-suppressing network",
    "generators": "class-inherent generators",
}
NEXT = {
    "lungs": "cxrtool segment MANIFEST --lungs {} -o DIR",
    "opacities": "cxrtool segment MANIFEST --opacities --opacity-network {} -o DIR",
    "ribs": "cxrtool enhance MANIFEST --steps suppress-ribs --ribs {} -o DIR",
    "generators": "cxrtool transform MANIFEST --generators {} -o DIR",
}


def is_part(path: Path) -> bool:
    """Whether a folder holds a fitted part."""
    return (path / PART).is_file()


def is_fit(made: Mapping[str, Any] | None, path: Path) -> bool:
    """Whether a folder is a run of `fit`: one part for each fold of its splits."""
    return made is not None and made.get("command") == "fit" and (path / SPLITS).is_file()


def kind_of(path: Path) -> str:
    """The kind of a part, one of `KINDS`.

    Raises:
        InputError: The kind is unknown.
    """
    check(path / PART)
    try:
        kind = load_json(path / PART).get("kind")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path / PART}: not readable JSON: {error}") from error
    if kind not in KINDS:
        raise InputError(f"{path / PART}: expected a part of kind {' or '.join(KINDS)}, found '{kind}'")
    return str(kind)


def describe_part(path: Path, made: Mapping[str, Any] | None) -> Description:
    """Describe a part: its network, the images it was fitted on, and its performance.

    Raises:
        InputError: It is damaged, or has another schema.
    """
    from cxrtool.models.parts import read_part

    part = read_part(path, kind_of(path))
    result = Description(KINDS[part.kind], str(path))
    result.add("network", part.network)
    shown = [
        name.replace("_", " ")
        for name in ("crop_borders", "crop_lungs", "equalise", "invert")
        if getattr(part.form, name)
    ]
    result.add("is shown", ", ".join([f"{part.form.size} pixels, {part.form.fit}", *shown]))
    result.add("sha256", part.sha256[:16])
    for name, value in part.description.items():
        if name == "chain":
            result.add("processing", describe(value))
        elif name not in ("schema", "kind", "network", "form", "sha256", "usual"):
            result.add(name.replace("_", " "), _plain(value))
    if (path / FITTED_ON).is_file():
        table = read_table(path / FITTED_ON)
        patients = len({row["patient_id"] for row in table.rows if row.get("patient_id")})
        result.add("fitted on", f"{values(table.column('subset'))}; {count_of(patients, 'patient')}")
    if made:
        add_making(result, made, path)
    result.next = NEXT[part.kind].format(path)
    return result


def describe_grader(path: Path) -> Description:
    """Describe a grader: its score, whom it was fitted to, and the points of a region at some shares."""
    from cxrtool.evaluation.scales import SCALES
    from cxrtool.flow.graders import read_grader

    content = read_grader(path).content
    scale = str(content["scale"])
    result = Description("grader", str(path))
    result.add("score", SCALES[scale].about)
    for name in ("rated", "images", "patients"):
        result.add(name, _plain(content.get(name, "")))
    points = [
        [f"{share:.0%}", f"{point:.2f}"] for share, point in zip(content["knots"], content["points"], strict=True)
    ]
    result.tables.append(("Points of a region", ["opaque share", "points"], points))
    result.next = f"cxrtool grade MANIFEST --scale {scale} --grader {path} -o DIR"
    return result


def describe_fit(path: Path, made: Mapping[str, Any]) -> Description:
    """Describe a run of `fit`: its folds, and their performance."""
    kind = made.get("options", {}).get("kind", {}).get("value", "lungs")
    result = Description(f"run of `cxrtool fit {kind}`", str(path))
    expected = [fold_name(*run) for run in read_splits(path / SPLITS).runs]
    whole = made_alike(path, [name for name in expected if is_part(path / name)])
    missing = [name for name in expected if name not in whole]
    text = f"{len(expected) - len(missing)} of {len(expected)}"
    result.add("folds", f"{text}; missing {', '.join(missing[:8])}" if missing else f"{text}, complete")
    if (path / SUMMARY).is_file():
        table = read_table(path / SUMMARY)
        result.tables.append(("", table.columns, [list(row.values()) for row in table.rows]))
    add_making(result, made, path)
    # Generators are used fold by fold; of other parts, any fold is suitable for new images.
    taken = path if kind == "generators" else path / expected[0]
    result.next = "run the same `cxrtool fit` again to continue" if missing else NEXT[kind].format(taken)
    return result


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


LOOKED_FOR = "a manifest, a step's folder, a run, a model, a part, splits.csv, predictions.csv, rejects.csv or an image"


@dataclass(frozen=True)
class InfoOptions(Options):
    """The options of `info`."""

    SHARED: ClassVar[tuple[str, ...]] = ("root", "quiet", "style")

    path: Path = argument("A manifest, a folder, a run, a model, a table or an image.", metavar="PATH")
    splits: Path | None = option("Count by the subsets of these splits.", None, shown="splits.csv beside the manifest")
    table1: bool = option("Table 1: patients and images of each subset, or of each class.", False)
    show_identity: bool = option("Show the patient id of a DICOM file.", False)


def run(options: InfoOptions, settings: Settings) -> None:
    """Describe, and print the description."""
    description = info(options, settings)
    _print(description, settings)
    for text in description.warnings:
        settings.report.warn(text)
    if description.next and not options.table1:
        settings.report.say(f"next: {description.next}")


def _print(description: Description, settings: Settings) -> None:
    output, style = settings.output, settings.style
    if style == "json":
        records = [[dict(zip(columns, row, strict=True)) for row in rows] for _, columns, rows in description.tables]
        content = {"kind": description.kind, "path": description.path, "facts": description.facts, "tables": records}
        content["warnings"] = description.warnings
        output.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    facts = [[name, value] for name, value in description.facts.items()]
    tables = list(description.tables)
    if style == "table":
        width = max((len(name) for name in description.facts), default=0)
        lines = [f"  {name.ljust(width)}  {value}" for name, value in facts]
        output.write("\n".join([f"{description.path}: {description.kind}", *lines]) + "\n")
    elif facts:
        tables.insert(0, ("", ["what", "value"], facts))
    for number, (title, columns, rows) in enumerate(tables):
        if number or style == "table":
            output.write("\n")
        output.table(columns, rows, title)


def info(options: InfoOptions, settings: Settings) -> Description:
    """Find out what a path is, and describe it.

    Raises:
        InputError: It is not of a known kind; the hint lists the known kinds.
    """
    path = options.path
    if path.name in (RUN_FILE, MODEL) and path.is_file():
        path = path.parent
    if options.table1:
        manifest = read_manifest(path, root=settings.root)
        _require_images(manifest)
        return describe_table_one(manifest, _splits(path, manifest, options.splits))
    if is_exported(path):
        return _exported(path)
    return _folder(path, options, settings) if path.is_dir() else _file(path, options, settings)


def _folder(path: Path, options: InfoOptions, settings: Settings) -> Description:
    made = read_run_file(path)
    if is_part(path):
        return describe_part(path, made)
    if (path / GRADE).is_file():
        return describe_grader(path)
    if made is not None and is_fit(made, path):
        return describe_fit(path, made)
    if is_model(path):
        return _model(path, made)
    trained = made is not None and made["command"] == "train"
    if trained or (made is None and is_run(path) and whole_folds(path)):
        return _run(path, made)
    if (path / MANIFEST).is_file():
        return _manifest(path, options, settings)
    for name in (PREDICTIONS, SPLITS):
        if (path / name).is_file():
            return _file(path / name, options, settings)
    return _files(path)


def _file(path: Path, options: InfoOptions, settings: Settings) -> Description:
    try:
        table = read_table(path)
    except InputError as error:
        if not path.is_file():
            raise InputError(error.message, f"expected {LOOKED_FOR}") from None
        return _image(path, error, options)
    columns = set(table.columns)
    if any(name.startswith(PREFIX) for name in columns):
        return _predictions(path)
    if {"image_id", "subset"} <= columns and "path" not in columns:
        return _only_splits(path)
    if {"path", "reason"} <= columns:
        return _rejects(table)
    if {"image_id", "path"} <= columns:
        return _manifest(path, options, settings)
    raise InputError(
        f"{table.name}: expected a table that cxrtool writes, found the columns: {', '.join(table.columns)[:200]}",
        "`cxrtool prepare --dataset csv` makes a manifest of any table with paths of images",
    )


def _manifest(path: Path, options: InfoOptions, settings: Settings) -> Description:
    manifest = read_manifest(path, root=settings.root)
    result = describe_manifest(manifest, _splits(path, manifest, options.splits))
    folder = manifest.origin.parent if manifest.origin else None
    made = read_run_file(folder) if folder and manifest.origin and manifest.origin.name == MANIFEST else None
    if made and folder:
        result.kind = f"folder of `cxrtool {made['command']}`"
        add_making(result, made, folder)
    _require_images(manifest)
    return result


def _require_images(manifest: Manifest) -> None:
    if not len(manifest):
        raise InputError(f"{manifest.name}: a manifest without images", "see rejects.csv of the step that made it")


def _splits(path: Path, manifest: Manifest, given: Path | None) -> Splits | None:
    if given is not None:
        return read_splits(given)
    if manifest.origin is None:
        return None
    folders = [manifest.origin.parent] + ([path.absolute().parent] if path.is_dir() else [])
    for folder in folders:
        if (folder / SPLITS).is_file():
            splits = read_splits(folder / SPLITS)
            # A file of that name may belong to other images.
            named = dict.fromkeys(splits.ids(), "")
            if any(known_as(row, named) for row in manifest.records):
                return splits
    return None


def _model(path: Path, made: dict[str, Any] | None) -> Description:
    check(path / MODEL)
    try:
        content = load_json(path / MODEL)
        if not isinstance(content, dict):
            raise ValueError("expected names and values")
    except (OSError, ValueError) as error:
        raise InputError(f"{path / MODEL}: cannot be read: {error}", "train the model again") from error
    result = _describe_model("model", path, content)
    if (path / PREDICTIONS).is_file():
        result.add("predictions", f"{len(read_table(path / PREDICTIONS))} in {PREDICTIONS}")
    if made:
        add_making(result, made, path)
    return result


def _exported(path: Path) -> Description:
    # The entries are checked, as `predict` does it.
    result = _describe_model("ONNX model", path, ModelDescription.read(path).to_json())
    result.add("exported by", f"cxrtool {read_metadata(path)[MADE_BY]}")
    for name, value in read_origin(path).items():
        result.add(name.replace("_", " "), "not known" if value is None else _plain(value))
    if fitted_on(path) is None:
        result.warnings.append("its training images are not known, so leakage of test images cannot be found")
    return result


def _describe_model(kind: str, path: Path, content: dict[str, Any]) -> Description:
    result = Description(kind, str(path))
    chain = content.pop("chain", None)
    calibration, thresholds = content.get("calibration"), content.get("thresholds")
    if calibration:
        content["calibration"] = temperature_in_words(calibration)
    if thresholds:
        result.tables.append(thresholds_as_table(thresholds))
        del content["thresholds"]
    for name, value in content.items():
        if name not in ("schema", "usual"):
            result.add(name.replace("_", " "), "none" if value is None else _plain(value))
    result.add("processing", describe(chain) if chain is not None else "")
    if (rows := fitted_on(path)) is not None:
        patients = len({row.get("patient_id") for row in rows if row.get("patient_id")})
        subsets = values([row.get("subset", "") for row in rows])
        result.add("fitted on", f"{subsets}; {count_of(patients, 'patient')}")
    result.next = f"cxrtool predict {path} IMAGE"
    return result


def _run(path: Path, made: dict[str, Any] | None) -> Description:
    result = Description("run", str(path))
    whole = whole_folds(path)
    splits = read_splits(path / SPLITS) if (path / SPLITS).is_file() else None
    expected = list(splits.runs) if splits else whole
    missing = [fold_name(*run) for run in expected if run not in whole]
    text = f"{len(whole)} of {len(expected)}"
    shown = ", ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
    result.add("folds", text + (f"; missing {shown}" if missing else ", complete"))
    options = (made or {}).get("options", {})
    for name in ("model", "preset", "weights", "size", "epochs", "batch_size", "lr", "opt", "manifest"):
        entry = options.get(name, {})
        result.add(name.replace("_", " "), _plain(entry["value"]) if entry.get("value") is not None else "")
    if splits and (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        result.add("classes", values(manifest.column("label")))
        result.tables.append(("", *tabulate(manifest, splits.runs)))
    if made:
        add_making(result, made, path)
    result.next = f"cxrtool evaluate {path}" if not missing else "run the same `cxrtool train` again to continue"
    return result


def _only_splits(path: Path) -> Description:
    splits = read_splits(path)
    result = Description("splits", splits.name)
    result.add("images", len(splits.ids()))
    result.add("repeats", len({repeat for repeat, _ in splits.runs}))
    result.add("folds in all", len(splits.runs))
    images = Manifest(["image_id"], [{"image_id": identity} for identity in sorted(splits.ids())])
    columns, rows = tabulate(images, splits.runs)
    # Only the manifest has the patients.
    result.tables.append(("", columns[:3], [row[:3] for row in rows]))
    result.next = f"cxrtool info MANIFEST --splits {path}"
    return result


def _predictions(path: Path) -> Description:
    predictions = read_predictions(path)
    result = Description("predictions", str(path))
    result.add("rows", len(predictions.rows))
    result.add("images", len({row["image_id"] for row in predictions.rows}))
    result.add("folds", len(predictions.runs()))
    result.add("patients", len({row["patient_id"] for row in predictions.rows if row.get("patient_id")}))
    result.add("probabilities of", ", ".join(predictions.classes))
    for name in ("subset", "label", "predicted", "severity", "source"):
        result.add(name, values(row.get(name, "") for row in predictions.rows))
    result.add("warnings", values(row["warning"] for row in predictions.rows if row.get("warning")))
    result.next = f"cxrtool evaluate {path}"
    return result


def _rejects(table: Table) -> Description:
    result = Description("rejected files of a step", table.name)
    result.add("files", str(len(table)))
    result.add("reasons", reasons(table.rows))
    return result


def _image(path: Path, no_table: InputError, options: InfoOptions) -> Description:
    from cxrtool.data.reading.images import read_image

    try:
        image = read_image(path, capture_decoder_errors=True)
    except CxrtoolError as error:
        looks_like_table = path.suffix.lower() in (*SUFFIXES, ".txt")
        text = no_table.message if looks_like_table else f"{path}: {error.message}"
        raise InputError(text, f"expected {LOOKED_FOR}") from None
    result = Description("image", str(path), warnings=list(image.warnings))
    height, width = image.pixels.shape
    result.add("width x height", f"{width} x {height}")
    result.add("bits a pixel", image.pixels.dtype.itemsize * 8)
    result.add("grey values", f"{int(image.pixels.min())} to {int(image.pixels.max())}")
    for name, value in image.tags.items():
        hidden = name == "patient_id" and not options.show_identity
        result.add(name.replace("_", " "), "in the file; --show-identity shows it" if hidden else value)
    result.next = f"cxrtool predict MODEL {path}"
    return result


def _files(path: Path) -> Description:
    counts = Counter(file.suffix.lower() or "no suffix" for file in path.rglob("*") if file.is_file())
    if not counts:
        raise InputError(f"{path}: an empty folder", f"expected {LOOKED_FOR}")
    result = Description("folder of files, without a manifest", str(path))
    result.add("files", str(counts.total()))
    result.add("kinds", ", ".join(f"{suffix} {count}" for suffix, count in counts.most_common(8)))
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    result.add("folders", ", ".join(folders[:12]) + (" …" if len(folders) > 12 else ""))
    result.next = f"cxrtool prepare {path} -o prepared"
    return result
