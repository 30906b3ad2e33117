"""The files beside a table of predictions: how it was made, and the properties of its images.

`predict -o answers.csv` also writes `answers.run.json`, `answers.images.csv` and `answers.rejects.csv`, so that a page
on the predictions can name their model and the images that are unlike its training images.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.digests import FILES, entry_of_file
from cxrtool.data.file_names import REJECTS, RUN_FILE
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import Row, read_table, write_table
from cxrtool.errors import InputError
from cxrtool.flow.folder import Inputs, Plan, write_run_file
from cxrtool.flow.journal import JOURNAL, is_journal
from cxrtool.flow.predicting import Answer, Earlier, Question
from cxrtool.flow.run import model_digest, weights_of
from cxrtool.options import Options

if TYPE_CHECKING:
    from cxrtool.flow.settings import Settings
    from cxrtool.training.inference import Member

IMAGES = "images.csv"


def earlier_answers(
    table: Path | None, options: Question, settings: Settings
) -> contextlib.AbstractContextManager[Earlier | None]:
    """What is known of images from the files beside a table that is going to be replaced; None where none is kept."""
    if table is None or (table.exists() and not table.is_file()):
        return contextlib.nullcontext()
    digests = _read_made(beside(table, RUN_FILE)).get(FILES, {})
    return Earlier.beside(table, beside(table, JOURNAL).name, digests, options, settings)


def beside(table: Path, name: str) -> Path:
    """The file beside a table of predictions.

    >>> beside(Path("out/answers.csv"), IMAGES).name
    'answers.images.csv'
    """
    return table.with_suffix(f".{name}")


def own_beside(table: Path) -> dict[Path, Callable[[Path], bool]]:
    """The files beside a table of predictions, each with whether an existing file is one that `predict` wrote."""
    return {
        beside(table, RUN_FILE): lambda path: bool(_read_made(path)),
        beside(table, IMAGES): lambda path: {"image_id", "path", "unlike"} <= set(_columns(path)),
        beside(table, REJECTS): lambda path: _columns(path) == ["path", "reason"],
        beside(table, JOURNAL): is_journal,
    }


def write_beside(
    table: Path,
    model: Path,
    options: Options,
    settings: Settings,
    members: Sequence[Member],
    answers: Iterable[Answer],
    rejects: Sequence[Row],
    started: float,
    earlier: Earlier,
    counts: Mapping[str, int],
) -> None:
    """Write the files beside a table of predictions.

    Args:
        table: The table, which exists.
        model: The model or run.
        options: Of `predict`.
        settings: The shared options.
        members: The models.
        answers: Their answers.
        rejects: The images without an answer.
        started: When the command started, in seconds since the epoch.
        earlier: With the answers that a later run may take over.
        counts: Of answers and rejects.
    """
    from cxrtool.imaging import properties

    base = table.absolute().parent
    known = (
        {"image_id": one.row["image_id"], "path": os.path.relpath(one.row["path"], base), **one.properties}
        for one in answers
    )
    write_table(beside(table, IMAGES), ["image_id", "path", *properties.COLUMNS], known)
    write_table(beside(table, REJECTS), ["path", "reason"], rejects)
    first = members[0].description
    alike = [one.description.usual for one in members if one.description.chain == first.chain]
    folders = [{"folder": os.path.relpath(one.folder, base), "digest": model_digest(one.folder)} for one in members]
    earlier.journal.write(beside(table, JOURNAL))
    extra = {
        "model": os.path.relpath(model, base),
        "members": folders,
        "training_images": properties.of_models(alike),
        FILES: {beside(table, JOURNAL).name: entry_of_file(beside(table, JOURNAL))},
    }
    plan = Plan("predict", options.identity(), Inputs.of(files=[weights_of(one.folder) for one in members]))
    write_run_file(base, plan, settings, started, counts, extra, name=beside(table, RUN_FILE).name)


@dataclass(frozen=True)
class Beside:
    """What is known of a table of predictions.

    Attributes:
        made: The content of `*.run.json`; empty where there is none.
        model: The model or run, where it is still there.
        folders: The models, where all are still there and were not trained again.
        lost: Why the models are not known, in words; empty where they are.
        images: The properties of each image, by its id.
        rejects: The images without a prediction.
        files: The files that were read.
    """

    made: Mapping[str, Any] = field(default_factory=dict)
    model: Path | None = None
    folders: Sequence[Path] = ()
    lost: str = ""
    images: Mapping[str, Row] = field(default_factory=dict)
    rejects: Sequence[Row] = ()
    files: Sequence[Path] = ()

    @classmethod
    def read(cls, table: Path) -> Beside:
        """Read the files beside a table; what is missing stays empty."""
        made = _read_made(beside(table, RUN_FILE))
        base = table.absolute().parent
        files = [path for name in (RUN_FILE, IMAGES, REJECTS) if (path := beside(table, name)).is_file()]
        images = {row["image_id"]: row for row in _rows(beside(table, IMAGES)) if row.get("image_id")}
        folders = [Path(os.path.normpath(base / one["folder"])) for one in made.get("members", [])]
        lost = ""
        if not made:
            lost = f"{beside(table, RUN_FILE).name} is missing, which `cxrtool predict -o FILE` writes beside its table"
        for folder, one in zip(folders, made.get("members", []), strict=True):
            if not weights_of(folder).is_file():
                lost = f"{folder} is not there anymore"
            elif model_digest(folder) != one["digest"]:
                lost = f"{folder} was trained again after these predictions"
        model = Path(os.path.normpath(base / made["model"])) if made and not lost else None
        return cls(made, model, [] if lost else folders, lost, images, _rows(beside(table, REJECTS)), files)


def _read_made(path: Path) -> dict[str, Any]:
    try:
        content = load_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and {"model", "members", "training_images"} <= content.keys() else {}


def _columns(path: Path) -> Sequence[str]:
    try:
        return read_table(path).columns
    except InputError:
        return ()


def _rows(path: Path) -> list[Row]:
    try:
        return read_table(path).rows if path.is_file() else []
    except InputError:
        return []
