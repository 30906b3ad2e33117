"""Several runs as one method: mean ± SD over the runs, and one row a run. Needs only the standard library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from cxrtool.errors import count_of
from cxrtool.evaluation.sheet import Sheet, fixed

SETTINGS = ("seed", "model", "size", "lr")
"""What is shown of each run."""

COLUMNS = ("run", *SETTINGS, "images", "accuracy", "low", "high", "auc")
"""The header of `runs.csv`."""


def auc_of(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The AUC of an evaluation: of the positive class, otherwise the mean over the classes."""
    found: Mapping[str, Any] = (
        summary["overall"]["macro_auc"]
        if summary["positive"] is None
        else summary["per_class"][summary["positive"]]["auc"]
    )
    return found


def together(runs: Sequence[Mapping[str, str]], summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entry `together` of `metrics.json`.

    Args:
        runs: Of each run its name (`run`) and `SETTINGS`, as text.
        summaries: The evaluation of each run alone.

    Returns:
        `runs`, one entry a run, and `mean`: for each metric the mean and the standard deviation (n - 1) over the runs
        where it is defined, None where it is in fewer than one or two of them.
    """
    entries = [
        {
            **run,
            "images": summary["images"],
            "accuracy": dict(summary["overall"]["accuracy"]),
            "auc": dict(auc_of(summary)),
        }
        for run, summary in zip(runs, summaries, strict=True)
    ]
    metrics = {name: [summary["overall"][name]["value"] for summary in summaries] for name in summaries[0]["overall"]}
    if summaries[0]["positive"] is not None:
        metrics["auc"] = [entry["auc"]["value"] for entry in entries]
    for label in summaries[0]["classes"]:
        metrics[f"sensitivity of {label}"] = [
            summary["per_class"][label]["sensitivity"]["value"] for summary in summaries
        ]
    return {"runs": entries, "mean": {name: _spread(values) for name, values in metrics.items()}}


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "value": round(fmean(known), 10) if known else None,
        "sd": round(stdev(known), 10) if len(known) > 1 else None,
        "n": len(known),
    }


def table(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of `runs.csv`, with exact values."""
    return [
        {
            **{name: str(run[name]) for name in ("run", *SETTINGS, "images")},
            "accuracy": _exact(run["accuracy"]["value"]),
            "low": _exact(run["accuracy"]["low"]),
            "high": _exact(run["accuracy"]["high"]),
            "auc": _exact(run["auc"]["value"]),
        }
        for run in found["runs"]
    ]


def _exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def sheets(summary: Mapping[str, Any], names: Mapping[str, str], of: str, digits: int) -> list[Sheet]:
    """The two tables; `names` are those of the metrics."""
    found = summary["together"]
    runs = found["runs"]
    means = [
        [
            names.get(name, name),
            fixed(entry["value"], digits + 1)
            + (f" ± {fixed(entry['sd'], digits + 1)}" if entry["sd"] is not None else ""),
            str(entry["n"]),
        ]
        for name, entry in found["mean"].items()
    ]
    rows = [
        [
            *(run[name] or "-" for name in ("run", *SETTINGS)),
            str(run["images"]),
            *(fixed(run["accuracy"][key], digits + 1) for key in ("value", "low", "high")),
            fixed(run["auc"]["value"], digits + 1),
        ]
        for run in runs
    ]
    what = "the mean over the classes" if summary["positive"] is None else f"that of {summary['positive']}"
    notes = [f"low and high: the interval of the accuracy from resampled images or patients; AUC is {what}."]
    spread = ["SD is the standard deviation of the runs (n - 1): how much the result depends on the seed."]
    return [
        Sheet(f"{count_of(len(runs), 'run')} together{of}", ["metric", "mean ± SD of runs", "runs"], means, spread),
        Sheet(f"Each run{of}", ["run", *SETTINGS, "images", "accuracy", "low", "high", "AUC"], rows, notes),
    ]
