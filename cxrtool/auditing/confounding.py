"""Confounding: what the label hangs on besides the disease, as far as a table can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev

from cxrtool.auditing.association import PERMUTATIONS, Categorical
from cxrtool.auditing.confounding_apart import NAMED, Apart, apart
from cxrtool.auditing.confounding_questions import (
    CERTAIN,
    LARGE_SMD,
    LARGE_W,
    MISSING,
    PRESENCE,
    SMALL_SMD,
    SMALL_W,
    TELLING_AUC,
    TELLING_V,
    VALUE,
    Question,
    Units,
    ask,
    units_of,
)
from cxrtool.auditing.confounding_words import (
    CHILD,
    described,
    known_shares,
    listed,
    percent,
    readable,
    strength,
    values_by_class,
)
from cxrtool.auditing.factors import AGE, FILE, NAMING, NUMBER, SOURCE
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.data.manifest import Row
from cxrtool.evaluation.comparison_tables import p_value
from cxrtool.evaluation.tables import ABSENT, Sheet, cell, count_of

NAME, TITLE = "confounding", "What the label hangs on besides the disease"

MOST_SOURCES = 20
"""Sources that a table lists; the others are added up."""

THRESHOLDS = (
    f"Alarm: the classes can be told apart by this alone (V from {TELLING_V}, AUC from {TELLING_AUC}; missing cells "
    f"and names warn at most). Warning: large (V x sqrt(min(levels, classes) - 1) from {LARGE_W}, difference of the "
    f"means from {LARGE_SMD} SD; Cohen 1988). Note: from {SMALL_W} and {SMALL_SMD}. Each only with q below {CERTAIN}."
)


def examine(rows: Sequence[Row], *, seed: int = 0, permutations: int = PERMUTATIONS) -> Part:
    """Ask of every factor in a manifest whether the label hangs on it, and of the sources whether they coincide.

    Levels: `ALARM` where a source and a label coincide (no source holds labels of both sides), where names give two
    collections away and something else that is large agrees, or where one factor alone tells the classes apart
    (V >= 0.8 or AUC >= 0.9: "outstanding", Hosmer & Lemeshow 2000). `WARNING` for what is large by Cohen (1988), where
    names alone divide the classes, and where no age is known of a whole class. `NOTE` from V 0.1 or a standardised
    difference of 0.1 (Austin 2009). All of them only where q < 0.01 after Benjamini and Hochberg over all questions.

    Args:
        rows: Of a manifest, with `bits` and `kind` where known.
        seed: Of permutations and resamples.
        permutations: How many for each question.
    """
    units = units_of(rows)
    if len(units.classes) < 2:
        found = f"only {units.classes[0]}" if units.classes else "no label"
        text = f"What the label hangs on could not be looked at: the images have {found}, two classes are needed."
        return Part(NAME, TITLE, {"reason": text}, [Finding(UNKNOWN, text)])
    questions = ask(units, seed=seed, permutations=permutations)
    divisions = apart(units, questions, seed=seed)
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


def _findings(questions: Sequence[Question], divisions: Sequence[Apart], units: Units) -> list[Finding]:
    told = {name for found in divisions for name in (*found.signs, found.question.name)}
    told -= {q.name for q in questions if q.level == ALARM and q.name not in NAMED}
    # What names give away is told where it divides the classes; that they only go with them is for the table.
    rest = [q for q in questions if q.factor.origin != NAMING and not (q.about == MISSING and q.name in told)]
    found = []
    sizes = [q for q in rest if q.factor.origin == FILE and q.factor.kind == NUMBER and q.level in (ALARM, WARNING)]
    best = max(sizes, key=_distance, default=None)
    for level in (ALARM, WARNING):
        for question in rest:
            if question.level != level or question.name in told or (question in sizes and question is not best):
                continue
            if question.name == "size" and sizes:
                continue
            also = [q.name for q in sizes if q is not question] if question is best else []
            found.append(Finding(level, _sentence(question, units, also)))
    weak = [q for q in rest if q.level == NOTE]
    if weak:
        names = listed([f"{readable(q.name)} ({strength(q)})" for q in weak])
        found.append(Finding(NOTE, f"The label also hangs on {names}, more than by chance but not strongly."))
    found += _unknown(questions, units)
    if not [finding for finding in found if finding.level in (ALARM, WARNING, NOTE)] and not divisions:
        found.append(_clear(questions))
    return found


def _distance(question: Question) -> float:
    auc = None if isinstance(question.answer, Categorical) else question.answer.auc
    return abs((auc if auc is not None else 0.5) - 0.5)


def _sentence(question: Question, units: Units, also: Sequence[str]) -> str:
    name, words, figures = readable(question.factor.name), described(question, units), strength(question)
    if question.about == MISSING:
        what = f"there is a {name}" if name in PRESENCE else f"{name} is known"
        return f"Whether {what} goes with the label: {words} ({figures})."
    more = f"; likewise {listed([readable(other) for other in also])}" if also else ""
    which = "the" if isinstance(question.answer, Categorical) or len(units.classes) == 2 else "these two"
    told = f" From it alone {which} classes can be told apart." if question.level == ALARM else ""
    return f"{name[0].upper()}{name[1:]} goes with the label: {words} ({figures}){more}.{told}"


def _unknown(questions: Sequence[Question], units: Units) -> list[Finding]:
    nowhere = [q.name for q in questions if q.about == VALUE and not any(q.values)]
    found = []
    for question in questions:
        if question.name != AGE or not any(question.values):
            continue
        shares = known_shares(question, units)
        without = [name for name, share in shares.items() if share == 0]
        if without:
            known = listed([f"{percent(share)} of {name}" for name, share in shares.items() if share])
            text = (
                f"No age is known of {listed(without)}, but of {known}: whether children are compared with adults "
                "cannot be told from the table."
            )
            found.append(Finding(WARNING, text))
    if nowhere:
        text = f"{listed(nowhere)} {'is' if len(nowhere) == 1 else 'are'} not known of any image"
        which = "it" if len(nowhere) == 1 else "them"
        text = f"{text[0].upper()}{text[1:]}: whether the label hangs on {which} could not be looked at."
        found.append(Finding(UNKNOWN, text))
    return found


def _clear(questions: Sequence[Question]) -> Finding:
    tested = [q.name for q in questions if q.answer.p is not None]
    same = [q.name for q in questions if q.about == VALUE and q.answer.p is None and any(q.values)]
    texts = [f"the label hangs on none of {listed(tested)}, or only as chance has it"] if tested else []
    texts += [f"{listed(same)} {'is' if len(same) == 1 else 'are'} the same for all images"] if same else []
    text = "; ".join(texts) or "the table has nothing that the label could hang on"
    return Finding(CLEAR if tested or same else UNKNOWN, f"{text[0].upper()}{text[1:]}.")


def _sheets(questions: Sequence[Question], divisions: Sequence[Apart], units: Units, permutations: int) -> list[Sheet]:
    columns = ["what", "measure", "value", "AUC", "p", "q", "judged", "in words"]
    unit = "One row a patient and label" if units.by_patient else "No patient is named: every image counts as one"
    notes = [
        f"{unit}: {', '.join(f'{name} {count}' for name, count in zip(units.classes, units.totals(), strict=True))}.",
        "V: Cramér's, corrected for its bias (Bergsma 2013), levels under 5 merged. SMD: difference of the means over "
        "the pooled SD, of the two classes that differ most, with its 95 % interval; AUC: of the same two.",
        f"p: {permutations:,} permutations of the labels. q: p after Benjamini and Hochberg over the {len(questions)} "
        "rows of this table.",
        THRESHOLDS,
        "Derived: told from ids and file names, which no picture shows; they give away who collected what.",
    ]
    sheets = [Sheet("What the label hangs on", columns, [_row(q, units) for q in questions], notes)]
    for name in dict.fromkeys([SOURCE, *(found.question.name for found in divisions)]):
        sheets += [_by_label(q, units) for q in questions if q.name == name and len(set(q.values) - {""}) > 1]
    sheets += [_ages(q, units) for q in questions if q.name == AGE and any(q.values)]
    return sheets


def _row(question: Question, units: Units) -> list[str]:
    answer = question.answer
    name = question.name + (" (derived)" if question.factor.origin == NAMING else "")
    if isinstance(answer, Categorical):
        value = ABSENT if answer.corrected is None else f"{answer.corrected:.2f}"
        figures = ["V", value, ABSENT]
    else:
        figures = ["SMD", _measured(answer.smd, answer.smd_interval), _measured(answer.auc, answer.auc_interval)]
    return [name, *figures, p_value(answer.p), p_value(question.q), question.level, described(question, units)]


def _measured(value: float | None, interval: tuple[float, float] | None) -> str:
    low, high = interval or (None, None)
    return cell({"value": value, "low": low, "high": high})


def _by_label(question: Question, units: Units) -> Sheet:
    # Images, because these are what a model is trained on; the strengths are of patients.
    values = dict(enumerate(question.values))
    counts = Counter(
        (values[place] or "(none)", row["label"]) for place, row in zip(units.unit, units.rows, strict=True)
    )
    levels = [level for level, _ in Counter({level: 0 for level, _ in counts}).most_common()]
    totals = {level: sum(counts[level, name] for name in units.classes) for level in levels}
    levels.sort(key=lambda level: (-totals[level], level))
    rows = [[level, *(str(counts[level, name]) for name in units.classes)] for level in levels[:MOST_SOURCES]]
    if more := levels[MOST_SOURCES:]:
        rest = [str(sum(counts[level, name] for level in more)) for name in units.classes]
        rows.append([f"{len(more)} more", *rest])
    return Sheet(f"Label by {question.name}", [question.name, *units.classes], rows, ["Images."])


def _ages(question: Question, units: Units) -> Sheet:
    rows = []
    totals = dict(zip(units.classes, units.totals(), strict=True))
    for name, ages in values_by_class(question, units).items():
        known = [f"{fmean(ages):.1f}" + (f" ± {stdev(ages):.1f}" if len(ages) > 1 else "")] if ages else [ABSENT]
        known += [f"{min(ages):.3g} to {max(ages):.3g}"] if ages else [ABSENT]
        children = sum(age < CHILD for age in ages)
        known += [f"{children} ({percent(children / len(ages))})"] if ages else [ABSENT]
        rows.append([name, str(totals[name]), str(totals[name] - len(ages)), *known])
    columns = ["class", f"{units.noun}s", "age missing", "mean ± SD", "range", f"under {CHILD:.0f}"]
    return Sheet("Age by label", columns, rows, [f"Years, of the {count_of(sum(totals.values()), units.noun)}."])
