"""Tables and notes of the optional parts of `metrics.json`: temperature, threshold, operating point, net benefit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxrtool.errors import count_of
from cxrtool.evaluation.sheet import ABSENT, MOST_RUNS, Notes, Sheet, cell, fixed

Summary = Mapping[str, Any]

COUNTS = {"tp": "true positives", "fn": "false negatives", "fp": "false positives", "tn": "true negatives"}
FIGURES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "lr_positive": "positive likelihood ratio",
    "lr_negative": "negative likelihood ratio",
}
ABSTAINING = {"coverage": "decided", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
SHOWN_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
SHOWN_RISKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_NO_INTERVAL = {
    "low": None,
    "high": None,
    "method": None,
    "sd_runs": None,
    "sd_repeats": None,
    "reason": None,
    "mean_runs": None,
}

Figure = tuple[str, str, str, Mapping[str, Any], int]


def decision_notes(summary: Summary) -> list[str]:
    """One sentence on each thing that was fitted on validation images."""
    return [*_temperature_notes(summary.get("temperature", ())), *_threshold_notes(summary.get("thresholds"))]


def decision_sheets(summary: Summary, of: str, digits: int) -> list[Sheet]:
    """The tables on decisions that a `metrics.json` has; `of` is appended to each title."""
    found = []
    if ("temperature" in summary or "thresholds" in summary) and summary["runs"] <= MOST_RUNS:
        found.append(_choices(summary, of, digits))
    if summary.get("operating"):
        found.append(_operating(summary["operating"], of, digits))
    if "abstention" in summary:
        found.append(_abstention(summary["abstention"], of, digits))
    if summary.get("decision_curve"):
        found.append(_curves(summary["decision_curve"], summary["positive"], of, digits))
    return found


def decision_figures(summary: Summary) -> Iterator[Figure]:
    """Every value for `metrics.csv`: section, name, metric, measure, images."""
    images = summary["images"]
    for entry in summary.get("temperature", ()):
        yield (
            "temperature",
            _run(entry),
            "temperature",
            {**_NO_INTERVAL, **_valued(entry, "temperature")},
            entry["images"],
        )
    for entry in summary.get("thresholds", {}).get("runs", ()):
        yield "threshold", _run(entry), "threshold", {**_NO_INTERVAL, **_valued(entry, "threshold")}, entry["positives"]
    for point in summary.get("operating", ()):
        for metric in FIGURES:
            yield "operating", point["rule"], metric, point[metric], images
        for prevalence, values in point["at_prevalence"].items():
            for metric, measure in values.items():
                yield "operating", point["rule"], f"{metric}_at_{prevalence}", measure, images
    abstention = summary.get("abstention", {})
    for point in abstention.get("points", ()):
        for metric in ABSTAINING:
            yield "abstention", f"{point['coverage_wanted']:g}", metric, point[metric], images
    if abstention:
        area = "area_under_risk_coverage"
        yield "abstention", "", area, abstention[area], images
    for curve in summary.get("decision_curve", ()):
        for k, risk in enumerate(curve["thresholds"]):
            ends = {end: curve[end][k] if curve[end] else None for end in ("low", "high")}
            measure = {**_NO_INTERVAL, **ends, "value": curve["net_benefit"][k]}
            measure |= {"method": curve["method"], "reason": curve["reason"]}
            yield "decision_curve", f"prevalence {curve['prevalence']:.4g}", f"net_benefit_at_{risk:g}", measure, images


def _temperature_notes(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return []
    fitted = [entry["temperature"] for entry in entries if entry["reason"] is None]
    notes = []
    if fitted:
        notes.append(
            f"Probabilities are calibrated: {_spread('temperature', fitted)}, fitted on the validation images of each "
            "run (above 1: they were too extreme)."
        )
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        if entry["reason"] is not None:
            reasons.setdefault(entry["reason"], []).append(_run(entry))
    several = len(entries) > 1
    for reason, runs in reasons.items():
        where = f" in {_several(runs, len(entries))}" if several else ""
        notes.append(f"Probabilities are not calibrated (temperature 1){where}: {reason}.")
    return notes


def _threshold_notes(chosen: Mapping[str, Any] | None) -> list[str]:
    if not chosen:
        return []
    values = [entry["threshold"] for entry in chosen["runs"]]
    counts = sorted({entry["positives"] for entry in chosen["runs"]})
    few = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    each = " in each" if len(values) > 1 else ""
    return [
        f"An image is predicted {chosen['positive']} from the threshold that keeps a sensitivity of "
        f"{chosen['sensitivity']:g} on the validation images of each run: {_spread('threshold', values)}, chosen on "
        f"{few} images of {chosen['positive']}{each}."
    ]


def _spread(name: str, values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{name} {values[0]:.3g}"
    return f"{name}s from {min(values):.3g} to {max(values):.3g} in {count_of(len(values), 'run')}"


def _several(names: Sequence[str], total: int) -> str:
    if len(names) == total:
        return f"all {total} runs"
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} of {total} runs"


def _choices(summary: Summary, of: str, digits: int) -> Sheet:
    temperatures = summary.get("temperature", [])
    chosen = summary.get("thresholds")
    first = temperatures or chosen["runs"] if chosen else temperatures
    columns = ["fold"]
    columns += ["validation images", "temperature", "log loss before", "log loss after"] if temperatures else []
    columns += [f"of {chosen['positive']}", "threshold"] if chosen else []
    rows = []
    for k, entry in enumerate(first):
        row = [_run(entry)]
        if temperatures:
            losses = [fixed(entry[name], digits + 1) for name in ("nll_before", "nll_after")]
            row += [str(entry["images"]), fixed(entry["temperature"], digits), *losses]
        if chosen:
            own = chosen["runs"][k]
            row += [str(own["positives"]), fixed(own["threshold"], digits + 1)]
        rows.append(row)
    return Sheet(f"Chosen on validation images{of}", columns, rows, [])


def _operating(points: Sequence[Mapping[str, Any]], of: str, digits: int) -> Sheet:
    notes = Notes()
    positive = points[0]["positive"]
    rows = []
    for key, name in COUNTS.items():
        rows.append([name, *(_count(point["counts"][key]) for point in points)])
    for metric, name in FIGURES.items():
        for point in points:
            notes.add(point[metric], name, point["rule"] if len(points) > 1 else "")
        rows.append([name, *(cell(point[metric], digits) for point in points)])
    for point in points:
        for values in list(point["at_prevalence"].values())[:1]:
            for metric, measure in values.items():
                rule = point["rule"] if len(points) > 1 else ""
                notes.add(measure, f"{FIGURES[metric]} at a stated prevalence", rule)
    for prevalence in points[0]["at_prevalence"]:
        for metric in ("ppv", "npv"):
            name = f"{FIGURES[metric]} where {float(prevalence):.4g} are {positive}"
            measures = [point["at_prevalence"][prevalence][metric] for point in points]
            # One more decimal: at a low prevalence the NPV is close to 1.
            rows.append([name, *(cell(measure, digits + 1) for measure in measures)])
    share = points[0]["prevalence"]
    if share is not None:
        notes.add_line(
            f"PPV and NPV apply at the prevalence of these images ({share:.3g} are {positive}); at another they differ."
        )
    if points[0]["at_prevalence"]:
        notes.add_line(
            "At a stated prevalence they follow from sensitivity and specificity by Bayes' theorem, assuming that both "
            "are the same there."
        )
    if any(not float(count).is_integer() for point in points for count in point["counts"].values()):
        notes.add_line("Counts are means over the repeats.")
    return Sheet(
        f"Operating point: {positive} against the rest{of}",
        ["predicted by", *(point["rule"] for point in points)],
        rows,
        notes.lines(),
    )


def _abstention(found: Mapping[str, Any], of: str, digits: int) -> Sheet:
    notes = Notes()
    rows = []
    for point in found["points"]:
        wanted = f"{point['coverage_wanted']:.0%}"
        if point["coverage_wanted"] not in SHOWN_COVERAGES:
            continue
        for metric, name in ABSTAINING.items():
            notes.add(point[metric], name, wanted)
        rows.append([wanted, *(cell(point[metric], digits) for metric in ABSTAINING)])
    from_validation, from_test = (found["cuts_from"][name] for name in ("validation", "test"))
    notes.add_line(f"The least confident images are left undecided; confidence is the {found['confidence']}.")
    if from_validation:
        runs = f" in {from_validation} of {count_of(from_validation + from_test, 'run')}" if from_test else ""
        notes.add_line(f"The confidence limits were chosen on the validation images of each run{runs}.")
    if from_test:
        runs = f" in {from_test} of {count_of(from_validation + from_test, 'run')}" if from_validation else ""
        notes.add_line(
            f"The confidence limits were chosen on the test images themselves{runs} (fewer than 20 validation "
            "images): the coverage is exact by construction."
        )
    area = found["area_under_risk_coverage"]
    if area["value"] is not None:
        notes.add_line(
            f"Area under the risk-coverage curve {cell(area, digits + 1)}; random abstention would give "
            f"{found['area_by_chance']:.{digits + 1}f}."
        )
    return Sheet(f"Least confident images left undecided{of}", ["coverage", *ABSTAINING.values()], rows, notes.lines())


def _curves(curves: Sequence[Mapping[str, Any]], positive: str, of: str, digits: int) -> Sheet:
    columns = ["threshold risk"]
    for curve in curves:
        at = f" at {curve['prevalence']:.3g}" if len(curves) > 1 else ""
        columns += [f"the model{at}", f"all{at}"]
    rows = []
    for k, risk in enumerate(curves[0]["thresholds"]):
        if risk not in SHOWN_RISKS:
            continue
        row = [f"{risk:g}"]
        for curve in curves:
            ends = {end: curve[end][k] if curve[end] else None for end in ("low", "high")}
            row.append(cell({"value": curve["net_benefit"][k], **ends}, digits + 1))
            row.append(fixed(curve["treat_all"][k], digits + 1))
        rows.append(row)
    notes = [
        "Net benefit in true positives per image, of acting on the predictions, on all images, or on none (which is 0)."
    ]
    for curve in curves:
        where = f"Where {curve['prevalence']:.3g} of the images are {positive}"
        if curve["reason"]:
            notes.append(f"{where} it is undefined: {curve['reason']}.")
            continue
        stretches = [f"{low:g} to {high:g}" if low < high else f"{low:g}" for low, high in curve["best_between"]]
        better = f"at a risk of {' and of '.join(stretches)}" if stretches else "at none of these risks"
        notes.append(
            f"{where}, acting on the model has a higher net benefit than acting on all or on none {better} (point "
            "estimates)."
        )
    return Sheet(f"Net benefit of acting on {positive}{of}", columns, rows, notes)


def _run(entry: Mapping[str, Any]) -> str:
    return f"r{entry['repeat']}f{entry['fold']}"


def _valued(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"value": entry[name], "reason": entry["reason"]}


def _count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
