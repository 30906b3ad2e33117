"""The comparison of runs as text tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrtool.evaluation.sheet import as_markdown, plain
from cxrtool.evaluation.tables import ABSENT, NAMES, Sheet, audit_lines, cell, count_of, made_by

FIGURES = ("precision", "sensitivity", "f1", "specificity")
"""The metrics of a class that papers print, in their order."""

AS_PRINTED = ("precision", "recall", "f1", "specificity")
"""The same metrics under the names in the files of published values."""

WHOLE = ("balanced_accuracy", "macro_auc")
PRINTED = {
    "accuracy": "accuracy",
    "counted": "from counts",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "AUC",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "specificity": "specificity",
}
ALWAYS = ("accuracy", "counted", *AS_PRINTED)
ALL_CLASSES = "(mean)"

Line = tuple[str, str, dict[str, str]]
"""Run, class, and cells by the keys of `PRINTED`."""


def published(found: Mapping[str, Any], digits: int = 2) -> Sheet:
    """The values printed in a paper beside ours, from a `comparison.json` that has `published`."""
    paper = found["published"]
    style = _Style(digits, paper.get("percent", False))
    entries: list[Line] = []
    notes = []
    for row in paper["rows"]:
        run, name = found["runs"][row["run"]], f"{row['name']} (printed)"
        entries += _beside(row, run, name, style)
        counted, printed = row["accuracy_recomputed"], row["accuracy_printed"]
        if None not in (counted, printed) and abs(counted - printed) >= _precision(printed):
            share = f"{row['right']} of {count_of(row['images'], 'image')} right are {counted:.4f}"
            notes.append(f"{row['name']}: {share}; the paper prints {printed:.4g}.")
        notes += [f"{row['name']}: {note}." for note in row["notes"]]
        if row["stands_in"]:
            notes.append(f"{row['run']}: {row['stands_in']}.")
        absent = [label for label in row["per_class"] if label not in run["per_class"]]
        if absent:
            notes.append(f"{row['run']} has no class {', '.join(absent)}.")
    if not paper["rows"]:
        notes.append("None of these networks is in the table of the paper.")
        if best := paper.get("best"):
            name = f"{best['name']} (printed)"
            entries += [line for line in _beside(best, found["runs"][best["run"]], name, style) if line[0] == name]
            notes[-1] += f" The highest accuracy there is that of {best['name']}, shown beside ours."
            for run, own in found["runs"].items():
                entries += [line for line in _beside({**best, "run": run}, own, name, style) if line[0] == run]
    if paper["not_run_here"] and paper["rows"]:
        notes.append(f"In the paper, but not here: {', '.join(paper['not_run_here'])}.")
    notes = [*dict.fromkeys(notes), *paper["notes"], paper["source"]]
    notes.append("The paper used other test images: its values are shown beside ours, but not compared with them.")
    # Means over many runs do not follow from counts.
    always = ALWAYS if not style.percent else [key for key in ALWAYS if key != "counted"]
    shown = [key for key in PRINTED if key in always or any(cells.get(key) for _, _, cells in entries)]
    rows = [[run, label, *(cells.get(key, "") for key in shown)] for run, label, cells in entries]
    columns = ["run", "class", *(PRINTED[key] for key in shown)]
    return Sheet(f"Beside {paper['title']}", columns, rows, notes)


@dataclass(frozen=True)
class _Style:
    """How values are written beside those of one paper.

    Attributes:
        digits: Decimals of our own values.
        percent: As percentages, with standard deviations where the paper has them.
    """

    digits: int
    percent: bool

    def ours(self, entry: Mapping[str, Any], more: int = 0, spread: str = "") -> str:
        """One of our values; `spread` (`sd_runs` or `sd_repeats`) adds its standard deviation."""
        if entry["value"] is None:
            return ABSENT
        sd = entry[spread] if spread else None
        if spread == "sd_runs" and entry.get("mean_runs") is not None:
            # As papers print it: the mean of the runs beside their standard deviation.
            entry = {**entry, "value": entry["mean_runs"]}
        if not self.percent:
            return cell({**entry, "low": None}, self.digits + more) + (f" ± {sd:.{self.digits}f}" if sd else "")
        return f"{100 * entry['value']:.{self.digits}f}" + (f" ± {100 * sd:.{self.digits}f}" if sd is not None else "")

    def theirs(self, value: float, sd: float | None = None) -> str:
        """A value as the paper prints it."""
        if not self.percent:
            return _as_printed(value)
        return f"{100 * value:.2f}" + (f" ± {100 * sd:.2f}" if sd is not None else "")


def _beside(row: Mapping[str, Any], run: Mapping[str, Any], name: str, style: _Style) -> list[Line]:
    overall, per_class, sd = run["overall"], row["per_class"], row.get("sd") or {}
    counted, printed = row["accuracy_recomputed"], row["accuracy_printed"]
    spread = "sd_runs" if sd else ""
    ours = {"accuracy": style.ours(overall["accuracy"], 2, spread)}
    theirs = {"accuracy": "" if printed is None else f"{printed:.4g}", "counted": _counted(counted)}
    if style.percent and printed is not None:
        theirs["accuracy"] = style.theirs(printed, sd.get("accuracy"))
    if row["overall"]:
        ours |= {key: style.ours(overall[key], 1) for key in WHOLE}
        theirs |= {key: f"{row['overall'][key]:.4g}" for key in WHOLE if key in row["overall"]}
    lines: list[Line] = []
    # Values over all classes get a line of their own where the paper prints more of them than the accuracy.
    if (row["overall"] and len(per_class) != 1) or not per_class:
        names = {f"macro_{metric}": figure for metric, figure in zip(FIGURES, AS_PRINTED, strict=True)}
        if row["overall"]:
            ours |= {figure: style.ours(overall[key]) for key, figure in names.items()}
        theirs |= {figure: f"{row['overall'][key]:.2f}" for key, figure in names.items() if key in row["overall"]}
        lines += [(row["run"], ALL_CLASSES, ours), (name, ALL_CLASSES, theirs)]
        ours, theirs = {}, {}
    for label, figures in per_class.items():
        own, spreads = run["per_class"].get(label), sd.get("per_class", {}).get(label, {})
        for metric, figure in zip(FIGURES, AS_PRINTED, strict=True):
            ours[figure] = style.ours(own[metric], spread=spread) if own else ABSENT
            if figure in figures:
                theirs[figure] = style.theirs(figures[figure], spreads.get(figure))
        lines += [(row["run"], label, ours), (name, label, theirs)]
        ours, theirs = {}, {}
    return lines + _strata(row, run, name, style) + _folds(row, name)


def _strata(row: Mapping[str, Any], run: Mapping[str, Any], name: str, style: _Style) -> list[Line]:
    """Accuracies by the values of a column; a value that only one side has gets one line."""
    lines: list[Line] = []
    for column, printed in (row.get("groups") or {}).items():
        own = {label.lower(): found for label, found in run.get("per_group", {}).get(column, {}).items()}
        for label in dict.fromkeys([*printed, *own]):
            what = f"{column}: {label}"
            if label in own:
                lines.append((row["run"], what, {"accuracy": style.ours(own[label]["accuracy"], 2, "sd_repeats")}))
            if label in printed:
                lines.append((name, what, {"accuracy": style.theirs(*printed[label])}))
    return lines


def _folds(row: Mapping[str, Any], name: str) -> list[Line]:
    lines: list[Line] = []
    for number, fold in enumerate(row["folds"], 1):
        cells = {"counted": _counted(fold["accuracy_recomputed"])}
        cells |= {key: f"{fold['overall'][key]:.4g}" for key in WHOLE if key in fold["overall"]}
        for label, figures in fold["per_class"].items():
            cells |= {figure: _as_printed(value) for figure, value in figures.items()}
            lines.append((f"{name}, fold {number}", label, cells))
    return lines


def _counted(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _as_printed(value: float) -> str:
    """A proportion with four decimals, or with two where two are exact.

    >>> _as_printed(0.96), _as_printed(0.9671), _as_printed(1.0)
    ('0.96', '0.9671', '1.00')
    """
    return f"{value:.4f}" if round(value, 2) != value else f"{value:.2f}"


def _precision(value: float) -> float:
    """The difference from which a recomputed value contradicts the printed one, given the decimals printed.

    >>> _precision(0.79), _precision(0.9588)
    (0.005, 5e-05)
    """
    return 5e-5 if round(value, 2) != value else 5e-3


Comparison = Mapping[str, Any]

MAIN = ("accuracy", "balanced_accuracy", "macro_auc")
FACTS = ("seconds", "parameters", "trained_parameters", "macs", "epochs", "images")
FACT_NAMES = {
    "seconds": "seconds",
    "parameters": "parameters",
    "trained_parameters": "trained",
    "macs": "MACs",
    "epochs": "epochs",
    "images": "fitted",
}
TEST_NAMES = {"models": "p models", "methods": "p methods", "delong": "p DeLong", "mcnemar": "p McNemar"}
MEANINGS = {
    "models": "p models: are these two trained models different? Permutation test that exchanges their predictions "
    "patient by patient.",
    "methods": "p methods: is one way of training better? Corrected resampled t test (Nadeau & Bengio 2003) over the "
    "runs.",
    "delong": "p DeLong: two areas under the ROC curve on one test set (DeLong et al. 1988).",
    "mcnemar": "p McNemar: two accuracies on one test set, exact test.",
}


def metric_name(found: Comparison) -> str:
    """The metric of the comparison, in words; for a metric of a class with the name of the class."""
    metric = found["metric"]
    of_class = found["positive"] and metric in (
        "sensitivity",
        "specificity",
        "precision",
        "npv",
        "f1",
        "auc",
        "average_precision",
    )
    return NAMES[metric] + (f" of {found['positive']}" if of_class else "")


def opening(found: Comparison) -> list[str]:
    """The lines of text before the tables."""
    noted: dict[str, list[str]] = {}
    for name, run in found["runs"].items():
        for note in run["notes"]:
            noted.setdefault(note, []).append(name)
    everyone = len(found["runs"])
    lines = [note if len(names) == everyone else f"{', '.join(names)}: {note}" for note, names in noted.items()]
    if found["reference"] is not None:
        lines.append(found["reference"]["sentence"])
    interval = found["interval"]
    known = all(run["patients_known"] for run in found["runs"].values())
    unit = "patients" if known else "patients (of images where there is no patient_id)"
    lines.append(
        f"In brackets: {interval['confidence']:.0%} intervals {made_by(interval, unit)} within "
        f"label ({interval['meaning']})."
    )
    return [*lines, *audit_lines([found])]


def sheets(found: Comparison, digits: int = 2) -> list[Sheet]:
    """All tables of a `comparison.json`."""
    tables = [_main(found, digits), _classes(found, digits)]
    if found["comparisons"]:
        tables.append(_differences(found, digits))
    if found.get("published"):
        tables.append(published(found, digits))
    return tables


def markdown(found: Comparison, digits: int = 2) -> str:
    """Opening lines, tables and notes as one Markdown document."""
    parts = [f"{plain(line)}  " for line in opening(found)]
    for sheet in sheets(found, digits):
        parts += as_markdown(sheet, f"## {sheet.title}")
    return "\n".join(parts) + "\n"


TIDY = ("section", "name", "of", "metric", "value", "low", "high", "p", "p_holm", "reason")


def tidy(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `comparison.csv`, one value a row: runs, classes, facts, differences and tests."""
    rows: list[list[str]] = []

    def add(section: str, name: str, of: str, metric: str, **cells: Any) -> None:
        numbers = [_exact(cells.get(key)) for key in ("value", "low", "high", "p", "p_holm")]
        rows.append([section, name, of, metric, *numbers, cells.get("reason") or ""])

    def measure(section: str, name: str, of: str, metric: str, entry: Mapping[str, Any]) -> None:
        add(section, name, of, metric, **{key: entry[key] for key in ("value", "low", "high", "reason")})

    for name, run in found["runs"].items():
        for metric, entry in run["overall"].items():
            measure("run", name, "", metric, entry)
        for label, figures in run["per_class"].items():
            for metric, entry in figures.items():
                if isinstance(entry, Mapping):
                    measure("class", name, label, metric, entry)
        for column, strata in run.get("per_group", {}).items():
            for label, stratum in strata.items():
                measure("group", name, f"{column}: {label}", "accuracy", stratum["accuracy"])
        for fact in FACTS:
            if fact in run["facts"]:
                add("fact", name, "", fact, value=run["facts"][fact])
    for made in found["comparisons"]:
        measure("difference", made["name"], made["against"], found["metric"], made["difference"])
        for test in TEST_NAMES:
            entry = made[test]
            add(
                "test",
                made["name"],
                made["against"],
                test,
                **{key: entry[key] for key in ("low", "high", "reason")},
                value=entry["difference"],
                p=entry["p"],
                p_holm=entry["p_holm"],
            )
    for row in (found.get("published") or {"rows": []})["rows"]:
        for which in ("accuracy_printed", "accuracy_recomputed"):
            add("published", row["run"], row["name"], which, value=row[which])
        for metric, value in row["overall"].items():
            add("published", row["run"], row["name"], metric, value=value)
        for label, figures in row["per_class"].items():
            for metric, value in figures.items():
                add("published", row["run"], f"{row['name']}, {label}", metric, value=value)
        for column, strata in row["groups"].items():
            for label, (value, _) in strata.items():
                add("published", row["run"], f"{row['name']}, {column}: {label}", "accuracy", value=value)
    return list(TIDY), rows


def amount(value: float | None) -> str:
    """A large number with its unit.

    >>> amount(15_346_630_656), amount(434_050), amount(12), amount(None)
    ('15.35 G', '434 k', '12', '-')
    """
    if value is None:
        return ABSENT
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.2f}{unit}" if scaled < 100 and size > 1e3 else f"{scaled:.0f}{unit}"
    return f"{value:g}"


def seconds(value: float | None) -> str:
    """Seconds, with one decimal below 100.

    >>> seconds(3.14159), seconds(1234.5), seconds(None)
    ('3.1', '1234', '-')
    """
    return ABSENT if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def p_value(p: float | None) -> str:
    """A p value with three decimals.

    >>> p_value(0.04321), p_value(0.0001), p_value(None)
    ('0.043', '<0.001', '-')
    """
    return ABSENT if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def signed(measure: Mapping[str, Any], digits: int = 2) -> str:
    """A difference with its sign and interval.

    >>> signed({"value": 0.05, "low": -0.01, "high": 0.11})
    '+0.05 (-0.01 to +0.11)'
    """
    if measure["value"] is None:
        return ABSENT
    text = _sign(measure["value"], digits)
    if measure["low"] is None:
        return text
    return f"{text} ({_sign(measure['low'], digits)} to {_sign(measure['high'], digits)})"


def _sign(value: float, digits: int) -> str:
    # Zero gets no sign: never -0.00.
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def _fact(name: str, value: Any) -> str:
    if name == "seconds":
        return seconds(value)
    if name in ("epochs", "images"):
        return ABSENT if value is None else f"{value:.0f}"
    return amount(value)


def _main(found: Comparison, digits: int) -> Sheet:
    metric = found["metric"]
    shown = [*MAIN, *([metric] if metric not in MAIN else [])]
    facts = [fact for fact in FACTS if any(fact in run["facts"] for run in found["runs"].values())]
    reference = (found["reference"] or {}).get("name")
    rows, notes = [], []
    for name, run in found["runs"].items():
        measures = [run["metric"] if figure == metric else run["overall"][figure] for figure in shown]
        for figure, entry in zip(shown, measures, strict=True):
            if entry["reason"]:
                notes.append(f"{NAMES[figure]} of {name}: {entry['reason']}.")
        mark = " *" if name == reference else ""
        cells = [cell(entry, digits) for entry in measures]
        rows.append([name + mark, *cells, *(_fact(fact, run["facts"].get(fact)) for fact in facts)])
    names = [metric_name(found) if figure == metric else NAMES[figure] for figure in shown]
    columns = ["run", *names, *(FACT_NAMES[fact] for fact in facts)]
    if reference:
        notes.insert(0, f"* reference; {_sizes(found['runs'][reference])}.")
    several = any(run["runs"] > 1 for run in found["runs"].values())
    if facts:
        means = " (means over the runs of each)" if several else ""
        notes.append(f"Seconds of one training, without reading images; epochs and images fitted likewise{means}.")
        notes.append("Trained: trainable parameters. MACs: multiply-accumulate operations for one image.")
    machines = {
        (tuple(run["facts"].get("devices", ())), tuple(run["facts"].get("threads", ())))
        for run in found["runs"].values()
        if "seconds" in run["facts"]
    }
    if len(machines) > 1:
        text = "; ".join(sorted(f"{', '.join(d)} with {', '.join(map(str, t))} threads" for d, t in machines))
        notes.append(f"Seconds were not measured under the same conditions: {text}.")
    return Sheet("Runs", columns, rows, notes)


def _sizes(run: Mapping[str, Any]) -> str:
    patients = f" of {count_of(run['patients'], 'patient')}" if run["patients_known"] else ""
    return f"{count_of(run['images'], 'test image')}{patients}, {count_of(run['runs'], 'trained model')}"


def _classes(found: Comparison, digits: int) -> Sheet:
    rows, notes = [], []
    for name, run in found["runs"].items():
        for label in run["classes"]:
            entry = run["per_class"][label]
            figures = [entry[figure] for figure in FIGURES]
            notes += [
                f"{NAMES[f]} of {label}, {name}: {m['reason']}."
                for f, m in zip(FIGURES, figures, strict=True)
                if m["value"] is None
            ]
            values = [cell({**measure, "low": None}, digits) for measure in figures]
            rows.append([name, label, *values, str(entry["support"])])
    columns = ["run", "class", "precision", "recall", "F1", "specificity", "images"]
    return Sheet("Each class against the rest", columns, rows, notes)


def _differences(found: Comparison, digits: int) -> Sheet:
    made = found["comparisons"]
    tests = [test for test in TEST_NAMES if any(entry[test]["p"] is not None for entry in made)]
    several = len(made) > 1
    rows = []
    for entry in made:
        cells = []
        for test in tests:
            cells += [p_value(entry[test]["p"]), *([p_value(entry[test]["p_holm"])] if several else [])]
        rows.append([entry["name"], signed(entry["difference"], digits + 1), *cells])
    columns = ["run", "difference"]
    for test in tests:
        columns += [TEST_NAMES[test], *(["Holm"] if several else [])]
    notes = [MEANINGS[test] for test in tests]
    if several and tests:
        notes.append(f"Holm: the p values of the column before it, adjusted for all {len(made)} comparisons.")
    notes += _reasons(made)
    title = f"Difference in {metric_name(found)} from {made[0]['against']}"
    return Sheet(title, columns, rows, notes)


def _reasons(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """Differences of the images, and why a test was refused: one line for all comparisons and tests that share it."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for entry in made:
        if entry["differs"]:
            by_reason.setdefault(entry["differs"], {}).setdefault("", []).append(entry["name"])
        if entry["reason"]:
            by_reason.setdefault(entry["reason"], {}).setdefault("not compared", []).append(entry["name"])
            continue
        parts = [("difference", entry["difference"]["reason"])]
        parts += [(TEST_NAMES[test].removeprefix("p "), entry[test]["reason"]) for test in TEST_NAMES]
        for what, reason in parts:
            if reason:
                by_reason.setdefault(reason, {}).setdefault(what, []).append(entry["name"])
    lines = []
    for text, by_what in by_reason.items():
        shared: dict[tuple[str, ...], list[str]] = {}
        for what, names in by_what.items():
            shared.setdefault(tuple(names), []).append(what)
        for among, whats in shared.items():
            if not any(whats):
                lines.append(f"{text}.")
                continue
            who = "" if len(among) == len(made) > 1 else ", ".join(among)
            head = ", ".join(filter(None, (who, *whats)))
            lines.append(f"{head[:1].upper() + head[1:] if not who else head}: {text}.")
    return lines


def _exact(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, int) else repr(float(value))
