"""New images with labels on which a trained model is evaluated: which input is which, and labels as the model has them.

An input is images if it is an image, a list of paths, a folder that is neither a run nor a model nor has predictions,
or a table with a column of files and without a column of probabilities, scores or predicted classes.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.confinement import is_inside
from cxrtool.data.file_names import MANIFEST, PREDICTIONS
from cxrtool.data.files import is_stream
from cxrtool.data.tables.foreign import ForeignColumns
from cxrtool.data.tables.ids import patient_id
from cxrtool.data.tables.labels import plain_label
from cxrtool.data.tables.manifest import Manifest, Row, order_columns, read_manifest, read_table
from cxrtool.data.tables.predictions import Predictions
from cxrtool.data.tables.twins import MARK, split_class
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.fusing import join_twins
from cxrtool.flow.images import read_images
from cxrtool.flow.run import is_fold, is_model, is_run, model_files, model_folders
from cxrtool.flow.settings import Settings
from cxrtool.flow.target import as_learned
from cxrtool.models.description import ModelDescription
from cxrtool.models.onnx_file import is_exported
from cxrtool.options import one_of

RUNS = ("train", "fuse")
"""The commands that write runs."""

SHOWN = 8
"""Labels that a message names."""


_ANSWERS = re.compile(r"(y_)?(prob|score|pred|logit)|softmax|sigmoid|p_", re.IGNORECASE)
"""How a column of predictions starts, also in a table of another tool."""


def is_images(path: Path, path_column: str | None = None) -> bool:
    """Whether an input is an image, a list of paths, a folder of images, a step's folder, or a table of images."""
    if path.is_dir():
        return not has_model(path) and not (path / PREDICTIONS).is_file()
    from cxrtool.data.datasets.folder import may_be_image
    from cxrtool.data.datasets.listing import TABLES
    from cxrtool.data.datasets.paths import is_list
    from cxrtool.data.datasets.table import PATHS
    from cxrtool.data.tables.workbook import is_workbook, read_workbook

    if is_list(path):
        return True
    if not is_stream(path) and path.suffix.lower() not in TABLES:
        return path.is_file() and may_be_image(path.name)
    if not is_stream(path) and not path.is_file():
        return False
    columns = read_workbook(path)[0].columns if is_workbook(path) else read_table(path).columns
    return not any(map(_ANSWERS.match, columns)) and any(
        name == path_column or name.lower() in PATHS for name in columns
    )


def has_model(path: Path) -> bool:
    """Whether a path is a model, a run or an ONNX file; a step's folder in which someone keeps splits is neither."""
    if is_model(path) or is_exported(path):
        return True
    if not is_run(path):
        return False
    made = read_run_file(path) or {}
    return made.get("command") in RUNS or not (path / MANIFEST).is_file() or any(map(is_fold, path.iterdir()))


def find_new_images(
    sources: Mapping[str, Sequence[Path]], columns: ForeignColumns | None = None
) -> tuple[Path, list[Path]] | None:
    """The model and the sources of images among the inputs, which are by name; None where all are predictions.

    `columns` are the columns of a table that have other names.

    Raises:
        UsageError: There are images, but not one model, or there are predictions, too, or the inputs have names.
    """
    paths = [path for some in sources.values() for path in some]
    models = [path for path in paths if has_model(path)]
    columns = columns or ForeignColumns()
    # A table beside a run may also be predictions of another tool, which have names or columns of answers.
    tables = bool(models) and set(sources) == {""} and columns.score is None and columns.predicted is None
    others = [path for path in paths if path not in models and (tables or path.is_dir())]
    images = [path for path in others if is_images(path, columns.id)]
    if not images:
        return None
    if not models:
        raise UsageError(
            f"{images[0]}: expected a run or predictions, found images and no model for them",
            f"name the model before them: cxrtool evaluate RUN {shlex.quote(str(images[0]))}",
        )
    if set(sources) != {""}:
        raise UsageError(
            f"{images[0]}: expected predictions where inputs have names, found images",
            f"first `cxrtool evaluate {shlex.quote(str(models[0]))} {shlex.quote(str(images[0]))} -o evaluated`, "
            "then name evaluated/predictions.csv here",
        )
    if len(models) != 1 or len(images) != len(others):
        rest = [path for path in others if path not in images]
        found = f"{rest[0]}, which is neither" if rest else count_of(len(models), "model")
        raise UsageError(
            f"expected one model and images, found {found}",
            f"one by one: cxrtool evaluate {shlex.quote(str(models[0]))} {shlex.quote(str(images[0]))}",
        )
    return models[0], images


@dataclass
class NewImages:
    """A model and the images on which it is evaluated.

    Attributes:
        sources: The inputs with the images.
        folders: The model, or the models of a run, whose probabilities are averaged.
        manifest: The images that have a label, which is a class of the model.
        rejects: Rows of a table that have no image, each with the reason.
        lines: What the input was taken for, and which labels were matched.
    """

    model: Path
    sources: list[Path]
    folders: list[Path]
    manifest: Manifest
    rejects: list[Row] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        model: Path,
        sources: Sequence[Path],
        relabel: Iterable[str],
        settings: Settings,
        columns: ForeignColumns | None = None,
        *,
        partial: bool = False,
    ) -> NewImages:
        """Read the images, without opening one, and match their labels to the classes of the model.

        Raises:
            UsageError: A label is no class of the model, or `--relabel` is wrong.
            InputError: No image has a label.
            IncompleteError: A run lacks folds, and `partial` is false.
        """
        folders = model_folders(model, partial=partial)
        description = ModelDescription.read(folders[0])
        classes = list(description.classes)
        if _of_twins(classes):
            classes = list(dict.fromkeys(split_class(name)[0] for name in classes))
        source = ", ".join(map(str, sources[:SHOWN])) + (", …" if len(sources) > SHOWN else "")
        found_in = _list(sources, settings, columns)
        rows, taken = found_in.rows, found_in.taken
        if description.target:
            rows = as_learned(Manifest(order_columns([], rows), rows, found_in.origin), description).rows
        labels = Counter(row.get("label", "").strip() for row in rows)
        unlabelled = labels.pop("", 0)
        if not labels and found_in.is_table:
            others = ", ".join(name for name in rows[0] if name not in OWN) if rows else "none"
            raise InputError(
                f"{source}: expected images with labels, found none among {len(rows)}; other columns: {others}",
                "name the column of classes with --label-column COLUMN; without labels, prepare and predict the images",
            )
        if not labels:
            raise InputError(
                f"{source}: expected images with labels, found none with one among {len(rows)}",
                "put the images of each class into a subfolder of its name, or give a table with the columns path and "
                f"label; without labels: `cxrtool predict {model} {shlex.quote(str(source))}`",
            )
        names = match_labels(labels, classes, parse_relabel(relabel), source, settings)
        kept = [
            {**row, "label": names[label]} for row in rows if (label := row.get("label", "").strip()) and names[label]
        ]
        if not kept:
            raise UsageError(f"--relabel: expected images of a class, found that all {len(rows)} are excluded")
        found = Counter(row["label"] for row in kept)
        counted = ", ".join(f"{name} {found[name]}" for name in classes if found[name])
        without = f"; {unlabelled} without a label excluded" if unlabelled else ""
        by = f"the mean of {len(folders)} models of {model}" if len(folders) > 1 else f"the model {model}"
        lines = [*found_in.remarks, f"{source}: recognised as {taken}; images: {counted}{without}; predicted by {by}"]
        changed = [_changed(label, names[label], labels[label]) for label in sorted(labels) if names[label] != label]
        if changed:
            lines.append(f"labels: {', '.join(changed)}")
        manifest = Manifest(order_columns([], kept), kept, found_in.origin, stream=source)
        return cls(model, list(sources), folders, manifest, found_in.rejects, lines)

    @property
    def files(self) -> list[Path]:
        """The files of the models."""
        return [file for folder in self.folders for file in model_files(folder) if file.is_file()]

    def predict(self, settings: Settings, positive: str | None = None) -> tuple[Predictions, list[Row]]:
        """Run the model: missing preprocessing is repeated, and images of the training are refused.

        The answers of a model of twins are fused as by `fuse twins`, with ties to the class `positive`.

        Returns:
            The predictions, and the images that cannot be used, each with the reason.

        Raises:
            InputError: No image can be read, or their preprocessing differs from that of the model.
            LeakageError: The model was trained on an image or its patient.
        """
        import numpy as np

        from cxrtool.flow.predicting import Question, answer, to_table

        question = Question(self.model, tuple(map(str, self.sources)))
        members, answers, rejects = answer(question, settings, self.folders, self.manifest)
        predictions = to_table(members, answers, self.manifest.columns, self.manifest.name)
        if _of_twins(predictions.classes):
            predictions = join_twins(predictions, positive, settings)
        # As a file has them, so that an evaluation of `predictions.csv` gives the same numbers.
        written = [[float(f"{value:.9g}") for value in values] for values in predictions.probabilities]
        predictions.probabilities = np.array(written, np.float64)
        return predictions, [*self.rejects, *rejects]


def _changed(label: str, name: str, count: int) -> str:
    images = count_of(count, "image")
    return f"{label} was read as {name} ({images})" if name else f"{label} was excluded ({images})"


def _of_twins(classes: Iterable[str]) -> bool:
    return all(MARK in name for name in classes)


def _is_step(source: Path) -> bool:
    return (source / MANIFEST).is_file()


OWN = ("image_id", "path", "source", "original", "label")
"""Columns that every list of images has."""


@dataclass
class _Listed:
    """The images of the inputs: their rows, the rejects, what the inputs were taken for, and remarks on them."""

    rows: list[Row]
    taken: str
    origin: Path | None = None
    rejects: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    is_table: bool = False


def _table_columns(source: Path, columns: ForeignColumns | None) -> dict[str, str]:
    """The columns of a table of images that were named; a `UsageError` where the source is no table."""
    flags = {"path": "--id-column", "label": "--label-column"}
    given = {"path": columns.id, "label": columns.label} if columns else {}
    named = {name: column for name, column in given.items() if column}
    if named and not _is_table(source):
        raise UsageError(f"{flags[next(iter(named))]}: expected a table of images, found {source}")
    return named


def _is_table(source: Path) -> bool:
    from cxrtool.data.datasets.listing import TABLES
    from cxrtool.data.datasets.paths import is_list

    return not is_list(source) if is_stream(source) else source.suffix.lower() in TABLES and source.is_file()


def _list(sources: Sequence[Path], settings: Settings, columns: ForeignColumns | None) -> _Listed:
    """The images of all inputs; those without a label, where several images are named, have that of their folder."""
    source = sources[0]
    if len(sources) > 1 or not (source.is_dir() or _is_table(source)):
        if columns and (columns.id or columns.label):
            raise UsageError("--id-column and --label-column: expected one table of images, found other images")
        rows = [
            row if row.get("label") else {**row, "label": Path(row["path"]).parent.name}
            for row in read_images(sources, settings).rows
        ]
        return _Listed(rows, "images with the class of their folders")
    named = _table_columns(source, columns)
    if _is_step(source):
        command = (read_run_file(source) or {}).get("command")
        taken = f"the images of `cxrtool {command}`" if command else "a folder with a manifest"
        return _Listed(read_manifest(source, root=settings.root).rows, taken, source / MANIFEST)
    from cxrtool.data.datasets.listing import list_images, printable
    from cxrtool.data.datasets.record import Request
    from cxrtool.data.tables.workbook import is_workbook

    origin = None if is_stream(source) else source
    own = _is_table(source) and not named and not is_workbook(source)
    if own and {"image_id", "path", "label"} <= set(read_table(source).columns):
        return _Listed(read_manifest(source, root=settings.root).rows, "a manifest", origin, is_table=True)

    # The output may be inside the source, and must not become its own input.
    exclude = frozenset({settings.out.resolve()} if settings.out else ())
    listing = list_images([source], None, Request(named, exclude=exclude), None)
    rows, rejects = [], []
    for record in listing.records:
        row = record.columns
        reason = record.unwanted or record.doubt or ("" if record.relative else "this row of the table has no file")
        if settings.root and not is_inside(record.path, settings.root):
            reason = f"it is outside --root {settings.root}"
        if reason:
            rejects.append({"path": printable(row["path"] or row["original"]), "reason": reason})
            continue
        # As `prepare` writes it, so that a patient of the training is recognised.
        patient = patient_id(row.get("patient_id", ""), row["source"], None)
        rows.append({**row, "patient_id": patient} if patient else row)
    remarks = [text.replace("`--dataset", "`cxrtool prepare --dataset") for text in listing.remarks]
    remarks += listing.warnings
    if _is_table(source) or source in listing.described:
        return _Listed(rows, "a table of images", origin, rejects, remarks, is_table=True)
    remarks += [
        f"{path} is not read; name it instead of {source} to use its labels" for path in listing.unread_tables([source])
    ]
    if listing.skipped:
        remarks.append(f"files skipped because their names are not those of images: {len(listing.skipped)}")
    return _Listed(rows, "a folder with a subfolder for each class", origin, rejects, remarks)


def parse_relabel(arguments: Iterable[str]) -> dict[str, str]:
    """Read `--relabel`: labels and the classes that they become; an empty class excludes the images.

    >>> parse_relabel(["No_findings=normal,COVID-19=covid", "a,b=", "x=y"])
    {'No_findings': 'normal', 'COVID-19': 'covid', 'a': '', 'b': '', 'x': 'y'}
    """
    mapping: dict[str, str] = {}
    for text in arguments:
        waiting: list[str] = []
        for part in text.split(","):
            old, sign, new = part.rpartition("=") if "=" in part else (part, "", "")
            waiting.append(old.strip())
            if not sign:
                continue
            for name in waiting:
                if not name:
                    raise UsageError(f"--relabel: expected OLD=NEW, such as No_findings=normal, found '{part.strip()}'")
                if mapping.setdefault(name, new.strip()) != new.strip():
                    raise UsageError(f"--relabel: '{name}' cannot become both '{mapping[name]}' and '{new.strip()}'")
            waiting = []
        if waiting:
            raise UsageError(
                f"--relabel: expected OLD=NEW, such as No_findings=normal, found '{waiting[-1]}' without = in '{text}'"
            )
    return mapping


def match_labels(
    labels: Mapping[str, int],
    classes: Sequence[str],
    relabel: Mapping[str, str],
    name: str,
    settings: Settings,
) -> dict[str, str]:
    """The class of each label, which has a number of images; empty where the images are excluded.

    Raises:
        UsageError: A label is no class, or `--relabel` names a class that the model does not have.
    """
    spellings: dict[str, list[str]] = {}
    for known in classes:
        spellings.setdefault(plain_label(known), []).append(known)

    def class_of(label: str) -> str | None:
        same = spellings.get(plain_label(label), [])
        return label if label in classes else same[0] if len(same) == 1 else None

    told: dict[str, str] = {}
    for old, new in relabel.items():
        meant = class_of(new) if new else ""
        if meant is None:
            if old in classes and new in labels:
                raise UsageError(
                    f"--relabel: expected OLD=NEW with a class of the model as NEW, found '{old}={new}'",
                    f"the other way round: --relabel {shlex.quote(f'{new}={old}')}",
                )
            one_of("--relabel", new, classes)
        same = [label for label in labels if label == old] or [
            label for label in labels if plain_label(label) == plain_label(old)
        ]
        if not same:
            settings.report.warn(f"--relabel: no image of {name} has the label '{old}'")
        told |= dict.fromkeys(same, meant or "")
    found = {label: told[label] if label in told else class_of(label) for label in labels}
    unknown = sorted(label for label, known in found.items() if known is None)
    if unknown:
        raise _unknown_labels(unknown, labels, classes, relabel, name)
    return {label: known or "" for label, known in found.items()}


def _unknown_labels(
    unknown: Sequence[str], labels: Mapping[str, int], classes: Sequence[str], relabel: Mapping[str, str], name: str
) -> UsageError:
    shown = ", ".join(f"{label} ({count_of(labels[label], 'image')})" for label in unknown[:SHOWN])
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    text = f"{name}: expected labels among {', '.join(classes)}, found {shown}{more}"
    if any(mark in label for label in unknown for mark in ",="):
        return UsageError(text, "rename the labels that have a comma or = in the folder or table")
    guesses = {label: guess(label, classes) for label in unknown}
    pairs = [*(f"{old}={new}" for old, new in relabel.items()), *(f"{old}={new}" for old, new in guesses.items())]
    line = f"add (a guess, check it): --relabel {shlex.quote(','.join(pairs))}"
    if not all(guesses.values()):
        line += "  (nothing after = excludes the images)"
    return UsageError(text, line)


MEANINGS = (
    {"normal", "nofinding", "nofindings", "negative", "healthy", "control", "controls", "none", "no", "n", "0"},
    {"covid", "covid19", "sarscov2", "ncov", "coronavirus", "positive", "p", "1"},
    {"pneumonia", "otherpneumonia", "viralpneumonia", "bacterialpneumonia", "lungopacity"},
    {"tuberculosis", "tb"},
)
"""Names that mean the same in public sets of chest radiographs, without case, blanks, hyphens and underscores."""

_NEGATED = re.compile(r"(?:non|not|no|ab|without)(.+)")


def guess(label: str, classes: Sequence[str]) -> str:
    """The class that an unknown label most likely means; empty where nothing is near.

    >>> [guess(label, ["covid", "normal"]) for label in ("COVID-19", "No_findings", "non-covid", "Cardiomegaly")]
    ['covid', 'normal', 'normal', '']
    """
    name = plain_label(label)
    plain = {plain_label(known): known for known in classes}
    same = next((group for group in MEANINGS if name in group), None)
    if same and (known := next((plain[word] for word in plain if word in same), None)):
        return known
    negated = _NEGATED.fullmatch(name)
    if negated and (opposite := next((word for word in plain if len(word) > 2 and word in negated[1]), None)):
        others = [known for word, known in plain.items() if word != opposite]
        return others[0] if len(others) == 1 else next((k for k in others if plain_label(k) in MEANINGS[0]), "")
    inside = [word for word in plain if min(len(word), len(name)) > 2 and (word in name or name in word)]
    if inside:
        return plain[max(inside, key=len)]
    near = difflib.get_close_matches(name, plain, 1, 0.7)
    return plain[near[0]] if near else ""
