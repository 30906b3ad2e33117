"""The prior of a network that was trained on a balanced part of the images, and what undoes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cxrtool.data.manifest import FILE_NAME, read_manifest
from cxrtool.data.splits import FILE_NAME as SPLITS
from cxrtool.data.splits import Run, read_splits
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.run import fold_name, is_run
from cxrtool.flow.settings import Settings
from cxrtool.steps.fuse_source import Key, Source, examples

if TYPE_CHECKING:
    from cxrtool.evaluation.metrics import FloatArray


def correct(
    b: FloatArray, keys: Sequence[Key], first: Source, second: Source, asked: str, settings: Settings
) -> FloatArray:
    """Undo B's prior in every fold: from the share of a class in B's training subset to that in A's.

    Args:
        b: (n,) probability of the class from B.
        keys: (n,) image, repeat, fold and subset of each.
        first: A.
        second: B; the manifest of its run has the labels of all images, also of those that A alone was trained on.
        asked: The class.
        settings: Told what was done.

    Raises:
        UsageError: A or B is no run.
        InputError: A training image has no label in B's manifest, or the class is all or nothing of a training subset.
    """
    import numpy as np

    from cxrtool.evaluation.fusion import prior_correct

    labels = _labels(second)
    p, q = (_shares(source, labels, asked, {key[1:3] for key in keys}) for source in (first, second))
    of_key = [key[1:3] for key in keys]
    corrected = prior_correct(b, np.array([p[run] for run in of_key]), np.array([q[run] for run in of_key]))
    settings.report.say(
        f"prior of {asked}: {_range(q)} in B's training subset, {_range(p)} in A's, which B's odds are scaled to; B's "
        f"changed mix of the other images is left as it is"
    )
    return corrected


def _labels(second: Source) -> dict[str, str]:
    if not (is_run(second.path) and (second.path / FILE_NAME).is_file()):
        raise UsageError(f"--prior-correct: expected of B a whole run with its manifest, found {second.path}")
    labels: dict[str, str] = {}
    for row in read_manifest(second.path).rows:
        for name in filter(None, (row["image_id"], row.get("parent_id", ""))):
            labels.setdefault(name, row.get("label", ""))
    return labels


def _shares(source: Source, labels: Mapping[str, str], asked: str, runs: set[Run]) -> dict[Run, float]:
    if not (is_run(source.path) and (source.path / SPLITS).is_file()):
        raise UsageError(f"--prior-correct: expected runs with their {SPLITS}, found {source.path}")
    splits = read_splits(source.path)
    found = {}
    for run in sorted(runs):
        subsets = splits.runs.get((run[0] or "0", run[1] or "0"), {})
        training = [name for name, subset in subsets.items() if subset == "train"]
        unknown = [name for name in training if not labels.get(name)]
        if unknown:
            raise InputError(
                f"--prior-correct: expected the labels of all training images of {source.path} in B's manifest, found "
                f"none of {len(unknown)}, such as {examples(unknown)}",
                "train B on the whole manifest with its labels renamed; its splits alone leave images out",
            )
        count = sum(labels[name] == asked for name in training)
        if not 0 < count < len(training):
            raise InputError(
                f"--prior-correct: expected images of {asked} and others in the training subset of "
                f"{source.path / fold_name(*run)}, found {count} of {len(training)}"
            )
        found[run] = count / len(training)
    return found


def _range(shares: Mapping[Run, float]) -> str:
    low, high = min(shares.values()), max(shares.values())
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
