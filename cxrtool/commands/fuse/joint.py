"""Predict three classes from two binary networks: A (normal or not) and B (covid or not).

The joint response of de Moura et al. 2020. B may be trained on fewer images than A, but within the subsets of A: B must
have predictions for all test images of A, and must not be trained on any of them. Prints predictions, which evaluate
and compare accept, or writes them with -o.

Example: cxrtool fuse joint run-a run-b -o joint.csv
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.commands.fuse.source import SHARED, Source, fuse, show, wrong_count
from cxrtool.data.file_names import MANIFEST, SPLITS
from cxrtool.data.splitting.splits import Run, read_splits
from cxrtool.data.tables.manifest import Row, read_manifest
from cxrtool.data.tables.predictions import INCONCLUSIVE, Predictions
from cxrtool.errors import InputError, LeakageError, UsageError
from cxrtool.evaluation.fusion_rules import RULES
from cxrtool.flow import common_options
from cxrtool.flow.assignment import Seen
from cxrtool.flow.fusing import TEST, Key, examples, key_of
from cxrtool.flow.run import fold_name, is_run
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    from cxrtool.evaluation.metrics.confusion import FloatArray

CONFLICTS = ("prob", "inconclusive", "covid")
"""The prediction in a conflict: the more probable class, none, or covid."""

NAMES = "normal,pathological,covid"

SPLIT_HINT = "make the splits of B with `cxrtool split --within SPLITS-OF-A --equal COLUMN --keep test`"

Names = tuple[str, str, str]


@dataclass(frozen=True)
class JointOptions(Options):
    """The options of `fuse joint`."""

    SHARED: ClassVar[tuple[str, ...]] = (*SHARED, "seed", "allow_leakage")
    WRITES_FILE: ClassVar[bool] = True

    sources: tuple[Path, ...] = argument("The runs of A and B, or CSVs.", metavar="A B")
    names: str = option(
        "Names of the three classes: A separates the first from the rest, B the last from the rest.",
        NAMES,
        metavar="NAMES",
    )
    rule: str = option(
        "{choices}: product assumes that A and B are independent, nested that covid is a part of not normal.",
        "product",
        choices=RULES,
    )
    on_conflict: str = option(
        "Prediction where A predicts normal and B covid: prob (the more probable class), inconclusive or covid.",
        CONFLICTS[0],
        choices=CONFLICTS,
    )
    prior_correct: bool = option("Scale the odds of B from its training prevalence to that of A.", False)
    partial: bool = common_options.partial()


def run(options: JointOptions, settings: Settings) -> None:
    """Fuse, and print the predictions where no file is written."""
    show(fuse_joint(options, settings), settings)


def fuse_joint(options: JointOptions, settings: Settings) -> Predictions | None:
    """Join the predictions of A and B, and write them to the file of `-o`; None on a dry run.

    Raises:
        UsageError: Not two sources or three names, or the prior cannot be corrected.
        InputError: The sources do not fit each other.
        LeakageError: B was trained on a test image of A, and leakage is not allowed.
        IncompleteError: A run lacks folds and `partial` is false.
    """
    if len(options.sources) != 2:
        raise wrong_count("joint A B", "two", options.sources)
    names = _names(options.names)

    def join(sources: Sequence[Source]) -> Predictions:
        return join_answers(
            *sources,
            names=names,
            rule=options.rule,
            on_conflict=options.on_conflict,
            corrected=options.prior_correct,
            settings=settings,
        )

    return fuse(options.sources, join, settings, partial=options.partial)


def _names(text: str) -> Names:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 3 or len(set(names)) != 3 or not all(names):
        raise UsageError(f"--names: expected three names such as {NAMES}, found '{text}'")
    return names[0], names[1], names[2]


def correct(
    b: FloatArray, keys: Sequence[Key], first: Source, second: Source, positive: str, settings: Settings
) -> FloatArray:
    """Correct the prior of B in every fold: from the prevalence in the training subset of B to that of A.

    Args:
        b: (n,) probability of the class from B.
        keys: (n,) image, repeat, fold and subset of each.
        first: A.
        second: B; the manifest of its run must have the labels of all images, including those of A.
        positive: The class.
        settings: Reports the correction.

    Raises:
        UsageError: A or B is not a run.
        InputError: A training image has no label in the manifest of B, or a training subset has only one class.
    """
    import numpy as np

    from cxrtool.evaluation.fusion import prior_correct

    labels = _labels(second)
    p, q = (_prevalences(source, labels, positive, {key[1:3] for key in keys}) for source in (first, second))
    of_key = [key[1:3] for key in keys]
    corrected = prior_correct(b, np.array([p[run] for run in of_key]), np.array([q[run] for run in of_key]))
    settings.report.say(
        f"prevalence of {positive} in the training subsets: {_range(q)} for B, {_range(p)} for A; the odds of B are "
        f"scaled to that of A (the mix of the other classes is not corrected)"
    )
    return corrected


def _labels(second: Source) -> dict[str, str]:
    if not (is_run(second.path) and (second.path / MANIFEST).is_file()):
        raise UsageError(f"--prior-correct: expected B to be a whole run with its manifest, found {second.path}")
    labels: dict[str, str] = {}
    for row in read_manifest(second.path).rows:
        for name in filter(None, (row["image_id"], row.get("parent_id", ""))):
            labels.setdefault(name, row.get("label", ""))
    return labels


def _prevalences(source: Source, labels: Mapping[str, str], positive: str, runs: set[Run]) -> dict[Run, float]:
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
                f"--prior-correct: expected the labels of all training images of {source.path} in the manifest of B, "
                f"found no label for {len(unknown)}, such as {examples(unknown)}",
                "train B on the whole manifest with renamed labels, and exclude images by its splits",
            )
        count = sum(labels[name] == positive for name in training)
        if not 0 < count < len(training):
            raise InputError(
                f"--prior-correct: expected images of {positive} and of the rest in the training subset of "
                f"{source.path / fold_name(*run)}, found {count} of {len(training)}"
            )
        found[run] = count / len(training)
    return found


def _range(shares: Mapping[Run, float]) -> str:
    low, high = min(shares.values()), max(shares.values())
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"


@dataclass(frozen=True)
class Binary:
    """The predictions of one of the two networks.

    Attributes:
        positive: The class whose probability is used.
        other: The other class.
    """

    source: Source
    positive: str
    other: str

    @classmethod
    def of(cls, source: Source, named: str, *, named_is_positive: bool, role: str) -> Binary:
        """Find the two classes; an `InputError` if there are not two, or none has the name."""
        classes = source.predictions.classes
        if len(classes) != 2 or named not in classes:
            raise InputError(
                f"{source.predictions.name}: expected two classes of {role}, one of them {named}, found "
                f"{', '.join(classes)}",
                "A separates normal from the rest, B covid from the rest; set other names with --names",
            )
        rest = next(name for name in classes if name != named)
        return cls(source, named, rest) if named_is_positive else cls(source, rest, named)

    def probability(self, indices: list[int]) -> FloatArray:
        """Of the positive class, in these rows; scaled to sum 1, because tables can be rounded."""
        values = self.source.predictions.probabilities[indices]
        scaled: FloatArray = values[:, self.source.predictions.classes.index(self.positive)] / values.sum(axis=1)
        return scaled


def join_answers(
    first: Source,
    second: Source,
    *,
    names: Names,
    rule: str,
    on_conflict: str,
    corrected: bool,
    settings: Settings,
) -> Predictions:
    """Join the predictions of A and B for each image in each repeat, fold and subset.

    Raises:
        InputError: Classes or labels do not fit, or B lacks predictions for test images of A.
        LeakageError: B was trained on one of them, and leakage is not allowed.
        UsageError: The prior cannot be corrected, because A or B is not a run.
    """
    from cxrtool.evaluation import fusion

    a_of = Binary.of(first, names[0], named_is_positive=False, role="A")
    b_of = Binary.of(second, names[2], named_is_positive=True, role="B")
    _check_unseen(first, second, settings)
    keys = _shared(first, second, settings)
    indices_a, indices_b = [first.indices[key] for key in keys], [second.indices[key] for key in keys]
    a, uncorrected = a_of.probability(indices_a), b_of.probability(indices_b)
    b = correct(uncorrected, keys, first, second, names[2], settings) if corrected else uncorrected
    conflict = fusion.is_conflict(a, b)
    decided = fusion.joint_decision(a, b, rule)
    rows: list[Row] = []
    for i, key in enumerate(keys):
        row, other = first.predictions.rows[indices_a[i]], second.predictions.rows[indices_b[i]]
        predicted = names[decided[i]]
        if conflict[i] and on_conflict != CONFLICTS[0]:
            predicted = names[2] if on_conflict == "covid" else INCONCLUSIVE
        warnings = dict.fromkeys(cell for cell in (row.get("warning"), other.get("warning")) if cell)
        cells = {"label": _label(key, row, other, a_of, b_of, names), "predicted": predicted}
        cells |= {"warning": "; ".join(warnings), "conflict": "yes" if conflict[i] else ""}
        numbers = {"conflict_mass": fusion.conflict_mass(a[i], b[i]), "probability_a": a[i], "probability_b": b[i]}
        numbers |= {"probability_b_uncorrected": uncorrected[i]} if corrected else {}
        rows.append({**row, **cells, **{name: f"{value:.9g}" for name, value in numbers.items()}})
    columns = [*first.predictions.columns, "conflict_mass", "conflict", "probability_a", "probability_b"]
    fused = Predictions(list(names), rows, RULES[rule](a, b), "joint", columns)
    _report(fused, {name: make(a, b) for name, make in RULES.items()}, rule, settings)
    return fused


def _check_unseen(first: Source, second: Source, settings: Settings) -> None:
    """Refuse test images of A that B was trained or validated on, in the same repeat and fold."""
    found: list[str] = []
    unknown = 0
    for run in first.predictions.runs():
        rows = [row for row in first.predictions.rows if key_of(row)[1:] == (*run, TEST)]
        folder = second.folder_of(run)
        if folder is None:
            unknown += len(rows)
            continue
        seen, names = Seen.of([folder]), second.fitted_on(run)
        found += [f"{key_of(row)[0]} in {folder.name}" for row in rows if key_of(row)[0] in names or seen.by(row)]
    if unknown:
        settings.report.warn(
            f"{second.predictions.name} is not a run, so it cannot be checked whether it was trained on the test "
            f"images of {first.predictions.name}"
        )
    if found:
        text = (
            f"{second.predictions.name}: expected B to be trained on none of the test images of A, found {len(found)} "
            f"that it, or a model of their patient, was trained on, such as {found[0]}"
        )
        if not settings.allow_leakage:
            raise LeakageError(text, SPLIT_HINT)
        settings.report.warn(text)


def _shared(first: Source, second: Source, settings: Settings) -> list[Key]:
    """The predictions that both have, including all test images of A."""
    missing = [key[0] for key in first.indices if key[3] == TEST and key not in second.indices]
    if missing:
        tested = sum(key[3] == TEST for key in first.indices)
        raise InputError(
            f"{second.predictions.name}: expected predictions for all {tested} test images of "
            f"{first.predictions.name} in the same repeat and fold, found none for {len(missing)}, such as "
            f"{examples(missing)}",
            SPLIT_HINT,
        )
    keys = [key for key in first.indices if key in second.indices]
    if not keys:
        raise InputError(
            f"{first.predictions.name} and {second.predictions.name}: expected images in common, found none"
        )
    excluded = len(first.indices) - len(keys)
    if excluded:
        settings.report.say(f"excluded {excluded} validation predictions of A that B does not have")
    return keys


def _label(key: Key, row: Row, other: Row, a_of: Binary, b_of: Binary, names: Names) -> str:
    """The true class of an image, from its labels in A and in B; empty where one of them is missing."""
    a, b = row.get("label", ""), other.get("label", "")
    for label, network in ((a, a_of), (b, b_of)):
        if label not in ("", network.positive, network.other):
            raise InputError(
                f"{network.source.predictions.name}: expected the label {network.positive} or {network.other}, found "
                f"'{label}' of '{key[0]}'"
            )
    if a == a_of.other and b == b_of.positive:
        raise InputError(
            f"'{key[0]}': expected labels that agree, found {a} in {a_of.source.predictions.name} and {b} in "
            f"{b_of.source.predictions.name}"
        )
    if not a or not b:
        return ""
    return names[2] if b == b_of.positive else names[1] if a == a_of.positive else names[0]


def _report(fused: Predictions, by_rule: dict[str, FloatArray], rule: str, settings: Settings) -> None:
    """Report the conflicts on test images, the accuracy, and the Brier score of both rules."""
    from cxrtool.evaluation.scores import scores_of
    from cxrtool.evaluation.summary import summarise
    from cxrtool.evaluation.tables import cell

    report = settings.report
    tested = [row for row in fused.rows if key_of(row)[3] == TEST] or fused.rows
    conflicts = sum(row["conflict"] == "yes" for row in tested)
    share = f"{conflicts} of {len(tested)} predictions, {conflicts / len(tested):.1%}"
    report.say(f"conflicts (A normal, B covid): {share}")
    if not any(row["label"] for row in tested):
        report.say("no labels: accuracy and Brier score cannot be computed")
        return
    found: dict[str, dict[str, Any]] = {}
    for name, probabilities in by_rule.items():
        scores = scores_of(replace(fused, probabilities=probabilities), abstaining=True)
        found[name] = summarise(scores, seed=settings.seed)["overall"]
    overall = found[rule]
    if "coverage" in overall:
        report.say(f"decided: {cell(overall['coverage'], 3)} of the images")
    accuracy = f"accuracy: {cell(overall['accuracy'], 3)}"
    if "accuracy_all" in overall:
        accuracy += f" of the decided images, {cell(overall['accuracy_all'], 3)} with inconclusive counted as wrong"
    report.say(accuracy)
    briers = (f"{name} {cell(figures['brier'], 3)}" for name, figures in found.items())
    report.say(f"Brier score (sum over three classes, lower is better): {', '.join(briers)}")
