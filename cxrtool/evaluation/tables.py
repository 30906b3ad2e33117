"""An evaluation as text tables: overall, per class, per group. Needs only the standard library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cxrtool.data.tables.severity import ESTIMATED
from cxrtool.evaluation.decisions.tables import decision_figures, decision_sheets
from cxrtool.evaluation.sheet import ABSENT as ABSENT
from cxrtool.evaluation.sheet import MOST_RUNS, Notes, as_markdown, fixed, plain
from cxrtool.evaluation.sheet import Sheet as Sheet
from cxrtool.evaluation.sheet import cell as cell
from cxrtool.evaluation.sheet import count_of as count_of
from cxrtool.evaluation.together import sheets as together_sheets

Summary = Mapping[str, Any]

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_sensitivity": "sensitivity (macro)",
    "macro_specificity": "specificity (macro)",
    "macro_precision": "precision (macro)",
    "macro_f1": "F1 (macro)",
    "macro_auc": "AUC (macro)",
    "hard_auc": "AUC of hard decisions",
    "mcc": "Matthews correlation",
    "average_precision": "average precision",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
    "coverage": "decided (coverage)",
    "accuracy_all": "accuracy, undecided as wrong",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "npv": "NPV",
    "f1": "F1",
    "auc": "AUC",
    "slope": "calibration slope",
    "intercept": "calibration intercept",
    "mae": "mean absolute error of the predicted class",
    "mae_expected": "mean absolute error of the expected class",
    "bias": "bias of the expected class",
    "weighted_kappa": "kappa with quadratic weights",
    "spearman": "Spearman's correlation",
    "pearson": "Pearson's correlation",
}
"""The name of each metric of `metrics.json` in tables and figures."""

CLASS_FIGURES = ("sensitivity", "specificity", "precision", "npv", "f1", "auc")
GROUP_FIGURES = ("accuracy", "sensitivity", "specificity", "auc")
RUN_FIGURES = ("sensitivity", "specificity", "precision", "f1", "auc", "balanced_accuracy")
ORDINAL_FIGURES = ("mae", "mae_expected", "bias", "weighted_kappa", "spearman", "pearson")
CALIBRATION_FIGURES = ("slope", "intercept")
HISTORY_PARTS = {"train": "training", "validation": "validation"}
SPREADS = {"sd_runs": "mean ± SD of runs", "sd_repeats": "SD of repeats"}
NO_AUDIT = "No audit of this data set was found: these metrics do not show that the model looked at the lungs."
_NO_INTERVAL = {"low": None, "high": None, "method": None, "sd_runs": None, "sd_repeats": None, "mean_runs": None}

TIDY = (
    "section",
    "name",
    "metric",
    "value",
    "low",
    "high",
    "method",
    "n",
    "sd_runs",
    "sd_repeats",
    "reason",
    "mean_runs",
)


def opening(results: Mapping[str, Summary]) -> list[str]:
    """The lines of text before the tables: the images, the meaning of the intervals, the audit."""
    lines = []
    for name, summary in results.items():
        lines += [(f"{name}: " if name else "") + _sizes(summary)]
        lines += [f"  {note}" if name else note for note in summary["notes"]]
    first = next(iter(results.values()))
    interval = first["interval"]
    unit = "patients" if first["patients_known"] else "images"
    lines.append(
        f"In brackets: {interval['confidence']:.0%} intervals {made_by(interval, unit)} within "
        f"label, or Wilson's where noted ({interval['meaning']})."
    )
    return [*lines, *audit_lines(results.values())]


def made_by(interval: Mapping[str, Any], unit: str) -> str:
    """How the intervals are made, from the entry `interval` of `metrics.json`.

    >>> made_by({"resamples": 2000}, "patients")
    'from 2000 resamples of patients'
    >>> made_by({"resamples": 2000, "method": "influence functions, patients as clusters"}, "patients")
    'by influence functions, patients as clusters,'
    """
    return f"by {interval['method']}," if "method" in interval else f"from {interval['resamples']} resamples of {unit}"


def audit_lines(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The findings of the audit of the same images, or that there is none; a shared audit is shown once."""
    audits = {audit["folder"]: audit["lines"] for summary in summaries if (audit := summary.get("audit"))}
    if not audits:
        return [NO_AUDIT]
    lines = []
    for folder, (verdict, *found) in audits.items():
        lines += [f"Audit of these images ({folder}): {verdict}", *(f"  {text}" for text in found)]
    return lines


def sheets(results: Mapping[str, Summary], digits: int = 2) -> list[Sheet]:
    """All tables of one evaluation (with an empty name), or of several side by side."""
    found = [_marked(_overall(results, digits), results)]
    for name, summary in results.items():
        found += [_marked(sheet, {name: summary}) for sheet in _of_one(name, summary, digits)]
    return found


def _of_one(name: str, summary: Summary, digits: int) -> list[Sheet]:
    of = f" of {name}" if name else ""
    found = together_sheets(summary, NAMES, of, digits) if summary.get("together") else []
    found.append(_per_class(summary, of, digits))
    found += [_confusion(summary, of)] if summary["confusion"] else []
    found += [_ordinal(summary["ordinal"], of, digits)] if "ordinal" in summary else []
    for column, groups in summary["per_group"].items():
        found.append(_per_group(summary, column, groups, of, digits))
    # The folds of runs together are not one run's.
    if 1 < len(summary.get("per_run", ())) <= MOST_RUNS and not summary.get("together"):
        found.append(_per_run(summary, of, digits))
    if (summary.get("history") or {}).get("best"):
        found.append(_history(summary["history"], of, digits))
    return found + decision_sheets(summary, of, digits)


def _marked(sheet: Sheet, results: Mapping[str, Summary]) -> Sheet:
    """The table, with a note where the labels of some of its sets are severities that nobody rated."""
    sets = [name for name, summary in results.items() if summary.get("target", "").partition(":")[0] == ESTIMATED]
    if not sets:
        return sheet
    of = f" of {', '.join(sets)}" if any(sets) else ""
    return replace(sheet, notes=[*sheet.notes, f"The severities{of} are estimated ({ESTIMATED}): nobody rated them."])


def tidy(results: Mapping[str, Summary]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `metrics.csv`, one value a row; `n` counts images. Several evaluations get a column `set`."""
    several = len(results) > 1
    rows = []
    for name, summary in results.items():
        for section, of, metric, measure, n in _every(summary):
            cells = [section, of, metric, *(_exact(measure[key]) for key in ("value", "low", "high"))]
            cells += [measure["method"] or "", str(n), _exact(measure["sd_runs"]), _exact(measure["sd_repeats"])]
            cells += [measure["reason"] or "", _exact(measure.get("mean_runs"))]
            rows.append(([name] if several else []) + cells)
    return (["set"] if several else []) + list(TIDY), rows


def markdown(results: Mapping[str, Summary], digits: int = 2) -> str:
    """Opening lines, tables and notes as one Markdown document."""
    parts = [f"{plain(line)}  " for line in opening(results)]
    for sheet in sheets(results, digits):
        parts += as_markdown(sheet, f"## {sheet.title}")
    return "\n".join(parts) + "\n"


def _sizes(summary: Summary) -> str:
    runs, repeats, classes = summary["runs"], summary["repeats"], summary["classes"]
    patients = f" of {count_of(summary['patients'], 'patient')}" if summary["patients_known"] else ""
    parts = [f"{count_of(summary['images'], 'image')}{patients}", f"{len(classes)} classes ({', '.join(classes)})"]
    folds = f" ({repeats} repeats of {runs // repeats} folds)" if 1 < repeats < runs and runs % repeats == 0 else ""
    parts.append(count_of(runs, "run") + folds)
    if summary["positive"] is not None:
        parts.append(f"positive class {summary['positive']}")
    return ", ".join(parts) + "."


def _spread(measure: Mapping[str, Any], which: str, digits: int) -> str:
    """A standard deviation; that of the runs with their mean, because the value is of all images together."""
    sd = fixed(measure[which], digits + 1)
    if which != "sd_runs" or measure[which] is None:
        return sd
    return f"{fixed(measure['mean_runs'], digits)} ± {sd}"


def _overall(results: Mapping[str, Summary], digits: int) -> Sheet:
    notes = Notes()
    rows = []
    several = len(results) > 1
    metrics = next(iter(results.values()))["overall"]
    spreads = {
        key: text for key, text in SPREADS.items() if any(measure[key] is not None for measure in metrics.values())
    }
    if any(summary.get("together") for summary in results.values()):
        # A table of its own has the spread over the runs; here a run would be a fold.
        spreads = {}
    for metric in metrics:
        row = [NAMES[metric]]
        for name, summary in results.items():
            measure = summary["overall"][metric]
            notes.add(measure, NAMES[metric], name)
            row.append(cell(measure, digits))
            if not several:
                row += [_spread(measure, spread, digits) for spread in spreads]
        rows.append(row)
    columns = ["metric", *results] if several else ["metric", "value", *spreads.values()]
    for name, summary in results.items():
        if summary["calibration"]:
            expected = fixed(summary["calibration"]["ece_if_calibrated"], digits)
            notes.add_line(f"If perfectly calibrated, {name or 'this model'} would have an ECE of about {expected}.")
    return Sheet("All images", columns, rows, notes.lines())


def _per_class(summary: Summary, of: str, digits: int) -> Sheet:
    notes = Notes()
    classes = summary["classes"]
    rows = []
    for metric in CLASS_FIGURES:
        measures = [summary["per_class"][name][metric] for name in classes]
        for name, measure in zip(classes, measures, strict=True):
            notes.add(measure, NAMES[metric], name)
        rows.append([NAMES[metric], *(cell(measure, digits) for measure in measures)])
    if summary["calibration"]:
        per_class = summary["calibration"]["per_class"]
        for metric in CALIBRATION_FIGURES:
            for name in classes:
                notes.add(per_class[name][metric], NAMES[metric], name)
            rows.append([NAMES[metric], *(cell(per_class[name][metric], digits) for name in classes)])
    rows.append(["images", *(str(summary["per_class"][name]["support"]) for name in classes)])
    return Sheet(f"Each class against the rest{of}", ["metric", *classes], rows, notes.lines())


def _per_run(summary: Summary, of: str, digits: int) -> Sheet:
    runs = summary["per_run"]
    rows = []
    for run in runs:
        figures = [fixed(run[name], digits + 1) for name in RUN_FIGURES]
        rows.append([f"r{run['repeat']}f{run['fold']}", str(run["images"]), *figures])
    known = [[run[name] for run in runs if run[name] is not None] for name in RUN_FIGURES]
    means = [fixed(sum(values) / len(values) if values else None, digits + 1) for values in known]
    rows.append(["mean", f"{sum(run['images'] for run in runs) / len(runs):.1f}", *means])
    what = f"of {summary['positive']}" if summary["positive"] is not None else "means over the classes"
    notes = [
        f"Sensitivity, specificity, precision, F1 and AUC are {what}; balanced accuracy is over all classes.",
        "The mean of the folds, as papers print it; the metrics above pool the decisions of all folds first.",
    ]
    short = [NAMES[name] for name, values in zip(RUN_FIGURES, known, strict=True) if 0 < len(values) < len(runs)]
    if short:
        notes.append(f"Mean of the folds that have a value: {', '.join(short)}.")
    return Sheet(f"Each fold{of}", ["fold", "images", *(NAMES[name] for name in RUN_FIGURES)], rows, notes)


def _history(history: Mapping[str, Any], of: str, digits: int) -> Sheet:
    """The best of the mean training curves, with two more digits, as papers print it."""

    def pair(mean: float, sd: float | None, digits: int) -> str:
        return fixed(mean, digits) + ("" if sd is None else f" ± {fixed(sd, digits)}")

    rows = [
        [
            HISTORY_PARTS[part],
            pair(best["value"], best["sd"], digits + 2),
            str(best["epoch"]),
            pair(best["own_value"], best["own_value_sd"], digits + 2),
            pair(best["own_epoch"], best["own_epoch_sd"], 1),
        ]
        for part, best in history["best"].items()
    ]
    score = history["score"]
    notes = [
        "The highest mean over the runs among all epochs, ± standard deviation of the runs at this epoch; and the "
        "highest of each run, with its epoch, mean ± standard deviation.",
        "These are the maxima of curves on images that were used for training or for the choice of the epoch: they "
        "are no estimate of the accuracy for new images.",
    ]
    columns = ["images", f"best mean {score}", "its epoch", f"best {score} of each run", "epoch of each run"]
    return Sheet(f"Training curves{of}, {count_of(history['runs'], 'run')}", columns, rows, notes)


def _confusion(summary: Summary, of: str) -> Sheet:
    repeats = summary["repeats"]
    summed = f", summed over {repeats} repeats" if repeats > 1 else ""
    rows = [
        [name, *(str(count) for count in counts)]
        for name, counts in zip(summary["classes"], summary["confusion"], strict=True)
    ]
    return Sheet(f"Confusion matrix{of}{summed}", ["true \\ predicted", *summary["classes"]], rows, [])


def _ordinal(found: Mapping[str, Any], of: str, digits: int) -> Sheet:
    notes = Notes()
    shown = [name for name in ORDINAL_FIGURES if name in found]
    repeated = any(found[name]["sd_repeats"] is not None for name in shown)
    rows = []
    for name in shown:
        notes.add(found[name], NAMES[name], "")
        spread = [fixed(found[name]["sd_repeats"], digits + 1)] if repeated else []
        rows.append([NAMES[name], cell(found[name], digits), *spread])
    notes.add_line(f"Errors and bias are in classes: {' < '.join(found['order'])}.")
    if "mae_expected" in found:
        notes.add_line(
            "The expected class is the sum of the places of the classes, each times its probability; the correlations "
            "are of it. Kappa is of the predicted class, the most probable one."
        )
    notes.add_line(
        f"To predict the median of these images for all of them has a mean absolute error of "
        f"{fixed(found['mae_of_median'], digits)}."
    )
    columns = ["metric", "value", *([SPREADS["sd_repeats"]] if repeated else [])]
    return Sheet(f"Classes in their order{of}", columns, rows, notes.lines())


def _per_group(summary: Summary, column: str, groups: Mapping[str, Any], of: str, digits: int) -> Sheet:
    notes = Notes()
    rows = []
    # The standard deviation that papers print with the accuracy of a stratum.
    repeated = any(entry["accuracy"]["sd_repeats"] is not None for entry in groups.values())
    for name, entry in groups.items():
        for metric in GROUP_FIGURES:
            notes.add(entry[metric], NAMES[metric], name)
        measures = [cell(entry[metric], digits) for metric in GROUP_FIGURES]
        measures[1:1] = [fixed(entry["accuracy"]["sd_repeats"], digits + 1)] if repeated else []
        rows.append([name, str(entry["images"]), str(entry["patients"]), *measures])
    positive = summary["positive"]
    what = f"of {positive}" if positive is not None else "means over the classes of the group"
    notes.add_line(f"Sensitivity, specificity and AUC are {what}.")
    found = summary["trend"].get(column)
    if found:
        for line in _trend(found, digits):
            notes.add_line(line)
    figures = [NAMES[metric] for metric in GROUP_FIGURES]
    figures[1:1] = [SPREADS["sd_repeats"]] if repeated else []
    columns = [column, "images", "patients", *figures]
    return Sheet(f"By {column}{of}", columns, rows, notes.lines())


def _trend(found: Mapping[str, Any], digits: int) -> list[str]:
    strata = " < ".join(found["strata"])
    if found["reason"]:
        return [f"No trend over {strata}: {found['reason']}."]
    p = found["p"]
    shown = f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
    return [
        f"Trend over {strata}: accuracy changes by {found['slope']:+.{digits + 1}f} per step, {shown} "
        f"({'' if found['permutations'] else 'normal limit of the '}permutation of "
        f"{count_of(found['patients'], 'patient')}).",
        "Every patient counts once in the trend and every image in the rows above, so that the two may differ.",
    ]


def _every(summary: Summary) -> Iterator[tuple[str, str, str, Mapping[str, Any], int]]:
    for metric, measure in summary["overall"].items():
        yield "overall", "", metric, measure, summary["images"]
    for name, entry in summary["per_class"].items():
        for metric in CLASS_FIGURES:
            yield "per_class", name, metric, entry[metric], entry["support"]
        if summary["calibration"]:
            for metric in CALIBRATION_FIGURES:
                measure = summary["calibration"]["per_class"][name][metric]
                yield "per_class", name, metric, measure, entry["support"]
    for metric in ORDINAL_FIGURES:
        if metric in summary.get("ordinal", ()):
            yield "ordinal", "", metric, summary["ordinal"][metric], summary["ordinal"]["images"]
    for run in summary.get("per_run", ()):
        for metric in RUN_FIGURES:
            measure = {
                **_NO_INTERVAL,
                "value": run[metric],
                "reason": None if run[metric] is not None else "undefined there",
            }
            yield "per_run", f"r{run['repeat']}f{run['fold']}", metric, measure, run["images"]
    for column, groups in summary["per_group"].items():
        for name, entry in groups.items():
            for metric in GROUP_FIGURES:
                yield column, name, metric, entry[metric], entry["images"]
    yield from decision_figures(summary)


def _exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))
