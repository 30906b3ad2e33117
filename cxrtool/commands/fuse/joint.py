"""Three classes from A (normal or not) and B (covid or not).

The joint response of de Moura et al. 2020. B may be trained on fewer images than A, but inside A's subsets: it has
answered all of A's test images and was trained on none. Prints predictions, which evaluate and compare take, or
writes them with -o.

Example: cxrtool fuse joint run-a run-b -o joint.csv
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.commands.fuse.source import SHARED, TEST, Key, Source, examples, fuse, key_of, show, wrong_count
from cxrtool.data.splitting.splits import FILE_NAME as SPLITS
from cxrtool.data.splitting.splits import Run, read_splits
from cxrtool.data.tables.manifest import FILE_NAME, Row, read_manifest
from cxrtool.data.tables.predictions import INCONCLUSIVE, Predictions
from cxrtool.errors import InputError, LeakageError, UsageError
from cxrtool.flow import common_options
from cxrtool.flow.run import fold_name, is_run
from cxrtool.flow.seen import Seen
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    from cxrtool.evaluation.metrics.confusion import FloatArray

CONFLICTS = ("prob", "inconclusive", "covid")
"""What may be said on conflict: the likelier class, nothing, or covid."""

NAMES = "normal,pathological,covid"

SPLIT_HINT = "make B's splits with `cxrtool split --within A's-splits --equal COLUMN --keep test`"

Names = tuple[str, str, str]


def _rules() -> Iterable[str]:
    from cxrtool.evaluation.fusion import RULES

    return RULES


@dataclass(frozen=True)
class JointOptions(Options):
    """The options of `fuse joint`."""

    SHARED: ClassVar[tuple[str, ...]] = (*SHARED, "seed", "allow_leakage")

    sources: tuple[Path, ...] = argument("The runs of A and B, or CSVs.", metavar="A B")
    names: str = option(
        "What A and B tell apart, A the first from the rest, B the last from the rest.", NAMES, metavar="NAMES"
    )
    rule: str = option(
        "{choices}: product takes A and B as independent, nested B as a part of A.", "product", choices=_rules
    )
    on_conflict: str = option(
        "Where A says normal and B covid: prob (the likelier), inconclusive or covid.", CONFLICTS[0], choices=CONFLICTS
    )
    prior_correct: bool = option("Scale B's odds from its training shares to A's.", False)
    partial: bool = common_options.partial()


def run(options: JointOptions, settings: Settings) -> None:
    """Fuse, and print the predictions where no file is written."""
    show(fuse_joint(options, settings), settings)


def fuse_joint(options: JointOptions, settings: Settings) -> Predictions | None:
    """Join the answers of A and B, and write the predictions where `-o` names a file; None on a dry run.

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


@dataclass(frozen=True)
class Binary:
    """One of the two networks.

    Attributes:
        source: Its answers.
        asked: The class whose probability counts.
        other: The other class.
    """

    source: Source
    asked: str
    other: str

    @classmethod
    def of(cls, source: Source, named: str, *, ask_named: bool, role: str) -> Binary:
        """Find the two classes.

        Raises:
            InputError: They are not two, or none of them has the name.
        """
        classes = source.predictions.classes
        if len(classes) != 2 or named not in classes:
            raise InputError(
                f"{source.predictions.name}: expected of {role} two classes, one of them {named}, found "
                f"{', '.join(classes)}",
                "A tells normal from the rest, B covid from the rest; other names with --names",
            )
        rest = next(name for name in classes if name != named)
        return cls(source, named, rest) if ask_named else cls(source, rest, named)

    def probability(self, places: list[int]) -> FloatArray:
        """Of the class asked about, in these rows; scaled, where a table was rounded."""
        values = self.source.predictions.probabilities[places]
        own: FloatArray = values[:, self.source.predictions.classes.index(self.asked)] / values.sum(axis=1)
        return own


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
    """Join the answers of A and B about each image in each repeat, fold and subset.

    Raises:
        InputError: Classes or labels do not fit, or B has not answered all of A's test images.
        LeakageError: B was trained on one of them, and leakage is not allowed.
        UsageError: The prior cannot be corrected, because A or B is no run.
    """
    from cxrtool.evaluation import fusion

    a_of = Binary.of(first, names[0], ask_named=False, role="A")
    b_of = Binary.of(second, names[2], ask_named=True, role="B")
    _check_unseen(first, second, settings)
    keys = _shared(first, second, settings)
    places_a, places_b = [first.places[key] for key in keys], [second.places[key] for key in keys]
    a, plain = a_of.probability(places_a), b_of.probability(places_b)
    b = correct(plain, keys, first, second, names[2], settings) if corrected else plain
    conflict = fusion.is_conflict(a, b)
    decided = fusion.joint_decision(a, b, rule)
    rows: list[Row] = []
    for i, key in enumerate(keys):
        row, other = first.predictions.rows[places_a[i]], second.predictions.rows[places_b[i]]
        called = names[decided[i]]
        if conflict[i] and on_conflict != CONFLICTS[0]:
            called = names[2] if on_conflict == "covid" else INCONCLUSIVE
        warnings = dict.fromkeys(cell for cell in (row.get("warning"), other.get("warning")) if cell)
        told = {"label": _label(key, row, other, a_of, b_of, names), "predicted": called}
        told |= {"warning": "; ".join(warnings), "conflict": "yes" if conflict[i] else ""}
        numbers = {"conflict_mass": fusion.conflict_mass(a[i], b[i]), "probability_a": a[i], "probability_b": b[i]}
        numbers |= {"probability_b_uncorrected": plain[i]} if corrected else {}
        rows.append({**row, **told, **{name: f"{value:.9g}" for name, value in numbers.items()}})
    columns = [*first.predictions.columns, "conflict_mass", "conflict", "probability_a", "probability_b"]
    fused = Predictions(list(names), rows, fusion.RULES[rule](a, b), "joint", columns)
    _tell(fused, {name: make(a, b) for name, make in fusion.RULES.items()}, rule, settings)
    return fused


def _check_unseen(first: Source, second: Source, settings: Settings) -> None:
    """Refuse test images of A that B was trained on or chosen by, in the same repeat and fold."""
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
            f"{second.predictions.name} is no run: whether it was trained on the test images of "
            f"{first.predictions.name} cannot be checked"
        )
    if found:
        text = (
            f"{second.predictions.name}: expected a B that has seen none of A's test images, found {len(found)} that "
            f"it, or their patients, were trained on, such as {found[0]}"
        )
        if not settings.allow_leakage:
            raise LeakageError(text, SPLIT_HINT)
        settings.report.warn(text)


def _shared(first: Source, second: Source, settings: Settings) -> list[Key]:
    """What both have answered; of A's test all."""
    missing = [key[0] for key in first.places if key[3] == TEST and key not in second.places]
    if missing:
        asked = sum(key[3] == TEST for key in first.places)
        raise InputError(
            f"{second.predictions.name}: expected answers about all {asked} test images of "
            f"{first.predictions.name} in the same repeat and fold, found none about {len(missing)}, such as "
            f"{examples(missing)}",
            SPLIT_HINT,
        )
    keys = [key for key in first.places if key in second.places]
    if not keys:
        raise InputError(f"{first.predictions.name} and {second.predictions.name}: expected images in common")
    left = len(first.places) - len(keys)
    if left:
        settings.report.say(f"{left} validation answers of A have none of B beside them and are left out")
    return keys


def _label(key: Key, row: Row, other: Row, a_of: Binary, b_of: Binary, names: Names) -> str:
    """The true class of an image, from what it is called in A and in B; empty where either does not know."""
    a, b = row.get("label", ""), other.get("label", "")
    for label, network in ((a, a_of), (b, b_of)):
        if label not in ("", network.asked, network.other):
            raise InputError(
                f"{network.source.predictions.name}: expected the label {network.asked} or {network.other}, found "
                f"'{label}' of '{key[0]}'"
            )
    if a == a_of.other and b == b_of.asked:
        raise InputError(
            f"'{key[0]}': expected labels that agree, found {a} in {a_of.source.predictions.name} and {b} in "
            f"{b_of.source.predictions.name}"
        )
    if not a or not b:
        return ""
    return names[2] if b == b_of.asked else names[1] if a == a_of.asked else names[0]


def _tell(fused: Predictions, by_rule: dict[str, FloatArray], rule: str, settings: Settings) -> None:
    """Say how often the networks contradict one another on test images, and what both rules are worth there."""
    from cxrtool.evaluation.scores import scores_of
    from cxrtool.evaluation.summary import summarise
    from cxrtool.evaluation.tables import cell

    report = settings.report
    tested = [row for row in fused.rows if key_of(row)[3] == TEST] or fused.rows
    conflicts = sum(row["conflict"] == "yes" for row in tested)
    report.say(f"conflicts (A normal, B covid): {conflicts} of {len(tested)} answers, {conflicts / len(tested):.1%}")
    if not any(row["label"] for row in tested):
        report.say("no labels: neither accuracy nor Brier score")
        return
    found: dict[str, dict[str, Any]] = {}
    for name, probabilities in by_rule.items():
        scores = scores_of(replace(fused, probabilities=probabilities), abstaining=True)
        found[name] = summarise(scores, seed=settings.seed)["overall"]
    own = found[rule]
    if "coverage" in own:
        report.say(f"decided: {cell(own['coverage'], 3)} of the images")
    accuracy = f"accuracy: {cell(own['accuracy'], 3)}"
    if "accuracy_all" in own:
        accuracy += f" of those decided, {cell(own['accuracy_all'], 3)} with the inconclusive as wrong"
    report.say(accuracy)
    briers = (f"{name} {cell(figures['brier'], 3)}" for name, figures in found.items())
    report.say(f"Brier score (sum over three classes, lower is better): {', '.join(briers)}")
