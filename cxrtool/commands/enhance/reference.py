"""The reference image of the histogram match: named by the user, or chosen from the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.enhance.images import Kept, Task, count_one, measure_one, modules_of
from cxrtool.data.confinement import is_inside
from cxrtool.data.splitting.splits import Splits, known_as, valid_in
from cxrtool.data.tables.views import RowView
from cxrtool.errors import ImageError, InputError, NothingReadError
from cxrtool.flow.chain import ALL, Chain
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.folder import Build
from cxrtool.flow.on_device import served
from cxrtool.flow.parallel import map_items
from cxrtool.flow.replaying import MATCH
from cxrtool.flow.run import fold_name
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    import numpy as np

BEFORE = "before"
"""The folder for images after the steps before the match, where these steps are slow."""


@dataclass(frozen=True)
class Fold:
    """Images that share a reference.

    Attributes:
        name: `r0f3`, or `ALL`.
        repeat: As in the splits; empty for `ALL`.
        fold: As in the splits; empty for `ALL`.
        indices: The rows of the manifest that are valid in it.
        fitted: Those of them that the reference is chosen from.
    """

    name: str
    repeat: str
    fold: str
    indices: Sequence[int]
    fitted: Sequence[int]


def divide(rows: Sequence[RowView], splits: Splits | None) -> list[Fold]:
    """The folds with a reference of their own, each with its rows.

    Raises:
        InputError: A fold has no training image in the manifest.
    """
    if splits is None:
        all_indices = range(len(rows))
        return [Fold(ALL, "", "", all_indices, all_indices)]
    folds = []
    for (repeat, number), subsets in splits.runs.items():
        indices = [i for i, row in enumerate(rows) if known_as(row, subsets) and valid_in(row, (repeat, number))]
        fitted = [i for i in indices if subsets[known_as(rows[i], subsets)] == "train"]
        name = fold_name(repeat, number)
        if not fitted:
            raise InputError(
                f"{splits.name}: fold {name} has no training image in this manifest, so there is no reference",
                "use the splits of this manifest, or --reference IMAGE",
            )
        folds.append(Fold(name, repeat, number, indices, fitted))
    return folds


@dataclass
class References:
    """The chosen references.

    Attributes:
        entries: For each distinct reference its entry of the chain.
        of_fold: For each fold's name the index of its entry.
        names: For each fold's name the id, or the file, of its reference.
        path: The file of the first one, for the figure.
        darkest: For each entry the share of its reference that is nearly black.
    """

    entries: list[dict[str, Any]]
    of_fold: dict[str, int]
    names: dict[str, str]
    path: str
    darkest: list[float]

    def entry(self) -> dict[str, Any]:
        """The entry of the chain with the references of all folds."""
        if list(self.of_fold) == [ALL]:
            return self.entries[0]
        folds = {name: self.entries[index]["quantiles"] for name, index in self.of_fold.items()}
        return MATCH.entry(folds=folds)


def given(path: str, before: Chain, root: Path | None) -> References:
    """The reference that the user names, after the steps before the match.

    Raises:
        InputError: It cannot be read, or lies outside `root`.
    """
    if root is not None and not is_inside(path, root):
        raise InputError(f"--reference {path}: it is outside --root {root}")
    from cxrtool.imaging.histogram import darkest_share

    try:
        counts = count_one(Task("", path, ()), target=Path(), before=before)
    except ImageError as error:
        raise InputError(f"--reference {path}: {error.message}", error.hint) from error
    return References([_entry(counts)], {ALL: 0}, {ALL: path}, path, [darkest_share(counts)])


def _entry(counts: np.ndarray) -> dict[str, Any]:
    from cxrtool.imaging.histogram import pack

    return MATCH.entry(quantiles=pack(counts))


def choose(
    rows: Sequence[RowView], folds: Sequence[Fold], before: Chain, build: Build, settings: Settings, *, keep: bool
) -> tuple[References, dict[int, str], dict[int, Kept]]:
    """For each fold the image whose histogram is nearest to the mean of the fold's training images.

    Args:
        rows: The rows of the manifest.
        folds: As `divide` returns them.
        before: The steps before the match.
        build: The unfinished folder.
        settings: The shared options.
        keep: Write each image after these steps into `BEFORE`.

    Returns:
        The references, the reason for each row that cannot be read, and the files that were kept of rows.

    Raises:
        InputError: None of a fold's training images can be read.
    """
    import numpy as np

    from cxrtool.imaging.histogram import darkest_share, nearest_to_mean

    wanted = sorted({index for fold in folds for index in (fold.indices if keep else fold.fitted)})
    histograms, failed, kept = _measure(rows, wanted, before, build, settings, keep=keep)
    chosen: dict[str, int] = {}
    for fold in folds:
        usable = [index for index in fold.fitted if index in histograms]
        if not usable:
            index = fold.fitted[0]
            name = f"fold {fold.name}" if fold.name else "the images to fit on"
            raise NothingReadError(name, len(fold.fitted), rows[index]["path"], failed[index])
        chosen[fold.name] = usable[nearest_to_mean(np.stack([histograms[index] for index in usable]))]
    distinct = list(dict.fromkeys(chosen.values()))
    tasks = [Task("", rows[index]["path"], (), rows[index], kept.get(index)) for index in distinct]
    work = partial(count_one, target=build.path, before=before)
    counted = map_items(served(work), tasks, workers=min(settings.workers, len(tasks)), preload=modules_of(before))
    entries, darkest = [], []
    for task, counts in counted:
        if isinstance(counts, InputError):
            raise InputError(f"{task.path}: was readable before, and is not any more: {counts.message}")
        entries.append(_entry(counts))
        darkest.append(darkest_share(counts))
    of_fold = {name: distinct.index(index) for name, index in chosen.items()}
    names = {name: rows[index]["image_id"] for name, index in chosen.items()}
    return References(entries, of_fold, names, rows[distinct[0]]["path"], darkest), failed, kept


def waiting(row: RowView) -> str:
    """The file of an image after the steps before the match, relative to the folder."""
    return f"{BEFORE}/{row['image_id']}.png"


def _measure(
    rows: Sequence[RowView], wanted: Sequence[int], before: Chain, build: Build, settings: Settings, *, keep: bool
) -> tuple[dict[int, np.ndarray], dict[int, str], dict[int, Kept]]:
    """The histograms of rows after the steps before the match, why others have none, and the files that were kept."""
    from cxrtool.imaging.histogram import shares, unpack

    found: dict[int, np.ndarray] = {}
    failed: dict[int, str] = {}
    kept: dict[int, Kept] = {}
    if keep:
        (build.path / BEFORE).mkdir(exist_ok=True)
    identity = build.marks("splits")
    marks = {
        f"{BEFORE}/{rows[index]['image_id']}": identity.of(rows[index].get("sha256"), files=[rows[index]["path"]])
        for index in wanted
    }
    done = build.done(marks)
    pending = []

    def note(index: int, record: Mapping[str, Any]) -> None:
        found[index] = shares(unpack(record["cells"]))
        if "bytes" in record:
            kept[index] = Kept(waiting(rows[index]), record["bytes"])

    for index, key in zip(wanted, marks, strict=True):
        if key in done:
            note(index, done[key])
        else:
            pending.append(index)
    tasks = (
        Task(f"{BEFORE}/{row['image_id']}", row["path"], ((0, (waiting(row),)),), row)
        for row in map(rows.__getitem__, pending)
    )
    work = partial(measure_one, target=build.path, before=before, keep=keep)
    workers, cluster = min(settings.workers, len(pending) or 1), Cluster.of(settings)
    results = map_items(served(work), tasks, workers=workers, preload=modules_of(before), cluster=cluster)
    with settings.report.progress("choosing a reference", len(pending)) as advance:
        for index, (task, result) in zip(pending, results, strict=True):
            if isinstance(result, InputError):
                failed[index] = result.message
            else:
                build.journal.add(task.key, result, marks[task.key])
                note(index, result)
            advance(1)
    return found, failed, kept
