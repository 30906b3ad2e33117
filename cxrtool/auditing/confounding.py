"""Confounding: what the label is associated with besides the disease, as far as a table shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from cxrtool.auditing.association import (
    CERTAIN,
    LARGE_SMD,
    LARGE_W,
    MISSING,
    PERMUTATIONS,
    PRESENCE,
    SEPARATING_AUC,
    SEPARATING_V,
    SMALL_SMD,
    SMALL_W,
    VALUE,
    Categorical,
    Numerical,
    Question,
    Units,
    ask,
    associate,
    by_class,
    level_of,
    units_of,
)
from cxrtool.auditing.factors import AGE, FILE, FILE_COLUMNS, FILES, NAMESPACE, NAMING, NUMBER, OTHERS, SOURCE
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part, capital, listed
from cxrtool.data.tables.views import RowView
from cxrtool.evaluation.comparison.tables import p_value
from cxrtool.evaluation.sheet import ABSENT, Sheet, cell, count_of

NAME, TITLE = "confounding", "What the label is associated with besides the disease"

MOST_SOURCES = 20
"""Sources that a table lists; the others are summed."""

THRESHOLDS = (
    f"Alarm: this alone separates the classes (V from {SEPARATING_V}, AUC from {SEPARATING_AUC}; missing cells "
    f"and names warn at most). Warning: large (V x sqrt(min(levels, classes) - 1) from {LARGE_W}, difference of the "
    f"means from {LARGE_SMD} SD; Cohen 1988). Note: from {SMALL_W} and {SMALL_SMD}. Each only with q below {CERTAIN}."
)

CHILD = 18.0
"""Years of age below which a patient is a child here."""

CHILDREN_APART = 0.5
"""Difference between the shares of children in two classes from which it is reported."""

NAMED = (SOURCE, NAMESPACE)
"""Factors that name a source, in contrast to those that only suggest one."""

LEAST_KNOWN = 0.9
"""Share of each class for which a factor must be known before it counts as a source."""

INSEPARABLE = "Nothing in this data set can separate the disease from the source, so an accuracy on it may mean either."

SIGNS = 3
"""Signs that a sentence lists."""

SIGN_PERMUTATIONS = 2000

UNITS_OF_MEASURE = {AGE: " years", "width": " pixels", "height": " pixels"}
READABLE = {"aspect": "width over height", "kind": "type of file", "bits": "bits per pixel", "size": "size in pixels"}


def readable(name: str) -> str:
    """A factor's name in a sentence.

    >>> readable("aspect"), readable("view")
    ('width over height', 'view')
    """
    return READABLE.get(name, name)


def percent(share: float) -> str:
    """A share as text, never rounded to 0 or 100 %.

    >>> percent(0.7), percent(1.0), percent(0.998), percent(0.002)
    ('70 %', '100 %', 'over 99 %', 'under 1 %')
    """
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "under 1 %" if share < 0.5 else "over 99 %"
    return f"{100 * share:.0f} %"


def span(shares: Sequence[float]) -> str:
    """One share, or from the lowest to the highest.

    >>> span([0.5, 0.5]), span([0.7, 0.98])
    ('50 %', '70 to 98 %')
    """
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def described(question: Question, units: Units) -> str:
    """The distribution behind an association, as `AP for 80 % of covid, 12 % of normal`."""
    answer, name = question.answer, question.factor.name
    if question.about == MISSING:
        known = ", ".join(f"{percent(share)} of {label}" for label, share in known_shares(question, units).items())
        return f"{f'a {name}' if name in PRESENCE else 'known'} for {known}"
    if isinstance(answer, Categorical):
        if answer.v is None:
            return answer.reason
        totals = answer.table.sum(axis=0)
        present = np.flatnonzero(totals)
        shares = answer.table[:, present] / totals[present]
        widest = int(np.ptp(shares, axis=1).argmax())
        parts = zip(shares[widest].tolist(), present, strict=True)
        of = ", ".join(f"{percent(share)} of {units.classes[k]}" for share, k in parts)
        return f"{answer.levels[widest]} for {of}"
    if answer.pair is None:
        return answer.reason
    unit = UNITS_OF_MEASURE.get(name, "")
    one, other = (units.classes[k] for k in answer.pair)
    values = numbers_by_class(question, units)
    means = [sum(values[label]) / len(values[label]) for label in (one, other)]
    text = f"on average {means[0]:.3g}{unit} in {one}, {means[1]:.3g}{unit} in {other}"
    if name == AGE:
        young = [sum(value < CHILD for value in values[label]) / len(values[label]) for label in (one, other)]
        if abs(young[0] - young[1]) >= CHILDREN_APART:
            text += f"; {percent(young[0])} of {one} and {percent(young[1])} of {other} are under {CHILD:.0f}"
    return text


def strength(question: Question) -> str:
    """The effect size of an association, for the brackets in a sentence."""
    answer = question.answer
    if isinstance(answer, Categorical):
        return f"Cramér's V {answer.corrected:.2f}" if answer.corrected is not None else ""
    parts = [f"standardised difference {answer.smd:.2f}" if answer.smd is not None else ""]
    parts.append(f"AUC {max(answer.auc, 1 - answer.auc):.2f}" if answer.auc is not None else "")
    return ", ".join(part for part in parts if part)


def known_shares(question: Question, units: Units) -> dict[str, float]:
    """For each class the share of units for which a factor is known."""
    return {name: 1.0 - found.count("") / len(found) for name, found in by_class(question.values, units).items()}


def numbers_by_class(question: Question, units: Units) -> dict[str, list[float]]:
    """The known values of a number in each class."""
    found = by_class(question.values, units)
    return {name: [float(value) for value in values if value] for name, values in found.items()}


@dataclass(frozen=True)
class Division:
    """Groups of labels that share no source with one another, the islands, as one question shows them.

    The level is `NOTE` where names only repeat the labels. `signs` are the names of the questions that agree.
    """

    question: Question
    islands: tuple[tuple[str, ...], ...]
    level: str
    text: str
    signs: tuple[str, ...] = ()


def divisions_of(units: Units, questions: Sequence[Question], *, seed: int) -> list[Division]:
    """The divisions of the labels by source, each reported once, by the first factor that shows it."""
    found: list[Division] = []
    seen: set[frozenset[frozenset[str]]] = set()
    candidates = [q for name in NAMED for q in questions if q.name == name]
    candidates += [q for q in questions if q.factor.origin == NAMING and q.name != NAMESPACE]
    for question in candidates:
        if question.about != VALUE or question.answer.p is None or question.answer.p >= CERTAIN:
            continue
        if min(known_shares(question, units).values()) < LEAST_KNOWN:
            continue
        islands = islands_of(question, units)
        fresh: list[tuple[str, ...]] = []
        for island in islands if len(islands) > 1 else []:
            # Two islands are the same division, seen from both sides.
            division = frozenset((frozenset(island), frozenset(units.classes).difference(island)))
            if division not in seen:
                seen.add(division)
                fresh.append(island)
        if fresh and question.name in NAMED:
            found.append(_named(question, islands, units))
            continue
        proven = {island: _proven(question, island, units, questions, seed) for island in fresh}
        found += [shown for shown in proven.values() if shown]
        unproven = [island for island, shown in proven.items() if not shown]
        found += [_unproven(question, unproven, units)] if unproven else []
    return found


def islands_of(question: Question, units: Units) -> list[tuple[str, ...]]:
    """Groups of labels that are connected by shared levels, in the order of the classes."""
    levels = {name: set(found) for name, found in by_class(question.values, units).items()}
    islands: list[set[str]] = []
    for level in sorted(set(question.values) - {""}):
        joined = {name for name, found in levels.items() if level in found}
        touching = [island for island in islands if island & joined]
        islands = [island for island in islands if not island & joined] + [joined.union(*touching)]
    ordered = [tuple(name for name in units.classes if name in island) for island in islands]
    return sorted(ordered, key=lambda island: units.classes.index(island[0]))


def repeats_label(levels: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether a pattern of names only repeats the label.

    >>> repeats_label(["covid"], ["covid"]), repeats_label(["p"], ["positive"]), repeats_label(["cohen"], ["covid"])
    (True, True, False)
    """
    words = [(level.casefold(), label.casefold()) for level in levels for label in labels]
    return any(label in level or label.startswith(level) for level, label in words)


def _named(question: Question, islands: Sequence[tuple[str, ...]], units: Units) -> Division:
    (labels, source), *rest = [(listed(island), _quoted(question, island, units)) for island in islands]
    parts = [f"all images of {labels} are from {source}", *(f"all of {some} from {other}" for some, other in rest)]
    text = (
        f"Source and label coincide: {', '.join(parts)}, and no source contains "
        f"{'both' if len(islands) == 2 else 'two of these'}. {INSEPARABLE}"
    )
    return Division(question, tuple(islands), ALARM, text)


def _proven(
    question: Question, island: tuple[str, ...], units: Units, questions: Sequence[Question], seed: int
) -> Division | None:
    rest = tuple(name for name in units.classes if name not in island)
    if _repeats(question, island, units) or _repeats(question, rest, units):
        return None
    mine, theirs = listed(island), listed(rest)
    names, verb, joint = _words(question)
    signs = _signs(island, rest, units, questions, seed)
    if not any(sign.proof for sign in signs):
        return None
    agreeing = "; ".join(sign.text for sign in signs[:SIGNS])
    agreed = tuple(name for sign in signs for name in sign.names)
    age = ", and so does whether the age is known" if f"{AGE} missing" in agreed else ""
    text = (
        f"Source and label coincide{age}: images of {mine} were collected separately from those of {theirs}. "
        f"{capital(names)} of {mine} {verb} {joint} {_quoted(question, island, units)}, those of {theirs} "
        f"{joint} {_quoted(question, rest, units)}. In addition, {agreeing}. {INSEPARABLE}"
    )
    return Division(question, (island, rest), ALARM, text, agreed)


def _unproven(question: Question, islands: Sequence[tuple[str, ...]], units: Units) -> Division:
    labels = tuple(name for island in islands for name in island)
    others = tuple(name for name in units.classes if name not in labels)
    shown = [*islands, *([others] if others else [])]
    names, verb, joint = _words(question)
    (first, levels), *more = [(listed(some), _quoted(question, some, units)) for some in shown]
    patterns = ", ".join(
        [f"of {first} they {verb} {joint} {levels}", *(f"of {some} {joint} {quoted}" for some, quoted in more)]
    )
    if all(_repeats(question, island, units) for island in islands):
        text = f"{capital(names)} repeat the label ({patterns}), so they do not show the source of the images."
        return Division(question, tuple(shown), NOTE, text)
    text = (
        f"{capital(names)} differ between the classes ({patterns}). The classes may have been collected "
        "separately, and a model may then learn the collection instead of the disease."
    )
    return Division(question, tuple(shown), WARNING, text)


def _repeats(question: Question, labels: Sequence[str], units: Units) -> bool:
    return question.name != FILES and repeats_label(_levels(question, labels, units), labels)


def _words(question: Question) -> tuple[str, str, str]:
    """The names that a question is about, and the words before a level."""
    return ("file names", "look", "like") if question.name == FILES else ("patient ids", "begin", "with")


def _levels(question: Question, names: Sequence[str], units: Units) -> list[str]:
    found = by_class(question.values, units)
    counts = Counter(level for name in names for level in found[name] if level)
    return [level for level, _ in counts.most_common()]


def _quoted(question: Question, names: Sequence[str], units: Units) -> str:
    levels = _levels(question, names, units)
    named = [level for level in levels if level != OTHERS]
    shown = [f"'{level}'" for level in named[:SIGNS]]
    more = len(named) - len(shown)
    rest = [f"{more} more"] if more else [OTHERS] if len(named) < len(levels) else []
    return listed([*shown, *rest])


@dataclass(frozen=True)
class _Sign:
    text: str
    names: tuple[str, ...]
    proof: bool


def _signs(
    island: tuple[str, ...], rest: tuple[str, ...], units: Units, questions: Sequence[Question], seed: int
) -> list[_Sign]:
    """What else separates these labels from each of the others, strongly and beyond chance.

    The size of images is reported, but is no proof: patients in bed are examined and cropped differently.
    """
    inside = np.isin(units.labels, [units.classes.index(name) for name in island])
    two = replace(units, classes=("the others", listed(island)), labels=inside.astype(np.intp))
    others = [units.labels == units.classes.index(name) for name in rest]
    strong = [
        question
        for question in questions
        if question.level in (ALARM, WARNING)
        and question.factor.origin != NAMING
        and question.factor.name not in (*PRESENCE, *NAMED)
        and all(_divides(question, inside, other, seed) for other in others)
    ]
    missing = sorted((q for q in strong if q.about == MISSING), key=lambda q: q.factor.name != AGE)
    sizes = [q for q in strong if q.about == VALUE and q.factor.origin == FILE and q.factor.name not in FILE_COLUMNS]
    signs = [_Sign(_describe_missing(missing, two), tuple(q.name for q in missing), True)] if missing else []
    others_strong = [q for q in strong if q.about == VALUE and q not in sizes]
    signs += [_Sign(_describe_between(question, two, seed), (question.name,), True) for question in others_strong]
    if sizes:
        best = max(sizes, key=_distance)
        signs.append(_Sign(_describe_between(best, two, seed), tuple(q.name for q in sizes), False))
    return signs


def _contrast(question: Question, kept: NDArray[np.intp], inside: NDArray[np.bool_], seed: int) -> Question:
    """The question asked again: does the factor differ inside, among these units."""
    values = tuple(question.values[i] for i in kept)
    labels = inside[kept].astype(np.intp)
    answer = associate(
        values, question.factor.kind, question.about, labels, 2, seed=seed, permutations=SIGN_PERMUTATIONS
    )
    return replace(question, answer=answer, values=values)


def _divides(question: Question, inside: NDArray[np.bool_], other: NDArray[np.bool_], seed: int) -> bool:
    answer = _contrast(question, np.flatnonzero(inside | other), inside, seed).answer
    return answer.p is not None and answer.p < CERTAIN and level_of(answer) in (ALARM, WARNING)


def _describe_between(question: Question, two: Units, seed: int) -> str:
    contrast = _contrast(question, np.arange(len(two.labels)), two.labels == 1, seed)
    return f"{readable(question.factor.name)} is {described(contrast, two)}"


def _describe_missing(questions: Sequence[Question], two: Units) -> str:
    names = listed([question.factor.name for question in questions])
    verb = "is" if len(questions) == 1 else "are"
    shares = [known_shares(question, two) for question in questions]
    others, mine = two.classes
    spans = [span([share[side] for share in shares]) for side in (mine, others)]
    spans = ["none" if text == percent(0) else text for text in spans]
    return f"{names} {verb} known for {spans[0]} of {mine} and for {spans[1]} of {others}"


def examine(rows: Sequence[RowView], *, seed: int = 0, permutations: int = PERMUTATIONS) -> Part:
    """Test every factor in a manifest for association with the label, and whether source and label coincide.

    Levels: `ALARM` where a source and a label coincide (no source contains labels of both sides), where names suggest
    two collections and something else that is large agrees, or where one factor alone separates the classes (V >= 0.8
    or AUC >= 0.9: "outstanding", Hosmer & Lemeshow 2000). `WARNING` for what is large by Cohen (1988), where
    names alone divide the classes, and where the age is unknown for a whole class. `NOTE` from V 0.1 or a standardised
    difference of 0.1 (Austin 2009). All of them only where q < 0.01 after Benjamini and Hochberg over all questions.

    `rows` are those of a manifest, with `bits` and `kind` where known.
    """
    units = units_of(rows)
    if len(units.classes) < 2:
        found = f"only {units.classes[0]}" if units.classes else "no label"
        text = f"What the label is associated with could not be tested: expected images of two classes, found {found}."
        return Part(NAME, TITLE, {"reason": text}, [Finding(UNKNOWN, text)])
    questions = ask(units, seed=seed, permutations=permutations)
    divisions = divisions_of(units, questions, seed=seed)
    content = {
        "classes": dict(zip(units.classes, units.totals(), strict=True)),
        "unit": f"{units.noun} and label" if units.by_patient else "image",
        "permutations": permutations,
        "associations": [question.as_json(units.classes) for question in questions],
        "apart": [
            {"by": found.question.name, "islands": found.islands, "level": found.level, "signs": found.signs}
            for found in divisions
        ],
    }
    findings = [Finding(found.level, found.text) for found in divisions] + _findings(questions, divisions, units)
    return Part(NAME, TITLE, content, findings, _sheets(questions, divisions, units, permutations))


def _findings(questions: Sequence[Question], divisions: Sequence[Division], units: Units) -> list[Finding]:
    reported = {name for found in divisions for name in (*found.signs, found.question.name)}
    reported -= {q.name for q in questions if q.level == ALARM and q.name not in NAMED}
    # Names are a finding where they divide the classes; a mere association is only in the table.
    rest = [q for q in questions if q.factor.origin != NAMING and not (q.about == MISSING and q.name in reported)]
    found = []
    sizes = [q for q in rest if q.factor.origin == FILE and q.factor.kind == NUMBER and q.level in (ALARM, WARNING)]
    best = max(sizes, key=_distance, default=None)
    for level in (ALARM, WARNING):
        for question in rest:
            if question.level != level or question.name in reported or (question in sizes and question is not best):
                continue
            if question.name == "size" and sizes:
                continue
            also = [q.name for q in sizes if q is not question] if question is best else []
            found.append(Finding(level, _sentence(question, units, also)))
    weak = [q for q in rest if q.level == NOTE]
    if weak:
        names = listed([f"{readable(q.name)} ({strength(q)})" for q in weak])
        text = f"The label is also associated with {names}, more than by chance but not strongly."
        found.append(Finding(NOTE, text))
    found += _unknown(questions, units)
    if not divisions and all(finding.level == UNKNOWN for finding in found):
        found.append(_clear(questions))
    return found


def _distance(question: Question) -> float:
    auc = None if isinstance(question.answer, Categorical) else question.answer.auc
    return abs((auc if auc is not None else 0.5) - 0.5)


def _sentence(question: Question, units: Units, also: Sequence[str]) -> str:
    name, words, figures = readable(question.factor.name), described(question, units), strength(question)
    if question.about == MISSING:
        what = f"there is a {name}" if name in PRESENCE else f"{name} is known"
        return f"Whether {what} is associated with the label: {words} ({figures})."
    more = f"; likewise {listed([readable(other) for other in also])}" if also else ""
    which = "the" if isinstance(question.answer, Categorical) or len(units.classes) == 2 else "these two"
    alarm = f" It alone separates {which} classes." if question.level == ALARM else ""
    return f"{name[0].upper()}{name[1:]} is associated with the label: {words} ({figures}){more}.{alarm}"


def _unknown(questions: Sequence[Question], units: Units) -> Iterator[Finding]:
    for question in [q for q in questions if q.name == AGE and any(q.values)]:
        shares = known_shares(question, units)
        if without := [name for name, share in shares.items() if share == 0]:
            known = listed([f"{percent(share)} of {name}" for name, share in shares.items() if share])
            text = (
                f"The age is known for none of {listed(without)}, but for {known}: the table cannot show whether "
                "children are compared with adults."
            )
            yield Finding(WARNING, text)
    if nowhere := [q.name for q in questions if q.about == VALUE and not any(q.values)]:
        text = f"{listed(nowhere)} {'is' if len(nowhere) == 1 else 'are'} not known for any image"
        which = "it" if len(nowhere) == 1 else "them"
        text = f"{capital(text)}: whether the label is associated with {which} could not be tested."
        yield Finding(UNKNOWN, text)


def _clear(questions: Sequence[Question]) -> Finding:
    tested = [q.name for q in questions if q.answer.p is not None]
    same = [q.name for q in questions if q.about == VALUE and q.answer.p is None and any(q.values)]
    texts = [f"the label is associated with none of {listed(tested)} more than by chance"] if tested else []
    texts += [f"{listed(same)} {'is' if len(same) == 1 else 'are'} the same for all images"] if same else []
    text = "; ".join(texts) or "the table has nothing that the label could be associated with"
    return Finding(CLEAR if tested or same else UNKNOWN, f"{capital(text)}.")


def _sheets(
    questions: Sequence[Question], divisions: Sequence[Division], units: Units, permutations: int
) -> list[Sheet]:
    columns = ["factor", "measure", "value", "AUC", "p", "q", "level", "distribution"]
    unit = "One row per patient and label" if units.by_patient else "No patient_id: every image counts as a patient"
    notes = [
        f"{unit}: {', '.join(f'{name} {count}' for name, count in zip(units.classes, units.totals(), strict=True))}.",
        "V: Cramér's, corrected for its bias (Bergsma 2013), levels under 5 merged. SMD: difference of the means over "
        "the pooled SD, of the two classes that differ most, with its 95 % interval; AUC: of the same two, "
        "in the direction in which it separates them.",
        f"p: {permutations:,} permutations of the labels. q: p after Benjamini and Hochberg over the {len(questions)} "
        "rows of this table.",
        THRESHOLDS,
        "Derived: from ids and file names, which no image shows; they suggest where images were collected.",
    ]
    sheets = [Sheet("What the label is associated with", columns, [_row(q, units) for q in questions], notes)]
    for name in dict.fromkeys([SOURCE, *(found.question.name for found in divisions)]):
        sheets += [_by_label(q, units) for q in questions if q.name == name and len(set(q.values) - {""}) > 1]
    sheets += [_ages(q, units) for q in questions if q.name == AGE and any(q.values)]
    return sheets


def _row(question: Question, units: Units) -> list[str]:
    answer = question.answer
    name = question.name + (" (derived)" if question.factor.origin == NAMING else "")
    if isinstance(answer, Categorical):
        figures = ["V", ABSENT if answer.corrected is None else f"{answer.corrected:.2f}", ABSENT]
    else:
        figures = ["SMD", _measured(answer.smd, answer.smd_interval), _measured(*_separation(answer))]
    return [name, *figures, p_value(answer.p), p_value(question.q), question.level, described(question, units)]


def _separation(answer: Numerical) -> tuple[float | None, tuple[float, float] | None]:
    """The AUC of the better direction with its interval, as the sentences have it."""
    auc, interval = answer.auc, answer.auc_interval
    if auc is None or auc >= 0.5:
        return auc, interval
    return 1 - auc, (1 - interval[1], 1 - interval[0]) if interval else None


def _measured(value: float | None, interval: tuple[float, float] | None) -> str:
    low, high = interval or (None, None)
    return cell({"value": value, "low": low, "high": high})


def _by_label(question: Question, units: Units) -> Sheet:
    # Images, because a model is trained on images; the association is computed over patients.
    found = [question.values[unit] or "(none)" for unit in units.unit]
    counts = Counter(zip(found, units.rows.cells["label"], strict=True))
    levels = [level for level, _ in sorted(Counter(found).items(), key=lambda entry: (-entry[1], entry[0]))]
    rows = [[level, *(str(counts[level, name]) for name in units.classes)] for level in levels[:MOST_SOURCES]]
    if more := levels[MOST_SOURCES:]:
        rest = [str(sum(counts[level, name] for level in more)) for name in units.classes]
        rows.append([f"{len(more)} more", *rest])
    return Sheet(f"Label by {question.name}", [question.name, *units.classes], rows, ["Images."])


def _ages(question: Question, units: Units) -> Sheet:
    rows = []
    totals = dict(zip(units.classes, units.totals(), strict=True))
    for name, ages in numbers_by_class(question, units).items():
        known = [ABSENT] * 3
        if ages:
            children = sum(age < CHILD for age in ages)
            known = [
                f"{fmean(ages):.1f}" + (f" ± {stdev(ages):.1f}" if len(ages) > 1 else ""),
                f"{min(ages):.3g} to {max(ages):.3g}",
                f"{children} ({percent(children / len(ages))})",
            ]
        rows.append([name, str(totals[name]), str(totals[name] - len(ages)), *known])
    columns = ["class", f"{units.noun}s", "age missing", "mean ± SD", "range", f"under {CHILD:.0f}"]
    return Sheet("Age by label", columns, rows, [f"Years, of the {count_of(sum(totals.values()), units.noun)}."])
